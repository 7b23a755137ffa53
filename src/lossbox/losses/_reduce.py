"""The one reduction that every elementwise loss goes through.

With elementwise losses ``l_i``, weights ``w_i`` (default 1), a normalizer ``z`` and the number ``n`` of elements:

    none_i = w_i l_i / z                      z = 1 unless given
    sum    = sum_i none_i
    mean   = sum_i w_i l_i / z                z = n unless given

So ``sum == none.sum()`` always; ``mean == sum / n`` without a normalizer and ``mean == sum`` with one. The mean divides by the number of
elements, not by the sum of the weights: a weight of 2 counts twice and leaves the others alone. An empty mean is 0.

What a classification loss ignores (target -1) has ``l_i = 0`` and is not among the ``n``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..boxes._dtype import upcast
from ._checks import check_labels, check_positive, check_tensors, may_check

Reduction = Literal["none", "mean", "sum"]


def reduce_loss(
    loss: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
    ignored: Tensor | None = None,
) -> Tensor:
    """Weights, sums and normalizes elementwise losses.

    Args:
        loss: any shape.
        weight: anything that broadcasts to the shape of ``loss`` without enlarging it.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``; see the law in the module's docstring.
        normalizer: what the sum is divided by, in place of the number of elements; a number > 0 or a tensor of one element, for example
            the number of positives. A tensor is not looked at: that would wait for the GPU.
        ignored: the shape of ``loss``, True where it is 0 and not counted; of ``find_ignored``.

    Returns:
        The shape of ``loss`` for ``"none"``, else a scalar; 0 with a live graph where ``loss`` is empty.

    Raises:
        ValueError: an unknown reduction, a weight that does not fit, a normalizer that is not positive.

    Example:
        >>> loss = torch.tensor([1.0, 2.0, 3.0])
        >>> reduce_loss(loss), reduce_loss(loss, weight=torch.tensor([0.0, 1.0, 1.0]), normalizer=2)
        (tensor(2.), tensor(2.5000))
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction: 'none', 'mean' or 'sum' expected, got {reduction!r}")
    if isinstance(normalizer, Tensor):
        if normalizer.numel() != 1:
            raise ValueError(f"normalizer: a number or a tensor of one element expected, got shape {tuple(normalizer.shape)}")
        normalizer = normalizer.reshape(())
    elif normalizer is not None:
        check_positive("normalizer", normalizer)
    if weight is not None:
        check_weight(weight, loss)
        loss = loss * set_aside(upcast(weight).to(loss.dtype), ignored)  # a weight may be infinite there
    if reduction != "none":
        # mean() of nothing is NaN, and so is its gradient
        if reduction == "mean" and normalizer is None:
            normalizer = max(loss.numel(), 1) if ignored is None else (loss.numel() - torch.count_nonzero(ignored)).clamp(min=1)
        loss = loss.sum()
    return loss if normalizer is None else loss / normalizer


def find_ignored(targets: Tensor, name: str = "targets", *, largest: int | float = 1, soft: bool = False) -> Tensor | None:
    """Where the targets (labels, qualities or class indices) are -1; None if that was looked for and is nowhere.

    On a CPU, where it costs next to nothing, and under ``debug_checks`` the targets are looked at.

    Args:
        targets: any shape.
        name: what they are called in a message.
        largest: the largest target that there is.
        soft: they may lie between whole numbers.

    Raises:
        ValueError: targets that are neither -1 nor in [0, largest], or not whole, where they are looked at.

    Example:
        >>> find_ignored(torch.tensor([1, 0, -1])), find_ignored(torch.tensor([1, 0]))
        (tensor([False, False,  True]), None)
    """
    if targets.dtype == torch.bool:
        return None
    return check_labels(targets, name, largest=largest, soft=soft) if may_check(targets) else targets == -1


def set_aside(x: Tensor, ignored: Tensor | None) -> Tensor:
    """Zeros, without gradient, in the place of what is ignored: entries of ``x``, or rows where the mask has a dimension less."""
    if ignored is None:
        return x
    return torch.where(ignored if ignored.ndim >= x.ndim else ignored.unsqueeze(-1), 0, x)


def check_same_shape(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Raises ValueError unless the two tensors have one shape: broadcasting an (n,) against an (n, 1) is the classic silent mistake.

    Raises TypeError where one of them is no tensor.
    """
    check_tensors(**{name: x, other_name: other})
    if x.shape != other.shape:
        raise ValueError(f"{name} and {other_name}: one shape expected, got {tuple(x.shape)} and {tuple(other.shape)}")


def check_weight(weight: Tensor, loss: Tensor) -> None:
    """Raises ValueError unless ``weight`` broadcasts to the shape of ``loss`` without enlarging it."""
    offset = loss.ndim - weight.ndim
    if offset < 0 or any(size not in (1, loss.shape[offset + i]) for i, size in enumerate(weight.shape)):
        raise ValueError(f"weight: a shape that broadcasts to the loss's {tuple(loss.shape)} expected, got {tuple(weight.shape)}")
