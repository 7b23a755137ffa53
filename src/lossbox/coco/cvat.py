"""CVAT's XML, "CVAT for images 1.1" and "CVAT for video 1.1": the images, with the boxes around their shapes.

A box may be rotated; of polygons, masks, ellipses and cuboids the box around them counts. Polylines, points, skeletons and tags have no
box, and are noted. Of a track, shapes marked ``outside`` are not in the image. Attributes are not read. A class that ``<labels>`` does not
declare is noted with the number of its labels; spaces around a name are no part of it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from .entries import (
    XYWH,
    Entry,
    Shape,
    around,
    around_ellipse,
    around_turned,
    broken,
    entries_layout,
    numbers_of,
    pixels,
    points_of,
    without_box,
)
from .files import SUFFIXES, BadLabel, OnBad, files_below, stop
from .labels import number_of, xml_of
from .layout import Layout

BOXLESS = frozenset({"polyline", "points", "skeleton", "tag"})

FRAME = re.compile(r"frame_(\d+)", re.IGNORECASE)
"""The names that CVAT gives to the images of a video."""


def cvat_layout(root: Path, files: list[Path], on_bad: OnBad = stop) -> Layout:
    """The images of CVAT's XML files below a folder."""
    notes: list[BadLabel] = []
    trees = {file: xml_of(file) for file in files}
    labels = [label for tree in trees.values() for label in tree.iterfind("meta//labels/label")]
    names = [_text(label, "name") for label in labels if _text(label, "type") not in BOXLESS and not _text(label, "parent")]
    entries = {file: list(_entries(root, file, tree, on_bad, notes.append)) for file, tree in trees.items()}
    return entries_layout("CVAT", root, entries, on_bad, notes, names=filter(None, names))


def _entries(root: Path, file: Path, tree: Element, on_bad: OnBad, note: OnBad) -> Iterator[Entry]:
    for image in tree.iterfind("image"):
        name = image.get("name", "")
        where = f"{file}: image {image.get('id', '')} ({name})"
        size = number_of(image.get("width")), number_of(image.get("height"))
        shapes = [shape for entry in image if (shape := _shape(where, entry, entry.get("label", "").strip(), note))]
        yield Entry(where, name, shapes, size, image.get("subset"))
    if tree.find("track") is not None:
        yield from _frames(root, file, tree, on_bad, note)


def _frames(root: Path, file: Path, tree: Element, on_bad: OnBad, note: OnBad) -> Iterator[Entry]:
    """The images of a video, each with the shapes of all tracks."""
    if len({track.get("task_id") for track in tree.iterfind("track")}) > 1:
        raise ValueError(f"{file}: holds the tracks of several videos; export each task by itself, or as CVAT for images")
    shapes: dict[int, list[Shape]] = defaultdict(list)
    for track in tree.iterfind("track"):
        place = f"{file}: track {track.get('id', '')}"
        for entry in track:
            frame = number_of(entry.get("frame"))
            where = f"{place}, frame {entry.get('frame')}"
            if frame is None:
                on_bad(BadLabel(where, "frame must be a number"))
            elif entry.get("outside") == "1":
                note(BadLabel(where, "is outside of the image, and not used"))
            elif shape := _shape(where, entry, track.get("label", "").strip(), note):
                shapes[int(frame)].append(shape)
    images = {int(found[1]): image for image in files_below(root, SUFFIXES) if (found := FRAME.fullmatch(image.stem))}
    size = number_of(tree.findtext("meta//original_size/width")), number_of(tree.findtext("meta//original_size/height"))
    for frame in sorted({*shapes, *images}):
        image = images.get(frame)
        name = image.relative_to(root).as_posix() if image else f"frame_{frame:06}"
        yield Entry(f"{file}: frame {frame}", name, shapes.get(frame, []), size)


def _shape(where: str, entry: Element, name: str, note: OnBad) -> Shape | None:
    where = f"{where}: {entry.tag}"
    if entry.tag in BOXLESS:
        shape = without_box(where, entry.tag, note)
        return None if entry.tag == "tag" else shape  # a tag is about the image, and marks no object
    try:
        if entry.tag not in READERS:
            raise BadLabel(where, f"is a shape that is not known; {', '.join(READERS)} are")
        box = READERS[entry.tag](where, entry)
    except BadLabel as error:
        return broken(error)
    return Shape(where, name, pixels(*box), around=entry.tag != "box" or bool(number_of(entry.get("rotation"))))


def _box(where: str, entry: Element) -> XYWH:
    left, top, right, bottom = _numbers(where, entry, "xtl", "ytl", "xbr", "ybr")
    degrees = number_of(entry.get("rotation")) or 0.0
    center = (left + right) / 2, (top + bottom) / 2
    box = left, top, right - left, bottom - top
    return around_turned(*box, degrees, center) if degrees else box


def _ellipse(where: str, entry: Element) -> XYWH:
    cx, cy, rx, ry = _numbers(where, entry, "cx", "cy", "rx", "ry")
    return around_ellipse(cx, cy, rx, ry, number_of(entry.get("rotation")) or 0.0)


def _polygon(where: str, entry: Element) -> XYWH:
    return around(points_of(where, [point.split(",") for point in entry.get("points", "").split(";")]))


def _cuboid(where: str, entry: Element) -> XYWH:
    corners = [name for name in entry.attrib if re.fullmatch(r"x[tb][lr][12]", name)]
    xs, ys = (_numbers(where, entry, *(axis + name[1:] for name in corners)) for axis in "xy")
    return around(points_of(where, list(zip(xs, ys, strict=True))))


def _mask(where: str, entry: Element) -> XYWH:
    left, top, width, height = _numbers(where, entry, "left", "top", "width", "height")
    return left, top, width, height


READERS: dict[str, Callable[[str, Element], XYWH]] = {
    "box": _box,
    "polygon": _polygon,
    "mask": _mask,
    "ellipse": _ellipse,
    "cuboid": _cuboid,
}


def _numbers(where: str, entry: Element, *names: str) -> list[float]:
    return numbers_of(where, [entry.get(name) for name in names], ", ".join(names))


def _text(entry: Element, tag: str) -> str:
    return (entry.findtext(tag) or "").strip()
