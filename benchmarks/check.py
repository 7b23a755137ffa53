"""Whether the ranking losses are slower than the committed numbers say: `make bench-check`.

Times some sizes of `sizes.py` afresh, on one thread and in the CPU time of the process, so that other programs change little, and compares
the ratio of each loss to focal loss with the committed file of the same instruction set. A size that is worse is measured twice more, and
the best of the three counts. The exit code is 1 where a ratio is more than 25 % worse, 2 where there is no such file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from ranking import instruction_set, problem
from rich.progress import track
from sizes import losses, medians, results_file

TOLERANCE = 0.25
SIZES = ((100, 10**6), (1_000, 10**6), (10_000, 10**6))
LOSSES = ("ap_loss", "alrp_loss", "ndcg_loss", "rank_sort_loss", "ap_loss, groups")


def read_reference(path: Path) -> dict[str, Any]:
    """The committed report of this instruction set.

    Raises:
        LookupError: there is none; the message says how to make one.
    """
    if not path.is_file():
        has = ", ".join(sorted(file.name for file in path.parent.glob("sizes*.json"))) or "none"
        raise LookupError(
            f"no {path}, the times of {instruction_set()}; there is {has}. ATEN_CPU_CAPABILITY=avx2 measures what sizes_avx2.json has; or "
            "measure this one with benchmarks/sizes.py and commit it."
        )
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def find_worse(fresh: list[dict[str, Any]], reference: list[dict[str, Any]], tolerance: float = TOLERANCE) -> list[str]:
    """A line for each loss and size whose ratio to focal loss is more than ``tolerance`` above that of the reference.

    Raises:
        LookupError: a size or a loss that the reference does not have.
    """
    before = {(row["positives"], row["scores"]): row["ms"] for row in reference}
    worse = []
    for row in fresh:
        size = row["positives"], row["scores"]
        for name in row["ms"].keys() - {"focal"}:
            if name not in before.get(size, {}):
                raise LookupError(
                    f"{name} at P = {size[0]:,}, N = {size[1]:,} is not in the committed file: measure it again, `make bench`"
                )
            ratio, committed = (ms[name] / ms["focal"] for ms in (row["ms"], before[size]))
            if ratio > committed * (1 + tolerance):
                where = f"{name} at P = {size[0]:,}, N = {size[1]:,}"
                worse.append(f"{where}: {ratio:.2f} x focal, committed {committed:.2f} x ({ratio / committed - 1:+.0%})")
    return sorted(worse)


def measure(size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """A row like those of ``sizes.py``, of focal loss and the ranking losses, in units of the time of focal loss."""
    logits, targets, values = problem(size[0], size[1] - size[0], "cpu")
    functions = losses(logits, targets, values)
    ms = medians({name: functions[name] for name in ("focal", *LOSSES)}, logits, rounds)[1]
    return {"positives": size[0], "scores": size[1], "ms": {name: time / ms["focal"] for name, time in ms.items()}}


def compare(reference: list[dict[str, Any]], rounds: int) -> list[str]:
    """What is still worse in the best of three measurements of a size."""
    worse = []
    for size in track(SIZES, "measuring"):
        row = measure(size, rounds)
        for _ in range(2):
            if find_worse([row], reference):
                again = measure(size, rounds)["ms"]
                row["ms"] = {name: min(ratio, again[name]) for name, ratio in row["ms"].items()}
        worse += find_worse([row], reference)
    return worse


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each loss takes its turn in a measurement (default 7)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        reference = read_reference(results_file())
        worse = compare(reference["rows"], options.rounds)
    except LookupError as error:
        print(error.args[0])
        return 2
    print("\n".join([*worse, f"{len(worse)} more than {TOLERANCE:.0%} worse" if worse else f"none is more than {TOLERANCE:.0%} worse"]))
    print(f"{instruction_set()}, one thread; the committed numbers are of {reference['machine']}, torch {reference['torch']}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
