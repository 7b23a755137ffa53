"""Correlation of score and IoU, and the bounds that re-dealt scores give."""

import math

import numpy as np
import pytest
from scipy import stats

from lossbox.metrics import (
    GroundTruth,
    Matches,
    average_precision,
    match_detections,
    pearson,
    read_ground_truth,
    read_results,
    reorder_true_positive_scores,
    score_bounds,
    score_iou_correlation,
)
from lossbox.metrics.matching import DetectionColumns


def matches_of(category, scores, ious, is_tp, classes):
    category, is_tp = np.array(category), np.array(is_tp)
    index = np.arange(len(category))
    return Matches(
        detection=index,
        category=category,
        scores=np.array(scores),
        ious=np.array(ious),
        annotation=np.where(is_tp, index, -1),
        ignored=np.zeros(len(category), dtype=bool),
        is_tp=is_tp,
        num_ground_truth=np.full(classes, 9),
    )


def test_pearson_is_scipys():
    rng = np.random.default_rng(0)
    for scale in (1.0, 1e-12, 1e150):
        scores, ious = rng.random(20) * scale, rng.random(20)
        assert pearson(scores, ious) == pytest.approx(stats.pearsonr(scores / scale, ious)[0], abs=1e-12)


def test_without_variance_there_is_no_correlation():
    assert math.isnan(pearson([], []))
    assert math.isnan(pearson([0.5], [0.7]))
    assert math.isnan(pearson([0.1] * 3, [0.5, 0.6, 0.7]))  # their mean is 0.10000000000000002
    assert math.isnan(pearson([0.5, 0.6, 0.7], [0.9] * 3))
    assert pearson([0.5, 0.5 + 1e-9], [0.7, 0.8]) == pytest.approx(1.0)


def test_wrong_lengths():
    with pytest.raises(ValueError, match=r"one length expected, got shapes \(2,\) and \(1,\)"):
        pearson([0.5, 0.6], [0.5])


def test_mean_over_classes_of_true_positives_only():
    # Class 0: rho 1 (its false positive does not count). Class 1: one true positive, left out. Class 2: rho -1. Class 3: nothing.
    matches = matches_of(
        [0, 0, 0, 1, 2, 2], [0.9, 0.8, 0.7, 0.5, 0.9, 0.1], [0.9, 0.0, 0.6, 0.8, 0.5, 0.8], [True, False, True, True, True, True], 4
    )
    assert score_iou_correlation(matches) == pytest.approx(0.0)
    assert score_iou_correlation(matches_of([0, 0, 0, 1], [0.9, 0.8, 0.7, 0.5], [0.9, 0.0, 0.6, 0.8], [True, False, True, True], 2)) == 1.0
    assert math.isnan(score_iou_correlation(matches_of([1], [0.5], [0.8], [True], 2)))


def test_redealt_scores_bound_ap(random_problem):
    content, detections = random_problem(9)
    truth = read_ground_truth(content)
    results = read_results(detections, truth)
    matches = match_detections(truth, results)
    ap = {None: average_precision(truth, results).numbers}
    for best in (True, False):
        scores = reorder_true_positive_scores(matches, results.scores, best=best)
        right = matches.detection[matches.is_tp]
        others = np.setdiff1d(np.arange(len(scores)), right)
        assert np.array_equal(scores[others], results.scores[others])
        for category in range(3):
            of_class = matches.is_tp & (matches.category == category)
            dealt, ious = scores[matches.detection[of_class]], matches.ious[of_class]
            assert sorted(dealt) == sorted(matches.scores[of_class])
            by_iou = dealt[np.lexsort((dealt if best else -dealt, ious))]
            assert np.all(np.diff(by_iou) * (1 if best else -1) >= 0)
        ap[best] = average_precision(truth, DetectionColumns(results.image, results.category, results.boxes, scores)).numbers
    assert ap[True]["AP"] > ap[None]["AP"] > ap[False]["AP"]


def test_score_bounds_are_equal_where_matched_and_apart_above():
    """One detection per object and false positives elsewhere: at IoU 0.5 only the dealing differs, above it the order counts."""
    rng = np.random.default_rng(0)
    count = 40
    objects = np.stack([np.arange(count) * 100.0, np.zeros(count), np.full(count, 50.0), np.full(count, 50.0)], 1)
    right = objects * [1, 1, 1, 0] + np.outer(rng.uniform(26, 50, count), [0, 0, 0, 1])
    boxes = np.concatenate([right, objects + np.array([0, 500, 0, 0])])
    zeros = np.zeros(2 * count, dtype=int)
    truth = GroundTruth(
        np.array([1]), np.array([1]), ("cup",), zeros[:count], zeros[:count], objects, np.full(count, 2500.0), np.zeros(count, dtype=bool)
    )
    results = DetectionColumns(zeros, zeros, boxes, rng.permutation(2 * count) / 80)
    matches, ap = match_detections(truth, results), average_precision(truth, results)
    bounds = score_bounds(truth, results, matches=matches, ap=ap)
    assert bounds["measured"] == {name: ap.numbers[name] for name in ("AP", "AP50", "AP75", "AP90")}
    assert bounds["lower"]["AP50"] == bounds["measured"]["AP50"] == bounds["upper"]["AP50"]
    for name in ("AP", "AP75", "AP90"):
        assert bounds["lower"][name] < bounds["measured"][name] - 0.01
        assert bounds["measured"][name] < bounds["upper"][name] - 0.01
