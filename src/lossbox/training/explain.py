"""Messages about a wrong option name it as it is typed, and where one is misspelled the nearest that exists."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable
from importlib import import_module

from ..messages import near_name


def explained(message: str, options: Iterable[str]) -> str:
    """What jsonargparse says about an option, in one line, with a suggestion where one is misspelled.

    Args:
        message: of its error.
        options: those of the command.

    Example:
        >>> explained("unrecognized arguments: --ou x", ["--out", "--config"])
        'unrecognized arguments: --ou x; did you mean --out?'
    """
    unknown = re.search(r"unrecognized arguments: ([^\s=]+)", message)
    refused = re.search(r".*class_path '([\w.]+)\.(\w+)'.*Option '(\w+)' is not accepted", message, re.DOTALL)
    if refused:
        options = inspect.signature(getattr(import_module(refused[1]), refused[2])).parameters
    in_recipe = re.search(r"does not accept option '([\w.]+)'", message)
    name = refused[3] if refused else unknown[1] if unknown else f"--{in_recipe[1]}" if in_recipe else ""
    return " ".join(message.split()) + near_name(name, options)


def as_typed(message: str, keys: Iterable[str], labels: Collection[str] = ()) -> str:
    """The same message, where it begins with the name of an argument, with the option that sets it.

    Args:
        message: ``argument: rule, what came``.
        keys: of the options, levels joined by dots.
        labels: options as the parser knows them, for those that are not written like their key.

    Returns:
        The message as it is where no option, or more than one, ends in that name.

    Example:
        >>> as_typed("image_size: a positive number expected, got -5", ["out", "data.image_size"])
        '--data.image_size: a positive number expected, got -5'
    """
    name, colon, rest = message.partition(":")
    known = list(keys)
    named = [name] if name in known else [key for key in known if key.rpartition(".")[2] == name]
    if not colon or len(named) != 1:
        return message
    label = f"--{named[0]}"
    dashed = label.replace("_", "-")
    return f"{dashed if dashed in labels and label not in labels else label}:{rest}"
