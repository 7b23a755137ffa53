"""What a detector does wrong, class by class: each class's LRP error, divided among the kinds of errors of TIDE."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..coco.columns import DetectionColumns, GroundTruth
from ._arrays import Values, as_array
from .lrp import optimal_lrp_per_class
from .matching import Matches, match_detections, pairs_of_images
from .overlaps import without_keypoints

KINDS = ("localization", "classification", "duplicate", "both", "background", "missed")
"""The kinds of errors, in the order of the shares."""


def error_shares(
    ground_truth: GroundTruth,
    results: DetectionColumns,
    *,
    tau: float = 0.5,
    background: float = 0.1,
    thresholds: Values | None = None,
    matches: Matches | None = None,
) -> list[dict[str, Any]]:
    """How much of each class's LRP error is which kind of error, at the score threshold of each class.

    A false positive is, by its largest IoU with the annotations of its image, the first of these that fits::

        localization     background <= IoU with its own class < tau
        classification   tau <= IoU with another class
        duplicate        tau <= IoU with its own class: a box of higher score has it
        both             background <= IoU with another class
        background       everything else

    An annotation that no kept box has is one of localization or classification if a false positive of that kind overlaps it most, and
    missed otherwise. With N_kind the number of both, ``share(kind) = N_kind / (N_TP + N_FP + N_FN)``; the share of localization also has
    ``sum_TP (1 - IoU) / (1 - tau)`` in its numerator. The shares add up to the LRP error, at the default thresholds to oLRP.

    Args:
        ground_truth: the annotations.
        results: the detections.
        tau: IoU from which a detection is right, in (0, 1).
        background: IoU below which a box has nothing to do with an annotation, in (0, tau].
        thresholds: (C,) the score from which on the boxes of each class are kept; NaN keeps none. By default the LRP-optimal ones.
        matches: of these two at IoU ``tau``, where they are there already.

    Returns:
        A dict of each class, in the order of ``GroundTruth.category_ids``: ``id``, ``name``, ``num_ground_truth``, ``threshold``, ``LRP``;
        ``shares``, a number of each of ``KINDS``, all NaN for a class without ground truth; ``counts``, ``true_positive``,
        ``false_positive``, ``false_negative`` and the false positives of each kind, and in ``missed`` the annotations that are missed;
        ``main``, the kind of the largest share, None where there is no error or no number.

    Raises:
        ValueError: ``tau`` or ``background`` out of range; ``thresholds`` that is not a number for each class.

    Source:
        The kinds: Bolya et al., TIDE, ECCV 2020, Sec. 2.2. The error: Oksuz et al., Localization Recall Precision, ECCV 2018. The division
        of the one among the other is ours; crowds are no objects that a box can be at.

    Example:
        One cup is found with IoU 0.8, one box has IoU 0.3 with the other cup: (0.2 / 0.5 + 1 + 1) / 3 without a threshold.

        >>> truth = GroundTruth(np.array([1]), np.array([1]), ("cup",), np.array([0, 0]), np.array([0, 0]),
        ...                     np.array([[0., 0., 10., 10.], [50., 0., 10., 10.]]), np.array([100., 100.]), np.array([False, False]))
        >>> boxes = np.array([[0., 0., 10., 8.], [50., 0., 10., 3.]])
        >>> found = DetectionColumns(np.array([0, 0]), np.array([0, 0]), boxes, np.array([0.9, 0.8]))
        >>> row = error_shares(truth, found, thresholds=[0.0])[0]
        >>> row["main"], round(row["LRP"], 3), row["counts"]["localization"], row["shares"]["missed"]
        ('localization', 0.8, 1, 0.0)
        >>> row = error_shares(truth, found)[0]
        >>> row["threshold"], {kind: round(share, 3) for kind, share in row["shares"].items() if share}
        (0.9, {'localization': 0.2, 'missed': 0.5})
    """
    if not 0 < tau < 1:
        raise ValueError(f"tau must be in (0, 1), got {tau}")
    if not 0 < background <= tau:
        raise ValueError(f"background must be in (0, tau] = (0, {tau}], got {background}")
    classes = len(ground_truth.category_ids)
    if matches is None:
        matches = match_detections(ground_truth, results, iou_threshold=tau)
    cut = _thresholds(thresholds, matches, classes, tau=tau)

    kept = matches.scores >= cut[matches.category]
    right, wrong = kept & matches.is_tp, kept & ~matches.is_tp & ~matches.ignored
    found = np.zeros(len(ground_truth.boxes), dtype=bool)
    found[matches.annotation[right]] = True
    kind, blamed = _kinds(ground_truth, results, matches.detection[wrong], tau=tau, background=background)
    of_annotation = np.full(len(found), KINDS.index("missed"))
    for name in ("classification", "localization"):  # localization has the last word
        these = blamed[kind == KINDS.index(name)]
        of_annotation[these] = KINDS.index(name)
    lost = ~found & ~ground_truth.crowd & ~without_keypoints(ground_truth)

    def count(category: Int[np.ndarray, " n"], kinds: Int[np.ndarray, " n"]) -> Int[np.ndarray, "c k"]:
        return np.bincount(category * len(KINDS) + kinds, minlength=classes * len(KINDS)).reshape(classes, len(KINDS))

    false_positives = count(matches.category[wrong], kind)
    false_negatives = count(ground_truth.category[lost], of_annotation[lost])
    true_positives = np.bincount(matches.category[right], minlength=classes)
    numerator = (false_positives + false_negatives).astype(np.float64)
    numerator[:, 0] += np.bincount(matches.category[right], 1 - matches.ious[right], minlength=classes) / (1 - tau)
    total = true_positives + false_positives.sum(1) + false_negatives.sum(1)
    defined = matches.num_ground_truth > 0
    shares = np.where(defined[:, None], numerator / np.maximum(total, 1)[:, None], np.nan)
    return [
        {
            "id": int(ground_truth.category_ids[index]),
            "name": ground_truth.category_names[index],
            "num_ground_truth": int(matches.num_ground_truth[index]),
            "threshold": float(cut[index]),
            "LRP": float(shares[index].sum()),
            "shares": dict(zip(KINDS, shares[index].tolist(), strict=True)),
            "counts": {
                "true_positive": int(true_positives[index]),
                "false_positive": int(false_positives[index].sum()),
                "false_negative": int(false_negatives[index].sum()),
                **dict(zip(KINDS[:-1], false_positives[index].tolist(), strict=False)),
                "missed": int(false_negatives[index, -1]),
            },
            "main": KINDS[int(shares[index].argmax())] if shares[index].sum() > 0 else None,
        }
        for index in range(classes)
    ]


def _thresholds(thresholds: Values | None, matches: Matches, classes: int, *, tau: float) -> Float[np.ndarray, " c"]:
    if thresholds is None:
        return np.array([optimum.threshold for optimum in optimal_lrp_per_class(matches, tau=tau)], dtype=np.float64)
    cut = as_array(thresholds).astype(np.float64)
    if cut.shape != (classes,):
        raise ValueError(f"thresholds: a number for each of {classes} classes expected, got the shape {cut.shape}")
    return cut


def _kinds(
    ground_truth: GroundTruth, results: DetectionColumns, wrong: Int[np.ndarray, " w"], *, tau: float, background: float
) -> tuple[Int[np.ndarray, " w"], Int[np.ndarray, " w"]]:
    """The kind of each false positive, and the annotation that a localization or classification error is about (else 0)."""
    best = {same: (np.zeros(len(wrong)), np.zeros(len(wrong), dtype=np.int64)) for same in (True, False)}
    for detection, annotation, iou in pairs_of_images(ground_truth, results, wrong, iou_threshold=background):
        same_class = ground_truth.category[annotation] == results.category[wrong[detection]]
        for same, (overlap, of) in best.items():
            rows = np.flatnonzero((same_class == same) & ~ground_truth.crowd[annotation])
            rows = rows[np.argsort(iou[rows], kind="stable")]  # of several assignments to one place the last counts
            overlap[detection[rows]], of[detection[rows]] = iou[rows], annotation[rows]
    (own, of_own), (other, of_other) = best[True], best[False]
    rules = {
        "localization": (own >= background) & (own < tau),
        "classification": other >= tau,
        "duplicate": own >= tau,
        "both": other >= background,
    }
    kind = np.select(list(rules.values()), [KINDS.index(name) for name in rules], KINDS.index("background"))
    return kind, np.where(kind == KINDS.index("classification"), of_other, of_own)
