"""Seconds a training step of the demo's network takes by how long waiting threads spin, on idle cores and beside busy programs.

    python benchmarks/threads.py                  -> benchmarks/results/threads.json; threads_avx2.json where torch uses AVX2
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/threads.py     the AVX2 file on a CPU that has more

Each measurement is a process of its own with as many threads as there are cores, because OpenMP reads its settings once; the settings take
turns and the median over the rounds counts. Beside it run as many processes as there are cores that do nothing but count. The "kernel" is
the aLRP loss of 10^6 logits with 1,000 positives, which is many small operations.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SETTINGS = ("as it is", "50000", "10000", "0")
"""Values of GOMP_SPINCOUNT."""


def measure(steps: int) -> dict[str, float]:
    """Median seconds of a step of the network and of the loss, in float32."""
    import torch
    import yaml

    from lossbox.detectors import Backbone, RetinaNet
    from lossbox.losses import alrp_loss
    from lossbox.programs.recipes import find_recipe

    recipe = yaml.safe_load(find_recipe("digits_small_alrp").read_text())
    torch.manual_seed(0)
    options = recipe["model"]["detector"]["init_args"]
    options["backbone"] = Backbone(**options["backbone"])
    detector = RetinaNet(10, **options).to(memory_format=torch.channels_last)
    images = torch.rand(16, 3, 128, 128).contiguous(memory_format=torch.channels_last)
    logits, targets = torch.randn(1_000_000, requires_grad=True), torch.zeros(1_000_000, dtype=torch.long)
    targets[:1000] = 1
    error = torch.rand(1000, requires_grad=True)

    def network() -> None:
        found = detector(images)
        (found.logits.mean() + found.regression.mean()).backward()

    def kernel() -> None:
        loss = alrp_loss(logits, targets, error)
        (loss.classification + loss.localization).backward()

    seconds: dict[str, list[float]] = {"network": [], "kernel": []}
    for _ in range(2 + steps):
        for name, run in (("network", network), ("kernel", kernel)):
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[2:]) for name, values in seconds.items()}


def in_a_process(spin: str, steps: int) -> dict[str, float]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    }
    if spin != "as it is":
        environment["GOMP_SPINCOUNT"] = spin
    done = subprocess.run([sys.executable, __file__, "--worker", str(steps)], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def count() -> None:
    number = 0
    while True:
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each setting (default 3)")
    parser.add_argument("--steps", type=int, default=8, help="of each measurement (default 8)")
    parser.add_argument("--out", type=Path, help="(default benchmarks/results/threads.json or threads_avx2.json)")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.worker)))
        return
    from lossbox.programs.compare import machine

    rows = []
    for beside in (0, os.cpu_count() or 1):
        busy = [multiprocessing.Process(target=count, daemon=True) for _ in range(beside)]
        for process in busy:
            process.start()
        found: dict[str, list[dict[str, float]]] = {spin: [] for spin in SETTINGS}
        for _ in range(options.rounds):
            for spin in SETTINGS:
                found[spin].append(in_a_process(spin, options.steps))
        for process in busy:
            process.kill()
        for spin, runs in found.items():
            medians = {name: statistics.median(run[name] for run in runs) for name in ("network", "kernel")}
            rows.append({"busy processes": beside, "GOMP_SPINCOUNT": spin, **medians})
            print(
                f"{beside} busy  GOMP_SPINCOUNT {spin:>9}  network {medians['network']:.3f} s  kernel {medians['kernel']:.3f} s", flush=True
            )
    report = {"what": "median seconds of a training step, forward and backward, float32", "machine": machine(), "rows": rows}
    out = options.out or RESULTS / ("threads_avx2.json" if report["machine"]["instruction_set"] == "AVX2" else "threads.json")
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(table([json.loads(file.read_text()) for file in sorted(RESULTS.glob("threads*.json"))]))
    print(f"written: {out}")


def table(reports: list[dict[str, Any]]) -> str:
    """Markdown: a row per setting; seconds of the network and of the kernel, idle and beside busy programs, on each instruction set."""
    sets = [
        (report["machine"]["instruction_set"], beside)
        for report in reports
        for beside in sorted({row["busy processes"] for row in report["rows"]})
    ]
    head = ["`GOMP_SPINCOUNT`", *(f"{name}, {'idle' if beside == 0 else f'beside {beside} busy programs'}" for name, beside in sets)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for spin in SETTINGS:
        rows = [row for report in reports for row in report["rows"] if row["GOMP_SPINCOUNT"] == spin]
        cells = [f"{row['network']:.3f} / {row['kernel']:.3f}" for row in rows]
        lines.append(f"| {spin if spin != 'as it is' else 'not set'} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
