"""Ground truth and detections from COCO's JSON, checked: every complaint names the file, the record and the rule.

What is not an error: an image without annotations or without detections, a category without either, an empty results list, boxes outside
the image (COCO evaluates them as they are), boxes of no area (they match nothing), the same detection twice (the second is a false
positive), a missing ``area`` (the box's) or ``iscrowd`` (0). An ``ignore`` field has no effect, as in pycocotools.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from .matching import DetectionColumns, GroundTruth


def read_ground_truth(source: str | Path | Mapping[str, Any]) -> GroundTruth:
    """The annotations of a COCO ground truth file, or of its content.

    Args:
        source: a path, or the object that is in such a file: ``images`` (``id``), ``categories`` (``id``, ``name``) and ``annotations``
            (``id``, ``image_id``, ``category_id``, ``bbox`` as ``x y width height`` in pixels, optional ``area``, ``iscrowd``).

    Returns:
        The annotations as columns, in the order of the file; images and categories by ascending id.

    Raises:
        ValueError: a part is missing or of the wrong type; an id twice; an annotation of an unknown image or category; a box with
            NaN, infinity or negative size.
        FileNotFoundError: there is no such file.

    Source:
        COCO's data format.

    Example:
        >>> truth = read_ground_truth({"images": [{"id": 7}], "categories": [{"id": 3, "name": "cup"}], "annotations": [
        ...     {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10]}]})
        >>> truth.category_names, truth.areas
        (('cup',), array([100.]))
    """
    content, where = _load(source, "ground truth")
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: an object with images, categories and annotations expected, got {_kind(content)}")
    parts = {}
    for name in ("images", "categories", "annotations"):
        if not isinstance(content.get(name), Sequence) or isinstance(content[name], str):
            raise ValueError(f"{where}: '{name}' must be a list, got {_kind(content[name]) if name in content else 'nothing'}")
        parts[name] = content[name]
    images, categories, annotations = parts.values()
    image_ids = np.sort(_ids(images, f"{where}: images"))
    category_ids = _ids(categories, f"{where}: categories")
    names = _column(categories, "name", f"{where}: categories")
    by_id = np.argsort(category_ids)
    category_ids = category_ids[by_id]

    records = f"{where}: annotations"
    _ids(annotations, records)
    boxes = _boxes(annotations, records)
    given_areas = [annotation.get("area", width * height) for annotation, (_, _, width, height) in zip(annotations, boxes, strict=True)]
    areas = _floats(given_areas, "area", records)
    _forbid(~(areas >= 0), annotations, "area", records, "must not be negative")
    crowd = [annotation.get("iscrowd", 0) for annotation in annotations]
    _forbid(np.array([flag not in (0, 1) for flag in crowd], dtype=bool), annotations, "iscrowd", records, "must be 0 or 1")
    return GroundTruth(
        image_ids=image_ids,
        category_ids=category_ids,
        category_names=tuple(str(names[index]) for index in by_id),
        image=_places(annotations, "image_id", image_ids, records, "is not the id of an image of the ground truth"),
        category=_places(annotations, "category_id", category_ids, records, "is not the id of a category of the ground truth"),
        boxes=boxes,
        areas=areas,
        crowd=np.array(crowd, dtype=bool),
    )


def read_results(source: str | Path | Sequence[Mapping[str, Any]], ground_truth: GroundTruth) -> DetectionColumns:
    """The detections of a COCO results file, or of its content.

    Args:
        source: a path, or the list that is in such a file: ``image_id``, ``category_id``, ``bbox`` (``x y width height``, pixels of the
            original image), ``score`` in [0, 1]. The list may be empty.
        ground_truth: what was looked for.

    Returns:
        The detections as columns, in the order of the file.

    Raises:
        ValueError: not a list; a field is missing or of the wrong type; an unknown image or category; a box with NaN, infinity or
            negative size; a score that is NaN or out of [0, 1].
        FileNotFoundError: there is no such file.

    Source:
        COCO's results format.

    Example:
        >>> truth = read_ground_truth({"images": [{"id": 7}], "categories": [{"id": 3, "name": "cup"}], "annotations": []})
        >>> read_results([{"image_id": 7, "category_id": 4, "bbox": [0, 0, 10, 10], "score": 0.5}], truth)
        Traceback (most recent call last):
        ValueError: results[0]: category_id is not the id of a category of the ground truth, got 4
    """
    records, where = _load(source, "results")
    if not isinstance(records, Sequence) or isinstance(records, str):
        raise ValueError(f"{where}: a results file is a list of detections, got {_kind(records)}")
    scores = _floats(_column(records, "score", where), "score", where)
    _forbid(~((scores >= 0) & (scores <= 1)), records, "score", where, "must be in [0, 1]")
    return DetectionColumns(
        image=_places(records, "image_id", ground_truth.image_ids, where, "is not the id of an image of the ground truth"),
        category=_places(records, "category_id", ground_truth.category_ids, where, "is not the id of a category of the ground truth"),
        boxes=_boxes(records, where),
        scores=scores,
    )


def _load(source: Any, name: str) -> tuple[Any, str]:
    """The content and what to call it in an error."""
    if not isinstance(source, str | Path):
        return source, name
    try:
        text = Path(source).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{source} does not exist; a COCO {name} file (JSON) expected") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{source} is a folder; a COCO {name} file (JSON) expected") from None
    # Parsing makes millions of objects and drops none; the cycle collector would walk them again and again, for half of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text), str(source)
    except RecursionError:
        raise ValueError(f"{source}: nested too deeply for COCO's JSON") from None
    except ValueError as error:  # also bytes that are no text, and numbers of thousands of digits
        raise ValueError(f"{source}: not JSON: {error}") from error
    finally:
        if collecting:
            gc.enable()


def _column(records: Sequence[Any], key: str, where: str) -> list[Any]:
    """One field of every record. The fast way first; the walk only looks for the record to name."""
    try:
        return [record[key] for record in records]
    except (KeyError, TypeError, IndexError):
        for index, record in enumerate(records):
            if not isinstance(record, Mapping):
                raise ValueError(f"{where}[{index}]: an object expected, got {_kind(record)}") from None
            if key not in record:
                raise ValueError(f"{where}[{index}]: '{key}' is missing") from None
        raise


def _floats(values: Sequence[Any], key: str, where: str) -> Float[np.ndarray, " n"]:
    index = _first_other_than(values, (int, float, np.integer, np.floating))
    if index is not None:
        raise ValueError(f"{where}[{index}]: {key} must be a number, got {values[index]!r}")
    return _array(values, np.float64, key, where)


def _integers(values: Sequence[Any], key: str, where: str) -> Int[np.ndarray, " n"]:
    index = _first_other_than(values, (int, np.integer))
    if index is not None:
        raise ValueError(f"{where}[{index}]: {key} must be an integer, got {values[index]!r}")
    return _array(values, np.int64, key, where)


def _array(values: Sequence[Any], dtype: type[np.generic], key: str, where: str, *, width: int = 1) -> NDArray[Any]:
    """The values as an array; those of one record are ``width`` in number."""
    try:
        return np.array(values, dtype=dtype)
    except OverflowError:  # JSON's integers have any number of digits
        index = next(index for index, value in enumerate(values) if not _fits(value, dtype))
        raise ValueError(f"{where}[{index // width}]: {key} has a number too large for {dtype.__name__}") from None


def _fits(value: Any, dtype: type[np.generic]) -> bool:
    try:
        np.array(value, dtype=dtype)
    except OverflowError:
        return False
    return True


def _first_other_than(values: Sequence[Any], types: tuple[type, ...]) -> int | None:
    """Index of the first value of no such type; true and false are no numbers here. Looks at the few types first, not at every value."""
    others = {kind for kind in set(map(type, values)) if kind is bool or not issubclass(kind, types)}
    return next(index for index, value in enumerate(values) if type(value) in others) if others else None


def _ids(records: Sequence[Any], where: str) -> Int[np.ndarray, " n"]:
    """The field ``id``, an integer that no two records share."""
    ids = _integers(_column(records, "id", where), "id", where)
    _, first = np.unique(ids, return_index=True)
    again = np.ones(len(ids), dtype=bool)
    again[first] = False
    _forbid(again, records, "id", where, "was already used by an earlier record")
    return ids


def _places(records: Sequence[Any], key: str, known: Int[np.ndarray, " k"], where: str, rule: str) -> Int[np.ndarray, " n"]:
    """Where each record's id stands in the ascending list of known ones."""
    ids = _integers(_column(records, key, where), key, where)
    place = np.searchsorted(known, ids)
    unknown = place == len(known)
    unknown[~unknown] = known[place[~unknown]] != ids[~unknown]
    _forbid(unknown, records, key, where, rule)
    return place


def _boxes(records: Sequence[Any], where: str) -> Float[np.ndarray, "n 4"]:
    boxes = _column(records, "bbox", where)
    index = _first_other_than(boxes, (list, tuple, np.ndarray))
    if index is None and not set(map(len, boxes)) <= {4}:
        index = next(index for index, box in enumerate(boxes) if len(box) != 4)
    flat = list(chain.from_iterable(boxes)) if index is None else []
    if index is None and (place := _first_other_than(flat, (int, float, np.integer, np.floating))) is not None:
        index = place // 4
    if index is not None:
        raise ValueError(f"{where}[{index}]: bbox must be a list of 4 numbers, x y width height; got {boxes[index]!r}")
    array = _array(flat, np.float64, "bbox", where, width=4).reshape(-1, 4)
    _forbid(np.count_nonzero(np.isfinite(array), axis=1) < 4, records, "bbox", where, "must be finite")
    _forbid(
        np.minimum(array[:, 2], array[:, 3]) < 0,
        records,
        "bbox",
        where,
        "must not have a negative width or height (x y width height expected)",
    )
    return array


def _forbid(bad: Bool[np.ndarray, " n"], records: Sequence[Any], key: str, where: str, rule: str) -> None:
    if bad.any():
        index = int(bad.argmax())
        more = f" ({int(bad.sum())} such records)" if bad.sum() > 1 else ""
        raise ValueError(f"{where}[{index}]: {key} {rule}, got {records[index][key]!r}{more}")


def _kind(value: Any) -> str:
    """What JSON calls it."""
    for kind, name in ((Mapping, "object"), (str, "string"), (Sequence, "list"), (bool, "boolean"), ((int, float), "number")):
        if isinstance(value, kind):
            return name
    return "null" if value is None else type(value).__name__
