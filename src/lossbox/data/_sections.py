"""The sections of a COCO JSON file, one function each, and the rules of their records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._checks import BadRecord, InsideFolder, OnBadRecord, Where, brief, records, text, whole

CLIPPED = 1.0
"""A box may leave its image by less than this many pixels, as COCO's do by rounding; it is clipped."""

BOX_SHAPE = "bbox must be a list of four numbers: x, y, width, height"
"""The ``rule`` of a ``BadRecord`` about a box of the wrong type or length."""
BOX_FINITE = "bbox must be finite"
"""The ``rule`` of a ``BadRecord`` about a box not finite."""
BOX_SIZE = "bbox must have a positive width and height"
"""The ``rule`` of a ``BadRecord`` about a box without an area."""
BOX_INSIDE = f"bbox must lie inside its image (less than {CLIPPED:g} px outside is clipped)"
"""The ``rule`` of a ``BadRecord`` about a box outside its image."""

Place = tuple[int, Path, int, int]
"""Id, path, width and height of an image."""


@dataclass(frozen=True)
class Sections:
    """The good records of a file.

    Attributes:
        categories: (id, name) in the order of the ids.
        images: by id, in the order of the file.
        rows: for each image (x1, y1, x2, y2, label, crowd) of its boxes.
        missing: one for each image whose file is not there.
    """

    categories: list[tuple[int, str]]
    images: dict[int, Place]
    rows: dict[int, list[tuple[float, ...]]]
    missing: list[BadRecord]


def read_sections(path: Path, document: dict[str, Any], root: Path, *, on_bad: OnBadRecord, on_bad_box: OnBadRecord) -> Sections:
    """Reads all records; those that break a rule are handed over and passed by, each once: what refers to a bad record is not bad too.

    Raises:
        ValueError: a section is not there, is no list, or has no record.
    """
    categories, named = _read_categories(path, document, on_bad)
    images, known, missing = _read_images(path, document, root, on_bad)
    labels = {category_id: label for label, (category_id, _) in enumerate(categories)}
    rows: dict[int, list[tuple[float, ...]]] = {image_id: [] for image_id in images}
    seen: set[int] = set()
    for where, entry in records(path, document, "annotations", on_bad):
        try:
            image_id, category_id, crowd = _references(where, entry, seen, known, named)
        except BadRecord as error:
            on_bad(error)
            continue
        if image_id not in images or category_id not in labels:
            continue
        _, _, width, height = images[image_id]
        box = corners_or_rule(entry.get("bbox"), width, height)
        if isinstance(box, tuple):
            rows[image_id].append((*box, float(labels[category_id]), float(crowd)))
        else:
            on_bad_box(BadRecord(where, box, image=f", image id {image_id} of {width} x {height} px", got=entry.get("bbox")))
    return Sections(categories, images, rows, missing)


def _read_categories(path: Path, document: dict[str, Any], on_bad: OnBadRecord) -> tuple[list[tuple[int, str]], set[int]]:
    """The good ones, and the ids of all."""
    categories: dict[int, str] = {}
    known: set[int] = set()
    for where, entry in records(path, document, "categories", on_bad):
        try:
            category_id = _new_id(where, entry, known)
            categories[category_id] = text(entry, "name", where)
        except BadRecord as error:
            on_bad(error)
    if not document["categories"]:
        raise ValueError(f"{path}: categories is empty; a detector needs at least one")
    return sorted(categories.items()), known


def _read_images(
    path: Path, document: dict[str, Any], root: Path, on_bad: OnBadRecord
) -> tuple[dict[int, Place], set[int], list[BadRecord]]:
    """The good ones by id in the order of the file, the ids of all, and those without a file."""
    inside = InsideFolder(root)
    images: dict[int, Place] = {}
    known: set[int] = set()
    missing: list[BadRecord] = []
    for where, entry in records(path, document, "images", on_bad):
        try:
            image_id = _new_id(where, entry, known)
            width, height = whole(entry, "width", where), whole(entry, "height", where)
            if not (0 < width < 2**31 and 0 < height < 2**31):
                raise BadRecord(where, f"width and height must be positive numbers of pixels, got {width} and {height}")
            file_name = text(entry, "file_name", where)
            image = inside.path(file_name, where)
        except BadRecord as error:
            on_bad(error)
            continue
        if image is None:
            missing.append(BadRecord(where, f"the image {brief(str(root / file_name))} does not exist"))
        else:
            images[image_id] = (image_id, image, width, height)
    if not document["images"]:
        raise ValueError(f"{path}: images is empty; at least one image expected")
    return images, known, missing


def _new_id(where: Where, entry: dict[str, Any], known: set[int]) -> int:
    new = whole(entry, "id", where)
    if new in known:
        raise BadRecord(where, f"id occurs twice in {where.section}")
    known.add(new)
    return new


def _references(where: Where, entry: dict[str, Any], seen: set[int], images: set[int], categories: set[int]) -> tuple[int, int, int]:
    """The id of the image, that of the category, and whether the annotation is a crowd."""
    _new_id(where, entry, seen)
    image_id, category_id = whole(entry, "image_id", where), whole(entry, "category_id", where)
    if image_id not in images:
        raise BadRecord(where, f"image_id {image_id} is not the id of an image")
    if category_id not in categories:
        raise BadRecord(where, f"category_id {category_id} is not the id of a category")
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise BadRecord(where, "iscrowd must be 0 or 1", got=crowd)
    return image_id, category_id, int(crowd)


def corners_or_rule(box: Any, width: int, height: int) -> tuple[float, float, float, float] | str:
    """``x1 y1 x2 y2`` of a COCO box, clipped to its image where less than ``CLIPPED`` is outside; else the rule that it breaks."""
    if not isinstance(box, list) or len(box) != 4 or not {type(v) for v in box} <= {int, float}:
        return BOX_SHAPE
    try:
        x, y, w, h = map(float, box)
    except OverflowError:  # a whole number beyond 1e308
        return BOX_FINITE
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(w) and math.isfinite(h)):
        return BOX_FINITE
    if not (w > 0 and h > 0):
        return BOX_SIZE
    if not (x > -CLIPPED and y > -CLIPPED and x + w < width + CLIPPED and y + h < height + CLIPPED):
        return BOX_INSIDE
    x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    # In float32, the type of the records, a box of a fraction of a pixel far from the origin may have no size left.
    if not (np.float32(x1) < np.float32(x2) and np.float32(y1) < np.float32(y2)):
        return BOX_SIZE if x1 < x2 and y1 < y2 else BOX_INSIDE
    return x1, y1, x2, y2
