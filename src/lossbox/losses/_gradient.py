"""The one autograd function of the losses, for a gradient that is *defined*, or known in a form that loses no digits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
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
    if not torch.compiler.is_compiling() and x is _kept.x:
        values, saved, gradient = compute(x, *arguments)
        _kept.found["x"] = partial(gradient, *saved)
        return values
    return _DefinedGradient.apply(x, compute, *arguments)


class _Kept(threading.local):
    x: Tensor | None = None
    found: dict[str, Any]


_kept = _Kept()


@contextmanager
def keep_gradients(x: Tensor) -> Iterator[dict[str, Any]]:
    """For code that runs where autograd does not, in an operator of its own: ``with_gradient`` of ``x`` attaches nothing inside.

    The dict then has, as "x", the function from the upstream gradients to that of ``x``; and what ``keep`` put in it.
    """
    _kept.x, _kept.found = x, {}
    try:
        yield _kept.found
    finally:
        _kept.x = None


def keep(name: str, value: Any) -> None:
    """Hands a value to ``keep_gradients``, if it is in force."""
    if not torch.compiler.is_compiling() and _kept.x is not None:
        _kept.found[name] = value
