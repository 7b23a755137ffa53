"""``lossbox convert``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .bars import track
from .command import Folder, NewFolder, command

if TYPE_CHECKING:
    from ..coco.files import BadLabel
    from ..coco.labels import Read
    from ..coco.layout import Layout
    from ..coco.look import Depth, Look


FORMATS = ("coco", "voc", "yolo", "cvat", "label_studio", "via", "labelme", "hugging_face")


@dataclass(frozen=True)
class Converted:
    """A folder of data as COCO JSON.

    Attributes:
        data: what was found, in one line.
        parts: by name ``annotations`` and ``images``, where they are, and ``counts``, in words.
        left_out: what broke a rule.
        notes: what is left out for a reason, and what there is to know.
        looks: what was seen in each image file.
        unusable: why nothing can be trained on it, empty where that is possible: a part of which no image is left, or no split.
    """

    data: str
    parts: dict[str, dict[str, Any]]
    left_out: list[BadLabel]
    notes: list[BadLabel]
    looks: dict[Path, Look]
    unusable: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the messages by the rule that is broken."""
        return {"data": self.data, "parts": self.parts, "left_out": _by_rule(self.left_out), "notes": _by_rule(self.notes)}


def convert(
    data: Folder,
    *,
    out: NewFolder,
    format: Literal["coco", "voc", "yolo", "cvat", "label_studio", "via", "labelme", "hugging_face"] | None = None,
    on_bad_box: Literal["error", "drop"] = "error",
    images: Literal["reference", "copy", "link"] = "reference",
    difficult: Literal["crowd", "keep", "drop"] = "crowd",
    first_pixel: Literal[0, 1] | None = None,
    classes: Sequence[str] | None = None,
    val_share: float = 0.0,
    allow_empty: bool = False,
) -> dict[str, Any]:
    """Makes COCO JSON, which `lossbox fit` trains on, of a folder of data; `lossbox fit DATA` and `lossbox check DATA` do it by themselves.

    There is one file for each part of the data, as OUT/train.json, and the folder of its images is printed. What DATA is is recognized:

      coco          JSON with images, annotations and categories, one for each part; Roboflow's exports too
      voc           *.xml and the images of the same names; the parts are the lists in ImageSets/Main, or folders called train, val, ...
      yolo          data.yaml with names, train, val and test, Darknet's obj.data, or classes.txt; the labels of an image lie beside it,
                    or in a folder labels in place of images or beside it
      cvat          annotations.xml of CVAT for images, or for video with its frames as images
      label_studio  the JSON of Label Studio, and the images; its exports as COCO, YOLO and Pascal VOC too
      via           JSON, CSV or a project of VGG Image Annotator
      labelme       a JSON of LabelMe for each image
      hugging_face  Parquet, Arrow or metadata.jsonl in the object detection layout of datasets

    A ZIP file is unpacked into OUT. Polygons, circles and rotated boxes become the boxes around them.

    With --val-share, where there is no val, a share of the images becomes val: about the same share of each class, always the same
    images, and images that look alike on one side; `fit` and `check` do so with 0.2. Images without labels stay: they are training data.
    What is left out is named and counted; an image none of whose labels can be used is left out too: all bad, or points and
    lines, which have no box.

    For example:

      lossbox convert my_data --out data/mine --val-share 0.2
      lossbox convert yolo my_data --out data/mine               what it is may stand before it, as in --format yolo

    Args:
        data: the folder, a ZIP file of it, or its COCO JSON, data.yaml or other file of labels
        out: the folder that the JSON files are written to
        format: what the folder holds, where it could be several things
        on_bad_box: stop at the first label that breaks a rule, or leave such labels (and broken images) out and count them
        images: leave them where they are, copy them to OUT/PART, or make hard links there, which take no space
        difficult: voc: objects marked difficult become crowd regions, which training and evaluation ignore, or are kept or dropped
        first_pixel: voc: whether files count pixels from 0 or 1 (default: 0 where a box begins at 0)
        classes: voc: the classes, in their order; needed where parts are converted one by one (default: the names found, sorted)
        val_share: share of the images that becomes val where the data has none; 0 leaves the parts as they are
        allow_empty: accept a part without any labels, as images without objects; the part test needs none

    Returns:
        ``data``: what was found, in one line. ``parts``: by name ``annotations`` and ``images``, where they are, and ``counts``, in words.
        ``left_out`` and ``notes``: messages about labels, by the rule that they break.

    Raises:
        ValueError: a label breaks a rule (with ``on_bad_box="error"``), or nothing is labelled.
    """
    voc: dict[str, Any] = {"difficult": difficult, "first_pixel": first_pixel, "names": classes}
    done = converted(
        Path(data), Path(out), drop=on_bad_box == "drop", images=images, val_share=val_share, allow_empty=allow_empty, format=format, **voc
    )
    return done.as_dict()


def converted(
    source: Path,
    out: Path,
    *,
    drop: bool = False,
    images: str = "reference",
    val_share: float = 0.0,
    allow_empty: bool = False,
    depth: Depth = "header",
    inspect: bool = False,
    **layout_options: Any,
) -> Converted:
    """What ``convert`` does, with the records that are left out.

    Args:
        drop: leave labels out that break a rule.
        depth: how far images are read; those that are split are read far enough to see which look alike.
        inspect: where nothing can be trained on what is left, say so in ``unusable`` and keep the parts that there are.
        layout_options: of ``lossbox.coco.recognize.recognize``.
    """
    from ..coco.layout import look_at_parts, read_part
    from ..coco.recognize import describe, recognize
    from ..coco.split import to_split, with_val

    bad: dict[str, BadLabel] = {}  # an image may be in two parts

    def on_bad(error: BadLabel) -> None:
        if not drop:
            raise ValueError(f"{error}; --on-bad-box drop leaves such records out")
        bad.setdefault(str(error), error)

    layout = recognize(source, on_bad, store=out, track=track, **layout_options)
    if depth == "header" and val_share and to_split(layout.parts) is not None:
        depth = "thumb"
    looks = look_at_parts(layout, depth, track)
    read, reasons = {}, []
    for part, items in layout.parts.items():
        try:
            tracked, empty = track(items, f"reading {part}", len(items)), allow_empty or part == "test"
            read[part] = read_part(layout, part, on_bad, items=tracked, allow_empty=empty)
            if not empty and not any(image.boxes for image in read[part]):
                none = f"none of its {len(read[part])} images has a label that can be used"
                raise ValueError(f"{part}: {none}; --allow-empty takes them as images without objects")
        except ValueError as error:
            if not bad:
                raise
            reasons.append(str(error))
    names = layout.names or sorted({box.name for found in read.values() for image in found for box in image.boxes})
    if not names and not reasons:
        reasons.append(f"no labelled object in {source}; --classes names those that there might be")
        if not bad:
            raise ValueError(f"data: {reasons[0]}")
    line = f"{source}: {describe(layout, read, names)}" if names and read else f"{source}: {layout.kind}"
    if val_share and not reasons:
        try:
            read, said = with_val(read, share=val_share, looks=looks)
            line += f"; {said}" if said else ""
        except ValueError as error:
            reasons.append(str(error))
    if reasons and not inspect:
        first = f"; left out before: {len(bad)} bad labels and images, the first: {next(iter(bad))}" if bad else ""
        raise ValueError(reasons[0] + first)
    parts = {part: _written(layout, part, found, names, out, images) for part, found in read.items()} if names else {}
    notes = {str(note): note for note in layout.notes}
    return Converted(line, parts, list(bad.values()), list(notes.values()), looks, "; ".join(reasons))


def _written(layout: Layout, part: str, found: Sequence[Read], names: Sequence[str], out: Path, images: str) -> dict[str, Any]:
    """Writes the JSON of a part, and places its images."""
    from ..coco.convert import coco_document
    from ..report import write_json

    folder = Path(os.path.commonpath([image.image.parent.absolute() for image in found]))
    document = coco_document(found, layout.ids or names, folder)
    if images != "reference":
        folder = _place(document, folder, out / part, link=images == "link")
    write_json(out / f"{part}.json", document, indent=None)
    counts = f"{_counts(layout, found)}, {len(names)} classes"
    return {"annotations": out / f"{part}.json", "images": shown(folder), "counts": counts}


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
    if words[:1] and words[0] in FORMATS and words[1:2] and not words[1].startswith("-"):
        words[:1] = ["--format", words[0]]
    _run(words)
