"""What a ranking loss costs, beside focal loss and beside the loop over positives that published code runs.

    python benchmarks/ranking.py                 all sizes, writes benchmarks/results/ranking.json; ranking_avx2.json where torch uses AVX2
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/ranking.py     the AVX2 file on a CPU that has more
    python benchmarks/ranking.py --quick         the small sizes only, writes nothing
    python benchmarks/ranking.py --device cuda

Every number is forward + backward on the same logits. The losses take turns in one process, so that a slow moment of the machine hits all
of them; the median of the rounds counts, and the ratio to `torchvision.ops.sigmoid_focal_loss` is what to look at. Peak memory is measured
in a fresh process a loss: the highest resident size above that of the inputs, in bytes for each byte of logits (the gradient itself is 1).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from rich.progress import track
from torch import Tensor

from lossbox.losses import alrp_loss, ap_loss, ndcg_loss, rank_sort_loss
from lossbox.programs.compare import machine as describe

RESULTS = Path(__file__).parent / "results"
SIZES = ((100, 10**6), (1_000, 10**6), (5_000, 10**6), (1_000, 2 * 10**7))
MEMORY_AT = (1_000, 10**7)
TARGETS = {"ap_loss": 1.0, "alrp_loss": 1.0, "ndcg_loss": 1.0, "rank_sort_loss": 1.5}


def problem(positives: int, negatives: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.zeros(positives + negatives, dtype=torch.int64)
    targets[torch.randperm(len(targets), generator=generator)[:positives]] = 1
    logits = torch.randn(len(targets), generator=generator) + targets
    return logits.to(device).requires_grad_(), targets.to(device), torch.rand(positives, generator=generator).to(device)


def losses(logits: Tensor, targets: Tensor, values: Tensor) -> dict[str, Callable[[], Tensor]]:
    as_float = targets.to(logits.dtype)
    return {
        "sigmoid_focal_loss": lambda: torchvision.ops.sigmoid_focal_loss(logits, as_float, reduction="sum"),
        "ap_loss": lambda: ap_loss(logits, targets),
        "alrp_loss": lambda: torch.stack(alrp_loss(logits, targets, values)).sum(),
        "ndcg_loss": lambda: ndcg_loss(logits, targets),
        "rank_sort_loss": lambda: torch.stack(rank_sort_loss(logits, targets, values)).sum(),
        "alrp_loop": lambda: alrp_loop(logits, targets, values),
    }


def alrp_loop(logits: Tensor, targets: Tensor, error: Tensor, delta: float = 1.0) -> Tensor:
    """aLRP as the paper's Algorithm A.2 has it: one pass over the negatives that matter for each positive."""
    scores = logits.detach()
    positive = (targets == 1).nonzero().squeeze(1)
    relevant = ((targets == 0) & (scores >= scores[positive].min() - delta)).nonzero().squeeze(1)
    own, others = scores[positive], scores[relevant]
    gradient, spread = torch.zeros_like(scores), torch.zeros_like(others)
    total = scores.new_zeros(())
    for i in range(len(positive)):
        among = ((own - own[i]) / (2 * delta) + 0.5).clamp(0, 1)
        among[i] = 0
        above = ((others - own[i]) / (2 * delta) + 0.5).clamp(0, 1)
        false_positives = above.sum()
        rank = 1 + among.sum() + false_positives
        update = (false_positives + (among * error.detach()).sum()) / rank
        if false_positives > 1e-5:
            gradient[positive[i]] = -update
            spread += above * (update / false_positives)
        total += false_positives / rank
    gradient[relevant] = spread
    # A surrogate that has this gradient: what the published autograd function hands back.
    return (logits * (gradient / len(positive))).sum() + (total / len(positive) - (scores * gradient).sum() / len(positive))


def seconds(loss: Callable[[], Tensor], logits: Tensor) -> float:
    logits.grad = None
    start = time.perf_counter()
    loss().backward()
    if logits.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(positives: int, negatives: int, device: str, rounds: int, *, loop: bool = True) -> dict[str, float]:
    """Median milliseconds of each loss; the loop, 100 times slower, gets one round and only at 10^6."""
    logits, targets, values = problem(positives, negatives, device)
    functions = losses(logits, targets, values)
    by_loop = functions.pop("alrp_loop")
    for function in functions.values():
        seconds(function, logits)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function, logits))
    result = {name: 1e3 * statistics.median(series) for name, series in times.items()}
    if loop and negatives <= 10**6:
        result["alrp_loop"] = 1e3 * seconds(by_loop, logits)
    return result


def peak_memory(name: str, positives: int, negatives: int, device: str) -> float:
    """Bytes at the peak of forward + backward, above the inputs, for each byte of logits."""
    command = [sys.executable, __file__, "--peak", name, str(positives), str(negatives), "--device", device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak_here(name: str, positives: int, negatives: int, device: str) -> float:
    small = problem(10, 20_000, device)
    losses(*small)[name]().backward()  # what the libraries load on first use is not the loss's memory
    logits, targets, values = problem(positives, negatives, device)
    function = losses(logits, targets, values)[name]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function().backward()
        return (torch.cuda.max_memory_allocated() - before) / (4 * logits.numel())
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here
    before = _status("VmRSS")
    function().backward()
    return (_status("VmHWM") - before) / (4 * logits.numel())


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def machine(device: str) -> dict[str, object]:
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    if device == "cuda":
        return {"device": device, "machine": torch.cuda.get_device_name(), **versions}
    isa = {"torch": instruction_set(), "ONEDNN_MAX_CPU_ISA": os.environ.get("ONEDNN_MAX_CPU_ISA")}
    return {"device": device, "machine": describe()["processor"], "threads": torch.get_num_threads(), "instruction_set": isa, **versions}


def instruction_set() -> str:
    """What torch's own operations use on this CPU, or are told to by ATEN_CPU_CAPABILITY: AVX512, AVX2, DEFAULT, ..."""
    return torch.backends.cpu.get_cpu_capability()


def results_file(device: str) -> Path:
    """One file a device and instruction set; the widest, AVX512, has the plain name."""
    if device == "cpu":
        return RESULTS / ("ranking.json" if instruction_set() == "AVX512" else f"ranking_{instruction_set().lower()}.json")
    return RESULTS / f"ranking_{device}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15, help="how often each loss takes its turn (default 15)")
    parser.add_argument("--quick", action="store_true", help="leave out 2 x 10^7 negatives; write no file")
    parser.add_argument(
        "--out",
        type=Path,
        help="the JSON file (default benchmarks/results/ranking.json, ranking_avx2.json on AVX2, ranking_cuda.json on a GPU)",
    )
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the table of a file that was written before, and measure nothing")
    parser.add_argument("--peak", nargs=3, metavar=("LOSS", "P", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(_peak_here(options.peak[0], int(options.peak[1]), int(options.peak[2]), options.device))
        return

    if options.table:
        print(markdown(json.loads(options.table.read_text())))
        return

    rows = []
    for positives, negatives in track([size for size in SIZES if not options.quick or size[1] <= 10**6], "measuring"):
        times = measure(positives, negatives, options.device, options.rounds)
        ratios = {name: t / times["sigmoid_focal_loss"] for name, t in times.items()}
        rows.append({"positives": positives, "negatives": negatives, "ms": times, "ratio_to_focal": ratios})
    memory = {name: peak_memory(name, *MEMORY_AT, options.device) for name in track(("sigmoid_focal_loss", *TARGETS), "peak memory")}
    report = {"command": "make bench", **machine(options.device), "rounds": options.rounds, "targets": TARGETS, "rows": rows}
    report["peak_memory"] = memory
    print(markdown(report))
    for row in rows:
        for name, target in TARGETS.items():
            if row["ratio_to_focal"][name] > target:
                print(f"target missed: {name} at P = {row['positives']:,}, N = {row['negatives']:,} is not within {target} x focal")
    if not options.quick:
        out = options.out or results_file(options.device)
        out.parent.mkdir(exist_ok=True)
        out.write_text(json.dumps(report, indent=2) + "\n")
        print(f"wrote {out}")


def markdown(report: dict[str, Any]) -> str:
    """The table of the README: milliseconds of focal loss, and the others as multiples of it."""
    names = {"ap_loss": "AP", "alrp_loss": "aLRP", "ndcg_loss": "NDCG", "rank_sort_loss": "Rank & Sort", "alrp_loop": "aLRP, loop"}
    lines = [
        "| positives | negatives | focal, ms | " + " | ".join(names.values()) + " |",
        "|---" * (3 + len(names)) + "|",
    ]
    for row in report["rows"]:
        ratios = (f"{row['ratio_to_focal'][name]:.2f} x" if name in row["ratio_to_focal"] else "-" for name in names)
        cells = [f"{row['positives']:,}", f"{row['negatives']:,}", f"{row['ms']['sigmoid_focal_loss']:.1f}", *ratios]
        lines.append("| " + " | ".join(cells) + " |")
    memory = report["peak_memory"]
    peaks = [f"{memory['sigmoid_focal_loss']:.1f}", *(f"{memory[name]:.1f}" if name in memory else "-" for name in names)]
    lines.append(f"| {MEMORY_AT[0]:,} | {MEMORY_AT[1]:,} | peak memory: " + " | ".join(peaks) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
