"""The images of an evaluation: what is in them, with many classes, few, one, and nothing to draw."""

import numpy as np
import pytest
from matplotlib import pyplot

from lossbox import report
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
from lossbox.report import evaluation


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


@pytest.fixture
def panels(monkeypatch):
    """The panels of each figure that is closed, to look at after it has been written."""
    seen = []
    monkeypatch.setattr(pyplot, "close", lambda figure: seen.append(figure.axes))
    yield seen
    monkeypatch.undo()
    pyplot.close("all")


def texts(panel):
    legend = panel.get_legend()
    return [text.get_text() for text in (legend.get_texts() if legend else panel.texts)]


@pytest.mark.parametrize("classes", [1, 4, 13])
def test_four_images_are_written(tmp_path, classes):
    truth, ap, matches = made(classes)
    paths = report.draw_evaluation(tmp_path / "new", ap, matches, truth.category_names)
    assert [path.name for path in paths] == ["precision_recall.png", "lrp.png", "score_iou.png", "reliability.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_precision_recall_shows_aps_and_classes(tmp_path, panels):
    truth, ap, _ = made(4)
    report.draw_precision_recall(ap, truth.category_names, tmp_path / "a.png")
    mean, each = panels[0]
    assert "3 classes" in mean.get_title()
    assert texts(mean)[0] == f"IoU 0.5: AP {ap.numbers['AP50']:.3f}"
    assert texts(mean)[-1] == f"IoU 0.9: AP {ap.numbers['AP90']:.3f}"
    assert texts(each) == [f"class {index}: AP50 {ap.per_class['AP50'][index]:.3f}" for index in range(3)]
    np.testing.assert_allclose(mean.lines[0].get_ydata(), ap.precision[0][:, :3].mean(axis=1))


def test_of_many_classes_the_three_best_and_worst_stand_out(tmp_path, panels):
    truth, ap, matches = made(13)
    report.draw_precision_recall(ap, truth.category_names, tmp_path / "a.png")
    report.draw_lrp(matches, truth.category_names, tmp_path / "b.png")
    order = np.argsort(-ap.per_class["AP50"][:12], kind="stable")
    assert [text.split(":")[0] for text in texts(panels[0][1])] == [f"class {index}" for index in (*order[:3], *order[-3:])]
    assert len(panels[0][1].lines) == 12
    olrp = np.array([optimum.olrp for optimum in optimal_lrp_per_class(matches)[:12]])
    order = np.argsort(olrp, kind="stable")
    assert [text.split(":")[0] for text in texts(panels[1][1])] == [f"class {index}" for index in (*order[:3], *order[-3:])]


def test_of_one_class_there_is_one_panel(tmp_path, panels):
    truth, ap, matches = made(1)
    report.draw_precision_recall(ap, truth.category_names, tmp_path / "a.png")
    report.draw_lrp(matches, truth.category_names, tmp_path / "b.png")
    assert [[panel.get_title() for panel in figure] for figure in panels] == [["class 0"], ["class 0, at IoU 0.5"]]
    optimum = optimal_lrp_per_class(matches)[0]
    assert f"minimum {optimum.olrp:.3f} at the score {optimum.threshold:.3f}" in texts(panels[1][0])


def test_lrp_image_has_the_minimum_of_each_class_on_its_curve(tmp_path, panels):
    truth, _, matches = made(4)
    report.draw_lrp(matches, truth.category_names, tmp_path / "a.png")
    _, each = panels[0]
    optima = optimal_lrp_per_class(matches)
    assert len(each.lines) == 6
    for index in range(3):
        curve, marker = each.lines[2 * index : 2 * index + 2]
        assert (marker.get_xdata()[0], marker.get_ydata()[0]) == pytest.approx((optima[index].threshold, optima[index].olrp))
        assert curve.get_ydata().min() == pytest.approx(optima[index].olrp)
        least = np.flatnonzero(curve.get_ydata() <= curve.get_ydata().min() + 1e-12)
        assert curve.get_xdata()[least[-1]] == pytest.approx(optima[index].threshold)


def test_lrp_at_any_threshold_is_that_of_the_definition():
    scores, ious, right = [0.9, 0.7, 0.7, 0.2], [0.8, 0.6, 0.0, 0.9], [True, True, False, True]
    grid = np.array([0.0, 0.2, 0.3, 0.7, 0.75, 0.9, 0.95])
    curve = evaluation._at_thresholds(lrp_curve(scores, ious, right, 5), grid)
    expected = [lrp(scores, ious, right, 5, threshold=threshold) for threshold in grid]
    for name in ("lrp", "localization", "false_positive", "false_negative"):
        np.testing.assert_allclose(getattr(curve, name), [getattr(point, name) for point in expected])


def test_score_iou_image_draws_true_positives_with_rho(tmp_path, panels, monkeypatch):
    truth, _, matches = made(4)
    report.draw_score_iou(matches, truth.category_names, tmp_path / "a.png")
    (panel,) = panels[0]
    assert panel.get_title().startswith(f"{matches.is_tp.sum()} true positives at IoU 0.5: rho ")
    assert sum(len(line.get_xdata()) for line in panel.lines) == matches.is_tp.sum()
    monkeypatch.setattr(evaluation, "POINTS", 5)
    report.draw_score_iou(matches, truth.category_names, tmp_path / "b.png")
    density = panels[1][0].collections[0]
    assert density.get_array().sum() == matches.is_tp.sum()


def test_reliability_is_precision_by_score_bin(tmp_path, panels):
    scores = np.array([1.0, 0.97, 0.96, 0.52, 0.51, 0.05])
    right = np.array([True, True, False, True, False, False])
    ignored = np.array([False] * 5 + [True])
    ious = np.where(right, [0.9, 0.7, 0, 0.6, 0, 0], 0)
    index = np.arange(6)
    matches = Matches(index, index * 0, scores, ious, np.where(right, index, -1), ignored, right, num_ground_truth=np.array([9]))
    report.draw_reliability(matches, tmp_path / "a.png")
    top, bottom = panels[0]
    precision, quality = top.lines[1:]
    np.testing.assert_allclose(precision.get_xdata(), [0.515, 2.93 / 3])
    np.testing.assert_allclose(precision.get_ydata(), [1 / 2, 2 / 3])
    np.testing.assert_allclose(quality.get_ydata(), [0.3, 1.6 / 3])
    assert sum(bar.get_height() for bar in bottom.patches) == 5
    assert "precision (IoU from 0.5 on)" in texts(top)


def test_nothing_found_is_said_in_the_images(tmp_path, panels):
    truth, ap, matches = made(4, found=False)
    report.draw_evaluation(tmp_path, ap, matches, truth.category_names)
    precision_recall, lrp_panels, (points,), reliability = panels
    assert texts(precision_recall[0])[0] == "IoU 0.5: AP 0.000"
    assert [texts(panel) for panel in lrp_panels] == [["nothing found"]] * 2
    assert texts(points) == ["no true positives"]
    assert [texts(panel) for panel in reliability] == [["nothing found"]] * 2


def test_names_that_matplotlib_would_read_differently(tmp_path, panels):
    truth, ap, matches = made(2, names=["_hidden", "$5 \\frac bill$"])
    report.draw_evaluation(tmp_path, ap, matches, truth.category_names)
    for panel in (panels[0][1], panels[1][1], panels[2][0]):
        first, second = texts(panel)
        assert first.startswith(" _hidden: ")
        assert second.startswith(r"\$5 \frac bill\$: ")


def test_bounds_are_a_table_from_low_to_high(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    numbers = {"AP": 0.25, "AP90": float("nan")}
    report.print_bounds({"measured": numbers, "upper": numbers | {"AP": 0.5}, "lower": numbers | {"AP": 0.125}})
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["in inverse order of IoU (lower bound)", "0.125", "-"],
        ["as they are", "0.250", "-"],
        ["in order of IoU (upper bound)", "0.500", "-"],
    ]
