"""Sums over the positives that lie above *and* are of lower quality: the second condition of Rank & Sort, in O(P log P).

The positives, in ascending order of score, are split by the highest bit of their place in the order of quality, stably, then by the next
bit and so on (a wavelet matrix). "Of lower quality than i" then is, for every 1 in the binary form of the number of such positives, the
0-half of one split; "above i" stays a range of neighbors throughout, and prefix sums give its sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

DENSE = 1 << 12
"""Up to so many positives a GPU takes all pairs at once: less than a millisecond, where each of the many small steps costs as much."""


def dominance_sums(scores: Tensor, quality: Tensor, values: Tensor, delta: float) -> Tensor:
    """``sum_{k: y_k < y_i} H(s_k - s_i) values_k`` at each i.

    Args:
        scores: (P,) s, float64.
        quality: (P,) y.
        values: (c, P).
        delta: half the width of the ramp H; 0 is the hard step.

    Returns:
        (c, P) float64.
    """
    if scores.device.type != "cpu" and len(scores) <= DENSE:
        return all_pairs(scores, quality, values, delta)
    size = len(scores)
    scores = scores - scores.mean()
    ascending, by_score = scores.sort()
    index = torch.arange(size, device=scores.device)
    better, by_quality = quality.sort()
    place = torch.empty_like(index).scatter_(0, by_quality, index)[by_score]
    # The column of ones counts who goes to the 0-half.
    moments = torch.cat([torch.ones_like(scores)[None], values, values * scores]).T[by_score]

    thresholds = (scores - delta, scores + delta) if delta > 0 else (scores,)
    # Who is above i: from the first score that reaches its threshold up to the end.
    bounds = torch.stack([*(torch.searchsorted(ascending, threshold) for threshold in thresholds), torch.full_like(index, size)])
    lower = torch.searchsorted(better, quality)
    above = moments.new_zeros(len(thresholds), size, moments.shape[1])
    for bit in reversed(range(size.bit_length())):
        zero = (place >> bit & 1) == 0
        sums = torch.cat([torch.zeros_like(moments[:1]), (moments * zero[:, None]).cumsum(0)])
        at_bounds = sums.index_select(0, bounds.view(-1)).view(*bounds.shape, -1)
        taken = lower >> bit & 1
        above += (at_bounds[-1] - at_bounds[:-1]) * taken[:, None]
        # A range maps to a range of its half: zeros go to the front, in their order, and ones behind them.
        zeros, counts = sums[:, 0].long(), at_bounds[..., 0].long()
        bounds = torch.where(taken.bool(), zeros[-1] + bounds - counts, counts)
        goes_to = torch.where(zero, zeros[:-1], zeros[-1] + index - zeros[:-1])
        place = torch.empty_like(place).scatter_(0, goes_to, place)
        moments = torch.empty_like(moments).index_copy_(0, goes_to, moments)
    total, moment = above[..., 1:].movedim(-1, 0).chunk(2)
    if delta == 0:
        return total.squeeze(1)
    # sum_{s_k >= t} v_k (s_k - t), at both thresholds
    low, high = (moment - torch.stack(thresholds) * total).unbind(1)
    return (low - high) / (2 * delta)


def all_pairs(scores: Tensor, quality: Tensor, values: Tensor, delta: float) -> Tensor:
    """``dominance_sums`` by its definition, in O(P^2)."""
    difference = scores[None, :] - scores[:, None]
    step = (difference >= 0).to(scores.dtype) if delta == 0 else (difference / (2 * delta) + 0.5).clamp(0, 1)
    return values @ (step * (quality[None, :] < quality[:, None])).T
