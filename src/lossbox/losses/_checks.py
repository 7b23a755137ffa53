"""What the ranking losses ask of their input; the checks that would make an accelerator wait are switched on by the user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_debug = os.environ.get("LOSSBOX_DEBUG_CHECKS", "") not in ("", "0")


@contextmanager
def debug_checks(enabled: bool = True) -> Iterator[None]:
    """Look at every value that enters a ranking loss, and raise where it is no number or no label.

    Off by default, since looking makes an accelerator wait; a NaN then comes out as a NaN loss. The environment variable
    ``LOSSBOX_DEBUG_CHECKS=1`` switches the checks on for a whole run.

    Args:
        enabled: False switches them off inside a block where they are on.

    Raises:
        ValueError: inside the block, from any ranking loss: how many entries are wrong, and the place of the first.

    Example:
        >>> from lossbox.losses import ap_loss
        >>> logits = torch.tensor([[0.5, float("nan")], [1.0, 2.0]])
        >>> with debug_checks():
        ...     ap_loss(logits, torch.tensor([[1, 0], [0, 0]]))
        Traceback (most recent call last):
        ...
        ValueError: logits: 1 of 4 entries are NaN, the first at (0, 1)
    """
    global _debug
    before, _debug = _debug, enabled
    try:
        yield
    finally:
        _debug = before


def check_ranking_input(logits: Tensor, targets: Tensor, delta: float = 0.0) -> None:
    """The rules of ``logits``, ``targets`` and ``delta`` that hold for every ranking loss."""
    if logits.shape != targets.shape:
        raise ValueError(f"targets: must have the shape of logits {tuple(logits.shape)}, got {tuple(targets.shape)}")
    if not logits.is_floating_point():
        raise ValueError(f"logits: must be floating point, got {logits.dtype}")
    if targets.dtype == torch.bool or targets.is_complex():
        raise ValueError(f"targets: must be numbers 1 (positive), 0 (negative), -1 (ignored), got {targets.dtype}")
    if logits.device != targets.device:
        raise ValueError(f"targets: must be on the device of logits, {logits.device}, got {targets.device}")
    if not 0 <= delta < float("inf"):
        raise ValueError(f"delta: must be a finite number >= 0, got {delta}")
    if _debug:
        _raise_where(logits.isnan() & (targets != -1), "logits", "are NaN")
        _raise_where((targets != 1) & (targets != 0) & (targets != -1), "targets", "are not 1, 0 or -1")


def check_per_positive(values: Tensor, name: str, num_positives: int) -> None:
    """The rules of a tensor with one value per positive."""
    if values.shape != (num_positives,):
        raise ValueError(
            f"{name}: must have shape ({num_positives},), one value for each entry of logits[targets == 1], got {tuple(values.shape)}"
        )
    if _debug:
        _raise_where(values.isnan(), name, "are NaN")


def _raise_where(wrong: Tensor, name: str, what: str) -> None:
    places = wrong.nonzero()
    if len(places):
        first = tuple(places[0].tolist())
        raise ValueError(f"{name}: {len(places)} of {wrong.numel()} entries {what}, the first at {first}")


def check_positive(name: str, value: float) -> None:
    """Raises ValueError unless ``value > 0``; NaN is refused."""
    if not value > 0:
        raise ValueError(f"{name}: a number > 0 expected, got {value}")


def check_not_negative(name: str, value: float) -> None:
    """Raises ValueError unless ``value >= 0``; NaN is refused."""
    if not value >= 0:
        raise ValueError(f"{name}: a number >= 0 expected, got {value}")


def check_share(name: str, value: float) -> None:
    """Raises ValueError unless ``0 <= value <= 1``."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: a number in [0, 1] expected, got {value}")
