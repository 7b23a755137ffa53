"""LaECE against its definition in loops, then fitting: what it must bring, and what a file may hold."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lossbox.metrics import (
    ANY_OVERLAP,
    Calibration,
    Matches,
    fit_calibration,
    localization_aware_calibration_error,
    match_detections,
    read_ground_truth,
    read_results,
)
from lossbox.metrics.calibration import IsotonicCurve, PlattCurve


def found(scores, ious, category=None, *, num_ground_truth=None, ignored=None) -> Matches:
    """Matches of detections with these IoUs; an IoU of 0 is a false positive."""
    scores, ious = np.asarray(scores, dtype=np.float64), np.asarray(ious, dtype=np.float64)
    category = np.zeros(len(scores), dtype=np.int64) if category is None else np.asarray(category)
    order = np.lexsort((-scores, category))
    ignored = np.zeros(len(scores), dtype=bool) if ignored is None else np.asarray(ignored)
    classes = len(num_ground_truth) if num_ground_truth is not None else int(category.max()) + 1
    return Matches(
        detection=order,
        category=category[order],
        scores=scores[order],
        ious=ious[order],
        annotation=np.where(ious > 0, np.arange(len(scores)), -1)[order],
        ignored=ignored[order],
        is_tp=((ious > 0) & ~ignored)[order],
        num_ground_truth=np.array(num_ground_truth or [int((ious > 0).sum()) + 1] * classes),
    )


def slow(matches: Matches, bins: int) -> tuple[list[float], list[float], list[float]]:
    laece, laace, lamce = [], [], []
    for label, annotations in enumerate(matches.num_ground_truth):
        rows = [i for i in range(len(matches.scores)) if matches.category[i] == label and not matches.ignored[i]]
        if not rows or not annotations:
            for errors in (laece, laace, lamce):
                errors.append(math.nan)
            continue
        weighted, largest = 0.0, 0.0
        for j in range(bins):
            inside = [i for i in rows if (j / bins < matches.scores[i] <= (j + 1) / bins) or (j == 0 and matches.scores[i] == 0)]
            if not inside:
                continue
            right = [i for i in inside if matches.is_tp[i]]
            precision = len(right) / len(inside)
            mean_iou = sum(matches.ious[i] for i in right) / len(right) if right else 0.0
            error = abs(sum(matches.scores[i] for i in inside) / len(inside) - precision * mean_iou)
            weighted += len(inside) / len(rows) * error
            largest = max(largest, error)
        laece.append(weighted)
        lamce.append(largest)
        laace.append(sum(abs(matches.scores[i] - (matches.ious[i] if matches.is_tp[i] else 0)) for i in rows) / len(rows))
    return laece, laace, lamce


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bins", [1, 4, 25])
def test_the_errors_are_their_definition_on_random_problems(random_problem, seed, bins):
    truth, results = random_problem(seed)
    # scores on an edge of a bin where the problem has levels of 1/5 or 1/10 and there are 25 bins
    ground_truth = read_ground_truth(truth)
    matches = match_detections(ground_truth, read_results(results, ground_truth), iou_threshold=ANY_OVERLAP)
    error = localization_aware_calibration_error(matches, bins=bins)
    for mean, per_class, expected in zip(error[:3], error[3:], slow(matches, bins), strict=True):
        np.testing.assert_allclose(per_class, expected, rtol=1e-12, atol=1e-15)
        assert mean == pytest.approx(np.nanmean(expected))
        assert 0 < mean < 1


def test_a_bin_holds_its_upper_edge_and_the_first_both():
    matches = found([0.0, 0.5, 0.50001], [0.3, 0.4, 0.9])
    # halves of [0, 1]: {0, 0.5} with mean IoU 0.35 and {0.50001} with 0.9
    assert localization_aware_calibration_error(matches, bins=2).laece == pytest.approx((2 * 0.1 + 0.39999) / 3)


def test_gaps_of_one_bin_cancel_but_not_in_laace():
    error = localization_aware_calibration_error(found([0.61, 0.63], [0.62 + 0.2, 0.62 - 0.2]))
    assert error.laece == pytest.approx(0, abs=1e-12)
    assert error.laace == pytest.approx(0.21)


def test_a_class_without_detections_or_annotations_has_no_say():
    error = localization_aware_calibration_error(found([0.9, 0.4], [0.9, 0.0], [0, 1], num_ground_truth=[1, 0, 5]))
    assert error.laece_per_class.tolist() == pytest.approx([0, math.nan, math.nan], abs=1e-12, nan_ok=True)
    assert error.laece == pytest.approx(0, abs=1e-12)
    nothing = localization_aware_calibration_error(found([], [], num_ground_truth=[3]))
    assert all(math.isnan(value) for value in nothing[:3])


def test_what_is_ignored_does_not_count():
    with_crowd = found([0.9, 0.8], [0.5, 0.7], ignored=[False, True])
    assert localization_aware_calibration_error(with_crowd).laece == pytest.approx(0.4)


def test_a_box_beside_every_object_takes_no_annotation():
    truth = read_ground_truth(
        {
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "cup"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}],
        }
    )
    row = {"image_id": 1, "category_id": 1}
    results = read_results([{**row, "bbox": [50, 50, 9, 9], "score": 0.9}, {**row, "bbox": [0, 0, 10, 1], "score": 0.1}], truth)
    matches = match_detections(truth, results, iou_threshold=ANY_OVERLAP)
    assert matches.ious.tolist() == [0, 0.1]
    assert localization_aware_calibration_error(matches).laece == pytest.approx(0.45)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="bins: a number >= 1 expected, got 0"):
        localization_aware_calibration_error(found([0.5], [0.5]), bins=0)
    with pytest.raises(ValueError, match=r"matches\.scores: numbers in \[0, 1\] expected, got 1\.5"):
        localization_aware_calibration_error(found([1.5], [0.5]))
    for message, options in (
        ("method: isotonic or platt expected, got 'beta'", {"method": "beta"}),
        ("category_ids: one for each of the 1 classes expected, got 2", {"category_ids": [1, 2]}),
    ):
        with pytest.raises(ValueError, match=message):
            fit_calibration(found([0.5], [0.5]), **{"category_ids": [1], **options})
    with pytest.raises(ValueError, match="at least one detection"):
        fit_calibration(found([], [], num_ground_truth=[3]), [1])


# -- fitting


def overconfident(seed: int, n: int = 4000) -> Matches:
    """Two classes: scores s with precision s^2 in the one, s/2 in the other; true positives have IoU 0.8 on average."""
    rng = np.random.default_rng(seed)
    category, scores = rng.integers(0, 2, n), rng.random(n)
    right = rng.random(n) < np.where(category == 0, scores**2, scores / 2)
    return found(scores, np.where(right, rng.uniform(0.6, 1.0, n), 0.0), category)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_fitted_calibration_halves_the_error_on_detections_it_has_not_seen(method):
    calibration = fit_calibration(overconfident(0), [1, 2], method=method)
    other = overconfident(1)
    before = localization_aware_calibration_error(other).laece
    after = localization_aware_calibration_error(replace(other, scores=calibration(other.scores, other.category))).laece
    assert before > 0.2
    assert after < 0.25 * before


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_calibration_keeps_the_order_within_a_class_and_the_range(method):
    calibration = fit_calibration(overconfident(0), [1, 2], method=method)
    grid = np.linspace(0, 1, 1001)
    for label in (0, 1):
        mapped = calibration(grid, np.full(1001, label))
        assert (np.diff(mapped) >= 0).all()
        assert 0 <= mapped[0] < mapped[-1] <= 1


def test_the_maps_are_those_of_scikit_learn():
    from sklearn.isotonic import IsotonicRegression

    matches = overconfident(3)
    calibration = fit_calibration(matches, [1, 2])
    grid = np.linspace(0, 1, 777)
    for label in (0, 1):
        scores, ious, is_tp = matches.of_class(label)
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, np.where(is_tp, ious, 0))
        np.testing.assert_allclose(calibration(grid, np.full(777, label)), fitted.predict(grid), rtol=0, atol=1e-12)


def test_platt_minimizes_the_cross_entropy_with_the_iou():
    matches = overconfident(4, 500)
    scores, ious, is_tp = matches.of_class(0)
    targets, logits = np.where(is_tp, ious, 0), np.log(scores / (1 - scores))
    curve = fit_calibration(matches, [1, 2], method="platt").curves[0]
    mapped = 1 / (1 + np.exp(-(curve.a * logits + curve.b)))
    # the gradient at the minimum is 0
    assert np.mean((mapped - targets) * logits) == pytest.approx(0, abs=1e-3)
    assert np.mean(mapped - targets) == pytest.approx(0, abs=1e-3)


def test_a_class_of_few_detections_takes_the_map_of_all():
    matches = overconfident(0)
    few = found(np.append(matches.scores, 0.9), np.append(matches.ious, 0.0), np.append(matches.category, 2))
    calibration = fit_calibration(few, [1, 2, 3])
    of_all = fit_calibration(few, [1, 2, 3], per_class=False)
    assert calibration.curves[2] == of_all.curves[0] == of_all.curves[1]
    assert calibration.curves[0] != of_all.curves[0]
    assert fit_calibration(few, [1, 2, 3], least=1)([0.9], [2]).tolist() == [0]


@pytest.mark.parametrize("method", ["isotonic", "platt"])
@pytest.mark.parametrize(("ious", "expected"), [(np.zeros(40), 0), (np.linspace(0.9, 0.1, 40), 0.5), (np.ones(40), 1)])
def test_scores_that_say_nothing_become_the_mean_iou(method, ious, expected):
    """Nothing right, everything perfect, or better scores on worse boxes: no map may fall."""
    calibration = fit_calibration(found(np.linspace(0.1, 0.9, 40), ious), [1], method=method)
    np.testing.assert_allclose(calibration([0.0, 0.3, 1.0], [0, 0, 0]), expected, atol=1e-9)


# -- the file


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_calibration_comes_back_from_its_file(method, tmp_path):
    calibration = fit_calibration(overconfident(0, 300), [7, 9], method=method)
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({**calibration.to_dict(), "comment": "other keys are not looked at"}))
    assert Calibration.read(path) == calibration


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "an object with a 'method'"),
        ('{"method": "beta", "classes": []}', "isotonic or platt"),
        ('{"method": "platt", "classes": [{"id": 1, "a": 1, "b": 0}, {"id": 2, "a": 1}]}', r"classes\[1\]: 'id', 'a', 'b' expected"),
        ('{"method": "platt", "classes": [{"id": 1, "a": -1, "b": 0}]}', r"classes\[0\].*a >= 0"),
        ('{"method": "platt", "classes": [{"id": 1, "a": "x", "b": 0}]}', r"classes\[0\]"),
        ('{"method": "isotonic", "classes": [{"id": 1, "scores": [0, 1], "calibrated": [1, 0]}]}', r"classes\[0\].*non-descending"),
        ('{"method": "isotonic", "classes": [{"id": 1, "scores": [], "calibrated": []}]}', r"classes\[0\].*at least one"),
        ('{"method": "isotonic", "classes": [{"id": 1, "scores": ["a"], "calibrated": [1]}]}', r"classes\[0\]"),
    ],
)
def test_a_broken_file_is_named(text, message, tmp_path: Path):
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"calibration\.json: .*{message}"):
        Calibration.read(path)


def test_a_label_without_a_map_is_named():
    with pytest.raises(ValueError, match=r"labels: whole numbers in \[0, 1\) expected, got 0 to 1"):
        Calibration("platt", (PlattCurve(1.0, 0.0),), (1,))([0.5, 0.5], [0, 1])
    assert len(Calibration("isotonic", (IsotonicCurve((0.5,), (0.2,)),), (1,))([], [])) == 0
