"""Self-balance: the formula, its state, resuming, and several processes."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lossbox.losses import SelfBalance


def steps(seed, count=5):
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.rand(2, generator=generator)) for _ in range(count)]


def expected_weight(pairs):
    classification, localization = (torch.stack(part).double().mean() for part in zip(*pairs, strict=True))
    return float((classification + localization) / localization)


def test_weight_is_the_ratio_of_the_previous_periods_means():
    balance = SelfBalance()
    assert balance.weight == 50
    for pair in steps(0):
        balance.update(*pair)
        assert balance.weight == 50
    balance.end_period()
    assert balance.weight.item() == pytest.approx(expected_weight(steps(0)), rel=1e-6)
    for pair in steps(1):
        balance.update(*pair)
    balance.end_period()
    assert balance.weight.item() == pytest.approx(expected_weight(steps(1)), rel=1e-6)


def test_gradient_is_multiplied_and_the_weight_is_a_constant():
    balance = SelfBalance(4.0)
    localization = torch.tensor(0.5, requires_grad=True)
    balance(localization).backward()
    assert localization.grad == 4
    assert not list(balance.parameters())


NOT_FINITE = [torch.nan, torch.inf, -torch.inf]


@pytest.mark.parametrize("skipped", [(0.0, 0.0, False), *((x, 1.0, True) for x in NOT_FINITE), *((1.0, x, True) for x in NOT_FINITE)])
def test_steps_that_say_nothing_are_left_out(skipped):
    balance = SelfBalance()
    for pair in steps(0):
        balance.update(*pair)
        balance.update(torch.tensor(skipped[0]), torch.tensor(skipped[1]), counts=skipped[2])
    assert balance.sum_localization.item() == pytest.approx(sum(float(pair[1]) for pair in steps(0)), rel=1e-6)
    assert balance.sum_classification.item() == pytest.approx(sum(float(pair[0]) for pair in steps(0)), rel=1e-6)
    balance.end_period()
    assert balance.weight.item() == pytest.approx(expected_weight(steps(0)), rel=1e-6)


def test_an_empty_period_and_exact_boxes_keep_the_weight():
    balance = SelfBalance(7.0)
    balance.end_period()
    assert balance.weight == 7
    balance.update(torch.tensor(0.5), torch.tensor(0.0))
    balance.end_period()
    assert balance.weight == 7


@pytest.mark.parametrize("pair", [(0.5, torch.nan), (torch.nan, 0.5), (torch.inf, torch.inf)])
def test_a_period_that_was_never_finite_keeps_the_weight(pair):
    balance = SelfBalance(7.0)
    balance.update(*map(torch.tensor, pair))
    balance.end_period()
    assert balance.weight == 7
    assert balance.sum_localization == 0


def test_resuming_in_the_middle_of_a_period_is_exact():
    straight, first, second = SelfBalance(), SelfBalance(), SelfBalance(1.0)
    for pair in steps(0):
        straight.update(*pair)
    for pair in steps(0)[:2]:
        first.update(*pair)
    second.load_state_dict(first.state_dict())
    for pair in steps(0)[2:]:
        second.update(*pair)
    straight.end_period()
    second.end_period()
    assert torch.equal(straight.weight, second.weight)


def _rank(index, world, file, results):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=index, world_size=world)
    balance = SelfBalance()
    for pair in steps(0)[index::world] if index else []:  # rank 0 saw no positives at all
        balance.update(*pair)
    if index == 0:
        balance.update(torch.tensor(0.0), torch.tensor(0.0), counts=False)
    balance.end_period()
    results[index] = balance.weight.item()
    dist.destroy_process_group()


def test_all_processes_agree_on_the_mean_over_all_steps(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_rank, (2, tmp_path / "store", results), nprocs=2)
        assert results[0] == results[1] == pytest.approx(expected_weight(steps(0)[1::2]), rel=1e-6)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_mistakes_are_named(weight):
    with pytest.raises(ValueError, match="initial_weight: must be a finite number > 0"):
        SelfBalance(weight)
