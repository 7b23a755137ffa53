"""``lossbox compare``."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .recipes import find_recipe, resume


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox compare``."""
    parser = argparse.ArgumentParser(
        "lossbox compare",
        allow_abbrev=False,
        description="Trains each recipe with each seed, one after another, and prints a markdown table of "
        "their accuracy: mean and standard deviation over the seeds, of the last epoch (nothing is picked by its validation result). "
        "Interrupted, it skips what is finished and resumes what is not.",
        epilog="Any option of `lossbox fit` may follow and holds for all runs.",
    )
    parser.add_argument("recipes", nargs="+", help="recipes, by path or name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="holds a folder for each run (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where the results are written (default: OUT/accuracy.json)")
    options, overrides = parser.parse_known_args(argv)
    from .. import report
    from ..cli import LossboxCLI

    runs: list[dict[str, Any]] = []
    for seed in options.seeds:
        for recipe in map(find_recipe, options.recipes):
            out = options.out / recipe.stem / f"seed-{seed}"
            if not (out / "run.json").is_file():
                print(f"-- {recipe.stem}, seed {seed}", flush=True)
                words = ["fit", "--config", str(recipe), "--seed_everything", str(seed), "--out", str(out)]
                LossboxCLI([*words, *overrides, *resume(out)])
            metrics, run = (json.loads((out / name).read_text()) for name in ("metrics.json", "run.json"))
            scalars = {name: value for name, value in metrics.items() if value is None or isinstance(value, int | float)}
            runs.append({"recipe": recipe.stem, "seed": seed, **scalars, **run})
    path = options.json or options.out / "accuracy.json"
    report.write_json(path, {"machine": machine(), "summary": report.summarize(runs), "runs": runs})
    print(report.accuracy_table(report.summarize(runs)))
    print(f"written to {path}")


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "torchvision", "lightning")},
    }
