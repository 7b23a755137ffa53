"""COCO's matching of detections with ground truth at one IoU threshold, for a whole data set at once.

pycocotools walks over images, categories, thresholds, detections and annotations in Python. For one threshold the same result comes
from numpy: list the pairs that overlap enough, sort each detection's partners by COCO's order of preference once, then let all first
detections of every (image, category) choose, then all second ones, and so on.

Boxes are COCO's ``x y width height`` in pixels and IoU is computed from them in float64 in COCO's order of operations: a pair that sits
exactly on the threshold falls on the same side as in pycocotools.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from ..coco.columns import DetectionColumns, GroundTruth
from .overlaps import overlaps, without_keypoints

ALL_AREAS = (0.0, 1e10)
"""COCO's area range "all", in square pixels; "small", "medium" and "large" are ``AREA_RANGES``."""

AREA_RANGES = {"all": ALL_AREAS, "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}

MAX_DETECTIONS = {"bbox": 100, "segm": 100, "keypoints": 20}
"""COCO's, of one image and category."""

PAIRS_AT_ONCE = 2_000_000
"""Pairs whose IoU is computed in one go: bounds the memory to about 200 MB whatever the size of the data set."""


@dataclass(frozen=True)
class Matches:
    """Which detections are right, ordered by category, then score (highest first), then image.

    Attributes:
        detection: (k,) index into the ``DetectionColumns``; detections beyond ``max_detections`` are not here.
        category: (k,) index into ``GroundTruth.category_ids``.
        scores: (k,).
        ious: (k,) in [0, 1], with the matched annotation (over the detection's area if that is a crowd); 0 without a match.
        annotation: (k,) index into the ``GroundTruth`` of the matched annotation, or -1.
        ignored: (k,) neither right nor wrong: matched with a crowd or an annotation out of the area range, or unmatched and out of it.
        is_tp: (k,) matched and not ignored. What is neither ``is_tp`` nor ``ignored`` is a false positive.
        num_ground_truth: (C,) annotations of each category that count: no crowd, inside the area range.
    """

    detection: Int[np.ndarray, " k"]
    category: Int[np.ndarray, " k"]
    scores: Float[np.ndarray, " k"]
    ious: Float[np.ndarray, " k"]
    annotation: Int[np.ndarray, " k"]
    ignored: Bool[np.ndarray, " k"]
    is_tp: Bool[np.ndarray, " k"]
    num_ground_truth: Int[np.ndarray, " c"]

    def of_class(self, category: int) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"], Bool[np.ndarray, " d"]]:
        """Scores, IoUs and ``is_tp`` of one category's detections that count (not ignored), highest score first."""
        start, stop = np.searchsorted(self.category, [category, category + 1])
        counts = ~self.ignored[start:stop]
        return self.scores[start:stop][counts], self.ious[start:stop][counts], self.is_tp[start:stop][counts]


def match_detections(
    ground_truth: GroundTruth,
    results: DetectionColumns,
    *,
    iou_threshold: float = 0.5,
    max_detections: int | None = None,
    area_range: tuple[float, float] = ALL_AREAS,
) -> Matches:
    """Match every detection with at most one annotation of its image and category, as COCO does.

    Best score first, a detection takes the free annotation of largest IoU >= ``iou_threshold``; one that is ignored only if no other is
    left. Crowds are never used up. Of equal IoUs the later annotation wins, of equal scores the earlier detection chooses first.

    Args:
        ground_truth: the annotations.
        results: the detections.
        iou_threshold: in (0, 1].
        max_detections: detections of one image and category that are looked at, best first.
        area_range: smallest and largest area in square pixels; annotations outside are ignored, and so are unmatched detections outside.

    Returns:
        One entry for each detection that was looked at.

    Raises:
        ValueError: ``iou_threshold`` out of (0, 1] or ``max_detections`` < 1.

    Source:
        Lin et al., Microsoft COCO, ECCV 2014; equal to the matches of pycocotools' COCOeval, except that an annotation with the id 0 is
        an annotation like any other (there, what it matches counts as a false positive).

    Example:
        >>> truth = GroundTruth(np.array([1]), np.array([1]), ("cup",), np.array([0]), np.array([0]),
        ...                     np.array([[0., 0., 10., 10.]]), np.array([100.]), np.array([False]))
        >>> boxes = np.array([[0., 0., 10., 8.], [0., 0., 10., 10.]])
        >>> found = DetectionColumns(np.array([0, 0]), np.array([0, 0]), boxes, np.array([0.9, 0.8]))
        >>> matches = match_detections(truth, found)
        >>> matches.is_tp, matches.ious
        (array([ True, False]), array([0.8, 0. ]))
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold}")
    if max_detections is None:
        max_detections = MAX_DETECTIONS[ground_truth.iou_type]
    if max_detections < 1:
        raise ValueError(f"max_detections must be at least 1, got {max_detections}")
    images, classes = len(ground_truth.image_ids), len(ground_truth.category_ids)

    # Detections by group (category, then image), best first; lexsort is stable, so ties keep the order of the results.
    group = results.category * images + results.image
    order = np.lexsort((-results.scores, group))
    group = group[order]
    rank = np.arange(len(group)) - np.searchsorted(group, group, side="left")
    looked_at = rank < max_detections
    order, group, rank = order[looked_at], group[looked_at], rank[looked_at]

    smallest, largest = area_range
    outside = (ground_truth.areas < smallest) | (ground_truth.areas > largest)
    truth_ignored = ground_truth.crowd | outside | without_keypoints(ground_truth)
    annotation = _choose(ground_truth, truth_ignored, results, order, group, rank, iou_threshold=iou_threshold)

    matched = annotation >= 0
    ious = np.zeros(len(order))
    ious[matched] = overlaps(ground_truth, results, order[matched], annotation[matched])
    # Equal boxes can come out as 1 + 2e-16, since x + width - x is not width; the matching above used the raw values, as COCO does.
    ious = np.minimum(ious, 1.0)
    ignored = np.zeros(len(order), dtype=bool)
    ignored[matched] = truth_ignored[annotation[matched]]
    area = results.boxes[order, 2] * results.boxes[order, 3] if results.areas is None else results.areas[order]
    ignored |= ~matched & ((area < smallest) | (area > largest))

    by_score = np.lexsort((-results.scores[order], results.category[order]))
    detection = order[by_score]
    return Matches(
        detection=detection,
        category=results.category[detection],
        scores=results.scores[detection],
        ious=ious[by_score],
        annotation=annotation[by_score],
        ignored=ignored[by_score],
        is_tp=(matched & ~ignored)[by_score],
        num_ground_truth=np.bincount(ground_truth.category[~truth_ignored], minlength=classes),
    )


def _choose(
    ground_truth: GroundTruth,
    truth_ignored: Bool[np.ndarray, " n"],
    results: DetectionColumns,
    rows: Int[np.ndarray, " k"],
    group: Int[np.ndarray, " k"],
    rank: Int[np.ndarray, " k"],
    *,
    iou_threshold: float,
) -> Int[np.ndarray, " k"]:
    """The annotation that each detection takes, or -1; ``rank`` is its place within its group."""
    chosen = np.full(len(rows), -1)
    truth_group = ground_truth.category * len(ground_truth.image_ids) + ground_truth.image
    pairs = list(_overlapping(ground_truth, truth_group, results, rows, group, iou_threshold=iou_threshold))
    if not pairs:
        return chosen
    detection, annotation, iou = (np.concatenate(column) for column in zip(*pairs, strict=True))

    # COCO's preference does not change while annotations are taken: counting ones before ignored ones, then the larger IoU, then the later.
    order = np.lexsort((-annotation, -iou, truth_ignored[annotation], detection, rank[detection]))
    detection, annotation = detection[order], annotation[order]
    rounds = np.flatnonzero(np.diff(rank[detection], prepend=-1, append=-1))
    free = np.ones(len(ground_truth.boxes), dtype=bool)
    for start, stop in pairwise(rounds):
        # One round holds at most one detection per group, so no two of them want the same annotation.
        open_pairs = start + np.flatnonzero(free[annotation[start:stop]])
        takers, first = np.unique(detection[open_pairs], return_index=True)
        taken = annotation[open_pairs[first]]
        chosen[takers] = taken
        free[taken] = ground_truth.crowd[taken]
    return chosen


def pairs_of_images(
    ground_truth: GroundTruth, results: DetectionColumns, rows: Int[np.ndarray, " k"], *, iou_threshold: float
) -> Iterator[tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"], Float[np.ndarray, " p"]]]:
    """Pairs of a detection and an annotation of its image, whatever their classes, of IoU >= ``iou_threshold``.

    Args:
        ground_truth: the annotations.
        results: the detections.
        rows: (k,) which detections.
        iou_threshold: in (0, 1].

    Returns:
        In parts that bound the memory: (p,) place in ``rows``, (p,) annotation, (p,) IoU; all pairs of one detection are in one part.
    """
    return _overlapping(ground_truth, ground_truth.image, results, rows, results.image[rows], iou_threshold=iou_threshold)


def _overlapping(
    ground_truth: GroundTruth,
    truth_group: Int[np.ndarray, " n"],
    results: DetectionColumns,
    rows: Int[np.ndarray, " k"],
    group: Int[np.ndarray, " k"],
    *,
    iou_threshold: float,
) -> Iterator[tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"], Float[np.ndarray, " p"]]]:
    """Pairs of one group with IoU >= ``iou_threshold``: place in ``rows``, index of the annotation, IoU."""
    truth_order = np.argsort(truth_group, kind="stable")
    truth_group = truth_group[truth_order]
    first = np.searchsorted(truth_group, group, side="left")
    partners = np.searchsorted(truth_group, group, side="right") - first
    end = np.cumsum(partners)
    threshold = min(iou_threshold, 1 - 1e-10)  # COCO's: boxes that are equal up to rounding count as equal

    start = 0
    while start < len(rows):
        done = end[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(end, done + PAIRS_AT_ONCE, side="right")))
        counts = partners[start:stop]
        detection = np.repeat(np.arange(start, stop), counts)
        within = np.arange(len(detection)) - np.repeat(np.cumsum(counts) - counts, counts)
        annotation = truth_order[first[detection] + within]
        iou = overlaps(ground_truth, results, rows[detection], annotation)
        enough = iou >= threshold
        yield detection[enough], annotation[enough], iou[enough]
        start = stop
