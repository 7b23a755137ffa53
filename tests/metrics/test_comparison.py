"""Paired bootstrap: each draw is a data set in which an image stands several times."""

from dataclasses import replace

import numpy as np
import pytest

from lossbox.metrics import compare_detections, evaluate, match_detections, read_ground_truth, read_results
from lossbox.metrics.comparison import olrp_of_draws


def problem(random_problem, seed):
    content, detections = random_problem(seed)
    truth = read_ground_truth(content)
    return content, detections, truth, read_results(detections, truth)


def drawn(content, detections, times):
    """The data set with each image as often as it was drawn, under new ids."""
    images, annotations, results = [], [], []
    for image, number in zip(sorted(content["images"], key=lambda image: image["id"]), times, strict=True):
        for copy in range(number):
            new = {"image_id": image["id"] * 10 + copy}
            images.append({"id": new["image_id"]})
            annotations += [one | new for one in content["annotations"] if one["image_id"] == image["id"]]
            results += [one | new for one in detections if one["image_id"] == image["id"]]
    annotations = [one | {"id": number} for number, one in enumerate(annotations)]
    return content | {"images": images, "annotations": annotations}, results


def test_olrp_of_a_draw_is_that_of_the_data_set_drawn(random_problem, monkeypatch):
    monkeypatch.setattr("lossbox.metrics.comparison.AT_ONCE", 100)  # several parts
    for seed in range(6):
        content, detections, truth, found = problem(random_problem, seed)
        weights = np.random.default_rng(seed).multinomial(6, np.full(6, 1 / 6), size=4)
        optima = olrp_of_draws(truth, found, match_detections(truth, found), weights, tau=0.5)
        for times, row in zip(weights, optima, strict=True):
            copied, results = drawn(content, detections, times)
            columns = read_ground_truth(copied)
            expected = [one["oLRP"] for one in evaluate(columns, read_results(results, columns))["per_class"]]
            assert row.tolist() == pytest.approx(expected, nan_ok=True)


def test_the_numbers_of_both_and_what_is_better(random_problem):
    _, _, truth, found = problem(random_problem, 5)
    right = np.zeros(len(found.scores), dtype=bool)
    matches = match_detections(truth, found)
    right[matches.detection[matches.is_tp]] = True
    found, worse = (replace(found, scores=np.where(right, 0.5 + sign * 0.2, 0.5) + found.scores / 10) for sign in (1, -1))
    compared = compare_detections(truth, found, worse, resamples=200)
    for key, columns in (("first", found), ("second", worse)):
        numbers = evaluate(truth, columns)
        for name in ("AP", "AP50", "AR100", "oLRP"):
            assert compared["metrics"][name][key] == pytest.approx(numbers[name])
        for name in ("AP", "oLRP"):
            ours = [row[name][key] for row in compared["per_class"]]
            assert ours == pytest.approx([row[name] for row in numbers["per_class"]], nan_ok=True)
    assert compared["metrics"]["oLRP"]["difference"] > 0
    for name in ("AP50", "oLRP"):
        row = compared["metrics"][name]
        assert row["lower"] <= row["difference"] <= row["upper"]
        assert row["better"] < 0.5
    assert str(compare_detections(truth, found, worse, resamples=9)) == str(compare_detections(truth, found, worse, resamples=9))
    announced = []
    same = compare_detections(truth, found, found, resamples=20, announce=announced.append)["metrics"]
    assert len(announced) == 1
    assert 0 < announced[0] < 60
    assert all(row["difference"] == row["lower"] == row["upper"] == 0 for row in same.values() if not np.isnan(row["difference"]))


@pytest.mark.parametrize(
    ("options", "message"), [({"resamples": 0}, "resamples: a number >= 1"), ({"confidence": 95}, r"confidence: a number in \(0, 1\)")]
)
def test_bad_options_are_refused(random_problem, options, message):
    _, _, truth, found = problem(random_problem, 0)
    with pytest.raises(ValueError, match=message):
        compare_detections(truth, found, found, **options)


def test_without_images_there_is_nothing_to_draw():
    truth = read_ground_truth({"images": [], "categories": [], "annotations": []})
    with pytest.raises(ValueError, match="at least one image"):
        compare_detections(truth, read_results([], truth), read_results([], truth))
