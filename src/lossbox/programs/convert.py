"""``lossbox convert``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .bars import track
from .command import Folder, command

if TYPE_CHECKING:
    from ..coco.convert import Layout, Read
    from ..coco.files import BadLabel


def convert(
    format: Literal["voc", "yolo"],
    source: Folder,
    *,
    out: Folder,
    on_bad_box: Literal["error", "drop"] = "error",
    images: Literal["reference", "copy", "link"] = "reference",
    difficult: Literal["crowd", "keep", "drop"] = "crowd",
    first_pixel: Literal[0, 1] = 1,
    classes: Sequence[str] | None = None,
    allow_empty: bool = False,
) -> dict[str, Any]:
    """Makes COCO JSON, which `lossbox fit` trains on, of Pascal VOC and YOLO folders.

    There is one file for each part of the data, as OUT/train.json, and the folder of its images is printed.

      voc   *.xml and the images of the same names; the parts are the lists in ImageSets/Main, or folders called train, val, ...
      yolo  data.yaml with names, train, val and test, or classes.txt; the labels of an image lie beside it, or in a folder labels
            in place of images or beside it. Polygons become the boxes around them.

    Images without labels stay: they are training data. What is left out is named and counted.

    For example:

      lossbox convert yolo my_data --out data/mine && lossbox check data/mine/train.json my_data/images/train

    Args:
        format: what the folder holds
        source: the folder (yolo: or its data.yaml)
        out: the folder that the JSON files are written to
        on_bad_box: stop at the first label that breaks a rule, or leave such labels (and broken images) out and count them
        images: leave them where they are, copy them to OUT/PART, or make hard links there, which take no space
        difficult: voc: objects marked difficult become crowd regions, which training and evaluation ignore, or are kept or dropped
        first_pixel: voc: 0 for files that count pixels from 0, not from 1
        classes: voc: the classes, in their order; needed where parts are converted one by one (default: the names found, sorted)
        allow_empty: accept a part without any labels

    Returns:
        ``parts``: by name ``annotations`` and ``images``, where they are, and ``counts``, in words. ``left_out`` and ``notes``: messages
        about labels, by the rule that they break.

    Raises:
        ValueError: a label breaks a rule (with ``on_bad_box="error"``), or nothing is labelled.
    """
    source, out = Path(source), Path(out)
    from ..coco import convert as coco
    from ..report import write_json

    bad: list[BadLabel] = []

    def on_bad(error: BadLabel) -> None:
        if on_bad_box == "error":
            raise ValueError(f"{error}; --on-bad-box drop leaves such records out")
        bad.append(error)

    if format == "voc":
        layout = coco.voc_layout(source, on_bad, names=classes, difficult=difficult, first_pixel=first_pixel)
    else:
        layout = coco.yolo_layout(source, on_bad)
    read = {
        part: coco.read_part(layout, part, on_bad, items=track(items, f"reading {part}", len(items)), allow_empty=allow_empty)
        for part, items in layout.parts.items()
    }
    names = layout.names or sorted({box.name for found in read.values() for image in found for box in image.boxes})
    if not names:
        raise ValueError(f"source: no labelled object in {source}; --classes names those that there might be")
    written = {}
    for part, found in read.items():
        folder = Path(os.path.commonpath([image.image.parent.absolute() for image in found]))
        document = coco.coco_document(found, names, folder)
        if images != "reference":
            folder = _place(document, folder, out / part, link=images == "link")
        write_json(out / f"{part}.json", document)
        counts = f"{_counts(layout, part, found)}, {len(names)} classes"
        written[part] = {"annotations": out / f"{part}.json", "images": folder, "counts": counts}
    return {"parts": written, "left_out": _by_rule(bad), "notes": _by_rule(layout.notes)}


def show_conversion(written: Mapping[str, Any]) -> None:
    """Prints what is in each part, and what was left out."""
    for part in written["parts"].values():
        print(f"{part['annotations']}: {part['counts']}; images in {_shown(part['images'])}")
    for word, key in (("left out", "left_out"), ("note", "notes")):
        for messages in written[key].values():
            print(f"{word}: {len(messages)}, the first is {messages[0]}", file=sys.stderr)


def _by_rule(errors: Sequence[BadLabel]) -> dict[str, list[str]]:
    return {rule: [str(error) for error in errors if error.rule == rule] for rule in dict.fromkeys(error.rule for error in errors)}


def _counts(layout: Layout, part: str, images: Sequence[Read]) -> str:
    empty = sum(not image.boxes for image in images)
    used = {image.image for image in images}
    unlabelled = sum(item.labels is None and item.image in used for item in layout.parts[part])
    which = f"{empty} without boxes" + (f", {unlabelled} of them without a file of labels" if unlabelled else "")
    return f"{len(images)} images ({which}), {sum(len(image.boxes) for image in images)} boxes"


def _place(document: dict[str, list[dict[str, str]]], source: Path, folder: Path, *, link: bool) -> Path:
    """Copies or links the images of a document into a folder under their names; files that are there are not overwritten."""
    for image in document["images"]:
        target = folder / image["file_name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            continue
        if not link:
            shutil.copyfile(source / image["file_name"], target)
            continue
        try:
            os.link(source / image["file_name"], target)
        except OSError as error:
            raise OSError(f"images: {target} cannot be a hard link ({error.strerror}); --images copy copies") from error
    return folder


def _shown(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_absolute() and folder.is_relative_to(Path.cwd()) else folder


run = command(convert, show_conversion)
