"""``lossbox convert``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..coco.convert import Layout, Read
    from ..coco.files import BadLabel, Labelled


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox convert``."""
    parser = argparse.ArgumentParser(
        "lossbox convert",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Pascal VOC and YOLO folders to COCO JSON, which `lossbox fit` trains on: one file for each part of the data, as\n"
        "OUT/train.json, and the folder of its images, which is printed.\n\n"
        "  voc   *.xml and the images of the same names; the parts are the lists in ImageSets/Main, or folders called train, val, ...\n"
        "  yolo  data.yaml with names, train, val and test, or classes.txt; the labels of an image lie beside it, or in a folder labels\n"
        "        in place of images or beside it. Polygons become the boxes around them.\n\n"
        "Images without labels stay: they are training data. What is left out is named and counted.",
        epilog="example: lossbox convert yolo my_data --out data/mine && lossbox check data/mine/train.json my_data/images/train",
    )
    parser.add_argument("format", choices=("voc", "yolo"), help="what the folder holds")
    parser.add_argument("source", type=Path, help="the folder (yolo: or its data.yaml)")
    parser.add_argument("--out", type=Path, required=True, help="the folder that the JSON files are written to")
    parser.add_argument(
        "--on-bad-box",
        choices=("error", "drop"),
        default="error",
        help="stop at the first label that breaks a rule, or leave such labels (and broken images) out and count them (default: error)",
    )
    parser.add_argument(
        "--images",
        choices=("reference", "copy", "link"),
        default="reference",
        help="leave them where they are, copy them to OUT/PART, or make hard links there, which take no space (default: reference)",
    )
    parser.add_argument(
        "--difficult",
        choices=("crowd", "keep", "drop"),
        default="crowd",
        help="voc: objects marked difficult become crowd regions, which training and evaluation ignore, or are kept or dropped "
        "(default: crowd)",
    )
    parser.add_argument(
        "--first-pixel", type=int, choices=(0, 1), default=1, help="voc: 0 for files that count pixels from 0, not from 1 (default: 1)"
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="voc: the classes, in their order; needed where parts are converted one by one (default: the names found, sorted)",
    )
    parser.add_argument("--allow-empty", action="store_true", help="accept a part without any labels")
    options = parser.parse_args(argv)

    from ..coco import convert
    from ..report import write_json

    bad: list[BadLabel] = []

    def on_bad(error: BadLabel) -> None:
        if options.on_bad_box == "error":
            raise ValueError(f"{error}; --on-bad-box drop leaves such records out")
        bad.append(error)

    if options.format == "voc":
        choices = {"names": options.classes, "difficult": options.difficult, "first_pixel": options.first_pixel}
        layout = convert.voc_layout(options.source, on_bad, **choices)
    else:
        layout = convert.yolo_layout(options.source, on_bad)
    read = {
        part: convert.read_part(layout, part, on_bad, items=_with_progress(layout, part), allow_empty=options.allow_empty)
        for part in layout.parts
    }
    names = layout.names or sorted({box.name for images in read.values() for image in images for box in image.boxes})
    if not names:
        raise ValueError(f"source: no labelled object in {options.source}; --classes names those that there might be")
    for part, images in read.items():
        folder = Path(os.path.commonpath([image.image.parent.absolute() for image in images]))
        document = convert.coco_document(images, names, folder)
        if options.images != "reference":
            folder = _place(document, folder, options.out / part, link=options.images == "link")
        write_json(options.out / f"{part}.json", document)
        print(f"{options.out / part}.json: {_counts(layout, part, images)}, {len(names)} classes; images in {_shown(folder)}")
    for word, errors in (("left out", bad), ("note", layout.notes)):
        for rule in dict.fromkeys(error.rule for error in errors):
            broken = [error for error in errors if error.rule == rule]
            print(f"{word}: {len(broken)}, the first is {broken[0]}", file=sys.stderr)


def _counts(layout: Layout, part: str, images: Sequence[Read]) -> str:
    empty = sum(not image.boxes for image in images)
    used = {image.image for image in images}
    unlabelled = sum(item.labels is None and item.image in used for item in layout.parts[part])
    which = f"{empty} without boxes" + (f", {unlabelled} of them without a file of labels" if unlabelled else "")
    return f"{len(images)} images ({which}), {sum(len(image.boxes) for image in images)} boxes"


def _with_progress(layout: Layout, part: str) -> Iterable[Labelled]:
    """The images of one part, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(layout.parts[part], f"reading {part}", console=console, transient=True, disable=not console.is_terminal)


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
