"""Parts of a data set are evaluated as data sets of their own."""

import numpy as np
import pytest

from lossbox.metrics import (
    average_precision,
    evaluate,
    match_detections,
    optimal_lrp_per_class,
    parts_by_attribute,
    parts_by_name,
    read_ground_truth,
    read_results,
    slice_by_area,
    slice_by_images,
    tide_errors,
)
from lossbox.metrics.matching import AREA_RANGES


@pytest.fixture
def problem(random_problem):
    content, detections = random_problem(1)
    fields = ({"light": "day", "n": 1}, {"light": "night"}, {"light": "day"}, {}, {"light": None}, {"light": ["a", 1]})
    names = [f"{'ab'[number % 2]}/{number}_x.png" for number in range(6)]
    images = [image | {"file_name": name} | more for image, name, more in zip(content["images"], names, fields, strict=True)]
    return content | {"images": images}, detections


def test_by_a_field_of_the_images(problem):
    content, detections = problem
    truth = read_ground_truth(content)
    parts = parts_by_attribute(truth, content, "light")
    assert {name: int(kept.sum()) for name, kept in parts.items()} == {"(none)": 2, "['a', 1]": 1, "day": 2, "night": 1}
    rows = slice_by_images(truth, read_results(detections, truth), parts)
    for row in rows:
        ids = truth.image_ids[parts[row["name"]]].tolist()
        only = content | {
            "images": [image for image in content["images"] if image["id"] in ids],
            "annotations": [one for one in content["annotations"] if one["image_id"] in ids],
        }
        part = read_ground_truth(only)
        numbers = evaluate(part, read_results([one for one in detections if one["image_id"] in ids], part))
        assert [row[name] for name in ("AP", "AP50", "oLRP")] == pytest.approx(
            [numbers[name] for name in ("AP", "AP50", "oLRP")], nan_ok=True
        )
        assert row["num_ground_truth"] == sum(one["num_ground_truth"] for one in numbers["per_class"])
        assert row["images"] == len(ids)


def test_by_the_name_of_the_file(problem):
    truth = read_ground_truth(problem[0])
    sizes = {name: int(kept.sum()) for name, kept in parts_by_name(truth, ["a/*", "[0-2]_x.png"]).items()}
    assert sizes == {"a/*": 3, "[0-2]_x.png": 3, "(none)": 2}
    assert list(parts_by_name(truth, ["*"])) == ["*"]


def test_what_is_no_part_is_refused(problem):
    content, _ = problem
    truth = read_ground_truth(content)
    with pytest.raises(
        ValueError, match=r"no image has the field 'lihgt'; they have file_name, height, light, n, width; also area, or file:P"
    ):
        parts_by_attribute(truth, content, "lihgt")
    with pytest.raises(ValueError, match=r"no file name matches 'c/\*'; the first is "):
        parts_by_name(truth, ["a/*", "c/*"])
    many = {"images": [{"id": number, "n": number} for number in range(51)], "annotations": [], "categories": []}
    with pytest.raises(ValueError, match="at most 50 values expected; 'n' has 51 in 51 images"):
        parts_by_attribute(read_ground_truth(many), many, "n")
    with pytest.raises(ValueError, match="the ground truth has no file names"):
        parts_by_name(read_ground_truth(many), ["a"])


def test_by_area(problem):
    content, detections = problem
    truth = read_ground_truth(content)
    found = read_results(detections, truth)
    ap = average_precision(truth, found)
    rows = slice_by_area(truth, found, ap, tau=0.6)
    assert [row["AP"] for row in rows] == [ap.numbers[name] for name in ("APs", "APm", "APl")]
    for row in rows:
        matches = match_detections(truth, found, iou_threshold=0.6, area_range=AREA_RANGES[row["name"]])
        olrp = [optimum.olrp for optimum in optimal_lrp_per_class(matches, tau=0.6)]
        assert row["oLRP"] == pytest.approx(np.nanmean(olrp) if not np.isnan(olrp).all() else np.nan, nan_ok=True)
    assert sum(row["num_ground_truth"] for row in rows) == int((~truth.crowd).sum())


def test_tide_wants_an_iou_of_cocos(problem):
    truth = read_ground_truth(problem[0])
    found = read_results(problem[1], truth)
    assert tide_errors(truth, found, tau=0.75)["AP"] == pytest.approx(average_precision(truth, found).numbers["AP75"])
    with pytest.raises(ValueError, match=r"tau: one of 0.50, 0.55 ... 0.95 expected, got 0.52"):
        tide_errors(truth, found, tau=0.52)
    with pytest.raises(ValueError, match="background must be in"):
        tide_errors(truth, found, background=0.0)


def test_without_annotations_or_detections_no_gain_is_defined():
    empty = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cup"}], "annotations": []}
    labelled = empty | {"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}]}
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}]
    for content, detections, ap in ((empty, found, np.nan), (empty, [], np.nan), (labelled, [], 0.0)):
        truth = read_ground_truth(content)
        errors = tide_errors(truth, read_results(detections, truth))
        assert errors["AP"] == pytest.approx(ap, nan_ok=True)
        assert np.isnan(list(errors["gain"].values())).all()
