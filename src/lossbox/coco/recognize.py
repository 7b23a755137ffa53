"""What a folder of data is: recognized by the files that are there.

============= ======================================================================================================================
format        recognized by
============= ======================================================================================================================
coco          JSON with ``images``, ``annotations`` and ``categories``, at any depth; Roboflow's ``train/_annotations.coco.json`` too
voc           XML whose root is ``<annotation>``, at any depth
yolo          ``data.yaml`` with ``names``, Darknet's ``obj.data``, or ``classes.txt`` or ``obj.names`` with label files, in the folder
              or in one folder below it
cvat          XML whose root is ``<annotations>``, with images or tracks
label_studio  JSON that is a list of tasks with annotations
via           JSON or CSV of VGG Image Annotator
labelme       JSON with ``shapes`` and ``imagePath``, one for each image
hugging_face  Parquet or Arrow files, or ``metadata.jsonl``, in the object detection layout of Hugging Face ``datasets``
============= ======================================================================================================================
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from .checks import brief, load_json
from .cvat import cvat_layout
from .files import SUFFIXES, BadLabel, OnBad, files_below, stop
from .hugging_face import TABLES, hugging_face_layout, is_metadata
from .json_files import coco_parts, is_coco
from .label_studio import is_label_studio, label_studio_layout
from .labelme import is_labelme, labelme_layout
from .labels import Read, xml_of
from .layout import Layout
from .look import Track
from .via import is_via, is_via_csv, via_layout
from .voc import voc_layout
from .yolo import YOLO_NAMES, are_labels, read_yaml, yolo_layout

Format = Literal["coco", "voc", "yolo", "cvat", "label_studio", "via", "labelme", "hugging_face"]

LOOKED_FOR: dict[Format, str] = {
    "coco": "COCO (JSON with images, annotations and categories)",
    "voc": "Pascal VOC (XML with the root <annotation>)",
    "yolo": "YOLO (data.yaml with names, obj.data, or classes.txt beside files of labels)",
    "cvat": "CVAT (XML with the root <annotations>)",
    "label_studio": "Label Studio (JSON with a list of tasks)",
    "via": "VGG Image Annotator (JSON or CSV)",
    "labelme": "LabelMe (JSON with shapes and imagePath)",
    "hugging_face": "Hugging Face datasets (Parquet, Arrow or metadata.jsonl)",
}


def recognize(
    source: Path,
    on_bad: OnBad = stop,
    *,
    format: Format | None = None,
    store: Path | None = None,
    track: Track = lambda items, what, total: items,
    **voc: Any,
) -> Layout:
    """The layout of a folder or file of data.

    Args:
        source: a folder, a ZIP file of one, or a file such as a COCO JSON, a ``data.yaml``, CVAT's XML. Images of a file are looked for
            below its folder, or else one level higher.
        on_bad: takes every label and image that breaks a rule; raise, or return to leave it out.
        format: what it is, where it could be several things.
        store: the folder for what has to be unpacked, ZIP files and the images in Parquet files.
        track: shows how far that is.
        voc: further arguments of ``voc_layout``.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it has no layout that is known, or several; the message says what was looked for and what was found.
    """
    if not source.exists():
        raise FileNotFoundError(f"data: {source} does not exist")
    if source.is_file() and source.suffix.lower() == ".zip":
        source = _unpacked(source, store, track)
    files = _Files(source)
    finders = FINDERS if format is None else {format: FINDERS[format]}
    found = {kind: evidence for kind, finder in finders.items() if (evidence := finder(files))}
    if not found and source in files.broken:
        raise files.broken[source]
    if not found and format in (None, "coco"):
        asked = [LOOKED_FOR[format]] if format else list(LOOKED_FOR.values())
        raise ValueError(f"data: {source} is none of the layouts that are known; looked for {', '.join(asked)}; found {_inventory(files)}")
    if len(found) > 1:
        each = ", ".join(f"{LOOKED_FOR[kind]}: {_first(evidence)}" for kind, evidence in found.items())
        raise ValueError(
            f"data: {source} may be several things: {each}; name the JSON or the YAML file instead of the folder, "
            f"or convert it first: lossbox convert {source} --format {next(iter(found))} --out OUT"
        )
    kind, evidence = next(iter(found.items()), (format or "coco", []))
    for error in files.broken.values():
        on_bad(error)
    return _layout(kind, files, evidence, on_bad, store, track, voc)


def _layout(
    kind: Format, files: _Files, found: list[Path], on_bad: OnBad, store: Path | None, track: Track, voc: Mapping[str, Any]
) -> Layout:
    if kind == "voc":
        return voc_layout(_voc_root(files.source), on_bad, **voc)
    if kind == "yolo":
        return yolo_layout(found[0] if len(found) == 1 else files.source, on_bad)
    if not found:
        raise ValueError(f"data: {files.source} is not {LOOKED_FOR[kind]}; found {_inventory(files)}")
    if kind == "hugging_face":
        return _quiet(files, hugging_face_layout(files.root, found, store and store / "images", on_bad, track=track))
    if kind == "cvat":
        return _quiet(files, cvat_layout(files.root, found, on_bad))
    documents = {file: files.json(file) for file in found}
    if kind == "coco":
        notes: list[BadLabel] = []
        parts, reads, ids = coco_parts(files.root, documents, on_bad, notes.append)
        return _quiet(files, Layout("COCO", parts, lambda item, _: reads[item], list(ids), notes, ids))
    layouts = {"label_studio": label_studio_layout, "via": via_layout, "labelme": labelme_layout}
    return _quiet(files, layouts[kind](files.root, documents, on_bad))


def _quiet(files: _Files, layout: Layout) -> Layout:
    """Of one file the images of the other parts beside it are none of its business."""
    if files.source.is_file():
        layout.notes[:] = [note for note in layout.notes if note.rule != "is in no part"]
    return layout


def describe(layout: Layout, parts: Mapping[str, Sequence[Read]], names: Sequence[str]) -> str:
    """A data set in one line.

    Example:
        >>> from lossbox.coco.files import Labelled
        >>> item = Labelled(Path("a.jpg"), None)
        >>> layout = Layout("YOLO", {"train": [item]}, lambda item, on_bad: Read(item.image, (4, 3), []))
        >>> describe(layout, {"train": [Read(Path("a.jpg"), (4, 3), [])]}, ["cup", "plate"])
        'YOLO, 1 part: train 1 image; 2 classes: cup, plate'
    """
    counts = ", ".join(f"{part} {len(images)}" for part, images in parts.items())
    shown = ", ".join(" ".join(name.split()) for name in names[:10]) + (", ..." if len(names) > 10 else "")
    unit = "image" if sum(map(len, parts.values())) == 1 else "images"
    plural = ("" if len(parts) == 1 else "s", "" if len(names) == 1 else "es")
    return f"{layout.kind}, {len(parts)} part{plural[0]}: {counts} {unit}; {len(names)} class{plural[1]}: {shown}"


# -- what is there


class _Files:
    """The files of a data set that may name labels, each parsed once.

    Attributes:
        source: the folder or file.
        broken: the files that cannot be parsed, with the reason.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        suffixes = (".json", ".jsonl", ".xml", ".yaml", ".yml", ".txt", ".names", ".data", ".csv", *TABLES)
        self.all = [source] if source.is_file() else files_below(source, suffixes)
        self.broken: dict[Path, BadLabel] = {}
        self._json: dict[Path, Any] = {}

    @cached_property
    def root(self) -> Path:
        """The folder with the images."""
        if self.source.is_dir():
            return self.source
        return self.source.parent if files_below(self.source.parent, SUFFIXES) else self.source.parent.parent

    def of(self, *suffixes: str) -> Iterator[Path]:
        return (file for file in self.all if file.suffix.lower() in suffixes)

    def json(self, file: Path) -> Any:
        if file not in self._json:
            try:
                self._json[file] = load_json(file, "JSON of labels")
            except ValueError as error:
                self._json[file], self.broken[file] = None, BadLabel(str(file), str(error).removeprefix(f"{file}: "))
        return self._json[file]

    def tag(self, file: Path) -> str:
        """Of the root of XML."""
        try:
            return xml_of(file).tag
        except BadLabel:
            return ""


def _json_files(holds: Callable[[Any], bool], files: _Files) -> list[Path]:
    return [file for file in files.of(".json") if holds(files.json(file))]


def _voc_files(files: _Files) -> list[Path]:
    return [] if files.source.is_file() else next(([file] for file in files.of(".xml") if files.tag(file) == "annotation"), [])


def _cvat_files(files: _Files) -> list[Path]:
    found = []
    for file in files.of(".xml"):
        tag = files.tag(file)
        if tag == "annotation":  # Pascal VOC, of which there may be very many
            return []
        found += [file] if tag == "annotations" else []
    return found


def _via_files(files: _Files) -> list[Path]:
    return _json_files(is_via, files) or [file for file in files.of(".csv") if is_via_csv(file)]


def _hugging_face_files(files: _Files) -> list[Path]:
    return list(files.of(*TABLES)) or [file for file in files.of(".jsonl") if is_metadata(file)]


def _yolo_files(files: _Files) -> list[Path]:
    """The files that name the classes: those in the folder itself, or else those of one folder below it."""
    named = [file for file in files.of(".yaml", ".yml") if "names" in _yaml(file)]
    named += [file for file in files.of(".data") if file.name.lower() == "obj.data" or file == files.source]
    if not named:
        labelled = files.source.is_file() or any(are_labels(file) for file in files.of(".txt"))
        named = [file for file in files.all if labelled and file.name.lower() in ("classes.txt", "obj.names")]
    higher = min((len(file.parts) for file in named), default=0)
    named = [file for file in named if len(file.parts) == higher]
    preferred = [file for name in YOLO_NAMES for file in named if file.name.lower() == name]
    return preferred[:1] if len({file.parent for file in named}) == 1 and preferred else named


FINDERS: dict[Format, Callable[[_Files], list[Path]]] = {
    "coco": partial(_json_files, is_coco),
    "voc": _voc_files,
    "yolo": _yolo_files,
    "cvat": _cvat_files,
    "label_studio": partial(_json_files, is_label_studio),
    "via": _via_files,
    "labelme": partial(_json_files, is_labelme),
    "hugging_face": _hugging_face_files,
}


def _yaml(file: Path) -> Mapping[str, Any]:
    try:
        return read_yaml(file)
    except ValueError:
        return {}


def _first(files: Sequence[Path]) -> str:
    return str(files[0]) + (f" and {len(files) - 1} more" if len(files) > 1 else "")


def _inventory(files: _Files) -> str:
    """The files by their suffixes, and what a JSON has instead of the sections of COCO."""
    source = files.source
    there = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file() and not path.name.startswith(".")]
    if not there:
        return "an empty folder"
    count = Counter(path.suffix.lower() or "no suffix" for path in there)
    others = [
        f"{number} {suffix}"
        for suffix, number in sorted(count.items(), key=lambda entry: (-entry[1], entry[0]))[:8]
        if suffix not in SUFFIXES
    ]
    texts = [f"{sum(count[suffix] for suffix in SUFFIXES)} images", *others]
    for file in [file for file in there if file.suffix.lower() == ".json"][:1]:
        content = files.json(file)
        what = f"the keys {brief(sorted(content))}" if isinstance(content, Mapping) else "no object"
        texts.append(f"{file} which {files.broken[file].rule}" if file in files.broken else f"{file} with {what}")
    return ", ".join(texts)


def _unpacked(source: Path, store: Path | None, track: Track) -> Path:
    """The files of a ZIP file, in a folder of the store."""
    if store is None:
        raise ValueError(f"data: {source} is a ZIP file; unpack it, and name the folder")
    folder = store / source.stem
    try:
        with zipfile.ZipFile(source) as archive:
            members: Iterable[Any] = archive.infolist()
            for member in track(members, f"unpacking {source.name}", len(archive.infolist())):
                archive.extract(member, folder)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # also one with a password, or an unknown compression
        raise ValueError(f"data: {source} is not a ZIP file that can be unpacked: {error}") from error
    return folder


def _voc_root(source: Path) -> Path:
    """The folder with the lists of the parts, such as ``VOC2012`` in ``VOCdevkit``."""
    lists = sorted(path for path in source.rglob("ImageSets") if path.is_dir())
    if len(lists) > 1:
        years = ", ".join(brief(str(path.parent)) for path in lists)
        raise ValueError(f"data: {source} holds several data sets, {years}; name one of them")
    return lists[0].parent if lists else source
