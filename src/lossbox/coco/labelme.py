"""LabelMe's JSON, a file for each image: the boxes around its shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from .entries import XYWH, Entry, Shape, around, around_ellipse, broken, entries_layout, pixels, points_of, without_box
from .files import BadLabel, OnBad, part_of_folders, stop
from .labels import number_of
from .layout import Layout

BOXLESS = frozenset({"point", "points", "line", "linestrip"})


def is_labelme(document: Any) -> bool:
    """Whether JSON is what LabelMe writes about one image."""
    return isinstance(document, Mapping) and isinstance(document.get("shapes"), list) and "imagePath" in document


def labelme_layout(root: Path, documents: Mapping[Path, Mapping[str, Any]], on_bad: OnBad = stop) -> Layout:
    """The images of LabelMe's files below a folder."""
    notes: list[BadLabel] = []
    entries = {file: [_entry(file, document, part_of_folders(root, file) or "all", notes.append)] for file, document in documents.items()}
    return entries_layout("LabelMe", root, entries, on_bad, notes)


def _entry(file: Path, document: Mapping[str, Any], part: str, note: OnBad) -> Entry:
    size = number_of(str(document.get("imageWidth"))), number_of(str(document.get("imageHeight")))
    name = PurePosixPath(str(document["imagePath"]).replace("\\", "/")).name
    return Entry(str(file), name, list(_shapes(file, document["shapes"], note)), size, part)


def _shapes(file: Path, shapes: list[Any], note: OnBad) -> Iterator[Shape]:
    for number, shape in enumerate(shapes):
        where = f"{file}: shapes[{number}]"
        kind = shape.get("shape_type", "polygon") if isinstance(shape, Mapping) else None
        if kind in BOXLESS:
            yield without_box(where, kind, note)
            continue
        try:
            if not isinstance(shape, Mapping) or not isinstance(shape.get("points"), list):
                raise BadLabel(where, "must have points", shape)
            yield Shape(where, str(shape.get("label") or ""), pixels(*_box(where, kind, shape["points"])), around=kind != "rectangle")
        except BadLabel as error:
            yield broken(error)


def _box(where: str, kind: Any, points: list[Any]) -> XYWH:
    pairs = points_of(where, points)
    if kind == "circle" and len(pairs) == 2:  # the center, and a point of the border
        (x, y), border = pairs
        radius = math.dist((x, y), border)
        return around_ellipse(x, y, radius, radius)
    return around(pairs)
