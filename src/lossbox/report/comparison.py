"""Runs side by side: which belong together, how far their numbers spread, and in what their recipes differ."""

from __future__ import annotations

import json
import math
import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..metrics import compare_detections
from .runs import Run, same_truth

NUMBERS = {
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "oLRP": "oLRP",
    "oLRP_localization": "Loc",
    "oLRP_false_positive": "FP",
    "oLRP_false_negative": "FN",
    "rho": "rho",
}
"""The numbers of a run in tables, and what heads their columns."""

_OF_THE_RUN = ("seed_everything", "out", "ckpt_path", "config")
"""Options in which the runs of one recipe differ."""


def options_of(run: Run) -> dict[str, str]:
    """The options of a run by their dotted names, as text; without those that differ between the seeds of one recipe.

    A path in the folder of the run begins with ``OUT``.
    """
    flat: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                add(f"{name}.{key}" if name else str(key), inner)
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            inside = isinstance(value, str) and text.startswith(f"{run.config.get('out')}{os.sep}")
            flat[name] = f"OUT{text[len(str(run.config['out'])) :]}" if inside else text

    add("", {key: value for key, value in run.config.items() if key not in _OF_THE_RUN})
    return flat


def group_runs(runs: Sequence[Run]) -> list[int]:
    """The group of each run, from 0 in the order of their first runs: those whose options are equal but for seed and folder.

    Runs without a recipe, as detections of other programs, are groups of their own.
    """
    groups: dict[Any, int] = {}
    keys = [tuple(sorted(options_of(run).items())) if run.config else (number,) for number, run in enumerate(runs)]
    return [groups.setdefault(key, len(groups)) for key in keys]


def name_groups(names: Sequence[str], groups: Sequence[int]) -> list[str]:
    """What the names of the runs of each group begin with.

    Example:
        >>> name_groups(["focal/seed-0", "focal/seed-1", "alrp/seed-0"], [0, 0, 1])
        ['focal', 'alrp/seed-0']
        >>> name_groups(["focal-0", "focal-1", "mine", "yours"], [0, 0, 1, 1])
        ['focal', 'mine and 1 more']
    """
    found: list[str] = []
    for group in range(max(groups, default=-1) + 1):
        members = [name for name, of in zip(names, groups, strict=True) if of == group]
        shared = os.path.commonpath(members) or _common_start(members).rstrip("-_. ")
        name = members[0] if len(members) == 1 else shared or f"{members[0]} and {len(members) - 1} more"
        found.append(name if name not in found else f"{name} ({group + 1})")
    return found


def _common_start(names: Sequence[str]) -> str:
    return "".join(letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))


def spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and sample standard deviation of what is defined; None without it.

    Example:
        >>> spread([0.5, 1.0, None])["mean"], spread([0.5])["deviation"]
        (0.75, None)
    """
    defined = [value for value in values if value is not None]
    mean = statistics.fmean(defined) if defined else None
    return {"mean": mean, "deviation": statistics.stdev(defined) if len(defined) > 1 else None}


def paired_runs(runs: Sequence[Run]) -> list[tuple[int, int]]:
    """Which runs to compare image by image, as places in ``runs``: the baseline, then the other.

    The first recipe is the baseline of every other one: its first run that of their first run, and so on. Of one recipe alone, the first
    run is the baseline of the others. Runs that were validated on different annotations are no pair.
    """
    groups = group_runs(runs)
    members = [[run for run, of in enumerate(groups) if of == group] for group in range(max(groups, default=-1) + 1)]
    if len(members) == 1:
        pairs = [(members[0][0], other) for other in members[0][1:]]
    else:
        pairs = [pair for others in members[1:] for pair in zip(members[0], others, strict=False)]
    return [(base, other) for base, other in pairs if same_truth(runs[base], runs[other])]


def interval_rows(base: Run, other: Run, *, tau: float, resamples: int) -> list[dict[str, Any]]:
    """The differences of AP, AP50 and oLRP of two runs with their 95 % intervals, see :func:`lossbox.metrics.compare_detections`."""
    assert base.truth is not None
    assert base.found is not None
    assert other.found is not None
    metrics = compare_detections(base.truth, base.found, other.found, tau=tau, resamples=resamples)["metrics"]
    names = {"base": base.name, "name": other.name}
    rows = [{"number": number, **metrics[number], **names} for number in ("AP", "AP50", "oLRP")]
    return [row for row in rows if not math.isnan(row["difference"] + row["lower"] + row["upper"])]


def differing_options(runs: Sequence[Run], groups: Sequence[int]) -> list[tuple[str, list[str]]]:
    """The options in which the groups differ, each with the text of every group; empty where a group has no such option."""
    first = [options_of(runs[groups.index(group)]) for group in range(max(groups, default=-1) + 1)]
    names = dict.fromkeys(name for options in first for name in options)
    rows = [(name, [options.get(name, "") for options in first]) for name in names]
    return [(name, texts) for name, texts in rows if len(set(texts)) > 1]


def commands_of(run: Run) -> list[tuple[str, str]]:
    """What to type to see this run again: what each command does, and the command."""
    folder = str(run.folder)
    commands = []
    typed = run.facts.get("command")
    if typed:
        place = run.facts.get("folder")
        commands.append(("as it was trained" + (f", in {place}" if place else ""), shlex.join(["lossbox", *typed])))
    if run.config:
        config = str(run.folder / "config.yaml")
        fresh = [] if run.config.get("ckpt_path") is None else ["--ckpt_path", "null"]
        again = f"{folder.rstrip('/')}-again"
        commands.append(("the same from its resolved recipe", shlex.join(["lossbox", "fit", "--config", config, "--out", again, *fresh])))
        if not run.facts and (run.folder / "checkpoints" / "last.ckpt").is_file():
            commands.append(("to its end", shlex.join(["lossbox", "fit", "--config", config, "--ckpt_path", "last"])))
        if run.metrics is not None:
            commands.append(("its numbers", shlex.join(["lossbox", "validate", "--config", config])))
    if run.truth is not None and run.config:
        files = [str(run.folder / name) for name in ("ground_truth.json", "detections.json")]
        commands.append(("its numbers, without the detector", shlex.join(["lossbox", "evaluate", *files, "--per-class"])))
    return commands


def report_command(paths: Sequence[Path], out: Path, *, tau: float = 0.5) -> str:
    """The command that writes a report."""
    return shlex.join(["lossbox", "report", *map(str, paths), "--out", str(out), *([] if tau == 0.5 else ["--iou", f"{tau:g}"])])
