"""Losses for long tails against the papers' formulas in plain loops, value and gradient; what their modules remember."""

import math

import pytest
import torch
import torch.nn.functional as F

from lossbox.losses import (
    EqualizationLossV2,
    FederatedLoss,
    SeesawLoss,
    SigmoidCrossEntropyLoss,
    equalization_loss_v2,
    federated_loss,
    sample_classes,
    seesaw_loss,
    sigmoid_cross_entropy_loss,
    softmax_cross_entropy_loss,
)
from lossbox.objective import SeparateObjective

G = torch.Generator().manual_seed(0)
LOGITS = (6 * torch.rand(6, 4, generator=G, dtype=torch.float64) - 3).requires_grad_()
CLASSES = torch.tensor([0, 3, 1, 1, 2, 3])
TARGETS = F.one_hot(CLASSES, 4).double()
COUNTS = torch.tensor([1000.0, 0.0, 30.0, 5.0], dtype=torch.float64)


def same(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)
    found, wanted = (torch.autograd.grad(-2.5 * x, LOGITS, retain_graph=True)[0] for x in (ours, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("p", "q"), [(0.8, 2.0), (0.0, 1.0), (1.5, 0.0)])
def test_seesaw_is_its_formula(p, q):
    score, total = LOGITS.detach().softmax(1), 0
    count = [max(n, 1.0) for n in COUNTS.tolist()]
    for row, s, i in zip(LOGITS, score.tolist(), CLASSES.tolist(), strict=True):
        factors = [1.0 if j == i else min(1, count[j] / count[i]) ** p * max(1, s[j] / s[i]) ** q for j in range(4)]
        total = total - row[i] + torch.log(sum(f * z.exp() for f, z in zip(factors, row, strict=True)))
    same(seesaw_loss(LOGITS, CLASSES, COUNTS, p=p, q=q), total / 6)
    torch.testing.assert_close(seesaw_loss(LOGITS, CLASSES, COUNTS, p=0, q=0), softmax_cross_entropy_loss(LOGITS, CLASSES))


def test_eql_v2_is_its_formula():
    ratio = torch.tensor([0.0, 0.8, 1.3, math.inf], dtype=torch.float64)
    total = 0
    for row, wanted in zip(LOGITS.sigmoid(), TARGETS, strict=True):
        for x, y, g in zip(row, wanted.tolist(), ratio.tolist(), strict=True):
            f = 1 / (1 + math.exp(-5 * (g - 0.6)))
            total = total - ((1 + 3 * (1 - f)) * x.log() if y else f * (1 - x).log())
    same(equalization_loss_v2(LOGITS, TARGETS, ratio, alpha=3, gamma=5, mu=0.6, reduction="sum"), total)
    balanced = torch.full((4,), math.inf)
    torch.testing.assert_close(equalization_loss_v2(LOGITS, TARGETS, balanced), sigmoid_cross_entropy_loss(LOGITS, TARGETS))


def test_eql_v2_remembers_the_gradients_of_training_only():
    loss = EqualizationLossV2(num_classes=4)
    first = loss(LOGITS, TARGETS)
    torch.testing.assert_close(first, sigmoid_cross_entropy_loss(LOGITS, TARGETS))  # nothing is known yet
    error = (LOGITS.detach().sigmoid() - TARGETS).abs()
    expected = torch.stack([(error * TARGETS).sum(0), (error * (1 - TARGETS)).sum(0)]).float()
    torch.testing.assert_close(loss.gradients.sums, expected)
    loss.eval()
    second = loss(LOGITS, TARGETS)
    torch.testing.assert_close(loss.gradients.sums, expected)
    torch.testing.assert_close(second, equalization_loss_v2(LOGITS, TARGETS, expected[0] / expected[1]))
    assert "gradients.sums" in loss.state_dict()
    loss.train()(LOGITS[:1], torch.full((1, 4), -1.0))
    torch.testing.assert_close(loss.gradients.sums, expected)  # ignored


def test_a_score_that_is_nan_is_not_remembered():
    loss = EqualizationLossV2(num_classes=4)
    logits = LOGITS.detach().clone()
    logits[0, 0] = math.nan
    assert loss(logits, TARGETS).isnan()
    assert loss(LOGITS, TARGETS).isfinite()
    assert loss.gradients.sums.isfinite().all()


def test_federated_is_the_cross_entropy_of_some_classes():
    chosen = torch.tensor([True, False, True, False])
    same(
        federated_loss(LOGITS, TARGETS, chosen, reduction="sum"),
        sigmoid_cross_entropy_loss(LOGITS[:, chosen], TARGETS[:, chosen], reduction="sum"),
    )


def test_classes_are_drawn_by_the_root_of_their_count():
    generator, drawn = torch.Generator().manual_seed(0), torch.zeros(4)
    present = torch.tensor([False, False, False, True])
    for _ in range(4000):
        found = sample_classes(present, torch.tensor([900.0, 0.0, 100.0, 7.0]), number=2, generator=generator)
        assert found.sum() == 2
        drawn += found
    assert drawn[[1, 3]].tolist() == [0, 4000]
    assert drawn[0].item() / 4000 == pytest.approx(0.75, abs=0.03)  # 30 / (30 + 10)
    assert sample_classes(~present, torch.ones(4), number=1).tolist() == [True, True, True, False]
    assert sample_classes(~present, torch.ones(4)).all()


def test_an_objective_takes_those_of_sigmoid_scores():
    for loss in (EqualizationLossV2(num_classes=4), FederatedLoss(counts=[1.0] * 4)):
        SeparateObjective(loss)
        value = loss.of_batch(LOGITS[None], TARGETS[None], num_positives=torch.tensor(6.0), global_batch=False)
        expected = SigmoidCrossEntropyLoss().of_batch(LOGITS[None], TARGETS[None], num_positives=torch.tensor(6.0), global_batch=False)
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seesaw_loss(LOGITS, CLASSES, COUNTS[:3]), "counts: one for each of 4 classes"),
        (lambda: seesaw_loss(LOGITS, CLASSES.to(torch.uint8), COUNTS), "targets: int64 expected, got torch.uint8"),
        (lambda: SeesawLoss(counts=[1.0, 2.0])(LOGITS, CLASSES), "counts: one for each of 4 classes"),
        (lambda: EqualizationLossV2(num_classes=3)(LOGITS, TARGETS), r"num_classes: 4 expected, the last dimension of logits .* got 3"),
        (lambda: FederatedLoss(counts=[1.0] * 3)(LOGITS, TARGETS), r"counts: one for each class expected, .* got \(3,\)"),
        (lambda: sample_classes(torch.ones(4).long(), COUNTS), "present: booleans expected, got torch.int64"),
        (lambda: seesaw_loss(LOGITS, CLASSES, COUNTS, p=-1.0), "p: a finite number >= 0"),
        (lambda: equalization_loss_v2(LOGITS, TARGETS, COUNTS[:3]), "gradient_ratio: one for each class"),
        (lambda: federated_loss(LOGITS, TARGETS, COUNTS[:3] > 0), "classes: one for each class"),
        (lambda: sample_classes(COUNTS > 0, COUNTS, number=-1), "number: a finite number >= 0"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
