"""The ranking losses under torch.compile: one graph, the values and gradients of eager code."""

import inspect

import pytest
import torch

from lossbox import losses
from lossbox.losses import _compiled, _gradient

NDCG = losses.NDCGLoss(delta=0.5)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def problem(positives, dtype=torch.float32):
    generator = torch.Generator().manual_seed(positives)
    targets = torch.zeros(120, dtype=torch.int64)
    targets[torch.randperm(120, generator=generator)[: positives + 5]] = -1
    targets[(targets == -1).nonzero().squeeze(1)[:positives]] = 1
    logits = torch.randn(6, 20, generator=generator, dtype=dtype).requires_grad_()
    errors = torch.rand(positives, generator=generator, dtype=dtype).requires_grad_()
    return logits, targets.view(6, 20), errors, torch.randint(3, (6, 20), generator=generator)


def all_losses(logits, targets, errors, keys):
    x = 2 * logits + 1
    return torch.stack(
        [
            losses.ap_loss(x, targets, delta=0, interpolated=True, groups="row", group_reduction="positives"),
            *losses.alrp_loss(x, targets, localization_error=errors),
            *losses.alrp_loss(x, targets, errors, smooth_localization=True, groups=keys),
            NDCG(x, targets),
            *losses.rank_sort_loss(x, targets, errors, groups=keys),
            losses.ape_loss(x, targets, errors, sharpness=3, cutoff=2.5),
        ]
    )


@pytest.mark.parametrize(("positives", "dtype"), [(9, torch.float32), (0, torch.bfloat16)])
def test_value_and_gradients_are_those_of_eager_code_in_one_graph(positives, dtype):
    inputs = problem(positives, dtype)
    compiled = torch.compile(all_losses, fullgraph=True, backend="aot_eager")
    found, wanted = compiled(*inputs), all_losses(*inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    upstream = torch.randn(9, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad(values, inputs[:1] + inputs[2:3], upstream) for values in (found, wanted)]
    for got, expected in zip(*gradients, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)
        assert not positives or expected.abs().max() > 0


def test_without_gradients_there_is_only_the_value():
    inputs = problem(9)
    with torch.no_grad():
        found = torch.compile(all_losses, fullgraph=True, backend="eager")(*inputs)
    assert not found.requires_grad
    torch.testing.assert_close(found, all_losses(*inputs).detach())


def test_a_defined_gradient_has_no_derivative():
    logits, targets, _, _ = problem(9)
    for function in (losses.ap_loss, torch.compile(losses.ap_loss, fullgraph=True, backend="eager")):
        (gradient,) = torch.autograd.grad(function(logits, targets).square(), logits, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


def test_wrong_input_is_named_when_it_runs():
    logits, targets, errors, _ = problem(9)
    with pytest.raises(ValueError, match=r"quality: must have shape \(9,\)"):
        torch.compile(losses.rank_sort_loss, fullgraph=True, backend="eager")(logits, targets, errors[:4])


def test_gradients_are_kept_in_the_operator_only():
    logits, targets, errors, _ = problem(9)
    with _gradient.keep_gradients(logits) as kept:
        assert not losses.ap_loss(logits, targets).requires_grad
    assert set(kept) == {"x"}
    assert losses.alrp_loss(logits, targets, errors).classification.requires_grad
    assert set(kept) == {"x"}


def test_every_ranking_loss_with_a_name_is_one_operator():
    functions = {name: getattr(losses, name) for name in losses.__all__ if inspect.isfunction(getattr(losses, name))}
    ranked = {name for name, function in functions.items() if "groups" in inspect.signature(function).parameters}
    assert ranked - {"error_driven_loss"} == set(_compiled._LOSSES)  # which is called with functions, not with tensors
