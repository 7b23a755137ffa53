"""The sums of ``_knots`` and ``_pairs`` as Triton kernels, for GPUs, where a ranking loss waits for launches and not for arithmetic.

They compute what those modules compute in steps of torch, and the tests hold the two together. A pass over the negatives reads and writes
each number once. What is of the size of the positives takes a kernel each: placing the knots, the sums down the knots, those up the knots,
the sums over pairs of positives. No kernel waits for the host.

- A histogram on a GPU is made of atomic additions, and a detector's scores lie close together: millions would queue for one interval. So
  every interval has several counters, neighboring scores use different ones, and a block whose scores all fall into one interval adds
  them up before it counts.
- A knot's place is the number of knots before it, counted: up to ``MOST_POSITIVES``, to compare each with each is less work than to launch
  a sort.
- A running sum is made by one program, block after block; no two programs wait for each other.
- Triton hands a number to a kernel in single precision; ``delta`` goes as the bits of its double (``_bits``).

``TRITON_INTERPRET=1`` runs them on a CPU, which is how they are tested where there is no GPU; another test compiles each for several GPUs.
"""

# No `from __future__ import annotations`: Triton's interpreter before 3.2 reads `tl.constexpr` off them.
import struct
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""What one program reads of a long tensor at a time."""

SHORT_BLOCK = 1024
"""The same in a running sum, whose compilation and steps get longer with it."""

PAIR_ROWS, PAIR_COLUMNS = 16, 64

COPIES = 256
"""Counters of an interval, a power of 2; fewer where there are so many intervals that ``COUNTERS`` would be exceeded."""

COUNTERS = 1 << 20

MOST_POSITIVES = 1 << 13
"""Up to so many each is compared with each."""


def place_knots(scores: Tensor, delta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sort the knots ``s_i - delta`` of all of (P,) float64 scores and their ``s_i + delta``, or the scores themselves where delta is 0.

    Returns:
        The K ascending knots; which of them each was before, (K,) int64; the place of each, (K,) int64, its inverse. NaN counts as
        infinity.
    """
    num_knots = len(scores) if delta == 0 else 2 * len(scores)
    position = scores.new_empty(num_knots)
    order, place = (torch.empty(num_knots, dtype=torch.int64, device=scores.device) for _ in range(2))
    grid = triton.cdiv(num_knots, PAIR_ROWS)
    sizes = (len(scores), num_knots, _bits(delta))
    _launch(_place, (grid,), scores, position, order, place, *sizes, ROWS=PAIR_ROWS, COLUMNS=PAIR_COLUMNS)
    return position, order, place


def locate(scores: Tensor, counted: Tensor | None, position: Tensor, delta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Interval (int32), offset, and the sums of ones and of offsets in each interval (but the number of scores in interval 0).

    Args:
        scores: (N,) float32 or float64.
        counted: (N,) bool or None: all.
        position: (K,) float64, the ascending knots.
        delta: an offset is at most twice that.
    """
    scores = scores.contiguous()
    interval = torch.empty(scores.shape, dtype=torch.int32, device=scores.device)
    offset = torch.empty_like(scores)
    edges, num_knots = position, len(position)
    if scores.dtype != position.dtype:
        edges = scores.new_empty(num_knots)
        _launch(_round_up, (triton.cdiv(num_knots, BLOCK),), position, edges, num_knots, BLOCK=BLOCK)
    copies = max(1, min(COPIES, 1 << (COUNTERS // (num_knots + 1)).bit_length() >> 1))
    sums = position.new_zeros(2, copies, num_knots + 1)
    if len(scores):
        given = (scores, scores if counted is None else counted.contiguous(), edges, position, interval, offset, sums)
        options = {"HAS_COUNTED": counted is not None, "ROUNDS": num_knots.bit_length(), "COPIES": copies, "BLOCK": BLOCK}
        _launch(_locate, (triton.cdiv(len(scores), BLOCK),), *given, len(scores), num_knots, _bits(2 * delta), **options)
    weight_sum, offset_sum = sums.sum(1)
    return interval, offset, weight_sum, offset_sum


def sums_above(position: Tensor, low: Tensor, high: Tensor, delta: float, weight_sum: Tensor, offset_sum: Tensor) -> Tensor:
    """``_knots.sums_above``: F at each positive, (P,) float64; NaN everywhere where a knot or a sum is not finite."""
    num_knots = len(position)
    down = position.new_empty(num_knots + 2)
    smooth = {"SMOOTH": delta > 0}
    _launch(_sum_down, (1,), position, weight_sum, offset_sum, down, num_knots, _bits(2 * delta), **smooth, BLOCK=SHORT_BLOCK, num_warps=8)
    result = position.new_empty(len(low))
    grid = (triton.cdiv(len(low), BLOCK),)
    _launch(_take_above, grid, down, low, high, result, len(low), num_knots, _bits(delta), **smooth, BLOCK=BLOCK)
    return result


def sums_below(position: Tensor, order: Tensor, delta: float, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``_knots.sums_below``: the value of G at the base of each interval and its slope inside, (K + 1,) each of that dtype."""
    value, slope = (torch.empty(len(position) + 1, dtype=dtype, device=position.device) for _ in range(2))
    sizes = (len(position), len(weight), _bits(delta))
    _launch(_sum_up, (1,), position, order, weight.contiguous(), value, slope, *sizes, SMOOTH=delta > 0, BLOCK=SHORT_BLOCK, num_warps=8)
    return value, slope


def evaluate(value: Tensor, slope: Tensor, interval: Tensor, offset: Tensor) -> Tensor:
    """``value[interval] + slope[interval] * offset``, (N,); all but the interval in one dtype."""
    result = torch.empty_like(offset)
    if len(result):
        _launch(_evaluate, (triton.cdiv(len(result), BLOCK),), value, slope, interval, offset, result, len(result), BLOCK=BLOCK)
    return result


def pair_sums(scores: Tensor, values: Tensor | None, delta: float, quality: Tensor | None, group: Tensor | None, below: bool) -> Tensor:
    """``_pairs.pair_sums``, (c, P) float64."""
    size, rows = len(scores), 1 if values is None else len(values)
    result = scores.new_empty(rows, size)
    if result.numel():
        given = (scores, *(scores if each is None else each.contiguous() for each in (values, quality, group)), result)
        has = {"HAS_VALUES": values is not None, "HAS_QUALITY": quality is not None, "HAS_GROUP": group is not None}
        options = {"SMOOTH": delta > 0, "BELOW": below, **has}
        grid = (triton.cdiv(size, PAIR_ROWS), rows)
        _launch(_pairs, grid, *given, size, _bits(delta), **options, ROWS=PAIR_ROWS, COLUMNS=PAIR_COLUMNS)
    return result


def spread(value: Tensor, excess: Tensor, above: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``_ranking._spread``."""
    total, at_positives, share = value.new_empty(()), torch.empty_like(above), torch.empty_like(above)
    given = (each.contiguous() for each in (value, excess, above, scale))
    _launch(_spread, (1,), *given, total, at_positives, share, len(above), BLOCK=SHORT_BLOCK)
    return total, at_positives, share


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]  # Triton launches on the current GPU, whichever the tensors are on
        kernel[grid](*arguments, **options)


def _bits(number: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


@triton.jit
def _double(bits):
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit(do_not_specialize=["num_scores", "num_knots", "delta"])
def _place(scores, position, order, place, num_scores, num_knots, delta, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    half = _double(delta)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < num_knots
    knot = tl.load(scores + row % num_scores, mask=is_row, other=0.0)
    knot = tl.where(row < num_scores, knot - half, knot + half)
    key = tl.where(knot != knot, float("inf"), knot)
    before = tl.zeros([ROWS], dtype=tl.int32)
    for start in range(0, num_knots, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        other = tl.load(scores + column % num_scores, mask=column < num_knots, other=0.0)
        other = tl.where(column < num_scores, other - half, other + half)
        other = tl.where(other != other, float("inf"), other)
        # of equal knots the first comes first
        first = (other[None, :] == key[:, None]) & (column[None, :] < row[:, None])
        comes_before = ((other[None, :] < key[:, None]) | first) & (column < num_knots)[None, :]
        before += tl.sum(comes_before.to(tl.int32), 1)
    tl.store(position + before, knot, mask=is_row)
    tl.store(order + before, row.to(tl.int64), mask=is_row)
    tl.store(place + row, before.to(tl.int64), mask=is_row)


@triton.jit(do_not_specialize=["num_knots"])
def _round_up(position, edges, num_knots, BLOCK: tl.constexpr):
    # The smallest numbers of single precision that are not below the knots: `score >= knot` is then the same in that precision.
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = place < num_knots
    knot = tl.load(position + place, mask=exists, other=0.0)
    edge = knot.to(tl.float32)
    bits = edge.to(tl.int32, bitcast=True)
    above = tl.where(edge == 0, 1, tl.where(edge > 0, bits + 1, bits - 1))
    edge = tl.where(edge.to(tl.float64) < knot, above.to(tl.float32, bitcast=True), edge)
    tl.store(edges + place, edge, mask=exists)


@triton.jit(do_not_specialize=["num_knots", "widest"])
def _locate(
    scores,
    counted,
    edges,
    position,
    interval,
    offset,
    sums,
    num_scores,
    num_knots,
    widest,
    HAS_COUNTED: tl.constexpr,
    ROUNDS: tl.constexpr,
    COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < num_scores
    score = tl.load(scores + place, mask=exists, other=0.0)
    is_counted = exists
    if HAS_COUNTED:
        is_counted = tl.load(counted + place, mask=exists, other=0) != 0
    is_nan = is_counted & (score != score)
    # H does not change above the last knot
    inside = tl.minimum(score, tl.load(edges + num_knots - 1))
    # binary search: the number of edges <= the score
    found = tl.zeros([BLOCK], dtype=tl.int32)
    for i in tl.static_range(ROUNDS):
        probe = found + (1 << (ROUNDS - 1 - i))
        edge = tl.load(edges + probe - 1, mask=probe <= num_knots, other=float("inf"))
        found = tl.where((probe <= num_knots) & (edge <= inside), probe, found)
    found = tl.where(is_counted & (score == score), found, 0)
    above_base = found > 0
    beyond = inside.to(tl.float64) - tl.load(position + found - 1, mask=above_base, other=0.0)
    beyond = tl.minimum(beyond, _double(widest))
    beyond = tl.where(above_base, beyond, tl.where(is_nan, float("nan"), 0.0))
    tl.store(interval + place, found, mask=exists)
    tl.store(offset + place, beyond.to(offset.dtype.element_ty), mask=exists)

    # Nobody looks at interval 0, but for a NaN.
    adds = above_base | is_nan
    size = num_knots + 1
    row = tl.program_id(0) % COPIES
    lowest_found, highest_found = tl.min(tl.where(adds, found, num_knots), 0), tl.max(tl.where(adds, found, 0), 0)
    if lowest_found >= highest_found:
        ones = tl.sum(tl.where(adds, 1.0, 0.0), 0)
        if ones > 0:
            tl.atomic_add(sums + row * size + highest_found, ones.to(tl.float64), sem="relaxed")
            total = tl.sum(tl.where(adds, beyond, 0.0), 0)
            tl.atomic_add(sums + (COPIES + row) * size + highest_found, total, sem="relaxed")
    else:
        rows = ((place + row) % COPIES).to(tl.int32)
        one = tl.full([BLOCK], 1.0, tl.float64)
        tl.atomic_add(sums + rows * size + found, one, mask=adds, sem="relaxed")
        tl.atomic_add(sums + (COPIES + rows) * size + found, beyond, mask=adds, sem="relaxed")


@triton.jit(do_not_specialize=["num_knots", "widest"])
def _sum_down(position, weight_sum, offset_sum, down, num_knots, widest, SMOOTH: tl.constexpr, BLOCK: tl.constexpr):
    # Interval m lies between the knots m - 1 and m. `above` is the weight in higher intervals, `area` = sum_j v_j max(s_j - base of m, 0).
    num_blocks = tl.cdiv(num_knots + 1, BLOCK)
    weight_before = tl.zeros([1], dtype=tl.float64)
    area_before = tl.zeros([1], dtype=tl.float64)
    for block in range(num_blocks):
        m = (num_blocks - 1 - block) * BLOCK + tl.arange(0, BLOCK)
        exists = m <= num_knots
        weight = tl.load(weight_sum + m + 1, mask=m < num_knots, other=0.0)
        above = weight_before + tl.cumsum(weight, 0, reverse=True)
        weight_before += tl.sum(weight, 0)
        base = tl.load(position + m - 1, mask=exists & (m > 0), other=0.0)
        top = tl.load(position + m, mask=m < num_knots, other=0.0)
        gap = tl.where((m > 0) & (m < num_knots), tl.minimum(top - base, _double(widest)), 0.0)
        term = tl.load(offset_sum + m, mask=exists, other=0.0) + above * gap + 0 * base  # NaN where a knot is not finite
        area = area_before + tl.cumsum(term, 0, reverse=True)
        area_before += tl.sum(term, 0)
        tl.store(down + m, area if SMOOTH else above, mask=exists)
    # of all intervals: NaN where anything is
    tl.store(down + num_knots + 1 + tl.arange(0, 1), area_before)


@triton.jit(do_not_specialize=["num_positives", "num_knots", "delta"])
def _take_above(down, low, high, result, num_positives, num_knots, delta, SMOOTH: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = i < num_positives
    knot = tl.load(low + i, mask=exists, other=0)
    if SMOOTH:
        higher = tl.load(high + i, mask=exists, other=0)
        area = tl.load(down + knot + 1, mask=exists, other=0.0) - tl.load(down + higher + 1, mask=exists, other=0.0)
        sums = area / (2 * _double(delta))
    else:
        sums = tl.load(down + knot, mask=exists, other=0.0)
    tl.store(result + i, sums + 0 * tl.load(down + num_knots + 1), mask=exists)


@triton.jit(do_not_specialize=["num_knots", "num_positives", "delta"])
def _sum_up(position, order, weight, value, slope, num_knots, num_positives, delta, SMOOTH: tl.constexpr, BLOCK: tl.constexpr):
    weight_before = tl.zeros([1], dtype=tl.float64)
    value_before = tl.zeros([1], dtype=tl.float64)
    for start in range(0, num_knots + 1, BLOCK):
        m = start + tl.arange(0, BLOCK)
        exists = m <= num_knots
        has_base = exists & (m > 0)
        owner = tl.load(order + m - 1, mask=has_base, other=0)
        step = tl.load(weight + owner % num_positives, mask=has_base, other=0.0).to(tl.float64)
        if SMOOTH:
            step = tl.where(owner < num_positives, step, -step) / (2 * _double(delta))
        total = weight_before + tl.cumsum(step, 0)
        weight_before += tl.sum(step, 0)
        if SMOOTH:
            inside = (m > 0) & (m < num_knots)
            gap = tl.load(position + m, mask=inside, other=0.0) - tl.load(position + m - 1, mask=inside, other=0.0)
            rise = total * tl.minimum(gap, 2 * _double(delta))
            top = value_before + tl.cumsum(rise, 0)
            value_before += tl.sum(rise, 0)
            tl.store(slope + m, total.to(slope.dtype.element_ty), mask=exists)
            tl.store(value + m + 1, top.to(value.dtype.element_ty), mask=m < num_knots)
            tl.store(value + m, tl.zeros([BLOCK], dtype=value.dtype.element_ty), mask=m == 0)
        else:
            tl.store(slope + m, tl.zeros([BLOCK], dtype=slope.dtype.element_ty), mask=exists)
            tl.store(value + m, total.to(value.dtype.element_ty), mask=exists)


@triton.jit
def _evaluate(value, slope, interval, offset, result, num_scores, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < num_scores
    here = tl.load(interval + place, mask=exists, other=0)
    beyond = tl.load(offset + place, mask=exists, other=0.0)
    tl.store(result + place, tl.load(value + here) + tl.load(slope + here) * beyond, mask=exists)


@triton.jit(do_not_specialize=["size", "delta"])
def _pairs(
    scores,
    values,
    quality,
    group,
    result,
    size,
    delta,
    SMOOTH: tl.constexpr,
    BELOW: tl.constexpr,
    HAS_VALUES: tl.constexpr,
    HAS_QUALITY: tl.constexpr,
    HAS_GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = i < size
    values += tl.program_id(1) * size
    own = tl.load(scores + i, mask=is_row, other=0.0)
    if HAS_QUALITY:
        own_quality = tl.load(quality + i, mask=is_row, other=0.0)
    if HAS_GROUP:
        own_group = tl.load(group + i, mask=is_row, other=0)
    total = tl.zeros([ROWS], dtype=tl.float64)
    for start in range(0, size, COLUMNS):
        k = start + tl.arange(0, COLUMNS)
        is_column = k < size
        difference = tl.load(scores + k, mask=is_column, other=0.0)[None, :] - own[:, None]
        if BELOW:
            difference = -difference
        if SMOOTH:
            step = tl.minimum(tl.maximum(difference / (2 * _double(delta)) + 0.5, 0.0), 1.0)
        else:
            step = tl.where(difference >= 0, 1.0, 0.0).to(tl.float64)
        counts = is_column[None, :] & (k[None, :] != i[:, None])
        if HAS_QUALITY:
            counts = counts & (tl.load(quality + k, mask=is_column, other=0.0)[None, :] < own_quality[:, None])
        if HAS_GROUP:
            counts = counts & (tl.load(group + k, mask=is_column, other=0)[None, :] == own_group[:, None])
        if HAS_VALUES:
            step = step * tl.load(values + k, mask=is_column, other=0.0).to(tl.float64)[None, :]
        # NaN everywhere where a score is not finite
        total += tl.sum(tl.where(counts, step, 0.0) + 0 * difference, 1)
    tl.store(result + tl.program_id(1) * size + i, total, mask=is_row)


@triton.jit(do_not_specialize=["num_positives"])
def _spread(value, excess, above, scale, total, at_positives, share, num_positives, BLOCK: tl.constexpr):
    before = tl.zeros([1], dtype=tl.float64)
    for start in range(0, num_positives, BLOCK):
        i = start + tl.arange(0, BLOCK)
        exists = i < num_positives
        weight = tl.load(scale + i, mask=exists, other=0.0)
        before += tl.sum(tl.load(value + i, mask=exists, other=0.0) * weight, 0)
        outranks = tl.load(above + i, mask=exists, other=0.0)
        outranked = outranks > 0
        error = tl.load(excess + i, mask=exists, other=0.0)
        amount = tl.where(outranked, error, 0 * error) * weight
        tl.store(at_positives + i, -amount, mask=exists)
        tl.store(share + i, amount / tl.where(outranked, outranks, 1.0), mask=exists)
    tl.store(total + tl.arange(0, 1), before)
