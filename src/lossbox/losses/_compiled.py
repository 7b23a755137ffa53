"""The ranking losses under ``torch.compile``: one operator, whose inside the compiler does not look into.

How many positives there are decides the shapes of nearly everything in a ranking loss, so that a compiler would break its graph dozens of
times. The operator computes loss and gradient in the forward pass, of the shape of the logits; the backward pass multiplies the gradient
by the one from above, which the compiler fuses with what follows. Eager code does not come here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._gradient import keep_gradients

P = ParamSpec("P")
T = TypeVar("T")


class _Loss(NamedTuple):
    function: Callable[..., Any]
    per_positive: str | None
    terms: Any
    of_logits: int
    numbers: tuple[str, ...]
    flags: tuple[str, ...]

    def split(self, terms: Any) -> list[Tensor]:
        return [terms] if self.terms is None else list(terms)

    def join(self, values: Tensor) -> Any:
        return values[0] if self.terms is None else self.terms(*values.unbind())


_LOSSES: dict[str, _Loss] = {}


def one_operator(per_positive: str | None = None, *, terms: Any = None, of_logits: int = 1) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Makes a ranking loss one operator under ``torch.compile``. Its options are floats, bools, ``groups`` and ``group_reduction``.

    Args:
        per_positive: the third argument, after logits and targets, if there is one. Its gradient is that of ``Ranking.weighted_sum``.
        terms: the named tuple that the loss returns, whose last term is the weighted sum if there is one; a scalar if not given.
        of_logits: how many of the terms, the first, have a gradient with respect to the logits.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        names = ("logits", "targets", per_positive)
        defaults: dict[str, Any] = function.__kwdefaults__ or {}
        numbers, flags = (tuple(name for name, value in defaults.items() if type(value) is kind) for kind in (float, bool))
        loss = _LOSSES[function.__name__] = _Loss(function, per_positive, terms, of_logits, numbers, flags)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if not torch.compiler.is_compiling():
                return function(*args, **kwargs)
            result: T = _call_operator(loss, {**defaults, **dict(zip(names, args)), **kwargs})  # noqa: B905
            return result

        return call

    return decorate


def _call_operator(loss: _Loss, given: dict[Any, Any]) -> Any:
    logits, groups = given["logits"], given.get("groups")
    keys, word = (groups, None) if isinstance(groups, Tensor) else (None, groups)
    values, _, _ = torch.ops.lossbox.ranking_loss(
        logits,
        given["targets"],
        given[loss.per_positive] if loss.per_positive else None,
        keys,
        loss.function.__name__,
        word,
        given.get("group_reduction"),
        [float(given[name]) for name in loss.numbers],
        [given[name] for name in loss.flags],
        torch.is_grad_enabled() and logits.requires_grad,
    )
    return loss.join(values)


def _run(
    logits: Tensor,
    targets: Tensor,
    per_positive: Tensor | None,
    keys: Tensor | None,
    name: str,
    groups: str | None,
    group_reduction: str | None,
    numbers: list[float],
    flags: list[bool],
    differentiate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The terms; the gradients with respect to the logits, (terms, *shape); that of the last term with respect to what is per positive."""
    loss = _LOSSES[name]
    options: dict[str, Any] = dict(zip(loss.numbers + loss.flags, [*numbers, *flags], strict=True))
    if group_reduction is not None:
        options |= {"groups": groups if keys is None else keys, "group_reduction": group_reduction}
    with keep_gradients(logits) as kept:
        terms = loss.function(logits, targets, *([] if per_positive is None else [per_positive]), **options)
    values = torch.stack(loss.split(terms))
    _, of_logits, weight = _shapes(logits, targets, per_positive, keys, name, differentiate)
    for number, gradient in enumerate(of_logits):
        if "x" in kept:
            upstream = torch.zeros(loss.of_logits, dtype=values.dtype, device=values.device)
            upstream[number] = 1
            gradient.copy_(kept["x"](upstream))
        else:  # no positives
            gradient.zero_()
    return values, of_logits, weight.copy_(kept["weight"]) if "weight" in kept else weight


def _shapes(
    logits: Tensor, targets: Tensor, per_positive: Tensor | None, keys: Tensor | None, name: str, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Tensors like those that ``_run`` returns."""
    loss, dtype = _LOSSES[name], torch.promote_types(logits.dtype, torch.float32)
    values = logits.new_empty(1 if loss.terms is None else len(loss.terms._fields), dtype=dtype)
    of_logits = logits.new_empty(loss.of_logits if options[-1] else 0, *logits.shape, dtype=dtype)
    if per_positive is None:
        return values, of_logits, values.new_empty(0)
    return values, of_logits, torch.empty_like(per_positive, dtype=torch.promote_types(per_positive.dtype, torch.float32))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, _, per_positive, _, name, *_ = inputs
    ctx.save_for_backward(*output[1:])
    ctx.dtypes = logits.dtype, None if per_positive is None or _LOSSES[name].of_logits == len(output[0]) else per_positive.dtype


@once_differentiable
def _gradient(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    of_logits, weight = ctx.saved_tensors
    dtype, weight_dtype = ctx.dtypes
    at_logits = None
    if len(of_logits):
        at_logits = (upstream[: len(of_logits)].view(-1, *(1 for _ in of_logits.shape[1:])) * of_logits).sum(0).to(dtype)
    return at_logits, None, None if weight_dtype is None else (upstream[-1] * weight).to(weight_dtype), *(None,) * 7


torch.library.define(
    "lossbox::ranking_loss",
    "(Tensor logits, Tensor targets, Tensor? per_positive, Tensor? keys, str name, str? groups, str? group_reduction,"
    " float[] numbers, bool[] flags, bool differentiate) -> (Tensor, Tensor, Tensor)",
    # a CUDA graph cannot hold it, since the host asks for the number of positives; before torch 2.8 there is no word for that
    tags=[tag for tag in (torch.Tag.pt2_compliant_tag, getattr(torch.Tag, "cudagraph_unsafe", None)) if tag],
)
torch.library.impl("lossbox::ranking_loss", "default", _run)
torch.library.register_fake("lossbox::ranking_loss", _shapes)
torch.library.register_autograd("lossbox::ranking_loss", _gradient, setup_context=_keep)
