"""Two detectors on one data set: is the difference larger than what another draw of images would give?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..coco.columns import DetectionColumns, GroundTruth
from .average_precision import hotcoco_evaluation
from .matching import Matches, match_detections
from .overlaps import without_keypoints

AT_ONCE = 2_000_000
"""Numbers that a part of the resamples may need: bounds the memory."""


def compare_detections(
    ground_truth: GroundTruth,
    first: DetectionColumns,
    second: DetectionColumns,
    *,
    tau: float = 0.5,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    announce: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """AP and optimal LRP of two sets of detections, and a paired bootstrap interval of their differences.

    The images are drawn with replacement, the same for both, and everything is computed anew on each draw; oLRP searches its thresholds
    again. The interval goes from the ``(1 - confidence) / 2`` quantile of the differences to that of ``(1 + confidence) / 2``.

    Args:
        ground_truth: the annotations.
        first: detections, the baseline.
        second: detections.
        tau: IoU from which a detection is right, for oLRP, in (0, 1).
        resamples: how many draws, >= 1.
        confidence: of the interval, in (0, 1).
        seed: of the draws; those for AP and for oLRP are not the same ones.
        announce: called before the draws with the seconds that those for AP will take, by far the most, as a fiftieth of them tells;
            hotcoco makes them in one go and says nothing meanwhile.

    Returns:
        ``metrics``: for each of COCO's numbers and ``oLRP`` a dict of ``first``, ``second``, ``difference`` (second - first), ``lower``,
        ``upper`` and ``better``, the share of the draws in which the second is better; NaN where undefined. ``per_class``: ``name``, and
        ``first`` and ``second`` of ``AP`` and ``oLRP``. ``images``, ``resamples``, ``confidence``, ``seed``.

    Raises:
        ValueError: an option out of range, or no image.
        ImportError: hotcoco is not installed.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 (percentile interval). AP and its interval are hotcoco's.

    Example:
        >>> truth = GroundTruth(np.array([1]), np.array([1]), ("cup",), np.array([0]), np.array([0]),
        ...                     np.array([[0., 0., 10., 10.]]), np.array([100.]), np.array([False]))
        >>> found = [DetectionColumns(np.array([0]), np.array([0]), np.array([[0., 0., 10., h]]), np.array([0.9])) for h in (6., 9.)]
        >>> row = compare_detections(truth, *found, resamples=10)["metrics"]["oLRP"]
        >>> [round(row[name], 6) for name in ("first", "second", "difference", "better")]
        [0.8, 0.2, -0.6, 1.0]
    """
    if resamples < 1:
        raise ValueError(f"resamples: a number >= 1 expected, got {resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: a number in (0, 1) expected, got {confidence}")
    images = len(ground_truth.image_ids)
    if not images:
        raise ValueError("ground_truth: at least one image expected, got none")
    baseline, other = (hotcoco_evaluation(ground_truth, found) for found in (first, second))
    import hotcoco

    if announce is not None:
        began, few = time.monotonic(), max(1, resamples // 50)
        hotcoco.compare(baseline, other, n_bootstrap=few, seed=seed, confidence=confidence)
        announce((time.monotonic() - began) * resamples / few)
    theirs = hotcoco.compare(baseline, other, n_bootstrap=resamples, seed=seed, confidence=confidence)
    metrics = {}
    for name in theirs["metric_keys"]:
        values = [_defined(theirs[key][name]) for key in ("metrics_a", "metrics_b")]
        interval = theirs["ci"][name] if not np.isnan(values).any() else {}
        row = {"first": values[0], "second": values[1], "difference": values[1] - values[0]}
        metrics[name] = row | {
            ours: float(interval.get(key, np.nan)) for ours, key in (("lower", "lower"), ("upper", "upper"), ("better", "prob_positive"))
        }
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    weights = np.concatenate([np.ones_like(drawn[:1]), drawn])  # the first row is the data set as it is
    per_class = [
        olrp_of_draws(ground_truth, found, match_detections(ground_truth, found, iou_threshold=tau), weights, tau=tau)
        for found in (first, second)
    ]
    a, b = (_mean_of_classes(values) for values in per_class)
    difference = b[1:] - a[1:]
    difference = difference[~np.isnan(difference)]
    lower, upper = np.quantile(difference, [(1 - confidence) / 2, (1 + confidence) / 2]) if len(difference) else (np.nan, np.nan)
    better = float((difference < 0).mean()) if len(difference) else np.nan
    metrics["oLRP"] = {"first": float(a[0]), "second": float(b[0]), "difference": float(b[0] - a[0])}
    metrics["oLRP"] |= {"lower": float(lower), "upper": float(upper), "better": better}
    aps = {int(row["cat_id"]) - 1: (_defined(row["ap_a"]), _defined(row["ap_b"])) for row in theirs["per_category"]}
    classes = [
        {
            "name": name,
            "AP": dict(zip(("first", "second"), aps.get(index, (np.nan, np.nan)), strict=True)),
            "oLRP": {"first": float(per_class[0][0, index]), "second": float(per_class[1][0, index])},
        }
        for index, name in enumerate(ground_truth.category_names)
    ]
    settings = {"images": images, "resamples": resamples, "confidence": confidence, "seed": seed}
    return {"metrics": metrics, "per_class": classes, **settings}


def olrp_of_draws(
    ground_truth: GroundTruth, results: DetectionColumns, matches: Matches, weights: Int[np.ndarray, "b images"], *, tau: float
) -> Float[np.ndarray, "b c"]:
    """Optimal LRP of each class where each image counts so many times; NaN where no annotation of the class is left."""
    counted = ~ground_truth.crowd & ~without_keypoints(ground_truth)
    optima = np.full((len(weights), len(ground_truth.category_ids)), np.nan)
    for index in range(optima.shape[1]):
        start, stop = np.searchsorted(matches.category, [index, index + 1])
        kept = ~matches.ignored[start:stop]
        scores, right = matches.scores[start:stop][kept], matches.is_tp[start:stop][kept]
        loose = np.where(right, 1 - matches.ious[start:stop][kept], 0.0) / (1 - tau)
        image = results.image[matches.detection[start:stop][kept]]
        last_of_tie = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
        true = ground_truth.image[counted & (ground_truth.category == index)]
        part = max(1, AT_ONCE // max(len(scores), 1))
        for first in range(0, len(weights), part):
            of_image = weights[first : first + part]
            total = of_image[:, true].sum(1)
            times = of_image[:, image]
            found, wrong, error = (np.cumsum(times * values, axis=1)[:, last_of_tie] for values in (right, ~right, loose))
            missed = total[:, None] - found
            lrp = (error + wrong + missed) / np.maximum(found + wrong + missed, 1)
            best = np.minimum(lrp.min(1, initial=1.0), 1.0)  # nothing kept: 1
            optima[first : first + part, index] = np.where(total > 0, best, np.nan)
    return optima


def _mean_of_classes(values: Float[np.ndarray, "b c"]) -> Float[np.ndarray, " b"]:
    defined = ~np.isnan(values)
    mean = np.full(len(values), np.nan)
    np.divide(np.nansum(values, axis=1), defined.sum(1), out=mean, where=defined.any(1))
    return mean


def _defined(value: float) -> float:
    """NaN for COCO's -1."""
    return float("nan") if value == -1 else float(value)
