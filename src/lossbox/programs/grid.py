"""The runs of ``lossbox compare``: a folder for each variant and seed, trained or computed where that is still to be done, and read."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..analysis.numbers import check_numbers
from ..analysis.study import Run, Study, Variant
from ..analysis.summary import THIRDS, ap_by_frequency
from ..messages import near_name
from . import fit
from .recipes import read_recipe, resume

STEP_LOG = {"class_path": "lossbox.training.StepLog", "init_args": {"by_rank_every": 20}}


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        variant: what is run.
        seed: of the training; None for a function that takes none.
        out: the folder of the run.
        words: options of ``lossbox fit`` for all runs.
        bounds: also computes the bounds of re-scoring.
        frequency: also has AP of the rare, the middle and the frequent classes.
        study: the file of its study, for messages.
    """

    variant: Variant
    seed: int | None
    out: Path
    words: tuple[str, ...] = ()
    bounds: bool = False
    frequency: bool = False
    study: Path | None = None

    @property
    def name(self) -> str:
        return self.variant.name if self.seed is None else f"{self.variant.name}, seed {self.seed}"

    @property
    def is_done(self) -> bool:
        return (self.out / "run.json").is_file() and (not self.bounds or (self.out / "bounds.json").is_file())


def cells_of(study: Study, seeds: Sequence[int], out: Path, words: Sequence[str]) -> list[Cell]:
    """All runs, each seed with all variants before the next seed: what is interrupted is a comparison of fewer seeds.

    Raises:
        ValueError: two variants whose names make the same folder.
    """
    bounds = any(name.split("_")[0] in ("upper", "lower") for name in study.names_used)
    frequency = bool(set(THIRDS) & study.names_used)
    cells: dict[Path, Cell] = {}
    for seed in seeds:
        for variant in study.variants:
            trained = variant.recipe is not None
            drawn = trained or "seed" in inspect.signature(_function(variant)).parameters
            folder = out / slug(variant.name) / f"seed-{seed}" if drawn else out / slug(variant.name)
            cell = Cell(variant, seed if drawn else None, folder, tuple(words), bounds and trained, frequency and trained, study.file)
            if cells.setdefault(folder, cell).variant.name != variant.name:
                raise ValueError(f"variants: {variant.name} and {cells[folder].variant.name} are both called {slug(variant.name)}")
    return list(cells.values())


def slug(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in name)


def _function(variant: Variant) -> Any:
    module, _, name = str(variant.call).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"call: no function {variant.call}: {error}") from None


def check_calls(study: Study) -> None:
    """Raises ValueError where a variant calls a function that is not there, or with an argument that it does not take."""
    for variant in (variant for variant in study.variants if variant.call is not None):
        with naming(study.file, variant):
            taken = inspect.signature(_function(variant)).parameters
            wrong = [name for name in variant.options if name not in taken]
            if wrong and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
                near = near_name(wrong[0], taken, otherwise=f"there are {', '.join(taken)}")
                raise ValueError(f"{variant.call} takes no argument {wrong[0]}{near}")


def check_options(study: Study, words: Sequence[str]) -> None:
    """Raises ValueError or FileNotFoundError where an option of a variant is wrong, as far as that can be told without the data."""
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        for variant in (variant for variant in study.variants if variant.recipe is not None):
            with naming(study.file, variant):
                recipe.write_text(yaml.safe_dump(recipe_of(variant), sort_keys=False))
                fit.check_options(["--config", str(recipe), "--out", folder, *words], command="compare")


def recipe_of(variant: Variant) -> dict[str, Any]:
    """The recipe of a variant with its options in it, and with the log of the steps."""
    assert variant.recipe is not None
    recipe = with_options(read_recipe(variant.recipe, option="names"), variant.options)
    trainer = recipe.setdefault("trainer", {})
    trainer["callbacks"] = [*(trainer.get("callbacks") or []), STEP_LOG]
    return recipe


def with_options(recipe: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with other values at some places, their levels joined by dots; a value that is a dict takes the whole place.

    Example:
        >>> with_options({"a": {"b": 1, "c": 2}}, {"a.b": 3, "d": {"e": 4}})
        {'a': {'b': 3, 'c': 2}, 'd': {'e': 4}}
    """
    result = copy.deepcopy(dict(recipe))
    for name, value in options.items():
        *levels, last = name.split(".")
        place = result
        for level in levels:
            if not isinstance(place.get(level), dict):
                place[level] = {}
            place = place[level]
        place[last] = copy.deepcopy(value)
    return result


BEGUN = ("steps.jsonl", "checkpoints", "run.json")
"""What is in the folder of a run that has begun."""


def prepare(cells: Sequence[Cell]) -> None:
    """Writes what is run into each folder; nothing is run yet. What a study that was refused left there is replaced.

    Raises:
        ValueError: a folder holds a run of something else that has begun.
    """
    import yaml

    for cell in cells:
        if cell.variant.recipe is None:
            said: dict[str, Any] = {"call": cell.variant.call, "arguments": dict(cell.variant.options)}
        else:
            said = {"recipe": recipe_of(cell.variant), "options": list(cell.words)}
        text, file = yaml.safe_dump(said, sort_keys=False, width=1000), cell.out / "variant.yaml"
        if file.is_file() and file.read_text() != text and any((cell.out / name).exists() for name in BEGUN):
            raise ValueError(f"out: {cell.out} holds a run with other options (variant.yaml); name another folder by --out")
        cell.out.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if cell.variant.recipe is not None:
            (cell.out / "recipe.yaml").write_text(yaml.safe_dump(said["recipe"], sort_keys=False, width=1000))


def run_all(study: Study, cells: Sequence[Cell], jobs: int) -> None:
    """Runs what is not done yet: one after another here, or several trainings at a time in processes of their own.

    Raises:
        ValueError, FileNotFoundError: an option of a variant that is wrong, or a number that the study names; nothing is trained.
        ChildProcessError: a training in a process of its own failed; the others are finished first. Names the first one and its log.
    """
    waiting, began = [cell for cell in cells if not cell.is_done], time.monotonic()
    if len(waiting) < len(cells):
        print(f"{len(cells) - len(waiting)} of {len(cells)} runs are done already", flush=True)
    _try_options(study, waiting)
    if jobs == 1 or all(cell.variant.recipe is None for cell in waiting):
        for done, cell in enumerate(waiting):
            if cell.variant.recipe is not None:
                print(f"-- {cell.name} (run {done + 1} of {len(waiting)}{_left(began, done, len(waiting))})", flush=True)
            run_one(cell)
        return
    failed: list[str] = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, max(len(waiting), 1)), spawn, initializer=_share_cores, initargs=(jobs,)) as pool:
        running = {pool.submit(_run_quietly, cell): cell for cell in waiting}
        for done, future in enumerate(_ended(running)):
            cell, error = running[future], future.exception()
            print(f"-- {cell.name}: {f'failed: {error}' if error else 'done'}{_left(began, done + 1, len(waiting))}", flush=True)
            if error is not None:
                failed.append(f"{cell.name}: {error} (log: {cell.out / 'log.txt'})")
    if failed:
        raise ChildProcessError(f"{len(failed)} of {len(running)} trainings failed; the first: {failed[0]}")


@contextmanager
def naming(study: Path | None, variant: Variant | None = None) -> Iterator[None]:
    """Puts the file of a study, where it is one of the user's, and the name of a variant before the message of a mistake in them."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        if type(error) not in (ValueError, FileNotFoundError):  # others take other arguments
            raise
        where = (f"study: {study}: " if study else "") + (f"{variant.name}: " if variant else "")
        raise type(error)(f"{where}{error}") from error


def _try_options(study: Study, cells: Sequence[Cell]) -> None:
    """Builds what each variant trains, so that a mistake in the last one is found before the first one is trained.

    Raises:
        ValueError, FileNotFoundError: an option that is wrong, names the variant; a number that the study names and no run will have.
    """
    from ..training.cli import LossboxCLI
    from .grid_numbers import of_training, of_validation

    tried = {cell.variant.name: cell for cell in cells if cell.variant.recipe is not None and not (cell.out / "run.json").is_file()}
    if not tried or (len(tried) == 1 and study.names_used <= of_validation() and study.plot is None):  # the training says so as soon
        return
    print(f"trying the options of {len(tried)} variants", flush=True)
    known = {}
    for cell in tried.values():
        with naming(study.file, cell.variant):
            cli = LossboxCLI([*_fit_words(cell), *resume(cell.out)], until="built")
        known[cell.variant.name] = of_training(cli.model)
    with naming(study.file):
        check_numbers(study, known)


def _fit_words(cell: Cell) -> list[str]:
    return ["fit", "--config", str(cell.out / "recipe.yaml"), "--seed_everything", str(cell.seed), "--out", str(cell.out), *cell.words]


def _left(began: float, done: int, all_of_them: int) -> str:
    from ..messages import duration

    seconds = time.monotonic() - began
    return f"; {duration(seconds / done * (all_of_them - done))} left" if 0 < done < all_of_them else ""


def _ended(running: Mapping[Future[None], Cell]) -> Iterator[Future[None]]:
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
            for cell in (running[future] for future in waiting if not ended and future.running() and not sys.stdout.isatty()):
                log = cell.out / "log.txt"
                lines = log.read_text().splitlines() if log.is_file() else []
                print(f"   {cell.name}: {lines[-1] if lines else 'starts'}", flush=True)


def run_one(cell: Cell) -> None:
    """Trains or computes one run into its folder."""
    if cell.variant.recipe is not None:
        with naming(cell.study, cell.variant):
            _train(cell)
        return
    from .. import report

    arguments = dict(cell.variant.options) | ({} if cell.seed is None else {"seed": cell.seed})
    began, cpu = time.monotonic(), time.process_time()
    found = dict(_function(cell.variant)(**arguments))
    rows = found.pop("rows", [])
    (cell.out / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report.write_json(cell.out / "metrics.json", found)
    report.write_json(cell.out / "run.json", {"minutes": (time.monotonic() - began) / 60, "cpu_minutes": (time.process_time() - cpu) / 60})


def _train(cell: Cell) -> None:
    from .. import report
    from ..metrics import average_precision, match_detections, score_bounds
    from ..training.cli import LossboxCLI

    if (cell.out / "run.json").is_file():  # the bounds alone are missing
        words = ["validate", "--config", str(cell.out / "config.yaml"), "--out", str(cell.out), "--ckpt_path", "last"]
        cli = LossboxCLI([*words, "--artifacts", "false"])
    else:
        cli = LossboxCLI([*_fit_words(cell), *resume(cell.out)])
    if cell.bounds:
        truth, found = cli.model.detected()
        ap = average_precision(truth, found)
        report.write_json(cell.out / "bounds.json", score_bounds(truth, found, matches=match_detections(truth, found), ap=ap))


def _share_cores(jobs: int) -> None:
    """Threads that outnumber the cores wait for each other; what the environment says goes first."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def _run_quietly(cell: Cell) -> None:
    """In a process of its own; what it prints goes to the log of the run."""
    with (cell.out / "log.txt").open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        run_one(cell)


def read_run(cell: Cell) -> Run:
    """The numbers of a run that is done, and the lines of its steps."""
    numbers: dict[str, Any] = {}
    for name in ("metrics", "run"):
        file = cell.out / f"{name}.json"
        if file.is_file():  # metrics.json is not there with trainer.limit_val_batches 0
            numbers |= {key: value for key, value in _read(file).items() if _is_result(key, value)}
    if cell.bounds:
        bounds = _read(cell.out / "bounds.json")
        numbers |= {name: bounds[name]["AP"] for name in ("upper", "lower")}
        numbers |= {f"{name}_{key}": value for name in ("upper", "lower") for key, value in bounds[name].items()}
    if cell.frequency:
        numbers |= ap_by_frequency(_read(cell.out / "metrics.json")["per_class"], _training_boxes(cell.out / "config.yaml"))
    steps = cell.out / "steps.jsonl"
    rows = [json.loads(line) for line in steps.read_text().splitlines()] if steps.is_file() else []
    return Run(cell.variant.name, cell.seed, numbers, rows)


def _training_boxes(config: Path) -> Counter[int]:
    """How many boxes of each category a run was trained on."""
    import yaml

    document = _read(Path(yaml.safe_load(config.read_text())["data"]["train_annotations"]))
    return Counter(one["category_id"] for one in document["annotations"] if not one.get("iscrowd"))


def _is_result(key: str, value: Any) -> bool:
    """A number, an undefined one, a list of numbers, or how it was computed."""
    numbers = value if isinstance(value, list) else [value]
    return key in ("precision", "accelerator") or all(one is None or isinstance(one, int | float) for one in numbers)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
