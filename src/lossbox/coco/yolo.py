"""Folders of YOLO data: which images belong to which part, and the lines of each file of labels."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from .checks import brief
from .files import (
    FOLD,
    PARTS,
    SUFFIXES,
    BadLabel,
    Labelled,
    Names,
    OnBad,
    by_folder,
    files_below,
    find_listed,
    images_below,
    lines_of,
    normal,
    note_unused,
    part_name,
    stop,
    text_of,
)
from .labels import TURNED, Box, Read, checked_corners, number_of
from .layout import Layout
from .look import usable

YOLO_FOLDERS = frozenset({"images", "labels", "jpegimages"})

YOLO_NAMES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml", "obj.data", "classes.txt", "labels/classes.txt", "obj.names")
"""The files that name the classes, the first that is there."""

NO_PARTS = frozenset({"path", "names", "nc", "download", "kpt_shape", "flip_idx", "channels", "yaml_file", "roboflow"})
"""Keys of data.yaml that are no part of the data."""


def yolo_layout(source: Path, on_bad: OnBad = stop) -> Layout:
    """A YOLO or Darknet folder; see ``yolo_parts`` and ``read_yolo``."""
    notes: list[BadLabel] = []
    parts, names, keypoints = yolo_parts(source, on_bad, notes.append)
    kind = "Darknet" if (source if source.is_file() else _yolo_file(source)).suffix.lower() == ".data" else "YOLO"
    return Layout(kind, parts, partial(read_yolo, names=names, keypoints=keypoints), names, notes)


def yolo_parts(source: Path, on_bad: OnBad = stop, note: OnBad = lambda error: None) -> tuple[dict[str, list[Labelled]], list[str], int]:
    """The images of a YOLO folder by part, the names of its classes, and how many numbers of keypoints follow each box.

    ``data.yaml`` names the classes (``names``) and the parts (``train``, ``val``, ``test`` and others): each a folder of images, a text
    file of paths, or a list of these; so does Darknet's ``obj.data``. Where it names no part, or there is ``classes.txt`` alone, lists
    called train.txt, val.txt, ... are parts, or else folders of these names; without those all images are in the part ``all``. The labels
    of an image have its name, beside it or with a folder ``labels`` in place of ``images`` or beside it at any depth.

    Args:
        source: the folder, or its YAML file or ``obj.data``.
        on_bad: takes a label file without an image; raise, or return to leave it out.
        note: takes what is left out and breaks no rule, such as masks and images in no part.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: the YAML breaks a rule.
    """
    file = source if source.is_file() else _yolo_file(source)
    document = _document(file)
    names = _class_names(file, document.get("names"))
    base = file.parent.parent if file.parent.name.lower() == "labels" else file.parent
    root = base / str(document.get("path") or "")
    root = root if root.is_dir() else base
    images = images_below(root, note)
    parts = _named_parts(file, root, document, note) or _listed_parts(root, note)
    labels = _YoloLabels(root)
    if parts:
        labelled = {part: [Labelled(image, labels.of(image)) for image in found] for part, found in parts.items()}
    else:
        labelled = by_folder(root, [Labelled(image, labels.of(image)) for image in images])
    note_unused(images, labelled, note)
    labels.check(images, labelled, on_bad)
    return labelled, names, _keypoints(document.get("kpt_shape"))


def _named_parts(file: Path, root: Path, document: Mapping[str, Any], note: OnBad) -> dict[str, list[Path]]:
    """The images of the parts that data.yaml names."""
    parts: dict[str, list[Path]] = {}
    for key, value in document.items():
        places = _places(file, root, key, value)
        if not places:
            continue
        part = part_name(key)
        if part in parts:
            raise ValueError(f"{file}: names the part {part} twice, the second time as {key}")
        if part == "test" and not any(_place(root, place).exists() for place in places):  # as in exports of Roboflow
            note(BadLabel(str(file), "names a part test that is not there", places[0]))
            continue
        found = [image for place in places for image in _images_of(file, root, place, note)]
        parts[part] = list(dict.fromkeys(found))
        if len(parts[part]) < len(found):
            note(BadLabel(str(file), f"{len(found) - len(parts[part])} images of {part} are named for the second time"))
    return parts


def _listed_parts(root: Path, note: OnBad) -> dict[str, list[Path]]:
    """The images of lists called train.txt, val.txt, ... in the folder."""
    lists = [file for file in sorted(root.iterdir()) if file.suffix.lower() == ".txt" and part_of_list(file)]
    return _named_parts(root, root, {file.stem: file.name for file in lists if _names_images(file)}, note)


def part_of_list(file: Path) -> bool:
    """Whether a text file is called like a part of the data."""
    return file.stem.lower() in PARTS or re.fullmatch(FOLD, file.stem.lower()) is not None


def _names_images(file: Path) -> bool:
    try:
        return any(PurePosixPath(line).suffix.lower() in SUFFIXES for _, line in lines_of(file)[:1])
    except BadLabel:
        return False


def _document(file: Path) -> dict[str, Any]:
    """What names the classes and the parts, in the form of data.yaml."""
    if file.suffix.lower() in (".yaml", ".yml"):
        return read_yaml(file)
    if file.suffix.lower() != ".data":
        return {"names": [line for _, line in lines_of(file)]}
    pairs = [(key.strip().lower(), value.strip()) for key, equals, value in (line.partition("=") for _, line in lines_of(file)) if equals]
    said = dict(pairs)
    names = find_listed(said.get("names", ""), file.parent, file.parent.parent)
    if names is None:
        raise FileNotFoundError(f"{file}: names = {said.get('names')}, but there is no such file of class names")
    classes = [line for _, line in lines_of(names)]
    if said.get("classes", str(len(classes))) != str(len(classes)):
        raise ValueError(f"{file}: classes = {said['classes']}, but {names} has {len(classes)} names")
    return {"names": classes} | {key: place for key, place in said.items() if key in PARTS and place}  # valid, or val as others write it


def _yolo_file(source: Path) -> Path:
    if not source.is_dir():
        raise FileNotFoundError(f"source: {source} is not a folder")
    file = next((source / name for name in YOLO_NAMES if (source / name).is_file()), None)
    others = sorted([*source.glob("*.yaml"), *source.glob("*.yml")])
    if file is None and len(others) != 1:
        raise FileNotFoundError(f"source: no data.yaml in {source}; a YOLO folder has data.yaml (or classes.txt), images/ and labels/")
    return file or others[0]


def read_yaml(file: Path) -> dict[str, Any]:
    """The content with every scalar as text: the classes ``no``, ``yes`` and ``007`` keep their names."""
    try:
        import yaml
    except ImportError as error:
        raise ImportError("reading data.yaml needs PyYAML: pip install 'lossbox[train]'") from error
    try:
        document = yaml.load(text_of(file), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{file}: is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{file}: an object with names, train and val expected, got {type(document).__name__}")
    return document


def _class_names(file: Path, names: Any) -> list[str]:
    if isinstance(names, str) and (listed := find_listed(names, file.parent)) is not None:
        names = [line for _, line in lines_of(listed)]
    if isinstance(names, dict) and set(names) == set(map(str, range(len(names)))):
        names = [names[str(index)] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{file}: names must be a list of class names, or an object with the keys 0, 1, ...; got {brief(names)}")
    # JSON as YAML may write one letter as two escapes, which PyYAML takes for two letters
    classes: list[str] = [normal(name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")) for name in names]
    if twice := [name for index, name in enumerate(classes) if name in classes[:index]]:
        raise ValueError(f"{file}: names has {brief(twice[0])} twice; each class needs a name of its own")
    return classes


def _places(file: Path, root: Path, key: str, value: Any) -> list[str]:
    """Where the images of a part are; nothing for a key that is none."""
    if key in NO_PARTS or value in ("", "~", "null", []):
        return []
    places = value if isinstance(value, list) else [value]
    known = key.lower() in PARTS
    if not all(isinstance(place, str) for place in places):
        if known:
            raise ValueError(f"{file}: a part must be a path or a list of paths, got {brief(value)}")
        return []
    # a key of another name is a part where it names what is there
    there = all(len(place) < 500 and _place(root, place).exists() for place in places)
    return [place for place in places if place] if known or there else []


def _place(root: Path, place: str) -> Path:
    # exports of Roboflow say ../train/images where ./train/images is meant
    texts = [text for name in (place, place.replace("\\", "/")) for text in (name, name.removeprefix("../"))]
    there = next((root / text for text in texts if (root / text).exists()), None)
    return there or find_listed(place, root) or root / place


def _images_of(file: Path, root: Path, place: str, note: OnBad) -> list[Path]:
    path = _place(root, place)
    if path.is_file():
        return [find_listed(line, *_roots(line, path.parent, root)) or root / line for _, line in lines_of(path)]
    if not path.is_dir():
        raise FileNotFoundError(f"{file}: names {place}, but {path} is neither a folder nor a list of images")
    return images_below(path, lambda error: None if path.is_relative_to(root) else note(error))


def _roots(line: str, beside: Path, root: Path) -> tuple[Path, Path]:
    return (beside, root) if line.startswith(("./", ".\\")) else (root, beside)


def _keypoints(shape: Any) -> int:
    sides = [number_of(side) for side in shape] if isinstance(shape, list) else []
    return int(math.prod(side for side in sides if side is not None)) if sides and None not in sides else 0


class _YoloLabels:
    """The label files below the folder of a data set, and of images that lie elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[Path, Names] = {}
        self.used: dict[Path, list[Path]] = defaultdict(list)

    def below(self, base: Path) -> Names:
        if base not in self.names:
            self.names[base] = Names(base, files_below(base, (".txt",)) if base.is_dir() else [], YOLO_FOLDERS)
        return self.names[base]

    def of(self, image: Path) -> Path | None:
        base = self.root
        if not image.is_relative_to(base):
            folders = [folder for folder in image.parents if folder.name.lower() == "images"]
            base = folders[0].parent if folders else image.parent
        found = self.below(base).find(image)
        for label in found[:1]:
            self.used[label].append(image)
        return found[0] if found else None

    def check(self, images: Sequence[Path], parts: dict[str, list[Labelled]], on_bad: OnBad) -> None:
        """Names label files without an image and images of one name, and takes the latter away from the parts."""
        names = Names(self.root, images, YOLO_FOLDERS)
        for label, of in self.used.items():
            if len(set(of)) > 1:
                on_bad(BadLabel(str(label), f"belongs to several images of its name: {', '.join(sorted({image.name for image in of}))}"))
                for part, items in parts.items():
                    parts[part] = [item for item in items if item.labels != label]
        labelled = {image for of in self.used.values() for image in of}
        for label in [label for found in self.below(self.root).by_key.values() for label in found if label not in self.used]:
            images_of = names.find(label)
            if any(image in labelled for image in images_of):
                on_bad(BadLabel(str(label), "is a second file of labels for its image"))
            elif not images_of and are_labels(label):
                on_bad(BadLabel(str(label), "holds labels and has no image of its name"))


def are_labels(file: Path) -> bool:
    """Whether the first line of a text file is one of labels."""
    try:
        words = next((line.split() for _, line in lines_of(file)), [])
    except BadLabel:
        return False
    return len(words) >= 5 and all(number_of(word) is not None for word in words)


# -- one image


def read_yolo(item: Labelled, on_bad: OnBad, *, names: Sequence[str], keypoints: int = 0) -> Read:
    """The boxes of one image of a YOLO folder; an image without a label file has none.

    A line is ``class x y w h``: center and size in shares of the image; a number after it (a confidence) and keypoints are not read. A
    polygon ``class x y x y x y ...`` becomes the box around it.

    Args:
        item: the image.
        on_bad: takes each line that breaks a rule; raise, or return to leave it out.
        names: of the classes.
        keypoints: numbers of keypoints after each box.

    Raises:
        BadLabel: the image or the label file is broken.
    """
    look = usable(item.image, item.look)
    if look.orientation != 1:
        raise BadLabel(str(item.image), TURNED, image=item.image)
    boxes = []
    for number, line in lines_of(item.labels) if item.labels is not None else ():
        try:
            boxes.append(_yolo_line(f"{item.labels}: line {number}", line, names, look.size, item.image, keypoints))
        except BadLabel as error:
            on_bad(error)
    return Read(item.image, look.size, boxes)


def _yolo_line(where: str, line: str, names: Sequence[str], size: tuple[int, int], image: Path, keypoints: int) -> Box:
    words = line.split()
    numbers = [number for number in map(number_of, words) if number is not None]
    polygon = len(words) >= 7 and len(words) % 2 == 1 and not (keypoints and len(words) == 5 + keypoints)
    if len(numbers) != len(words) or not (polygon or len(words) in (5, 6, 5 + keypoints)):
        raise BadLabel(where, "class, x, y, width, height or class and the corners of a polygon expected, as numbers", line)
    if numbers[0] not in range(len(names)):
        raise BadLabel(where, f"the class must be a whole number from 0 to {len(names) - 1}", words[0])
    if polygon:
        x1, x2, y1, y2 = min(numbers[1::2]), max(numbers[1::2]), min(numbers[2::2]), max(numbers[2::2])
        x, y, w, h = x1, y1, x2 - x1, y2 - y1
    else:
        _, center_x, center_y, w, h = numbers[:5]
        x, y = center_x - w / 2, center_y - h / 2
    width, height = size
    box = [x * width, y * height, w * width, h * height]
    corners = checked_corners(box, size)
    if isinstance(corners, str):
        raise BadLabel(f"{where} in {width} x {height} px", corners, line, image=image, box=box)
    return Box(names[int(numbers[0])], corners)
