"""``lossbox losses``. Needs no extra, but where it plots, draws or reads a recipe."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..messages import near_name
from .command import NewFile, command
from .recipes import read_recipe

Terms = tuple[str | tuple[str, ...], ...]

CENTERNET: Terms = (("keypoint_focal_loss", "keypoint_focal_loss"), "pull_loss", "push_loss", ("offset_loss", "offset_loss"))
"""Of corners and of centers: two focal losses without a weight, pull, push, and two offset losses that share one."""

PAPER_ROWS: dict[str, tuple[Terms | dict[str, tuple[str, ...]] | str, int]] = {
    "cross-entropy": (("sigmoid_cross_entropy_loss",), 0),
    "alpha-balanced cross-entropy": ({"sigmoid_cross_entropy_loss": ("alpha",)}, 1),
    "focal loss": (("focal_loss",), 2),
    "AP loss": (("ap_loss",), 1),
    "DR loss": (("dr_loss",), 3),
    "smooth L1": (("smooth_l1_loss",), 1),
    "balanced L1": (("balanced_l1_loss",), 2),
    "IoU loss": (("iou_loss",), 0),
    "AP + smooth L1": (("ap_loss", "smooth_l1_loss"), 3),
    "focal + smooth L1": ("digits_retinanet_focal", 4),
    "FCOS": ("digits_fcos_focal", 4),
    "DR + smooth L1": ("digits_retinanet_dr", 5),
    "FreeAnchor": ("digits_retinanet_freeanchor", 8),
    "Faster R-CNN": ("coco_faster_rcnn_ce_smooth_l1", 9),
    "CenterNet": (CENTERNET, 10),
    "aLRP": ("digits_retinanet_alrp", 1),
}
"""Tables A.11 and 1 of Oksuz et al., NeurIPS 2020: what each row is counted from, and the paper's count. Counted are terms of the catalog,
a loss with options that are off by default, or a recipe."""

NO_NAME = "name: --plot and --png draw one loss, but none is named; `lossbox losses` lists them"


def losses(name: str | None = None, *, png: NewFile | None = None, json: NewFile | None = None) -> dict[str, dict[str, Any]]:
    """The losses of lossbox.losses: a table of all, or what one of them computes, with a plot of its value and gradient.

    Args:
        name: explain this one: formula, arguments, range, source, example; plotted on a terminal
        png: draw value and gradient of NAME (.png or .svg)
        json: write the table: name, family, hyper-parameters, range, source

    Returns:
        ``family``, ``hyperparameters``, ``range`` and ``source`` of each loss by its name.

    Raises:
        ValueError: a name that is no loss; ``png`` without a name, or with another suffix.

    Example:
        >>> losses()["ap_loss"]["range"]
        '[0, 1]'
    """
    from ..losses import CATALOG

    if name is None and png:
        raise ValueError(NO_NAME)
    if png and Path(png).suffix not in (".png", ".svg"):
        raise ValueError(f"png: a file ending in .png or .svg expected, got {png}")
    if name is not None and name not in CATALOG:
        raise ValueError(f"name: no loss {name!r}{near_name(name, CATALOG, otherwise='`lossbox losses` lists them')}")
    table = {
        loss: {"family": entry.family, "hyperparameters": entry.hyperparameters(), "range": entry.range, "source": entry.source}
        for loss, entry in CATALOG.items()
    }
    if json or png:
        from .. import report

        if png and name:
            report.draw_loss(report.curves_of(name), Path(png))
        if json:
            report.write_json(Path(json), {"losses": [{"name": loss} | row for loss, row in table.items()]})
    return table


def show_losses(
    table: Mapping[str, Mapping[str, Any]],
    *,
    name: str | None = None,
    plot: bool = False,
    png: NewFile | None = None,
    json: NewFile | None = None,
    count: Sequence[str] | None = None,
) -> None:
    """Prints the table, the explanation of one loss, or counts of hyper-parameters.

    Args:
        plot: plot NAME also where the output is no terminal
        count: how many hyper-parameters the sum of these losses, or a recipe, asks to be tuned; without any, the paper's Tables 1 and A.11
    """
    from ..losses import count_hyperparameters

    if plot and name is None:
        raise ValueError(NO_NAME)
    if count:
        named = len(count) == 1 and _is_recipe(count[0])
        print(sum(numbers for _, numbers in tuned_by_recipe(count[0])) if named else count_hyperparameters(*count))
    elif count is not None:
        _print_table(("", "hyper-parameters", "paper", "counted from"), list(_paper_rows()))
    elif name is not None:
        _explain(name, plot=plot)
        if png:
            print(f"image: {png}")
    elif not json:
        _print_losses(table)
    if json:
        print(f"{len(table)} losses: {json}")


def tuned_by_recipe(name: str) -> Iterator[tuple[str, int]]:
    """What a recipe asks to be tuned for its loss: the parts of the recipe that have such numbers, and how many.

    These are the options in ``tuned`` of its losses, its objectives, a sampling assigner and a first stage. A ``localization_weight`` that
    follows from a self-balance is none.

    Args:
        name: of a recipe, or its path.

    Source:
        Oksuz et al., NeurIPS 2020, Table 1 and App. B.2.

    Example:
        >>> list(tuned_by_recipe("digits_retinanet_focal"))
        [('SeparateObjective', 1), ('FocalLoss', 2), ('SmoothL1Loss', 1)]
    """
    model = read_recipe(name, option="count").get("model")
    if not isinstance(model, dict):
        raise ValueError(f"count: {name} has no `model`; a recipe of lossbox fit expected")
    for part in ("first_stage", "assigner", "objective"):
        if part in model:
            yield from _tuned(part, model[part])


def _tuned(key: str, config: Any) -> Iterator[tuple[str, int]]:
    if key == "first_stage":
        yield "first_stage", 1  # its weight
    path = config if isinstance(config, str) else config.get("class_path", "") if isinstance(config, dict) else ""
    if path.startswith("lossbox."):
        module, _, name = path.rpartition(".")
        tuned = set(getattr(getattr(importlib.import_module(module), name), "tuned", ()))
        if isinstance(config, dict) and config.get("init_args", {}).get("self_balance"):
            tuned -= {"localization_weight"}
        if tuned:
            yield name, len(tuned)
    if isinstance(config, dict):
        for inner, value in (config.get("init_args", {}) if path else config).items():
            yield from _tuned(inner, value)


def _is_recipe(name: str) -> bool:
    from ..losses import CATALOG

    if name in CATALOG:
        return False
    try:
        read_recipe(name, option="count")
    except FileNotFoundError:
        return False
    return True


def _paper_rows() -> Iterator[tuple[str, str, str, str]]:
    """Our count beside the paper's, and what it is counted from."""
    from ..losses import count_hyperparameters

    for row, (source, paper) in PAPER_ROWS.items():
        if isinstance(source, str):
            parts = list(tuned_by_recipe(source))
            counted = ", ".join(f"{part} {numbers}" for part, numbers in parts)
            yield row, str(sum(numbers for _, numbers in parts)), str(paper), f"recipe {source}: {counted}"
        elif isinstance(source, dict):
            with_options = [f"{loss} with {', '.join(options)}" for loss, options in source.items()]
            yield row, str(sum(map(len, source.values()))), str(paper), ", ".join(with_options)
        else:
            names = [term if isinstance(term, str) else f"({' + '.join(term)})" for term in source]
            yield row, str(count_hyperparameters(*source)), str(paper), " + ".join(names)


def count_of_row(row: str) -> dict[str, int]:
    """Our count and the paper's of a row of ``PAPER_ROWS``, as a variant of the study ``hyper-parameters``.

    Raises:
        ValueError: no such row.

    Example:
        >>> count_of_row("focal + smooth L1")
        {'count': 4, 'paper': 4}
    """
    if row not in PAPER_ROWS:
        raise ValueError(f"row: one of {', '.join(PAPER_ROWS)} expected, got {row}")
    return next({"count": int(count), "paper": int(paper)} for name, count, paper, _ in _paper_rows() if name == row)


def _explain(name: str, *, plot: bool) -> None:
    """Signature, docstring, and a plot where there is a terminal to see it or it was asked for."""
    from ..losses import CATALOG

    function = CATALOG[name].function
    options_only = [p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values()]
    print(f"{name}{inspect.Signature(options_only)}\n\n{inspect.getdoc(function)}")
    terminal = sys.stdout.isatty()
    # The explanation needs no extra, so a plot that nobody asked for is left out where plotext is missing.
    if plot or (terminal and importlib.util.find_spec("plotext")):
        from .. import report

        width = shutil.get_terminal_size(fallback=(100, 24)).columns
        color = terminal and not os.environ.get("NO_COLOR")
        print("\n" + report.plot_loss(report.curves_of(name, points=121), width=width, color=color))


def _print_losses(table: Mapping[str, Mapping[str, Any]]) -> None:
    """A line a loss where the output is no terminal, so that it can be searched; on a narrow one by family, without the paper."""
    narrow = _width() < 120
    rows: list[tuple[str, ...]] = []
    for family, losses in itertools.groupby(table.items(), lambda loss: loss[1]["family"]):
        rows += [(f"{family}:", "", "")] if narrow else []
        for name, entry in losses:
            options = ", ".join(f"{option}={value:g}" for option, value in entry["hyperparameters"].items())
            wide = (name, family, options, entry["range"], entry["source"])
            rows.append((f"  {name}", options, entry["range"]) if narrow else wide)
    _print_table(("loss", "hyper-parameters", "range") if narrow else ("loss", "family", "hyper-parameters", "range", "source"), rows)
    print("lossbox losses NAME explains one")


def _width() -> int:
    """Columns of the terminal; where the output is none, as many as a table needs."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns, of which all but the first are folded where the terminal is narrow. rich would have to be installed."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    while sum(widths) + 2 * len(widths) > _width() and max(widths[1:]) > 12:
        widths[widths.index(max(widths[1:]), 1)] -= 1
    for row in (headings, *rows):
        cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
        for line in itertools.zip_longest(*cells, fillvalue=""):
            print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


run = command(losses, show_losses)
