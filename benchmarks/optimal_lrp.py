"""Optimal LRP as the minimum over all scores, and over a grid of 101 scores as vernier searches it; beside them AP, which sees order alone.

    pip install vernier hotcoco
    python benchmarks/optimal_lrp.py        # seconds

The same detections with their scores divided by 1, 10, 100 and 1000: neither AP nor the exact optimum changes. Without vernier only the
grid is computed, by our own LRP at each of its scores.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation import problem

from lossbox.metrics import evaluate, lrp, match_detections, read_ground_truth, read_results
from lossbox.metrics._arrays import mean_of_defined

GRID = np.linspace(0, 1, 101)


def on_grid(matches: Any) -> float:
    """Mean over classes of the least LRP at the scores of the grid."""
    optima = []
    for category, count in enumerate(matches.num_ground_truth.tolist()):
        if count:
            columns = matches.of_class(category)
            optima.append(min(lrp(*columns, count, threshold=threshold).lrp for threshold in GRID))
    return mean_of_defined(optima)


def vernier(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    from vernier.instance import optimal_lrp

    contents = json.dumps(truth).encode(), json.dumps(results).encode()
    start = time.perf_counter()
    report = optimal_lrp(*contents)
    return {"oLRP": report.olrp, "seconds": time.perf_counter() - start}


def lossbox(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    start = time.perf_counter()
    columns = read_ground_truth(truth)
    found = read_results(results, columns)
    numbers = evaluate(columns, found)
    seconds = time.perf_counter() - start
    return {"AP": numbers["AP"], "oLRP": numbers["oLRP"], "seconds": seconds, "on_grid": on_grid(match_detections(columns, found))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--detections", type=int, default=30, help="detections per image")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "optimal_lrp.json")
    arguments = parser.parse_args()
    truth, results = problem(arguments.images, arguments.classes, arguments.detections)
    rows = []
    for divisor in (1, 10, 100, 1000):
        divided = [result | {"score": result["score"] / divisor} for result in results]
        row = {"divisor": divisor, "lossbox": lossbox(truth, divided)}
        said = f"scores / {divisor:<5} AP {row['lossbox']['AP']:.4f}   oLRP: exact {row['lossbox']['oLRP']:.4f}"
        said += f", at best on the grid {row['lossbox']['on_grid']:.4f}"
        if importlib.util.find_spec("vernier") is not None:
            row["vernier"] = vernier(truth, divided)
            said += f", vernier {row['vernier']['oLRP']:.4f}"
        rows.append(row)
        print(said)
    versions = {}
    for name in ("hotcoco", "vernier"):
        if importlib.util.find_spec(name) is not None:
            from importlib.metadata import version

            versions[name] = version(name)
    report = {
        "what": "optimal LRP of the same detections, their scores divided: the minimum over all scores, and over 0.00, 0.01 ... 1.00",
        "command": "python benchmarks/optimal_lrp.py",
        "problem": {"images": arguments.images, "classes": arguments.classes, "detections_per_image": arguments.detections},
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "python": platform.python_version(),
            **versions,
        },
        "rows": rows,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
