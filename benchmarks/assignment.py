"""What the assignment of an image costs: every rule on 100 boxes and the 20,000 cells of a 1240 x 776 image, on one core.

    python benchmarks/assignment.py              writes benchmarks/results/assignment.json
    python benchmarks/assignment.py --rounds 50

The rules take turns in one process on one thread; the median of the rounds counts. It is the time of the thread on its core: what else
the machine does meanwhile does not count. One more row has crowd regions among the boxes, whose share of each anchor is then measured too.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from lossbox.assignment import assign_atss, assign_by_center, assign_by_overlap, assign_fovea
from lossbox.detectors import pyramid_anchors
from lossbox.records import Assignment, Targets

RESULTS = Path(__file__).parent / "results" / "assignment.json"
BOXES = 100
CELLS = ((97, 155), (49, 78), (25, 39), (13, 20), (7, 10))
STRIDES = (8, 16, 32, 64, 128)
TARGET_MS = {"ATSS": 30.0}


def problem(crowds: int) -> Targets:
    """Boxes of 8 to 300 pixels, log-uniform, some of them crowds."""
    generator = torch.Generator().manual_seed(0)
    size = 8 * (300 / 8) ** torch.rand(BOXES, 2, generator=generator)
    corner = torch.rand(BOXES, 2, generator=generator) * (torch.tensor([1240.0, 776.0]) - size)
    crowd = torch.arange(BOXES) < crowds
    return Targets(torch.cat([corner, corner + size], 1), torch.zeros(BOXES, dtype=torch.int64), crowd, 0, (776, 1240), (776, 1240))


def rules(target: Targets) -> Mapping[str, Callable[[], Assignment]]:
    sizes = [rows * columns for rows, columns in CELLS]
    squares = {scale: pyramid_anchors(CELLS, STRIDES, anchor_scale=scale, scales=(1.0,), ratios=(1.0,)) for scale in (1.0, 2.0, 4.0)}
    return {
        "ATSS": lambda: assign_atss(squares[4.0], sizes, [target]),
        "overlap": lambda: assign_by_overlap(squares[4.0], [target]),
        "fovea": lambda: assign_fovea(squares[2.0], sizes, [target]),
        "center": lambda: assign_by_center(squares[1.0], sizes, [target]),
    }


def measure(rounds: int, crowds: int) -> dict[str, dict[str, float]]:
    """Median and smallest milliseconds of each rule."""
    functions = rules(problem(crowds))
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 2):
        for name, function in functions.items():
            start = time.thread_time()
            function()
            if turn >= 2:
                times[name].append(1e3 * (time.thread_time() - start))
    return {name: {"median": statistics.median(series), "min": min(series)} for name, series in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="how often each rule takes its turn (default 30)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = {"no crowds": measure(options.rounds, 0), "5 crowds": measure(options.rounds, 5)}
    cells = sum(rows * columns for rows, columns in CELLS)
    print(f"milliseconds of CPU time, median (min) of {options.rounds}; {BOXES} boxes, {cells:,} cells, one thread")
    for label, row in rows.items():
        print(f"{label:10}" + "".join(f"   {name} {ms['median']:.1f} ({ms['min']:.1f})" for name, ms in row.items()))
        for name, target in TARGET_MS.items():
            if row[name]["median"] > target:
                print(f"target missed: {name}, {label}, is not within {target} ms")
    report = {
        "command": "python benchmarks/assignment.py",
        "machine": f"{platform.processor() or platform.machine()}, 1 thread",
        "torch": torch.__version__,
        "boxes": BOXES,
        "cells": cells,
        "rounds": options.rounds,
        "clock": "CPU time of the thread",
        "targets_ms": TARGET_MS,
        "ms": rows,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
