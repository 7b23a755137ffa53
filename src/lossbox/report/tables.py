"""Numbers as JSON, CSV and tables."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..metrics.evaluator import to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    """Writes strict JSON and makes the folder; what is undefined (NaN) becomes ``null``.

    Args:
        path: the file.
        content: nested dicts and lists of numbers and text.
        indent: spaces a level; None for one line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "new" / "metrics.json"
        >>> write_json(path, {"AP": 0.5, "rho": float("nan")})
        >>> path.read_text().split()
        ['{', '"AP":', '0.5,', '"rho":', 'null', '}']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")  # so that another process sees the whole file or none
    new.write_text(to_json(content, indent=indent) + "\n")
    new.replace(path)


def print_metrics(metrics: Mapping[str, Any], *, per_class: bool = True) -> None:
    """Prints the COCO block, and optimal LRP with its components on average and, if asked, for each class."""
    from rich.console import Console

    console = Console()
    console.print(_ap_table(metrics))
    console.print(_olrp_table(metrics, per_class=per_class))


_AP_ROWS = {
    "AP": "IoU 0.50:0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "AP90": "IoU 0.90",
    "APs": "small, area < 32²",
    "APm": "medium, 32² to 96²",
    "APl": "large, area > 96²",
    "AR1": "1 detection per image",
    "AR10": "10 detections per image",
    "AR100": "100 detections per image",
}


def _ap_table(metrics: Mapping[str, Any]) -> Table:
    """The COCO block of ``lossbox.metrics.evaluate`` as a table."""
    from rich.table import Table

    table = Table(title="COCO average precision and recall", title_justify="left", show_header=False)
    for justify in ("left", "left", "right"):
        table.add_column(justify=justify)
    for name, meaning in _AP_ROWS.items():
        table.add_row(name, meaning, number(metrics[name]))
    return table


def _olrp_table(metrics: Mapping[str, Any], *, per_class: bool = True) -> Table:
    """Optimal LRP (0 is perfect, 1 is nothing found) of the mean and, if asked, each class, with what it is made of."""
    from rich.table import Table

    caption = "Loc: mean 1 - IoU of the true positives; FP: 1 - precision; FN: 1 - recall; all with the scores from `cut` on"
    table = Table("class", title="Optimal LRP (lower is better)", title_justify="left", caption=caption, caption_justify="left")
    for column in ("boxes", "AP", "AP50", "oLRP", "Loc", "FP", "FN", "cut"):
        table.add_column(column, justify="right")
    for row in metrics["per_class"] if per_class else ():
        numbers = (row[key] for key in ("AP", "AP50", "oLRP", "localization", "false_positive", "false_negative", "threshold"))
        table.add_row(row["name"], str(row["num_ground_truth"]), *map(number, numbers))
    means = (metrics[key] for key in ("AP", "AP50", "oLRP", "oLRP_localization", "oLRP_false_positive", "oLRP_false_negative"))
    table.add_section()
    table.add_row("mean", str(sum(row["num_ground_truth"] for row in metrics["per_class"])), *map(number, means), "", style="bold")
    return table


def number(value: float | None) -> str:
    """Three decimals; a dash where it is undefined."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def wide_console() -> Console:
    """A console for tables that are searched: as wide as its terminal, or as the table needs where the output is no terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=1000)


COMPARED = ("AP", "AP50", "AP75", "oLRP", "rho")
"""The numbers of which tables of several runs have a column."""


def accuracy_table(summary: Mapping[str, Mapping[str, Any]], columns: Sequence[str] = COMPARED, *, title: str = "recipe") -> str:
    """A summary (``lossbox.analysis.summarize``) as a markdown table: mean ± standard deviation, a line for each variant."""
    lines = [f"| {title} | " + " | ".join(columns) + " | seeds |", "|---" * (len(columns) + 2) + "|"]
    lines += [
        f"| {name} | " + " | ".join(spread(row[column]) for column in columns) + f" | {len(row['seeds'])} |"
        for name, row in summary.items()
    ]
    return "\n".join(lines)


def spread(cell: Mapping[str, float | None], sign: str = "") -> str:
    """Mean ± standard deviation of a cell of a summary: three digits behind the point, none from 100 on, powers of ten for what is tiny.

    Example:
        >>> spread({"mean": 0.5, "deviation": 0.01}), spread({"mean": 1234.5, "deviation": None}), spread({"mean": 1e-7, "deviation": 0.0})
        ('0.500 ± 0.010', '1234', '1.00e-07 ± 0.00e+00')
    """
    mean, deviation = cell["mean"], cell["deviation"]
    if mean is None or math.isnan(mean):
        return "-"
    if isinstance(mean, int):
        form = "d"
    else:
        form = ".3f" if mean == 0 or 5e-4 <= abs(mean) < 100 else ".0f" if 100 <= abs(mean) < 1e6 else ".2e"
    behind = "" if deviation is None or math.isnan(deviation) or isinstance(mean, int) else f" ± {deviation:{form}}"
    return f"{mean:{sign}{form}}{behind}"
