"""Losses of distributions of box sides against plain loops over the papers' formulas, value and gradient."""

import math

import pytest
import torch

from lossbox.losses import decoupled_distillation_loss, distribution_focal_loss, fine_grained_localization_loss, refinement_bins

G = torch.Generator().manual_seed(0)


def uniform(*shape):
    return torch.rand(*shape, generator=G, dtype=torch.float64)


def same(ours, expected, leaf):
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)
    found, wanted = (torch.autograd.grad(-2.5 * x, leaf, retain_graph=True)[0] for x in (ours, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_dfl_is_eq_6():
    logits, target = (6 * uniform(7, 5) - 3).requires_grad_(), 4 * uniform(7)
    target[:3] = torch.tensor([0.0, 4.0, 2.0])  # both ends, and a whole number
    total = 0
    for row, y in zip(logits.softmax(1), target.tolist(), strict=True):
        i = min(math.floor(y), 3)
        total = total - (i + 1 - y) * row[i].log() - (y - i) * row[i + 1].log()
    same(distribution_focal_loss(logits, target, normalizer=3), total / 3, logits)


def test_the_minimum_of_dfl_has_the_target_as_its_mean():
    best = torch.tensor([[1e-9, 0.75, 0.25, 1e-9]], dtype=torch.float64).log().requires_grad_()
    (gradient,) = torch.autograd.grad(distribution_focal_loss(best, torch.tensor([1.25])), best)
    assert gradient.abs().max() < 1e-8


def bins(n, a, c):
    found = []
    for i in range(n + 1):
        if i in (0, n):
            found.append(-2 * a if i == 0 else 2 * a)
        elif i < n / 2:
            found.append(c - c * (a / c + 1) ** ((n - 2 * i) / (n - 2)))
        else:
            found.append(-c + c * (a / c + 1) ** ((2 * i - n) / (n - 2)))
    return found


@pytest.mark.parametrize(("a", "c"), [(0.5, 0.25), (0.3, 1.0)])
def test_fgl_is_its_formula(a, c):
    edges = bins(8, a, c)
    torch.testing.assert_close(refinement_bins(8, a=a, c=c), torch.tensor(edges, dtype=torch.float64))
    logits = (6 * uniform(9, 9) - 3).requires_grad_()
    offset = 2.4 * a * (2 * uniform(9) - 1)
    offset[:4] = torch.tensor([edges[0], edges[8], edges[3], 9.0])
    total = 0
    for row, t in zip(logits.softmax(1), offset.tolist(), strict=True):
        t = min(max(t, edges[0]), edges[8])
        n = max(i for i in range(8) if edges[i] <= t)
        u = (edges[n + 1] - t) / (edges[n + 1] - edges[n])
        total = total - u * row[n].log() - (1 - u) * row[n + 1].log()
    same(fine_grained_localization_loss(logits, offset, a=a, c=c), total / 9, logits)


@pytest.mark.parametrize("matched", [[1, 0, 1, 0, 0], [1] * 5, [0] * 5])
def test_ddf_is_its_formula(matched):
    logits, teacher, confidence = (6 * uniform(5, 4) - 3).requires_grad_(), 6 * uniform(5, 4) - 3, uniform(5)
    sums, counts = [0 * logits.sum(), 0 * logits.sum()], [0, 0]
    for x, t, q, m in zip(logits, teacher, confidence, matched, strict=True):
        p, s = (t / 5).softmax(0), (x / 5).softmax(0)
        sums[m], counts[m] = sums[m] + q * (p * (p / s).log()).sum(), counts[m] + 1
    roots = [math.sqrt(k) for k in counts]
    mean = sum(root * total / max(k, 1) for root, total, k in zip(roots, sums, counts, strict=True)) / sum(roots)
    same(decoupled_distillation_loss(logits, teacher, torch.tensor(matched), confidence), 25 * mean, logits)


@pytest.mark.parametrize("loss", [distribution_focal_loss, fine_grained_localization_loss])
def test_a_target_that_is_nan_makes_its_own_row_nan(loss):
    logits = torch.randn(3, 5, requires_grad=True)
    values = loss(logits, torch.tensor([math.nan, 0.5, -1.0]), reduction="none")
    assert values.isnan().tolist() == [True, False, False]
    assert torch.autograd.grad(values[1:].sum(), logits)[0][1].isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distribution_focal_loss(torch.zeros(2, 3), torch.tensor([0.0, 2.5])), r"target: 1 of 2 entries are not in \[0, 2\] or -1"),
        (lambda: distribution_focal_loss(torch.zeros(2, 1), torch.zeros(2)), r"logits, target: \(n, bins\) with bins >= 2"),
        (lambda: fine_grained_localization_loss(torch.zeros(1, 6), torch.zeros(1)), "an odd number of bins >= 5 expected"),
        (lambda: fine_grained_localization_loss(torch.zeros(1, 5), torch.zeros(1), a=0.0), "a: a finite number > 0"),
        (lambda: decoupled_distillation_loss(torch.zeros(1, 5), torch.zeros(1, 4), torch.ones(1), torch.ones(1)), "logits and teacher"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
