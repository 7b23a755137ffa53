"""Localization Recall Precision: one error for misses, false alarms and loose boxes, and the score threshold that minimizes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ._arrays import Values, as_array
from .matching import Matches

SAME_LRP = 1e-12
"""Two thresholds whose LRP differs by less are equally good: a different order of summation must not move the optimum."""


class LRP(NamedTuple):
    """LRP error of the detections above a score threshold; a part that is 0/0 is NaN.

    Attributes:
        lrp: in [0, 1], lower is better.
        localization: mean of 1 - IoU over true positives, in [0, 1 - tau].
        false_positive: 1 - precision.
        false_negative: 1 - recall.
    """

    lrp: float
    localization: float
    false_positive: float
    false_negative: float


class LRPOptimum(NamedTuple):
    """The smallest LRP error over all score thresholds, its parts there, and the threshold.

    Attributes:
        olrp: in [0, 1], lower is better; NaN for a class without ground truth.
        localization: mean of 1 - IoU over true positives, in [0, 1 - tau].
        false_positive: 1 - precision.
        false_negative: 1 - recall.
        threshold: keep the detections with a score of at least this.
    """

    olrp: float
    localization: float
    false_positive: float
    false_negative: float
    threshold: float


class LRPCurve(NamedTuple):
    """LRP error and its parts at every threshold that can be told apart: the distinct scores, highest first."""

    thresholds: Float[np.ndarray, " t"]
    lrp: Float[np.ndarray, " t"]
    localization: Float[np.ndarray, " t"]
    false_positive: Float[np.ndarray, " t"]
    false_negative: Float[np.ndarray, " t"]


def lrp(scores: Values, ious: Values, is_tp: Values, num_ground_truth: int, *, threshold: float, tau: float = 0.5) -> LRP:
    """LRP error of one class's detections with a score of at least ``threshold``.

    ``LRP = (sum_TP (1 - IoU) / (1 - tau) + N_FP + N_FN) / (N_TP + N_FP + N_FN)``

    Args:
        scores: (d,) of the detections that count (matched with no crowd or otherwise ignored annotation).
        ious: (d,) IoU with the matched annotation; read for true positives only.
        is_tp: (d,) bool: matched at IoU >= ``tau``.
        num_ground_truth: annotations of the class that count.
        threshold: detections below are left out.
        tau: the IoU at which was matched, in [0, 1).

    Returns:
        The error and its parts. No detection left: LRP and false negatives 1, the other parts NaN. No ground truth: all NaN.

    Raises:
        ValueError: lengths differ, or a score is NaN; ``tau`` out of range; a true positive's IoU below ``tau``; more
            of them than annotations.

    Source:
        Oksuz et al., Localization Recall Precision, ECCV 2018, the definition of LRP error; arXiv 2011.10772.

    Example:
        Two annotations; one box with IoU 0.75, one false alarm: (0.25 / 0.5 + 1 + 1) / 3.

        >>> lrp([0.9, 0.8], [0.75, 0.0], [True, False], 2, threshold=0.5)
        LRP(lrp=0.8333333333333334, localization=0.25, false_positive=0.5, false_negative=0.5)
    """
    if np.isnan(threshold):
        raise ValueError("threshold must be a number, got NaN")
    score, error, right = checked(scores, ious, is_tp, num_ground_truth, tau=tau)
    if num_ground_truth == 0:
        return LRP(np.nan, np.nan, np.nan, np.nan)
    kept = score >= threshold
    found = int((kept & right).sum())
    wrong = int(kept.sum()) - found
    missed = num_ground_truth - found
    loose = float(error[kept & right].sum())
    return LRP(
        lrp=(loose / (1 - tau) + wrong + missed) / (found + wrong + missed),
        localization=loose / found if found else np.nan,
        false_positive=wrong / (found + wrong) if found + wrong else np.nan,
        false_negative=missed / num_ground_truth,
    )


def lrp_curve(scores: Values, ious: Values, is_tp: Values, num_ground_truth: int, *, tau: float = 0.5) -> LRPCurve:
    """LRP error of one class at each of its distinct scores, highest first.

    ``LRP(s)`` as in :func:`lrp`. Detections of one score are kept or dropped together, so no threshold lies between them.

    Args:
        scores: (d,) of the detections that count.
        ious: (d,) IoU with the matched annotation; read for true positives only.
        is_tp: (d,) bool.
        num_ground_truth: annotations of the class that count.
        tau: the IoU at which was matched, in [0, 1).

    Returns:
        (t,) each, t the number of distinct scores; without ground truth all but the thresholds are NaN.

    Raises:
        ValueError: as :func:`lrp`.

    Source:
        Oksuz et al., Localization Recall Precision, ECCV 2018, the definition of LRP error.

    Example:
        >>> lrp_curve([0.9, 0.8, 0.8], [1.0, 0.0, 1.0], [True, False, True], 2).lrp
        array([0.5       , 0.33333333])
    """
    score, error, right = checked(scores, ious, is_tp, num_ground_truth, tau=tau)
    order = np.argsort(-score, kind="stable")
    score, error, right = score[order], error[order], right[order]
    last_of_tie = np.append(score[1:] != score[:-1], True)[: len(score)]
    found = np.cumsum(right)[last_of_tie]
    wrong = np.cumsum(~right)[last_of_tie]
    loose = np.cumsum(np.where(right, error, 0.0))[last_of_tie]
    if num_ground_truth == 0:
        undefined = np.full(len(found), np.nan)
        return LRPCurve(score[last_of_tie], undefined, undefined, undefined, undefined)
    missed = num_ground_truth - found
    return LRPCurve(
        thresholds=score[last_of_tie],
        lrp=(loose / (1 - tau) + wrong + missed) / (found + wrong + missed),
        localization=np.divide(loose, found, out=np.full(len(found), np.nan), where=found > 0),
        false_positive=wrong / (found + wrong),
        false_negative=missed / num_ground_truth,
    )


def optimal_lrp(scores: Values, ious: Values, is_tp: Values, num_ground_truth: int, *, tau: float = 0.5) -> LRPOptimum:
    """Optimal LRP of one class: the least LRP error that a score threshold can give, and that threshold.

    ``oLRP = min_s LRP(s)`` over the distinct scores s; of equally good ones the highest.

    Args:
        scores: (d,) of the detections that count (matched with no crowd or otherwise ignored annotation).
        ious: (d,) IoU with the matched annotation; read for true positives only.
        is_tp: (d,) bool: matched at IoU >= ``tau``.
        num_ground_truth: annotations of the class that count.
        tau: the IoU at which was matched, in [0, 1).

    Returns:
        The error, its parts and the threshold. Ground truth but no true positive: oLRP and false negatives 1, the rest NaN.
        No ground truth: all NaN, to be left out of means.

    Raises:
        ValueError: lengths differ, or a score is NaN; ``tau`` out of range; a true positive's IoU below ``tau``; more
            of them than annotations.

    Source:
        Oksuz et al., Localization Recall Precision, ECCV 2018, the definition of Optimal LRP; arXiv 2011.10772. The published tool also
        minimizes over places inside a tie of scores, which no threshold can realize.

    Example:
        >>> optimal_lrp([0.9, 0.8, 0.1], [0.75, 1.0, 0.0], [True, True, False], 2)
        LRPOptimum(olrp=0.25, localization=0.125, false_positive=0.0, false_negative=0.0, threshold=0.8)
    """
    curve = lrp_curve(scores, ious, is_tp, num_ground_truth, tau=tau)
    if num_ground_truth == 0:
        return LRPOptimum(np.nan, np.nan, np.nan, np.nan, np.nan)
    if not np.any(curve.false_negative < 1):
        return LRPOptimum(1.0, np.nan, np.nan, 1.0, np.nan)
    best = int(np.argmax(curve.lrp <= curve.lrp.min() + SAME_LRP))
    return LRPOptimum(
        olrp=float(curve.lrp[best]),
        localization=float(curve.localization[best]),
        false_positive=float(curve.false_positive[best]),
        false_negative=float(curve.false_negative[best]),
        threshold=float(curve.thresholds[best]),
    )


def optimal_lrp_per_class(matches: Matches, *, tau: float = 0.5) -> list[LRPOptimum]:
    """Optimal LRP of every class of a data set that was matched at IoU ``tau``; ``threshold`` is what to cut each class at.

    Args:
        matches: from :func:`lossbox.metrics.matching.match_detections` with ``iou_threshold=tau``.
        tau: the IoU at which was matched, in (0, 1).

    Returns:
        One optimum a class, in the order of ``GroundTruth.category_ids``.

    Raises:
        ValueError: as :func:`optimal_lrp`; a ``tau`` above the one matched at is noticed by the IoUs below it.

    Source:
        Oksuz et al., Localization Recall Precision, ECCV 2018: thresholds by class.

    Example:
        >>> none = np.zeros(0, dtype=int)
        >>> nothing_found = Matches(none, none, np.zeros(0), np.zeros(0), none, none > 0, none > 0, num_ground_truth=np.array([3, 0]))
        >>> [optimum.olrp for optimum in optimal_lrp_per_class(nothing_found)]
        [1.0, nan]
    """
    counts = matches.num_ground_truth.tolist()
    return [optimal_lrp(*matches.of_class(category), count, tau=tau) for category, count in enumerate(counts)]


def checked(
    scores: Values, ious: Values, is_tp: Values, num_ground_truth: int, *, tau: float
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"], Bool[np.ndarray, " d"]]:
    """The arguments as arrays: score, 1 - IoU, is_tp."""
    score, iou, right = (as_array(values) for values in (scores, ious, is_tp))
    if not score.shape == iou.shape == right.shape or score.ndim != 1:
        raise ValueError(
            f"scores, ious and is_tp: three vectors of one length expected, got shapes {score.shape}, {iou.shape}, {right.shape}"
        )
    if len(right) and right.dtype != bool:
        raise ValueError(f"is_tp must be boolean, got {right.dtype}")
    right = right.astype(bool)
    if not 0 <= tau < 1:
        raise ValueError(f"tau must be in [0, 1), got {tau}")
    if np.isnan(score).any():
        raise ValueError(f"scores: NaN at index {int(np.isnan(score).argmax())}")
    unmatched = right & ~((iou >= tau) & (iou <= 1))
    if unmatched.any():
        first = int(unmatched.argmax())
        raise ValueError(f"ious: a true positive's IoU must be in [tau, 1] = [{tau}, 1], got {iou[first]} at index {first}")
    if num_ground_truth < 0 or right.sum() > num_ground_truth:
        raise ValueError(f"num_ground_truth must be at least the number of true positives, {right.sum()}, got {num_ground_truth}")
    return score.astype(np.float64), 1 - iou.astype(np.float64), right
