"""The object detection layout of Hugging Face ``datasets``: a row per image, with its objects, in Parquet, Arrow or ``metadata.jsonl``.

The columns are ``image`` (the bytes of an image file, or its path; ``file_name`` in ``metadata.jsonl``) and ``objects`` with ``bbox`` and
``category`` (or ``categories``, ``label``, ``labels``, ``category_id``, ``class``). The names of the classes stand in the schema that
``datasets`` writes, or are the values themselves. Images that are bytes are written to files, which training reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .entries import XYWH, Entry, Shape, Size, broken, entries_layout, numbers_of
from .files import SUFFIXES, BadLabel, OnBad, lines_of, part_of_file, stop, text_of
from .layout import Layout
from .look import Track, look_at
from .read import corners_of

CATEGORIES = ("category", "categories", "category_id", "label", "labels", "class", "classes")

WAYS = {"xywh": "x y width height", "xyxy": "x1 y1 x2 y2"}
"""The ways to write a box, that of ``datasets`` first; in pixels, or in shares of the image where no number exceeds 1."""

TABLES = (".parquet", ".arrow")

Objects = list[tuple[str, str, list[float]]]
"""Of one image, for each object the place, the class and four numbers."""


def is_metadata(file: Path) -> bool:
    """Whether a file of JSON lines says which objects are in images."""
    try:
        first = json.loads(text_of(file).partition("\n")[0])
    except ValueError:
        return False
    return isinstance(first, Mapping) and "file_name" in first and "objects" in first


def hugging_face_layout(root: Path, files: Sequence[Path], store: Path | None, on_bad: OnBad = stop, *, track: Track) -> Layout:
    """The images of a data set of ``datasets``.

    How boxes are written is not said in these files: it is ``x y width height`` unless fewer boxes break a rule as ``x1 y1 x2 y2``, and
    then the notes say so.

    Args:
        root: the folder of the data.
        files: of one data set; the part is in the name of a file or its folder, as ``train-00000-of-00001.parquet``.
        store: where images go that are bytes.
        on_bad: takes rows that break a rule.
        track: shows how far it is.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: a file lacks a column.
    """
    notes: list[BadLabel] = []
    folder = store or root
    names = next(filter(None, [_class_names(_features(file)) for file in files]), [])
    found: list[tuple[Path, Entry, Size, Objects]] = []
    written = False
    for file in files:
        part, count = part_of_file(root, file), _count(file)
        for number, row in enumerate(track(_rows(file), f"reading {file.name}", count)):
            where = f"{file}: row {number}"
            try:
                path = _image(where, row, file, folder / part / f"{file.stem}-{number:06}")
                written = written or path.is_relative_to(folder / part)
                refused: list[BadLabel] = []
                objects = list(_objects(where, row.get("objects"), names, refused.append))
                entry = Entry(where, str(path), [broken(error) for error in refused], part=None if part == "all" else part)
                found.append((file, entry, look_at(path).size, objects))
            except BadLabel as error:
                on_bad(error)
    way, in_shares = _way_of(found, notes)
    entries: dict[Path, list[Entry]] = {file: [] for file in files}
    for file, entry, _, objects in found:
        shapes = [*entry.shapes, *(Shape(place, name, partial(_xywh, numbers, way, in_shares)) for place, name, numbers in objects)]
        entries[file].append(Entry(entry.where, entry.file_name, shapes, part=entry.part))
    return entries_layout("Hugging Face datasets", folder if written else root, entries, on_bad, notes, names=names)


# -- tables


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("reading Parquet and Arrow files needs pyarrow: pip install pyarrow (or datasets, which brings it)") from error
    return pyarrow


def _features(file: Path) -> Mapping[str, Any]:
    """What ``datasets`` says about the columns; nothing where it did not write the file."""
    if file.suffix.lower() not in TABLES:
        return {}
    pyarrow = _arrow()
    schema = pyarrow.parquet.read_schema(file) if file.suffix.lower() == ".parquet" else _stream(file).schema
    missing = {"image", "objects"} - set(schema.names)
    if missing:
        raise ValueError(f"{file}: lacks the column {min(missing)}; an image and its objects expected, got {', '.join(schema.names)}")
    said = (schema.metadata or {}).get(b"huggingface")
    features = json.loads(said).get("info", {}).get("features", {}) if said else {}
    return features if isinstance(features, Mapping) else {}


def _stream(file: Path) -> Any:
    pyarrow = _arrow()
    source = pyarrow.memory_map(str(file))
    try:
        return pyarrow.ipc.open_stream(source)
    except pyarrow.ArrowInvalid:
        reader = pyarrow.ipc.open_file(source)
        return pyarrow.RecordBatchReader.from_batches(reader.schema, (reader.get_batch(at) for at in range(reader.num_record_batches)))


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.suffix.lower() in TABLES:
        columns = ["image", "objects"]
        parquet = file.suffix.lower() == ".parquet"
        batches = _arrow().parquet.ParquetFile(file).iter_batches(64, columns=columns) if parquet else _stream(file)
        for batch in batches:
            for start in range(0, batch.num_rows, 64):
                yield from batch.slice(start, 64).select(columns).to_pylist()
        return
    for number, line in lines_of(file):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file}: line {number} is not JSON: {error}") from error
        yield row if isinstance(row, Mapping) else {}


def _count(file: Path) -> int:
    if file.suffix.lower() == ".parquet":
        return int(_arrow().parquet.ParquetFile(file).metadata.num_rows)
    return sum(batch.num_rows for batch in _stream(file)) if file.suffix.lower() in TABLES else len(lines_of(file))


def _class_names(features: Any) -> list[str]:
    """The names of the ``ClassLabel`` of the objects."""
    if isinstance(features, Mapping):
        for key in (*CATEGORIES, "objects", "feature"):
            entry = features.get(key)
            if isinstance(entry, Mapping) and entry.get("_type") == "ClassLabel":
                return [str(name) for name in entry["names"]]
            if found := _class_names(entry):
                return found
    return _class_names(features[0]) if isinstance(features, list) and features else []


# -- one row


def _image(where: str, row: Mapping[str, Any], file: Path, target: Path) -> Path:
    """The file of the image of a row; bytes are written to ``target`` with the suffix of their format."""
    image = row.get("image", row.get("file_name"))
    content, path = (image.get("bytes"), image.get("path")) if isinstance(image, Mapping) else (None, image)
    if isinstance(image, bytes):
        content = image
    if content is None:
        if not isinstance(path, str) or not (file.parent / path).is_file():
            raise BadLabel(where, "its image does not exist", path)
        return file.parent / path
    stated = PurePosixPath(path).suffix.lower() if isinstance(path, str) else ""
    target = target.with_name(target.name + (stated if stated in SUFFIXES else _suffix(content)))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


def _suffix(content: bytes) -> str:
    known = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"GIF8": ".gif", b"BM": ".bmp", b"II*\0": ".tif", b"MM\0*": ".tif", b"RIFF": ".webp"}
    return next((suffix for start, suffix in known.items() if content.startswith(start)), ".jpg")


def _objects(where: str, objects: Any, names: Sequence[str], on_bad: OnBad) -> Iterator[tuple[str, str, list[float]]]:
    """The objects of a row: an object of lists, or a list of objects."""
    if isinstance(objects, Mapping):
        keys = [key for key in ("bbox", *CATEGORIES) if objects.get(key) is not None]
        lists = [objects[key] for key in keys]
        if len({len(values) for values in lists}) > 1:
            raise BadLabel(where, "objects must have lists of equal length", {key: len(objects[key]) for key in keys})
        objects = [dict(zip(keys, values, strict=True)) for values in zip(*lists, strict=True)]
    for number, entry in enumerate(objects or []):
        place = f"{where}: objects[{number}]"
        category = next((entry[key] for key in CATEGORIES if entry.get(key) is not None), "")
        try:
            box = entry.get("bbox")
            numbers = numbers_of(place, box if isinstance(box, Sequence) else [box], "bbox of four numbers")
            if len(numbers) != 4:
                raise BadLabel(place, "bbox of four numbers expected", numbers)
            if names and isinstance(category, int) and category not in range(len(names)):
                raise BadLabel(place, f"the category must be a whole number from 0 to {len(names) - 1}", category)
        except BadLabel as error:
            on_bad(error)
            continue
        yield place, names[category] if names and isinstance(category, int) else str(category), numbers


# -- the ways to write a box


def _way_of(found: Sequence[tuple[Path, Entry, Size, Objects]], notes: list[BadLabel]) -> tuple[str, bool]:
    """How boxes are written, and whether in shares of the image."""
    boxes = np.array([numbers for *_, objects in found for *_, numbers in objects], dtype=np.float64).reshape(-1, 4)
    sizes = np.array([size for *_, size, objects in found for _ in objects], dtype=np.float64).reshape(-1, 2)
    in_shares = len(boxes) > 0 and bool((boxes <= 1 + 1e-6).all())
    scaled = boxes * np.tile(sizes, 2) if in_shares else boxes
    corners = np.concatenate([scaled[:, :2], scaled[:, 2:] - scaled[:, :2]], axis=1)
    faults = {"xywh": len(corners_of(scaled, sizes)[1]), "xyxy": len(corners_of(corners, sizes)[1])}
    way = min(faults, key=lambda way: faults[way])
    if way != "xywh" or in_shares:
        unit = " in shares of the image" if in_shares else ""
        count = f"{faults['xywh']} of {len(boxes)} break a rule as {WAYS['xywh']}, {faults['xyxy']} as {WAYS['xyxy']}"
        notes.append(BadLabel("bbox", f"is read as {WAYS[way]}{unit}: {count}"))
    return way, in_shares


def _xywh(numbers: Sequence[float], way: str, in_shares: bool, size: Size) -> XYWH:
    across, down = size if in_shares else (1, 1)
    x, y, third, fourth = numbers[0] * across, numbers[1] * down, numbers[2] * across, numbers[3] * down
    return (x, y, third, fourth) if way == "xywh" else (x, y, third - x, fourth - y)
