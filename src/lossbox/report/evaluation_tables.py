"""What ``lossbox evaluate`` can be asked for beside AP and oLRP, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .tables import number

_KINDS = {"localization": "Loc", "classification": "Cls", "duplicate": "Dupe", "both": "Both", "background": "Bkg", "missed": "Miss"}
"""Our names of TIDE's kinds of errors, and TIDE's."""


def _table(title: str, first: str, columns: Sequence[str], caption: str = "") -> Table:
    table = Table(first, title=title, title_justify="left", caption=caption or None, caption_justify="left")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def print_at_iou(rows: Mapping[str, Mapping[str, float]]) -> None:
    """oLRP and its parts by the IoU from which a detection is right."""
    table = _table("Optimal LRP by IoU (lower is better)", "IoU", ("oLRP", "Loc", "FP", "FN"))
    for name, row in rows.items():
        table.add_row(name, *map(number, row.values()))
    Console().print(table)


def print_slices(by: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The parts of the data, one line each."""
    table = _table(f"By {escape(by)}", escape(by), ("images", "boxes", "AP", "oLRP", "Loc", "FP", "FN"))
    for row in rows:
        numbers = (number(row[key]) for key in ("AP", "oLRP", "localization", "false_positive", "false_negative"))
        table.add_row(escape(row["name"]), f"{row['images']:,}" if "images" in row else "", f"{row['num_ground_truth']:,}", *numbers)
    Console().print(table)


def print_errors(rows: Sequence[Mapping[str, Any]], tide: Mapping[str, Any]) -> None:
    """The LRP error of each class by kinds, the worst class first; and TIDE's gains."""
    caption = (
        "The shares add up to oLRP. Loc: wrong place; Cls: wrong class; Dupe: found twice; Both: wrong place and class; Bkg: nothing "
        "there; Miss: not found. gain: what AP50 would gain without this kind of error (TIDE, all scores; - without boxes "
        "or without detections)"
    )
    table = _table("What is wrong, at the LRP-optimal scores", "class", ("oLRP", *_KINDS.values()), caption)
    defined = [row for row in rows if row["num_ground_truth"]]
    for row in sorted(defined, key=lambda row: -row["LRP"]):
        shares = [number(row["shares"][kind]) for kind in _KINDS]
        bold = [f"[bold]{share}[/]" if kind == row["main"] else share for kind, share in zip(_KINDS, shares, strict=True)]
        table.add_row(escape(row["name"]), number(row["LRP"]), *bold)
    table.add_section()
    gains = (tide["gain"][key] for key in _KINDS.values())
    table.add_row("gain", "", *("-" if number(gain) == "-" else f"{gain:+.3f}" for gain in gains))
    Console().print(table)


def print_costs(numbers: Mapping[str, Any]) -> None:
    """What each class costs, and where to cut it."""
    prices = numbers["cost"]
    title = f"Least cost: {prices['fp_cost']:g} a false positive, {prices['fn_cost']:g} a miss, {prices['localization_cost']:g} a loose box"
    table = _table(title, "class", ("boxes", "cost", "cut", "oLRP's cut"), "cut -: keeping nothing of the class costs least")
    for row in numbers["per_class"]:
        cells = (f"{row['cost']:,.4g}", number(row["cost_threshold"]), number(row["threshold"]))
        table.add_row(escape(row["name"]), str(row["num_ground_truth"]), *cells)
    table.add_section()
    table.add_row("total", "", f"{prices['total']:,.4g}", "", "")
    Console().print(table)


def print_comparison(comparison: Mapping[str, Any], first: str, second: str) -> None:
    """Both columns, the difference, and its interval."""
    percent = f"{100 * comparison['confidence']:g} %"
    caption = (
        f"{percent}: interval of the difference over {comparison['resamples']:,} draws of the {comparison['images']:,} images; "
        "2 better: the share of the draws in which 2 is better"
    )
    table = _table("Comparison", "", ("1", "2", "2 - 1", percent, "2 better"), caption)
    for name, row in comparison["metrics"].items():
        interval = "-" if number(row["lower"]) == "-" else f"{row['lower']:+.3f} to {row['upper']:+.3f}"
        difference = "-" if number(row["difference"]) == "-" else f"{row['difference']:+.3f}"
        table.add_row(name, number(row["first"]), number(row["second"]), difference, interval, number(row["better"]))
    Console().print(table)
    print(f"1: {first}\n2: {second}")


def print_bounds(bounds: Mapping[str, Mapping[str, float]]) -> None:
    """Prints the three rows of :func:`lossbox.metrics.score_bounds`: Table 5 of the aLRP paper."""
    rows = {"lower": "in inverse order of IoU (lower bound)", "measured": "as they are", "upper": "in order of IoU (upper bound)"}
    title = "AP if the true positives swapped their scores"
    table = Table("scores", title=title, title_justify="left")
    for name in bounds["measured"]:
        table.add_column(name, justify="right", no_wrap=True)
    for key, meaning in rows.items():
        table.add_row(meaning, *(number(value) for value in bounds[key].values()))
    Console().print(table)
