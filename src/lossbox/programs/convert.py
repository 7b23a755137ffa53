"""``lossbox convert``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..coco.convert import BadLabel, Labelled, OnBad, Read


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox convert``."""
    parser = argparse.ArgumentParser(
        "lossbox convert",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Pascal VOC and YOLO folders to COCO JSON, which `lossbox fit` trains on: one file for each part of the data, as\n"
        "OUT/train.json, and the folder of its images, which is printed.\n\n"
        "  voc   Annotations/*.xml, JPEGImages/, and the parts that ImageSets/Main names (train, val, trainval, test)\n"
        "  yolo  data.yaml with names, train, val and test; images/ and labels/. Polygons become the boxes around them.\n\n"
        "Images without labels stay: they are training data.",
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
    options = parser.parse_args(argv)

    from ..coco import convert
    from ..report import write_json

    reader: Callable[[Labelled, OnBad], Read]
    if options.format == "voc":
        parts, names = convert.voc_parts(options.source), options.classes
        reader = partial(convert.read_voc, names=names, difficult=options.difficult, first_pixel=options.first_pixel)
    else:
        parts, names, keypoints = convert.yolo_parts(options.source)
        reader = partial(convert.read_yolo, names=names, keypoints=keypoints)
    bad: list[BadLabel] = []
    read = {part: _read(part, items, reader, bad, stop=options.on_bad_box == "error") for part, items in parts.items()}
    if names is None:
        names = sorted({box.name for images in read.values() for image in images for box in image.boxes})
    if not names:
        raise ValueError(f"source: no labelled object in {options.source}; --classes names those that there might be")
    for part, images in read.items():
        folder = Path(os.path.commonpath([image.image.parent.absolute() for image in images])) if images else options.source
        document = convert.coco_document(images, names, folder.absolute())
        if options.images != "reference":
            folder = _place(document, folder, options.out / part, link=options.images == "link")
        write_json(options.out / f"{part}.json", document)
        empty = sum(not image.boxes for image in images)
        counted = f"{len(images)} images ({empty} without boxes), {len(document['annotations'])} boxes, {len(names)} classes"
        print(f"{options.out / part}.json: {counted}; images in {_shown(folder)}")
    for rule in dict.fromkeys(error.rule for error in bad):
        broken = [error for error in bad if error.rule == rule]
        print(f"left out: {len(broken)}, the first is {broken[0]}", file=sys.stderr)


def _read(
    part: str, items: Sequence[Labelled], reader: Callable[[Labelled, OnBad], Read], bad: list[BadLabel], *, stop: bool
) -> list[Read]:
    """What the labels of one part say, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    from ..coco import convert

    def on_bad(error: BadLabel) -> None:
        if stop:
            raise ValueError(f"{error}; --on-bad-box drop leaves such records out")
        bad.append(error)

    found = []
    console = Console(stderr=True)
    for item in track(items, f"reading {part}", console=console, transient=True, disable=not console.is_terminal):
        try:
            found.append(reader(item, on_bad))
        except convert.BadLabel as error:
            on_bad(error)
    return found


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
