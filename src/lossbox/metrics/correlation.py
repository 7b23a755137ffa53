"""How well scores order boxes by quality: the correlation of score and IoU, and what a perfect order would be worth in AP."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ..coco.columns import DetectionColumns, GroundTruth
from ._arrays import Values, as_array, mean_of_defined
from .average_precision import AveragePrecision, average_precision
from .matching import Matches

BOUNDED = ("AP", "AP50", "AP75", "AP90")
"""The numbers of Table 5."""


def pearson(scores: Values, ious: Values) -> float:
    """Pearson's correlation of the scores and the IoUs of one class's true positives.

    ``rho = cov(score, IoU) / (std(score) std(IoU))``

    Args:
        scores: (t,) of the true positives.
        ious: (t,) of the same.

    Returns:
        In [-1, 1]; 1 if a better box always has a proportionally higher score.
        NaN for fewer than two, or if all scores or all IoUs are equal.

    Raises:
        ValueError: not two vectors of one length.

    Source:
        Oksuz et al., A Ranking-based, Balanced Loss Function, NeurIPS 2020, Table 2.

    Example:
        >>> round(pearson([0.9, 0.7, 0.5], [0.8, 0.9, 0.6]), 3)
        0.655
    """
    score, iou = as_array(scores), as_array(ious)
    if score.shape != iou.shape or score.ndim != 1:
        raise ValueError(f"scores and ious: two vectors of one length expected, got shapes {score.shape} and {iou.shape}")
    # Compare values, not a computed variance: the mean of equal numbers is often not that number.
    if len(score) < 2 or np.ptp(score) == 0 or np.ptp(iou) == 0:
        return float("nan")
    score, iou = score - score.mean(), iou - iou.mean()
    # Scaled first, so that differences of 1e-200 do not underflow when squared.
    score, iou = score / np.abs(score).max(), iou / np.abs(iou).max()
    return float(np.clip(score @ iou / np.sqrt((score @ score) * (iou @ iou)), -1, 1))


def score_iou_correlation(matches: Matches) -> float:
    """Pearson's correlation of score and IoU of true positives, averaged over the classes that have one.

    ``rho = mean over classes of pearson(score, IoU)``; classes with fewer than two true positives, or with equal scores or equal IoUs
    only, are left out.

    Args:
        matches: from :func:`lossbox.metrics.matching.match_detections`.

    Returns:
        In [-1, 1]; NaN if no class has a correlation.

    Source:
        Oksuz et al., A Ranking-based, Balanced Loss Function, NeurIPS 2020, Table 2.

    Example:
        >>> two, right = np.array([0, 1]), np.array([True, True])
        >>> matches = Matches(two, two * 0, np.array([0.9, 0.8]), np.array([0.6, 0.7]), two, ~right, right, num_ground_truth=np.array([2]))
        >>> score_iou_correlation(matches)
        -1.0
    """
    rho = []
    for category in range(len(matches.num_ground_truth)):
        scores, ious, is_tp = matches.of_class(category)
        rho.append(pearson(scores[is_tp], ious[is_tp]))
    return mean_of_defined(rho)


def reorder_true_positive_scores(matches: Matches, scores: Float[np.ndarray, " m"], *, best: bool) -> Float[np.ndarray, " m"]:
    """The scores with those of each class's true positives dealt anew among them: what perfect or worst ordering by IoU would give.

    The i-th highest score goes to the true positive of i-th highest IoU (``best``) or of i-th lowest; all other scores stay. AP of the
    detections with these scores, at every IoU, is the upper or lower bound of what re-scoring can change.

    Args:
        matches: from :func:`lossbox.metrics.matching.match_detections`.
        scores: (m,) ``Results.scores`` that were matched.
        best: the upper bound, else the lower.

    Returns:
        (m,) a permutation of ``scores`` within each class.

    Source:
        Oksuz et al., A Ranking-based, Balanced Loss Function, NeurIPS 2020, Table 5.

    Example:
        >>> two, right = np.array([0, 1]), np.array([True, True])
        >>> matches = Matches(two, two * 0, np.array([0.9, 0.8]), np.array([0.6, 0.7]), two, ~right, right, num_ground_truth=np.array([2]))
        >>> reorder_true_positive_scores(matches, np.array([0.9, 0.8]), best=True)
        array([0.8, 0.9])
    """
    dealt = scores.copy()
    right = np.flatnonzero(matches.is_tp)  # by class, then highest score first
    by_iou = np.lexsort((-matches.ious[right] if best else matches.ious[right], matches.category[right]))
    dealt[matches.detection[right[by_iou]]] = matches.scores[right]
    return dealt


def score_bounds(
    ground_truth: GroundTruth, results: DetectionColumns, *, matches: Matches, ap: AveragePrecision
) -> dict[str, dict[str, float]]:
    """How far AP can rise or fall by the order of the true positives alone: with their scores dealt by IoU, and inversely.

    ``upper = AP(reorder_true_positive_scores(best=True))``, ``lower = AP(reorder_true_positive_scores(best=False))``, each matched anew as
    COCO does. They are bounds, and equal at the IoU of ``matches``, where no object has two detections; after NMS few have. With many
    duplicates a new score also changes which of two detections on one object is the right one, and the measured AP can lie outside.

    Args:
        ground_truth: the annotations.
        results: the detections.
        matches: of these two, from :func:`lossbox.metrics.match_detections`; the paper's at IoU 0.5.
        ap: of these two, from :func:`lossbox.metrics.average_precision`.

    Returns:
        ``measured``, ``upper`` and ``lower``: a dict each of ``AP``, ``AP50``, ``AP75``, ``AP90``, in [0, 1]; NaN without ground truth.

    Raises:
        ImportError: hotcoco is not installed.

    Source:
        Oksuz et al., A Ranking-based, Balanced Loss Function, NeurIPS 2020, Table 5.

    Example:
        Two boxes of one class are right, and the looser one has the higher score:

        >>> from lossbox.metrics import match_detections
        >>> truth = GroundTruth(np.array([1]), np.array([1]), ("cup",), np.array([0, 0]), np.array([0, 0]),
        ...                     np.array([[0., 0., 10., 10.], [50., 0., 10., 10.]]), np.array([100., 100.]), np.array([False, False]))
        >>> boxes = np.array([[0., 0., 10., 6.], [50., 0., 10., 10.]])
        >>> found = DetectionColumns(np.array([0, 0]), np.array([0, 0]), boxes, np.array([0.9, 0.8]))
        >>> bounds = score_bounds(truth, found, matches=match_detections(truth, found), ap=average_precision(truth, found))
        >>> {name: round(row["AP75"], 2) for name, row in bounds.items()}
        {'measured': 0.25, 'upper': 0.5, 'lower': 0.25}
    """
    bounds = {"measured": {name: ap.numbers[name] for name in BOUNDED}}
    for name, best in (("upper", True), ("lower", False)):
        dealt = replace(results, scores=reorder_true_positive_scores(matches, results.scores, best=best))
        numbers = average_precision(ground_truth, dealt).numbers
        bounds[name] = {key: numbers[key] for key in BOUNDED}
    return bounds
