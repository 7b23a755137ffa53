"""COCO detection JSON as training data: the rules of ``lossbox.coco.columns``, and that images exist and boxes lie in them.

An error names the file, the record and the rule that it breaks. Images without annotations are training data like any other.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .checks import BOX_FINITE, BOX_SHAPE, NO_LABEL_LEFT, BadRecord, InsideFolder, Where, brief, load_json
from .columns import GroundTruth, Sections, read_sections

__all__ = [
    "BOX_FINITE",
    "BOX_INSIDE",
    "BOX_SHAPE",
    "BOX_SIZE",
    "BadRecord",
    "CocoAnnotations",
    "CocoImage",
    "OnBadBox",
    "corners_of",
    "inspect_coco",
    "read_coco",
]

CLIPPED = 1.0
"""A box may leave its image by less than this many pixels, as COCO's do by rounding; it is clipped."""

BOX_SIZE = "bbox must have a positive width and height"
"""The ``rule`` of a ``BadRecord`` about a box without an area."""
BOX_INSIDE = f"bbox must lie inside its image (less than {CLIPPED:g} px outside is clipped)"
"""The ``rule`` of a ``BadRecord`` about a box outside its image."""

OnBadBox = Literal["error", "drop"]
"""What is done about a box that breaks a rule: stop, or leave it out, with an image that has no other, and say how many."""


@dataclass(frozen=True)
class CocoImage:
    """One image, or a tile of one, and its annotations.

    Attributes:
        id: the COCO id.
        path: of the image file.
        width: of the stored image, or of the tile, in pixels.
        height: of the stored image, or of the tile, in pixels.
        boxes: (n, 4) ``x1 y1 x2 y2`` in pixels of the stored image, or of the tile, inside it.
        labels: (n,) indices into ``CocoAnnotations.categories``.
        crowd: (n,) True where ``iscrowd`` is 1, or too little of an object is in the tile.
        corner: (y, x) in the stored image of the upper left pixel of the tile.
        whole: the image that a tile is a part of; None of an image.
    """

    id: int
    path: Path
    width: int
    height: int
    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    crowd: Bool[Tensor, " n"]
    corner: tuple[int, int] = (0, 0)
    whole: CocoImage | None = None

    @property
    def stored(self) -> CocoImage:
        """The image in the file: itself, or what it is a tile of."""
        return self if self.whole is None else self.whole


@dataclass(frozen=True)
class CocoAnnotations:
    """What a COCO JSON file says.

    Attributes:
        path: of the JSON file.
        categories: (id, name) in the order of the ids; a label is an index into this list.
        images: in the order of the file, those without annotations too.
        dropped: ids of the annotations that ``on_bad_box="drop"`` left out.
        ground_truth: the same annotations as columns, boxes as the file has them: what an evaluator compares with.
    """

    path: Path
    categories: list[tuple[int, str]]
    images: list[CocoImage]
    dropped: frozenset[int] = frozenset()
    ground_truth: GroundTruth | None = None

    @property
    def category_ids(self) -> list[int]:
        """The COCO id of each label."""
        return [category_id for category_id, _ in self.categories]

    @property
    def class_names(self) -> list[str]:
        """The name of each label."""
        return [name for _, name in self.categories]


def read_coco(
    annotation_file: str | os.PathLike[str], image_root: str | os.PathLike[str], *, on_bad_box: OnBadBox = "error"
) -> CocoAnnotations:
    """Reads COCO detection JSON and checks it.

    The file is an object with the lists ``images`` (``id``, ``file_name``, ``width``, ``height``), ``categories`` (``id``, ``name``) and
    ``annotations`` (``id``, ``image_id``, ``category_id``, ``bbox`` = x, y, width, height in pixels, optional ``iscrowd`` and ``area``);
    whatever else it holds is not looked at. Ids are whole numbers, also as text ("12"), and occur once in their
    list. Whether an image can be decoded, and has the size that the JSON states, is checked when it is loaded.

    Args:
        annotation_file: the JSON file.
        image_root: the folder that each ``file_name`` is relative to; no image may lie outside it, not by a symbolic link either.
        on_bad_box: ``"error"``, or ``"drop"``: leave such annotations out, with one warning a rule that says how many they are.
            The rules are: four numbers; finite; positive width and height; inside the image, where less than 1 px outside is clipped.
            An image all of whose annotations are left out is left out too, with a warning: its objects would be trained as background.

    Returns:
        The categories, and the images with their boxes.

    Raises:
        FileNotFoundError: the JSON file, the folder or an image is not there.
        ValueError: the file breaks a rule; the message names file, record and rule.

    Example:
        >>> import json, tempfile, pathlib
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (root / "cup.jpg").write_bytes(b"")
        >>> _ = (root / "cups.json").write_text(json.dumps({
        ...     "images": [{"id": 7, "file_name": "cup.jpg", "width": 60, "height": 40}],
        ...     "categories": [{"id": 3, "name": "cup"}],
        ...     "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 25]}]}))
        >>> read_coco(root / "cups.json", root).images[0].boxes
        tensor([[10., 10., 30., 35.]])
    """
    if on_bad_box not in ("error", "drop"):
        raise ValueError(f"on_bad_box: 'error' or 'drop' expected, got {on_bad_box!r}")
    file = _File(annotation_file, image_root)
    for table in file.tables:
        table.stop_at_bad()
    if file.missing:
        total = len(file.sections.images)
        first = next(iter(file.missing.values()))
        raise FileNotFoundError(f"{first} ({len(file.missing)} of {total} images are missing from {image_root})")
    bad = file.refuse_boxes()
    if on_bad_box == "error":
        file.sections.annotations.stop_at_bad("; on_bad_box='drop' leaves such boxes out")
    for rule in dict.fromkeys(error.rule for error in bad):
        broken = [error for error in bad if error.rule == rule]
        counted = f"{len(broken)} of {len(file.sections.annotations)} annotations dropped"
        warnings.warn(f"{counted}, the first is {broken[0]}", stacklevel=2)
    if lost := file.refuse_unlabelled():
        if len(lost) == len(file.images):
            raise ValueError(f"{file.path}: no image is left; the first: {lost[0]}")
        warnings.warn(f"{len(lost)} of {len(file.images)} images dropped, the first is {lost[0]}", stacklevel=2)
    return file.annotations()


def inspect_coco(annotation_file: str | os.PathLike[str], image_root: str | os.PathLike[str]) -> tuple[CocoAnnotations, list[BadRecord]]:
    """Reads COCO detection JSON by the rules of ``read_coco``, and does not stop at the first record that breaks one.

    Args:
        annotation_file: the JSON file.
        image_root: the folder that each ``file_name`` is relative to.

    Returns:
        What can be used, and every record that cannot, each with the first rule that it breaks. What refers to a bad image or category
        is left out with it and is not listed. An image none of whose annotations can be used is a bad image.

    Raises:
        FileNotFoundError: the JSON file or the folder is not there.
        ValueError: the file as a whole breaks a rule: it is not JSON, lacks a section, or a section has no record.

    Example:
        >>> import json, tempfile, pathlib
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (root / "cup.jpg").write_bytes(b"")
        >>> _ = (root / "cups.json").write_text(json.dumps({
        ...     "images": [{"id": 7, "file_name": "cup.jpg", "width": 60, "height": 40}, {"id": 8}],
        ...     "categories": [{"id": 3, "name": "cup"}],
        ...     "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 0, 25]},
        ...                     {"id": 2, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 25]}]}))
        >>> annotations, bad = inspect_coco(root / "cups.json", root)
        >>> len(annotations.images), [error.rule for error in bad]
        (1, ["lacks 'width'", 'bbox must have a positive width and height'])
    """
    file = _File(annotation_file, image_root)
    file.refuse_boxes()
    missing = [(file.images, index) for index in file.missing]
    bad = [table.bad[index] for table in file.tables for index in sorted(table.bad) if (table, index) not in missing]
    unlabelled = file.refuse_unlabelled()
    return file.annotations(), [*bad, *file.missing.values(), *unlabelled]


class _File:
    """A file and its folder of images under the rules of training data."""

    def __init__(self, annotation_file: str | os.PathLike[str], image_root: str | os.PathLike[str]) -> None:
        self.path, root = Path(annotation_file), Path(image_root)
        document = load_json(self.path, "COCO detection JSON")
        if isinstance(document, dict) and not root.is_dir():
            raise FileNotFoundError(f"image_root: {root} is not a folder; it must hold the images that {self.path} names")
        self.sections: Sections = read_sections(document, str(self.path))
        self.images = self.sections.images
        self.tables = (self.sections.categories, self.images, self.sections.annotations)
        for table, reason in ((self.tables[0], "a detector needs at least one"), (self.images, "at least one image expected")):
            if not len(table):
                raise ValueError(f"{self.path}: {table.section} is empty; {reason}")
        names = self.sections.names
        for index in [index for index, name in enumerate(names) if name in names[:index] and index not in self.tables[0].bad]:
            self.tables[0].refuse(index, "name is that of another category: each class needs a name of its own", got=names[index])
        self.sizes = np.stack([self.images.integers("width"), self.images.integers("height")], axis=1)
        for index in np.flatnonzero(~((self.sizes > 0) & (self.sizes < 2**31)).all(axis=1)).tolist():
            width, height = self.sizes[index]
            self.images.refuse(index, f"width and height must be positive numbers of pixels, got {width} and {height}")
        self.paths, self.missing = self._find(root)

    def _find(self, root: Path) -> tuple[dict[int, Path], dict[int, BadRecord]]:
        """The file of each good image, and those without a file; these count as bad from here on."""
        inside, names, ids = InsideFolder(root), self.images.texts("file_name"), self.sections.image_ids
        paths: dict[int, Path] = {}
        missing: dict[int, BadRecord] = {}
        for index in np.flatnonzero(self.images.good).tolist():
            found = inside.path(names[index])
            if isinstance(found, str):
                self.images.refuse(index, found)
            elif found is None:
                where = Where(str(self.path), "images", index, int(ids[index]))
                missing[index] = BadRecord(where, f"the image {brief(str(root / names[index]))} does not exist")
            else:
                paths[index] = found
        return paths, missing

    def refuse_boxes(self) -> list[BadRecord]:
        """Refuses the boxes that break a rule, of annotations that are good otherwise; what refers to a bad image is passed by."""
        self.images.bad |= self.missing
        sections = self.sections
        rows = np.flatnonzero(sections.kept())
        sizes = self.sizes[sections.image[rows]]
        rules = {int(rows[at]): rule for at, rule in corners_of(sections.boxes[rows], sizes)[1].items()}
        rules |= {row: sections.broken_boxes[row] for row in sections.broken_boxes.keys() & set(rows.tolist())}
        for row in sorted(rules):
            image = int(sections.image[row])
            width, height = self.sizes[image]
            detail = f", image id {sections.image_ids[image]} of {width} x {height} px"
            sections.annotations.refuse(row, rules[row], detail=detail, got=sections.annotations.records[row].get("bbox"))
            error = sections.annotations.bad[row]
            error.image, error.box = self.paths.get(image), None if row in sections.broken_boxes else sections.boxes[row].tolist()
        return [sections.annotations.bad[row] for row in sorted(rules)]

    def refuse_unlabelled(self) -> list[BadRecord]:
        """Refuses the images that have annotations, none of which can be used."""
        sections = self.sections
        unlabelled = np.setdiff1d(sections.image[sections.image >= 0], sections.image[sections.kept()])
        lost: list[int] = unlabelled[self.images.good[unlabelled]].tolist()
        for index in lost:
            self.images.refuse(index, NO_LABEL_LEFT, detail=f" ({brief(str(self.paths[index]))})")
        return [self.images.bad[index] for index in lost]

    def annotations(self) -> CocoAnnotations:
        sections, truth = self.sections, self.sections.ground_truth()
        rows = np.flatnonzero(sections.kept())
        corners, _ = corners_of(sections.boxes[rows], self.sizes[sections.image[rows]])
        by_image = np.argsort(sections.image[rows], kind="stable")
        bounds = np.searchsorted(sections.image[rows][by_image], np.arange(len(self.images) + 1))
        arrays = (corners[by_image].astype(np.float32), truth.category[by_image], truth.crowd[by_image])
        columns = [torch.from_numpy(array) for array in arrays]
        images = []
        good = self.images.good
        for index, path in ((index, path) for index, path in self.paths.items() if good[index]):
            part = slice(int(bounds[index]), int(bounds[index + 1]))
            width, height = self.sizes[index].tolist()
            boxes, labels, crowd = (column[part].clone() for column in columns)
            images.append(CocoImage(int(sections.image_ids[index]), path, width, height, boxes, labels, crowd))
        categories = list(zip(truth.category_ids.tolist(), truth.category_names, strict=True))
        dropped = frozenset(error.where.id for error in sections.annotations.bad.values() if type(error.where.id) is int)
        return CocoAnnotations(self.path, categories, images, dropped, truth)


def corners_of(boxes: Float[np.ndarray, "n 4"], sizes: Any) -> tuple[Float[np.ndarray, "n 4"], dict[int, str]]:
    """``x1 y1 x2 y2`` of COCO boxes, clipped to their images where less than ``CLIPPED`` is outside; and the rule that each bad one breaks.

    Args:
        boxes: (n, 4) ``x y width height``.
        sizes: (n, 2) or (2,), width and height of the images.

    Example:
        >>> corners_of(np.array([[-0.5, 0.0, 9.0, 4.0], [0.0, 0.0, 0.0, 4.0]]), (10, 5))[1]
        {1: 'bbox must have a positive width and height'}
    """
    sizes = np.broadcast_to(np.asarray(sizes, dtype=np.float64), (len(boxes), 2))
    finite = np.isfinite(boxes).all(axis=1)
    x, y, w, h = np.where(finite[:, None], boxes, 0.0).T
    with np.errstate(over="ignore"):
        right, bottom = x + w, y + h
    inside = (x > -CLIPPED) & (y > -CLIPPED) & (right < sizes[:, 0] + CLIPPED) & (bottom < sizes[:, 1] + CLIPPED)
    corners = np.stack([np.maximum(x, 0.0), np.maximum(y, 0.0), np.minimum(right, sizes[:, 0]), np.minimum(bottom, sizes[:, 1])], axis=1)
    remains = (corners[:, 0] < corners[:, 2]) & (corners[:, 1] < corners[:, 3])
    # In float32, the type of the records, a box of a fraction of a pixel far from the origin may have no size left.
    with np.errstate(over="ignore"):
        small = corners.astype(np.float32)
    sized = (small[:, 0] < small[:, 2]) & (small[:, 1] < small[:, 3])
    broken: dict[int, str] = {}
    for rule, holds in ((BOX_FINITE, finite), (BOX_SIZE, (w > 0) & (h > 0)), (BOX_INSIDE, inside & remains), (BOX_SIZE, sized)):
        for index in np.flatnonzero(~holds).tolist():
            broken.setdefault(index, rule)
    return corners, broken
