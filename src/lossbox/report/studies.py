"""The results of ``lossbox compare`` as tables and curves."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._canvas import plain, pyplot, save_figure
from .tables import accuracy_table, spread


def print_study(result: Mapping[str, Any]) -> None:
    """Prints a study: what the paper saw, the means, the paired differences, and what had to hold."""
    for name in ("title", "paper"):
        if result[name]:
            print(textwrap.fill(f"{'The paper: ' if name == 'paper' else ''}{result[name]}", 120) + "\n")
    print(accuracy_table(result["summary"], result["measure"], title=_heading(result)))
    if table := difference_table(result):
        print(f"\nLess {result['baseline']}, seed by seed:\n\n{table}")
    for line in check_lines(result):
        print(line)
    print()


def _heading(result: Mapping[str, Any]) -> str:
    return "recipe" if result["study"] == "accuracy" else "variant"


def difference_table(result: Mapping[str, Any]) -> str:
    """Each variant less the baseline as a markdown table; empty where there is one variant alone, or where nothing is drawn at random."""
    rows = result["differences"]
    if not rows or all(run["seed"] is None for run in result["runs"]):
        return ""
    names = result["measure"]
    lines = [f"| {_heading(result)} | " + " | ".join(names) + " | pairs |", "|---" * (len(names) + 2) + "|"]
    for variant, row in rows.items():
        pairs = max(row[name]["seeds"] for name in names)
        lines.append(f"| {variant} | " + " | ".join(spread(row[name], "+") for name in names) + f" | {pairs} |")
    return "\n".join(lines)


def check_lines(result: Mapping[str, Any]) -> list[str]:
    """A line for each rule: that it held, and over how much, or how often it did not."""
    lines = [""] if result["checks"] else []
    every = {run["variant"] for run in result["runs"]}
    for check in result["checks"]:
        of = "" if set(check["of"]) == every else f" ({', '.join(check['of'])})"
        said = f"held, {check['checked']} checked" if not check["violations"] else f"VIOLATED {len(check['violations'])} times"
        lines.append(f"{said}: {check['rule']}{of}")
    return lines


def draw_study(result: Mapping[str, Any], path: Path) -> Path:
    """Draws the columns that a study names: a panel for each, a line for each run, the color says the variant.

    Args:
        result: as ``lossbox compare`` writes it, with ``plot`` and ``curves``.
        path: of the image, .png or .svg.

    Returns:
        ``path``.
    """
    plot = result["plot"]
    names = plot["y"]
    figure, panels = pyplot().subplots(1, len(names), figsize=(max(4.5 * len(names), 6), 3.8), squeeze=False, layout="constrained")
    colors = {variant: f"C{number % 10}" for number, variant in enumerate(dict.fromkeys(row["variant"] for row in result["curves"]))}
    for panel, name in zip(panels[0], names, strict=True):
        for variant, color in colors.items():
            rows = [row for row in result["curves"] if row["variant"] == variant]
            for row in rows:
                points = [(x, y) for x, y in zip(row[plot["x"]], row[name], strict=True) if y is not None]
                label = plain(variant) if row is rows[0] else None
                panel.plot([x for x, _ in points], [y for _, y in points], color=color, linewidth=1.2, alpha=0.8, label=label)
        panel.set(title=name.replace("_", " "), xlabel=plot["x"])
        if name in plot.get("log", ()):
            panel.set_yscale("log")
        panel.grid(alpha=0.3)
    panels[0][0].legend(fontsize=7)
    return save_figure(figure, path)
