"""Checks on a user's JSON and on the names of files in it: every error says in which file and record, and which rule was broken."""

from __future__ import annotations

import json
import os
import re
import reprlib
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 200
brief = _repr.repr
"""``repr`` cut to a readable length: a message must not repeat a hostile file."""


class Where(NamedTuple):
    """The place of a record, put into words only where an error needs them: there may be a million records."""

    path: Path
    section: str
    number: int
    id: Any

    def __str__(self) -> str:
        return f"{self.path}: {self.section}[{self.number}]" + ("" if self.id is ... else f" (id {brief(self.id)})")


class BadRecord(ValueError):
    """A record of the file breaks a rule.

    Attributes:
        where: the record.
        rule: what it breaks, in words; equal for all records where it has no number in it.
    """

    def __init__(self, where: Where, rule: str, *, image: str = "", got: Any = ...) -> None:
        self.where, self.rule = where, rule
        super().__init__(f"{where}{image}: {rule}" + ("" if got is ... else f", got {brief(got)}"))


OnBadRecord = Callable[[BadRecord], None]
"""What is done about a bad record: raise it, or write it down, upon which the record is passed over."""


def stop(error: BadRecord) -> None:
    raise error


def load_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; a ValueError that names the file where it holds anything else."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; COCO detection JSON expected") from None
    except RecursionError:
        raise ValueError(f"{path}: is nested too deeply for COCO JSON") from None
    except MemoryError:
        raise ValueError(f"{path}: does not fit into memory ({path.stat().st_size / 2**20:.0f} MiB)") from None
    except ValueError as error:  # also bytes that are no text, and numbers of thousands of digits
        raise ValueError(f"{path}: is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path}: an object with images, annotations and categories expected, got {type(document).__name__}")
    return document


def records(path: Path, document: dict[str, Any], section: str, on_bad: OnBadRecord = stop) -> Iterator[tuple[Where, dict[str, Any]]]:
    if section not in document:
        raise ValueError(f"{path}: lacks the section {section!r} of COCO detection JSON; it has {brief(sorted(document))}")
    if not isinstance(document[section], list):
        raise ValueError(f"{path}: {section} must be a list, got {brief(document[section])}")
    for index, entry in enumerate(document[section]):
        if isinstance(entry, dict):
            yield Where(path, section, index, entry.get("id")), entry
        else:
            on_bad(BadRecord(Where(path, section, index, ...), "must be an object", got=entry))


def whole(entry: dict[str, Any], key: str, where: Where) -> int:
    value = entry.get(key)
    if type(value) is not int:  # a bool is an int too
        raise _wrong(entry, key, where, "a whole number")
    return value


def text(entry: dict[str, Any], key: str, where: Where) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise _wrong(entry, key, where, "a text that is not empty")
    return value


def _wrong(entry: dict[str, Any], key: str, where: Where, expected: str) -> BadRecord:
    return BadRecord(where, f"{key} must be {expected}", got=entry[key]) if key in entry else BadRecord(where, f"lacks {key!r}")


class InsideFolder:
    """Paths of images that must lie inside a folder; it remembers where each folder really is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.real_root = os.path.realpath(root)
        self.real_folders: dict[str, str] = {}

    def path(self, file_name: str, where: Where) -> Path | None:
        """The path of an image, or None where no such file exists.

        Raises:
            BadRecord: the name leaves the folder.
        """
        parts = re.split(r"[/\\]", file_name)
        # The same names are refused on every system: a drive letter or a backslash means nothing here, but it does on Windows.
        if ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", file_name) or "\0" in file_name:
            raise BadRecord(where, f"file_name must be a path inside the image folder {self.root}", got=file_name)
        full = os.path.join(self.root, file_name)
        try:
            mode = os.lstat(full).st_mode
        except (OSError, ValueError):
            return None
        folder = os.path.dirname(full)
        if stat.S_ISLNK(mode):
            real = os.path.realpath(full)
        else:
            if folder not in self.real_folders:
                self.real_folders[folder] = os.path.realpath(folder)
            real = self.real_folders[folder]
        if real != self.real_root and not real.startswith(os.path.join(self.real_root, "")):
            raise BadRecord(where, f"file_name {brief(file_name)} leads out of the image folder {self.root}, to {real}")
        return Path(full) if os.path.isfile(full) else None
