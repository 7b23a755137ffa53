"""Exact sums of a clamped ramp over all pairs of scores, in time linear in the number of negatives.

Every ranking loss needs just two sums, with ``H(x) = clamp(x / (2 delta) + 1/2, 0, 1)`` (``1[x >= 0]`` for ``delta = 0``):

    sums_above   F(i) = sum_j v_j H(s_j - s_i)    at each positive i
    sums_below   G(j) = sum_i w_i H(s_j - s_i)    at each negative j

``H(. - s_i)`` is piecewise linear with the two knots ``s_i - delta`` and ``s_i + delta``. So F and G, as functions of the *other* score,
are piecewise linear between the same 2P knots, and P is small. Only the knots are ever sorted. One pass over the negatives finds the
interval between knots that each falls into and how far above the interval's lower knot (its base) it lies; the rest is cumulative sums of
size P. On a GPU each of these steps is a kernel of its own (``_fused``).

In groups, each ranked by itself, the knots are sorted by group first, and every sum stays within a group (``_segments``). A group has one
more entry in front of its knots, which takes the scores below them; a last group, without knots, those that are in no group of a positive.

Little is lost to cancellation: all sums are of terms of one sign, measured from their own knot and not from 0, in float64. Where two
neighboring knots are further than 2 delta from each other, no H changes between them, and the gap counts as 2 delta: a positive far away
costs the others no digits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from ._intervals import ROWS, cpu_rows, interval_finder, rows_of, signed_edges, take
from ._segments import Segments, close_gaps, lay_out, sort_by_group, sum_down, sum_up

CHUNK = 1 << 17
"""Scores handled at a time on a CPU: a chunk's temporaries stay in the cache, and memory stays O(N) with a small constant."""

FAR = 1 << 24
"""Positives further from 0 than so many deltas are moved: what rounding costs H stays below 10^-8."""

COPIES = 64
"""Counters of an interval on other devices, which add to one place only one after the other."""


class Knots(NamedTuple):
    """The sorted knots of P positives, and where each positive's own are among them."""

    position: Tensor  # (K,) ascending (within each group); K = 2P, or P where delta = 0, and one more a group where there are groups
    order: Tensor  # (K,) what each was among the groups' first entries, the s_i - delta and the s_i + delta, one after the other
    low: Tensor  # (P,) index of s_i - delta
    high: Tensor  # (P,) index of s_i + delta; the same as `low` where delta = 0
    delta: float
    scores: Tensor  # (P,) of the positives, as they were placed
    segments: Segments | None = None  # where each group's are

    @property
    def gaps(self) -> Tensor:
        """(K - 1,) from each knot to the next, as far as H can tell; 0 to that of another group."""
        gaps = self.position.diff().clamp(max=2 * self.delta)
        return gaps if self.segments is None else torch.where(self.segments.from_start[1:] > 0, gaps, 0.0)

    @property
    def own_step(self) -> Tensor:
        """(P,) H(0) as these knots have it, what a positive contributes to its own sum: 1, or 1/2 but for rounding."""
        if self.delta == 0:
            return torch.ones_like(self.scores)
        return (self.scores - self.position.index_select(0, self.low)) / (2 * self.delta)


class Located(NamedTuple):
    """Scores by interval: interval m lies above m of the knots; `offset` is the distance from its base, the m-th knot, up to 2 delta."""

    interval: Tensor  # (N,) int32 in [0, K]
    offset: Tensor  # (N,) in the scores' dtype
    weight_sum: Tensor  # (K + 1,) the number of scores (or their summed weights) in each interval
    offset_sum: Tensor  # (K + 1,) summed (weighted) offsets


def sum_dtype(device: torch.device) -> torch.dtype:
    """float64, and float32 on devices that have nothing wider (MPS): sums of 10^6 terms are then good to about 1e-4."""
    return torch.float32 if device.type == "mps" else torch.float64


def close_up(scores: Tensor, positive_scores: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """(N,) scores and the (P,) of the positives, moved closer where positives lie so far from 0 that delta would be lost in their digits.

    The positives keep their order and every distance from each other up to 2 delta; so do the other scores up to delta, which is as far as
    H can tell. They are then as near to 0 as that allows, in the sums' dtype. Finite positives on a CPU: a GPU would have to wait.
    """
    if delta == 0 or not len(positive_scores) or scores.device.type != "cpu" or not FAR * delta < positive_scores.abs().max() < torch.inf:
        return scores, positive_scores
    ascending, order = positive_scores.sort()
    place = close_gaps(ascending, 2 * delta)
    scores = scores.to(place.dtype)
    above = torch.bucketize(scores, ascending, right=True)
    lower, upper = (above - 1).clamp_(min=0), above.clamp(max=len(place) - 1)
    # by the distance from the positive below, at most delta, or from that above
    from_lower = place[lower] + (scores - ascending[lower]).clamp_(max=delta)
    scores = torch.maximum(from_lower, place[upper] - (ascending[upper] - scores))
    return scores, torch.empty_like(place).scatter_(0, order, place)


def place_knots(positive_scores: Tensor, delta: float, group: Tensor | None = None, num_groups: int = 0) -> Knots:
    """Sort the knots ``s_i -+ delta`` of (P,) scores, which are in the sums' dtype; of (P,) groups by group, less than ``num_groups``."""
    size, segments, kernels = len(positive_scores), None, kernels_for(positive_scores, group)
    if kernels is not None:
        position, order, place = kernels.place_knots(positive_scores, delta)
        return Knots(position, order, place[:size], place[-size:], delta, positive_scores)
    knots = (positive_scores,) if delta == 0 else (positive_scores - delta, positive_scores + delta)
    if group is None:
        position, order = torch.cat(knots).sort()
        place = _inverse(order)
    else:
        each = torch.arange(num_groups, device=group.device)
        position, group = torch.cat([knots[0].new_full((num_groups,), -torch.inf), *knots]), torch.cat([each, group.repeat(len(knots))])
        order, segments = sort_by_group(position, group), lay_out(group, num_groups)
        position, place = position[order], _inverse(order)[num_groups:]
        # what stands in front of a group's knots has the position of the first: no score is far from it
        position = torch.where(segments.from_start == 0, torch.cat([position[1:], position.new_zeros(1)]), position)
    return Knots(position, order, place[:size], place[-size:] if size else place, delta, positive_scores, segments)


def locate(knots: Knots, scores: Tensor, counted: Tensor | None = None, group: Tensor | None = None) -> Located:
    """Find each score's interval and sum up the intervals.

    Args:
        knots: K of them.
        scores: (N,) float32 or float64; NaN poisons every sum, infinities are like the farthest finite scores.
        counted: (N,) bool; a score that is not counted adds to no sum, and ``evaluate`` gives 0 there.
        group: (N,) int32, where the knots are in groups.
    """
    position = knots.position
    num_intervals = len(position) + 1
    if num_intervals == 1:
        return Located(torch.zeros_like(scores, dtype=torch.int32), torch.zeros_like(scores), position.new_zeros(1), position.new_zeros(1))
    kernels = gpu_kernels(scores.device.type)
    if kernels is not None and group is None:
        return Located(*kernels.locate(scores, counted, position, knots.delta))
    # The smallest numbers of the scores' dtype that are not below the knots: `score >= knot` is then the same in that dtype.
    edges = position
    if scores.dtype != position.dtype:
        edges = position.to(scores.dtype)
        edges = torch.where(edges.to(position.dtype) < position, torch.nextafter(edges, torch.full_like(edges, torch.inf)), edges)
    if group is not None:
        place = _place_in_groups(knots, edges, scores, counted, group)
    else:
        floor = torch.nextafter(edges[0], torch.full_like(edges[0], -torch.inf))
        place = _place(edges, floor, torch.cat([position[:1], position]), 2 * knots.delta, scores, counted)

    interval = torch.empty(scores.shape, dtype=torch.int32, device=scores.device)
    offset = torch.empty_like(scores)
    weight_counters, offset_counters = _counters(position, num_intervals), _counters(position, num_intervals)
    for part in _parts(scores):
        here, beyond = place(part)
        interval[part] = here
        offset[part] = beyond
        _count(weight_counters, here, None)
        _count(offset_counters, here, beyond)
    weight_sum, offset_sum = weight_counters.sum(0), offset_counters.sum(0)
    return Located(interval, offset, weight_sum, offset_sum)


def _place(
    edges: Tensor, floor: Tensor, base: Tensor, widest: float, scores: Tensor, counted: Tensor | None
) -> Callable[[slice], tuple[Tensor, Tensor]]:
    """A function from a part of the scores to their intervals and their offsets from the base."""
    find = interval_finder(edges, floor, len(scores))
    on_cpu = scores.device.type == "cpu"
    bounds = (floor.item(), edges[-1].item()) if on_cpu else (floor, edges[-1])  # numbers are faster, and cost no wait here

    def place(part: slice) -> tuple[Tensor, Tensor]:
        # H does not change below the first knot and above the last: clamp, so that outliers and infinities cost no digits.
        # A score that is not counted is put below the first knot, where every sum is 0.
        inside = scores[part] if counted is None else torch.where(counted[part], scores[part], floor)
        inside = torch.clamp(inside, *bounds)
        here = find(inside)
        return here, inside.to(base.dtype).sub_(take(base, here)).clamp_(0, widest)

    return place


def _place_in_groups(
    knots: Knots, edges: Tensor, scores: Tensor, counted: Tensor | None, group: Tensor
) -> Callable[[slice], tuple[Tensor, Tensor]]:
    """The same within the group of each score, by a binary search of all scores of a part at once."""
    segments = knots.segments
    assert segments is not None
    base, width = knots.position, torch.cat([knots.gaps, knots.position.new_zeros(1)])
    jumps = [1 << r for r in reversed(range((segments.longest - 1).bit_length()))]
    edges, as_integer, sign_bit = signed_edges(edges)
    bits = scores.view(as_integer)

    def place(part: slice) -> tuple[Tensor, Tensor]:
        # Whole numbers in the place of conditions, which a CPU guesses, and here as often wrong as right.
        of, score = group[part], scores[part]
        if counted is not None:
            score = (bits[part] * counted[part]).view(scores.dtype)  # whatever stood there, NaN too, is 0
        found, last = take(segments.start, of), take(segments.last, of)
        for jump in jumps:
            probe = torch.minimum(found + jump, last)
            below = (score - take(edges, probe)).view(as_integer).bitwise_right_shift_(sign_bit).to(torch.int32)
            found = torch.maximum(found, probe.bitwise_or_(below))  # -1 where the score is below the edge
        beyond = (score.to(base.dtype) - take(base, found)).clamp_(min=0)
        beyond = torch.minimum(beyond, take(width, found))
        found += 1
        if counted is not None:
            found, beyond = found.mul_(counted[part]), beyond.mul_(counted[part])  # interval 0 is no group's
        return found, beyond

    return place


def weigh(located: Located, weight: Tensor) -> Located:
    """The same scores with other weights, (N,) in the sums' dtype."""
    size = len(located.weight_sum)
    weight_counters, offset_counters = _counters(weight, size), _counters(weight, size)
    for part in _parts(weight):
        here = located.interval[part]
        _count(weight_counters, here, weight[part])
        _count(offset_counters, here, weight[part] * located.offset[part])
    weight_sum, offset_sum = weight_counters.sum(0), offset_counters.sum(0)
    return Located(located.interval, located.offset, weight_sum, offset_sum)


def sums_above(knots: Knots, located: Located) -> Tensor:
    """F at each positive, (P,)."""
    kernels = kernels_for(knots.low, knots.segments)
    if kernels is not None:
        sums: Tensor = kernels.sums_above(knots.position, knots.low, knots.high, knots.delta, located.weight_sum, located.offset_sum)
        return sums
    # A NaN may lie in interval 0, which no positive looks at: let every sum see it.
    above = sum_down(located.weight_sum[1:], knots.segments) + 0 * located.offset_sum.sum()
    if knots.delta == 0:
        return above.index_select(0, knots.low)
    # A(t) = sum_j v_j max(s_j - t, 0), from the highest knot down; then F(i) = (A(low) - A(high)) / (2 delta).
    area = located.offset_sum[1:].clone()
    area[:-1] += above[1:] * knots.gaps
    area = sum_down(area, knots.segments)
    return (area.index_select(0, knots.low) - area.index_select(0, knots.high)) / (2 * knots.delta)


def sums_below(knots: Knots, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """G as a table: its value at the base of each interval and its slope inside, (K + 1,) each of that dtype, for (P,) weights w_i."""
    kernels = kernels_for(knots.low, knots.segments)
    if kernels is not None:
        value, slope = kernels.sums_below(knots.position, knots.order, knots.delta, weight, dtype)
        return value, slope
    zero, steeper = weight.new_zeros(1), weight if knots.delta == 0 else weight / (2 * knots.delta)
    steps = [weight] if knots.delta == 0 else [steeper, -steeper]
    first = weight.new_zeros(len(knots.order) - len(steps) * len(weight))
    change = sum_up(torch.cat([first, *steps]).index_select(0, knots.order), knots.segments)
    if knots.delta == 0:
        value = torch.cat([zero, change]).to(dtype)
        return value, torch.zeros_like(value)
    rise = torch.cat([zero, change[:-1] * knots.gaps])
    return torch.cat([zero, sum_up(rise, knots.segments)]).to(dtype), torch.cat([zero, change]).to(dtype)


def evaluate(value: Tensor, slope: Tensor, interval: Tensor, offset: Tensor) -> Tensor:
    """G at each located score, (N,), from its table in the dtype of the offsets."""
    kernels = gpu_kernels(offset.device.type)
    if kernels is not None:
        spread: Tensor = kernels.evaluate(value, slope, interval, offset)
        return spread
    result = torch.empty_like(offset)
    for part in _parts(result):
        here = interval[part]
        torch.addcmul(take(value, here), take(slope, here), offset[part], out=result[part])
    return result


@cache
def gpu_kernels(device_type: str) -> ModuleType | None:
    """``_fused``, for GPUs where Triton is installed (PyTorch's builds for them bring it), unless LOSSBOX_TRITON is 0."""
    if device_type != "cuda" or os.environ.get("LOSSBOX_TRITON") == "0":
        return None
    try:
        from . import _fused
    except ImportError:
        return None
    return _fused


def kernels_for(per_positive: Tensor, grouped: object = None) -> ModuleType | None:
    """The same for what is of the size of the positives: where they are in no groups, and not too many."""
    kernels = gpu_kernels(per_positive.device.type)
    return kernels if kernels is not None and grouped is None and 0 < len(per_positive) <= kernels.MOST_POSITIVES else None


def _inverse(order: Tensor) -> Tensor:
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def _parts(scores: Tensor) -> Iterator[slice]:
    """All of them on a GPU; on a CPU chunks that can be cut into ``ROWS``, and the fewer than ``ROWS`` that remain."""
    size = len(scores)
    whole, chunk = (size - size % ROWS, CHUNK) if scores.device.type == "cpu" else (size, max(size, 1))
    for start in range(0, whole, chunk):
        yield slice(start, min(start + chunk, whole))
    if whole < size:
        yield slice(whole, size)


def _counters(like: Tensor, num_intervals: int) -> Tensor:
    """(copies, num_intervals) zeros, whose sum over the copies will be a histogram: see ``_count``. Few: they share the cache."""
    return like.new_zeros(cpu_rows() if like.device.type == "cpu" else COPIES, num_intervals)


def _count(counters: Tensor, interval: Tensor, weight: Tensor | None) -> None:
    """``histogram[interval] += weight`` (1 if not given). ``bincount`` is the fastest on one thread of a CPU, and waits for the device
    elsewhere; of several threads each adds a row of the chunk to a copy of its own.
    """
    rows = rows_of(interval)
    if counters.device.type == "cpu" and rows == 1:
        counters[0] += torch.bincount(interval, weight, minlength=counters.shape[1])
        return
    weight = counters.new_ones(len(interval)) if weight is None else weight
    if counters.device.type == "cpu":
        counters.scatter_add_(1, interval.long().view(rows, -1), weight.reshape(rows, -1))
    else:
        _count_in_turn(counters, interval, weight)


def _count_in_turn(counters: Tensor, interval: Tensor, weight: Tensor) -> None:
    """The same where additions to one place wait for each other, and most scores may lie in one interval: neighbors go to different
    copies."""
    copy = torch.arange(len(interval), dtype=interval.dtype, device=interval.device) % len(counters)
    counters.view(-1).index_add_(0, interval + copy * counters.shape[1], weight)
