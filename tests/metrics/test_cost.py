"""The cheapest threshold, against a walk over all of them."""

import math

import numpy as np
import pytest

from lossbox.metrics import cost_optimal_threshold, cost_optimal_thresholds, match_detections, read_ground_truth, read_results

COSTS = [(1, 5, 0), (5, 1, 0), (1, 1, 1), (0, 1, 0.5), (1, 0, 0), (0, 0, 3), (2.5, 0.1, 10)]


def cost_at(threshold, scores, ious, right, count, costs, tau):
    kept = scores >= threshold
    found, wrong = (kept & right).sum(), (kept & ~right).sum()
    fp, fn, loose = costs
    return fp * wrong + fn * (count - found) + loose * (1 - ious[kept & right]).sum() / (1 - tau)


@pytest.mark.parametrize("costs", COSTS)
def test_no_threshold_is_cheaper(costs):
    names = ("fp_cost", "fn_cost", "localization_cost")
    for seed in range(30):
        rng = np.random.default_rng(seed)
        number = int(rng.integers(0, 30))
        scores = np.round(rng.random(number), [1, 8][seed % 2])  # ties, or none
        right, ious = rng.random(number) < 0.5, 0.4 + 0.6 * rng.random(number)
        count = int(right.sum() + rng.integers(0, 5))
        best = cost_optimal_threshold(scores, ious, right, count, **dict(zip(names, costs, strict=True)), tau=0.4)
        by_threshold = {at: cost_at(at, scores, ious, right, count, costs, 0.4) for at in [math.inf, *scores]}
        assert best.cost == pytest.approx(min(by_threshold.values()), abs=1e-12)
        highest = max(at for at, cost in by_threshold.items() if cost <= best.cost + 1e-9)
        assert best.threshold == pytest.approx(highest if highest < math.inf else math.nan, nan_ok=True)
        kept = scores >= (math.inf if math.isnan(best.threshold) else best.threshold)
        assert best[2:] == ((kept & right).sum(), (kept & ~right).sum(), count - (kept & right).sum())


def test_each_class_of_a_data_set(random_problem):
    content, detections = random_problem(3)
    truth = read_ground_truth(content)
    matches = match_detections(truth, read_results(detections, truth))
    optima = cost_optimal_thresholds(matches, fp_cost=1, fn_cost=5)
    assert optima == [
        cost_optimal_threshold(*matches.of_class(index), int(count), fp_cost=1, fn_cost=5)
        for index, count in enumerate(matches.num_ground_truth)
    ]


@pytest.mark.parametrize("costs", [{"fp_cost": -1, "fn_cost": 1}, {"fp_cost": 1, "fn_cost": math.inf}, {"fp_cost": math.nan, "fn_cost": 1}])
def test_bad_costs_are_refused(costs):
    with pytest.raises(ValueError, match=r"f._cost: a finite number >= 0 expected"):
        cost_optimal_threshold([0.5], [1.0], [True], 1, **costs)
