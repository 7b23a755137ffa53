"""What losses ask of their input; the checks that would make an accelerator wait are switched on by the user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ._logspace import may_look

ROUNDING = 1e-3
"""By how much an IoU may exceed 1, or an error be below 0: it is a quotient of rounded numbers, and may have been bfloat16."""

_debug = os.environ.get("LOSSBOX_DEBUG_CHECKS", "") not in ("", "0")


LEAST_DELTA = 1e-6
"""Below, adding delta to a score loses too much of delta, where far scores are not moved (``_knots.close_up``), as on a GPU."""


@contextmanager
def debug_checks(enabled: bool = True) -> Iterator[None]:
    """Look at every value that enters a loss, and at its targets; raise where a value is NaN or infinite, or a target no label.

    Off by default, since looking makes an accelerator wait; a NaN then comes out as a NaN loss. On a CPU the targets are looked at
    always. Entries that are ignored may hold anything. -inf may stand for what is left out: a negative of a ranking loss, or a class of
    a softmax that is not the target. The environment variable ``LOSSBOX_DEBUG_CHECKS=1`` switches the checks on for a whole run.

    Args:
        enabled: False switches them off inside a block where they are on.

    Raises:
        ValueError: inside the block, from any loss: how many entries are wrong, and the place of the first.

    Example:
        >>> from lossbox.losses import ap_loss
        >>> logits = torch.tensor([[0.5, float("nan")], [1.0, 2.0]])
        >>> with debug_checks():
        ...     ap_loss(logits, torch.tensor([[1, 0], [0, 0]]))
        Traceback (most recent call last):
        ...
        ValueError: logits: 1 of 4 entries are not finite, the first at (0, 1): nan
    """
    global _debug
    before, _debug = _debug, enabled
    try:
        yield
    finally:
        _debug = before


def check_delta(delta: float) -> None:
    """0, or wide enough that the sums over knots, which are divided by it, keep their digits."""
    if isinstance(delta, str) or not (delta == 0 or LEAST_DELTA <= delta < float("inf")):
        raise ValueError(f"delta: 0 or a finite number >= {LEAST_DELTA:g} expected, got {delta!r}")


def check_ranking_input(logits: Tensor, targets: Tensor, delta: float = 0.0) -> None:
    """The rules of ``logits``, ``targets`` and ``delta`` that hold for every ranking loss."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise ValueError(
            "logits: a ranking loss does not go through torch.func (vmap, grad, ...): for many rankings pass groups='row' or keys, for "
            "the gradient call loss.backward() or torch.autograd.grad(loss, logits)"
        )
    check_tensors(logits=logits, targets=targets)
    if logits.shape != targets.shape:
        raise ValueError(f"targets: must have the shape of logits {tuple(logits.shape)}, got {tuple(targets.shape)}")
    if not logits.is_floating_point():
        raise ValueError(f"logits: must be floating point, got {logits.dtype}")
    if targets.dtype == torch.bool or targets.is_complex():
        raise ValueError(f"targets: must be numbers 1 (positive), 0 (negative), -1 (ignored), got {targets.dtype}")
    if logits.device != targets.device:
        raise ValueError(f"targets: must be on the device of logits, {logits.device}, got {targets.device}")
    check_delta(delta)
    if _debug:
        check_finite((targets == -1) | ((targets == 0) & (logits == -torch.inf)), logits=logits)
        _raise_where((targets != 1) & (targets != 0) & (targets != -1), "targets", "are not 1, 0 or -1")


def check_ranked(targets: Tensor, num_positives: int, is_negative: Tensor) -> None:
    """Every target of a ranking loss is 1, 0 or -1, by counting them, which is fast: on a CPU; elsewhere ``debug_checks`` says so."""
    if not may_look(targets) or num_positives + int(is_negative.count_nonzero()) == targets.numel():
        return
    if num_positives + int(is_negative.count_nonzero()) + int((targets == -1).count_nonzero()) < targets.numel():
        _raise_where((targets != 1) & (targets != 0) & (targets != -1), "targets", "are not 1, 0 or -1")


def check_per_positive(values: Tensor, name: str, num_positives: int) -> None:
    """The rules of a tensor with one value per positive: an error or a quality, >= 0."""
    check_tensors(**{name: values})
    if values.shape != (num_positives,):
        raise ValueError(
            f"{name}: must have shape ({num_positives},), one value for each entry of logits[targets == 1], got {tuple(values.shape)}"
        )
    check_finite(**{name: values})
    if may_check(values):
        _raise_where(values < -ROUNDING, name, "are negative")


def check_finite(ignored: Tensor | None = None, **arguments: Tensor) -> None:
    """Under ``debug_checks``: raises ValueError where an entry of an argument is NaN or infinite and not ignored, nor its row."""
    if not _debug or torch.compiler.is_compiling():
        return
    check_tensors(**arguments)
    for name, values in arguments.items():
        wrong = ~values.detach().isfinite()
        if ignored is not None:
            wrong &= ~(ignored if ignored.ndim >= values.ndim else ignored.unsqueeze(-1))
        _raise_where(wrong, name, "are not finite", values)


def check_finite_classes(logits: Tensor, targets: Tensor, ignored: Tensor | None) -> None:
    """The same for (n, C) logits of a softmax over classes (n,): -inf stands for a class that is left out, unless it is the target."""
    if _debug and not torch.compiler.is_compiling():
        left_out = (logits == -torch.inf).scatter(1, targets.clamp(min=0).long().unsqueeze(1), False)
        check_finite(left_out if ignored is None else left_out | ignored.unsqueeze(1), logits=logits)


def check_tensors(**arguments: Any) -> None:
    """Raises TypeError where an argument is a list, an array or a number: nothing is converted silently."""
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: a torch.Tensor expected, got {type(value).__name__}; torch.as_tensor(...) makes one")


def may_check(x: Tensor) -> bool:
    """Whether values may be looked at: on a CPU, where it costs next to nothing, or because ``debug_checks`` asks for it."""
    return may_look(x) or (_debug and not torch.compiler.is_compiling())


def check_labels(targets: Tensor, name: str, *, largest: int | float, soft: bool) -> Tensor | None:
    """Where the targets are -1, None if nowhere; raises ValueError where they are neither that nor in [0, largest], and whole unless soft.

    What is soft may be above 1 by the error of its rounding, and a NaN among it comes out as a NaN loss: an IoU of predicted boxes may be
    one. The values are looked at: ask ``may_check`` before.
    """
    if not targets.numel():
        return None
    targets = targets.detach()
    low, high = float(targets.amin()), float(targets.amax())
    if soft and low != low:
        return targets == -1
    ignored = targets == -1 if low < 0 else None
    right = low >= -1 and high <= largest + ROUNDING and (ignored is None or not ((targets < 0) & ~ignored).any())
    if not soft and targets.is_floating_point():  # the product is a sixth of the time of comparing each number with its whole part
        right = right and (float((targets * (1 - targets)).amax()) <= 0 if largest == 1 else torch.equal(targets, targets.trunc()))
    if not right:
        wrong = ~((targets == -1) | ((targets >= 0) & (targets <= largest + ROUNDING) & (soft | (targets == targets.trunc()))))
        among = f"in [0, {largest:g}] or -1" if soft else "0, 1 or -1" if largest == 1 else f"whole numbers in [0, {largest:g}] or -1"
        _raise_where(wrong, name, f"are not {among}", targets)
    return ignored


def _raise_where(wrong: Tensor, name: str, what: str, values: Tensor | None = None) -> None:
    places = wrong.nonzero()
    if len(places):
        first = tuple(places[0].tolist())
        value = "" if values is None else f": {values[first].item()}"
        raise ValueError(f"{name}: {len(places)} of {wrong.numel()} entries {what}, the first at {first}{value}")


def check_number(name: str, value: float) -> None:
    """Raises ValueError unless ``value`` is finite."""
    if not float("-inf") < value < float("inf"):
        raise ValueError(f"{name}: a finite number expected, got {value}")


def check_positive(name: str, value: float) -> None:
    """Raises ValueError unless ``0 < value < inf``; NaN is refused."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}: a finite number > 0 expected, got {value}")


def check_not_negative(name: str, value: float) -> None:
    """Raises ValueError unless ``0 <= value < inf``; NaN is refused."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: a finite number >= 0 expected, got {value}")


def check_share(name: str, value: float) -> None:
    """Raises ValueError unless ``0 <= value <= 1``."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: a number in [0, 1] expected, got {value}")
