"""The runs of a study in numbers: means, spreads and paired differences over the seeds, and its curves in few points."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .claims import evaluate
from .study import Run

POINTS = 100
"""A curve is the means of at most so many blocks of steps."""


THIRDS = ("AP_rare", "AP_middle", "AP_frequent")
"""Numbers of a study: AP by how often a class is seen in training."""


def with_step_numbers(run: Run) -> Run:
    """The run with ``NAME_min``, ``_max``, ``_mean``, ``_median`` and ``_last`` of each column of its rows among its numbers.

    Example:
        >>> with_step_numbers(Run("a", 0, {}, [{"x": 1.0}, {"x": 3.0}, {"x": None}])).numbers
        {'x_min': 1.0, 'x_max': 3.0, 'x_mean': 2.0, 'x_median': 2.0, 'x_last': 3.0}
    """
    numbers = dict(run.numbers)
    for name in dict.fromkeys(name for row in run.rows for name in row):
        values = [row[name] for row in run.rows if is_number(row.get(name))]
        if values and name not in ("step", "epoch"):
            of = {"min": min(values), "max": max(values), "mean": statistics.fmean(values), "median": statistics.median(values)}
            numbers |= {f"{name}_{key}": float(value) for key, value in (of | {"last": values[-1]}).items()}
    return replace(run, numbers=numbers)


def runs_of(document: Mapping[str, Any]) -> list[Run]:
    """The runs in a file that ``lossbox compare`` wrote, without their steps."""
    return [Run(run["variant"], run["seed"], run, []) for run in document["runs"]]


def ap_by_frequency(per_class: Sequence[Mapping[str, Any]], boxes: Mapping[int, int]) -> dict[str, float]:
    """Mean AP of the third of the classes with the fewest training boxes, of the middle and of the third with the most.

    The middle has what is left where the number of classes is no multiple of three.

    Args:
        per_class: rows with ``id`` and ``AP``, of :func:`lossbox.metrics.evaluate`; classes without boxes to find are left out.
        boxes: of the training part by the id of the class.

    Example:
        >>> rows = [{"id": 1, "AP": 0.6}, {"id": 2, "AP": 0.2}, {"id": 3, "AP": 0.5}]
        >>> ap_by_frequency(rows, {1: 100, 2: 3, 3: 20})
        {'AP_rare': 0.2, 'AP_middle': 0.5, 'AP_frequent': 0.6}
    """
    aps = [row["AP"] for row in sorted(per_class, key=lambda row: boxes.get(row["id"], 0)) if is_number(row["AP"])]
    third = len(aps) // 3
    parts = (aps[:third], aps[third : len(aps) - third], aps[len(aps) - third :])
    return {name: statistics.fmean(part) if part else math.nan for name, part in zip(THIRDS, parts, strict=True)}


def check_one_precision(runs: Sequence[Run]) -> None:
    """Refuses to compare runs of several precisions.

    Raises:
        ValueError: two runs differ in ``precision``.
    """
    found = {run.numbers["precision"]: run.variant for run in runs if run.numbers.get("precision") is not None}
    if len(found) > 1:
        raise ValueError(f"precision: one for all runs expected, got {', '.join(f'{key} ({name})' for key, name in found.items())}")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def mean_and_spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and sample standard deviation; NaN where there is none; a whole number where all are the same one."""
    whole = len(set(values)) == 1 and isinstance(values[0], int)
    return {
        "mean": values[0] if whole else statistics.fmean(values) if values else math.nan,
        "deviation": statistics.stdev(values) if len(values) > 1 else math.nan,
    }


def summarize(runs: Sequence[Run], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Mean and sample standard deviation over the seeds, by variant.

    Args:
        runs: of all variants and seeds; what is undefined (None or NaN) is left out.
        names: the numbers.

    Returns:
        By variant: ``seeds``, and for each number ``{"mean": ..., "deviation": ...}``; the deviation of one run is NaN.

    Example:
        >>> summarize([Run("a", 0, {"AP": 0.4}, []), Run("a", 1, {"AP": 0.6}, [])], ["AP"])["a"]["AP"]["mean"]
        0.5
    """
    return {
        variant: {"seeds": [run.seed for run in of_variant]}
        | {name: mean_and_spread([run.numbers[name] for run in of_variant if is_number(run.numbers.get(name))]) for name in names}
        for variant, of_variant in _by_variant(runs).items()
    }


def paired_differences(runs: Sequence[Run], names: Sequence[str], baseline: str) -> dict[str, dict[str, Any]]:
    """Each variant less the baseline, seed by seed.

    Returns:
        By variant, without the baseline, and number: ``mean`` and ``deviation`` of the differences, and ``seeds``, how many there are.

    Example:
        >>> runs = [Run(name, seed, {"AP": ap + seed}, []) for seed in (0, 1) for name, ap in (("a", 0.4), ("b", 0.5))]
        >>> round(paired_differences(runs, ["AP"], "a")["b"]["AP"]["mean"], 3)
        0.1
    """
    groups = _by_variant(runs)
    base = {run.seed: run.numbers for run in groups[baseline]}
    found: dict[str, dict[str, Any]] = {}
    for variant, of_variant in groups.items():
        pairs = [(run.numbers, base[run.seed]) for run in of_variant if run.seed in base]
        if variant != baseline:
            found[variant] = {}
            for name in names:
                both = [(own[name], other[name]) for own, other in pairs if is_number(own.get(name)) and is_number(other.get(name))]
                differences = [own - other for own, other in both]
                found[variant][name] = mean_and_spread(differences) | {"seeds": len(differences)}
    return found


def curves(runs: Sequence[Run], x: str, y: Sequence[str], points: int = POINTS) -> list[dict[str, Any]]:
    """The columns ``x`` and ``y`` of each run's rows, or expressions of them, as means over at most ``points`` blocks, with six digits.

    Example:
        >>> curves([Run("a", 0, {}, [{"step": s, "L": 2.0 * s} for s in range(4)])], "step", ["L"], points=2)
        [{'variant': 'a', 'seed': 0, 'step': [0.5, 2.5], 'L': [1.0, 5.0]}]
    """
    found = []
    for run in runs:
        rows = [row for row in run.rows if is_number(row.get(x))]
        size = max(1, math.ceil(len(rows) / points))
        blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
        found.append({"variant": run.variant, "seed": run.seed} | {name: [_mean(block, name) for block in blocks] for name in (x, *y)})
    return found


def curves_of_runs(runs: Sequence[Run], x: str, y: Sequence[str]) -> list[dict[str, Any]]:
    """The numbers ``x`` and ``y`` of the runs, a curve for each seed and all variants whose names are the same up to the last comma.

    Example:
        >>> curves_of_runs([Run(f"a, {n} epochs", 0, {"epochs": n, "AP": n / 10}, []) for n in (2, 4)], "epochs", ["AP"])
        [{'variant': 'a', 'seed': 0, 'epochs': [2.0, 4.0], 'AP': [0.2, 0.4]}]
    """
    lines: dict[tuple[str, int | None], list[Run]] = {}
    for run in runs:
        lines.setdefault((run.variant.rpartition(",")[0] or run.variant, run.seed), []).append(run)
    return [
        {"variant": variant, "seed": seed} | {name: [_mean([run.numbers], name) for run in of_line] for name in (x, *y)}
        for (variant, seed), of_line in lines.items()
    ]


def by_rank(runs: Sequence[Run]) -> dict[str, dict[str, list[list[float]]]]:
    """Of each variant the columns that hold lists, as means over the runs and the first, second and last third of their rows.

    Example:
        >>> by_rank([Run("a", 0, {}, [{"step": s, "rank_iou": [0.25, 0.75]} for s in range(3)])])
        {'a': {'rank_iou': [[0.25, 0.75], [0.25, 0.75], [0.25, 0.75]]}}
    """
    found: dict[str, dict[str, list[list[float]]]] = {}
    for variant, of_variant in _by_variant(runs).items():
        listed = [
            name for name in dict.fromkeys(name for run in of_variant for row in run.rows for name in row) if name.startswith("rank_")
        ]
        for name in listed:
            thirds: list[list[list[float]]] = [[], [], []]
            for run in of_variant:
                for place, row in enumerate(run.rows):
                    if all(is_number(share) for share in row.get(name, [None])):
                        thirds[3 * place // len(run.rows)].append(row[name])
            means = [[_short(statistics.fmean(column)) for column in zip(*third, strict=True)] for third in thirds]
            found.setdefault(variant, {})[name] = means
    return found


def _mean(block: Sequence[Mapping[str, Any]], name: str) -> float | None:
    found = [row[name] if name in row else evaluate(name, row) for row in block]
    values: list[float] = [value for value in found if is_number(value)]
    return _short(statistics.fmean(values)) if values else None


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _by_variant(runs: Sequence[Run]) -> dict[str, list[Run]]:
    return {variant: [run for run in runs if run.variant == variant] for variant in dict.fromkeys(run.variant for run in runs)}
