"""VGG Image Annotator: JSON and CSV of version 2 (and 1), and projects of versions 2 and 3.

Of polygons, polylines with an area, circles and ellipses the box around them counts; points have no box, and are noted. The class is the
region attribute that tells it: the only one, or the only one of those called ``class``, ``label``, ``name``, ``type``, ``category``,
``object``. Where no region has an attribute, all are of the class ``object``.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .checks import brief
from .entries import XYWH, Entry, Shape, around, around_ellipse, broken, entries_layout, numbers_of, pixels, points_of, without_box
from .files import BadLabel, OnBad, normal, stop, text_of
from .layout import Layout

CLASS_ATTRIBUTES = frozenset({"class", "classes", "label", "labels", "name", "names", "type", "category", "object", "species"})

ONE_CLASS = "object"
"""The class of regions that have no attributes."""


class _Region(NamedTuple):
    where: str
    shape: Mapping[str, Any] | BadLabel
    attributes: Mapping[str, Any]


class _File(NamedTuple):
    """What is said about one image."""

    where: str
    name: str
    regions: list[_Region]


def is_via(document: Any) -> bool:
    """Whether JSON is a project of VIA 2 or 3, or annotations of VIA 2."""
    if not isinstance(document, Mapping) or not document:
        return False
    if "_via_img_metadata" in document or {"project", "file", "view", "metadata"} <= set(document):
        return True
    first = next(iter(document.values()))
    return isinstance(first, Mapping) and {"filename", "regions"} <= set(first)


def is_via_csv(file: Path) -> bool:
    """Whether the head of a CSV is one that VIA 2 writes."""
    try:
        return "region_shape_attributes" in text_of(file).partition("\n")[0]
    except BadLabel:
        return False


def via_layout(root: Path, documents: Mapping[Path, Any], on_bad: OnBad = stop) -> Layout:
    """The images of VIA's files below a folder.

    Args:
        root: the folder.
        documents: the content of JSON; None for CSV.
        on_bad: takes what breaks a rule.

    Raises:
        ValueError: several region attributes might be the class.
    """
    notes: list[BadLabel] = []
    files = {file: list(_files(file, document, on_bad)) for file, document in documents.items()}
    regions = [region for of_file in files.values() for image in of_file for region in image.regions]
    attribute = _class_attribute(regions, ", ".join(map(str, documents)))
    others = Counter(name for region in regions for name in region.attributes if name != attribute)
    for name in others:
        notes.append(BadLabel(f"region attribute {brief(name)}", "is not the class, and is not used"))
    if attribute is None and regions:
        notes.append(BadLabel("regions", f"have no attributes: all are of the class {ONE_CLASS}"))
    entries = {
        file: [Entry(image.where, image.name, list(_shapes(image.regions, attribute, notes.append))) for image in of_file]
        for file, of_file in files.items()
    }
    names = [name for document in documents.values() for name in _options(document, attribute)]
    return entries_layout("VIA", root, entries, on_bad, notes, names=names)


def _class_attribute(regions: Sequence[_Region], where: str) -> str | None:
    """The attribute that tells the class; none where there are no attributes."""
    count = Counter(name for region in regions for name, value in region.attributes.items() if value not in ("", {}, None))
    usual = [name for name in count if name.lower() in CLASS_ATTRIBUTES]
    for names in (list(count), usual):
        if len(names) == 1:
            return names[0]
    if not count:
        return None
    raise ValueError(f"{where}: regions have the attributes {', '.join(map(brief, count))}; rename the one that is the class to 'class'")


def _options(document: Any, attribute: str | None) -> list[str]:
    """The classes that a project lists."""
    attributes = document.get("_via_attributes") if isinstance(document, Mapping) else None
    region = attributes.get("region") if isinstance(attributes, Mapping) else None
    entry = region.get(attribute) if isinstance(region, Mapping) else None
    options = entry.get("options") if isinstance(entry, Mapping) else None
    return [normal(name) for name in options] if isinstance(options, Mapping) else []


# -- the files


def _files(file: Path, document: Any, on_bad: OnBad) -> Iterator[_File]:
    if document is None:
        yield from _of_csv(file, on_bad)
    elif "metadata" in document and "view" in document:
        yield from _of_version_3(file, document, on_bad)
    else:
        yield from _of_version_2(file, document.get("_via_img_metadata", document), on_bad)


def _of_version_2(file: Path, images: Mapping[str, Any], on_bad: OnBad) -> Iterator[_File]:
    for key, image in images.items():
        where = f"{file}: {brief(key)}"
        if not isinstance(image, Mapping) or not isinstance(image.get("filename"), str):
            on_bad(BadLabel(where, "must have a filename", image))
            continue
        regions = image.get("regions") or []
        found = []
        for number, region in enumerate(regions.values() if isinstance(regions, Mapping) else regions):  # an object in version 1
            place = f"{where}: regions[{number}]"
            if isinstance(region, Mapping) and isinstance(region.get("shape_attributes"), Mapping):
                attributes = region.get("region_attributes")
                found.append(_Region(place, region["shape_attributes"], attributes if isinstance(attributes, Mapping) else {}))
            else:
                found.append(_Region(place, BadLabel(place, "must have shape_attributes", region), {}))
        yield _File(where, image["filename"], found)


def _of_csv(file: Path, on_bad: OnBad) -> Iterator[_File]:
    regions: dict[str, list[_Region]] = {}
    for row in csv.DictReader(io.StringIO(text_of(file), newline="")):
        row = {(key or "").lstrip("#").strip(): value for key, value in row.items()}
        name = row.get("filename") or ""
        of_image = regions.setdefault(name, [])
        where = f"{file}: {name}: region {row.get('region_id')}"
        try:
            shape, attributes = (json.loads(row.get(key) or "{}") for key in ("region_shape_attributes", "region_attributes"))
        except ValueError as error:
            of_image.append(_Region(where, BadLabel(where, f"has attributes that are not JSON: {error}"), {}))
            continue
        if shape:
            of_image.append(_Region(where, shape, attributes))
    for name, found in regions.items():
        yield _File(f"{file}: {name}", name, found)


VERSION_3 = {1: "point", 2: "rect", 3: "circle", 4: "ellipse", 5: "line", 6: "polyline", 7: "polygon", 8: "rect", 9: "circle"}
"""The number with which the coordinates of a shape begin."""


def _of_version_3(file: Path, document: Mapping[str, Any], on_bad: OnBad) -> Iterator[_File]:
    names = {key: attribute.get("aname", key) for key, attribute in document.get("attribute", {}).items()}
    options = {key: attribute.get("options") or {} for key, attribute in document.get("attribute", {}).items()}
    of_view: dict[str, list[_Region]] = {str(key): [] for key in document["view"]}
    for key, record in document["metadata"].items():
        where = f"{file}: metadata {brief(key)}"
        view, xy = str(record.get("vid")), record.get("xy") or []
        if not xy:  # about the whole image, or about a time
            continue
        if view not in of_view:
            on_bad(BadLabel(where, "has a view that is not known", record))
            continue
        if xy[0] not in VERSION_3:
            of_view[view].append(_Region(where, BadLabel(where, "has a shape that is not known", record), {}))
            continue
        values = {names.get(of, of): options.get(of, {}).get(value, value) for of, value in (record.get("av") or {}).items()}
        of_view[view].append(_Region(where, {"name": VERSION_3[xy[0]], "xy": xy[1:]}, values))
    for view, regions in of_view.items():
        ids = document["view"][view].get("fid_list") or []
        image = document["file"].get(str(ids[0]), {}) if ids else {}
        name = image.get("fname") or image.get("src") or ""
        yield _File(f"{file}: view {view}", name, regions)


# -- the regions


def _shapes(regions: Sequence[_Region], attribute: str | None, note: OnBad) -> Iterator[Shape]:
    for region in regions:
        if isinstance(region.shape, BadLabel):
            yield broken(region.shape)
            continue
        kind = str(region.shape.get("name"))
        if kind in ("point", "line"):
            yield without_box(region.where, kind, note)
            continue
        try:
            if kind not in READERS:
                raise BadLabel(region.where, f"is a shape that is not known; {', '.join(READERS)} are", kind)
            box = READERS[kind](region.where, region.shape)
            name = ONE_CLASS if attribute is None else _class_of(region, attribute)
        except BadLabel as error:
            yield broken(error)
            continue
        yield Shape(region.where, name, pixels(*box), around=kind != "rect")


def _class_of(region: _Region, attribute: str) -> str:
    value = region.attributes.get(attribute, "")
    if isinstance(value, Mapping):  # check boxes
        chosen = [key for key, on in value.items() if on]
        if len(chosen) > 1:
            raise BadLabel(region.where, f"has several values of {attribute}", chosen)
        value = chosen[0] if chosen else ""
    return str(value)


def _rect(where: str, shape: Mapping[str, Any]) -> XYWH:
    x, y, width, height = _numbers(where, shape, "x", "y", "width", "height")
    return x, y, width, height


def _circle(where: str, shape: Mapping[str, Any]) -> XYWH:
    cx, cy, r = _numbers(where, shape, "cx", "cy", "r")
    return around_ellipse(cx, cy, r, r)


def _ellipse(where: str, shape: Mapping[str, Any]) -> XYWH:
    cx, cy, rx, ry = _numbers(where, shape, "cx", "cy", "rx", "ry")
    turned = shape.get("theta") or 0
    return around_ellipse(cx, cy, rx, ry, numbers_of(where, [turned], "theta")[0] * 57.29577951308232)


def _polygon(where: str, shape: Mapping[str, Any]) -> XYWH:
    xy = shape.get("xy")
    xs, ys = (xy[::2], xy[1::2]) if xy else (shape.get("all_points_x") or [], shape.get("all_points_y") or [])
    if len(xs) != len(ys):
        raise BadLabel(where, "as many x as y expected", [len(xs), len(ys)])
    return around(points_of(where, list(zip(xs, ys, strict=True))))


READERS: dict[str, Callable[[str, Mapping[str, Any]], XYWH]] = {
    "rect": _rect,
    "circle": _circle,
    "ellipse": _ellipse,
    "polygon": _polygon,
    "polyline": _polygon,
}


def _numbers(where: str, shape: Mapping[str, Any], *names: str) -> list[float]:
    values = shape.get("xy") or [shape.get(name) for name in names]
    return numbers_of(where, values[: len(names)], ", ".join(names))
