"""Checks on a user's JSON: every error names the file, the record and the rule."""

from __future__ import annotations

import gc
import json
import os
import re
import reprlib
import stat
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 200
brief = _repr.repr
"""``repr`` cut to a readable length: a message must not repeat a hostile file."""

NUMBERS = (int, float, np.integer, np.floating)

DIGITS = re.compile(r"-?[0-9]{1,30}")
"""A whole number as text."""

NO_ID = np.iinfo(np.int64).min
"""Stands for the id of a record that has none."""

BOX_SHAPE = "bbox must be a list of four numbers: x, y, width, height"
"""The ``rule`` of a ``BadRecord`` about a box of the wrong type or length."""
BOX_FINITE = "bbox must be finite"
"""The ``rule`` of a ``BadRecord`` about a box not finite."""
NO_LABEL_LEFT = "none of its labels can be used, so that it is left out: its objects would be trained as background"
"""The rule that an image breaks whose labels all break one."""


class Where(NamedTuple):
    """The place of a record; ``section`` is empty where the file is one list, ``id`` is ``...`` where the record has none."""

    source: str
    section: str
    number: int
    id: Any = ...

    def __str__(self) -> str:
        section = f": {self.section}" if self.section else ""
        return f"{self.source}{section}[{self.number}]" + ("" if self.id is ... else f" (id {brief(self.id)})")


class BadRecord(ValueError):
    """A record breaks a rule.

    Attributes:
        where: the record.
        rule: what it breaks, in words.
        image: the file that it is about, where it is about a box and that is known.
        box: ``x y width height``, where it is about a box that has these.
    """

    image: Path | None = None
    box: Sequence[float] | None = None

    def __init__(self, where: Where, rule: str, *, detail: str = "", got: Any = ...) -> None:
        self.where, self.rule = where, rule
        super().__init__(f"{where}{detail}: {rule}" + ("" if got is ... else f", got {brief(got)}"))


def load_json(path: Path, expected: str) -> Any:
    """The content of a JSON file; an error that names the file and what was expected where it has none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; {expected} expected") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{path} is a folder; {expected} expected") from None
    # Parsing makes millions of objects and drops none; the cycle collector would walk them again and again, for half of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError(f"{path}: is nested too deeply for COCO JSON") from None
    except MemoryError:
        raise ValueError(f"{path}: does not fit into memory ({len(content) / 2**20:.0f} MiB)") from None
    except ValueError as error:  # also bytes that are no text, and numbers of thousands of digits
        raise ValueError(f"{path}: is not JSON: {error}; {expected} expected") from error
    finally:
        if collecting:
            gc.enable()


class Table:
    """The records of a list, read one field at a time.

    A record that breaks a rule is noted in ``bad`` with the first rule that it breaks; where its value would stand in a column there is a
    stand-in, so that every column has the length of the list.

    Example:
        >>> table = Table([{"id": 3, "name": "cup"}, {"id": "4"}], "cups.json", "categories")
        >>> table.texts("name"), table.good.tolist(), str(table.bad[1])
        (['cup', ''], [True, False], "cups.json: categories[1] (id '4'): lacks 'name'")
    """

    def __init__(self, records: Any, source: str, section: str = "") -> None:
        if not isinstance(records, Sequence) or isinstance(records, str):
            raise ValueError(f"{source}: {section or 'results'} must be a list, got {brief(records)}")
        self.source, self.section = source, section
        self.bad: dict[int, BadRecord] = {}
        self.records: Sequence[Any] = records
        if not all(issubclass(kind, Mapping) for kind in set(map(type, records))):
            for index, record in enumerate(records):
                if not isinstance(record, Mapping):
                    self.refuse(index, "must be an object", got=record)
            self.records = [record if isinstance(record, Mapping) else {} for record in records]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def good(self) -> Bool[np.ndarray, " n"]:
        """True for the records that break no rule so far."""
        good = np.ones(len(self.records), dtype=bool)
        good[list(self.bad)] = False
        return good

    def refuse(self, index: int, rule: str, *, detail: str = "", got: Any = ...) -> None:
        if index not in self.bad:
            record = self.records[index]
            id_ = record.get("id") if isinstance(record, Mapping) and self.section else ...
            self.bad[index] = BadRecord(Where(self.source, self.section, index, id_), rule, detail=detail, got=got)

    def refuse_where(self, broken: Bool[np.ndarray, " n"], key: str, rule: str) -> None:
        """The rule begins after the name of the field."""
        for index in np.flatnonzero(broken).tolist():
            self.refuse(index, f"{key} {rule}", got=self.records[index].get(key))

    def stop_at_bad(self, hint: str = "") -> None:
        """Raises for the first bad record; the message counts those that break the same rule."""
        if self.bad:
            first = self.bad[min(self.bad)]
            same = sum(error.rule == first.rule for error in self.bad.values())
            raise ValueError(f"{first}" + (f" ({same} such records)" if same > 1 else "") + hint)

    def values(self, key: str, types: tuple[type, ...], expected: str, *, stand_in: Any, default: Any = ...) -> list[Any]:
        """One field of every record; true and false are no numbers here."""
        values = [record.get(key, default) for record in self.records]
        # the few types are looked at, and the many values only where one of these is wrong
        wrong = {kind for kind in set(map(type, values)) if kind is bool or not issubclass(kind, types)}
        for index, value in enumerate(values) if wrong else ():
            if type(value) in wrong:
                if value is ...:
                    self.refuse(index, f"lacks {key!r}")
                else:
                    self.refuse(index, f"{key} must be {expected}", got=value)
                values[index] = stand_in
        return values

    def integers(self, key: str) -> Int[np.ndarray, " n"]:
        """One field of whole numbers, also those written as text ("12"), which become numbers in the records too."""
        values = self.values(key, (int, np.integer, str), "a whole number", stand_in=NO_ID)
        texts = [index for index, value in enumerate(values) if isinstance(value, str)] if str in set(map(type, values)) else []
        records = list(self.records) if texts else []
        for index in texts:
            text = values[index]
            if DIGITS.fullmatch(text):
                values[index] = int(text)
                records[index] = {**records[index], key: values[index]}
            else:
                self.refuse(index, f"{key} must be a whole number", got=text)
                values[index] = NO_ID
        self.records = records or self.records
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:  # JSON's numbers have any number of digits
            for index, value in enumerate(values):
                if not -(2**63) <= value < 2**63:
                    self.refuse(index, f"{key} must be a whole number of 64 bits", got=value)
                    values[index] = NO_ID
            return np.array(values, dtype=np.int64)

    def floats(self, key: str, *, default: Any = ...) -> Float[np.ndarray, " n"]:
        return as_floats(self.values(key, NUMBERS, "a number", stand_in=0.0, default=default))

    def texts(self, key: str) -> list[str]:
        values = self.values(key, (str,), "a text that is not empty", stand_in="")
        self.refuse_where(np.array([not value for value in values], dtype=bool), key, "must be a text that is not empty")
        return values

    def ids(self) -> Int[np.ndarray, " n"]:
        """The field ``id``, a whole number that no two records share."""
        ids = self.integers("id")
        good = np.flatnonzero(self.good)
        _, first = np.unique(ids[good], return_index=True)
        for index in sorted(set(good.tolist()) - set(good[first].tolist())):
            self.refuse(index, f"id occurs twice in {self.section}")
        return ids

    def rows_of(self, key: str, known: Int[np.ndarray, " k"], kind: str) -> Int[np.ndarray, " n"]:
        """Where the id in a field stands among the known ones; -1 of one that does not."""
        ids = self.integers(key)
        order = np.argsort(known, kind="stable")
        if not len(known):
            rows, unknown = np.zeros(len(ids), dtype=np.int64), np.ones(len(ids), dtype=bool)
        else:
            rows = order[np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)]
            unknown = known[rows] != ids
        for index in np.flatnonzero(unknown).tolist():
            self.refuse(index, f"{key} {ids[index]} is not the id of {kind}")
        return np.where(unknown, -1, rows)

    def boxes(self) -> tuple[Float[np.ndarray, "n 4"], dict[int, str]]:
        """The field ``bbox``, and the rule that is broken by each that is no box; the caller refuses these with what it knows."""
        values = [record.get("bbox") for record in self.records]
        broken: dict[int, str] = {}
        if not _are_boxes(values):
            broken = {index: BOX_SHAPE for index, value in enumerate(values) if not _are_boxes([value])}
            values = [(0, 0, 1, 1) if index in broken else value for index, value in enumerate(values)]
        boxes = as_floats(chain.from_iterable(values)).reshape(-1, 4)
        infinite = np.flatnonzero(~np.isfinite(boxes).all(axis=1)).tolist()
        return boxes, broken | dict.fromkeys(infinite, BOX_FINITE)


def _are_boxes(values: Sequence[Any]) -> bool:
    if not all(issubclass(kind, list | tuple | np.ndarray) for kind in set(map(type, values))) or not set(map(len, values)) <= {4}:
        return False
    return all(kind is not bool and issubclass(kind, NUMBERS) for kind in set(map(type, chain.from_iterable(values))))


def as_floats(values: Iterable[Any]) -> Float[np.ndarray, " n"]:
    """Numbers as float64; a whole number beyond its range is infinite."""
    values = list(values)
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        largest = sys.float_info.max
        return np.array([value if -largest <= value <= largest or value != value else np.inf for value in values], dtype=np.float64)


def spellings(name: str) -> list[str]:
    """A path as it stands, with slashes for backslashes, and in both forms of Unicode: macOS stores accents as letters of their own.

    Example:
        >>> spellings("a\\\\b.jpg")
        ['a\\\\b.jpg', 'a/b.jpg']
    """
    names = dict.fromkeys((name, name.replace("\\", "/")))
    return list(dict.fromkeys([*names, *(unicodedata.normalize(form, text) for text in names for form in ("NFC", "NFD"))]))


class InsideFolder:
    """Paths of images that must lie inside a folder; it remembers where each folder really is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.real_root = os.path.realpath(root)
        self.real_folders: dict[str, str] = {}

    def path(self, file_name: str) -> Path | str | None:
        """The path of an image; the rule that its name breaks where it leaves the folder; None where no such file exists.

        Backslashes separate folders too, and the form of Unicode does not matter.
        """
        parts = re.split(r"[/\\]", file_name)
        # The same names are refused on every system: a drive letter or a backslash means nothing here, but it does on Windows.
        if ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", file_name) or "\0" in file_name:
            return f"file_name must be a path inside the image folder {self.root}, got {brief(file_name)}"
        full, mode = self._found(file_name)
        if mode is None:
            return None
        folder = os.path.dirname(full)
        if stat.S_ISLNK(mode):
            real = os.path.realpath(full)
        else:
            if folder not in self.real_folders:
                self.real_folders[folder] = os.path.realpath(folder)
            real = self.real_folders[folder]
        if real != self.real_root and not real.startswith(os.path.join(self.real_root, "")):
            return f"file_name {brief(file_name)} leads out of the image folder {self.root}, to {real}"
        return Path(full) if os.path.isfile(full) else None

    def _found(self, file_name: str) -> tuple[str, int | None]:
        """The path, and the mode of what is there."""
        for name in spellings(file_name):
            full = os.path.join(self.root, name)
            try:
                return full, os.lstat(full).st_mode
            except (OSError, ValueError):
                continue
        return full, None
