"""``lossbox losses``."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import inspect
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

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


FASTER_RCNN = ("rpn_loss", "softmax_cross_entropy_loss", "faster_rcnn_smooth_l1_loss")


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox losses``."""
    parser = argparse.ArgumentParser(
        "lossbox losses",
        description="The losses of lossbox.losses: a table of all, or what one of them computes, with a plot of its value and gradient.",
    )
    parser.add_argument("name", nargs="?", help="explain this one: formula, arguments, range, source, example; plotted on a terminal")
    parser.add_argument("--plot", action="store_true", help="plot NAME also where the output is no terminal")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw value and gradient of NAME (.png or .svg)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table: name, family, hyper-parameters, range, source")
    parser.add_argument(
        "--count",
        nargs="*",
        metavar="LOSS",
        help="how many hyper-parameters the sum of these losses asks to be tuned; without a LOSS, the paper's Tables 1 and A.11",
    )
    options = parser.parse_args(argv)

    from .. import report
    from ..losses import CATALOG, count_hyperparameters

    if options.name is None and (options.plot or options.png):
        raise ValueError("name: --plot and --png draw one loss, but none is named; `lossbox losses` lists them")
    if options.png and options.png.suffix not in (".png", ".svg"):
        raise ValueError(f"--png: a file ending in .png or .svg expected, got {options.png}")
    if options.name is not None and options.name not in CATALOG:
        near = difflib.get_close_matches(options.name, CATALOG, n=3)
        raise ValueError(f"name: no loss {options.name!r}; " + (f"near it: {', '.join(near)}" if near else "`lossbox losses` lists them"))

    if options.count:
        print(count_hyperparameters(*options.count))
    elif options.count is not None:
        _print_paper_rows()
    elif options.name is not None:
        _explain(options.name, plot=options.plot)
        if options.png:
            print(f"image: {report.draw_loss(report.curves_of(options.name), options.png)}")
    elif not options.json:
        report.print_losses(CATALOG)
    if options.json:
        rows = [
            {
                "name": name,
                "family": entry.family,
                "hyperparameters": entry.hyperparameters(),
                "range": entry.range,
                "source": entry.source,
            }
            for name, entry in CATALOG.items()
        ]
        report.write_json(options.json, {"losses": rows})
        print(f"{len(rows)} losses: {options.json}")


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
