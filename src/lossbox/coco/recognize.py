"""What a folder of data is: recognized by the files that are there.

========== =========================================================================================================================
format     recognized by
========== =========================================================================================================================
coco       JSON with ``images``, ``annotations`` and ``categories``, at any depth; Roboflow's ``train/_annotations.coco.json`` too
voc        XML whose root is ``<annotation>``, at any depth
yolo       ``data.yaml`` with ``names``, or ``classes.txt`` or ``obj.names`` with label files, in the folder or in one folder below it
========== =========================================================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .checks import brief, load_json
from .convert import Layout, voc_layout, yolo_layout
from .files import SUFFIXES, BadLabel, OnBad, files_below, stop
from .json_files import coco_parts, is_coco
from .labels import Read, xml_of
from .layouts import YOLO_NAMES, are_labels, read_yaml

Format = Literal["coco", "voc", "yolo"]

LOOKED_FOR = {
    "coco": "COCO (JSON with images, annotations and categories)",
    "voc": "Pascal VOC (XML with the root <annotation>)",
    "yolo": "YOLO (data.yaml with names, or classes.txt beside files of labels)",
}


def recognize(source: Path, on_bad: OnBad = stop, *, format: Format | None = None, **voc: Any) -> Layout:
    """The layout of a folder or file of data.

    Args:
        source: a folder, a COCO JSON or a ``data.yaml``. Images of a file are looked for below its folder, or else one level higher.
        on_bad: takes every label and image that breaks a rule; raise, or return to leave it out.
        format: what it is, where it could be several things.
        voc: further arguments of ``voc_layout``.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it has no layout that is known, or several; the message says what was looked for and what was found.
    """
    if not source.exists():
        raise FileNotFoundError(f"data: {source} does not exist")
    files = [source] if source.is_file() else files_below(source, (".json", ".xml", ".yaml", ".yml", ".txt", ".names"))
    finders = FINDERS if format is None else {format: FINDERS[format]}
    found = {kind: evidence for kind, finder in finders.items() if (evidence := finder(source, files))}
    if not found and format in (None, "coco"):
        asked = [LOOKED_FOR[format]] if format else list(LOOKED_FOR.values())
        raise ValueError(f"data: {source} is none of the layouts that are known; looked for {', '.join(asked)}; found {_inventory(source)}")
    if len(found) > 1:
        each = ", ".join(f"{LOOKED_FOR[kind]}: {_first(evidence)}" for kind, evidence in found.items())
        raise ValueError(
            f"data: {source} may be several things: {each}; name the JSON or the YAML file instead of the folder, "
            f"or convert it first: lossbox convert {source} --format {next(iter(found))} --out OUT"
        )
    kind, evidence = next(iter(found.items()), (format, []))
    if kind == "coco":
        return _coco(source, evidence, on_bad)
    if kind == "voc":
        return voc_layout(_voc_root(source), on_bad, **voc)
    return yolo_layout(evidence[0] if len(evidence) == 1 else source, on_bad)


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


def _coco_files(source: Path, files: Sequence[Path]) -> list[Path]:
    return [file for file in files if file.suffix.lower() == ".json" and is_coco(_json(file))]


def _voc_files(source: Path, files: Sequence[Path]) -> list[Path]:
    return (
        []
        if source.is_file()
        else next(([file] for file in files if file.suffix.lower() == ".xml" and _root_tag(file) == "annotation"), [])
    )


def _yolo_files(source: Path, files: Sequence[Path]) -> list[Path]:
    """The files that name the classes: those in the folder itself, or else those of one folder below it."""
    yamls = [file for file in files if file.suffix.lower() in (".yaml", ".yml") and "names" in _yaml(file)]
    if not yamls:
        labelled = source.is_file() or any(file.suffix.lower() == ".txt" and are_labels(file) for file in files)
        yamls = [file for file in files if labelled and file.name.lower() in ("classes.txt", "obj.names")]
    higher = min((len(file.parts) for file in yamls), default=0)
    yamls = [file for file in yamls if len(file.parts) == higher]
    preferred = [file for name in YOLO_NAMES for file in yamls if file.name.lower() == name]
    return preferred[:1] if len({file.parent for file in yamls}) == 1 and preferred else yamls


FINDERS: dict[Format, Callable[[Path, Sequence[Path]], list[Path]]] = {"coco": _coco_files, "voc": _voc_files, "yolo": _yolo_files}


def _json(file: Path) -> Any:
    try:
        return load_json(file, "JSON")
    except ValueError:
        return None


def _yaml(file: Path) -> Mapping[str, Any]:
    try:
        return read_yaml(file)
    except ValueError:
        return {}


def _root_tag(file: Path) -> str:
    try:
        return xml_of(file).tag
    except BadLabel:
        return ""


def _first(files: Sequence[Path]) -> str:
    return str(files[0]) + (f" and {len(files) - 1} more" if len(files) > 1 else "")


def _inventory(source: Path) -> str:
    """The files by their suffixes, and what a JSON has instead of the sections of COCO."""
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file() and not path.name.startswith(".")]
    if not files:
        return "an empty folder"
    count = Counter(path.suffix.lower() or "no suffix" for path in files)
    others = [
        f"{number} {suffix}"
        for suffix, number in sorted(count.items(), key=lambda entry: (-entry[1], entry[0]))[:8]
        if suffix not in SUFFIXES
    ]
    texts = [f"{sum(count[suffix] for suffix in SUFFIXES)} images", *others]
    for file in [file for file in files if file.suffix.lower() == ".json"][:1]:
        content = _json(file)
        what = f"the keys {brief(sorted(content))}" if isinstance(content, Mapping) else "no object that can be read"
        texts.append(f"{file} with {what}")
    return ", ".join(texts)


# -- the layouts


def _coco(source: Path, files: Sequence[Path], on_bad: OnBad) -> Layout:
    root = source
    if source.is_file():
        root = source.parent if files_below(source.parent, SUFFIXES) else source.parent.parent
    notes: list[BadLabel] = []
    parts, reads, ids = coco_parts(root, files, on_bad, notes.append)
    if source.is_file():  # the images of the other parts beside it are none of its business
        notes = [note for note in notes if note.rule != "is in no part"]
    return Layout("COCO", parts, lambda item, _: reads[item], list(ids), notes, ids)


def _voc_root(source: Path) -> Path:
    """The folder with the lists of the parts, such as ``VOC2012`` in ``VOCdevkit``."""
    lists = sorted(path for path in source.rglob("ImageSets") if path.is_dir())
    if len(lists) > 1:
        years = ", ".join(brief(str(path.parent)) for path in lists)
        raise ValueError(f"data: {source} holds several data sets, {years}; name one of them")
    return lists[0].parent if lists else source
