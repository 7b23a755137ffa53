"""What mkdocs does beside its own work: the pages, curves and fonts that are made by code.

A page under docs/losses holds what a person has to write: when to use the loss, and where other code has it wrong. Title, formula, curve,
facts and reference come from ``lossbox.losses.CATALOG`` and the docstrings, so that they cannot fall behind the code (``pages.py``,
``curves.py``). A loss that nobody has written about has a page too, of the rest.
"""

from __future__ import annotations

import io
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fontTools import subset
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))

import curves
import formulas
import measured
import pages

from lossbox.__main__ import help_text
from lossbox.losses import CATALOG

LOSSES = "losses/"
# What the formulas need of the font: Latin, Greek, punctuation, arrows, operators, brackets and italics.
CHARACTERS = (
    *range(0x20, 0x7F),
    *range(0xA0, 0x100),
    *range(0x370, 0x400),
    *range(0x2000, 0x2070),
    0x210E,
    *range(0x2190, 0x2300),
    *range(0x2308, 0x230C),
    *range(0x1D400, 0x1D7CC),
)


def on_config(config: Any) -> Any:
    """Lists the pages of the losses by family, in the catalog's order, and those of the reference."""
    families: dict[str, list[dict[str, str]]] = {}
    for name, entry in CATALOG.items():
        families.setdefault(entry.family.capitalize(), []).append({name: f"{LOSSES}{name}.md"})
    for section in config["nav"]:
        if "Losses" in section:
            section["Losses"] = [f"{LOSSES}index.md", *({family: pages} for family, pages in families.items())]
        if "Reference" in section:
            section["Reference"] = [
                *section["Reference"],
                *sorted(pages.reference_pages(), key=lambda path: (path != "reference/index.md", path)),
            ]
    config["markdown_extensions"].append(formulas.Formulas())
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds what is made by code: the reference, the curves, the font of the formulas."""
    if missing := pages.undocumented():
        raise PluginError(f"public names without a docstring: {', '.join(missing)}")
    points = int(os.environ.get("LOSSBOX_CURVE_POINTS", "57"))
    made: dict[str, str | bytes] = {**pages.reference_pages(), "assets/stix-two-math.woff": math_font()}
    made |= measured.study_figures() | measured.sizes_figure()
    for name in CATALOG:
        if files.get_file_from_path(f"{LOSSES}{name}.md") is None:
            made[f"{LOSSES}{name}.md"] = ""
        made[f"{LOSSES}curves/{name}.js"] = curves.script(name, curves.table(name, points=points))
    made[f"{LOSSES}curves/balanced_l1_wrong.js"] = curves.script("balanced_l1_wrong", curves.wrong_balanced_l1_table())
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Completes a page of a loss; fills in the tables of the others."""
    name = page.file.src_uri.removeprefix(LOSSES).removesuffix(".md")
    wrong = pages.figure(
        "balanced_l1_wrong", f"Value and gradient beside those of the widely used code. The axis: {curves.AXES['smooth_l1_loss'].label}."
    )
    markdown = measured.fill(markdown).replace("<!-- balanced L1 beside the widely used -->", wrong)
    if page.file.src_uri.startswith(LOSSES) and name in CATALOG:
        return pages.loss_page(name, markdown, curves.axis_of(name).label)
    return markdown.replace("<!-- table of losses -->", pages.table_of_losses()).replace(
        "<!-- help of lossbox -->", f"```\n{help_text()}\n```"
    )


def math_font() -> bytes:
    """The part of STIX Two Math (SIL Open Font License; it comes with ziamath) that the formulas need: 200 kB instead of 1,500."""
    options = subset.Options(flavor="woff", layout_features=["*"], hinting=False)
    ziamath = find_spec("ziamath")
    assert ziamath is not None
    assert ziamath.origin is not None
    font = subset.load_font(str(Path(ziamath.origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=CHARACTERS)
    subsetter.subset(font)
    buffer = io.BytesIO()
    subset.save_font(font, buffer, options)
    return buffer.getvalue()
