"""Files that describe many images, such as those of CVAT, Label Studio and VIA: their records, and the images that they are about."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .checks import NO_LABEL_LEFT, brief
from .files import BadLabel, Images, Labelled, OnBad, normal, note_unused, part_name, part_of_file, part_of_folders
from .labels import Box, Read, checked_corners, checked_size, number_of
from .layout import Layout

Size = tuple[int, int]
XYWH = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shape:
    """One label, as a file states it.

    Attributes:
        where: the place of it, for messages.
        name: of the class; empty where the file names none.
        box: of the size of the image, ``x y width height`` in pixels.
        around: whether that is the box around a shape of another kind, which may leave the image and is cut at its border.
        boxless: of a label that has no box and is not used, what it is in place of one; see ``without_box``.
    """

    where: str
    name: str
    box: Callable[[Size], XYWH]
    around: bool = False
    boxless: str = ""


@dataclass(frozen=True)
class Entry:
    """What a file says about one image.

    Attributes:
        where: the place of it, for messages.
        file_name: of the image, as the file spells it.
        shapes: the labels.
        size: (width, height) that the file states.
        part: of the data, where the file says so.
    """

    where: str
    file_name: str
    shapes: Sequence[Shape]
    size: tuple[float | None, float | None] = (None, None)
    part: str | None = None


def entries_layout(
    kind: str, root: Path, files: Mapping[Path, Iterable[Entry]], on_bad: OnBad, notes: list[BadLabel], *, names: Iterable[str] = ()
) -> Layout:
    """The layout of files of entries.

    The part of an image is what its entry says, or else a folder on the way to it, or else the name of the file of entries.

    Args:
        kind: what the layout is called.
        root: the folder with the images, at any depth.
        files: the entries of each file.
        on_bad: takes an entry whose image is not there, is not clear, or has another entry.
        notes: gets what is left out and breaks no rule.
        names: of the classes that the files list, in their order; other names of labels follow, and are noted.
    """
    images = Images(root, notes.append)
    parts: dict[str, list[Labelled]] = defaultdict(list)
    found: dict[Path, Entry] = {}
    for file, entries in files.items():
        of_part: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            of_part[part_name(entry.part) if entry.part else ""].append(entry)
        for stated, of_file in of_part.items():
            images.learn_base(stated or part_of_file(root, file), (entry.file_name for entry in of_file))
        for stated, entry in ((stated, entry) for stated, of_file in of_part.items() for entry in of_file):
            try:
                image = _image(images, entry, stated or part_of_file(root, file), file)
                if image in found:
                    raise BadLabel(entry.where, f"is about the same image as {found[image].where}", entry.file_name)
            except BadLabel as error:
                on_bad(error)
                continue
            found[image] = entry
            part = stated or part_of_folders(root, image) or part_of_file(root, file)
            parts[part].append(Labelled(image, file))
    note_unused(images.all, parts, notes.append)
    used = Counter(normal(shape.name) for entry in found.values() for shape in entry.shapes if shape.name.strip())
    listed = list(dict.fromkeys(normal(name) for name in names))
    others = sorted(set(used) - set(listed))
    for name in others if listed else ():
        notes.append(
            BadLabel(f"class {brief(name)} of {used[name]} labels", "is not among the classes that the file lists, and is one more")
        )
    return Layout(kind, dict(parts), partial(_read, entries=found), [*listed, *others] or None, notes)


def _image(images: Images, entry: Entry, part: str, file: Path) -> Path:
    found = images.find(entry.file_name, part, file.parent)
    if len(found) != 1:
        rule = f"its image is not below {images.root}" if not found else "the name of its image is that of several"
        raise BadLabel(entry.where, rule, entry.file_name)
    return found[0]


def _read(item: Labelled, on_bad: OnBad, *, entries: Mapping[Path, Entry]) -> Read:
    entry = entries[item.image]
    size = checked_size(item, entry.size, entry.where, labelled=bool(entry.shapes))
    boxes, boxless = [], [shape.boxless for shape in entry.shapes if shape.boxless]
    for shape in (shape for shape in entry.shapes if not shape.boxless):
        try:
            box = shape.box(size)
        except BadLabel as error:
            on_bad(error)
            continue
        name = normal(shape.name)
        corners = checked_corners(_cut(box, size) if shape.around else box, size)
        if not name.strip():
            on_bad(BadLabel(shape.where, "names no class", image=item.image, box=box))
        elif isinstance(corners, str):
            on_bad(BadLabel(f"{shape.where} in {size[0]} x {size[1]} px", corners, [*box], image=item.image, box=box))
        else:
            boxes.append(Box(name, corners))
    if boxless and not boxes:
        raise BadLabel(str(item.image), NO_LABEL_LEFT, sorted(set(boxless)))
    return Read(item.image, size, boxes)


# -- shapes


def broken(error: BadLabel) -> Shape:
    """A label that breaks a rule: it is handed over and left out when its image is read, which then has a label that cannot be used."""

    def box(size: Size) -> XYWH:
        raise error

    return Shape("", "", box)


def without_box(where: str, kind: str, note: OnBad) -> Shape:
    """A label that marks an object without a box, such as a point: it is noted and not used, and an image that has no other is left out."""
    note(BadLabel(where, f"is of the type {kind}, has no box, and is not used"))
    return Shape(where, "", pixels(0, 0, 0, 0), boxless=kind)


def pixels(x: float, y: float, width: float, height: float) -> Callable[[Size], XYWH]:
    """A box that is in pixels already."""
    return lambda size: (x, y, width, height)


def around(points: Sequence[tuple[float, float]]) -> XYWH:
    """The box around points.

    Example:
        >>> around([(1, 5), (4, 2), (3, 3)])
        (1, 2, 3, 3)
    """
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def around_turned(x: float, y: float, width: float, height: float, degrees: float, pivot: tuple[float, float]) -> XYWH:
    """The box around a rectangle that is turned clockwise about a point.

    Example:
        >>> [round(number, 6) for number in around_turned(0, 0, 4, 2, 90, (0, 0))]
        [-2.0, 0.0, 2.0, 4.0]
    """
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    steps = [(left - pivot[0], top - pivot[1]) for left, top in corners]
    return around([(pivot[0] + dx * cos - dy * sin, pivot[1] + dx * sin + dy * cos) for dx, dy in steps])


def around_ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> XYWH:
    """The box around an ellipse that is turned about its center.

    Example:
        >>> around_ellipse(10, 10, 3, 2)
        (7.0, 8.0, 6.0, 4.0)
    """
    angle = math.radians(degrees)
    half_width = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    half_height = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return cx - half_width, cy - half_height, 2 * half_width, 2 * half_height


def numbers_of(where: str, values: Sequence[Any], expected: str) -> list[float]:
    """Finite numbers, also those written as text."""
    numbers = [number_of(value if isinstance(value, str) else repr(value)) for value in values if not isinstance(value, bool)]
    if len(numbers) != len(values) or None in numbers:
        raise BadLabel(where, f"{expected} expected, as numbers", list(values))
    return [number for number in numbers if number is not None]


def points_of(where: str, points: Iterable[Sequence[Any]]) -> list[tuple[float, float]]:
    """Points that are pairs of numbers, one at least."""
    pairs = [numbers_of(where, point, "pairs x, y") for point in points]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise BadLabel(where, "pairs x, y expected", pairs)
    return [(x, y) for x, y in pairs]


def _cut(box: XYWH, size: Size) -> XYWH:
    x, y, width, height = box
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, min(x + width, size[0]) - left, min(y + height, size[1]) - top
