"""Many rankings in one call: value and gradient are those of a loop over the groups."""

import functools
import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch.testing import assert_close

from lossbox.losses import (
    ALRPLoss,
    APELoss,
    APLoss,
    _groups,
    alrp_loss,
    ap_loss,
    ape_loss,
    error_driven_loss,
    ndcg_loss,
    rank_sort_loss,
    skewed_pmf,
)

close = functools.partial(assert_close, rtol=1e-9, atol=1e-13)
SPREAD = torch.tensor([-(2**63), -5, 0, 3, 10**15, 2**63 - 1])  # keys too far apart for a table


def pmf_loss(logits, targets, values, **over):
    """An error that reads every kind of sum, as many of them as there are positives, and a phi that differs from group to group."""

    def error(ranking):
        joined = ranking.join(values.detach())
        return (ranking.false_positives + joined + ranking.sum_above(joined)) / ranking.rank / ranking.num_positives

    def pmf(scores):
        return skewed_pmf(100.0)(scores) * torch.sigmoid(scores)

    return error_driven_loss(logits, targets, error, pmf=pmf, normalizer=3.0, **over)


def losses():
    """name -> f(logits, targets, one number a positive, **over) -> a value or several."""
    found = {"pmf": functools.partial(pmf_loss, delta=0.5), "ape": ape_loss, "ape, all pairs": functools.partial(ape_loss, cutoff=math.inf)}
    for delta in (0.0, 0.5):
        found |= {
            f"ap {delta}": lambda x, t, v, d=delta, **over: ap_loss(x, t, delta=d, **over),
            f"interpolated ap {delta}": lambda x, t, v, d=delta, **over: ap_loss(x, t, delta=d, interpolated=True, **over),
            f"ndcg {delta}": lambda x, t, v, d=delta, **over: ndcg_loss(x, t, delta=d, **over),
            f"alrp {delta}": lambda x, t, v, d=delta, **over: alrp_loss(x, t, v, delta=d, **over),
            f"smooth alrp {delta}": lambda x, t, v, d=delta, **over: alrp_loss(x, t, v, delta=d, smooth_localization=True, **over),
            f"rank_sort {delta}": lambda x, t, v, d=delta, **over: rank_sort_loss(x, t, v, delta=d, **over),
        }
    return found


every = pytest.mark.parametrize("name", losses())


@st.composite
def problems(draw):
    """Logits, targets, one number a positive, keys of groups: ties, groups of one, without positives or negatives, ignored."""
    size, num_groups = draw(st.integers(0, 100)), draw(st.sampled_from([1, 2, 6]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits, kind = rng.normal(size=size), draw(st.sampled_from(["normal", "ties", "all equal", "far apart", "cluster"]))
    keys = rng.integers(num_groups, size=size)
    if draw(st.booleans()):
        keys = np.minimum(keys, rng.integers(num_groups, size=size) // 3)  # of very unequal sizes
    shares = draw(st.sampled_from([(0.1, 0.6), (0.4, 0.4), (0.0, 0.9), (1.0, 0.0), (0.5, 0.5), (0.02, 0.98)]))
    drawn = rng.random(size)
    targets = np.where(drawn < shares[0], 1, np.where(drawn < sum(shares), 0, -1))
    for key in range(num_groups):
        if num_groups > 1 and rng.random() < 0.2:
            targets[keys == key] = rng.integers(-1, 2)
    if kind == "ties":
        logits = np.round(logits * 4) / 4
    elif kind == "all equal":
        logits = np.full(size, 0.375)
    elif kind == "far apart":  # the groups, by more than float32 could bear in one sum
        logits = logits + 1e4 * keys
    elif kind == "cluster":
        logits = np.where((targets == 1) & (rng.random(size) < 0.9), 0.5 + 1e-6 * rng.random(size), 2 * logits)
    values = rng.random(int((targets == 1).sum()))
    if draw(st.booleans()):
        values = np.round(values * 4) / 4
    keys = torch.tensor(keys)
    return torch.tensor(logits), torch.tensor(targets), torch.tensor(values), SPREAD[keys] if draw(st.booleans()) else keys


def evaluate(loss, logits, targets, values, **over):
    """The values, and the gradients of logits and values for an upstream gradient of each value."""
    logits, values = logits.clone().requires_grad_(), values.clone().requires_grad_()
    parts = loss(logits, targets, values, **over)
    parts = torch.stack(parts) if isinstance(parts, tuple) else parts[None]
    upstream = torch.tensor([0.7, -1.9], dtype=parts.dtype)[: len(parts)]
    gradients = torch.autograd.grad(parts, (logits, values), upstream, allow_unused=True)
    return [parts.detach(), *(torch.zeros_like(x) if g is None else g for g, x in zip(gradients, (logits, values), strict=True))]


def loop(name, logits, targets, values, keys, reduction):
    """The law, written out: a call for each group that has a positive."""
    num_parts = 2 if "alrp" in name or "rank_sort" in name else 1
    found = [logits.new_zeros(num_parts), torch.zeros_like(logits), torch.zeros_like(values)]
    keys = keys.expand(logits.shape)
    groups = keys[targets == 1].unique()
    positives = int((targets == 1).sum())
    for key in groups:
        here = keys == key
        own = here[targets == 1]
        weight = 1 / len(groups) if reduction == "mean" else float(own.sum()) / positives
        parts, of_logits, of_values = evaluate(losses()[name], logits[here], targets[here], values[own])
        found[0] += weight * parts
        found[1][here] = weight * of_logits
        found[2][own] = weight * of_values
    return found


@every
@hypothesis.given(
    problem=problems(), reduction=st.sampled_from(["mean", "positives"]), dtype=st.sampled_from([torch.float64, torch.float32])
)
@hypothesis.settings(max_examples=20, deadline=None)
def test_it_is_the_loop(name, problem, reduction, dtype):
    logits, targets, values, keys = problem
    logits, values = logits.to(dtype), values.to(dtype)
    found = evaluate(losses()[name], logits, targets, values, groups=keys, group_reduction=reduction)
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 2e-6}
    for ours, theirs in zip(found, loop(name, logits, targets, values, keys, reduction), strict=True):
        assert_close(ours, theirs, **tolerance)


def large(size=40_000, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    targets = torch.where(torch.rand(size, generator=generator) < 0.02, 1, -(torch.rand(size, generator=generator) < 0.1).long())
    logits = torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) + targets.clamp(min=0)
    return logits, targets, torch.rand(int((targets == 1).sum()), generator=generator, dtype=torch.float64).to(dtype)


@every
def test_one_group_is_no_groups_exactly(name):
    logits, targets, values = large(3_000)
    loss = losses()[name]
    expected = evaluate(loss, logits, targets, values)
    for groups in (torch.full_like(targets, 7), torch.zeros(1, dtype=torch.int64), "row"):
        for reduction in ("mean", "positives"):
            found = evaluate(loss, logits, targets, values, groups=groups, group_reduction=reduction)
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@every
@pytest.mark.parametrize(
    ("word", "keys"),
    [
        ("image", torch.arange(4)[:, None, None]),
        ("class", torch.arange(5)),
        ("row", torch.arange(4 * 100).view(4, 100, 1)),
    ],
)
def test_a_word_is_its_dimension(name, word, keys):
    logits, targets, values = (t.view(4, 100, 5) if t.numel() == 2_000 else t for t in large(2_000))
    found = evaluate(losses()[name], logits, targets, values, groups=word)
    for ours, theirs in zip(found, loop(name, logits, targets, values, keys, "mean"), strict=True):
        close(ours, theirs, atol=1e-12)
    again = evaluate(losses()[name], logits, targets, values, groups=keys)
    close(found, again, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 4])
def test_large_groups_of_unequal_size(threads):
    """Several chunks, rows of threads, and a group of thousands of positives beside groups of one."""
    logits, targets, values = large(140_003, torch.float32)
    keys = (torch.rand(len(targets), generator=torch.Generator().manual_seed(1)) ** 8 * 40).long()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name in ("alrp 0.5", "rank_sort 0.5"):
            found = evaluate(losses()[name], logits, targets, values, groups=keys)
            expected = loop(name, logits, targets, values, keys, "mean")
            for ours, theirs in zip(found, expected, strict=True):
                assert_close(ours, theirs, rtol=1e-5, atol=1e-8)
    finally:
        torch.set_num_threads(before)


def test_a_small_group_keeps_its_digits_beside_a_large_one():
    """The sums of the small group are 10^-6 of those of the large one: a difference of sums over everything would lose them."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.cat([1e5 * torch.rand(200_000, generator=generator, dtype=torch.float64), torch.tensor([0.0, -0.999]).double()])
    targets = torch.zeros(len(logits), dtype=torch.int64)
    targets[:1_000] = targets[-2] = 1
    keys = torch.zeros_like(targets)
    for small in (-1, 1):  # before and after the large one
        keys[-2:] = small
        own = evaluate(losses()["ap 0.5"], logits[-2:], targets[-2:], torch.zeros(1).double())
        logits_of_small = evaluate(losses()["ap 0.5"], logits, targets, torch.zeros(1_001).double(), groups=keys)[1][-2:]
        assert_close(2 * logits_of_small, own[1], rtol=1e-12, atol=0)


@every
def test_a_nan_in_any_group_is_seen(name):
    logits, targets, values = large(2_000)
    keys = torch.arange(2_000) // 500
    targets[keys == 3] = 0
    values = values[: int((targets == 1).sum())]
    for place in (int((targets == 1).nonzero()[5]), 1_999):  # a positive; a negative of a group without positives
        bad = logits.clone()
        bad[place] = torch.nan
        assert evaluate(losses()[name], bad, targets, values, groups=keys)[0][0].isnan()
    ignored = logits.clone()
    ignored[targets == -1] = torch.nan
    expected = evaluate(losses()[name], logits, targets, values, groups=keys)
    assert all(torch.equal(a, b) for a, b in zip(evaluate(losses()[name], ignored, targets, values, groups=keys), expected, strict=True))


@every
def test_no_positives_is_zero_with_a_live_graph(name):
    for targets in (torch.zeros(2, 3), torch.full((2, 3), -1), torch.zeros(0, 3)):
        logits = torch.randn(targets.shape, requires_grad=True)
        value = losses()[name](logits, targets, torch.zeros(0), groups="image")
        total = sum(value) if isinstance(value, tuple) else value
        total.backward()
        assert total == 0
        assert torch.equal(logits.grad, torch.zeros_like(logits))


@every
def test_under_autocast_and_in_half_precision(name):
    logits, targets, values = large(3_000, torch.float32)
    keys = torch.arange(3_000) % 7
    with torch.autocast("cpu", torch.bfloat16):
        inside = evaluate(losses()[name], logits, targets, values, groups=keys)
    assert all(torch.equal(a, b) for a, b in zip(inside, evaluate(losses()[name], logits, targets, values, groups=keys), strict=True))
    half = evaluate(losses()[name], logits.bfloat16(), targets, values, groups=keys)
    full = evaluate(losses()[name], logits.bfloat16().float(), targets, values, groups=keys)
    assert half[0].dtype == torch.float32
    assert half[1].dtype == torch.bfloat16
    assert_close(half[0], full[0])
    assert_close(half[1].float(), full[1], rtol=1e-2, atol=1e-8)


def test_each_group_is_balanced():
    """Theorem 2, in every group."""
    logits, targets, _ = large(5_000)
    keys = torch.arange(5_000) % 9
    logits.requires_grad_()
    ap_loss(logits, targets, groups=keys).backward()
    for key in range(9):
        positives, negatives = (logits.grad[(keys == key) & (targets == label)].abs().sum() for label in (1, 0))
        assert positives > 0
        assert_close(positives, negatives, rtol=1e-12, atol=0)


def test_a_module_takes_a_word_or_keys():
    logits, targets, values = (t.view(4, 500) if t.numel() == 2_000 else t for t in large(2_000))
    keys = torch.arange(500) % 3
    assert APLoss(groups="image")(logits, targets) == ap_loss(logits, targets, groups="image")
    assert APLoss(group_reduction="positives")(logits, targets, groups=keys) == ap_loss(
        logits, targets, groups=keys, group_reduction="positives"
    )
    assert APELoss(groups="row")(logits, targets, values) == ape_loss(logits, targets, values, groups="row")
    assert APELoss()(logits, targets, values, groups=keys) == ape_loss(logits, targets, values, groups=keys)
    assert ALRPLoss(groups="class")(logits, targets, values) == alrp_loss(logits, targets, values, groups="class")
    with pytest.raises(ValueError, match="groups: the option 'image' or keys in the call expected, got both"):
        APLoss(groups="image")(logits, targets, groups=keys)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (torch.zeros(2, 3), r"groups: must be an int64 tensor of keys, 'image', 'class' or 'row', got torch.float32"),
        (torch.zeros(2, 3, dtype=torch.int32), r"groups: must be an int64 tensor of keys, 'image', 'class' or 'row', got torch.int32"),
        ([0, 1], r"groups: must be an int64 tensor .* got list"),
        (torch.zeros(2, dtype=torch.int64), r"groups: must broadcast to the shape of logits \(2, 3\), got \(2,\)"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), r"groups: must broadcast to the shape of logits \(2, 3\), got \(1, 2, 3\)"),
        ("images", r"groups: must be a tensor, 'image', 'class' or 'row', got 'images'"),
    ],
)
def test_groups_that_are_none_are_named(groups, message):
    with pytest.raises(ValueError, match=message):
        ap_loss(torch.zeros(2, 3), torch.zeros(2, 3), groups=groups)


def test_words_need_a_dimension_and_reductions_are_two():
    for word in ("image", "class"):
        with pytest.raises(ValueError, match=rf"groups: '{word}' needs a dimension of its own, but logits have shape \(3,\)"):
            ap_loss(torch.zeros(3), torch.zeros(3), groups=word)
    with pytest.raises(ValueError, match="group_reduction: must be 'mean' or 'positives', got 'sum'"):
        ap_loss(torch.zeros(3), torch.zeros(3), group_reduction="sum")


@pytest.mark.parametrize("ids", [torch.tensor([3, 4, 9]), torch.tensor([-(2**63), 0, 2**63 - 1])])
def test_keys_are_numbered_the_same_by_table_and_by_search(ids, monkeypatch):
    monkeypatch.setattr(_groups, "PART", 4)
    keys = torch.tensor([3, 9, 5, 4, -(2**63), 0, 2**63 - 1, 10, -1, 3])
    expected = [ids.tolist().index(key) if key in ids else 3 for key in keys.tolist()]
    assert _groups._number(keys, ids).tolist() == expected
