"""Label Studio's JSON: a list of tasks (JSON), or of flat records (JSON-MIN), with shapes in percent of their image.

Rectangles may be rotated about their top left corner; of polygons and ellipses the box around them counts. Brush strokes, key points and
whatever is not about a region have no box, and are noted. Where a task has several annotations, the one marked as ground truth counts, or
else the newest; canceled ones and predictions are not used. A region of several labels becomes a box for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .entries import (
    XYWH,
    Entry,
    Shape,
    Size,
    around,
    around_ellipse,
    around_turned,
    broken,
    entries_layout,
    numbers_of,
    points_of,
    without_box,
)
from .files import SUFFIXES, BadLabel, Images, OnBad, stop
from .labels import number_of
from .layout import Layout

UPLOAD = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""


def is_label_studio(document: Any) -> bool:
    """Whether JSON is a list of tasks with annotations, or of flat records with regions."""
    if not isinstance(document, list) or not document or not isinstance(document[0], Mapping):
        return False
    first = document[0]
    if isinstance(first.get("data"), Mapping):
        return bool({"annotations", "completions", "predictions"} & set(first))
    return any(_flat(record) for record in document if isinstance(record, Mapping))


def label_studio_layout(root: Path, documents: Mapping[Path, Sequence[Any]], on_bad: OnBad = stop) -> Layout:
    """The images of Label Studio's JSON files below a folder."""
    notes: list[BadLabel] = []
    images = Images(root, lambda error: None)
    entries = {file: list(_entries(file, tasks, images, on_bad, notes.append)) for file, tasks in documents.items()}
    return entries_layout("Label Studio", root, entries, on_bad, notes)


def _entries(file: Path, tasks: Sequence[Any], images: Images, on_bad: OnBad, note: OnBad) -> Iterator[Entry]:
    for index, task in enumerate(tasks):
        where = f"{file}: task {task.get('id', index) if isinstance(task, Mapping) else index}"
        if not isinstance(task, Mapping):
            on_bad(BadLabel(where, "must be an object", task))
            continue
        name = _file_name(task, images, file)
        if name is None:
            on_bad(BadLabel(where, "names no image", task.get("data")))
            continue
        results = _results(where, task, note)
        if results is None:
            note(BadLabel(where, "has no annotation, and its image is not used", name))
            continue
        labeled = {str(result.get("id")) for result in results if isinstance(result, Mapping) and _labels(result)}
        shapes = []
        for number, result in enumerate(results):
            place = f"{where}: result[{number}]"
            try:
                shapes += _shapes(place, result, labeled, note)
            except BadLabel as error:
                shapes.append(broken(error))
        yield Entry(where, name, shapes, _stated_size(results))


def _stated_size(results: Sequence[Any]) -> tuple[float | None, float | None]:
    for result in results:
        if isinstance(result, Mapping) and result.get("original_width"):
            width, height = (number_of(str(result.get(f"original_{side}"))) for side in ("width", "height"))
            return width, height
    return None, None


# -- which image


def _file_name(task: Mapping[str, Any], images: Images, file: Path) -> str | None:
    """The name under which the image of a task lies here: the path or URL that the task names, or an end of it."""
    names = [name for name in _names(task) if PurePosixPath(name).suffix.lower() in SUFFIXES]
    for name in names:
        for candidate in (name, UPLOAD.sub("", PurePosixPath(name).name)):
            if images.find(candidate, "", file.parent):
                return candidate
    return names[0] if names else None


def _names(task: Mapping[str, Any]) -> Iterator[str]:
    data = task.get("data")
    values = data.values() if isinstance(data, Mapping) else task.values()
    for value in [task.get("file_upload"), *values]:
        if isinstance(value, str) and value:
            split = urlsplit(value.replace("\\", "/"))
            # /data/local-files/?d=folder/a.jpg
            yield from parse_qs(split.query).get("d", [])
            yield unquote(split.path)
            yield value


# -- which labels


def _results(where: str, task: Mapping[str, Any], note: OnBad) -> Sequence[Any] | None:
    """The results of the annotation that counts; none where the task was not annotated."""
    if not isinstance(task.get("data"), Mapping):
        return _flat(task)
    annotations = [entry for entry in task.get("annotations", task.get("completions")) or [] if isinstance(entry, Mapping)]
    done = [entry for entry in annotations if not (entry.get("was_cancelled") or entry.get("skipped"))]
    for _ in annotations[len(done) :]:
        note(BadLabel(where, "has a canceled annotation, which is not used"))
    if not done:
        return None
    chosen = max(done, key=lambda entry: (bool(entry.get("ground_truth")), str(entry.get("updated_at") or entry.get("created_at") or "")))
    for _ in done[1:]:
        note(BadLabel(where, "has more than one annotation: that marked as ground truth or else the newest is used"))
    results = chosen.get("result")
    return results if isinstance(results, list) else []


def _flat(task: Mapping[str, Any]) -> list[Any]:
    """The regions of a flat record, whatever the field of them is called, as results."""
    regions = [entry for value in task.values() if isinstance(value, list) for entry in value if isinstance(entry, Mapping)]
    kinds = [next((key for key in entry if key.endswith("labels")), None) for entry in regions]
    return [{**entry, "value": entry, "type": kind} for entry, kind in zip(regions, kinds, strict=True) if kind]


def _labels(result: Mapping[str, Any]) -> list[str]:
    value, kind = result.get("value"), str(result.get("type", ""))
    found = value.get(kind) if isinstance(value, Mapping) and kind.endswith("labels") else None
    return [label for label in found if isinstance(label, str)] if isinstance(found, list) else []


def _shapes(where: str, result: Any, labeled: Iterable[str], note: OnBad) -> list[Shape]:
    if not isinstance(result, Mapping) or not isinstance(result.get("value"), Mapping):
        if isinstance(result, Mapping) and result.get("type") == "relation":
            note(BadLabel(where, "is of the type relation, has no box, and is not used"))
            return []
        raise BadLabel(where, "must have a value", result)
    value, labels = result["value"], _labels(result)
    reader = next((READERS[keys] for keys in READERS if all(key in value for key in keys)), None)
    if reader is None:
        shape = without_box(where, str(result.get("type")), note)
        return [shape] if labels or PLACES & value.keys() else []
    if not labels and str(result.get("id")) in labeled:  # the region of a label that has a result of its own
        return []
    if result.get("image_rotation"):
        raise BadLabel(where, "was drawn on a rotated image: store the image as it was labeled", result["image_rotation"])
    box = reader(where, value)
    turned = bool(value.get("rotation")) or "width" not in value
    return [Shape(where, label, box, around=turned) for label in labels or [""]]


def _rectangle(where: str, value: Mapping[str, Any]) -> Callable[[Size], XYWH]:
    x, y, width, height, degrees = _numbers(where, value, "x", "y", "width", "height")

    def box(size: Size) -> XYWH:
        across, down = size[0] / 100, size[1] / 100
        return around_turned(x * across, y * down, width * across, height * down, degrees, (x * across, y * down))

    return box


def _polygon(where: str, value: Mapping[str, Any]) -> Callable[[Size], XYWH]:
    points = points_of(where, value["points"])
    return lambda size: around([(x * size[0] / 100, y * size[1] / 100) for x, y in points])


def _ellipse(where: str, value: Mapping[str, Any]) -> Callable[[Size], XYWH]:
    x, y, rx, ry, degrees = _numbers(where, value, "x", "y", "radiusX", "radiusY")
    return lambda size: around_ellipse(x * size[0] / 100, y * size[1] / 100, rx * size[0] / 100, ry * size[1] / 100, degrees)


def _numbers(where: str, value: Mapping[str, Any], *names: str) -> list[float]:
    """Of these fields, and of the rotation, which may be missing."""
    return numbers_of(where, [*(value[name] for name in names), value.get("rotation") or 0], ", ".join([*names, "rotation"]))


PLACES = frozenset({"x", "rle", "vertices"})
"""Fields of a value that is about a place in the image: a key point, a brush stroke, a line."""

READERS: dict[tuple[str, ...], Callable[[str, Mapping[str, Any]], Callable[[Size], XYWH]]] = {
    ("x", "y", "width", "height"): _rectangle,
    ("points",): _polygon,
    ("x", "y", "radiusX", "radiusY"): _ellipse,
}
