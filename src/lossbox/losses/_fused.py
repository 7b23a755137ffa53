"""The two passes of ``_knots`` over the negatives as one Triton kernel each, for GPUs: a pass then reads and writes each number once.

What ``_knots.locate`` and ``_knots.evaluate`` compute in steps of torch, and the tests hold them together. A histogram on a GPU is made of
atomic additions, and a detector's scores lie close together: millions would queue for one interval. So every interval has several
counters, neighboring scores use different ones, and a block whose scores all fall into one interval adds them up before it counts.

``TRITON_INTERPRET=1`` runs them on a CPU, which is how they are tested where there is no GPU.
"""

# No `from __future__ import annotations`: Triton's interpreter before 3.2 reads `tl.constexpr` off them.
import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
COPIES = 256
"""Counters of an interval, a power of 2; fewer where there are so many intervals that ``COUNTERS`` would be exceeded."""

COUNTERS = 1 << 20


def locate(scores: Tensor, counted: Tensor | None, edges: Tensor, base: Tensor, floor: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Interval (int32), offset, and the sums of ones and of offsets in each interval (but the number of scores in interval 0).

    Args:
        scores: (N,) float32 or float64.
        counted: (N,) bool or None: all.
        edges: (K,) the ascending knots in the scores' dtype.
        base: (K + 1,) float64, the lower knot of each interval.
        floor: the greatest number below the first edge.
    """
    scores = scores.contiguous()
    interval = torch.empty(scores.shape, dtype=torch.int32, device=scores.device)
    offset = torch.empty_like(scores)
    copies = max(1, min(COPIES, 1 << (COUNTERS // len(base)).bit_length() >> 1))
    sums = base.new_zeros(2, copies, len(base))
    if len(scores):
        grid = (triton.cdiv(len(scores), BLOCK),)
        with torch.cuda.device_of(scores):  # type: ignore[no-untyped-call]  # Triton launches on the current GPU, whichever the tensors are on
            _locate[grid](
                scores,
                scores if counted is None else counted.contiguous(),
                edges,
                base,
                floor,
                interval,
                offset,
                sums,
                len(scores),
                len(edges),
                HAS_COUNTED=counted is not None,
                ROUNDS=len(edges).bit_length(),
                COPIES=copies,
                BLOCK=BLOCK,
            )
    weight_sum, offset_sum = sums.sum(1)
    return interval, offset, weight_sum, offset_sum


def evaluate(value: Tensor, slope: Tensor, interval: Tensor, offset: Tensor) -> Tensor:
    """``value[interval] + slope[interval] * offset``, (N,); all but the interval in one dtype."""
    result = torch.empty_like(offset)
    if len(result):
        grid = (triton.cdiv(len(result), BLOCK),)
        with torch.cuda.device_of(offset):  # type: ignore[no-untyped-call]
            _evaluate[grid](value, slope, interval, offset, result, len(result), BLOCK=BLOCK)
    return result


@triton.jit
def _locate(
    scores,
    counted,
    edges,
    base,
    floor,
    interval,
    offset,
    sums,
    num_scores,
    num_edges,
    HAS_COUNTED: tl.constexpr,
    ROUNDS: tl.constexpr,
    COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < num_scores
    lowest = tl.load(floor)
    score = tl.load(scores + place, mask=exists, other=0.0)
    if HAS_COUNTED:
        is_counted = tl.load(counted + place, mask=exists, other=0) != 0
        score = tl.where(is_counted, score, lowest)
    is_nan = score != score
    inside = tl.where(is_nan, lowest, tl.minimum(tl.maximum(score, lowest), tl.load(edges + num_edges - 1)))
    # binary search: the number of edges <= the score
    found = tl.zeros([BLOCK], dtype=tl.int32)
    for i in tl.static_range(ROUNDS):
        probe = found + (1 << (ROUNDS - 1 - i))
        edge = tl.load(edges + probe - 1, mask=probe <= num_edges, other=float("inf"))
        found = tl.where(edge <= inside, probe, found)
    beyond = inside.to(base.dtype.element_ty) - tl.load(base + found)
    beyond = tl.where(is_nan, float("nan"), beyond)
    tl.store(interval + place, found, mask=exists)
    tl.store(offset + place, beyond.to(offset.dtype.element_ty), mask=exists)

    # Nobody looks at interval 0, but for a NaN.
    adds = exists & ((found > 0) | is_nan)
    size = num_edges + 1
    row = tl.program_id(0) % COPIES
    lowest_found, highest_found = tl.min(tl.where(adds, found, num_edges), 0), tl.max(tl.where(adds, found, 0), 0)
    if lowest_found >= highest_found:
        ones = tl.sum(tl.where(adds, 1.0, 0.0), 0)
        if ones > 0:
            tl.atomic_add(sums + row * size + highest_found, ones.to(base.dtype.element_ty), sem="relaxed")
            total = tl.sum(tl.where(adds, beyond, 0.0), 0)
            tl.atomic_add(sums + (COPIES + row) * size + highest_found, total, sem="relaxed")
    else:
        rows = ((place + row) % COPIES).to(tl.int32)
        one = tl.full([BLOCK], 1.0, base.dtype.element_ty)
        tl.atomic_add(sums + rows * size + found, one, mask=adds, sem="relaxed")
        tl.atomic_add(sums + (COPIES + rows) * size + found, beyond, mask=adds, sem="relaxed")


@triton.jit
def _evaluate(value, slope, interval, offset, result, num_scores, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < num_scores
    here = tl.load(interval + place, mask=exists, other=0)
    beyond = tl.load(offset + place, mask=exists, other=0.0)
    tl.store(result + place, tl.load(value + here) + tl.load(slope + here) * beyond, mask=exists)
