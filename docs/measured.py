"""Numbers and tables of the pages, out of benchmarks/results: a page never states a measured number of its own."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
NUMBER = re.compile(r"\{\{\s*(\w+)\s+([\w.]+)(?:\s+(\d))?\s*\}\}")
TABLE = re.compile(r"<!-- (accuracy|speed|overlap) (\w+)((?: \w+)*) -->")


def fill(markdown: str) -> str:
    """``{{file path.to.number 2}}`` becomes the number with so many digits (3 if not said); ``<!-- accuracy file -->`` a table."""
    markdown = NUMBER.sub(lambda match: f"{number(match[1], match[2]):.{match[3] or 3}f}", markdown)
    return TABLE.sub(lambda match: TABLES[match[1]](match[2], match[3].split()), markdown)


@functools.cache
def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def number(name: str, path: str) -> float:
    """A number of a result file; a part of the path indexes a list where it is one."""
    found = read(name)
    for part in path.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return float(found)


def accuracy_table(name: str, only: list[str]) -> str:
    """Mean and, where there are several seeds, standard deviation, best AP first; only recipes with one of the words in their name."""
    summary = {k: row for k, row in read(name)["summary"].items() if not only or any(word in k for word in only)}
    columns = ("AP", "AP50", "AP75", "oLRP", "rho")
    lines = [f"| recipe | {' | '.join(columns)} | seeds |", "|---|" + "---|" * (len(columns) + 1)]
    for recipe, row in sorted(summary.items(), key=lambda item: -item[1]["AP"]["mean"]):
        cells = [_with_spread(row[column]) for column in columns]
        lines.append(f"| `{recipe}` | {' | '.join(cells)} | {len(row['seeds'])} |")
    return "\n".join(lines)


def _with_spread(cell: dict[str, float | None]) -> str:
    spread = cell["deviation"]
    return f"{cell['mean']:.3f}" + (f" ± {spread:.3f}" if spread is not None else "")


def speed_table(name: str, _: list[str]) -> str:
    """Times of the ranking losses as multiples of torchvision's focal loss on the same logits."""
    losses = ("ap_loss", "alrp_loss", "ndcg_loss", "rank_sort_loss", "alrp_loop")
    titles = ("AP", "aLRP", "NDCG", "Rank & Sort", "aLRP, published loop")
    lines = [f"| positives | negatives | focal loss, ms | {' | '.join(titles)} |", "|---|---|---|" + "---|" * len(titles)]
    for row in read(name)["rows"]:
        if "ratio_to_focal" in row:
            cells = [f"{row['ratio_to_focal'][loss]:.2f} x" if loss in row["ratio_to_focal"] else "-" for loss in losses]
            lines.append(f"| {row['positives']:,} | {row['negatives']:,} | {row['ms']['sigmoid_focal_loss']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def overlap_table(name: str, steps: list[str]) -> str:
    """Mean IoU of boxes that each box loss has moved for so many steps, by how they started."""
    kinds = ("near", "far", "disjoint")
    titles = [f"{kind}, {step} steps" for kind in kinds for step in steps]
    lines = [f"| loss | learning rate | {' | '.join(titles)} |", "|---|---|" + "---|" * len(titles)]
    for row in read(name)["rows"]:
        cells = [f"{row[kind][step]['iou']:.3f}" for kind in kinds for step in steps]
        lines.append(f"| {row['loss']} | {row['learning_rate']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES = {"accuracy": accuracy_table, "speed": speed_table, "overlap": overlap_table}
