"""Sums over all pairs of positives at once: for up to some thousands of them, a GPU needs less time for this than for many launches."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _knots

MOST_POSITIVES = 1 << 12
"""Without Triton all pairs lie in memory."""


def takes_pairs(scores: Tensor) -> bool:
    """Whether (P,) scores are on a device, and few enough, that their pairs are taken all at once."""
    kernels = _knots.gpu_kernels(scores.device.type)
    if kernels is not None:
        return len(scores) <= int(kernels.MOST_POSITIVES)
    return scores.device.type != "cpu" and len(scores) <= MOST_POSITIVES


def pair_sums(
    scores: Tensor,
    values: Tensor | None,
    delta: float,
    *,
    quality: Tensor | None = None,
    group: Tensor | None = None,
    below: bool = False,
) -> Tensor:
    """``sum_{k != i} H(s_k - s_i) values_k`` at each i, with ``below`` of ``H(s_i - s_k)``; NaN where a score is not finite.

    Args:
        scores: (P,) s, in the sums' dtype.
        values: (c, P); one row of ones if None.
        delta: half the width of the ramp H; 0 is the hard step.
        quality: (P,) y: only over those k with ``y_k < y_i``.
        group: (P,) int64: only over those of the group of i.

    Returns:
        (c, P), in the dtype of the scores.
    """
    kernels = _knots.gpu_kernels(scores.device.type)
    if kernels is not None:
        sums: Tensor = kernels.pair_sums(scores, values, delta, quality, group, below)
        return sums
    difference = scores[None, :] - scores[:, None]
    if below:
        difference = -difference
    step = (difference >= 0).to(scores.dtype) if delta == 0 else (difference / (2 * delta) + 0.5).clamp(0, 1)
    counts = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    if quality is not None:
        counts &= quality[None, :] < quality[:, None]
    if group is not None:
        counts &= group[None, :] == group[:, None]
    step = (step + 0 * difference) * counts
    return step.sum(1)[None] if values is None else values.to(scores.dtype) @ step.T
