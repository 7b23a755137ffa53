"""Which precision a training or a detector runs in on the machine at hand: what ``precision: auto`` becomes.

bfloat16 halves the time of a step on processors that have instructions for it (AVX512-BF16, AMX) and takes ten times as long on those that
have to imitate it. What the processor, torch and oneDNN make of it together is found by trying: the flags of the processor do not tell, as
oneDNN may be told to use fewer instructions than there are.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

import torch
from torch import nn
from torch.distributed.rendezvous import rendezvous

CPU_VARIABLE = "LOSSBOX_CPU_PRECISION"
"""What was found on the CPU, in the environment: processes that this one starts do as it does, and nothing is tried twice."""

MARGIN = 0.8
"""bfloat16 has to take at most this share of float32's time. Where it is slower it is several times slower, so that no noise decides."""

FULL, MIXED = "32-true", "bf16-mixed"


class Choice(NamedTuple):
    """A precision by Lightning's name, and why."""

    precision: str
    reason: str


def fastest_precision(device: torch.device | str) -> Choice:
    """The fastest precision that is safe to train in on a device.

    A GPU that has bfloat16 gets ``bf16-mixed``, one that has not ``32-true`` (float16 overflows where losses are large), as has any other
    device. On a CPU both are tried: a second at most, measured in CPU time on one thread, so that other programs do not change the outcome.

    Args:
        device: a device, or its type: ``cpu``, ``cuda``, ``mps``, ...

    Returns:
        ``32-true`` or ``bf16-mixed``, and a reason to print.

    Example:
        >>> fastest_precision("mps")
        Choice(precision='32-true', reason='bf16 is not relied on on mps')
    """
    kind = torch.device(device).type
    if kind == "cuda":
        fits = torch.cuda.is_bf16_supported(including_emulation=False)
        return Choice(MIXED, "this GPU has bf16") if fits else Choice(FULL, "this GPU has no bf16")
    if kind != "cpu":
        return Choice(FULL, f"bf16 is not relied on on {kind}")
    ratio = bfloat16_ratio()
    return Choice(MIXED if ratio <= MARGIN else FULL, f"bf16 takes {ratio:.2g} x as long on this CPU")


def bfloat16_ratio(rounds: int = 3) -> float:
    """CPU time of a step of a small convolution network under bfloat16 autocast over that in float32, the best of ``rounds`` each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            network = nn.Sequential(*(nn.Conv2d(64, 64, 3, padding=1, bias=False) for _ in range(2))).to(memory_format=torch.channels_last)
            images = torch.rand(4, 64, 32, 32).contiguous(memory_format=torch.channels_last)
        best = {False: float("inf"), True: float("inf")}
        for _ in range(1 + rounds):  # in the first, kernels are made: it may win, too
            for mixed in best:
                start = time.process_time()
                with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                    out = network(images)
                out.float().square().mean().backward()
                best[mixed] = min(best[mixed], time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return best[True] / best[False]


def resolve(precision: str | int | None, device: torch.device | str) -> str | int | None:
    """``auto`` as a precision of Lightning's, the same in all processes of a run; any other as it is.

    What had to be tried is printed, by the process that tried it. The first process of ``torchrun`` decides for all; processes that
    Lightning starts inherit what the first one found.

    Args:
        precision: ``auto`` or a precision of Lightning's.
        device: what is going to be computed on.

    Example:
        >>> resolve("64-true", "cpu")
        '64-true'
    """
    if precision != "auto":
        return precision
    if torch.device(device).type != "cpu":
        return fastest_precision(device).precision
    if CPU_VARIABLE not in os.environ:
        os.environ[CPU_VARIABLE] = _of_the_first_process()
    return os.environ[CPU_VARIABLE]


def precision_in_use(trained_in: str | int | None, device: torch.device | str) -> str:
    """What a trained detector is used in: float32 as it was trained, or the fastest on this machine if it was trained in a mixed precision.

    Args:
        trained_in: the precision of its training.
        device: where it is used.

    Returns:
        ``32-true`` or ``bf16-mixed``.

    Example:
        >>> precision_in_use("32-true", "cpu")
        '32-true'
    """
    mixed = str(trained_in) in ("auto", "bf16-mixed", "16-mixed", "bf16", "16")
    return str(resolve("auto", device)) if mixed else FULL


def device_of(accelerator: str) -> torch.device:
    """The kind of device behind an ``accelerator`` of Lightning's Trainer.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _of_the_first_process() -> str:
    if not torch.distributed.is_available() or not torch.distributed.is_torchelastic_launched():
        return _try_and_say()
    store, rank, _ = next(rendezvous("env://"))
    if rank == 0:
        store.set(CPU_VARIABLE, _try_and_say())
    return str(store.get(CPU_VARIABLE).decode())


def _try_and_say() -> str:
    choice = fastest_precision("cpu")
    print(f"precision: {choice.precision} ({choice.reason})", flush=True)
    return choice.precision
