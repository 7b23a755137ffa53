"""Folders of Pascal VOC data: which images belong to which part, and the objects of each XML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from .files import (
    BadLabel,
    Labelled,
    Names,
    OnBad,
    by_folder,
    files_below,
    images_below,
    lines_of,
    normal,
    note_unused,
    part_name,
    part_of_folders,
    stop,
)
from .labels import Box, Read, checked_corners, checked_size, number_of, xml_of
from .layout import Layout

VOC_FOLDERS = frozenset({"jpegimages", "images", "image", "imgs", "img", "annotations", "annotation", "annots", "labels", "xmls", "xml"})

Difficult = Literal["crowd", "keep", "drop"]
"""What becomes of objects with ``difficult`` 1."""


def voc_layout(
    source: Path,
    on_bad: OnBad = stop,
    *,
    names: Sequence[str] | None = None,
    difficult: Difficult = "crowd",
    first_pixel: int | None = None,
) -> Layout:
    """A Pascal VOC folder; see ``voc_parts`` and ``read_voc``.

    Files count pixels from 1, unless some box begins at 0: then all are taken to count from 0, which the notes say; ``first_pixel`` settles
    it.
    """
    notes: list[BadLabel] = []
    parts = voc_parts(source, on_bad, notes.append)
    if first_pixel is None:
        zeros = sum(_begins_at_0(item.labels) for items in parts.values() for item in items if item.labels is not None)
        first_pixel = 0 if zeros else 1
        if zeros:
            notes.append(BadLabel("pixels", f"are counted from 0: boxes begin there in {zeros} files; --first-pixel 1 counts from 1"))
    classes = None if names is None else list(names)
    if classes is not None and len(set(classes)) < len(classes):
        raise ValueError(f"classes: each name once expected, got {', '.join(classes)}")
    return Layout("Pascal VOC", parts, partial(read_voc, names=classes, difficult=difficult, first_pixel=first_pixel), classes, notes)


def _begins_at_0(labels: Path) -> bool:
    try:
        boxes = xml_of(labels).findall("object/bndbox")
    except BadLabel:
        return False
    return any(number_of(box.findtext(tag)) == 0 for box in boxes for tag in ("xmin", "ymin"))


def voc_parts(source: Path, on_bad: OnBad = stop, note: OnBad = lambda error: None) -> dict[str, list[Labelled]]:
    """The images of a VOC folder by part: those that the lists in ``ImageSets`` name, or those of folders called train, val, ...

    Without either all are in the part ``all``. Images and their ``*.xml`` have the same name, in folders of any name.

    Args:
        source: the folder.
        on_bad: takes a label without an image and a line of a list that names no image; raise, or return to leave it out.
        note: takes what is left out and breaks no rule, such as masks and images in no part.

    Raises:
        FileNotFoundError: no such folder, or no XML in it.
        BadLabel: from ``on_bad``.
    """
    images, labels = images_below(source, note), files_below(source, (".xml",))
    if not labels:
        raise FileNotFoundError(f"source: no *.xml in {source}; a Pascal VOC folder has Annotations/*.xml and JPEGImages/")
    items = _with_xml(source, images, labels, on_bad, note)
    lists = _lists(source, note)
    if not lists:
        return by_folder(source, items)
    of_image = {item.image: item for item in items}
    names = Names(source, of_image, VOC_FOLDERS)
    parts: dict[str, list[Labelled]] = {}
    for file in lists:
        if part_name(file.stem) in parts:
            raise ValueError(f"{file}: a part called {part_name(file.stem)} has another list in the same folder")
        parts[part_name(file.stem)] = [of_image[image] for image in _listed(file, names, on_bad, note)]
    note_unused(of_image, parts, note)
    return parts


def _with_xml(source: Path, images: Sequence[Path], labels: Sequence[Path], on_bad: OnBad, note: OnBad) -> list[Labelled]:
    """Each image with its XML, that of the same path but for the folders of images and labels, or else of the same stem."""
    by_name = Names(source, images, VOC_FOLDERS)
    image_of: dict[Path, Path] = {}
    for label in labels:
        found = [image for image in by_name.find(label) if image not in image_of]
        others = by_name.by_stem.get(normal(label.stem), [])
        image = _one_image(label, found or [image for image in others if image not in image_of])
        if image is not None:
            image_of[image] = label
        elif _is_annotation(label):
            rule = "has no image of its name" if not others else "has several images of its name, and its filename names none of them"
            on_bad(BadLabel(str(label), rule))
    stems = {(part_of_folders(source, image), normal(image.stem)) for image in image_of}
    items = []
    for image in images:
        if image in image_of or (part_of_folders(source, image), normal(image.stem)) not in stems:
            items.append(Labelled(image, image_of.get(image)))
        else:
            note(BadLabel(str(image), "has no labels, and the name of another image that has some"))
    return items


def _one_image(label: Path, images: Sequence[Path]) -> Path | None:
    """The image of an XML among several: the one that it names, or the only one that lies highest."""
    if len(images) > 1:
        try:
            filename = normal((xml_of(label).findtext("filename") or "").strip())
        except BadLabel:
            filename = ""
        named = [image for image in images if normal(image.name) == filename]
        depth = min(len(image.parts) for image in images)
        images = named if len(named) == 1 else [image for image in images if len(image.parts) == depth]
    return images[0] if len(images) == 1 else None


def _is_annotation(file: Path) -> bool:
    """False for XML of another kind, such as the settings of an editor."""
    try:
        return xml_of(file).tag == "annotation"
    except BadLabel:
        return True


def _lists(source: Path, note: OnBad) -> list[Path]:
    """The lists of parts in ``ImageSets/Main``, or in ``ImageSets``; the lists of single classes are noted."""
    folders = (source / "ImageSets" / "Main", source / "ImageSets")
    files = next((found for folder in folders if (found := sorted(folder.glob("*.[tT][xX][tT]")))), [])
    stems = {file.stem.lower() for file in files}
    lists = []
    for file in files:
        part = file.stem.lower().rpartition("_")[2]
        # dog_train.txt says of each image of train.txt whether it shows a dog
        if "_" in file.stem and part in stems and all(line.split()[-1] in ("-1", "0", "1") for _, line in lines_of(file)):
            note(BadLabel(str(file), "is the list of a class and not of a part"))
        else:
            lists.append(file)
    return lists


def _listed(file: Path, names: Names, on_bad: OnBad, note: OnBad) -> list[Path]:
    """The images that a list names, each once. A name may have spaces; a flag of -1, 0 or 1 may follow it."""
    found: dict[Path, None] = {}
    for number, line in lines_of(file):
        images = names.named(line) or names.named(re.sub(r"\s+(-1|0|1)$", "", line))
        where = f"{file}: line {number}"
        if len(images) != 1:
            on_bad(BadLabel(where, "names an image that is not there" if not images else "names several images", line))
        elif images[0] in found:
            note(BadLabel(where, "names an image for the second time", line))
        else:
            found[images[0]] = None
    return list(found)


# -- one image


def read_voc(
    item: Labelled, on_bad: OnBad, *, names: Sequence[str] | None = None, difficult: Difficult = "crowd", first_pixel: int = 1
) -> Read:
    """The boxes of one image of a VOC folder; an image without XML has none.

    VOC counts pixels from 1 and names the last pixel inside: ``x1 y1 x2 y2 = xmin - 1, ymin - 1, xmax, ymax``.

    Args:
        item: the image.
        on_bad: takes each object that breaks a rule; raise, or return to leave it out.
        names: the classes that there are; any by default.
        difficult: objects with ``difficult`` 1 become crowd regions (ignored in training and evaluation), or are kept, or dropped.
        first_pixel: 0 for files that count from 0 and name the pixel after the last.

    Raises:
        BadLabel: the XML is broken, the image is, or they do not belong together.
    """
    if item.labels is None:
        return Read(item.image, checked_size(item, (None, None), "", labelled=False), [])
    root = xml_of(item.labels)
    stated = [number_of(root.findtext(f"size/{side}")) for side in ("width", "height")]
    objects = root.findall("object")
    size = checked_size(item, stated, str(item.labels), labelled=bool(objects))
    boxes = []
    for index, entry in enumerate(objects):
        try:
            box = _voc_object(f"{item.labels}: object[{index}]", entry, size, item.image, names, first_pixel)
        except BadLabel as error:
            on_bad(error)
            continue
        hard = (entry.findtext("difficult") or "").strip() == "1"
        if not (hard and difficult == "drop"):
            boxes.append(Box(box.name, box.corners, crowd=hard and difficult == "crowd"))
    return Read(item.image, size, boxes)


def _voc_object(
    where: str, entry: ElementTree.Element, size: tuple[int, int], image: Path, names: Sequence[str] | None, first_pixel: int
) -> Box:
    name = normal((entry.findtext("name") or "").strip())
    if not name:
        raise BadLabel(where, "lacks a name")
    if names is not None and name not in names:
        raise BadLabel(where, f"the name must be one of {', '.join(names)}", name)
    texts = [entry.findtext(f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")]
    numbers = [number for number in map(number_of, texts) if number is not None]
    if len(numbers) != 4:
        raise BadLabel(where, "bndbox must have the numbers xmin, ymin, xmax, ymax", texts)
    xmin, ymin, xmax, ymax = numbers
    x, y = xmin - first_pixel, ymin - first_pixel
    box = [x, y, xmax - x, ymax - y]
    corners = checked_corners(box, size)
    if isinstance(corners, str):
        hint = "; files that count pixels from 0: --first-pixel 0" if min(xmin, ymin) == 0 and first_pixel == 1 else ""
        raise BadLabel(f"{where} in {size[0]} x {size[1]} px", corners + hint, texts, image=image, box=box)
    return Box(name, corners)
