"""The pages and tables that come from the code: a page per loss, the reference, the tables of losses."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import griffe

from lossbox.losses import CATALOG

SOURCES = Path(__file__).parents[1] / "src"
LONG = 300  # characters of a constant that the reference shows
HIDDEN = frozenset({"programs"})  # commands, which have pages of their own
BESIDE_EXPORTS = ("lossbox.metrics.torchmetric", "lossbox.training.load")  # public, but not among what their packages export


def loss_page(name: str, written: str, axis_label: str) -> str:
    """Title, formula, curve and facts, what was written, and the reference."""
    entry = CATALOG[name]
    options = ", ".join(f"`{option} = {value:g}`" for option, value in entry.hyperparameters().items())
    shared = ""
    if entry.family == "ranking":
        shared = f"\n\n## What the ranking losses share\n\n{inspect.getdoc(sys.modules[entry.function.__module__])}"
    facts = {
        "Family": entry.family,
        "To be tuned": options or "nothing",
        "Range": entry.range,
        "Source": entry.source,
        "Gradient": entry.no_derivative or "the derivative of the value",
        "Module": f"[`lossbox.losses.{entry.__name__}`][lossbox.losses.{entry.__name__}]",
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    return f"""# {name}

{description(entry.function)}

{figure(name, f"Value and gradient, computed by the code. The axis: {axis_label}.")}

| Property | Value |
|---|---|
{rows}

{written.strip()}{shared}

## Example

{example(entry.function)}

::: lossbox.losses.{name}
    options:
      show_docstring_description: false
      show_docstring_examples: false
"""


def figure(name: str, caption: str) -> str:
    """What docs/assets/curves.js draws into."""
    return (
        f'<figure class="curve" data-loss="{name}"><noscript>The curve is drawn by a script; '
        f"<code>lossbox losses {name}</code> plots it on a terminal.</noscript>"
        f"<figcaption>{caption}</figcaption></figure>\n"
        f'<script src="curves/{name}.js"></script>'
    )


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
        options = ", ".join(f"{option} = {value:g}" for option, value in entry.hyperparameters().items())
        rows.append(f"| [{name}]({name}.md) | {entry.family} | {options or '-'} | {entry.range} |")
    return "\n".join(rows)


@functools.cache
def package() -> griffe.Module:
    """The sources of the package, read and not imported."""
    module = griffe.load("lossbox", search_paths=[str(SOURCES)])
    assert isinstance(module, griffe.Module)
    return module


def public_names() -> dict[str, list[str]]:
    """By module its public names: those of ``__all__``, or the classes and functions of a module that no package exports."""
    found: dict[str, list[str]] = {}

    def visit(module: griffe.Module) -> None:
        if module.exports is not None:
            found[module.path] = [str(getattr(name, "name", name)) for name in module.exports]
            return
        own = defined(module)
        if own:
            found[module.path] = own
        for name, member in module.members.items():
            if not name.startswith("_") and name not in HIDDEN and not member.is_alias and isinstance(member, griffe.Module):
                visit(member)

    visit(package())
    for path in BESIDE_EXPORTS:
        member = package()[path.removeprefix("lossbox.")]
        assert isinstance(member, griffe.Module)
        found[path] = defined(member)
    return dict(sorted(found.items()))


def defined(module: griffe.Module) -> list[str]:
    """The public classes and functions of a module that are its own."""
    return [n for n, m in module.members.items() if not n.startswith("_") and not m.is_alias and (m.is_class or m.is_function)]


def undocumented() -> list[str]:
    """The public names without a docstring; the build fails on any."""
    missing = []
    for module, names in public_names().items():
        for name in names:
            member = package()[canonical(module, name).removeprefix("lossbox.")]
            target = member.final_target if isinstance(member, griffe.Alias) else member
            if not target.has_docstring:
                missing.append(f"{module}.{name}")
    return missing


def canonical(module: str, name: str) -> str:
    """Where a public name is found in the sources: a function that has the name of its module hides it."""
    path = f"{module}.{name}"
    member = package()[path.removeprefix("lossbox.")]
    return f"{path}.{name}" if isinstance(member, griffe.Module) else path


def reference_entry(module: str, name: str) -> str:
    """The directive for a public name; a long value, such as the catalog's, is not shown."""
    path = canonical(module, name)
    value = str(getattr(package()[path.removeprefix("lossbox.")], "value", ""))
    shown = "\n      show_attribute_values: false" if len(value) > LONG else ""
    return f"::: {path}\n    options:\n      heading: {module}.{name}\n      show_root_full_path: false{shown}"


def reference_pages() -> dict[str, str]:
    """By path under docs/ a page for each module: what it is for, and its public names. A loss has a page of its own."""
    pages = {}
    for module, names in public_names().items():
        docstring = package()[module.removeprefix("lossbox.")].docstring if module != "lossbox" else package().docstring
        text = [f"# {module}", docstring.value if docstring else ""]
        if module == "lossbox.losses":
            losses = ", ".join(f"[{name}](../losses/{name}.md)" for name in CATALOG)
            text.append(f"Each loss has a page of its own: {losses}.")
        text += [
            reference_entry(module, name) for name in sorted(names, key=str.lower) if not (module == "lossbox.losses" and name in CATALOG)
        ]
        pages[f"reference/{module.removeprefix('lossbox.')}.md"] = "\n\n".join(text) + "\n"
    overview = ["# Reference", "Every public name, by module.", "| module | what it is for |", "|---|---|"]
    for module in public_names():
        docstring = package()[module.removeprefix("lossbox.")].docstring if module != "lossbox" else package().docstring
        first = re.split(r"\n\s*\n", docstring.value)[0].replace("\n", " ") if docstring else ""
        overview.append(f"| [`{module}`]({module.removeprefix('lossbox.')}.md) | {first} |")
    pages["reference/index.md"] = "\n\n".join(overview[:2]) + "\n\n" + "\n".join(overview[2:]) + "\n"
    return pages
