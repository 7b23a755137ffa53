"""Four, two and one gloo processes rank what they have together: values and averaged gradients are those of the concatenated batch."""

from pathlib import Path

import pairwise_reference as reference
import processes_worker as worker
import pytest
import torch
from torch.testing import assert_close

from lossbox.losses import ap_loss, error_driven_loss

PROBLEMS = worker.problems()
LOSSES = worker.losses(False)


@pytest.fixture(scope="module")
def processes(tmp_path_factory, run_processes):
    """world size -> process -> problem -> loss -> what came out."""
    folder = tmp_path_factory.mktemp("processes")
    run_processes(worker.__file__, 4, folder)
    return {size: [torch.load(Path(folder) / f"{size}_{rank}.pt") for rank in range(size)] for size in worker.WORLD_SIZES}


def one_batch(problem, world_size):
    return [torch.cat(parts) for parts in zip(*worker.share(problem, world_size), strict=True)]


def same(found, expected, dtype):
    tolerance = {"rtol": 1e-6, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-7}
    assert_close(found, expected, equal_nan=True, check_dtype=False, **tolerance)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("world_size", worker.WORLD_SIZES)
def test_values_and_averaged_gradients_are_those_of_one_batch(processes, world_size, name):
    logits, targets, values = one_batch(PROBLEMS[name], world_size)
    for loss, function in worker.losses_of(name, False).items():
        parts = [found[name][loss] for found in processes[world_size]]
        expected = worker.compute(function, logits, targets, values)
        for part in parts:
            assert_close(part["values"], parts[0]["values"], rtol=0, atol=0, equal_nan=True)  # all processes say the same
            same(part["values"], expected["values"], logits.dtype)
        # an entry belongs to one process, so its gradients add up to that process's
        for of in ("logits", "localization"):
            averaged = torch.cat([part[of].double() for part in parts]) / world_size
            same(averaged, expected[of].double(), logits.dtype)


@pytest.mark.parametrize("name", ["even", "ties", "no positives on process 0", "no negatives on process 1", "no positives anywhere"])
def test_they_are_those_of_the_papers(processes, name):
    logits, targets, values = one_batch(PROBLEMS[name], 4)
    value, gradient = reference.ap(logits, targets, 0.5)
    classification, localization, of_logits, of_error = reference.alrp(logits, targets, values, 0.5)
    ranking, sorting, of_ranking, of_sorting = reference.rank_sort(logits, targets, values, 0.5)
    discounted, of_gain = reference.ndcg(logits, targets, 0.5)
    expected = {
        "ap 0.5": ([value], 0.7 * gradient),
        "ndcg 0.5": ([discounted], 0.7 * of_gain),
        "alrp 0.5": ([classification, localization], 0.7 * of_logits),
        "rank_sort 0.5": ([ranking, sorting], 0.7 * of_ranking - 1.9 * of_sorting),
    }
    for loss, (numbers, gradient) in expected.items():
        parts = [found[name][loss] for found in processes[4]]
        same(parts[0]["values"], torch.stack(numbers).double(), torch.float64)
        same(torch.cat([part["logits"] for part in parts]) / 4, gradient, torch.float64)
    same(torch.cat([found[name]["alrp 0.5"]["localization"].double() for found in processes[4]]) / 4, -1.9 * of_error, torch.float64)


def test_a_nan_of_one_process_is_seen_by_all(processes):
    for name in ("NaN", "NaN without positives"):
        for found in processes[4]:
            # the weights of the positives are no losses of the scores
            assert all(found[name][loss]["values"][0].isnan() for loss in LOSSES if not loss.endswith("Weights")), name


def test_a_process_ranks_alone_unless_it_is_asked(processes):
    for found, (logits, targets, values) in zip(processes[4], worker.share(PROBLEMS["even"], 4), strict=True):
        alone = worker.compute(LOSSES["ap 0.5"], logits, targets, values)
        for of, tensor in alone.items():
            assert_close(found["even"]["alone"][of], tensor)
    assert processes[4][0]["even"]["alone"]["values"] != processes[4][0]["even"]["ap 0.5"]["values"]


@pytest.mark.parametrize("reduction", ["mean", "positives"])
@pytest.mark.parametrize("world_size", worker.WORLD_SIZES)
def test_rows_of_different_processes_are_different_groups(processes, world_size, reduction):
    shares = worker.share(PROBLEMS["even"], world_size)
    alone = [worker.compute(LOSSES["alrp 0.5"], *own) for own in shares]
    counts = torch.tensor([len(values) for *_, values in shares], dtype=torch.float64)
    weights = counts / counts.sum() if reduction == "positives" else torch.full_like(counts, 1 / world_size)
    expected = sum(weight * own["values"] for weight, own in zip(weights, alone, strict=True))
    for found, own, weight in zip(processes[world_size], alone, weights, strict=True):
        parts = found["even"][f"a row each, {reduction}"]
        assert_close(parts["values"], expected)
        for of in ("logits", "localization"):
            assert_close(parts[of] / world_size, weight * own[of])


def test_groups_of_one_key_are_one_over_the_processes(processes):
    """The law for the concatenated batch: a loop over its keys."""
    logits, targets, values = one_batch(PROBLEMS["even"], 4)
    keys = worker.keys_of(logits)
    expected = []
    for key in keys[targets == 1].unique():
        here = keys == key
        expected.append(worker.compute(worker.losses(False)["ALRPLoss"], logits[here], targets[here], values[here[targets == 1]])["values"])
    assert len(expected) == 3
    same(processes[4][0]["even"]["alrp in groups"]["values"], torch.stack(expected).mean(0), torch.float64)


def test_the_problems_are_what_they_are_called():
    def counts(name, world_size):
        return [(int((t == 1).sum()), int((t == 0).sum()), int((t == -1).sum())) for _, t, _ in worker.share(PROBLEMS[name], world_size)]

    for number in (0, 1):
        for world_size in (2, 4):
            last = number * (world_size - 1)
            positives, negatives, _ = counts(f"no positives on process {number}", world_size)[last]
            assert positives == 0 < negatives
            positives, negatives, _ = counts(f"no negatives on process {number}", world_size)[last]
            assert negatives == 0 < positives
            positives, negatives, ignored = counts(f"nothing that counts on process {number}", world_size)[last]
            assert positives == negatives == 0 < ignored
    assert counts("nothing at all on processes 0 and 3", 4)[::3] == [(0, 0, 0)] * 2
    sizes = [sum(count) for count in counts("uneven", 4)]
    assert max(sizes) > 3 * min(sizes) > 0


def test_one_process_is_asked_without_a_group():
    logits, targets, values = one_batch(PROBLEMS["even"], 1)
    assert ap_loss(logits, targets, global_batch=True) == ap_loss(logits, targets)
    loss = error_driven_loss(logits, targets, lambda ranking: ranking.join(values), global_batch=True)
    assert_close(loss, values.mean())
