"""What the studies compute without a training: curves of box distances, and aLRP with a wrong target error."""

import pytest
import torch

from lossbox.analysis.regression import regression_curve
from lossbox.analysis.wrong_target import alrp_loss_with_target_zero
from lossbox.losses import alrp_loss


@pytest.mark.parametrize("beta", [1.0, 0.5, 1 / 9])
@pytest.mark.parametrize("form", ["smooth L1", "balanced L1"])
def test_the_right_forms_are_smooth_and_scale(form, beta):
    found = regression_curve(form, beta=beta)
    for name in ("jump", "derivative_jump", "derivative_error", "scaling_error"):
        assert found[name] == pytest.approx(0, abs=1e-10)
    assert len(found["rows"]) == 201


def test_the_wrong_form_is_right_at_1_only():
    for beta, wrong in ((1.0, False), (0.5, True), (2.0, True)):
        found = regression_curve("widely used balanced L1", beta=beta)
        assert all((found[name] > 0.01) == wrong for name in ("derivative_jump", "derivative_error", "scaling_error"))


@pytest.mark.parametrize(("options", "said"), [({"beta": 0.0}, "beta: a finite"), ({"form": "L3"}, "form: one of")])
def test_bad_options_of_a_curve_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        regression_curve(**({"form": "smooth L1"} | options))


def gradients(loss, logits, targets, error, delta):
    logits, error = logits.clone().requires_grad_(), error.clone().requires_grad_()
    terms = loss(logits, targets, error, delta=delta)
    terms.classification.backward(torch.tensor(2.0, dtype=logits.dtype))
    of_scores = logits.grad
    terms.localization.backward()
    return terms, of_scores, error.grad


@pytest.mark.parametrize("delta", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_target_of_zero_is_the_update_written_out(seed, delta):
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(40, generator=generator) < 0.3).long()
    logits = 3 * torch.randn(40, generator=generator, dtype=torch.float64) + 3 * targets
    error = torch.rand(int(targets.sum()), generator=generator, dtype=torch.float64)
    right, _, boxes_right = gradients(alrp_loss, logits, targets, error, delta)
    wrong, found, boxes = gradients(alrp_loss_with_target_zero, logits, targets, error, delta)
    assert [part.item() for part in wrong] == pytest.approx([part.item() for part in right])
    torch.testing.assert_close(boxes, boxes_right)

    def step(x):
        return (x / (2 * delta) + 0.5).clamp(0, 1) if delta else (x >= 0).double()

    expected = torch.zeros_like(logits)
    positives, negatives = (targets == 1).nonzero()[:, 0], (targets == 0).nonzero()[:, 0]
    for place, i in enumerate(positives):
        others = [k for k in range(len(positives)) if k != place]
        false = step(logits[negatives] - logits[i])
        above = step(logits[positives[others]] - logits[i])
        rank = 1 + above.sum() + false.sum()
        whole = (false.sum() + error[place] + (above * error[others]).sum()) / rank / len(positives)
        expected[i] -= 2 * whole
        if false.sum() > 0:
            expected[negatives] += 2 * whole * false / false.sum()
    torch.testing.assert_close(found, expected)


def test_a_target_of_zero_loses_the_balance_where_positives_rank_properly():
    logits, targets, error = torch.tensor([5.0, 0.0, 1.0]), torch.tensor([1, 1, 0]), torch.tensor([0.5, 0.5])
    _, right, _ = gradients(alrp_loss, logits, targets, error, 1.0)
    _, wrong, _ = gradients(alrp_loss_with_target_zero, logits, targets, error, 1.0)
    assert right[2] == pytest.approx(-right[:2].sum())
    assert right[0] == 0
    assert wrong[0] == pytest.approx(-0.5)
    assert wrong[2] < -wrong[:2].sum() - 0.4


def test_without_positives_it_is_zero_with_a_live_graph():
    logits = torch.randn(4, requires_grad=True)
    terms = alrp_loss_with_target_zero(logits, torch.zeros(4), torch.zeros(0))
    (terms.classification + terms.localization).backward()
    assert terms.classification == 0
    assert not logits.grad.any()
