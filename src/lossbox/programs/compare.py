"""``lossbox compare``."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import redirect_stderr, redirect_stdout
from json import loads
from pathlib import Path
from typing import Any

from .command import File, Folder, command
from .recipes import find_recipe, resume


def toy(*, json: File | None = None, out: Folder | None = None) -> dict[str, Any]:
    """The toy example of aLRP's Figure 1: three detectors that only aLRP and AP tell apart.

    They have the same scores and the same four IoUs, dealt to them in another order: precision and AP by IoU, cross-entropy, AP loss, IoU
    loss and aLRP loss of each, computed by the losses and metrics of this package. Instant.

    Source: Oksuz et al., NeurIPS 2020, Figure 1 and App. A.

    Args:
        json: write all numbers
        out: draw toy.png there

    Returns:
        See :func:`lossbox.analysis.toy_study`.
    """
    from .. import report
    from ..analysis import toy_study

    study = toy_study()
    if json:
        report.write_json(Path(json), study)
    if out:
        report.draw_toy(study, Path(out) / "toy.png")
    return study


def show_toy(study: Mapping[str, Any], *, json: File | None = None, out: Folder | None = None) -> None:
    """Prints the numbers, and which files were written."""
    from .. import report

    report.print_toy(study)
    if json:
        print(f"all numbers: {json}")
    if out:
        print(f"image: {Path(out) / 'toy.png'}")


STUDIES = {"toy": command(toy, show_toy, name="compare toy")}
"""The studies of the papers; each takes the words after its name."""


def compare(
    recipes: Sequence[str],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    out: Folder = "runs/compare",
    json: File | None = None,
    jobs: int = 1,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Trains each recipe with each seed and prints their accuracy as a markdown table.

    It has the mean and standard deviation over the seeds, of the last epoch (nothing is picked by its validation result). Interrupted, it
    skips what is finished and resumes what is not. Any option of `lossbox fit` may follow and holds for all runs.

    Or a study of the papers, as `lossbox compare toy`, each with its own --help:

      toy   the toy example of aLRP's Figure 1: three detectors that only aLRP and AP tell apart

    Args:
        recipes: by path or name
        seeds: of the trainings
        out: holds a folder for each run
        json: where the results are written (default: OUT/accuracy.json)
        jobs: trainings at a time, each a process with its share of the cores and a log.txt in its folder: for a GPU, or small images
        overrides: options of `lossbox fit` with their values, for all runs

    Returns:
        What was written: ``machine``; ``summary``, see :func:`lossbox.report.summarize`; ``runs``, the numbers of each.

    Raises:
        ValueError: fewer than one training at a time.
        FileNotFoundError: a recipe that is not there.
        ChildProcessError: a training in a process of its own failed.
    """
    if jobs < 1:
        raise ValueError(f"jobs: a number >= 1 expected, got {jobs}")
    try:
        files = [find_recipe(name) for name in recipes]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; and the studies are: {', '.join(STUDIES)}") from None
    from .. import report

    folders = {(recipe, seed): Path(out) / recipe.stem / f"seed-{seed}" for seed in seeds for recipe in files}
    train_all({key: folder for key, folder in folders.items() if not (folder / "run.json").is_file()}, overrides, jobs)
    runs: list[dict[str, Any]] = []
    for (recipe, seed), folder in folders.items():
        run = _read(folder / "run.json")
        measured = folder / "metrics.json"  # not there with trainer.limit_val_batches 0
        metrics = _read(measured) if measured.is_file() else dict.fromkeys(report.COMPARED)
        scalars = {name: value for name, value in metrics.items() if value is None or isinstance(value, int | float)}
        runs.append({"recipe": recipe.stem, "seed": seed, **scalars, **run})
    result = {"machine": machine(), "summary": report.summarize(runs), "runs": runs}
    report.write_json(Path(json or Path(out) / "accuracy.json"), result)
    return result


def show_comparison(result: Mapping[str, Any], *, out: Folder = "runs/compare", json: File | None = None) -> None:
    """Prints the table, and where the numbers are."""
    from .. import report

    print(report.accuracy_table(result["summary"]))
    print(f"written to {json or Path(out) / 'accuracy.json'}")


def train_all(folders: Mapping[tuple[Path, int], Path], overrides: Sequence[str], jobs: int) -> None:
    """Trains each (recipe, seed) into its folder: one after another here, or several at a time in processes of their own.

    Raises:
        ChildProcessError: a training in a process of its own failed; the others are finished first. Names the first one and its log.
    """
    if jobs == 1:
        for (recipe, seed), out in folders.items():
            print(f"-- {recipe.stem}, seed {seed}", flush=True)
            _train(recipe, seed, out, overrides)
        return
    failed: list[str] = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, max(len(folders), 1)), spawn, initializer=_share_cores, initargs=(jobs,)) as pool:
        running = {pool.submit(_train_quietly, recipe, seed, out, overrides): (recipe, seed) for (recipe, seed), out in folders.items()}
        for future in _ended(running, folders):
            recipe, seed = running[future]
            error = future.exception()
            print(f"-- {recipe.stem}, seed {seed}: {f'failed: {error}' if error else 'done'}", flush=True)
            if error is not None:
                failed.append(f"{recipe.stem}, seed {seed}: {error} (log: {folders[recipe, seed] / 'log.txt'})")
    if failed:
        raise ChildProcessError(f"{len(failed)} of {len(running)} trainings failed; the first: {failed[0]}")


def _ended(running: Mapping[Future[None], tuple[Path, int]], folders: Mapping[tuple[Path, int], Path]) -> Iterator[Future[None]]:
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
                log = folders[recipe, seed] / "log.txt"
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


def _read(path: Path) -> Any:
    return loads(path.read_text())


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


def run(argv: Sequence[str]) -> None:
    """Runs a study where the first word names one, and otherwise compares recipes."""
    if argv and argv[0] in STUDIES:
        STUDIES[argv[0]](argv[1:])
    else:
        command(compare, show_comparison)(argv)
