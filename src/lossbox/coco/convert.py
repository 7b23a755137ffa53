"""Data of other layouts as COCO detection JSON."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from .files import BadLabel, Labelled, OnBad, in_place_of_images, stop
from .labels import Box, Difficult, Read, read_voc, read_yolo
from .layouts import voc_parts, yolo_parts

__all__ = ["Box", "Layout", "Read", "coco_document", "read_part", "voc_layout", "yolo_layout"]


@dataclass(frozen=True)
class Layout:
    """A data set whose files have been found and not yet read.

    Attributes:
        kind: what it is called.
        parts: the images of each part.
        read: reads the labels of one image; the second argument takes the labels that break a rule.
        names: of the classes, in their order; None where only the labels say.
        notes: what was left out for a reason.
        ids: of the categories by name, where the data has some.
    """

    kind: str
    parts: dict[str, list[Labelled]]
    read: Callable[[Labelled, OnBad], Read]
    names: list[str] | None = None
    notes: list[BadLabel] = field(default_factory=list)
    ids: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        for one, other in combinations(self.parts, 2):
            shared = {item.image for item in self.parts[one]} & {item.image for item in self.parts[other]}
            if "trainval" not in (one, other):
                self.notes.extend(BadLabel(str(image), f"is in the parts {one} and {other}") for image in sorted(shared))


def voc_layout(
    source: Path, on_bad: OnBad = stop, *, names: Sequence[str] | None = None, difficult: Difficult = "crowd", first_pixel: int = 1
) -> Layout:
    """A Pascal VOC folder; see ``lossbox.coco.layouts.voc_parts`` and ``lossbox.coco.labels.read_voc``."""
    notes: list[BadLabel] = []
    parts = voc_parts(source, on_bad, notes.append)
    classes = None if names is None else list(names)
    if classes is not None and len(set(classes)) < len(classes):
        raise ValueError(f"classes: each name once expected, got {', '.join(classes)}")
    return Layout("Pascal VOC", parts, partial(read_voc, names=classes, difficult=difficult, first_pixel=first_pixel), classes, notes)


def yolo_layout(source: Path, on_bad: OnBad = stop) -> Layout:
    """A YOLO folder; see ``lossbox.coco.layouts.yolo_parts`` and ``lossbox.coco.labels.read_yolo``."""
    notes: list[BadLabel] = []
    parts, names, keypoints = yolo_parts(source, on_bad, notes.append)
    return Layout("YOLO", parts, partial(read_yolo, names=names, keypoints=keypoints), names, notes)


def read_part(
    layout: Layout, part: str, on_bad: OnBad = stop, *, items: Iterable[Labelled] | None = None, allow_empty: bool = False
) -> list[Read]:
    """What the labels of one part say.

    Args:
        layout: the data set.
        part: one of its parts.
        on_bad: takes every label and image that breaks a rule; raise, or return to leave it out.
        items: the images of the part, for instance with a progress bar around them.
        allow_empty: accept a part without a label file.

    Raises:
        ValueError: no image has labels, or none is left.
    """
    of_part = layout.parts[part]
    if of_part and not allow_empty and all(item.labels is None for item in of_part):
        image = of_part[0].image
        places = dict.fromkeys(str(path.with_suffix("")) for path in (in_place_of_images(image), image))
        raise ValueError(
            f"{part}: none of its {len(of_part)} images has a file of labels; looked for {' and '.join(places)}.* and likewise for the "
            "others; --allow-empty takes them as images without objects"
        )
    read = []
    for item in of_part if items is None else items:
        try:
            read.append(layout.read(item, on_bad))
        except BadLabel as error:
            on_bad(error)
    if not read:
        raise ValueError(f"{part}: no image is left of {len(of_part)}")
    return read


def coco_document(parts: Iterable[Read], names: Sequence[str] | Mapping[str, int], root: Path) -> dict[str, Any]:
    """COCO detection JSON of what was read.

    Args:
        parts: what was read, of one part of the data.
        names: of the classes; the category ids are 1, 2, ... in this order, or those of a mapping.
        root: the folder that each ``file_name`` is to be relative to.

    Returns:
        An object with ``images``, ``categories`` and ``annotations``, ids from 1. Records of COCO JSON keep theirs.

    Example:
        >>> read = Read(Path("images/a.jpg"), (40, 30), [Box("cup", (1.0, 2.0, 11.0, 22.0))])
        >>> coco_document([read], ["cup"], Path("images"))["annotations"]
        [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1.0, 2.0, 10.0, 20.0], 'area': 200.0, 'iscrowd': 0}]
    """
    categories = dict(names) if isinstance(names, Mapping) else {name: number for number, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, read in enumerate(parts, 1):
        file_name = Path(os.path.relpath(read.image, root)).as_posix()
        stated = {"id": number, "width": read.size[0], "height": read.size[1], **(read.record or {})}
        images.append({"id": stated["id"], "file_name": file_name} | stated | {"file_name": file_name})
        for box in read.boxes:
            belongs = {"image_id": stated["id"], "category_id": categories[box.name]}
            if box.record is not None:
                annotations.append({**box.record, **belongs})
                continue
            x1, y1, x2, y2 = box.corners
            width, height = x2 - x1, y2 - y1
            row = {"id": len(annotations) + 1, **belongs, "bbox": [x1, y1, width, height]}
            annotations.append({**row, "area": width * height, "iscrowd": int(box.crowd)})
    return {
        "images": images,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": annotations,
    }
