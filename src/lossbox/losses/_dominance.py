"""Sums over the positives that lie above *and* are of lower quality: the second condition of Rank & Sort, in O(P log P).

The positives, in ascending order of score, are split by the highest bit of their place in the order of quality, stably, then by the next
bit and so on (a wavelet matrix). "Of lower quality than i" then is, for every 1 in the binary form of the number of such positives, the
0-half of one split; "above i" stays a range of neighbors throughout, and prefix sums give its sum.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._pairs import pair_sums, takes_pairs
from ._segments import close_gaps, first_at_least, lay_out, sort_by_group


def dominance_sums(scores: Tensor, quality: Tensor, values: Tensor, delta: float, group: Tensor | None = None) -> Tensor:
    """``sum_{k: y_k < y_i} H(s_k - s_i) values_k`` at each i, over those of its group.

    Args:
        scores: (P,) s, float64.
        quality: (P,) y.
        values: (c, P).
        delta: half the width of the ramp H; 0 is the hard step.
        group: (P,) int64 from 0 on; all are one group if not given.

    Returns:
        (c, P) float64.
    """
    if takes_pairs(scores):
        return pair_sums(scores, values, delta, quality=quality, group=group)
    size, index = len(scores), torch.arange(len(scores), device=scores.device)
    if group is None:
        scores, by_score = scores.sort()
    else:
        by_score = sort_by_group(scores, group)
        scores, group = scores[by_score], group[by_score]
    if delta > 0:
        scores = close_gaps(scores, 2 * delta, group)  # so that the sums of scores lose no digits to a distant one
    values = values[:, by_score]
    better, by_quality = quality[by_score].sort()
    # of each positive in the order of the scores: its place in the order of quality, and how many are of lower quality
    place, lower = torch.empty_like(index), torch.empty_like(index)
    place[by_quality], lower[by_quality] = index, torch.searchsorted(better, better)

    thresholds = torch.stack([scores - delta, scores + delta]) if delta > 0 else scores[None]
    # Above i is all from the first score that reaches the threshold up to the end.
    if group is None:
        bounds = torch.cat([torch.searchsorted(scores, thresholds), torch.full_like(index, size)[None]])
    else:
        ends = lay_out(group, size).last.index_select(0, group) + 1
        bounds = torch.cat([first_at_least(scores, thresholds, group), ends.long()[None]])
    moments = torch.cat([values, values * scores]).T.contiguous()
    above = moments.new_zeros(len(thresholds), size, moments.shape[1])
    for bit in reversed(range(size.bit_length())):
        zero = place >> bit & 1 ^ 1
        zeros_before = F.pad(zero.cumsum(0), (1, 0))
        num_zeros = zeros_before[-1]
        # zeros go to the front, in their order, and ones behind them: a range maps to a range of either half
        goes_to = torch.where(zero > 0, zeros_before[:-1], num_zeros + index - zeros_before[:-1])
        place = torch.empty_like(place).scatter_(0, goes_to, place)
        moments = torch.empty_like(moments).index_copy_(0, goes_to, moments)
        in_zeros = zeros_before.index_select(0, bounds.view(-1)).view(bounds.shape)
        taken = (lower >> bit & 1).bool()
        sums = F.pad(moments.cumsum(0), (0, 0, 1, 0))
        # where the half is not taken, the sum from the end to the end
        start = torch.where(taken, in_zeros[:-1], in_zeros[-1])
        above += sums.index_select(0, in_zeros[-1]) - sums.index_select(0, start.view(-1)).view(above.shape)
        bounds = torch.where(taken, num_zeros + bounds - in_zeros, in_zeros)
    total, moment = above.movedim(-1, 0).chunk(2)
    if delta == 0:
        sums = total.squeeze(1)
    else:  # sum_{s_k >= t} v_k (s_k - t), at both thresholds
        low, high = (moment - thresholds * total).unbind(1)
        sums = (low - high) / (2 * delta)
    return torch.empty_like(sums).index_copy_(1, by_score, sums)
