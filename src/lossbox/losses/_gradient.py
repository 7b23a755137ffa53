"""The one autograd function of the losses, for a gradient that is *defined*, or known in a form that loses no digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _DefinedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, compute: Callable[..., Any], *arguments: Any) -> Any:
        values, saved, ctx.gradient = compute(x, *arguments)
        ctx.set_materialize_grads(not isinstance(values, tuple))
        ctx.save_for_backward(*saved)
        ctx.others = (None,) * (1 + len(arguments))
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        return ctx.gradient(*ctx.saved_tensors, *upstream), *ctx.others


def with_gradient(compute: Callable[..., Any], x: Tensor, *arguments: Any) -> Any:
    """``values`` of ``values, saved, gradient = compute(x, *arguments)``, which runs without autograd.

    ``gradient(*saved, *upstream)`` is the gradient with respect to ``x``: ``saved`` are the tensors that it needs (or None), ``upstream``
    the gradient of each value, None where one of several was not used. Nothing flows to the other arguments.
    """
    return _DefinedGradient.apply(x, compute, *arguments)
