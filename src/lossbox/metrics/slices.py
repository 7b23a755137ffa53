"""The numbers of parts of a data set: objects by their size, images by an attribute or by the name of their file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool

from ..coco.checks import load_json
from ..coco.columns import DetectionColumns, GroundTruth
from ._arrays import mean_of_defined
from .average_precision import AveragePrecision, average_precision
from .lrp import optimal_lrp_per_class
from .matching import AREA_RANGES, Matches, match_detections

MOST = 50
"""An attribute with more values than this is no division into parts."""

WITHOUT = "(none)"
"""The part of the images that lack the attribute."""


def slice_by_area(ground_truth: GroundTruth, results: DetectionColumns, ap: AveragePrecision, *, tau: float = 0.5) -> list[dict[str, Any]]:
    """AP and optimal LRP of COCO's small, medium and large objects.

    Args:
        ground_truth: the annotations.
        results: the detections.
        ap: of these two, from :func:`lossbox.metrics.average_precision`.
        tau: IoU from which a detection is right, for oLRP, in (0, 1).

    Returns:
        A dict of each size: ``name``, ``num_ground_truth``, ``AP``, ``oLRP``, ``localization``, ``false_positive``, ``false_negative``.
        Annotations of other sizes, and unmatched detections of other sizes, count neither way.

    Raises:
        ValueError: ``tau`` out of (0, 1).

    Source:
        Lin et al., Microsoft COCO, ECCV 2014: the areas.

    Example:
        >>> truth = GroundTruth(np.array([1]), np.array([1]), ("cup",), np.array([0]), np.array([0]),
        ...                     np.array([[0., 0., 10., 10.]]), np.array([100.]), np.array([False]))
        >>> found = DetectionColumns(np.array([0]), np.array([0]), np.array([[0., 0., 10., 8.]]), np.array([0.9]))
        >>> [(row["name"], round(row["oLRP"], 3)) for row in slice_by_area(truth, found, average_precision(truth, found))]
        [('small', 0.4), ('medium', nan), ('large', nan)]
    """
    rows = []
    for name, key in (("small", "APs"), ("medium", "APm"), ("large", "APl")):
        matches = match_detections(ground_truth, results, iou_threshold=tau, area_range=AREA_RANGES[name])
        rows.append({"name": name, **_lrp_of(matches, tau=tau), "AP": ap.numbers[key]})
    return rows


def slice_by_images(
    ground_truth: GroundTruth, results: DetectionColumns, parts: Mapping[str, Bool[np.ndarray, " images"]], *, tau: float = 0.5
) -> list[dict[str, Any]]:
    """AP and optimal LRP of parts of the images, each evaluated as a data set of its own.

    Args:
        ground_truth: the annotations.
        results: the detections.
        parts: (images,) True for the images of each part; from :func:`parts_by_attribute` or :func:`parts_by_name`.
        tau: IoU from which a detection is right, for oLRP, in (0, 1).

    Returns:
        A dict of each part: ``name``, ``images``, ``num_ground_truth``, ``AP``, ``AP50``, ``oLRP``, ``localization``, ``false_positive``,
        ``false_negative``. oLRP has thresholds of the part's own.

    Raises:
        ValueError: ``tau`` out of (0, 1).
        ImportError: hotcoco is not installed.

    Example:
        >>> truth = GroundTruth(np.array([1, 2]), np.array([1]), ("cup",), np.array([0]), np.array([0]),
        ...                     np.array([[0., 0., 10., 10.]]), np.array([100.]), np.array([False]))
        >>> found = DetectionColumns(np.array([0]), np.array([0]), np.array([[0., 0., 10., 8.]]), np.array([0.9]))
        >>> [row["oLRP"] for row in slice_by_images(truth, found, {"day": np.array([True, False]), "night": np.array([False, True])})]
        [0.3999999999999999, nan]
    """
    rows = []
    for name, kept in parts.items():
        truth, found = ground_truth.of_images(kept), results.of_images(kept)
        ap = average_precision(truth, found).numbers
        matches = match_detections(truth, found, iou_threshold=tau)
        rows.append({"name": name, "images": int(kept.sum()), **_lrp_of(matches, tau=tau), "AP": ap["AP"], "AP50": ap["AP50"]})
    return rows


def parts_by_attribute(
    ground_truth: GroundTruth, source: str | Path | Mapping[str, Any], key: str
) -> dict[str, Bool[np.ndarray, " images"]]:
    """The images by the value of a field of their records, such as a camera or a time of day.

    Args:
        ground_truth: read from ``source``.
        source: the COCO file, or its content.
        key: the field. A list of values is one value; images without the field are the part ``(none)``.

    Returns:
        By value, in the order of the alphabet: (images,) True for those that have it.

    Raises:
        ValueError: no image has the field, or it has more than 50 values.

    Example:
        >>> content = {"images": [{"id": 1, "light": "day"}, {"id": 2, "light": "night"}], "annotations": [], "categories": []}
        >>> from lossbox.metrics import read_ground_truth
        >>> parts_by_attribute(read_ground_truth(content), content, "light")
        {'day': array([ True, False]), 'night': array([False,  True])}
    """
    document = load_json(Path(source), "COCO detection JSON") if isinstance(source, str | Path) else source
    records = {int(image["id"]): image for image in document["images"]}
    values = [records[id_].get(key) for id_ in ground_truth.image_ids.tolist()]
    texts = np.array([WITHOUT if value is None else str(value) for value in values], dtype=object)
    if all(value is None for value in values):
        known = sorted({name for image in records.values() for name in image} - {"id"})
        raise ValueError(f"slice_by: no image has the field {key!r}; they have {', '.join(known) or 'none'}; also area, or file:PATTERN")
    names = sorted(set(texts))
    if len(names) > MOST:
        raise ValueError(f"slice_by: a field with at most {MOST} values expected; {key!r} has {len(names):,} in {len(texts):,} images")
    return {name: np.array(texts == name, dtype=bool) for name in names}


def parts_by_name(ground_truth: GroundTruth, patterns: Sequence[str]) -> dict[str, Bool[np.ndarray, " images"]]:
    """The images whose file names match patterns such as ``night_*``, and the rest.

    Args:
        ground_truth: its images have ``file_name``.
        patterns: with ``*``, ``?`` and ``[...]``, for the whole ``file_name`` or for its last part.

    Returns:
        By pattern, then ``(none)`` for the images that match none, if there are such: (images,) bool. An image may be in several parts.

    Raises:
        ValueError: a pattern that no file matches.

    Example:
        >>> truth = GroundTruth(np.array([1, 2]), np.array([1]), ("cup",), *[np.zeros(0, dtype=int)] * 2, np.zeros((0, 4)), np.zeros(0),
        ...                     np.zeros(0, dtype=bool), file_names=("a/night_1.png", "a/day_1.png"))
        >>> parts_by_name(truth, ["night_*"])
        {'night_*': array([ True, False]), '(none)': array([False,  True])}
    """
    names = ground_truth.file_names
    parts = {}
    for pattern in patterns:
        hits = [fnmatchcase(name, pattern) or fnmatchcase(PurePosixPath(name).name, pattern) for name in names]
        if not any(hits):
            first = f"; the first is {names[0]!r}" if any(names) else "; the ground truth has no file names"
            raise ValueError(f"slice_by: no file name matches {pattern!r}{first}")
        parts[pattern] = np.array(hits, dtype=bool)
    rest = ~np.any(list(parts.values()), axis=0)
    return parts | ({WITHOUT: rest} if rest.any() else {})


def _lrp_of(matches: Matches, *, tau: float) -> dict[str, Any]:
    optima = optimal_lrp_per_class(matches, tau=tau)
    names = {"oLRP": "olrp"} | {name: name for name in ("localization", "false_positive", "false_negative")}
    means = {ours: mean_of_defined(getattr(optimum, theirs) for optimum in optima) for ours, theirs in names.items()}
    return {"num_ground_truth": int(matches.num_ground_truth.sum())} | means
