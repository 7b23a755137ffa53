"""AP by hotcoco equals pycocotools; interpolated precision as in the paper's toy example."""

import math
import sys

import numpy as np
import pytest
import torch

from lossbox.metrics import average_precision, interpolated_precision, read_ground_truth, read_results

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def agree(ours, theirs):
    expected = np.where(np.asarray(theirs) == -1, np.nan, theirs)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("seed", range(12))
def test_numbers_of_random_problems_are_pycocotools(random_problem, pycocotools, seed):
    content, detections = random_problem(seed)
    truth = read_ground_truth(content)
    ours = average_precision(truth, read_results(detections, truth))
    evaluation = pycocotools(content, detections)
    agree([ours.numbers[name] for name in NAMES], evaluation.stats)
    precision = evaluation.eval["precision"]
    agree(ours.precision, precision[:, :, :, 0, 2])
    for iou_index, name in ((0, "AP50"), (5, "AP75"), (8, "AP90")):
        agree(ours.per_class[name], precision[iou_index, :, :, 0, 2].mean(0))
    agree(ours.numbers["AP90"], precision[8, :, :, 0, 2].mean())
    assert ours.numbers["AP"] > 0


def test_a_category_without_ground_truth_has_no_say(random_problem, pycocotools):
    content, detections = random_problem(4)
    absent = content["categories"][1]["id"]
    content = content | {"annotations": [record for record in content["annotations"] if record["category_id"] != absent]}
    truth = read_ground_truth(content)
    ours = average_precision(truth, read_results(detections, truth))
    agree([ours.numbers[name] for name in NAMES], pycocotools(content, detections).stats)
    assert np.isnan(ours.per_class["AP"]).tolist() == [number == absent for number in truth.category_ids]


def test_no_detections_at_all(random_problem, pycocotools):
    content, _ = random_problem(2)
    truth = read_ground_truth(content)
    ours = average_precision(truth, read_results([], truth))
    agree([ours.numbers[name] for name in NAMES], pycocotools(content, []).stats)
    assert ours.numbers["AP"] == 0


@pytest.mark.parametrize("nothing", [{"annotations": []}, {"annotations": [], "images": []}, {"annotations": [], "categories": []}])
def test_nothing_to_find_is_undefined(random_problem, nothing):
    truth = read_ground_truth(random_problem(2)[0] | nothing)
    ours = average_precision(truth, read_results([], truth))
    assert all(math.isnan(number) for number in ours.numbers.values())


def test_without_hotcoco_the_error_says_what_to_install(random_problem, monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    truth = read_ground_truth(random_problem(2)[0])
    with pytest.raises(ImportError, match=r"pip install 'lossbox\[eval\]'"):
        average_precision(truth, read_results([], truth))


# App. A: ten detections, scores 1.0, 0.9, ..., 0.1, five annotations; the positives at ranks 1, 3, 6, 10 have these IoUs in three rankings.
POSITIVE_RANKS = (1, 3, 6, 10)
RANKINGS = {"R1": (0.95, 0.80, 0.65, 0.50), "R2": (0.80, 0.65, 0.50, 0.95), "R3": (0.50, 0.65, 0.80, 0.95)}
TABLE_A9 = {
    0.50: {"R1": 0.51, "R2": 0.51, "R3": 0.51},
    0.65: {"R1": 0.43, "R2": 0.39, "R3": 0.19},
    0.80: {"R1": 0.33, "R2": 0.24, "R3": 0.08},
    0.95: {"R1": 0.20, "R2": 0.02, "R3": 0.02},
}


@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize("iou", TABLE_A9)
def test_toy_example_table_a9(ranking, iou):
    is_tp = np.zeros(10, dtype=bool)
    for rank, quality in zip(POSITIVE_RANKS, RANKINGS[ranking], strict=True):
        is_tp[rank - 1] = quality >= iou
    recalls = np.arange(1, 11) / 10
    assert round(float(interpolated_precision(is_tp, 5, recalls).mean()), 2) == TABLE_A9[iou][ranking]


def test_interpolated_precision_by_its_definition():
    rng = np.random.default_rng(0)
    for _ in range(40):
        is_tp = rng.random(rng.integers(0, 12)) < 0.5
        count = int(is_tp.sum() + rng.integers(1, 4))
        recalls = rng.integers(0, 11, 5) / 10
        points = [(is_tp[:k].sum() / count, is_tp[:k].sum() / k) for k in range(1, len(is_tp) + 1)]
        expected = [max((p for r, p in points if r >= wanted - 1e-9), default=0.0) for wanted in recalls]
        np.testing.assert_allclose(interpolated_precision(is_tp, count, recalls), expected)


def test_a_recall_that_is_reached_counts_in_spite_of_rounding():
    # 3 of 10 is 0.3, and 0.1 + 0.2 is 0.30000000000000004.
    assert interpolated_precision([True, True, True], 10, [0.1 + 0.2]).tolist() == [1.0]


def test_interpolated_precision_of_tensors():
    assert interpolated_precision(torch.tensor([True, False]), 1, torch.tensor([1.0])).tolist() == [1.0]


@pytest.mark.parametrize(
    ("is_tp", "count", "message"),
    [
        ([1, 0], 2, "boolean"),
        ([[True]], 2, "boolean vector"),
        ([True, True], 1, "num_ground_truth .* 2; got 1"),
        ([], 0, "num_ground_truth"),
    ],
)
def test_interpolated_precision_mistakes(is_tp, count, message):
    with pytest.raises(ValueError, match=message):
        interpolated_precision(is_tp, count, [0.5])
