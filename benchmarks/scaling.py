"""What training on many processes costs: measured constants of two processes on this machine, and what follows from them for many.

    python benchmarks/scaling.py                                       writes benchmarks/results/scaling.json: half a minute
    python benchmarks/scaling.py --latency 5e-6 --bandwidth 2e10       for a network of yours: seconds a message, bytes a second

Two processes on one machine, connected by gloo, run the collectives that a global ranking needs, with 8 bytes to 8 MB; the fastest of the
rounds counts, since other programs run beside them. The time of a small gather is the latency, what the largest takes beyond it the
time per byte. No network is between the two: one between machines has other constants, and so has NCCL between GPUs. The collectives of W
processes are then simulated, as rings (W - 1 messages one after the other for a gather, twice as many for a reduction) and as trees (log2 W
of them for a gather, twice as many for a reduction).

A step of aLRP exchanges one gather of 8 bytes a process (how many positives it has), two of 8 bytes a positive (scores, errors), and one
reduction of 2 (2 P + 1) numbers of 8 bytes, P the positives of all processes. DistributedDataParallel adds the gradients, 4 bytes a weight.
"""

from __future__ import annotations

import argparse
import json
import math
import socket
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from ranking import RESULTS, machine

SIZES = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
PROCESSES = (8, 64, 512)
IMAGES = 8
"""Per process and step."""

POSITIVES = 60
"""Positive anchors an image: an assumption, of seven boxes and some eight anchors each."""

ANCHORS = 9 * sum((640 // stride) ** 2 for stride in (8, 16, 32, 64, 128))
# images and classes as published: COCO train2017, Objects365 v2 train; the third is made up
RUNS = (
    ("COCO, 12 epochs", 118_287, 80, 12, 8),
    ("Objects365, 12 epochs", 1_742_289, 365, 12, 64),
    ("a billion images, 1 epoch", 10**9, 365, 1, 512),
)


def worker(process: int, port: int, rounds: int, path: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=process, world_size=2)
    rows = []
    for size in SIZES:
        own = torch.zeros(size, dtype=torch.float64)
        parts = [torch.empty_like(own) for _ in range(2)]
        row: dict[str, Any] = {"bytes": own.numel() * 8}
        for name, collective in (
            ("all_gather", lambda parts=parts, own=own: dist.all_gather(parts, own)),
            ("all_reduce", lambda own=own: dist.all_reduce(own)),
        ):
            times = []
            for _ in range(rounds):
                dist.barrier()
                start = time.perf_counter()
                collective()
                times.append(time.perf_counter() - start)
            row[name] = min(times)
        rows.append(row)
    if process == 0:
        with open(path, "w") as file:
            json.dump(rows, file)
    dist.destroy_process_group()


def measure(rounds: int) -> list[dict[str, float]]:
    """The fewest seconds of each collective of two processes, by its size."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = RESULTS / "scaling.measured"
    try:
        multiprocessing.spawn(worker, (port, rounds, str(path)), 2)
        rows: list[dict[str, float]] = json.loads(path.read_text())
    finally:
        path.unlink(missing_ok=True)
    return rows


def constants(rows: list[dict[str, float]]) -> dict[str, float]:
    """Seconds a message and a byte, of a gather, which between two processes is one message each way."""
    latency = min(row["all_gather"] for row in rows if row["bytes"] <= 8_000)
    per_byte = (rows[-1]["all_gather"] - latency) / rows[-1]["bytes"]
    return {"latency": latency, "per_byte": per_byte, "latency_us": 1e6 * latency, "MB_per_second": 1e-6 / per_byte}


def gather(network: dict[str, float], processes: int, own_bytes: float, shape: str) -> float:
    """Seconds until each of W processes has what each of the others has."""
    if shape == "ring":
        return (processes - 1) * (network["latency"] + network["per_byte"] * own_bytes)
    return math.log2(processes) * network["latency"] + network["per_byte"] * own_bytes * (processes - 1)


def reduce(network: dict[str, float], processes: int, all_bytes: float, shape: str) -> float:
    """Seconds until each of W processes has the sum over all."""
    if shape == "ring":
        return 2 * (processes - 1) * (network["latency"] + network["per_byte"] * all_bytes / processes)
    return 2 * math.log2(processes) * (network["latency"] + network["per_byte"] * all_bytes)


def ranking_bytes(processes: int) -> float:
    """What a process receives in a step of the global aLRP."""
    own = IMAGES * POSITIVES
    return (processes - 1) * (8 + 2 * 8 * own + 2 * interval_bytes(processes) / processes)


def interval_bytes(processes: int) -> int:
    return 8 * 2 * (2 * IMAGES * POSITIVES * processes + 1)


def exchange(network: dict[str, float], processes: int) -> dict[str, float]:
    """What a step of the global aLRP exchanges: megabytes that a process receives, and milliseconds by the shape of the network."""
    row = {"processes": processes, "positives": IMAGES * POSITIVES * processes, "received_MB": 1e-6 * ranking_bytes(processes)}
    for shape in ("ring", "tree"):
        counts, values = (gather(network, processes, own_bytes, shape) for own_bytes in (8, 8 * IMAGES * POSITIVES))
        row[f"{shape}_ms"] = 1e3 * (counts + 2 * values + reduce(network, processes, interval_bytes(processes), shape))
    return row


def run(name: str, images: int, classes: int, epochs: int, processes: int, step: dict[str, Any]) -> dict[str, Any]:
    """Steps, hours without any exchange, traffic and memory of a training of RetinaNet R50 at 640 px."""
    steps = math.ceil(images / (IMAGES * processes)) * epochs
    return {
        "run": name,
        "images": f"{images:,}",
        "processes": processes,
        "steps": f"{steps:,}",
        "hours": steps * step["ours_ms"] / 3.6e6,
        "gradients_MB": 2e-6 * 4 * step["parameters"]["ours"] * (processes - 1) / processes,
        "ranking_MB": 1e-6 * ranking_bytes(processes),
        "logits_MB": 4e-6 * IMAGES * ANCHORS * classes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="of each collective and size (default 30)")
    parser.add_argument("--latency", type=float, help="seconds a message, in place of the measured ones; prints, writes nothing")
    parser.add_argument("--bandwidth", type=float, help="bytes a second, likewise")
    options = parser.parse_args()
    own = options.latency is not None or options.bandwidth is not None
    if own and not (options.latency and options.bandwidth and options.latency > 0 and options.bandwidth > 0):
        parser.error("--latency and --bandwidth: both, and above 0")
    rows = [] if own else measure(options.rounds)
    network = {"latency": options.latency, "per_byte": 1 / options.bandwidth} if own else constants(rows)
    exchanges = [exchange(network, processes) for processes in PROCESSES]
    print(f"{1e6 * network['latency']:.0f} us a message, {1e-6 / network['per_byte']:.0f} MB/s")
    for row in exchanges:
        print(f"{row['processes']:4} processes: {row['received_MB']:.2f} MB, ring {row['ring_ms']:.1f} ms, tree {row['tree_ms']:.1f} ms")
    if own:
        return
    step = json.loads((RESULTS / "step_cuda.json").read_text())["detectors"]["RetinaNet"]
    report = {
        "command": "python benchmarks/scaling.py",
        **machine("cpu"),
        "what": "two gloo processes on one machine; everything for more than two is simulated",
        "images_per_process": IMAGES,
        "positives_per_image": POSITIVES,
        "measured": rows,
        "network": network,
        "exchange": exchanges,
        "runs": [run(*each, step) for each in RUNS],
    }
    (RESULTS / "scaling.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {RESULTS / 'scaling.json'}")


if __name__ == "__main__":
    main()
