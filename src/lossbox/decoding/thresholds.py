"""The file of score thresholds: a CSV with the columns ``category_id``, ``name`` and ``threshold``, one row per class."""

from __future__ import annotations

import csv
import math
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = ("category_id", "name", "threshold")


def write_thresholds(path: str | os.PathLike[str], metrics: Mapping[str, Any]) -> None:
    """Writes the LRP-optimal score of each class, and nothing for a class that has no true positive.

    Args:
        path: of the file; its folder is made.
        metrics: what ``lossbox.metrics.evaluate`` returns; its ``per_class`` has ``id``, ``name`` and ``threshold``.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "run" / "thresholds.csv"
        >>> per_class = [{"id": 1, "name": "spoon", "threshold": float("nan")}, {"id": 3, "name": "cup", "threshold": 0.6}]
        >>> write_thresholds(path, {"per_class": per_class})
        >>> read_thresholds(path)
        {1: nan, 3: 0.6}
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in metrics["per_class"]:
            threshold = row["threshold"]
            writer.writerow((row["id"], row["name"], "" if threshold is None or math.isnan(threshold) else threshold))


def read_thresholds(path: str | os.PathLike[str]) -> dict[int, float]:
    """The score from which a detection of each class is kept.

    Args:
        path: what ``lossbox evaluate --thresholds`` or ``lossbox validate`` wrote. Only ``category_id`` and ``threshold`` are read.

    Returns:
        By category id, ascending as labels are; NaN where the file has none: no score of such a class was ever right, and ``Decoder``
        returns nothing of it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, an id is no whole number or occurs twice, or a threshold is no number in [0, 1]; names the line.
    """
    found: dict[int, float] = {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        try:
            missing = [name for name in ("category_id", "threshold") if name not in (rows.fieldnames or ())]
            if missing:
                got = reprlib.repr(rows.fieldnames) if rows.fieldnames else "an empty file"  # a JSON file is one long line
                wanted = f"thresholds are a CSV file with the columns {', '.join(COLUMNS)}"
                raise ValueError(f"{path}: line 1: a column {missing[0]!r} expected, got {got}; {wanted}")
            for row in rows:
                where = f"{path}: line {rows.line_num}"
                category_id, threshold = _whole(row["category_id"], where), _threshold(row["threshold"], where)
                if category_id in found:
                    raise ValueError(f"{where}: category_id {category_id} occurs twice")
                found[category_id] = threshold
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: is not CSV: {error}") from error
    return dict(sorted(found.items()))


def _whole(cell: str | None, where: str) -> int:
    try:
        return int(cell or "")
    except ValueError:
        raise ValueError(f"{where}: category_id must be a whole number, got {reprlib.repr(cell)}") from None


def _threshold(cell: str | None, where: str) -> float:
    if cell is not None and not cell.strip():
        return math.nan
    try:
        value = float(cell or "")
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(
            f"{where}: threshold must be a number in [0, 1], or empty to return nothing of this class, got {reprlib.repr(cell)}"
        )
    return value
