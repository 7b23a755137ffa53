"""The curves of an evaluation: of many classes, few, one, and of nothing."""

import numpy as np
import pytest

from lossbox.metrics import (
    Matches,
    average_precision,
    lrp,
    lrp_curve,
    match_detections,
    optimal_lrp_per_class,
    read_ground_truth,
    read_results,
)
from lossbox.report import curves
from lossbox.report.evaluation_tables import print_bounds


def made(classes, *, images=6, names=None, found=True, seed=0):
    """Ground truth, AP and matches of a random problem; every class but the last has annotations if there are more than 3."""
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(1, images + 1):
        for category in range(1, classes + 1):
            box = [float(number) for number in (*rng.uniform(0, 100, 2), *rng.uniform(20, 60, 2))]
            key = {"image_id": image, "category_id": category}
            if classes <= 3 or category < classes:
                annotations.append({"id": len(annotations) + 1, "bbox": box, **key})
            x, y, width, height = box
            detections.append({"bbox": [x, y, width * rng.uniform(0.4, 1), height], "score": rng.random(), **key})
            detections.append({"bbox": [x + 300, y, width, height], "score": rng.random() ** 2, **key})
    categories = [{"id": index + 1, "name": names[index] if names else f"class {index}"} for index in range(classes)]
    truth = read_ground_truth({"images": [{"id": n + 1} for n in range(images)], "categories": categories, "annotations": annotations})
    results = read_results(detections if found else [], truth)
    return truth, average_precision(truth, results), match_detections(truth, results)


@pytest.mark.parametrize("classes", [1, 4, 13])
def test_precision_recall_is_that_of_each_class_and_of_the_mean(classes):
    _, ap, matches = made(classes)
    drawn = curves.drawn_classes(matches.num_ground_truth)
    assert len(drawn) == (classes if classes <= 3 else classes - 1)
    lines = curves.precision_recall(ap, drawn)
    assert set(lines) == {"mean", *map(str, drawn)}
    assert np.mean(lines["mean"], axis=1) == pytest.approx([ap.precision[i][:, drawn].mean() for i in (0, 2, 4, 6, 8)], abs=6e-4)
    assert np.mean(lines["0"][0]) == pytest.approx(ap.per_class["AP50"][0], abs=6e-4)


def test_of_many_classes_those_with_the_most_boxes_have_curves(monkeypatch):
    monkeypatch.setattr(curves, "MOST_CLASSES", 2)
    assert curves.drawn_classes(np.array([3, 0, 9, 5])) == [2, 3]
    assert curves.drawn_classes(np.array([0, 0, 9])) == [2]


@pytest.mark.parametrize("grid", [200, 5])
def test_lrp_has_the_minimum_of_each_class_on_its_curve(grid, monkeypatch):
    monkeypatch.setattr(curves, "GRID", grid)
    _, _, matches = made(4)
    optima = optimal_lrp_per_class(matches)
    drawn = curves.lrp_curves(matches, optima, [0, 1, 2], tau=0.5)
    for index in range(3):
        lines = drawn[str(index)]
        assert lines["best"] == pytest.approx([optima[index].threshold, optima[index].olrp], abs=1e-5)
        assert min(lines["lrp"]) == pytest.approx(optima[index].olrp, abs=1e-4)
        assert lines["thresholds"][int(np.argmin(lines["lrp"]))] == pytest.approx(optima[index].threshold, abs=1e-5)
        assert lines["thresholds"] == sorted(lines["thresholds"])
    assert min(drawn["mean"]["lrp"]) >= np.mean([optimum.olrp for optimum in optima[:3]]) - 1e-4
    assert drawn["mean"]["lrp"][-1] > 0.9  # at the highest score of all two classes of three keep nothing


def test_lrp_at_any_threshold_is_that_of_the_definition():
    scores, ious, right = [0.9, 0.7, 0.7, 0.2], [0.8, 0.6, 0.0, 0.9], [True, True, False, True]
    grid = np.array([0.0, 0.2, 0.3, 0.7, 0.75, 0.9, 0.95])
    curve = curves.at_thresholds(lrp_curve(scores, ious, right, 5), grid)
    expected = [lrp(scores, ious, right, 5, threshold=threshold) for threshold in grid]
    for name in ("lrp", "localization", "false_positive", "false_negative"):
        np.testing.assert_allclose(getattr(curve, name), [getattr(point, name) for point in expected])


def test_true_positives_are_points_all_or_every_nth(monkeypatch):
    _, _, matches = made(4)
    points = curves.score_iou(matches)
    assert len(points["score"]) == points["total"] == matches.is_tp.sum()
    assert points["iou"] == pytest.approx(matches.ious[matches.is_tp], abs=1e-3)
    monkeypatch.setattr(curves, "POINTS", 5)
    few = curves.score_iou(matches)
    assert 2 < len(few["score"]) <= 5
    assert few["total"] == points["total"]


def test_nothing_found_and_no_ground_truth_have_empty_curves():
    _, ap, matches = made(4, found=False)
    optima = optimal_lrp_per_class(matches)
    assert curves.lrp_curves(matches, optima, [0, 1, 2], tau=0.5) == {}
    assert curves.score_iou(matches)["score"] == curves.reliability(matches)["score"] == []
    assert np.max(curves.precision_recall(ap, [0])["0"]) == 0
    _, ap, matches = made(0)
    assert curves.precision_recall(ap, []) == {}
    assert curves.lrp_curves(matches, [], [], tau=0.5) == {}


def test_a_long_log_is_drawn_by_the_means_of_its_stretches():
    drawn = curves.training_curves({"a": ([1, 2, 3, 4, 5], [1.0, 2.0, 3.0, 4.0, 9.0]), "b": ([7], [0.5])}, most=2)
    assert drawn == {"a": [[3, 5], [2.0, 6.5]], "b": [[7], [0.5]]}


def test_reliability_is_precision_by_score_bin():
    scores = np.array([1.0, 0.97, 0.96, 0.52, 0.51, 0.05])
    right = np.array([True, True, False, True, False, False])
    ignored = np.array([False] * 5 + [True])
    ious = np.where(right, [0.9, 0.7, 0, 0.6, 0, 0], 0)
    index = np.arange(6)
    matches = Matches(index, index * 0, scores, ious, np.where(right, index, -1), ignored, right, num_ground_truth=np.array([9]))
    drawn = curves.reliability(matches)
    assert drawn["score"] == pytest.approx([0.515, 2.93 / 3], abs=1e-4)
    assert drawn["precision"] == pytest.approx([1 / 2, 2 / 3], abs=1e-4)
    assert drawn["quality"] == pytest.approx([0.3, 1.6 / 3], abs=1e-4)
    assert (sum(drawn["right"]), sum(drawn["wrong"])) == (3, 2)
    assert drawn["right"][10] == drawn["wrong"][10] == 1


def test_bounds_are_a_table_from_low_to_high(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    numbers = {"AP": 0.25, "AP90": float("nan")}
    print_bounds({"measured": numbers, "upper": numbers | {"AP": 0.5}, "lower": numbers | {"AP": 0.125}})
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["in inverse order of IoU (lower bound)", "0.125", "-"],
        ["as they are", "0.250", "-"],
        ["in order of IoU (upper bound)", "0.500", "-"],
    ]
