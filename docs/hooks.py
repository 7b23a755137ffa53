"""What mkdocs does beside its own work: it completes the pages of the losses from the catalog.

A page under docs/losses holds what a person has to write: when to use the loss, and where other code has it wrong. Title, formula, curve,
facts and reference come from ``lossbox.losses.CATALOG`` and the docstrings, so that they cannot fall behind the code.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from typing import Any

from lossbox.__main__ import help_text
from lossbox.losses import CATALOG
from lossbox.report import AXES

LOSSES = "losses/"


def on_config(config: Any) -> Any:
    """Lists the pages of the losses by family, in the catalog's order, behind the overview."""
    families: dict[str, list[dict[str, str]]] = {}
    for name, entry in CATALOG.items():
        families.setdefault(entry.family.capitalize(), []).append({name: f"{LOSSES}{name}.md"})
    for section in config["nav"]:
        if "Losses" in section:
            section["Losses"] = [f"{LOSSES}index.md", *({family: pages} for family, pages in families.items())]
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Completes a page of a loss; fills in the tables of the others."""
    name = page.file.src_uri.removeprefix(LOSSES).removesuffix(".md")
    if page.file.src_uri.startswith(LOSSES) and name in CATALOG:
        return loss_page(name, markdown)
    return markdown.replace("<!-- table of losses -->", table_of_losses()).replace("<!-- help of lossbox -->", f"```\n{help_text()}\n```")


def loss_page(name: str, written: str) -> str:
    """Title, formula, curve and facts, what was written, and the reference."""
    entry = CATALOG[name]
    axis = AXES.get(name) or AXES[entry.family]
    options = ", ".join(f"`{option} = {value:g}`" for option, value in entry.hyperparameters.items())
    shared = ""
    if entry.family == "ranking":
        shared = f"\n\n## What the ranking losses share\n\n{inspect.getdoc(sys.modules[entry.function.__module__])}"
    # AXES.label ends up in the image; here it says the same to those who cannot see it.
    return f"""# {name}

{description(entry.function)}

![{name}: value and gradient; {axis.label}](curves/{name}.png)

Value and gradient, drawn from the code. The axis: {axis.label}.

| | |
|---|---|
| Family | {entry.family} |
| To be tuned | {options or "nothing"} |
| Range | {entry.range} |
| Source | {entry.source} |
| Module | `lossbox.losses.{entry.module.__name__}` |

{written.strip()}{shared}

## Example

{example(entry.function)}

::: lossbox.losses.{name}
    options:
      show_docstring_description: false
"""


def description(function: Any) -> str:
    """The docstring up to its sections: what the loss is, and its formula."""
    text, _, _ = (inspect.getdoc(function) or "").partition("\nArgs:")
    return text.strip()


def example(function: Any) -> str:
    """The example of the docstring: words, if there are any, and what the tests run."""
    _, _, section = (inspect.getdoc(function) or "").partition("\nExample:\n")
    words, prompt, code = textwrap.dedent(section).partition(">>>")
    return f"{words.strip()}\n\n```pycon\n{prompt}{code.rstrip()}\n```".strip()


def table_of_losses() -> str:
    """Every loss with its family, what is to be tuned and its range."""
    rows = ["| loss | family | to be tuned | range |", "|---|---|---|---|"]
    for name, entry in CATALOG.items():
        options = ", ".join(f"{option} = {value:g}" for option, value in entry.hyperparameters.items())
        rows.append(f"| [{name}]({name}.md) | {entry.family} | {options or '-'} | {entry.range} |")
    return "\n".join(rows)
