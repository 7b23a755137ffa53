"""The scores of the last steps beside those of the batch: the loss of the batches put together, and B times its gradient."""

from __future__ import annotations

import pytest
import torch

from lossbox.boxes import DeltaCoder
from lossbox.losses import (
    ALRPLoss,
    APLoss,
    NDCGLoss,
    RankSortLoss,
    ScoreMemory,
    alrp_loss,
    ap_loss,
    debug_checks,
    error_driven_loss,
    rank_sort_loss,
)
from lossbox.objective import ALRPObjective, RankSortObjective
from lossbox.records import Assignment, RawPredictions, Targets

PER_POSITIVE = {ap_loss: False, alrp_loss: True, rank_sort_loss: True}


def batch(seed, size=(3, 20), *, per_positive=True):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(-1, 4, size, generator=generator).clamp(max=1) * (torch.rand(size, generator=generator) < 0.6)
    values = torch.rand(int((targets == 1).sum()), generator=generator, dtype=torch.float64)
    return (logits, targets, values.requires_grad_()) if per_positive else (logits, targets)


def total(loss):
    """A sum of the terms, each with a factor of its own."""
    return loss if isinstance(loss, torch.Tensor) else sum(factor * term for factor, term in zip((1.0, 0.3), loss, strict=True))


def gradients_of(loss, inputs):
    upstream = torch.tensor(0.7, dtype=torch.float64)
    return torch.autograd.grad(loss, inputs, upstream, allow_unused=True, materialize_grads=True)  # nothing flows to a quality


@pytest.mark.parametrize("loss", PER_POSITIVE)
def test_the_batches_are_ranked_as_one(loss):
    memory = ScoreMemory(loss, steps=2)
    batches = [batch(seed, (seed + 2, 20), per_positive=PER_POSITIVE[loss]) for seed in range(4)]
    for step, own in enumerate(batches):
        found = total(memory(*own))
        together = [own, *batches[max(step - 2, 0) : step]]
        inputs = [tensor for tensor in own if tensor.requires_grad]
        gradients = gradients_of(found, inputs)
        expected = total(loss(*(torch.cat([part[at].flatten() for part in together]) for at in range(len(own)))))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
        for gradient, of_one in zip(gradients, gradients_of(expected, inputs), strict=True):
            torch.testing.assert_close(gradient, len(together) * of_one, rtol=1e-9, atol=1e-15)


def test_the_names_of_the_terms_stay():
    memory = ScoreMemory(alrp_loss, steps=1)
    memory(*batch(0))
    assert memory(*batch(1)).localization > 0


def test_an_evaluation_neither_sees_nor_leaves_anything():
    memory, own = ScoreMemory(ap_loss, steps=3), batch(0, per_positive=False)
    memory(*batch(1, per_positive=False))
    memory.eval()
    torch.testing.assert_close(memory(*own), ap_loss(*own), rtol=0, atol=0)
    memory.train()
    assert len(memory.last) == 1
    assert not memory.state_dict()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("loss", PER_POSITIVE)
def test_a_step_that_is_not_finite_is_not_remembered(loss, bad):
    memory = ScoreMemory(loss, steps=2)
    logits, targets, *values = batch(0, per_positive=PER_POSITIVE[loss])
    spoilt = logits.detach().clone()
    spoilt.view(-1)[::3] = bad
    memory(spoilt, targets, *(value.detach() for value in values))
    remembered = memory.last[0]
    assert (remembered[1] == 1).any()
    assert (remembered[1] == 1).sum() < (targets == 1).sum()
    after = total(memory(*batch(1, per_positive=PER_POSITIVE[loss])))
    assert after.isfinite()


def test_no_positives():
    memory, logits = ScoreMemory(alrp_loss, steps=2), torch.zeros(4, requires_grad=True)
    for _ in range(2):
        loss = memory(logits, torch.zeros(4), torch.zeros(0))
    assert total(loss) == 0
    total(loss).backward()
    assert (logits.grad == 0).all()


def test_a_loss_of_ones_own():
    def loss(logits, targets):
        return error_driven_loss(logits, targets, lambda ranking: ranking.false_positives / ranking.rank, target_error=0.0)

    memory = ScoreMemory(loss, steps=1)
    for seed in range(2):
        found = memory(*(own := batch(seed, per_positive=False)))
    before = batch(0, per_positive=False)
    torch.testing.assert_close(found, ap_loss(*(torch.cat([a.flatten(), b.flatten()]) for a, b in zip(own, before, strict=True))))


@pytest.mark.parametrize("module", [APLoss, NDCGLoss, ALRPLoss, RankSortLoss])
def test_the_option_of_the_modules(module):
    own, before = (batch(seed, per_positive=module in (ALRPLoss, RankSortLoss)) for seed in (0, 1))
    loss = module(memory=1, delta=0.25)
    loss(*before)
    memory = ScoreMemory(module.function, steps=1)
    memory(*before, delta=0.25)
    torch.testing.assert_close(total(loss(*own)), total(memory(*own, delta=0.25)), rtol=0, atol=0)


@pytest.mark.parametrize("build", [APLoss, ALRPLoss, ALRPObjective, RankSortObjective])
def test_what_does_not_fit_is_refused(build):
    with pytest.raises(ValueError, match="memory: a number of steps >= 0 expected, got -1"):
        build(memory=-1)
    with pytest.raises(ValueError, match="memory: ranks all scores together, and does not go with groups; got 7 and 'class'"):
        build(memory=7, groups="class")


def test_groups_in_the_call_are_refused():
    with pytest.raises(ValueError, match="groups: None expected"):
        APLoss(memory=1)(*batch(0, per_positive=False), groups=torch.zeros(3, 20, dtype=torch.long))
    with pytest.raises(ValueError, match="steps: a number of steps >= 1 expected, got 0"):
        ScoreMemory(ap_loss, steps=0)


@pytest.mark.parametrize("objective", [ALRPObjective, RankSortObjective])
def test_objectives_remember_in_training_alone(objective):
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    box = Targets(torch.tensor([[0.0, 0.0, 10.0, 8.0]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))

    def step(objective, *scores):
        raw = RawPredictions(torch.tensor(scores).view(1, 2, 1), torch.zeros(1, 2, 4), anchors, (2,), DeltaCoder())
        return float(next(iter(objective(raw, Assignment(torch.tensor([[0, -1]])), [box]).values())).value)

    without, remembering = objective(), objective(memory=1)
    assert step(remembering, 0.0, 9.0) == step(without, 0.0, 9.0)
    assert step(remembering, 0.0, -9.0) > step(without, 0.0, -9.0)  # the 9.0 of the step before is above
    remembering.eval()
    assert step(remembering, 0.0, -9.0) == step(without, 0.0, -9.0)


def test_what_is_wrong_is_said_of_the_batch_of_the_call():
    memory, (logits, targets, values) = ScoreMemory(alrp_loss, steps=2), batch(0)
    memory(logits, targets, values)
    with pytest.raises(ValueError, match=r"targets: must have the shape of logits \(3, 20\), got \(20, 3\)"):
        memory(logits, targets.view(20, 3), values)
    with pytest.raises(ValueError, match=rf"values of the positives: must have shape \({len(values)},\)"):
        memory(logits, targets, values[1:])
    with pytest.raises(ValueError, match="per_positive: 1 tensors expected, as in the last step, got 0"):
        memory(logits, targets)
    with pytest.raises(TypeError, match=r"logits: a torch\.Tensor expected, got list"):
        memory([1.0], targets, values)
    with pytest.raises(ValueError, match=r"logits: 1 of 60 entries are not finite, the first at \(1, 2\)"), debug_checks():
        memory(
            logits.detach().index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(torch.nan).double()), targets.clamp(min=0), values
        )
    assert len(memory.last) == 1


def test_a_step_without_anything_finite_does_not_count():
    own, after = (batch(seed, per_positive=False) for seed in (0, 1))
    memory, expected = ScoreMemory(ap_loss, steps=3), ScoreMemory(ap_loss, steps=3)
    for loss in (memory, expected):
        loss(*own)
    memory(torch.full((3, 20), torch.nan), own[1])
    gradient, other = (torch.autograd.grad(loss(*after), after[0])[0] for loss in (memory, expected))
    torch.testing.assert_close(gradient, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("steps", [1.5, "3", None, True])
def test_steps_are_a_whole_number(steps):
    with pytest.raises(ValueError, match=f"memory: a number of steps >= 0 expected, got {steps!r}"):
        APLoss(memory=steps)
