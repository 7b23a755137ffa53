"""What labels say, whatever format they come from: boxes with the names of classes, inside their image.

They are read here and not by the ``supervision`` library: its readers lose VOC's ``difficult``, swap reversed corners, pass boxes that
leave their image, keep a mask of the whole image for each polygon, and stop at a bad label without saying which. Where the labels are
good, the tests compare the boxes with those of supervision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from .files import BadLabel, Labelled
from .look import usable
from .read import corners_of

Corners = tuple[float, float, float, float]

TURNED = "has an EXIF orientation, which is not applied in training, and its labels may be for either image: store the image upright"


@dataclass(frozen=True)
class Box:
    """One label.

    Attributes:
        name: of the class.
        corners: ``x1 y1 x2 y2`` in pixels, inside the image.
        crowd: neither an example nor a mistake to find.
        record: the annotation, where it is one of COCO's.
    """

    name: str
    corners: Corners
    crowd: bool = False
    record: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Read:
    """What the labels of one image say.

    Attributes:
        image: the file.
        size: (width, height) of the stored image.
        boxes: the good ones.
        record: what COCO JSON says about the image, where it is from there.
        refused: whether labels of it have been left out already.
    """

    image: Path
    size: tuple[int, int]
    boxes: list[Box]
    record: Mapping[str, Any] | None = None
    refused: bool = False


def checked_size(item: Labelled, stated: Sequence[float | None], where: str, *, labelled: bool) -> tuple[int, int]:
    """Width and height of the stored image, which labels must be about.

    Args:
        item: the image.
        stated: the width and height that its labels state; None or 0 where they state none.
        where: they do so.
        labelled: whether there are boxes.

    Raises:
        BadLabel: the image is broken, has another size, or is turned by EXIF, so that boxes may be for the image before or after that.
    """
    look = usable(item.image, item.look)
    size, orientation = look.size, look.orientation
    known = None not in stated and tuple(stated) != (0, 0)
    if known and tuple(stated) != size:
        turned = f" and an EXIF orientation of {orientation}" if orientation != 1 else ""
        text = " x ".join(f"{number:g}" for number in stated if number is not None)
        raise BadLabel(where, f"states {text} px, {item.image} has {size[0]} x {size[1]}{turned}")
    # of an image that is turned by 90 degrees the stated size says which one was labelled
    if labelled and orientation != 1 and not (known and orientation > 4 and size[0] != size[1]):
        raise BadLabel(str(item.image), TURNED, image=item.image)
    return size


def checked_corners(box: Sequence[float], size: tuple[int, int]) -> Corners | str:
    """``x1 y1 x2 y2`` of a box ``x y width height``, or the rule that it breaks."""
    corners, broken = corners_of(np.array([box], dtype=np.float64), size)
    x1, y1, x2, y2 = corners[0].tolist()
    return broken.get(0, (x1, y1, x2, y2))


def xml_of(file: Path) -> ElementTree.Element:
    """The root of an XML file; BadLabel where it is none."""
    try:
        return ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # also an unknown encoding
        raise BadLabel(str(file), f"is not XML: {error}") from error


def number_of(text: str | None) -> float | None:
    """The finite number in a text."""
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
