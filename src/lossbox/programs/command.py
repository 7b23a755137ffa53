"""A command line made of a typed function: its parameters are the options, and its docstring is the help.

``run = command(evaluate, show_evaluation)`` is all that a module of ``programs/`` has to say. Parameters before ``*`` are given in their
order, those after it as ``--options``; an underscore becomes a dash. The values are checked against the types by jsonargparse, as those of
``lossbox fit`` are; ``--help`` is printed without it, because loading it takes four times as long as everything else that ``--help`` does.
"""

from __future__ import annotations

import argparse
import collections.abc
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin

from ..messages import near_name
from ..writable import check_writable

File: TypeAlias = Path | str
Folder: TypeAlias = Path | str
NewFile: TypeAlias = Path | str
"""What a command writes: whether that can be done is looked at before the command does its work."""
NewFolder: TypeAlias = Path | str

_PLACEHOLDERS = {"File": "FILE", "Folder": "FOLDER", "NewFile": "FILE", "NewFolder": "FOLDER", "int": "N", "float": "X"}
_KINDS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Option:
    """One parameter of a command.

    Attributes:
        label: how the user writes it: ``--per-class`` or, where its place says what it is, ``IMAGES``.
        choices: the values that are allowed, where there are few.
        kind: the type of one value.
        settings: the other arguments of ``argparse.ArgumentParser.add_argument``.
        writes: ``NewFile`` or ``NewFolder`` where it names a place that the command writes to.
    """

    label: str
    choices: tuple[Any, ...]
    kind: Any
    settings: Mapping[str, Any]
    writes: str = ""

    @property
    def rule(self) -> str:
        return f"one of {', '.join(map(str, self.choices))}" if self.choices else _KINDS.get(self.kind, self.kind.__name__)


def command(function: Callable[..., Any], show: Callable[..., None] | None = None, *, name: str = "") -> Callable[[Sequence[str]], None]:
    """The program that reads a function's arguments from the command line, calls it and shows what it returns.

    Args:
        function: typed, with a docstring. Of a union, the first member is what the command line takes. A parameter ``overrides`` gets the
            options that are not the function's own, with their values.
        show: prints what ``function`` returns. Its own parameters become options too; those that ``function`` has as well get the same
            value.
        name: of the command; the function's by default.

    Returns:
        A function of the words after the name of the command. It raises ValueError for an option that does not exist, a missing one, a
        value of another type, and a place that cannot be written to.

    Example:
        >>> def scale(number: float, *, by: int = 2) -> float:
        ...     '''Scales a number.'''
        ...     return number * by
        >>> command(scale, lambda result: print(result))(["1.5", "--by", "4"])
        6.0
        >>> command(scale, lambda result: print(result))(["1.5", "--bye", "4"])
        Traceback (most recent call last):
        ValueError: no option --bye; did you mean --by?
    """

    def run(argv: Sequence[str]) -> None:
        own = options_of(function)
        options = own | ({key: option for key, option in options_of(show, skip=1).items() if key not in own} if show else {})
        parser_name = f"lossbox {name or function.__name__}"
        if {"-h", "--help"} & set(argv):
            description = _description(function)
            page = argparse.ArgumentParser(parser_name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
            for key, option in options.items():
                _add(page, key, option)
            page.parse_args(["--help"])
        values = _parse(parser_name, options, argv)
        try:
            for key in (key for key, option in options.items() if option.writes and values.get(key) is not None):
                check_writable(key, values[key], folder=options[key].writes == "NewFolder")
            result = function(**_taken_by(function, values))
            if show is not None:
                show(result, **_taken_by(show, values, skip=1))
        except (ValueError, FileNotFoundError) as error:
            argument, colon, rest = str(error).partition(":")
            if type(error) not in (ValueError, FileNotFoundError) or argument not in options or not colon:
                raise
            raise type(error)(f"{options[argument].label}:{rest}") from error

    return run


def options_of(function: Callable[..., Any], *, skip: int = 0) -> dict[str, Option]:
    """The options that a function's parameters make, by name.

    Args:
        function: with annotations as text (``from __future__ import annotations``) and a docstring with ``Args:``.
        skip: how many parameters at the beginning are none.

    Example:
        >>> options_of(command, skip=1)["name"].label
        '--name'
    """
    helps = _helps(function)
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    return {parameter.name: _option(parameter, helps.get(parameter.name, ""), function) for parameter in parameters}


def _option(parameter: inspect.Parameter, help: str, function: Callable[..., Any]) -> Option:
    text = parameter.annotation.split(" | ")[0]
    kind = eval(text, inspect.unwrap(function).__globals__)  # typing.get_type_hints would need what is imported for type checkers only
    default, positional = parameter.default, parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    label = parameter.name.upper() if positional else f"--{parameter.name.replace('_', '-')}"
    if kind is bool:
        return Option(label, (), bool, {"action": "store_true", "help": help})
    settings: dict[str, Any] = {}
    if get_origin(kind) is collections.abc.Sequence:
        settings["nargs"] = "*" if default is None else "+"
        kind = get_args(kind)[0]
    elif get_origin(kind) is tuple:
        settings["nargs"] = len(get_args(kind))
        kind = get_args(kind)[0]
    elif positional and default is not parameter.empty:
        settings["nargs"] = "?"
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    type_name = re.sub(r".*\[|[],].*", "", text)
    placeholder = _PLACEHOLDERS.get(type_name, parameter.name.upper())
    settings["metavar"] = f"{{{','.join(map(str, choices))}}}" if choices else label if positional else placeholder
    if not choices and get_args(kind):
        kind = get_args(kind)[0]
    if default is parameter.empty and not positional:
        settings["required"] = True
    if default not in (parameter.empty, None, ()):
        help += f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"
    writes = type_name if type_name.startswith("New") else ""
    return Option(label, choices, kind, settings | {"help": help.replace("%", "%%")}, writes)


def _add(parser: argparse.ArgumentParser, name: str, option: Option, **more: Any) -> None:
    if name != "overrides":
        parser.add_argument(option.label if option.label.startswith("--") else name, **option.settings, **more)


def _parse(name: str, options: Mapping[str, Option], argv: Sequence[str]) -> dict[str, Any]:
    """The values of the options that are there, by name."""
    labels = [option.label for key, option in options.items() if option.label.startswith("--") and key != "overrides"]
    words: list[str] = []
    overrides: list[str] = []
    taken = words
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            label = word.split("=")[0]
            otherwise = "" if "overrides" in options else f"`{name} --help` lists them"
            if label not in labels and (near := near_name(label, labels, otherwise=otherwise, cutoff=0.75)):
                raise ValueError(f"no option {label}{near}")
            taken = words if label in labels else overrides
        taken.append(word)

    parsed = _checked(name, options, words)
    found = {key: value for key in options if key != "overrides" and (value := parsed[key]) is not None}
    return found | ({"overrides": overrides} if overrides else {})


def _checked(name: str, options: Mapping[str, Option], words: Sequence[str]) -> Mapping[str, Any]:
    """The values by the types of the options: by jsonargparse, or on the bare install, which lacks it, by argparse."""
    try:
        from jsonargparse import ArgumentError, ArgumentParser
    except ModuleNotFoundError:
        return _checked_by_argparse(name, options, words)
    parser = ArgumentParser(name, exit_on_error=False, allow_abbrev=False)
    for key, option in options.items():
        choices = {"type": Literal[option.choices]} if option.choices else {} if option.kind is bool else {"type": option.kind}
        _add(parser, key, option, **choices)
    try:
        return vars(parser.parse_args(words))
    except ArgumentError as error:
        raise ValueError(_explained(str(error), options)) from None


def _checked_by_argparse(name: str, options: Mapping[str, Option], words: Sequence[str]) -> Mapping[str, Any]:
    parser = argparse.ArgumentParser(name, exit_on_error=False, allow_abbrev=False)
    for key, option in options.items():
        plain = Path if option.kind in (File, Folder) else option.kind
        more = {"choices": option.choices} if option.choices else {} if option.kind is bool else {"type": plain}
        _add(parser, key, option, **more)
    try:
        parsed, unknown = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise ValueError(str(error).removeprefix("argument ")) from None
    if unknown:
        raise ValueError(f"no such argument: {' '.join(unknown)}; `{name} --help` lists them")
    return vars(parsed)


def _explained(message: str, options: Mapping[str, Option]) -> str:
    """What jsonargparse says about a value, in one line with the option as the user writes it."""
    if match := re.match(r'Parser key "(\w+)".*alue: (.*)', message, re.DOTALL):
        option = options[match[1]]
        return f"{option.label}: {option.rule} expected, got {match[2]}"
    missing = re.match("the following arguments are required: (.*)", message)
    return f"{', '.join(options[key].label for key in missing[1].split(', '))} expected" if missing else message.removeprefix("argument ")


def _taken_by(function: Callable[..., Any], values: Mapping[str, Any], *, skip: int = 0) -> dict[str, Any]:
    return {name: values[name] for name in list(inspect.signature(function).parameters)[skip:] if name in values}


def _description(function: Callable[..., Any]) -> str:
    """The docstring up to its first section, filled; what is indented stays as it is."""
    text = re.split(r"\n\n(?:Args|Returns):\n", inspect.getdoc(function) or "")[0].replace("``", "`")
    width = min(shutil.get_terminal_size().columns, 120) - 2
    return "\n\n".join(part if "\n  " in f"\n{part}" else textwrap.fill(" ".join(part.split()), width) for part in text.split("\n\n"))


def _helps(function: Callable[..., Any]) -> dict[str, str]:
    """By parameter, what ``Args:`` of the docstring says."""
    _, _, section = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section.partition("\n\n")[0], re.MULTILINE)
    return {name: " ".join(text.replace("``", "").split()) for name, text in entries}
