"""Detections of any program, from COCO's results format and its relatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Int

from .checks import DIGITS, Table, brief
from .columns import DetectionColumns, GroundTruth, load, refuse_boxes
from .shapes import boxes_and_areas, read_shapes

RESULTS = "COCO results JSON (a list of objects with image_id, category_id, bbox and score)"

CategoryIds: TypeAlias = Literal["id", "from-0", "from-1"]


def read_results(
    source: str | Path | Sequence[Mapping[str, Any]], ground_truth: GroundTruth, *, category_ids: CategoryIds | None = None
) -> DetectionColumns:
    """The detections of a COCO results file, or of its content.

    Args:
        source: a path, or the list that is in such a file: ``image_id``, ``category_id``, ``bbox`` (``x y width height``, pixels of the
            original image), ``score`` in [0, 1]. The list may be empty. An ``image_id`` that is text is the ``file_name`` of an image of
            the ground truth, or its stem, or its id written as text, and refused where it is the name of one image and the id of another;
            numbers that are no ids of images are the stems of file names, if they are so without exception. Where masks or keypoints are
            compared, ``segmentation`` (RLE) or ``keypoints`` too, and ``bbox`` may be missing.
        ground_truth: what was looked for; its ``iou_type`` says what is compared.
        category_ids: what a ``category_id`` is: ``id``, that of a category of the ground truth; ``from-0`` and ``from-1``, the place of the
            class among these by ascending id, counted from 0 or 1. By default ``id``; but where the images are named by file and both
            ``id`` and ``from-1`` could be meant, it must be said, since Ultralytics writes such files and counts from 1.

    Returns:
        The detections as columns, in the order of the file; ``notes`` say what was read in another way than by id.

    Raises:
        ValueError: not a list; a field is missing or of the wrong type; an unknown image or category; a box with NaN, infinity or
            negative size; a score that is NaN or out of [0, 1]; ``category_id`` with two meanings. The message counts such records.
        FileNotFoundError: there is no such file.

    Source:
        COCO's results format; file stems as ids and categories from 1, as Ultralytics writes them.

    Example:
        >>> from lossbox.coco.columns import read_ground_truth
        >>> truth = read_ground_truth({"images": [{"id": 7}], "categories": [{"id": 3, "name": "cup"}], "annotations": []})
        >>> read_results([{"image_id": 7, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}], truth, category_ids="from-1").notes
        ('category_id: the place of a class, counted from 1',)
        >>> read_results([{"image_id": 7, "category_id": 4, "bbox": [0, 0, 10, 10], "score": 0.5}], truth)
        Traceback (most recent call last):
        ValueError: results[0]: category_id 4 is not the id of a category of the ground truth (ids: [3])
    """
    content, name = load(source, "results", RESULTS)
    if not isinstance(content, Sequence) or isinstance(content, str):
        got = f"an object with {brief(sorted(content))}" if isinstance(content, Mapping) else brief(content)
        raise ValueError(f"{name}: {RESULTS} expected, got {got}")
    table, notes = Table(content, name), []
    scores = table.floats("score")
    table.refuse_where(~((scores >= 0) & (scores <= 1)), "score", "must be in [0, 1]")
    image, note = _image_rows(table, ground_truth)
    notes += [note] if note else []
    by_file = bool(notes) or any("file_name" in record for record in table.records)
    category, note, hint = _category_rows(table, ground_truth, category_ids, by_file=by_file)
    notes += [note] if note else []
    sizes = _sizes_of(ground_truth, image) if ground_truth.iou_type == "segm" else ()
    shapes = read_shapes(table, ground_truth.iou_type, sizes=sizes)
    areas = None
    if shapes:
        around, areas = boxes_and_areas(shapes, ground_truth.iou_type)
        boxless = [record.get("bbox") is None for record in table.records]
        pairs = zip(table.records, boxless, around.tolist(), strict=True)
        table.records = [{**record, "bbox": box} if missing else record for record, missing, box in pairs]
    boxes, broken = table.boxes()
    refuse_boxes(table, boxes, broken)
    if areas is not None:  # as pycocotools: of a detection with a box, the box's
        areas = np.where(boxless, areas, boxes[:, 2] * boxes[:, 3])
    more = f"; {len(table.bad):,} of {len(table):,} detections cannot be used" if len(table.bad) > 1 else ""
    table.stop_at_bad(more + hint)
    return DetectionColumns(image, category, boxes, scores, areas, shapes, tuple(notes))


def _category_rows(
    table: Table, ground_truth: GroundTruth, meaning: CategoryIds | None, *, by_file: bool
) -> tuple[Int[np.ndarray, " m"], str, str]:
    """The category of each detection, a note about how it was read, and what to add to an error."""
    known = ground_truth.category_ids
    if meaning in ("from-0", "from-1"):
        first = int(meaning[-1])
        places = table.integers("category_id") - first
        outside = (places < 0) | (places >= len(known))
        table.refuse_where(outside, "category_id", f"must be the place of a class, {first} to {first + len(known) - 1}")
        return np.where(outside, 0, places), f"category_id: the place of a class, counted from {first}", ""
    if meaning not in (None, "id"):
        raise ValueError(f"category_ids: one of id, from-0, from-1 expected, got {meaning!r}")
    ids = table.integers("category_id")
    unknown = ~np.isin(ids, known)
    fits = [first for first in (1, 0) if len(ids) and ids.min() >= first and ids.max() < first + len(known)]
    counts_from_1 = known.tolist() == list(range(1, len(known) + 1))
    if meaning is None and by_file and 1 in fits and not unknown.any() and not counts_from_1:
        raise ValueError(
            f"{table.source}: category_id: the images are named by file, as Ultralytics does, which counts the classes from 1; but the ids "
            f"of the ground truth, {brief(known.tolist())}, may be meant too; category_ids (--category-ids): from-1 or id expected"
        )
    hint = f" (ids: {brief(known.tolist())})" if unknown.any() else ""
    if unknown.any() and fits:
        hint += f"; if the classes are counted from {fits[0]}, in the order of these ids: category_ids (--category-ids) from-{fits[0]}"
    return table.rows_of("category_id", known, "a category of the ground truth"), "", hint


def _image_rows(table: Table, ground_truth: GroundTruth) -> tuple[Int[np.ndarray, " m"], str]:
    """The image of each detection, by id or by the name of its file, and a note where it is by name."""
    kind = "an image of the ground truth"
    names = ground_truth.file_names
    stems = [PurePosixPath(name).stem for name in names]
    values = [record.get("image_id") for record in table.records]
    if not any(isinstance(value, str) for value in values) and not any("file_name" in record for record in table.records):
        numbers = _unique([stem.lstrip("0") or "0" if stem.isdecimal() else "" for stem in stems])
        ids_of_none = len(values) > 0 and not {value for value in values if type(value) is int} <= set(ground_truth.image_ids.tolist())
        if ids_of_none and all(type(value) is int and str(value) in numbers for value in values):
            return np.array([numbers[str(value)] for value in values]), "image_id: the number that is the name of the image's file"
        return table.rows_of("image_id", ground_truth.image_ids, kind), ""
    by_name = _unique(stems) | _unique([PurePosixPath(name).name for name in names]) | _unique(names)
    by_id = {id_: row for row, id_ in enumerate(ground_truth.image_ids.tolist())}
    rows, by_file = np.zeros(len(table), dtype=np.int64), 0
    ids = table.values("image_id", (int, np.integer, str), "a whole number or the name of a file", stand_in="")
    for index, value in enumerate(ids):
        file_name = table.records[index].get("file_name")
        named = by_name.get(file_name) if isinstance(file_name, str) else None
        as_id = by_id.get(int(value)) if not isinstance(value, str) or DIGITS.fullmatch(value) else None
        row = by_name.get(value, as_id) if isinstance(value, str) else as_id
        by_file += isinstance(value, str) and value in by_name
        if None is not as_id != row and value == str(int(value)):
            table.refuse(index, f"image_id {brief(value)} is the file name of one image of the ground truth and the id of another")
            continue
        if named is not None and row != named and str(value) in (stems[named], stems[named].lstrip("0")):
            row = named  # the number is the stem of the file and not an id
            by_file += 1
        if row is None:
            several = " alone: several have this name" if value in stems else ""
            table.refuse(index, f"image_id {brief(value)} is neither the id nor the file name of {kind}{several}")
        elif named is not None and row != named:
            table.refuse(index, f"image_id {brief(value)} and file_name {brief(file_name)} are two images of the ground truth")
        else:
            rows[index] = row
    return rows, f"image_id: the name of the image's file, in {by_file:,} of {len(ids):,} detections" if by_file else ""


def _unique(names: Sequence[str]) -> dict[str, int]:
    """The row of each name that occurs once and is not empty."""
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        rows[name] = -1 if name in rows else row
    return {name: row for name, row in rows.items() if row >= 0 and name}


def _sizes_of(ground_truth: GroundTruth, image: Int[np.ndarray, " m"]) -> list[tuple[Any, Any]]:
    """Height and width of the image of each detection, as far as the masks of the ground truth tell."""
    known = {row: tuple(shape["size"]) for row, shape in zip(ground_truth.image.tolist(), ground_truth.shapes, strict=True)}
    return [known.get(row, (None, None)) for row in image.tolist()]
