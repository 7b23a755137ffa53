"""Numbers and tables of the pages, out of benchmarks/results: a page never states a measured number of its own."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from lossbox import report
from lossbox.report._canvas import pyplot, save_figure

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
NUMBER = re.compile(r"\{\{\s*([\w/-]+)\s+([^{}]+?)(?:\s+(\d))?\s*\}\}")
TABLE = re.compile(r"<!-- (accuracy|speed|overlap|study|ranks|rows) ([\w-]+)((?: \w+)*) -->")


def fill(markdown: str) -> str:
    """``{{file path.to.number 2}}`` becomes the number with so many digits (3 if not said); ``<!-- accuracy file -->`` a table.

    ``<!-- rows file list column column -->`` shows columns of a list of records.

    Where a part of the path has a point or a space the parts are joined by ``|``: ``{{studies/balance summary|AP loss|AP|mean}}``.
    """
    markdown = NUMBER.sub(lambda match: f"{number(match[1], match[2]):.{match[3] or 3}f}", markdown)
    return TABLE.sub(lambda match: TABLES[match[1]](match[2], match[3].split()), markdown)


@functools.cache
def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def number(name: str, path: str) -> float:
    """A number of a result file; a part of the path indexes a list where it is one."""
    found = read(name)
    for part in path.split("|" if "|" in path else "."):
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


def study(name: str, _: list[str]) -> str:
    """What the paper saw, how it was measured here, the table, what had to hold, and the curves."""
    found = read(f"studies/{name}")
    machine = found["machine"]
    cores = f"{machine['processor']}, {machine['instruction_set']}, {_count(machine.get('OMP_NUM_THREADS', machine['cpus']), 'thread')}"
    seeds = {run["seed"] for run in found["runs"]} - {None}
    parts = [
        f"*{found['title']}.* Source: {found['source']}.",
        f"**What the paper saw.** {found['paper']}",
        f"**What we saw** (`{found['command']}`; {cores}" + (f"; {_count(len(seeds), 'seed')}" if seeds else "") + "):",
        report.accuracy_table(found["summary"], found["measure"], title="variant"),
    ]
    if len(seeds) > 1:
        parts += [f"Less {found['baseline']}, seed by seed:", report.difference_table(found)]
    parts.append("\n".join(f"- {line}" for line in report.check_lines(found) if line))
    if found["curves"]:
        parts.append(f"![{found['title']}]({name}.svg)")
    return "\n\n".join(part for part in parts if part)


def _count(number: int | str, what: str) -> str:
    return f"{number} {what}{'' if int(number) == 1 else 's'}"


def ranks(name: str, columns: list[str]) -> str:
    """The shares of the tenths of the positives, the highest scores first, in the last third of each training, in percent.

    Of variants that differ by what stands behind the last comma, their length, the last one: the longest.
    """
    found = read(f"studies/{name}")["by_rank"]
    rows = {variant: found[variant] for variant in {variant.rpartition(",")[0] or variant: variant for variant in found}.values()}
    lines = [f"| variant | {' | '.join(str(tenth) for tenth in range(1, 11))} |", "|---|" + "---|" * 10]
    for column in columns:
        lines += [f"| {variant} | {' | '.join(f'{100 * share:.0f}' for share in row[column][2])} |" for variant, row in rows.items()]
    return "\n".join(lines)


def rows(name: str, words: list[str]) -> str:
    """Columns of a list of the file, which the first word names: a key, or one of the parts of "rows"."""
    found = read(name)
    listed, columns = found.get(words[0]) or found["rows"][words[0]], words[1:]
    lines = [f"| {' | '.join(column.replace('_', ' ') for column in columns)} |", "|---" * len(columns) + "|"]
    for row in listed:
        cells = [row.get(column, "-") for column in columns]
        lines.append(f"| {' | '.join(f'{cell:.3g}' if isinstance(cell, float) else str(cell) for cell in cells)} |")
    return "\n".join(lines)


def study_figures() -> dict[str, bytes]:
    """The curves of each study by the address of the image."""
    figures = {}
    for file in sorted((RESULTS / "studies").glob("*.json")):
        found = read(f"studies/{file.stem}")
        if found["curves"]:
            with tempfile.TemporaryDirectory() as folder:
                figures[f"studies/{file.stem}.svg"] = report.draw_study(found, Path(folder) / "figure.svg").read_bytes()
    return figures


def sizes_figure() -> dict[str, bytes]:
    """Time against the number of scores and of positives, on logarithmic axes, with the slopes; by the address of the image."""
    found = read("sizes")
    figure, panels = pyplot().subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for panel, axis, title in zip(panels, ("scores", "positives"), ("1,000 positives", "10^6 scores"), strict=True):
        rows = [
            row for row in found["rows"] if row["positives" if axis == "scores" else "scores"] == (1_000 if axis == "scores" else 10**6)
        ]
        for name in found["rows"][0]["ms"]:
            points = sorted((row[axis], row["ms"][name]) for row in rows if name in row["ms"])
            slope = found["slopes"][name][axis]
            label = name if slope is None else f"{name}: {slope:.2f}"
            panel.plot(*zip(*points, strict=True), marker=".", label=label, linewidth=1.2)
        panel.set(xscale="log", yscale="log", xlabel=f"number of {axis}", ylabel="CPU milliseconds", title=f"{title}; slope in the legend")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    with tempfile.TemporaryDirectory() as folder:
        return {"theory/sizes.svg": save_figure(figure, Path(folder) / "figure.svg").read_bytes()}


TABLES = {"accuracy": accuracy_table, "speed": speed_table, "overlap": overlap_table, "study": study, "ranks": ranks, "rows": rows}
