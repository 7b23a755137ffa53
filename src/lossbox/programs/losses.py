"""``lossbox losses``."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .command import File, command

PAPER_ROWS: dict[str, tuple[tuple[str, ...], int]] = {
    "aLRP": (("alrp_loss",), 1),
    "AP + smooth L1": (("ap_loss", "smooth_l1_loss"), 3),
    "focal + smooth L1": (("focal_loss", "smooth_l1_loss"), 4),
    "FCOS: focal + IoU + centerness": (("focal_loss", "iou_loss", "sigmoid_cross_entropy_loss"), 4),
    "DR + smooth L1": (("dr_loss", "smooth_l1_loss"), 5),
    "FreeAnchor": ((), 8),
    "Faster R-CNN": ((), 9),
    "CenterNet": ((), 10),
}
"""Tables 1 and A.11 of Oksuz et al., NeurIPS 2020: the losses of each row, none where the catalog cannot make it, and the paper's count."""

NO_NAME = "name: --plot and --png draw one loss, but none is named; `lossbox losses` lists them"

FASTER_RCNN = ("rpn_loss", "softmax_cross_entropy_loss", "faster_rcnn_smooth_l1_loss")


def losses(name: str | None = None, *, png: File | None = None, json: File | None = None) -> dict[str, dict[str, Any]]:
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
        near = difflib.get_close_matches(name, CATALOG, n=3)
        raise ValueError(f"name: no loss {name!r}; " + (f"near it: {', '.join(near)}" if near else "`lossbox losses` lists them"))
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
    png: File | None = None,
    json: File | None = None,
    count: Sequence[str] | None = None,
) -> None:
    """Prints the table, the explanation of one loss, or counts of hyper-parameters.

    Args:
        plot: plot NAME also where the output is no terminal
        count: how many hyper-parameters the sum of these losses asks to be tuned; without a loss, the paper's Tables 1 and A.11
    """
    from .. import report
    from ..losses import CATALOG, count_hyperparameters

    if plot and name is None:
        raise ValueError(NO_NAME)
    if count:
        print(count_hyperparameters(*count))
    elif count is not None:
        _print_paper_rows()
    elif name is not None:
        _explain(name, plot=plot)
        if png:
            print(f"image: {png}")
    elif not json:
        report.print_losses(CATALOG)
    if json:
        print(f"{len(table)} losses: {json}")


def _explain(name: str, *, plot: bool) -> None:
    """Signature, docstring, and a plot where there is a terminal to see it or it was asked for."""
    from .. import report
    from ..losses import CATALOG

    function = CATALOG[name].function
    options_only = [p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values()]
    print(f"{name}{inspect.Signature(options_only)}\n\n{inspect.getdoc(function)}")
    terminal = sys.stdout.isatty()
    # The explanation needs no extra, so a plot that nobody asked for is left out where plotext is missing.
    if plot or (terminal and importlib.util.find_spec("plotext")):
        width = shutil.get_terminal_size(fallback=(100, 24)).columns
        color = terminal and not os.environ.get("NO_COLOR")
        print("\n" + report.plot_loss(report.curves_of(name, points=121), width=width, color=color))


def _print_paper_rows() -> None:
    """Our count beside the paper's, and which rows are out of reach."""
    from rich.table import Table

    from ..losses import count_hyperparameters
    from ..report.tables import wide_console

    table = Table(box=None)
    table.add_column("", no_wrap=True)
    table.add_column("losses", overflow="fold")
    table.add_column("hyper-parameters", justify="right")
    table.add_column("paper", justify="right")
    for row, (losses, paper) in PAPER_ROWS.items():
        table.add_row(row, " + ".join(losses) or "-", str(count_hyperparameters(*losses)) if losses else "-", str(paper))
    console = wide_console()
    console.print(table)
    missing = ", ".join(row for row, (losses, _) in PAPER_ROWS.items() if not losses)
    console.print(
        "A sum of losses counts a weight for each but the first. Paper: Oksuz et al., NeurIPS 2020, Tables 1 and A.11.\n"
        f"Out of reach: {missing}. No loss of FreeAnchor or CenterNet is here. Of Faster R-CNN's numbers its losses "
        f"({' + '.join(FASTER_RCNN)}) hold {count_hyperparameters(*FASTER_RCNN)}.",
        highlight=False,
        soft_wrap=True,
    )


run = command(losses, show_losses)
