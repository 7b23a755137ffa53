"""Numbers as JSON, CSV and tables."""

from __future__ import annotations

import math
import os
import statistics
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


def summarize(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and sample standard deviation over the seeds, by recipe.

    Args:
        runs: each with ``recipe``, ``seed`` and the numbers named in ``COMPARED``; None where undefined, which is left out.

    Returns:
        By recipe: ``seeds``, and for each number ``{"mean": ..., "deviation": ...}``; the deviation of one run is NaN.

    Example:
        >>> rows = [dict(recipe="a", seed=s, AP=ap, AP50=1.0, AP75=1.0, oLRP=0.0, rho=0.0) for s, ap in ((0, 0.4), (1, 0.6))]
        >>> summarize(rows)["a"]["AP"]["mean"]
        0.5
    """
    summary: dict[str, dict[str, Any]] = {}
    for recipe in dict.fromkeys(run["recipe"] for run in runs):
        of_recipe = [run for run in runs if run["recipe"] == recipe]
        summary[recipe] = {"seeds": [run["seed"] for run in of_recipe]}
        for name in COMPARED:
            values = [run[name] for run in of_recipe if run[name] is not None]
            mean = statistics.fmean(values) if values else math.nan
            summary[recipe][name] = {"mean": mean, "deviation": statistics.stdev(values) if len(values) > 1 else math.nan}
    return summary


def accuracy_table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """The summary as a markdown table: mean ± standard deviation, one line a recipe."""
    lines = ["| recipe | " + " | ".join(COMPARED) + " | seeds |", "|---" * (len(COMPARED) + 2) + "|"]
    for recipe, row in summary.items():
        cells = []
        for name in COMPARED:
            mean, deviation = row[name]["mean"], row[name]["deviation"]
            spread = "" if deviation is None or math.isnan(deviation) else f" ± {deviation:.3f}"
            cells.append("-" if mean is None or math.isnan(mean) else f"{mean:.3f}{spread}")
        lines.append(f"| {recipe} | " + " | ".join(cells) + f" | {len(row['seeds'])} |")
    return "\n".join(lines)
