"""The log of a run: what Lightning's CSVLogger wrote, one file for each start of the run, read as one."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

Row = dict[str, float]
Curves = dict[str, tuple[list[int], list[float]]]


def read_log(run: Path) -> list[Row]:
    """The rows of ``csv/version_*/metrics.csv`` in the order of the steps, cells that are empty or not finite left out.

    A run that was interrupted and resumed has one file for each start. From the step on where a later file begins, the earlier ones are
    dropped.

    Args:
        run: the folder of the run.

    Returns:
        A row for each time something was logged: ``step`` (from 0), ``epoch`` (from 0) and what was logged; none where there is no file.

    Raises:
        ValueError: a file that holds something else; it is named.
    """
    rows: list[Row] = []
    for file in sorted(run.glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1])):
        with file.open(newline="") as opened:
            try:
                new = [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(opened)]
            except (ValueError, TypeError, csv.Error) as error:
                raise ValueError(f"{file}: the numbers of a training's log expected: {error}") from error
        first = min((row["step"] for row in new), default=math.inf)
        rows = [row for row in rows if row["step"] < first]
        rows += [{name: value for name, value in row.items() if math.isfinite(value)} for row in new]
    return rows


def read_curves(run: Path) -> Curves:
    """The log of a run by what was logged: ``{name: (steps, values)}``, undefined values left out.

    Raises:
        FileNotFoundError: the folder holds no CSV log.
    """
    rows = read_log(run)
    if not rows:
        raise FileNotFoundError(f"run: no log (csv/version_*/metrics.csv) in {run}; `lossbox fit --out {run}` writes one")
    points: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "epoch"):
                points.setdefault(name, {})[int(row["step"])] = value
    return {name: (list(series), list(series.values())) for name, series in points.items()}


def write_results(run: Path) -> Path | None:
    """Writes ``results.csv``, a row for each epoch, from the log of a run.

    A row holds ``epoch`` (from 1), ``step`` (the steps made so far) and what was logged in the epoch: the mean of what is logged per step
    (``train/...``, ``weight/...``, ``gradient_balance``), the last of everything else. What is undefined is an empty cell. The file is
    replaced as a whole, never half written.

    Args:
        run: the folder of the run.

    Returns:
        The path of the file; None where there is no log.
    """
    log = read_log(run)
    # a validation after the training is logged as of an epoch that was not trained, and belongs to the last one that was
    trained = [row["epoch"] for row in log if not all(name in ("step", "epoch") or name.startswith("val/") for name in row)]
    last = max(trained, default=math.inf)
    epochs: dict[float, dict[str, list[float]]] = {}
    for row in log:
        columns = epochs.setdefault(min(row["epoch"], last), {})
        for name, value in row.items():
            if name != "step" or row["epoch"] <= last:
                columns.setdefault(name, []).append(value)
    if not epochs:
        return None
    rows = [
        {"epoch": f"{int(epoch) + 1}", "step": f"{int(max(columns['step'])) + 1}"}
        | {name: f"{_of_the_epoch(name, values):.6g}" for name, values in columns.items() if name not in ("epoch", "step")}
        for epoch, columns in sorted(epochs.items())
    ]
    path, partial = run / "results.csv", run / "results.partial"
    with partial.open("w", newline="") as file:
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(file, sorted(names, key=lambda name: "/" in name))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)
    return path


def _of_the_epoch(name: str, values: list[float]) -> float:
    return sum(values) / len(values) if name.startswith(("train/", "weight/")) or name == "gradient_balance" else values[-1]
