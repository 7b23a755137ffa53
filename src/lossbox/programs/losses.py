"""``lossbox losses``."""

from __future__ import annotations

import argparse
import difflib
import inspect
from collections.abc import Sequence


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox losses``."""
    parser = argparse.ArgumentParser("lossbox losses", description="The losses of lossbox.losses.")
    parser.add_argument("name", nargs="?", help="explain this one: formula, arguments, range, source, example")
    parser.add_argument("--count", nargs="+", metavar="LOSS", help="how many hyper-parameters the sum of these losses asks to be tuned")
    options = parser.parse_args(argv)

    from .. import report
    from ..losses import CATALOG, count_hyperparameters

    if options.count:
        print(count_hyperparameters(*options.count))
    elif options.name is None:
        report.print_losses(CATALOG)
    elif options.name in CATALOG:
        function = CATALOG[options.name].function
        options_only = [p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values()]
        print(f"{options.name}{inspect.Signature(options_only)}\n\n{inspect.getdoc(function)}")
    else:
        near = difflib.get_close_matches(options.name, CATALOG, n=3)
        raise ValueError(f"name: no loss {options.name!r}; " + (f"near it: {', '.join(near)}" if near else "`lossbox losses` lists them"))
