"""The score threshold that costs least, where a false alarm, a miss and a loose box have a price."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ._arrays import Values
from .lrp import checked
from .matching import Matches


class CostOptimum(NamedTuple):
    """What is kept of a class where keeping it costs least.

    Attributes:
        cost: in the unit of the prices, of the whole data set.
        threshold: keep the detections with a score of at least this; NaN: keeping none costs least.
        true_positives: how many are right there.
        false_positives: how many are wrong there.
        false_negatives: how many annotations are missed there.
    """

    cost: float
    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int


def cost_optimal_threshold(
    scores: Values,
    ious: Values,
    is_tp: Values,
    num_ground_truth: int,
    *,
    fp_cost: float,
    fn_cost: float,
    localization_cost: float = 0.0,
    tau: float = 0.5,
) -> CostOptimum:
    """The score threshold of one class at which errors cost least.

    ``cost(s) = fp_cost N_FP + fn_cost N_FN + localization_cost sum_TP (1 - IoU) / (1 - tau)`` of the detections with a score >= s: the
    least over all distinct scores and over keeping nothing, of equally cheap thresholds the highest. Only the ratios of the costs decide.

    Args:
        scores: (d,) of the detections that count (matched with no crowd or otherwise ignored annotation).
        ious: (d,) IoU with the matched annotation; read for true positives only.
        is_tp: (d,) bool: matched at IoU >= ``tau``.
        num_ground_truth: annotations of the class that count.
        fp_cost: of a false positive, >= 0.
        fn_cost: of a missed annotation, >= 0.
        localization_cost: of a true positive whose IoU is ``tau``, falling to 0 at IoU 1, >= 0.
        tau: the IoU at which was matched, in [0, 1).

    Returns:
        The cost, the threshold and the numbers there. Without ground truth nothing is kept.

    Raises:
        ValueError: a cost that is negative or not finite; and as :func:`lossbox.metrics.lrp`.

    Source:
        Elkan, The Foundations of Cost-Sensitive Learning, IJCAI 2001, with counts for expectations; the three kinds of errors are those of
        Oksuz et al., Localization Recall Precision, ECCV 2018.

    Example:
        Right, wrong, right: the false alarm is accepted where a miss costs more.

        >>> scores, ious, is_tp = [0.9, 0.8, 0.7], [1.0, 0.0, 1.0], [True, False, True]
        >>> cost_optimal_threshold(scores, ious, is_tp, 2, fp_cost=1, fn_cost=5)
        CostOptimum(cost=1.0, threshold=0.7, true_positives=2, false_positives=1, false_negatives=0)
        >>> cost_optimal_threshold(scores, ious, is_tp, 2, fp_cost=5, fn_cost=1).threshold
        0.9
    """
    for name, cost in (("fp_cost", fp_cost), ("fn_cost", fn_cost), ("localization_cost", localization_cost)):
        if not 0 <= cost < math.inf:
            raise ValueError(f"{name}: a finite number >= 0 expected, got {cost}")
    score, error, right = checked(scores, ious, is_tp, num_ground_truth, tau=tau)
    order = np.argsort(-score, kind="stable")
    score, error, right = score[order], error[order], right[order]
    # the first place is keeping nothing; the others are the last of each tie
    ends = np.concatenate([[0], 1 + np.flatnonzero(np.append(score[1:] != score[:-1], True)[: len(score)])])
    found, wrong, loose = (
        np.concatenate([[0], np.cumsum(values)])[ends] for values in (right, ~right, np.where(right, error, 0.0) / (1 - tau))
    )
    cost = fp_cost * wrong + fn_cost * (num_ground_truth - found) + localization_cost * loose
    best = int(np.argmax(cost <= cost.min() * (1 + 1e-12)))
    threshold = float(score[ends[best] - 1]) if best else math.nan
    return CostOptimum(float(cost[best]), threshold, int(found[best]), int(wrong[best]), int(num_ground_truth - found[best]))


def cost_optimal_thresholds(
    matches: Matches, *, fp_cost: float, fn_cost: float, localization_cost: float = 0.0, tau: float = 0.5
) -> list[CostOptimum]:
    """:func:`cost_optimal_threshold` of every class of a data set that was matched at IoU ``tau``.

    Args:
        matches: from :func:`lossbox.metrics.match_detections` with ``iou_threshold=tau``.
        fp_cost: see there.
        fn_cost: see there.
        localization_cost: see there.
        tau: the IoU at which was matched, in (0, 1).

    Returns:
        One optimum a class, in the order of ``GroundTruth.category_ids``.

    Raises:
        ValueError: as :func:`cost_optimal_threshold`.

    Source:
        See :func:`cost_optimal_threshold`.

    Example:
        >>> none = np.zeros(0, dtype=int)
        >>> nothing_found = Matches(none, none, np.zeros(0), np.zeros(0), none, none > 0, none > 0, num_ground_truth=np.array([3]))
        >>> cost_optimal_thresholds(nothing_found, fp_cost=1, fn_cost=5)[0].cost
        15.0
    """
    return [
        cost_optimal_threshold(
            *matches.of_class(index), count, fp_cost=fp_cost, fn_cost=fn_cost, localization_cost=localization_cost, tau=tau
        )
        for index, count in enumerate(matches.num_ground_truth.tolist())
    ]
