"""Folders with COCO JSON: which file says what about which part, and where its images are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .checks import BadRecord, Table, brief
from .columns import Sections, read_sections
from .files import BadLabel, Images, Labelled, OnBad, normal, note_unused, part_of_file, stop
from .labels import Box, Read
from .read import corners_of

SECTIONS = frozenset({"images", "annotations", "categories"})


def is_coco(document: Any) -> bool:
    """Whether JSON has the three lists of COCO's detection format."""
    return isinstance(document, Mapping) and document.keys() >= SECTIONS


def coco_parts(
    root: Path, files: Mapping[Path, Any], on_bad: OnBad = stop, note: OnBad = lambda error: None
) -> tuple[dict[str, list[Labelled]], dict[Labelled, Read], dict[str, int]]:
    """The images of COCO JSON files by part, what is known about each, and the ids of the categories by name.

    An image lies where its ``file_name`` says, below any folder of the data set: that of the JSON first, then those of the same part. Of
    a path of another machine the longest end that exists counts.

    Args:
        root: the folder of the data set.
        files: the content of the JSON files, each of another part.
        on_bad: takes every record that breaks a rule; raise, or return to leave it out.
        note: takes what is left out and breaks no rule.

    Raises:
        ValueError: a file is not COCO JSON, or two are about one part.
    """
    documents = {file: read_sections(content, str(file)) for file, content in files.items()}
    images = Images(root, note)
    parts: dict[str, list[Labelled]] = {}
    reads: dict[Labelled, Read] = {}
    for part, file in _by_part(root, files, note).items():
        of_part = _read(part, file, documents[file], images, on_bad)
        parts[part] = [Labelled(image, file) for image in of_part]
        reads |= {Labelled(image, file): read for image, read in of_part.items()}
    named = _categories([documents[file] for file in files], reads, note)
    note_unused(images.all, parts, note)
    return parts, reads, named


def _by_part(root: Path, files: Iterable[Path], note: OnBad) -> dict[str, Path]:
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        found[part_of_file(root, file)].append(file)
    parts = {}
    for part, of_part in found.items():
        # COCO's own folder has captions and keypoints of the same images beside the boxes
        boxes = [file for file in of_part if file.name.lower().startswith("instances")]
        chosen = boxes if len(boxes) == 1 else of_part
        if len(chosen) > 1:
            raise ValueError(f"{', '.join(map(str, chosen))}: several files for the part {part}; name one of them instead of the folder")
        parts[part] = chosen[0]
        for file in of_part:
            if file not in chosen:
                note(BadLabel(str(file), f"is left out beside {chosen[0].name}, which is about the same part"))
    return parts


def _categories(documents: Iterable[Sections], reads: Mapping[Labelled, Read], note: OnBad) -> dict[str, int]:
    """The id of each name; 1, 2, ... where two files do not agree about them."""
    used = {box.name for read in reads.values() for box in read.boxes}
    pairs: dict[tuple[str, int], Mapping[str, Any]] = {}
    for sections in documents:
        for row in np.flatnonzero(sections.categories.good).tolist():
            pairs.setdefault((normal(sections.names[row]), int(sections.category_ids[row])), sections.categories.records[row])
    groups = {record.get("supercategory") for (name, _), record in pairs.items() if record.get("supercategory") != name}
    for name, id_ in list(pairs):
        if name in groups and name not in used:  # as in the exports of Roboflow
            note(BadLabel(f"category {id_} ({brief(name)})", "is the group of other categories, has no box and is no class"))
            del pairs[name, id_]
    names = list(dict.fromkeys(name for name, _ in pairs))
    if len(pairs) == len(names) == len({id_ for _, id_ in pairs}):
        return dict(sorted(pairs, key=lambda pair: pair[1]))
    note(BadLabel("categories", "have other ids in another file; they are matched by name and counted from 1"))
    return {name: number for number, name in enumerate(names, 1)}


def _read(part: str, file: Path, sections: Sections, images: Images, on_bad: OnBad) -> dict[Path, Read]:
    """By image file the record and the annotations; all bad records are handed over."""
    records, annotations = sections.images, sections.annotations
    names, sizes = records.texts("file_name"), np.stack([records.integers("width"), records.integers("height")], axis=1)
    for row in np.flatnonzero(~(sizes > 0).all(axis=1)).tolist():
        records.refuse(row, "width and height must be positive numbers of pixels")
    images.learn_base(part, (name for name in names if name))
    row_of: dict[Path, int] = {}
    for row in np.flatnonzero(records.good).tolist():
        found = images.find(names[row], part, file.parent)
        if len(found) != 1:
            rule = "the image does not exist" if not found else "file_name is that of several images"
            records.refuse(row, rule, got=names[row])
        elif found[0] in row_of:
            records.refuse(row, "file_name is that of another record", got=names[row])
        else:
            row_of[found[0]] = row
    boxes = _boxes(sections, sizes, {row: path for path, row in row_of.items()})
    _hand_over((sections.categories, records, annotations), on_bad)
    refused = set(sections.image[~annotations.good].tolist())
    return {
        path: Read(path, (int(sizes[row, 0]), int(sizes[row, 1])), boxes.get(row, []), records.records[row], row in refused)
        for path, row in row_of.items()
    }


def _boxes(sections: Sections, sizes: Any, paths: Mapping[int, Path]) -> dict[int, list[Box]]:
    """The boxes by the row of their image; those that break a rule are refused."""
    annotations = sections.annotations
    rows = np.flatnonzero(sections.kept())
    corners, broken = corners_of(sections.boxes[rows], sizes[sections.image[rows]])
    boxes: dict[int, list[Box]] = defaultdict(list)
    for at, row in enumerate(rows.tolist()):
        rule = sections.broken_boxes.get(row) or broken.get(at)
        if rule is not None:
            annotations.refuse(row, rule, got=annotations.records[row].get("bbox"))
            annotations.bad[row].image = paths.get(int(sections.image[row]))
            annotations.bad[row].box = None if row in sections.broken_boxes else sections.boxes[row].tolist()
            continue
        x1, y1, x2, y2 = corners[at].tolist()
        name = normal(sections.names[sections.category[row]])
        boxes[int(sections.image[row])].append(Box(name, (x1, y1, x2, y2), bool(sections.crowd[row]), annotations.records[row]))
    return boxes


def _hand_over(tables: Iterable[Table], on_bad: OnBad) -> None:
    for table in tables:
        for index in sorted(table.bad):
            on_bad(_as_label(table.bad[index]))


def _as_label(error: BadRecord) -> BadLabel:
    label = BadLabel(str(error.where), error.rule, image=error.image, box=error.box)
    label.args = (str(error),)
    return label
