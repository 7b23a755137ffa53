"""``lossbox compare``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..messages import near_name
from .command import Folder, NewFile, NewFolder, command
from .recipes import find_recipe, shipped_recipes

if TYPE_CHECKING:
    from ..analysis import Run, Study

RECIPES = "accuracy"
"""The name of the study that several recipes make."""


def compare(
    names: Sequence[str],
    *,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
    data: Folder | None = None,
    minutes: float | None = None,
    out: NewFolder | None = None,
    json: NewFile | None = None,
    jobs: int = 1,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Trains recipes with several seeds and compares them, or runs a study of the papers.

    Prints mean and standard deviation over the seeds, after the last epoch (nothing is picked by its validation result), and differences
    to the first one, seed by seed. Interrupted, it skips what is finished and resumes what is not. Each run has a folder with its recipe, a
    line of JSON for each step (steps.jsonl) and checkpoints. Any option of `lossbox fit` may follow and holds for all runs.

    A study is a YAML (or JSON) file of some 20 lines: what is compared, what is measured, what must hold. Where something that must hold
    does not, the command names run, step and value, and ends with 2. One of your own is given by its path; these ship:

      ablation            aLRP step by step: AP loss, ranked boxes, self-balance, GIoU, ATSS (Table 2)
      ap-variants         AP loss with three box losses, with and without self-balance (Table A.12)
      balance             how hard each loss pushes negatives and positives, step by step (Figure 4)
      balancing           self-balance beside constant and learned weights, and its first weight (Tables 3, 4)
      bounds              AP if the scores were in order of the IoU, and in inverse order (Table 5)
      curves              the two parts of the loss and the self-balance over training (Figure 3)
      detectors           four detectors with their own losses, AP loss and aLRP (Tables 6, 8)
      epochs-faster-rcnn  Faster R-CNN by length of training: does aLRP catch up with its baseline
      epochs-foveabox     FoveaBox by length of training: where aLRP and its baseline cross
      hyper-parameters    how many each combination of losses has (Tables 1, A.11)
      long-tail           AP of rare and frequent classes: one ranking of all scores, or one for each class
      regression-curves   smooth and balanced L1 at several beta, the widely used wrong form beside the right one
      score-memory        batches of two and four images, ranked with or without the scores of the last steps
      time                seconds per step by loss, the same network (Section 5.1)
      toy                 three detectors that only aLRP and AP tell apart (Figure 1)
      wrong-target        aLRP with a target error of 0: the balance breaks (Figure A.7)

    Args:
        names: of recipes, or of one study; or their paths
        seeds: of the trainings (default: 0 1 2, or those of the study)
        only: some variants of a study, by name; aLRP* names several
        data: a folder of your own images, as `lossbox fit` takes it; the embedded digits by default
        minutes: so long may all trainings take; all get the same number of epochs, at least 1, by the time that a few steps take
        out: holds a folder for each run (default: runs/compare, or runs/studies/STUDY)
        json: where the results are written (default: OUT/accuracy.json, or OUT/STUDY.json)
        jobs: trainings at a time, each a process with its share of the cores and a log.txt in its folder: for a GPU, or small images
        overrides: options of `lossbox fit` with their values, for all runs

    Returns:
        What was written: ``study``, ``title``, ``source``, ``paper``, ``command``, ``machine``; ``summary``, ``differences``, ``curves``
        and ``by_rank``, see ``lossbox.analysis``; ``checks``, what must hold; ``runs``, the numbers of each; ``files``, where they are.

    Raises:
        ValueError: fewer than one training at a time, minutes that are not > 0, no study, folders that hold other runs.
        FileNotFoundError: a recipe that is not there.
        ChildProcessError: a training in a process of its own failed.
    """
    if jobs < 1:
        raise ValueError(f"jobs: a number >= 1 expected, got {jobs}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes: a number > 0 expected, got {minutes:g}")
    study = find_study(names, only)
    seeds = study.seeds if seeds is None else seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: at least one, each once, expected, got {' '.join(map(str, seeds)) or 'none'}")
    from . import grid, grid_options

    folder = Path(out or ("runs/compare" if study.name == RECIPES else f"runs/studies/{study.name}"))
    grid.check_calls(study)
    words = [*grid_options.data_options(study, data, folder, overrides), *overrides]
    if minutes is not None:
        words += grid_options.epochs_option(study, minutes * 60 * jobs / max(len(seeds), 1), folder, words)
    cells = grid.cells_of(study, seeds, folder, words)
    grid.prepare(cells)
    grid.run_all(study, cells, jobs)
    given = [("--seeds", *map(str, seeds)), *([("--only", *only)] if only else [])]
    given += [(f"--{key}", str(value)) for key, value in (("data", data), ("minutes", minutes)) if value]
    line = shlex.join(["lossbox", "compare", *names, *(word for option in given for word in option), *overrides])
    return _written(study, cells, line, folder, Path(json or folder / f"{study.name}.json"))


def _written(study: Study, cells: Sequence[Any], line: str, folder: Path, json: Path) -> dict[str, Any]:
    """The results of the runs, as JSON and drawn."""
    from .. import analysis, report
    from .grid import naming, read_run

    runs = [analysis.with_step_numbers(read_run(cell)) for cell in cells]
    analysis.check_one_precision(runs)
    with naming(study.file):
        _check_named(study, runs)
        checks = analysis.check(study, runs)
    draw = analysis.curves_of_runs if (study.plot or {}).get("of") == "runs" else analysis.curves
    result = {
        "study": study.name,
        "title": study.title,
        "source": study.source,
        "paper": study.paper,
        "command": line,
        "machine": machine(),
        "measure": list(study.measure),
        "baseline": study.baseline,
        "plot": study.plot,
        "summary": analysis.summarize(runs, study.measure),
        "differences": analysis.paired_differences(runs, study.measure, study.baseline),
        "checks": checks,
        "curves": draw(runs, study.plot["x"], study.plot["y"]) if study.plot else [],
        "by_rank": analysis.by_rank(runs),
        "runs": [{"variant": run.variant, "seed": run.seed, **run.numbers} for run in runs],
    }
    report.write_json(json, result)
    files = [str(json)]
    if study.plot:
        files.append(str(report.draw_study(result, folder / f"{study.name}.png")))
    return result | {"files": files}


def _check_named(study: Study, runs: Sequence[Run]) -> None:
    """Raises ValueError where the study names a number that no run has; the runs stay, so that a study with another name goes on."""
    from ..analysis import Numbers, check_numbers
    from .grid_numbers import of_validation

    known = {variant: Numbers.of([run for run in runs if run.variant == variant]) for variant in {run.variant for run in runs}}
    trained = {variant.name for variant in study.variants if variant.recipe is not None}
    for name in trained & known.keys():
        if "AP" not in known[name].of_run:  # trainer.limit_val_batches 0: there is nothing to show, and no wrong name
            known[name] = Numbers({*known[name].of_run, *of_validation()}, known[name].of_steps)
    check_numbers(study, known)


def find_study(names: Sequence[str], variants: Sequence[str] | None = None) -> Study:
    """The study of a name or path, or some variants of it; or several recipes as a study.

    Raises:
        FileNotFoundError: neither; names the studies and recipes that ship.
        ValueError: a study beside other names, two recipes of one name, variants that are not there.
    """
    from ..analysis import Study, Variant, only, read_study, shipped_studies
    from ..analysis.study import holds_a_study

    shipped = shipped_studies()
    if studies := [name for name in names if name in shipped or holds_a_study(Path(name))]:
        if len(names) > 1:
            raise ValueError(f"names: a study stands alone, got {' '.join(names)}")
        file = Path(studies[0])
        study = read_study(shipped[studies[0]]) if studies[0] in shipped else replace(read_study(file), file=file)
        return study if variants is None else only(study, variants)
    if variants is not None:
        raise ValueError(f"only: a study expected, whose variants it chooses, got {' '.join(names)}")
    files = []
    for name in names:
        try:
            files.append(find_recipe(name))
        except FileNotFoundError:
            lists = "`lossbox compare --help` lists the studies, `lossbox fit --help` the recipes"
            near = near_name(name, [*shipped, *(path.stem for path in shipped_recipes())], otherwise=lists)
            raise FileNotFoundError(f"names: no file {name}, and no study or recipe of that name ships with lossbox{near}") from None
    recipes = {file.stem: Variant(file.stem, str(file), None, {}) for file in files}
    if len(recipes) < len(files):
        raise ValueError(f"names: recipes of different names expected, got {' '.join(names)}")
    from ..report import COMPARED

    return Study(RECIPES, "recipes on the same data", tuple(recipes.values()), COMPARED, baseline=files[0].stem)


def show_comparison(result: Mapping[str, Any]) -> None:
    """Prints the tables, what must hold, and where the numbers are.

    Raises:
        ValueError: something that must hold does not.
    """
    from .. import report

    report.print_study(result)
    print(f"written to {', '.join(result['files'])}")
    violated = [(check, violation) for check in result["checks"] for violation in check["violations"]]
    if violated:
        check, first = violated[0]
        where = "".join(f", {key} {first[key]}" for key in ("seed", "step") if first.get(key) is not None)
        raise ValueError(
            f"{len(violated)} violations of what must hold; the first: run {first['variant']}{where}: {check['rule']}; "
            f"found {first['found']}"
        )


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
        **{name: os.environ[name] for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS") if name in os.environ},
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "torchvision", "lightning")},
    }


run = command(compare, show_comparison)
