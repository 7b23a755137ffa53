"""An evaluation as the curves of a report: precision against recall, LRP against the score threshold, and what scores are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..metrics import AveragePrecision, LRPCurve, LRPOptimum, Matches, lrp_curve
from ..metrics.lrp import SAME_LRP

PR_IOUS = {"0.5": 0, "0.6": 2, "0.7": 4, "0.8": 6, "0.9": 8}
"""The IoUs of the precision-recall curves, and where these stand among COCO's ten IoU thresholds."""

MOST_CLASSES = 200
"""Curves by class are kept for so many classes, those with the most boxes."""

SCORE_BINS = 20
"""Bins of the reliability diagram, equally wide on [0, 1]."""

POINTS = 1500
"""Up to so many true positives are points in the plot of IoU against score; of more, every n-th."""

GRID = 200
"""Score thresholds at which LRP is drawn."""


def rounded(values: Any, digits: int = 4) -> Any:
    """An array as nested lists of short numbers; NaN stays."""
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()


def drawn_classes(num_ground_truth: Float[np.ndarray, " c"]) -> list[int]:
    """The classes with ground truth, at most ``MOST_CLASSES``."""
    order = np.argsort(-num_ground_truth, kind="stable")[:MOST_CLASSES]
    return sorted(int(index) for index in order if num_ground_truth[index])


def precision_recall(ap: AveragePrecision, classes: Sequence[int]) -> dict[str, list[list[float]]]:
    """Precision at recall 0, 0.01 ... 1, a curve for each of ``PR_IOUS``: the mean over all classes, and each of ``classes``."""
    chosen = ap.precision[list(PR_IOUS.values())]
    defined = chosen[:, :, ~np.isnan(chosen[0, 0])]
    mean = {"mean": rounded(defined.mean(axis=2), 3)} if defined.shape[2] else {}
    return mean | {str(index): rounded(chosen[:, :, index], 3) for index in classes}


def lrp_curves(matches: Matches, optima: Sequence[LRPOptimum], classes: Sequence[int], *, tau: float) -> dict[str, dict[str, Any]]:
    """LRP and its parts against the score threshold, of the mean over the classes with ground truth, and of each of ``classes``.

    A class counts 1 at thresholds above its highest score, as LRP does where nothing is kept. A part is averaged over the classes where it
    is defined. The mean curve's minimum is that of one threshold for all classes; oLRP has one per class.
    """
    counted = [index for index, count in enumerate(matches.num_ground_truth.tolist()) if count]
    curves = {index: lrp_curve(*matches.of_class(index), int(matches.num_ground_truth[index]), tau=tau) for index in counted}
    scores = np.concatenate([np.zeros(0), *(curve.thresholds for curve in curves.values())])
    if not len(scores):
        return {}
    # quantiles: the scores of a ranking loss may crowd in a thousandth of their range
    grid = np.unique(np.concatenate([np.linspace(scores.min(), scores.max(), GRID), np.quantile(scores, np.linspace(0, 1, GRID))]))
    on_grid = [at_thresholds(curve, grid) for curve in curves.values()]
    mean = LRPCurve(grid, *(_defined_mean([getattr(curve, part) for curve in on_grid]) for part in LRPCurve._fields[1:]))
    least = int(np.flatnonzero(mean.lrp <= mean.lrp.min() + SAME_LRP)[-1])  # of equally good thresholds the highest, as oLRP takes it
    drawn = {"mean": _lrp_lines(mean, float(grid[least]), float(mean.lrp[least]))}
    for index in classes:
        curve, best = curves[index], optima[index].threshold
        if not len(curve.thresholds):
            continue
        if len(curve.thresholds) > GRID:
            own = np.quantile(curve.thresholds, np.linspace(0, 1, GRID), method="nearest")
            curve = at_thresholds(curve, np.unique(np.append(own, [] if np.isnan(best) else best)))
        drawn[str(index)] = _lrp_lines(curve, best, optima[index].olrp)
    return drawn


def _lrp_lines(curve: LRPCurve, threshold: float, least: float) -> dict[str, Any]:
    order = np.argsort(curve.thresholds)
    lines = {part: rounded(getattr(curve, part)[order], 4 if part != "thresholds" else 6) for part in LRPCurve._fields}
    return lines | {"best": rounded([threshold, least], 6)}


def score_iou(matches: Matches) -> dict[str, Any]:
    """Score, IoU and class of the true positives: all, or every n-th where they are many."""
    right = np.flatnonzero(matches.is_tp)
    total, right = len(right), right[:: max(1, -(-len(right) // POINTS))]
    columns = {
        "score": rounded(matches.scores[right], 5),
        "iou": rounded(matches.ious[right], 3),
        "label": matches.category[right].tolist(),
    }
    return columns | {"total": total}


def reliability(matches: Matches) -> dict[str, Any]:
    """What a score is worth: of each bin of scores the detections, the mean score, the precision, and the precision times mean IoU.

    A score that can be read as a probability has the precision of its bin.
    """
    counts = ~matches.ignored
    scores, right, ious = matches.scores[counts], matches.is_tp[counts], matches.ious[counts]
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, SCORE_BINS - 1)  # 1.0 belongs to the last bin
    number, score, found, quality = (
        np.bincount(place, weights, minlength=SCORE_BINS) for weights in (np.ones(len(scores)), scores, right * 1.0, right * ious)
    )
    some = number > 0
    means = {
        "score": rounded(score[some] / number[some]),
        "precision": rounded(found[some] / number[some]),
        "quality": rounded(quality[some] / number[some]),
    }
    middle = rounded(edges[:-1] + 0.5 / SCORE_BINS)
    return means | {"middle": middle, "right": found.astype(int).tolist(), "wrong": (number - found).astype(int).tolist()}


def training_curves(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], *, most: int = 400) -> dict[str, Any]:
    """The log of a training; of more than ``most`` points, the means of that many stretches."""
    drawn = {}
    for name, (steps, values) in curves.items():
        parts = min(most, len(values))
        means = [float(np.mean(part)) for part in np.array_split(np.asarray(values, dtype=np.float64), parts)]
        drawn[name] = [[int(part[-1]) for part in np.array_split(np.asarray(steps), parts)], [float(f"{mean:.5g}") for mean in means]]
    return drawn


def at_thresholds(curve: LRPCurve, grid: Float[np.ndarray, " g"]) -> LRPCurve:
    """The curve at any thresholds: a detection is kept from its score downwards, and above the highest score nothing is kept."""
    kept = np.searchsorted(-curve.thresholds, -grid, side="right") - 1
    nothing = {"lrp": 1.0, "localization": np.nan, "false_positive": np.nan, "false_negative": 1.0}
    columns = {name: np.append(getattr(curve, name), value)[kept] for name, value in nothing.items()}  # -1 reads what was appended
    return LRPCurve(thresholds=grid, **columns)


def _defined_mean(rows: Sequence[Float[np.ndarray, " g"]]) -> Float[np.ndarray, " g"]:
    """Mean of each column over its numbers that are not NaN; NaN without one."""
    values = np.stack(rows)
    number = np.count_nonzero(~np.isnan(values), axis=0)
    mean = np.full(values.shape[1], np.nan)
    np.divide(np.nansum(values, axis=0), number, out=mean, where=number > 0)
    return mean
