"""Losses whose target is the quality of the box: definitions, published vectors, and where published code is wrong."""

import math

import published
import pytest
import torch
import torch.nn.functional as F

from lossbox.losses import correlation_loss, giou_aware_loss, ia_bce_loss, matchability_aware_loss, quality_focal_loss, varifocal_loss

LOGITS = torch.tensor([-2.0, 0.5, 3.0, 1.0, -0.3, 0.0], dtype=torch.float64)
TARGETS = torch.tensor([0, 1, 1, 1, 0, 0])
QUALITY = torch.tensor([0.0, 0.6, 0.9, 0.0, 0.0, 0.0], dtype=torch.float64)
P = LOGITS.sigmoid()


def cross_entropy(target):
    return -(target * P.log() + (1 - target) * (1 - P).log())


def test_quality_focal_loss_by_its_formula():
    for beta in (0, 0.5, 1, 1.5, 2, 3):
        expected = (QUALITY - P).abs() ** beta * cross_entropy(QUALITY)
        torch.testing.assert_close(quality_focal_loss(LOGITS, QUALITY, beta=beta, reduction="none"), expected)


def test_varifocal_loss_by_its_formula():
    expected = torch.where(QUALITY > 0, QUALITY * cross_entropy(QUALITY), 0.6 * P**1.5 * cross_entropy(QUALITY))
    torch.testing.assert_close(varifocal_loss(LOGITS, QUALITY, alpha=0.6, gamma=1.5, reduction="none"), expected)


def test_matchability_aware_loss_by_its_formula():
    expected = torch.where(TARGETS == 1, cross_entropy(QUALITY**1.5), P**1.5 * cross_entropy(torch.zeros_like(P)))
    torch.testing.assert_close(matchability_aware_loss(LOGITS, TARGETS, QUALITY, reduction="none"), expected)


def test_ia_bce_loss_by_its_formula():
    expected = torch.where(TARGETS == 1, cross_entropy(P**0.25 * QUALITY**0.75), P**2 * cross_entropy(torch.zeros_like(P)))
    torch.testing.assert_close(ia_bce_loss(LOGITS, TARGETS, QUALITY, reduction="none"), expected)


def test_giou_aware_loss_by_its_formula():
    for alpha, gamma in ((0.25, 2), (0.7, 0.5)):
        positive = alpha * (QUALITY - P).abs() ** gamma * cross_entropy(QUALITY)
        expected = torch.where(TARGETS == 1, positive, (1 - alpha) * P**gamma * cross_entropy(torch.zeros_like(P)))
        torch.testing.assert_close(giou_aware_loss(LOGITS, TARGETS, QUALITY, alpha=alpha, gamma=gamma, reduction="none"), expected)


def test_what_takes_no_gradient():
    logits, quality = LOGITS.clone().requires_grad_(), QUALITY.clone().requires_grad_()

    def gradient(loss):
        return torch.autograd.grad(loss.sum(), logits)[0]

    through = gradient(varifocal_loss(logits, quality, reduction="none"))
    detached = gradient(varifocal_loss(logits, quality, detach_weight=True, reduction="none"))
    positive = QUALITY > 0
    torch.testing.assert_close(through[positive], detached[positive])
    torch.testing.assert_close(detached[~positive], (0.75 * P**2 * P)[~positive])
    assert (through[~positive] > detached[~positive]).all()

    torch.testing.assert_close(
        gradient(ia_bce_loss(logits, TARGETS, quality, reduction="none"))[TARGETS == 1], (P - P**0.25 * QUALITY**0.75)[TARGETS == 1]
    )
    for loss in (quality_focal_loss(logits, quality), ia_bce_loss(logits, TARGETS, quality), correlation_loss(logits, quality)):
        assert torch.autograd.grad(loss, quality, allow_unused=True)[0] is None


def test_a_positive_without_overlap_stays_a_positive_in_mal_and_not_in_vfl():
    logits, quality = torch.tensor([3.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    full = F.softplus(logits)
    torch.testing.assert_close(matchability_aware_loss(logits, torch.ones(1), quality, reduction="none"), full)
    torch.testing.assert_close(varifocal_loss(logits, quality, reduction="none"), 0.75 * logits.sigmoid() ** 2 * full)


# -- published QFL


def published_qfl(case):
    inputs = case["inputs"]
    logits, labels, scores = published.leaf(inputs["logits"]), torch.tensor(inputs["labels"]), published.tensor(inputs["scores"])
    quality = F.one_hot(labels, logits.shape[1] + 1)[:, :-1] * scores.unsqueeze(1)
    weight = published.optional(inputs["weight"])
    weight = None if weight is None else weight.unsqueeze(1)
    return logits, quality_focal_loss(logits, quality, beta=case["args"]["beta"], weight=weight, reduction="none")


@pytest.mark.parametrize("case", published.cases("classification/qfl"), ids=lambda c: c["id"])
def test_published_quality_focal_loss(case):
    """mmdet sums over the classes before its mean, the authors do not: a factor C between the two means."""
    logits, loss = published_qfl(case)
    reduction, number = case["args"]["reduction"], case["args"]["avg_factor"]
    for source, output in case["outputs"].items():
        if source == "authors" and case["args"]["beta"] not in (0, 2):
            continue
        ours = loss.sum(1) if source == "mmdet" else loss
        if reduction != "none":
            ours = ours.sum() / (number or (ours.numel() if reduction == "mean" else 1))
        (gradient,) = torch.autograd.grad(ours.sum(), logits, retain_graph=True)
        published.assert_close(ours, output["loss"])
        published.assert_close(gradient, output["grad_logits"])


@pytest.mark.parametrize(("id", "what"), [("s01", "negative"), ("s03", "NaN"), ("s04", "negative")])
def test_qfl_takes_the_absolute_difference(id, what):
    """The code of the authors raises the signed difference to the power: negative losses for an odd beta, NaN for a fractional one."""
    case = published.case("classification/qfl", id)
    theirs = published.tensor(case["outputs"]["authors"]["loss"])
    assert theirs.isnan().any() if what == "NaN" else theirs.min() < 0
    _, ours = published_qfl(case)
    assert (ours >= 0).all()


@pytest.mark.parametrize("beta", [0.3, 0.5, 1.0, 2.0])
def test_qfl_gradient_where_the_score_is_exactly_right(beta):
    logits = torch.tensor([0.0, 1e4, -1e4], requires_grad=True)
    quality_focal_loss(logits, torch.tensor([0.5, 1.0, 0.0]), beta=beta).backward()
    assert (logits.grad == 0).all()


# -- correlation


def test_correlation_loss_by_its_definition():
    score, quality = [1 / (1 + math.exp(-x)) for x in LOGITS.tolist()], [0.1, 0.5, 0.8, 0.9, 0.3, 0.4]
    n = len(score)
    ms, mq = sum(score) / n, sum(quality) / n
    covariance = sum((s - ms) * (q - mq) for s, q in zip(score, quality, strict=True)) / n
    variances = sum((s - ms) ** 2 for s in score) / n + sum((q - mq) ** 2 for q in quality) / n
    expected = 1 - 2 * covariance / (variances + (ms - mq) ** 2)
    assert correlation_loss(LOGITS, torch.tensor(quality, dtype=torch.float64)).item() == pytest.approx(expected, abs=1e-12)


def test_correlation_loss_at_its_ends():
    assert correlation_loss(LOGITS, P).item() == pytest.approx(0, abs=1e-12)
    assert correlation_loss(LOGITS, 1 - P).item() > 1
    assert correlation_loss(torch.zeros(3), torch.full((3,), 0.5)) == 1


@pytest.mark.parametrize("number", [0, 1])
def test_correlation_needs_two_positives(number):
    logits = torch.zeros(number, requires_grad=True)
    loss = correlation_loss(logits, torch.zeros(number))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quality_focal_loss(LOGITS, QUALITY[:2]), r"logits and quality: one shape expected, got \(6,\) and \(2,\)"),
        (lambda: quality_focal_loss(LOGITS, QUALITY, beta=-1), "beta: a finite number >= 0 expected, got -1"),
        (lambda: varifocal_loss(LOGITS, QUALITY, alpha=-1), "alpha: a finite number >= 0"),
        (lambda: matchability_aware_loss(LOGITS, TARGETS[:2], QUALITY), "logits and targets: one shape"),
        (lambda: ia_bce_loss(LOGITS, TARGETS, QUALITY, alpha=1.5), r"alpha: a number in \[0, 1\]"),
        (lambda: correlation_loss(LOGITS[None], QUALITY[None]), r"logits: \(p,\) expected, got \(1, 6\)"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
