"""How the time and the peak memory of each loss grow with the number of scores and of positives.

    python benchmarks/sizes.py            writes benchmarks/results/sizes.json; sizes_avx2.json where torch uses AVX2
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/sizes.py     the AVX2 file on a CPU that has more
    python benchmarks/sizes.py --quick    up to 10^5 scores, writes nothing

Forward + backward on the same logits, in turns in one process, on one thread; the median of the rounds counts, in the CPU time of the
process, which other programs on the machine change less than the time of a clock. The file is written after each size, and a run that was
interrupted goes on from there. Peak memory is that of a process of its own, in bytes for each byte of logits, with 1,000 positives and from
10^6 scores on: below, it is lost among what a process needs anyway. The slopes are those of a straight line through the logarithms: 1 is
time in proportion to the size, 0 is time that does not depend on it.

Beside our losses: cross-entropy and focal loss, the loop over positives of published code as far as it ends in a few seconds, AP loss of
each thousand scores by itself (`groups`), and AP loss with the negatives put into 256 buckets, each in the place of its mean: what an
approximation costs and how far it is off (`bucketed_error`: the largest difference of a negative's gradient, as a share of the largest).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from groups import seconds
from ranking import RESULTS, _status, alrp_loop, instruction_set, machine, problem
from rich.progress import track
from torch import Tensor

from lossbox.losses import alrp_loss, ap_loss, ndcg_loss, rank_sort_loss

GROUP = 1_000
BUCKETS = 256
LOOP_PAIRS = 5 * 10**9
SIZES = [*((1_000, n) for n in (10**4, 10**5, 10**6)), *((p, 10**6) for p in (1, 10, 100, 10**4)), (1_000, 10**7), (1_000, 3 * 10**7)]
MEMORY_FROM = 10**6
FIT_FROM = {"scores": 10**5, "positives": 100}
"""Smaller sizes are left out of the slopes: there the time is that of starting the operations."""


def losses(logits: Tensor, targets: Tensor, values: Tensor) -> dict[str, Callable[[], Tensor]]:
    as_float = targets.to(logits.dtype)
    rows = targets.view(-1, GROUP)
    return {
        "cross_entropy": lambda: F.binary_cross_entropy_with_logits(logits, as_float, reduction="sum"),
        "focal": lambda: torchvision.ops.sigmoid_focal_loss(logits, as_float, reduction="sum"),
        "ap_loss": lambda: ap_loss(logits, targets),
        "alrp_loss": lambda: torch.stack(alrp_loss(logits, targets, values)).sum(),
        "ndcg_loss": lambda: ndcg_loss(logits, targets),
        "rank_sort_loss": lambda: torch.stack(rank_sort_loss(logits, targets, values)).sum(),
        "ap_loss, groups": lambda: ap_loss(logits.view(-1, GROUP), rows, groups="row"),
        "ap_loss, bucketed": lambda: Bucketed.apply(logits, targets),
        "alrp_loss, loop": lambda: alrp_loop(logits, targets, values),
    }


class Bucketed(torch.autograd.Function):
    """AP loss with each negative in the place of the mean of its bucket, of 256 of equal width: pairs of positives and buckets."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, delta: float = 1.0) -> Tensor:
        positive = targets == 1
        own = logits[positive]
        low, high = float(own.min()) - delta, float(own.max()) + delta
        place = ((logits - low) * (BUCKETS / (high - low))).long().add_(1).clamp_(0, BUCKETS + 1)
        place[positive] = 0  # the bucket below all knots
        counts = torch.bincount(place, minlength=BUCKETS + 2).to(logits.dtype)
        means = torch.bincount(place, logits, minlength=BUCKETS + 2).to(logits.dtype) / counts.clamp(min=1)
        above = ((means - own[:, None]) / (2 * delta) + 0.5).clamp_(0, 1)
        above[:, 0] = 0
        false_positives = above @ counts
        among = torch.cat([((own - part[:, None]) / (2 * delta) + 0.5).clamp_(0, 1).sum(1) for part in own.split(1_000)])
        error = false_positives / (0.5 + among + false_positives)
        share = torch.where(false_positives > 0, error / false_positives, 0.0) / len(own)
        gradient = (share @ above)[place]
        gradient[positive] = -error / len(own)
        ctx.save_for_backward(gradient)
        return error.mean()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * upstream, None, None


def bucketed_error(logits: Tensor, targets: Tensor) -> float:
    """The largest difference of a negative's gradient between the bucketed and the exact AP loss, as a share of the largest gradient."""
    (exact,) = torch.autograd.grad(ap_loss(logits, targets), logits)
    (bucketed,) = torch.autograd.grad(Bucketed.apply(logits, targets), logits)
    negative = targets == 0
    return float((bucketed - exact)[negative].abs().max() / exact[negative].abs().max())


def medians(functions: dict[str, Callable[[], Tensor]], logits: Tensor, rounds: int) -> tuple[int, dict[str, float]]:
    """How many rounds there were, at most 15 seconds of them, and the median milliseconds of each function, forward + backward."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        seconds(function, logits)
    start, done = time.process_time(), 0
    while done < rounds and (done < 3 or time.process_time() - start < 15):
        for name, function in functions.items():
            times[name].append(seconds(function, logits))
        done += 1
    return done, {name: 1e3 * statistics.median(series) for name, series in times.items()}


def measure(positives: int, scores: int, rounds: int) -> dict[str, Any]:
    """Median milliseconds of each loss; the loop has one round."""
    logits, targets, values = problem(positives, scores - positives, "cpu")
    functions = losses(logits, targets, values)
    loop = functions.pop("alrp_loss, loop")
    done, ms = medians(functions, logits, rounds)
    if positives * scores <= LOOP_PAIRS:
        ms["alrp_loss, loop"] = 1e3 * seconds(loop, logits)
    return {"positives": positives, "scores": scores, "rounds": done, "ms": ms, "bucketed_error": bucketed_error(logits, targets)}


def peaks(name: str, positives: int, scores: int) -> float:
    """Bytes at the peak of forward + backward, above the inputs, for each byte of logits."""
    small = problem(10, 2 * 10**4 - 10, "cpu")
    losses(*small)[name]().backward()  # what the libraries load on first use is not the loss's memory
    function, logits = losses(*(inputs := problem(positives, scores - positives, "cpu")))[name], inputs[0]
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here
    before = _status("VmRSS")
    function().backward()
    return (_status("VmHWM") - before) / (4 * logits.numel())


def measure_peak(name: str, row: dict[str, Any]) -> float:
    command = [sys.executable, __file__, "--peak", name, str(row["positives"]), str(row["scores"])]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back to the system
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def slope(rows: list[dict[str, Any]], name: str, axis: str) -> float | None:
    """Of log time over log size, by least squares, along one axis of the sizes."""
    fixed, at = ("positives", 1_000) if axis == "scores" else ("scores", 10**6)
    points = [
        (math.log(row[axis]), math.log(row["ms"][name]))
        for row in rows
        if row[fixed] == at and name in row["ms"] and row[axis] >= FIT_FROM[axis]
    ]
    if len(points) < 3:
        return None
    mean_x, mean_y = (statistics.mean(values) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def results_file() -> Path:
    return RESULTS / ("sizes.json" if instruction_set() == "AVX512" else f"sizes_{instruction_set().lower()}.json")


def unfinished(path: Path, about: dict[str, object]) -> list[dict[str, Any]]:
    """The rows of a run of the same machine and versions that was interrupted."""
    if not path.exists():
        return []
    report = json.loads(path.read_text())
    same = all(report.get(key) == value for key, value in about.items())
    return report["rows"] if same and len(report["rows"]) < len(SIZES) else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often each loss takes its turn at most (default 9)")
    parser.add_argument("--quick", action="store_true", help="up to 10^5 scores; write no file")
    parser.add_argument("--peak", nargs=3, metavar=("LOSS", "P", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        print(peaks(options.peak[0], int(options.peak[1]), int(options.peak[2])))
        return
    out = results_file()
    about = {"command": "python benchmarks/sizes.py", **machine("cpu")}
    rows = [] if options.quick else unfinished(out, about)
    sizes = [size for size in SIZES if not options.quick or size[1] <= 10**5]
    done = {(row["positives"], row["scores"]) for row in rows}
    for positives, scores in track([size for size in sizes if size not in done], "time and memory"):
        row = measure(positives, scores, options.rounds)
        if scores >= MEMORY_FROM and positives == 1_000:
            row["peak_memory"] = {name: measure_peak(name, row) for name in row["ms"]}
        rows.append(row)
        rows.sort(key=lambda row: (row["positives"] != 1_000, row["scores"], row["positives"]))
        print(f"P = {positives:,}, N = {scores:,}: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in row["ms"].items()), flush=True)
        if not options.quick:
            out.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    if not options.quick:
        names = list(rows[0]["ms"])
        slopes = {name: {axis: slope(rows, name, axis) for axis in FIT_FROM} for name in names}
        out.write_text(json.dumps({**about, "rows": rows, "slopes": slopes}, indent=2) + "\n")
        print(f"wrote {out}")


if __name__ == "__main__":
    main()
