"""The framework: Theorem 1, Theorem 2, other distributions, and a user's own loss."""

import pairwise_reference as reference
import pytest
import torch
from torch.testing import assert_close

from lossbox.losses import alrp_loss, ap_loss, error_driven_loss, skewed_pmf


def problem(size=400, seed=0, tied=False):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, generator=generator, dtype=torch.float64)
    if tied:
        logits = (logits * 4).round() / 4
    targets = torch.randint(-1, 2, (size,), generator=generator)
    return logits.requires_grad_(), targets


def precision_error(ranking):
    return ranking.false_positives / ranking.rank


@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
def test_theorem_1_primary_terms_sum_to_the_loss(delta):
    """L = 1/Z sum_ij l(i) p(j|i): with l* = 0 the gradient of negative j is its column of primary terms."""
    logits, targets = problem(tied=True)
    loss = ap_loss(logits, targets, delta=delta)
    loss.backward()
    assert_close(logits.grad[targets == 0].sum(), loss.detach(), rtol=1e-12, atol=0)
    pairs = reference.Reference(logits, targets, delta)
    above = pairs.above_negative
    terms = precision_error(pairs)[:, None] * above / above.sum(1, keepdim=True).clamp(min=1e-300) / len(pairs.positive)
    assert_close(terms.sum(), loss.detach(), rtol=1e-12, atol=0)
    assert_close(terms.sum(0), logits.grad[targets == 0], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("pmf", [None, skewed_pmf(0.5), skewed_pmf(2.0), torch.sigmoid, lambda s: (s > 0).to(s.dtype)])
def test_theorem_2_holds_for_every_pmf(pmf):
    logits, targets = problem()
    error_driven_loss(logits, targets, precision_error, pmf=pmf).backward()
    positive, negative = (logits.grad[targets == label].abs().sum() for label in (1, 0))
    assert positive > 0
    assert_close(positive, negative, rtol=1e-12, atol=0)
    assert logits.grad[targets == -1].abs().sum() == 0


@pytest.mark.parametrize("pmf", [skewed_pmf(0.5), skewed_pmf(2.0), torch.sigmoid])
@pytest.mark.parametrize("delta", [0.0, 1.0])
@pytest.mark.parametrize("size", [60, 9_000])
def test_a_pmf_is_the_definitions(pmf, delta, size):
    logits, targets = problem(size, tied=True)
    if size > 1_000:
        targets[(targets == 1).nonzero()[50:]] = 0
    error_driven_loss(logits, targets, precision_error, pmf=pmf, delta=delta).backward()
    pairs = reference.Reference(logits, targets, delta)
    negatives = logits.detach()[targets == 0]
    phi = torch.zeros_like(logits.detach())
    phi[targets == 0] = pmf(negatives)
    expected = pairs.gradient(precision_error(pairs), len(pairs.positive), phi)
    assert_close(logits.grad, expected, rtol=1e-9, atol=1e-14)


def test_a_skewed_pmf_promotes_harder_negatives():
    logits = torch.tensor([0.0, 1.0, 3.0], requires_grad=True)
    targets = torch.tensor([1, 0, 0])
    error_driven_loss(logits, targets, precision_error, delta=0, pmf=skewed_pmf(1.0)).backward()
    assert logits.grad[2] / logits.grad[1] == pytest.approx(torch.e**2, rel=1e-5)


def test_a_pmf_that_leaves_a_positive_none_gives_it_no_gradient():
    logits = torch.tensor([0.0, 1.0, 3.0], requires_grad=True)
    error_driven_loss(logits, torch.tensor([1, 0, 0]), precision_error, pmf=torch.zeros_like).backward()
    assert torch.equal(logits.grad, torch.zeros(3))


def test_the_wrong_target_breaks_the_balance_of_alrp():
    """Appendix G.3: with l* = 0 the positives are pushed harder, by a localization error that no score can mend."""
    logits, targets = problem()
    error = torch.rand(int((targets == 1).sum()), dtype=torch.float64)

    def lrp(ranking):
        return (ranking.false_positives + error + ranking.sum_above(error)) / ranking.rank

    right = error_driven_loss(logits, targets, lrp, lambda ranking: error / ranking.rank)
    wrong = error_driven_loss(logits, targets, lrp)
    right_grad, wrong_grad = (torch.autograd.grad(loss, logits)[0] for loss in (right, wrong))
    (alrp_grad,) = torch.autograd.grad(alrp_loss(logits, targets, error).classification, logits)
    assert_close(right_grad, alrp_grad, rtol=1e-12, atol=1e-15)
    assert (wrong_grad[targets == 1].abs() > right_grad[targets == 1].abs()).any()


def test_a_new_loss_takes_two_functions():
    """Recall at a fixed number of false positives, here 3: a positive is wrong where more than 3 negatives outrank it."""
    logits, targets = problem()
    loss = error_driven_loss(logits, targets, lambda r: (r.false_positives > 3).double(), 0.0, delta=0)
    pairs = reference.Reference(logits, targets, 0)
    assert loss.item() == pytest.approx((pairs.false_positives > 3).double().mean().item())
    loss.backward()
    assert_close(logits.grad, pairs.gradient((pairs.false_positives > 3).double(), len(pairs.positive)), rtol=1e-9, atol=1e-15)


def test_normalizer_and_reported_value():
    logits, targets = problem()
    mean = error_driven_loss(logits, targets, precision_error)
    total = error_driven_loss(logits, targets, precision_error, normalizer=1.0)
    other = error_driven_loss(logits, targets, precision_error, value=lambda r: r.rank * 0 + 7)
    count = int((targets == 1).sum())
    assert_close(total, mean * count)
    assert other.item() == pytest.approx(7)
    assert torch.equal(torch.autograd.grad(other, logits)[0], torch.autograd.grad(mean, logits)[0])


def test_what_a_user_gets_to_see():
    logits = torch.tensor([2.0, 1.0, 3.0, 0.0], dtype=torch.float64)
    seen = []

    def error(ranking):
        seen.append(ranking)
        return ranking.rank * 0

    error_driven_loss(logits, torch.tensor([1, 1, 0, 0]), error, delta=0)
    (ranking,) = seen
    assert len(ranking) == 2
    assert ranking.scores.tolist() == [2, 1]
    assert ranking.true_positives.tolist() == [1, 2]
    assert ranking.false_positives.tolist() == [1, 1]
    assert ranking.rank.tolist() == [2, 3]
    assert ranking.sum_above(torch.tensor([5.0, 7.0])).tolist() == [0, 5]


def test_mistakes_are_named():
    logits, targets = torch.zeros(3), torch.tensor([1, 1, 0])
    with pytest.raises(ValueError, match=r"error: must return one number per positive, \(2,\), got \(\)"):
        error_driven_loss(logits, targets, lambda r: r.rank.sum())
    with pytest.raises(ValueError, match=r"target_error: must return one number per positive"):
        error_driven_loss(logits, targets, lambda r: r.rank, lambda r: r.rank[:1])
    with pytest.raises(ValueError, match=r"values: must have shape \(2,\), one value for each entry of logits\[targets == 1\], got \(3,\)"):
        error_driven_loss(logits, targets, lambda r: r.join(logits))
    with pytest.raises(ValueError, match="temperature: must be a finite number > 0, got 0"):
        skewed_pmf(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalizer": -1}, "normalizer: a finite number > 0 expected, got -1"),
        ({"normalizer": torch.inf}, "normalizer: a finite number > 0 expected, got inf"),
        ({"error": 3}, "error: a function expected, got 3"),
        ({"value": 3.0}, "value: a function expected, got 3.0"),
        ({"pmf": 1}, "pmf: a function expected, got 1"),
        ({"error": lambda ranking: 1.0}, "error: must return a tensor, got float"),
        ({"error": lambda ranking: None}, "error: must return a tensor, got NoneType"),
    ],
)
def test_what_is_no_function_or_normalizer_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        error_driven_loss(torch.zeros(3), torch.tensor([1, 0, 0]), **{"error": precision_error, **options})
