"""APE loss against its definition (pairwise_reference), on drawn problems and in its corners."""

import math

import hypothesis
import numpy as np
import pairwise_reference as reference
import pytest
import torch
from hypothesis import strategies as st
from torch.testing import assert_close

from lossbox.losses import ape_loss, debug_checks, pairwise


@st.composite
def problems(draw):
    """Logits, targets, qualities, sharpness, cutoff: random, tied, on the edge of the cutoff, saturated; ignored entries among them."""
    size = draw(st.integers(0, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["normal", "wide", "ties", "all equal", "saturated"]))
    logits = rng.normal(size=size)
    shares = draw(st.sampled_from([(0.1, 0.6), (0.4, 0.4), (0.0, 0.9), (1.0, 0.0), (0.5, 0.5), (0.02, 0.98)]))
    kinds = rng.random(size)
    targets = np.where(kinds < shares[0], 1, np.where(kinds < sum(shares), 0, -1))
    if kind == "wide":
        logits *= 20
    elif kind == "ties":  # a quarter apart: with the cutoffs below many pairs lie exactly on the edge
        logits = np.round(logits * 4) / 4
    elif kind == "all equal":
        logits = np.full(size, 0.375)
    elif kind == "saturated":
        logits = np.where(rng.random(size) < 0.5, 50.0, -50.0) + np.round(logits)
    quality = rng.random(int((targets == 1).sum()))
    if draw(st.booleans()):
        quality = np.round(quality * 4) / 4
    sharpness, cutoff = draw(st.sampled_from([1.0, 4.0, 8.0])), draw(st.sampled_from([2.0, 4.0, math.inf]))
    return torch.tensor(logits), torch.tensor(targets), torch.tensor(quality), sharpness, cutoff


def value_and_gradient(logits, targets, quality, upstream=1.0, **options):
    leaf = logits.detach().clone().requires_grad_()
    loss = ape_loss(leaf, targets, quality, **options)
    (gradient,) = torch.autograd.grad(loss, leaf, torch.tensor(upstream, dtype=loss.dtype))
    return loss.detach(), gradient


def many(positives=60, negatives=3000, dtype=torch.float64):
    g = torch.Generator().manual_seed(2)
    targets = torch.zeros(positives + negatives, dtype=torch.long)
    targets[torch.randperm(len(targets), generator=g)[:positives]] = 1
    logits = 2 * torch.randn(len(targets), generator=g, dtype=dtype) + 2 * targets
    return logits, targets, torch.rand(positives, generator=g, dtype=dtype)


@pytest.mark.parametrize("pairs", [100, pairwise.PAIRS])
@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(problem=problems(), upstream=st.sampled_from([1.0, -2.5, 1e-3]))
def test_it_is_the_definition_whatever_the_blocks(pairs, problem, upstream):
    logits, targets, quality, sharpness, cutoff = problem
    expected, gradient = reference.ape(logits, targets, quality, sharpness, cutoff)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairwise, "PAIRS", pairs)
        ours = value_and_gradient(logits, targets, quality, upstream, sharpness=sharpness, cutoff=cutoff)
    assert_close(ours[0], expected, rtol=1e-12, atol=1e-14)
    assert_close(ours[1], upstream * gradient, rtol=1e-10, atol=1e-14)


def test_one_positive_below_one_negative_by_hand():
    """rank = S(x) + 1/2; L = y / rank * softplus(4 x) / 4."""
    x, y = 0.5, 0.8
    s = 1 / (1 + math.exp(-4 * x))
    value, gradient = value_and_gradient(torch.tensor([0.0, x]).double(), torch.tensor([1, 0]), torch.tensor([y]))
    assert value.item() == pytest.approx(y / (s + 0.5) * math.log1p(math.exp(4 * x)) / 4)
    assert gradient.tolist() == pytest.approx([-y * s / (s + 0.5), y * s / (s + 0.5)])


def test_the_gradient_is_the_slope_while_the_ranks_stand_still():
    """Positives far apart, each with one negative far above: every S that counts is 1, so no rank moves."""
    logits = torch.tensor([0.0, -100.0, 50.0], dtype=torch.float64)
    targets, quality = torch.tensor([1, 1, 0]), torch.tensor([0.9, 0.9])
    leaf = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: 1.7 * ape_loss(x, targets, quality), (leaf,))


def test_a_pair_on_the_edge_of_the_cutoff_does_not_count():
    targets, quality = torch.tensor([1, 0]), torch.tensor([1.0])
    on_the_edge, inside = torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, 1e-9]).double()
    assert value_and_gradient(on_the_edge, targets, quality)[0] == 0
    assert value_and_gradient(inside, targets, quality)[0] > 0.008
    assert value_and_gradient(on_the_edge, targets, quality, cutoff=math.inf)[0] > 0.008


def test_a_positive_without_pairs_does_not_dilute_the_mean():
    alone = value_and_gradient(torch.tensor([0.0, 0.1]), torch.tensor([1, 0]), torch.tensor([0.7]))[0]
    beside = value_and_gradient(torch.tensor([0.0, 0.1, -9.0]), torch.tensor([1, 0, 1]), torch.tensor([0.7, 0.7]), cutoff=4.0)
    assert beside[0] != alone  # the second positive has the negative above it
    ahead = value_and_gradient(torch.tensor([-2.0, -1.9, 9.0]), torch.tensor([1, 0, 1]), torch.tensor([0.7, 0.7]))
    assert ahead[1][2] == 0
    # it raises the rank of the other by S = 1
    s = torch.sigmoid(torch.tensor(0.4))
    assert_close(ahead[0], alone * (s + 0.5) / (s + 1.5))


def test_a_better_positive_above_a_worse_one_is_right_and_below_it_wrong():
    targets = torch.tensor([1, 1])
    logits = torch.tensor([2.0, 0.0]).double()
    assert value_and_gradient(logits, targets, torch.tensor([0.9, 0.5]))[0] == 0
    value, gradient = value_and_gradient(logits, targets, torch.tensor([0.5, 0.9]))
    assert value > 1
    assert gradient[0] > 0 > gradient[1]
    assert value_and_gradient(logits, targets, torch.tensor([0.5, 0.5]))[0] == 0  # equals are no error


def test_positives_and_negatives_balance():
    _, gradient = value_and_gradient(*many())
    assert gradient.abs().sum() > 0.5
    assert gradient.sum().abs() < 1e-13


def test_the_loss_depends_on_differences_only():
    logits, targets, quality = many(negatives=500)
    logits = (logits * 8).round() / 8
    assert_close(value_and_gradient(logits + 1024, targets, quality), value_and_gradient(logits, targets, quality))


def test_a_large_gap_keeps_its_gradient_in_float32():
    """The published form, binary cross-entropy of a float32 sigmoid, has gradient 0 from a gap of about 4.2 logits on."""
    targets, quality = torch.tensor([1, 0]), torch.tensor([0.9])
    gap = torch.tensor(6.0, requires_grad=True)
    published = torch.nn.functional.binary_cross_entropy(torch.sigmoid(4 * gap), torch.zeros(()))
    assert torch.autograd.grad(published, gap)[0] == 0
    value, gradient = value_and_gradient(torch.tensor([0.0, 6.0]), targets, quality)
    assert_close(value, torch.tensor(0.9 / 1.5 * 6))
    assert_close(gradient, torch.tensor([-0.6, 0.6]))
    value, gradient = value_and_gradient(torch.tensor([-1e4, 1e4]), targets, quality)
    assert_close(value, torch.tensor(0.9 / 1.5 * 2e4))
    assert_close(gradient, torch.tensor([-0.6, 0.6]))


def test_no_limit_to_the_negatives():
    """All 120,000 count: with equal scores rank = (120,000 + 1) / 2, and the sum of the cross-entropies is 120,000 log 2."""
    logits, targets = torch.zeros(120_001), torch.zeros(120_001, dtype=torch.long)
    targets[70] = 1
    value, gradient = value_and_gradient(logits, targets, torch.ones(1))
    assert value.item() == pytest.approx(120_000 * math.log(2) / (120_001 / 2) / 4, rel=1e-6)
    assert (gradient[targets == 0] > 0).all()


def test_any_shape_and_layout():
    logits, targets, quality = many(positives=40, negatives=2360)
    value, gradient = value_and_gradient(logits, targets, quality)
    leaf = logits.reshape(4, 6, 100).permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    assert not leaf.is_contiguous()
    loss = ape_loss(leaf, targets.reshape(4, 6, 100).double(), quality)
    assert torch.equal(loss, value)
    assert torch.equal(torch.autograd.grad(loss, leaf)[0].reshape(-1), gradient)


def test_ignored_entries_do_not_exist():
    logits, targets, quality = many(negatives=300)
    garbage = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, 0.0])
    value, gradient = value_and_gradient(logits, targets, quality)
    again, more = value_and_gradient(torch.cat([logits, garbage]), torch.cat([targets, targets.new_full((5,), -1)]), quality)
    assert torch.equal(again, value)
    assert torch.equal(more, torch.cat([gradient, torch.zeros(5)]))


@pytest.mark.parametrize("cutoff", [4.0, math.inf])
def test_a_negative_at_minus_infinity_does_not_exist(cutoff):
    logits, targets, quality = many(negatives=300)
    value, gradient = value_and_gradient(logits, targets, quality, cutoff=cutoff)
    more = torch.cat([logits, torch.tensor([-torch.inf])]), torch.cat([targets, torch.zeros(1)]), quality
    assert_close(value_and_gradient(*more, cutoff=cutoff), (value, torch.cat([gradient, torch.zeros(1)])))


def test_the_quality_takes_no_gradient_and_may_come_in_half_precision():
    logits, targets, quality = many(negatives=300, dtype=torch.float32)
    leaf, q = logits.clone().requires_grad_(), quality.bfloat16().requires_grad_()
    loss = ape_loss(leaf, targets, q)
    assert torch.autograd.grad(loss, [leaf, q], allow_unused=True)[1] is None
    assert_close(loss.detach(), value_and_gradient(logits, targets, quality.bfloat16().float())[0])


@pytest.mark.parametrize("where", [0, 1])
def test_nan_in_nan_out(where):
    logits, targets, quality = many(negatives=300)
    logits[(targets == where).nonzero()[3]] = torch.nan
    value, gradient = value_and_gradient(logits, targets, quality)
    assert value.isnan()
    assert gradient.isnan().any()
    # also where nothing is near: such a positive has no pairs, and would drop out
    lonely = torch.tensor([torch.nan if where else 9.0, -9.0 if where else torch.nan])
    assert value_and_gradient(lonely, torch.tensor([1, 0]), torch.ones(1))[0].isnan()


def test_nan_in_the_quality_is_not_swallowed():
    assert ape_loss(torch.tensor([9.0, 8.0, 0.0]), torch.tensor([1, 1, 0]), torch.tensor([0.5, torch.nan])).isnan()


def test_without_positives():
    assert ape_loss(torch.tensor([0.0, torch.nan]), torch.zeros(2), torch.zeros(0)).isnan()
    value, gradient = value_and_gradient(torch.tensor([0.0, torch.nan]), torch.tensor([0, -1]), torch.zeros(0))
    assert value == 0
    assert torch.equal(gradient, torch.zeros(2))


def test_inside_autocast_it_is_the_same():
    problem = many(negatives=300, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = value_and_gradient(*problem)
    assert_close(inside, value_and_gradient(*problem), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ape_loss(torch.zeros(3), torch.zeros(2), torch.zeros(0)), r"targets: must have the shape of logits \(3,\), got \(2,\)"),
        (lambda: ape_loss(torch.zeros(2), torch.tensor([1, 0]), torch.zeros(2)), r"quality: must have shape \(1,\).*got \(2,\)"),
        (lambda: ape_loss(torch.zeros(2), torch.zeros(2), torch.zeros(0), sharpness=0), "sharpness: must be a finite number > 0, got 0"),
        (lambda: ape_loss(torch.zeros(2), torch.zeros(2), torch.zeros(0), sharpness=math.inf), "sharpness: .*got inf"),
        (lambda: ape_loss(torch.zeros(2), torch.zeros(2), torch.zeros(0), cutoff=math.nan), "cutoff: must be a number > 0.*got nan"),
    ],
)
def test_mistakes_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_debug_checks_name_the_place():
    with debug_checks(), pytest.raises(ValueError, match=r"quality: 1 of 2 entries are not finite, the first at \(1,\)"):
        ape_loss(torch.zeros(2), torch.tensor([1, 1]), torch.tensor([0.5, torch.nan]))
