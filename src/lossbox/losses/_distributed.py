"""What the ranks of a data-parallel job tell each other, so that all their batches are ranked as one.

The interval sums of ``_knots`` are additive. So every rank gathers the scores of all positives, builds the same knots from them, puts its
own negatives into the intervals and adds up the sums of all ranks: N_FP at every positive of the job, exactly, for O(P) numbers on the wire
whatever N is. All of it happens in the forward pass, on torch.distributed's default group, and every rank takes part with or without
positives; the backward pass exchanges nothing.

DistributedDataParallel averages the gradients of W ranks. Each rank therefore gives W times its own share of the gradient of the one loss.

Outside of such a job there is one process, and nothing is exchanged: every function here then returns its argument.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._knots import Located, sum_dtype


class Processes(NamedTuple):
    """How many positives each rank brings, and which rank this one is."""

    counts: tuple[int, ...]
    number: int

    @property
    def size(self) -> int:
        """W, the number of ranks."""
        return len(self.counts)

    @property
    def own(self) -> slice:
        """Where this rank's positives are among those of all ranks, which follow each other in the order of the ranks."""
        start = sum(self.counts[: self.number])
        return slice(start, start + self.counts[self.number])


def meet(num_positives: int, device: torch.device, global_batch: bool) -> Processes:
    """The ranks to rank over: this one alone, unless all are wanted and there are several."""
    if not (global_batch and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return Processes((num_positives,), 0)
    own = torch.tensor([num_positives], device=device)
    counts = _from_each(dist.get_world_size(), own)
    # The sizes of all that follows depend on them: beside |P| itself, this is the one wait for the device.
    return Processes(tuple(torch.cat(counts).tolist()), dist.get_rank())


def join(ranks: Processes, values: Tensor) -> Tensor:
    """One value per positive, of this rank's -> of all ranks', in the sums' dtype; W times the gradient at its own comes back to each."""
    if ranks.size == 1:
        return values
    joined: Tensor = _Join.apply(values, ranks)
    return joined


def add_up(ranks: Processes, values: Tensor) -> Tensor:
    """The sum over the ranks of a tensor without gradient."""
    if ranks.size > 1:
        values = values.contiguous().clone()
        dist.all_reduce(values)
    return values


def add_up_intervals(ranks: Processes, located: Located) -> Located:
    """This rank's scores, with the interval sums of all ranks' scores."""
    if ranks.size == 1:
        return located
    weight_sum, offset_sum = add_up(ranks, torch.stack([located.weight_sum, located.offset_sum]))
    return located._replace(weight_sum=weight_sum, offset_sum=offset_sum)


def highest(ranks: Processes, value: Tensor) -> Tensor:
    """The greatest of the ranks' scalars; NaN where one is, which a reduction by MAX does not promise."""
    return value if ranks.size == 1 else torch.stack(_from_each(ranks.size, value)).max()


def _from_each(size: int, own: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(own) for _ in range(size)]
    dist.all_gather(parts, own)
    return parts


class _Join(torch.autograd.Function):
    """Gathers what may be of another length on each rank; in the sums' dtype, for an empty one may come in another dtype."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Processes) -> Tensor:
        ctx.ranks, ctx.dtype = ranks, values.dtype
        padded = values.new_zeros(max(ranks.counts), dtype=sum_dtype(values.device))
        padded[: len(values)] = values
        return torch.cat([part[:count] for part, count in zip(_from_each(ranks.size, padded), ranks.counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return (ctx.ranks.size * upstream[ctx.ranks.own]).to(ctx.dtype), None
