"""Sequences that are sorted by group: sorting, searching and summing that stay within a group.

Entries of different groups are kept apart by whole numbers, never by adding something to a score, which would cost its digits. A sum within
a group is added up pairwise, in as many rounds as the longest group has binary digits: the difference of two sums over everything would
lose the digits of a small group behind large ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Segments(NamedTuple):
    """Where the groups lie in a sequence that is sorted by group."""

    start: Tensor  # (groups,) int32, the first place of each
    last: Tensor  # (groups,) int32, the last place of each
    from_start: Tensor  # (K,) how many of its group come before each place
    to_last: Tensor  # (K,) how many come after it
    longest: int


def sort_by_group(values: Tensor, group: Tensor) -> Tensor:
    """The order that sorts by group and, within a group, by value; stable."""
    by_value = values.argsort(stable=True)
    return by_value[group[by_value].argsort(stable=True)]


def lay_out(group: Tensor, num_groups: int) -> Segments:
    """The segments of a sequence of (K,) entries of these groups, once it is sorted; a group may be empty."""
    counts = torch.bincount(group, minlength=num_groups)
    end = counts.cumsum(0)
    place = torch.arange(len(group), device=group.device)
    start, last = end - counts, end - 1
    of_place = torch.repeat_interleave(torch.arange(num_groups, device=group.device), counts, output_size=len(group))
    # the one number that the host needs: it decides how many rounds there are
    longest = int(counts.max()) if len(group) else 0
    return Segments(start.int(), last.int(), place - start[of_place], last[of_place] - place, longest)


def close_gaps(scores: Tensor, widest: float, group: Tensor | None = None) -> Tensor:
    """Sorted scores, or scores sorted by the group of each, moved so that the first is 0 and no gap is wider than that."""
    gaps = scores.diff().clamp(max=widest)
    if group is not None:
        gaps = torch.where(group.diff() > 0, 0.0, gaps)
    return F.pad(gaps.cumsum(0), (1, 0))[: len(scores)]


def sum_up(terms: Tensor, segments: Segments | None) -> Tensor:
    """At each place the sum of its own term and those before it in its group."""
    return terms.cumsum(0) if segments is None else _accumulate(terms, segments, torch.add, 0.0)


def highest_up(terms: Tensor, segments: Segments | None) -> Tensor:
    """At each place the greatest of its own term and those before it in its group."""
    return terms.cummax(0).values if segments is None else _accumulate(terms, segments, torch.maximum, -torch.inf)


def sum_down(terms: Tensor, segments: Segments | None) -> Tensor:
    """At each place the sum of its own term and those after it in its group."""
    if segments is None:
        return terms.flip(0).cumsum(0).flip(0)
    result, distance = terms.clone(), 1
    while distance < segments.longest:
        result[:-distance] += torch.where(segments.to_last[:-distance] >= distance, result[distance:], 0.0)
        distance *= 2
    return result


def _accumulate(terms: Tensor, segments: Segments, combine: Callable[..., Tensor], neutral: float) -> Tensor:
    result, distance = terms.clone(), 1
    while distance < segments.longest:
        before = torch.where(segments.from_start[distance:] >= distance, result[:-distance], neutral)
        combine(result[distance:], before, out=result[distance:])
        distance *= 2
    return result


def first_at_least(scores: Tensor, thresholds: Tensor, group: Tensor) -> Tensor:
    """Of each of n thresholds for every score, (n, P): the first place of its group, or behind it, whose score reaches the threshold.

    The (P,) scores are sorted by group; ``group`` is theirs. All are merged by sorting, with a threshold before the scores that are equal.
    """
    num, size = thresholds.shape
    order = sort_by_group(torch.cat([thresholds.reshape(-1), scores]), group.repeat(num + 1))
    is_score = order >= num * size
    before = is_score.cumsum(0) - is_score.long()
    return torch.empty_like(order).scatter_(0, order, before)[: num * size].view(num, size)
