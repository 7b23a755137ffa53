"""Label files of Pascal VOC and YOLO, one record at a time.

They are read here and not by the ``supervision`` library: its readers lose VOC's ``difficult``, swap reversed corners, pass boxes that
leave their image, keep a mask of the whole image for each polygon, and stop at a bad label without saying which. Where the labels are
good, the tests compare the boxes with those of supervision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from .files import BadLabel, Labelled, OnBad, image_size, lines_of, normal
from .read import corners_of

Difficult = Literal["crowd", "keep", "drop"]
"""What becomes of VOC's objects with ``difficult`` 1."""

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
    """

    image: Path
    size: tuple[int, int]
    boxes: list[Box]
    record: Mapping[str, Any] | None = None


def checked_corners(box: Sequence[float], size: tuple[int, int]) -> Corners | str:
    """``x1 y1 x2 y2`` of a box ``x y width height``, or the rule that it breaks."""
    corners, broken = corners_of(np.array([box], dtype=np.float64), size)
    x1, y1, x2, y2 = corners[0].tolist()
    return broken.get(0, (x1, y1, x2, y2))


# -- Pascal VOC


def read_voc(
    item: Labelled, on_bad: OnBad, *, names: Sequence[str] | None = None, difficult: Difficult = "crowd", first_pixel: int = 1
) -> Read:
    """The boxes of one image of a VOC folder; an image without XML has none.

    VOC counts pixels from 1 and names the last pixel inside: ``x1 y1 x2 y2 = xmin - 1, ymin - 1, xmax, ymax``.

    Args:
        item: the image.
        on_bad: takes each object that breaks a rule; raise, or return to leave it out.
        names: the classes that there are; any by default.
        difficult: objects with ``difficult`` 1 become crowd regions (ignored in training and evaluation), or are kept, or dropped.
        first_pixel: 0 for files that count from 0 and name the pixel after the last.

    Raises:
        BadLabel: the XML is broken, the image is, or they do not belong together.
    """
    size, orientation = image_size(item.image)
    if item.labels is None:
        return Read(item.image, size, [])
    root = xml_of(item.labels)
    stated = [number_of(root.findtext(f"size/{side}")) for side in ("width", "height")]
    if None not in stated and tuple(stated) not in ((0, 0), size):
        turned = f" and an EXIF orientation of {orientation}" if orientation != 1 else ""
        raise BadLabel(str(item.labels), f"states {stated[0]:g} x {stated[1]:g} px, {item.image} has {size[0]} x {size[1]}{turned}")
    objects = root.findall("object")
    # Of an image that is turned by 90 degrees the stated size says which one was labelled.
    if objects and orientation != 1 and not (orientation > 4 and tuple(stated) == size and size[0] != size[1]):
        raise BadLabel(str(item.image), TURNED)
    boxes = []
    for index, entry in enumerate(objects):
        try:
            box = _voc_object(f"{item.labels}: object[{index}]", entry, size, names, first_pixel)
        except BadLabel as error:
            on_bad(error)
            continue
        hard = (entry.findtext("difficult") or "").strip() == "1"
        if not (hard and difficult == "drop"):
            boxes.append(Box(box.name, box.corners, crowd=hard and difficult == "crowd"))
    return Read(item.image, size, boxes)


def _voc_object(where: str, entry: ElementTree.Element, size: tuple[int, int], names: Sequence[str] | None, first_pixel: int) -> Box:
    name = normal((entry.findtext("name") or "").strip())
    if not name:
        raise BadLabel(where, "lacks a name")
    if names is not None and name not in names:
        raise BadLabel(where, f"the name must be one of {', '.join(names)}", name)
    texts = [entry.findtext(f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")]
    numbers = [number for number in map(number_of, texts) if number is not None]
    if len(numbers) != 4:
        raise BadLabel(where, "bndbox must have the numbers xmin, ymin, xmax, ymax", texts)
    xmin, ymin, xmax, ymax = numbers
    x, y = xmin - first_pixel, ymin - first_pixel
    corners = checked_corners([x, y, xmax - x, ymax - y], size)
    if isinstance(corners, str):
        hint = "; files that count pixels from 0: --first-pixel 0" if min(xmin, ymin) == 0 and first_pixel == 1 else ""
        raise BadLabel(f"{where} in {size[0]} x {size[1]} px", corners + hint, texts)
    return Box(name, corners)


def xml_of(file: Path) -> ElementTree.Element:
    """The root of an XML file; BadLabel where it is none."""
    try:
        return ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # also an unknown encoding
        raise BadLabel(str(file), f"is not XML: {error}") from error


# -- YOLO


def read_yolo(item: Labelled, on_bad: OnBad, *, names: Sequence[str], keypoints: int = 0) -> Read:
    """The boxes of one image of a YOLO folder; an image without a label file has none.

    A line is ``class x y w h``: center and size in shares of the image; a number after it (a confidence) and keypoints are not read. A
    polygon ``class x y x y x y ...`` becomes the box around it.

    Args:
        item: the image.
        on_bad: takes each line that breaks a rule; raise, or return to leave it out.
        names: of the classes.
        keypoints: numbers of keypoints after each box.

    Raises:
        BadLabel: the image or the label file is broken.
    """
    size, orientation = image_size(item.image)
    if orientation != 1:
        raise BadLabel(str(item.image), TURNED)
    boxes = []
    for number, line in lines_of(item.labels) if item.labels is not None else ():
        try:
            boxes.append(_yolo_line(f"{item.labels}: line {number}", line, names, size, keypoints))
        except BadLabel as error:
            on_bad(error)
    return Read(item.image, size, boxes)


def _yolo_line(where: str, line: str, names: Sequence[str], size: tuple[int, int], keypoints: int) -> Box:
    words = line.split()
    numbers = [number for number in map(number_of, words) if number is not None]
    polygon = len(words) >= 7 and len(words) % 2 == 1 and not (keypoints and len(words) == 5 + keypoints)
    if len(numbers) != len(words) or not (polygon or len(words) in (5, 6, 5 + keypoints)):
        raise BadLabel(where, "class, x, y, width, height or class and the corners of a polygon expected, as numbers", line)
    if numbers[0] not in range(len(names)):
        raise BadLabel(where, f"the class must be a whole number from 0 to {len(names) - 1}", words[0])
    if polygon:
        x1, x2, y1, y2 = min(numbers[1::2]), max(numbers[1::2]), min(numbers[2::2]), max(numbers[2::2])
        x, y, w, h = x1, y1, x2 - x1, y2 - y1
    else:
        _, center_x, center_y, w, h = numbers[:5]
        x, y = center_x - w / 2, center_y - h / 2
    width, height = size
    corners = checked_corners([x * width, y * height, w * width, h * height], size)
    if isinstance(corners, str):
        raise BadLabel(f"{where} in {width} x {height} px", corners, line)
    return Box(names[int(numbers[0])], corners)


def number_of(text: str | None) -> float | None:
    """The finite number in a text."""
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
