"""``data.batch_size: auto``: as many images per step as the memory of a GPU holds. Needs the extra: ``pip install 'lossbox[train]'``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from ..data.module import CocoDataModule
from ..objective import weighted_sum
from ..records import Batch
from .task import DetectionTask

ON_CPU = 8
"""Images per step where there is no GPU: memory is no limit there, and more images per step take longer without learning faster."""

MOST = 64
"""Images per step at most, and at most an eighth of the training images, so that an epoch has eight steps."""

SHARE = 0.8
"""Share of the free memory that a step may take; the rest is for larger batches than the one that was tried."""


def choose_batch_size(
    task: DetectionTask,
    data: CocoDataModule,
    device: torch.device,
    context: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[int, str]:
    """A batch size for a training on a device, a power of two, with the reason in words.

    On a GPU forward and backward pass of a copy of the task are tried with 1, 2, 4, ... training images of the full size.

    Args:
        task: the training task; stays as it is.
        data: whose training part is read.
        device: the CPU, or a GPU of CUDA; other devices are treated as the CPU.
        context: in which a forward pass takes place, for its precision.

    Raises:
        ValueError: not one image fits.
    """
    data.setup("fit")
    most = max(1, min(MOST, data.train_count // 8))
    if device.type != "cuda":
        return power_of_two(min(ON_CPU, most)), f"on {device.type} at most {ON_CPU}, and an eighth of {data.train_count} training images"
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(device)[0]
    with torch.random.fork_rng([device]):
        tried = copy.deepcopy(task).train().to(device)

        def peak(images: int) -> int:
            torch.cuda.reset_peak_memory_stats(device)
            one_step(tried, data.full_size_batch(images).to(device), context)
            return torch.cuda.max_memory_reserved(device)

        size = largest_batch(peak, limit=int(SHARE * free), most=most)
    del tried
    torch.cuda.empty_cache()
    return size, f"takes less than {SHARE:.0%} of {free / 2**30:.1f} GiB free memory, at most {MOST} and an eighth of the training images"


def one_step(task: DetectionTask, batch: Batch, context: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
    """Forward and backward pass; the gradients stay."""
    with context():
        total = weighted_sum(task.losses(batch).parts)
    total.backward()  # type: ignore[no-untyped-call]


def power_of_two(number: int) -> int:
    """The largest power of two that is at most ``number`` >= 1.

    Example:
        >>> power_of_two(1), power_of_two(8), power_of_two(13)
        (1, 8, 8)
    """
    return 1 << (number.bit_length() - 1)


def largest_batch(peak: Callable[[int], int], *, limit: int, most: int) -> int:
    """The largest power of two up to ``most`` whose step takes at most ``limit`` bytes; tried from 1 on, until one takes more.

    Args:
        peak: images -> the bytes that a step of so many takes; may raise ``torch.OutOfMemoryError``.
        limit: in bytes.
        most: >= 1.

    Raises:
        ValueError: not one image fits.

    Example:
        >>> largest_batch(lambda images: 100 * images, limit=1000, most=64)
        8
    """
    found, size = 0, 1
    while size <= most:
        try:
            if peak(size) > limit:
                break
        except torch.OutOfMemoryError:
            break
        found, size = size, 2 * size
    if not found:
        raise ValueError(f"batch_size: a step of one image takes more than {limit / 2**30:.1f} GiB, {SHARE:.0%} of the free memory")
    return found
