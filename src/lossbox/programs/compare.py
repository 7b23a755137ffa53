"""``lossbox compare``."""

from __future__ import annotations

import argparse
import importlib.metadata
import inspect
import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from .recipes import find_recipe, resume


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox compare``: a study where the first word names one, and otherwise recipes against each other."""
    if argv and argv[0] in STUDIES:
        STUDIES[argv[0]](argv[1:])
    else:
        compare_recipes(argv)


def toy(argv: Sequence[str]) -> None:
    """the toy example of aLRP's Figure 1: three detectors that only aLRP and AP tell apart"""
    parser = argparse.ArgumentParser(
        "lossbox compare toy",
        allow_abbrev=False,
        description="Three detectors with the same scores and the same four IoUs, dealt to them in another order: precision and AP by IoU, "
        "cross-entropy, AP loss, IoU loss and aLRP loss of each, computed by the losses and metrics of this package. Instant.",
        epilog="Source: Oksuz et al., NeurIPS 2020, Figure 1 and App. A.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="draw toy.png there")
    options = parser.parse_args(argv)
    from .. import report
    from ..analysis import toy_study

    study = toy_study()
    report.print_toy(study)
    if options.json:
        report.write_json(options.json, study)
        print(f"all numbers: {options.json}")
    if options.out:
        print(f"image: {report.draw_toy(study, options.out / 'toy.png')}")


STUDIES: dict[str, Callable[[Sequence[str]], None]] = {"toy": toy}
"""Each takes the words after its name; the first line of its docstring is what ``lossbox compare --help`` says."""


def compare_recipes(argv: Sequence[str]) -> None:
    """Trains recipes with several seeds and prints their accuracy."""
    studies = "".join(f"\n  {name:<14}{inspect.getdoc(study)}" for name, study in STUDIES.items())
    parser = argparse.ArgumentParser(
        "lossbox compare",
        usage="lossbox compare RECIPE ... [options]\n       lossbox compare STUDY [options]",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Trains each recipe with each seed, one after another or --jobs at a time, and prints a markdown table of their\n"
        "accuracy: mean and standard deviation over the seeds, of the last epoch (nothing is picked by its validation result).\n"
        "Interrupted, it skips what is finished and resumes what is not.\n\n"
        f"Or a study of the papers, each with its own --help:{studies}",
        epilog="Any option of `lossbox fit` may follow and holds for all runs.",
    )
    parser.add_argument("recipes", nargs="+", help="recipes, by path or name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="holds a folder for each run (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where the results are written (default: OUT/accuracy.json)")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="trainings at a time, each a process with its share of the cores and a log.txt in its folder: for a GPU, or small images "
        "(default: 1)",
    )
    options, overrides = parser.parse_known_args(argv)
    if options.jobs < 1:
        raise ValueError(f"jobs: a number >= 1 expected, got {options.jobs}")
    try:
        recipes = [find_recipe(name) for name in options.recipes]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; and the studies are: {', '.join(STUDIES)}") from None
    from .. import report

    folders = {(recipe, seed): options.out / recipe.stem / f"seed-{seed}" for seed in options.seeds for recipe in recipes}
    train_all({key: out for key, out in folders.items() if not (out / "run.json").is_file()}, overrides, options.jobs)
    runs: list[dict[str, Any]] = []
    for (recipe, seed), out in folders.items():
        run = json.loads((out / "run.json").read_text())
        measured = out / "metrics.json"  # not there with trainer.limit_val_batches 0
        metrics = json.loads(measured.read_text()) if measured.is_file() else dict.fromkeys(report.COMPARED)
        scalars = {name: value for name, value in metrics.items() if value is None or isinstance(value, int | float)}
        runs.append({"recipe": recipe.stem, "seed": seed, **scalars, **run})
    path = options.json or options.out / "accuracy.json"
    report.write_json(path, {"machine": machine(), "summary": report.summarize(runs), "runs": runs})
    print(report.accuracy_table(report.summarize(runs)))
    print(f"written to {path}")


def train_all(wanted: Mapping[tuple[Path, int], Path], overrides: Sequence[str], jobs: int) -> None:
    """Trains each (recipe, seed) into its folder: one after another here, or several at a time in processes of their own.

    Raises:
        ChildProcessError: a training in a process of its own failed; the others are finished first. Names the first one and its log.
    """
    if jobs == 1:
        for (recipe, seed), out in wanted.items():
            print(f"-- {recipe.stem}, seed {seed}", flush=True)
            _train(recipe, seed, out, overrides)
        return
    failed: list[str] = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, max(len(wanted), 1)), spawn, initializer=_share_cores, initargs=(jobs,)) as pool:
        running = {pool.submit(_train_quietly, recipe, seed, out, overrides): (recipe, seed) for (recipe, seed), out in wanted.items()}
        for future in _ended(running, wanted):
            recipe, seed = running[future]
            error = future.exception()
            print(f"-- {recipe.stem}, seed {seed}: {f'failed: {error}' if error else 'done'}", flush=True)
            if error is not None:
                failed.append(f"{recipe.stem}, seed {seed}: {error} (log: {wanted[recipe, seed] / 'log.txt'})")
    if failed:
        raise ChildProcessError(f"{len(failed)} of {len(running)} trainings failed; the first: {failed[0]}")


def _ended(running: Mapping[Future[None], tuple[Path, int]], wanted: Mapping[tuple[Path, int], Path]) -> Iterator[Future[None]]:
    """The trainings in the order in which they end; where nothing ends for a while, the last line of the log of each that runs."""
    from rich.progress import Progress

    from ..data.digits import SILENCE

    waiting = set(running)
    with Progress(disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task(f"{len(running)} trainings", total=len(running))
        while waiting:
            ended, waiting = wait(waiting, timeout=SILENCE, return_when=FIRST_COMPLETED)
            bar.advance(task, len(ended))
            yield from ended
            for recipe, seed in (running[future] for future in waiting if not ended and future.running() and not sys.stdout.isatty()):
                log = wanted[recipe, seed] / "log.txt"
                lines = log.read_text().splitlines() if log.is_file() else []
                print(f"   {recipe.stem}, seed {seed}: {lines[-1] if lines else 'starts'}", flush=True)


def _train(recipe: Path, seed: int, out: Path, overrides: Sequence[str]) -> None:
    from ..training.cli import LossboxCLI

    words = ["fit", "--config", str(recipe), "--seed_everything", str(seed), "--out", str(out)]
    LossboxCLI([*words, *overrides, *resume(out)])


def _share_cores(jobs: int) -> None:
    """Threads that outnumber the cores wait for each other; what the environment says goes first."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def _train_quietly(recipe: Path, seed: int, out: Path, overrides: Sequence[str]) -> None:
    """In a process of its own; what it prints goes to the log of the run."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log.txt").open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        _train(recipe, seed, out, overrides)


def machine() -> dict[str, Any]:
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        **{name: os.environ[name] for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY") if name in os.environ},
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "torchvision", "lightning")},
    }
