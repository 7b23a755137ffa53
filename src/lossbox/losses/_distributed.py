"""What the processes of a data-parallel job exchange, so that all their batches are ranked as one.

The interval sums of ``_knots`` are additive. So every process gathers the scores of all positives, builds the same knots from them, puts
its own negatives into the intervals and adds up the sums of all processes: N_FP at every positive of the job, exactly, for O(P) numbers on
the wire whatever N is. All of it happens in the forward pass, on torch.distributed's default group, and every process takes part, with or
without positives; the backward pass exchanges nothing.

DistributedDataParallel averages the gradients of W processes. Each process therefore gives W times its own share of the gradient of the one
loss.

Outside of such a job there is one process, and nothing is exchanged: every function here then returns its argument.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ._gradient import with_gradient
from ._knots import Located, sum_dtype


class Processes(NamedTuple):
    """How many positives each process has, and which process this one is."""

    counts: tuple[int, ...]
    number: int

    @property
    def size(self) -> int:
        """W, the number of processes."""
        return len(self.counts)

    @property
    def own(self) -> slice:
        """Where this process's positives are among all positives, which are in the order of the processes."""
        start = sum(self.counts[: self.number])
        return slice(start, start + self.counts[self.number])


def count_positives(num_positives: int, device: torch.device, global_batch: bool) -> Processes:
    """The processes whose batches are ranked together: all of the job for a global batch, else this one alone."""
    if not (global_batch and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return Processes((num_positives,), 0)
    own = torch.tensor([num_positives], device=device)
    counts = _from_each(dist.get_world_size(), own)
    # The sizes of all that follows depend on them: beside |P| itself, this is the one wait for the device.
    return Processes(tuple(torch.cat(counts).tolist()), dist.get_rank())


def join(processes: Processes, values: Tensor) -> Tensor:
    """One value per positive of all processes, from this one's, in the sums' dtype; W times the gradient at its own comes back to each."""
    return values if processes.size == 1 else with_gradient(_join, values, processes)


def join_keys(processes: Processes, keys: Tensor) -> Tensor:
    """The same of whole numbers, (P,) int64, without gradient."""
    return keys if processes.size == 1 else _join_as(torch.int64, keys, processes)


def _join(values: Tensor, processes: Processes) -> tuple[Tensor, tuple[()], partial[Tensor]]:
    return _join_as(sum_dtype(values.device), values, processes), (), partial(_own_share, processes)


def _join_as(dtype: torch.dtype, values: Tensor, processes: Processes) -> Tensor:
    # of one length, and in one dtype: an empty tensor may come in another than the rest
    padded = values.new_zeros(max(processes.counts), dtype=dtype)
    padded[: len(values)] = values
    parts = zip(_from_each(processes.size, padded), processes.counts, strict=True)
    return torch.cat([part[:count] for part, count in parts])


def _own_share(processes: Processes, upstream: Tensor) -> Tensor:
    return processes.size * upstream[processes.own]


def add_up(processes: Processes, values: Tensor) -> Tensor:
    """The sum over the processes of a tensor without gradient."""
    if processes.size > 1:
        values = values.contiguous().clone()
        dist.all_reduce(values)
    return values


def add_up_intervals(processes: Processes, located: Located) -> Located:
    """This process's scores, with the interval sums of the scores of all processes."""
    if processes.size == 1:
        return located
    weight_sum, offset_sum = add_up(processes, torch.stack([located.weight_sum, located.offset_sum]))
    return located._replace(weight_sum=weight_sum, offset_sum=offset_sum)


def highest(processes: Processes, values: Tensor) -> Tensor:
    """The greatest of each value over the processes; NaN where one is, which a reduction by MAX does not promise."""
    return values if processes.size == 1 else torch.stack(_from_each(processes.size, values)).amax(0)


def _from_each(size: int, own: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(own) for _ in range(size)]
    dist.all_gather(parts, own)
    return parts
