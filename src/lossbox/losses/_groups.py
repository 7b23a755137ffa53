"""Many rankings in one: which entry is in which group."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ._distributed import Processes, join_keys

GroupWord = Literal["image", "class", "row"]
GroupReduction = Literal["mean", "positives"]

PART = 1 << 17
"""Keys looked up at a time."""


class Groups(NamedTuple):
    """The group of each entry, as a number: those with a positive (of any process) from 0 on, in ascending order of their keys."""

    of_entry: Tensor  # (M,) int32; `size` where the group has no positive
    of_positive: Tensor  # (P,) int64, of the positives of all processes
    size: int  # groups with a positive


def check_groups(groups: Tensor | GroupWord | None, reduction: GroupReduction, logits: Tensor) -> None:
    """The rules of ``groups`` and ``group_reduction``."""
    if reduction not in get_args(GroupReduction):
        raise ValueError(f"group_reduction: must be 'mean' or 'positives', got {reduction!r}")
    if groups is None:
        return
    if isinstance(groups, str):
        if groups not in get_args(GroupWord):
            raise ValueError(f"groups: must be a tensor, 'image', 'class' or 'row', got {groups!r}")
        if logits.dim() < (1 if groups == "row" else 2):
            raise ValueError(f"groups: {groups!r} needs a dimension of its own, but logits have shape {tuple(logits.shape)}")
        return
    if not isinstance(groups, Tensor) or groups.dtype != torch.int64:
        got = groups.dtype if isinstance(groups, Tensor) else type(groups).__name__
        raise ValueError(f"groups: must be an int64 tensor of keys, 'image', 'class' or 'row', got {got}")
    if groups.device != logits.device:
        raise ValueError(f"groups: must be on the device of logits, {logits.device}, got {groups.device}")
    pairs = zip(groups.shape[::-1], logits.shape[::-1], strict=False)
    if groups.dim() > logits.dim() or any(own not in (1, wanted) for own, wanted in pairs):
        raise ValueError(f"groups: must broadcast to the shape of logits {tuple(logits.shape)}, got {tuple(groups.shape)}")


def number_groups(groups: Tensor | GroupWord, shape: torch.Size, positives: Tensor, processes: Processes) -> Groups | None:
    """The groups of (M,) entries, of which ``positives`` are; None where all of one process are in one group, or no positive is in any."""
    if not sum(processes.counts):
        return None
    keys = _keys(groups, shape, positives.device, processes)
    own = keys.expand(shape)[torch.unravel_index(positives, shape)]
    ids, of_positive = torch.unique(join_keys(processes, own), return_inverse=True)
    if processes.size == 1 and len(ids) == 1 and bool((keys == ids).all()):
        return None
    return Groups(_number(keys, ids).expand(shape).reshape(-1), of_positive, len(ids))


def _keys(groups: Tensor | GroupWord, shape: torch.Size, device: torch.device, processes: Processes) -> Tensor:
    """int64 keys that broadcast to the shape. The images and rows of different processes are different ones, their classes the same."""
    if isinstance(groups, Tensor):
        return groups
    if groups == "class":
        return torch.arange(shape[-1], device=device)
    size = shape[:1] if groups == "image" else shape[:-1]
    keys = torch.arange(math.prod(size), device=device) * processes.size + processes.number
    return keys.view(*size, *(1,) * (len(shape) - len(size)))


def _number(keys: Tensor, ids: Tensor) -> Tensor:
    """The place of each key among the ascending ids, and their number where it is none of them; int32, in the shape of the keys."""
    low, high = ids[0].item(), ids[-1].item()
    if high - low < 4 * max(keys.numel(), PART):  # a table is faster than a search
        table = torch.full((int(high - low) + 1,), len(ids), dtype=torch.int32, device=ids.device)
        table[ids - low] = torch.arange(len(ids), dtype=torch.int32, device=ids.device)

        def look_up(part: Tensor) -> Tensor:
            inside = part.clamp(low, high)
            return torch.where(inside == part, table.index_select(0, inside - low), len(ids))
    else:

        def look_up(part: Tensor) -> Tensor:
            place = torch.searchsorted(ids, part).clamp_(max=len(ids) - 1)
            return torch.where(ids[place] == part, place, len(ids)).to(torch.int32)

    flat = keys.reshape(-1)
    numbers = torch.empty(flat.shape, dtype=torch.int32, device=flat.device)
    part = PART if flat.device.type == "cpu" else max(len(flat), 1)
    for start in range(0, len(flat), part):
        numbers[start : start + part] = look_up(flat[start : start + part])
    return numbers.view(keys.shape)


def highest_in_group(values: Tensor, groups: Groups) -> Tensor:
    """(size + 1,) the greatest of (M,) values >= 0 in each group, 0 in an empty one."""
    return values.new_zeros(groups.size + 1).scatter_reduce_(0, groups.of_entry.long(), values, "amax")
