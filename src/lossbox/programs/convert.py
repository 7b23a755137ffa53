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
    data: Folder,
    *,
    out: Folder,
    format: Literal["coco", "voc", "yolo"] | None = None,
    on_bad_box: Literal["error", "drop"] = "error",
    images: Literal["reference", "copy", "link"] = "reference",
    difficult: Literal["crowd", "keep", "drop"] = "crowd",
    first_pixel: Literal[0, 1] = 1,
    classes: Sequence[str] | None = None,
    val_share: float = 0.0,
    allow_empty: bool = False,
) -> dict[str, Any]:
    """Makes COCO JSON, which `lossbox fit` trains on, of a folder of data; `lossbox fit DATA` and `lossbox check DATA` do it by themselves.

    There is one file for each part of the data, as OUT/train.json, and the folder of its images is printed. What DATA is is recognized:

      coco  JSON with images, annotations and categories, one for each part; Roboflow's exports too
      voc   *.xml and the images of the same names; the parts are the lists in ImageSets/Main, or folders called train, val, ...
      yolo  data.yaml with names, train, val and test, or classes.txt; the labels of an image lie beside it, or in a folder labels
            in place of images or beside it. Polygons become the boxes around them.

    With --val-share, where there is no val, a share of the images becomes val: about the same share of each class, always the same
    images, and files of the same content on one side; `fit` and `check` do so with 0.2. Images without labels stay: they are training
    data. What is left out is named and counted.

    For example:

      lossbox convert my_data --out data/mine --val-share 0.2
      lossbox convert yolo my_data --out data/mine               what it is may stand before it, as in --format yolo

    Args:
        data: the folder, or its COCO JSON or data.yaml
        out: the folder that the JSON files are written to
        format: what the folder holds, where it could be several things
        on_bad_box: stop at the first label that breaks a rule, or leave such labels (and broken images) out and count them
        images: leave them where they are, copy them to OUT/PART, or make hard links there, which take no space
        difficult: voc: objects marked difficult become crowd regions, which training and evaluation ignore, or are kept or dropped
        first_pixel: voc: 0 for files that count pixels from 0, not from 1
        classes: voc: the classes, in their order; needed where parts are converted one by one (default: the names found, sorted)
        val_share: share of the images that becomes val where the data has none; 0 leaves the parts as they are
        allow_empty: accept a part without any labels

    Returns:
        ``data``: what was found, in one line. ``parts``: by name ``annotations`` and ``images``, where they are, and ``counts``, in words.
        ``left_out`` and ``notes``: messages about labels, by the rule that they break.

    Raises:
        ValueError: a label breaks a rule (with ``on_bad_box="error"``), or nothing is labelled.
    """
    source, out = Path(data), Path(out)
    from ..coco import convert as coco
    from ..coco.recognize import describe, recognize
    from ..coco.split import with_val
    from ..report import write_json

    bad: list[BadLabel] = []

    def on_bad(error: BadLabel) -> None:
        if on_bad_box == "error":
            raise ValueError(f"{error}; --on-bad-box drop leaves such records out")
        bad.append(error)

    layout = recognize(source, on_bad, format=format, names=classes, difficult=difficult, first_pixel=first_pixel)
    read = {
        part: coco.read_part(
            layout, part, on_bad, items=track(items, f"reading {part}", len(items)), allow_empty=allow_empty or part == "test"
        )
        for part, items in layout.parts.items()
    }
    names = layout.names or sorted({box.name for found in read.values() for image in found for box in image.boxes})
    if not names:
        raise ValueError(f"data: no labelled object in {source}; --classes names those that there might be")
    line = f"{source}: {describe(layout, read, names)}"
    if val_share:
        read, said = with_val(read, share=val_share)
        line += f"; {said}" if said else ""
    written = {}
    for part, found in read.items():
        folder = Path(os.path.commonpath([image.image.parent.absolute() for image in found]))
        document = coco.coco_document(found, layout.ids or names, folder)
        if images != "reference":
            folder = _place(document, folder, out / part, link=images == "link")
        write_json(out / f"{part}.json", document, indent=None)
        counts = f"{_counts(layout, found)}, {len(names)} classes"
        written[part] = {"annotations": out / f"{part}.json", "images": shown(folder), "counts": counts}
    return {"data": line, "parts": written, "left_out": _by_rule(bad), "notes": _by_rule(layout.notes)}


def show_conversion(written: Mapping[str, Any]) -> None:
    """Prints what is in each part, and what was left out."""
    print(written["data"])
    for part in written["parts"].values():
        print(f"{part['annotations']}: {part['counts']}; images in {part['images']}")
    show_notes(written["left_out"], "left out")
    show_notes(written["notes"], "note")


def show_notes(by_rule: Mapping[str, Sequence[str]], word: str) -> None:
    """Prints how many labels and images break each rule, and the first of them."""
    for messages in by_rule.values():
        print(f"{word}: {len(messages)}, the first is {messages[0]}", file=sys.stderr)


def _by_rule(errors: Sequence[BadLabel]) -> dict[str, list[str]]:
    return {rule: [str(error) for error in errors if error.rule == rule] for rule in dict.fromkeys(error.rule for error in errors)}


def _counts(layout: Layout, images: Sequence[Read]) -> str:
    empty = sum(not image.boxes for image in images)
    without = {item.image for items in layout.parts.values() for item in items if item.labels is None}
    unlabelled = sum(image.image in without for image in images)
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


def shown(folder: Path) -> Path:
    """Relative to the working directory where it lies below it."""
    return folder.relative_to(Path.cwd()) if folder.is_absolute() and folder.is_relative_to(Path.cwd()) else folder


_run = command(convert, show_conversion)


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox convert``; the format may stand before the data."""
    words = list(argv)
    if words[:1] and words[0] in ("coco", "voc", "yolo") and words[1:2] and not words[1].startswith("-"):
        words[:1] = ["--format", words[0]]
    _run(words)
