"""Whether the ranking losses are slower than the committed numbers say: `make bench-check`.

Times the sizes of `ranking.py --quick` afresh, and compares the ratio of each loss to focal loss with the file of benchmarks/results that
has the same instruction set and number of threads. A size that is worse is measured twice more, and the best of the three counts. The exit
code is 1 where a ratio is more than 25 % worse, 2 where there is no such file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from ranking import RESULTS, SIZES, TARGETS, instruction_set, measure
from rich.progress import track

TOLERANCE = 0.25
QUICK = [size for size in SIZES if size[1] <= 10**6]


def find_reference(folder: Path, isa: str, threads: int) -> dict[str, Any]:
    """The committed report of this instruction set and number of threads.

    Raises:
        LookupError: there is none; the message says which there are, and how to make one.
    """
    found = {}
    for path in sorted(folder.glob("ranking*.json")):
        report = json.loads(path.read_text())
        if report["device"] == "cpu":
            found[report["instruction_set"]["torch"], report["threads"]] = report
    if (isa, threads) not in found:
        has = ", ".join(f"{name} with {number} thread(s)" for name, number in sorted(found)) or "no file"
        raise LookupError(
            f"{folder} has no times of {isa} with {threads} thread(s), but {has}. Set OMP_NUM_THREADS (and ATEN_CPU_CAPABILITY=avx2"
            " for AVX2) to one of these, or measure this one with benchmarks/ranking.py and commit it."
        )
    return found[isa, threads]


def find_worse(fresh: list[dict[str, Any]], reference: list[dict[str, Any]], tolerance: float = TOLERANCE) -> list[str]:
    """A line for each loss and size whose ratio to focal loss is more than ``tolerance`` above that of the reference.

    Raises:
        LookupError: a size or a loss that the reference does not have.
    """
    before = {(row["positives"], row["negatives"]): row["ratio_to_focal"] for row in reference}
    worse = []
    for row in fresh:
        size = row["positives"], row["negatives"]
        for name, ratio in row["ratio_to_focal"].items():
            if name not in before.get(size, {}):
                raise LookupError(
                    f"{name} at P = {size[0]:,}, N = {size[1]:,} is not in the committed file: measure it again, `make bench`"
                )
            if ratio > before[size][name] * (1 + tolerance):
                worse.append(
                    f"{name} at P = {size[0]:,}, N = {size[1]:,}: {ratio:.2f} x focal, committed {before[size][name]:.2f} x"
                    f" ({ratio / before[size][name] - 1:+.0%})"
                )
    return worse


def measure_ratios(size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """A row like those of ``ranking.py``."""
    ms = measure(*size, "cpu", rounds, loop=False)
    return {"positives": size[0], "negatives": size[1], "ratio_to_focal": {name: ms[name] / ms["sigmoid_focal_loss"] for name in TARGETS}}


def compare(reference: list[dict[str, Any]], rounds: int) -> list[str]:
    """What is still worse in the best of three measurements of a size."""
    worse = []
    for size in track(QUICK, "measuring"):
        row = measure_ratios(size, rounds)
        for _ in range(2):
            if find_worse([row], reference):
                again = measure_ratios(size, rounds)["ratio_to_focal"]
                row["ratio_to_focal"] = {name: min(ratio, again[name]) for name, ratio in row["ratio_to_focal"].items()}
        worse += find_worse([row], reference)
    return worse


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each loss takes its turn in a measurement (default 7)")
    options = parser.parse_args()
    isa, threads = instruction_set(), torch.get_num_threads()
    try:
        reference = find_reference(RESULTS, isa, threads)
        worse = compare(reference["rows"], options.rounds)
    except LookupError as error:
        print(error.args[0])
        return 2
    about = f"{isa}, {threads} thread(s); the committed numbers are of {reference['machine']}, torch {reference['torch']}"
    print(
        "\n".join([*worse, f"{len(worse)} more than {TOLERANCE:.0%} worse" if worse else f"none is more than {TOLERANCE:.0%} worse", about])
    )
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
