"""What many rankings in one call cost: 10,000 groups of 1,000 scores beside one ranking of all 10^7.

    python benchmarks/groups.py                 writes benchmarks/results/groups.json; groups_avx2.json where torch uses AVX2
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/groups.py     the AVX2 file on a CPU that has more
    python benchmarks/groups.py --quick         a hundredth of the groups, writes nothing

Forward and backward of `ap_loss`, in turns in one process. The median of the rounds counts, in the CPU time of the process, which other
programs on the machine change less than the time of a clock.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from ranking import RESULTS, instruction_set, machine
from rich.progress import track
from torch import Tensor

from lossbox.losses import ap_loss

GROUPS, SIZE = 10_000, 1_000
SHARES = (0.001, 0.01)
TARGET = 2.0
NAMES = {"one": "one ranking, s", "rows": 'groups="row"', "keys": "keys, in order", "shuffled": "keys, shuffled"}


def problem(groups: int, share: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, targets, keys in order and shuffled."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(groups, SIZE, generator=generator) < share).long()
    logits = torch.randn(groups, SIZE, generator=generator) + targets
    keys = torch.arange(groups).repeat_interleave(SIZE)
    return logits.requires_grad_(), targets, keys, keys[torch.randperm(len(keys), generator=generator)]


def seconds(loss: Callable[[], Tensor], logits: Tensor) -> float:
    logits.grad = None
    start = time.process_time()
    loss().backward()
    return time.process_time() - start


def measure(groups: int, share: float, rounds: int) -> dict[str, float]:
    """Median seconds of each way to call it."""
    logits, targets, keys, shuffled = problem(groups, share)
    calls = {
        "one": lambda: ap_loss(logits, targets),
        "rows": lambda: ap_loss(logits, targets, groups="row"),
        "keys": lambda: ap_loss(logits, targets, groups=keys.view_as(targets)),
        "shuffled": lambda: ap_loss(logits, targets, groups=shuffled.view_as(targets)),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in track(range(rounds), f"{share:.1%} positives"):
        for name, call in calls.items():
            times[name].append(seconds(call, logits))
    return {name: statistics.median(series) for name, series in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the groups; write no file")
    options = parser.parse_args()
    groups = GROUPS // 100 if options.quick else GROUPS
    rows = []
    for share in SHARES:
        times = measure(groups, share, options.rounds)
        rows.append({"positives_share": share, "cpu_s": times, "ratio": {name: t / times["one"] for name, t in times.items()}})
    print(f"{groups:,} groups of {SIZE:,} scores, as multiples of the time of one ranking")
    print("| positives | " + " | ".join(NAMES.values()) + " |\n" + "|---" * (1 + len(NAMES)) + "|")
    for row in rows:
        cells = [f"{row['cpu_s']['one']:.2f}", *(f"{row['ratio'][name]:.2f} x" for name in NAMES if name != "one")]
        print(f"| {row['positives_share']:.1%} | " + " | ".join(cells) + " |")
    if not options.quick:
        report = {"command": "python benchmarks/groups.py", **machine("cpu"), "groups": groups, "size": SIZE, "target": TARGET}
        isa = instruction_set()
        out = RESULTS / ("groups.json" if isa == "AVX512" else f"groups_{isa.lower()}.json")
        out.write_text(json.dumps({**report, "rounds": options.rounds, "rows": rows}, indent=2) + "\n")
        print(f"wrote {out}")


if __name__ == "__main__":
    main()
