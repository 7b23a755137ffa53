"""Self-balance: the formula, its state, resuming, and several processes; and its rivals against their formulas written out."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lossbox.losses import CARLWeights, RankingWeights, SelfBalance, UncertaintyWeights, alrp_loss


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


# -- weights that are learned


def test_learned_weights_are_their_formula_and_its_gradient():
    weights = UncertaintyWeights(3, [2.0, 1.0, 0.25])
    losses = [torch.tensor(x, requires_grad=True) for x in (0.3, 1.5, 4.0)]
    s = [-math.log(2.0), 0.0, math.log(4.0)]
    found = weights(losses)
    assert found.item() == pytest.approx(sum(math.exp(-t) * loss.item() + t for t, loss in zip(s, losses, strict=True)))
    (2 * found).backward()
    assert [loss.grad.item() for loss in losses] == pytest.approx([4.0, 2.0, 0.5])
    expected = [2 - 2 * math.exp(-t) * loss.item() for t, loss in zip(s, losses, strict=True)]
    assert weights.log_variance.grad.tolist() == pytest.approx(expected)
    assert list(dict(weights.named_parameters())) == ["log_variance"]


def test_learned_weights_arrive_at_one_over_the_loss():
    weights = UncertaintyWeights()
    optimizer = torch.optim.Adam(weights.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        weights([torch.tensor(0.5), torch.tensor(0.1)]).backward()
        optimizer.step()
    assert weights.factors().tolist() == pytest.approx([2.0, 10.0], rel=1e-3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: UncertaintyWeights(0), "num_tasks: a number >= 1"),
        (lambda: UncertaintyWeights(2, [1.0]), "initial_weights: 2 finite numbers > 0"),
        (lambda: UncertaintyWeights(2, [1.0, 0.0]), "initial_weights: 2 finite numbers > 0"),
        (lambda: UncertaintyWeights(2)([torch.tensor(1.0)]), "losses: one for each of 2 tasks"),
        (lambda: CARLWeights(bias=1.5), r"bias: a number in \[0, 1\]"),
        (lambda: CARLWeights(power=-1.0), "power: a finite number >= 0"),
        (lambda: RankingWeights(delta=math.inf), "delta: 0 or a finite number >= 1e-06"),
        (lambda: CARLWeights()(torch.zeros(3), torch.tensor([1, 0, 1]), torch.zeros(3)), r"values: must have shape \(2,\)"),
        (lambda: RankingWeights()(torch.zeros(3), torch.tensor([1, 0, 1]), torch.zeros(3)), r"values: must have shape \(2,\)"),
        (lambda: CARLWeights()(torch.zeros(3), torch.zeros(2), torch.zeros(0)), "targets: must have the shape of logits"),
    ],
)
def test_mistakes_of_the_rivals_are_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()


# -- weights of the positives


def problem(seed, size=30):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(-1, 2, (size,), generator=generator)
    logits = torch.randn(size, generator=generator, dtype=torch.float64).mul(2).round(decimals=seed % 2)  # with ties, and without
    values = torch.rand(int((targets == 1).sum()), generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), targets, values.requires_grad_()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("bias", "power"), [(0.2, 1.0), (0.0, 1.0), (0.3, 2.0), (1.0, 1.0)])
def test_carl_is_its_formula_with_the_derivatives_by_autograd(seed, bias, power):
    logits, targets, values = problem(seed)
    found = torch.autograd.grad(3 * CARLWeights(bias, power)(logits, targets, values), (logits, values))
    v = [(bias + (1 - bias) / (1 + (-logits[place]).exp())) ** power for place in (targets == 1).nonzero()[:, 0]]
    expected = sum(one * value for one, value in zip(v, values, strict=True)) / sum(v)
    assert CARLWeights(bias, power)(logits, targets, values).item() == pytest.approx(expected.item(), rel=1e-12)
    for one, other in zip(found, torch.autograd.grad(3 * expected, (logits, values), allow_unused=True), strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other, rtol=1e-9, atol=1e-12)


def ranking_weights(logits, targets, delta):
    """Eq. (A.46), pair by pair."""

    def step(x):
        return min(max(x / (2 * delta) + 0.5, 0), 1) if delta else float(x >= 0)

    scores = logits.tolist()
    positives = [i for i, target in enumerate(targets.tolist()) if target == 1]
    counted = [i for i, target in enumerate(targets.tolist()) if target >= 0]
    rank = {k: 1 + sum(step(scores[j] - scores[k]) for j in counted if j != k) for k in positives}
    return [sum(1 / rank[k] for k in positives if scores[i] >= scores[k]) / len(positives) for i in positives]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
def test_ranking_weights_are_eq_a46_and_those_of_alrp(seed, delta):
    logits, targets, values = problem(seed)
    found = RankingWeights(delta)(logits, targets, values)
    weights = ranking_weights(logits, targets, delta)
    assert found.item() == pytest.approx(sum(w * v for w, v in zip(weights, values.tolist(), strict=True)), rel=1e-12)
    of_logits, of_values = torch.autograd.grad(3 * found, (logits, values))
    assert of_values.tolist() == pytest.approx([3 * w for w in weights], rel=1e-9)
    assert not of_logits.any()
    assert found.item() == pytest.approx(alrp_loss(logits, targets, values, delta=delta).localization.item(), rel=1e-12)
    assert sum(weights) <= 1 + 1e-12 or delta > 0


@pytest.mark.parametrize("rule", [CARLWeights(), CARLWeights(bias=0.0), RankingWeights()])
def test_weights_without_positives_are_0_with_a_live_graph(rule):
    for size in (0, 3):
        logits, values = torch.randn(size, requires_grad=True), torch.zeros(0, requires_grad=True)
        loss = rule(logits, torch.zeros(size), values)
        of_logits, _ = torch.autograd.grad(loss, (logits, values))
        assert loss.item() == 0
        assert not of_logits.any()


def test_scores_of_exactly_0_weigh_nothing():
    logits = torch.full((2,), -200.0, requires_grad=True)
    loss = CARLWeights(bias=0.0)(logits, torch.ones(2), torch.ones(2))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.isfinite().all()
