"""Folders of Pascal VOC and YOLO data: which images belong to which part, and where the labels of each are.

Every image and every label file is used, or handed to ``on_bad`` (it breaks a rule) or ``note`` (it is left out for a reason).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .checks import brief
from .files import (
    PARTS,
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
    part_name,
    part_of_folders,
    stop,
)
from .labels import number_of, xml_of

VOC_FOLDERS = frozenset({"jpegimages", "images", "image", "imgs", "img", "annotations", "annotation", "annots", "labels", "xmls", "xml"})
YOLO_FOLDERS = frozenset({"images", "labels"})

YOLO_NAMES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml", "classes.txt", "labels/classes.txt", "obj.names")
"""The files that name the classes, the first that is there."""

NO_PARTS = frozenset({"path", "names", "nc", "download", "kpt_shape", "flip_idx", "channels", "yaml_file", "roboflow"})
"""Keys of data.yaml that are no part of the data."""


# -- Pascal VOC


def voc_parts(source: Path, on_bad: OnBad = stop, note: OnBad = lambda error: None) -> dict[str, list[Labelled]]:
    """The images of a VOC folder by part: those that the lists in ``ImageSets`` name, or those of folders called train, val, ...

    Without either all are in the part ``all``. Images and their ``*.xml`` have the same name, in folders of any name.

    Args:
        source: the folder.
        on_bad: takes a label without an image and a line of a list that names no image; raise, or return to leave it out.
        note: takes what is left out and breaks no rule, such as masks and images in no part.

    Raises:
        FileNotFoundError: no such folder, or no XML in it.
        BadLabel: from ``on_bad``.
    """
    images, labels = images_below(source, note), files_below(source, (".xml",))
    if not labels:
        raise FileNotFoundError(f"source: no *.xml in {source}; a Pascal VOC folder has Annotations/*.xml and JPEGImages/")
    items = _with_xml(source, images, labels, on_bad, note)
    lists = _lists(source, note)
    if not lists:
        return by_folder(source, items)
    of_image = {item.image: item for item in items}
    names = Names(source, of_image, VOC_FOLDERS)
    parts: dict[str, list[Labelled]] = {}
    for file in lists:
        if part_name(file.stem) in parts:
            raise ValueError(f"{file}: a part called {part_name(file.stem)} has another list in the same folder")
        parts[part_name(file.stem)] = [of_image[image] for image in _listed(file, names, on_bad, note)]
    _note_unlisted(of_image, parts, note)
    return parts


def _with_xml(source: Path, images: Sequence[Path], labels: Sequence[Path], on_bad: OnBad, note: OnBad) -> list[Labelled]:
    """Each image with its XML, that of the same path but for the folders of images and labels, or else of the same stem."""
    by_name = Names(source, images, VOC_FOLDERS)
    image_of: dict[Path, Path] = {}
    for label in labels:
        found = [image for image in by_name.find(label) if image not in image_of]
        others = by_name.by_stem.get(normal(label.stem), [])
        image = _one_image(label, found or [image for image in others if image not in image_of])
        if image is not None:
            image_of[image] = label
        elif _is_annotation(label):
            rule = "has no image of its name" if not others else "has several images of its name, and its filename names none of them"
            on_bad(BadLabel(str(label), rule))
    stems = {(part_of_folders(source, image), normal(image.stem)) for image in image_of}
    items = []
    for image in images:
        if image in image_of or (part_of_folders(source, image), normal(image.stem)) not in stems:
            items.append(Labelled(image, image_of.get(image)))
        else:
            note(BadLabel(str(image), "has no labels, and the name of another image that has some"))
    return items


def _one_image(label: Path, images: Sequence[Path]) -> Path | None:
    """The image of an XML among several: the one that it names, or the only one that lies highest."""
    if len(images) > 1:
        try:
            filename = normal((xml_of(label).findtext("filename") or "").strip())
        except BadLabel:
            filename = ""
        named = [image for image in images if normal(image.name) == filename]
        depth = min(len(image.parts) for image in images)
        images = named if len(named) == 1 else [image for image in images if len(image.parts) == depth]
    return images[0] if len(images) == 1 else None


def _is_annotation(file: Path) -> bool:
    """False for XML of another kind, such as the settings of an editor."""
    try:
        return xml_of(file).tag == "annotation"
    except BadLabel:
        return True


def _lists(source: Path, note: OnBad) -> list[Path]:
    """The lists of parts in ``ImageSets/Main``, or in ``ImageSets``; the lists of single classes are noted."""
    folders = (source / "ImageSets" / "Main", source / "ImageSets")
    files = next((found for folder in folders if (found := sorted(folder.glob("*.[tT][xX][tT]")))), [])
    stems = {file.stem.lower() for file in files}
    lists = []
    for file in files:
        part = file.stem.lower().rpartition("_")[2]
        # dog_train.txt says of each image of train.txt whether it shows a dog
        if "_" in file.stem and part in stems and all(line.split()[-1] in ("-1", "0", "1") for _, line in lines_of(file)):
            note(BadLabel(str(file), "is the list of a class and not of a part"))
        else:
            lists.append(file)
    return lists


def _listed(file: Path, names: Names, on_bad: OnBad, note: OnBad) -> list[Path]:
    """The images that a list names, each once. A name may have spaces; a flag of -1, 0 or 1 may follow it."""
    found: dict[Path, None] = {}
    for number, line in lines_of(file):
        images = names.named(line) or names.named(re.sub(r"\s+(-1|0|1)$", "", line))
        where = f"{file}: line {number}"
        if len(images) != 1:
            on_bad(BadLabel(where, "names an image that is not there" if not images else "names several images", line))
        elif images[0] in found:
            note(BadLabel(where, "names an image for the second time", line))
        else:
            found[images[0]] = None
    return list(found)


def _note_unlisted(images: Iterable[Path], parts: dict[str, list[Labelled]], note: OnBad) -> None:
    used = {item.image for items in parts.values() for item in items}
    for image in images:
        if image not in used:
            note(BadLabel(str(image), "is in no part"))


# -- YOLO


def yolo_parts(source: Path, on_bad: OnBad = stop, note: OnBad = lambda error: None) -> tuple[dict[str, list[Labelled]], list[str], int]:
    """The images of a YOLO folder by part, the names of its classes, and how many numbers of keypoints follow each box.

    ``data.yaml`` names the classes (``names``) and the parts (``train``, ``val``, ``test`` and others): each a folder of images, a text
    file of paths, or a list of these. Where it names no part, or there is ``classes.txt`` alone, folders called train, val, ... are parts;
    without those all images are in the part ``all``. The labels of an image have its name, beside it or with a folder ``labels`` in place
    of ``images`` or beside it at any depth.

    Args:
        source: the folder, or its YAML file.
        on_bad: takes a label file without an image; raise, or return to leave it out.
        note: takes what is left out and breaks no rule, such as masks and images in no part.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: the YAML breaks a rule.
    """
    file = source if source.is_file() else _yolo_file(source)
    document = read_yaml(file) if file.suffix.lower() in (".yaml", ".yml") else {"names": [line for _, line in lines_of(file)]}
    names = _class_names(file, document.get("names"))
    base = file.parent.parent if file.parent.name.lower() == "labels" else file.parent
    root = base / str(document.get("path") or "")
    root = root if root.is_dir() else base
    images = images_below(root, note)
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
    labels = _YoloLabels(root)
    if parts:
        labelled = {part: [Labelled(image, labels.of(image)) for image in found] for part, found in parts.items()}
    else:
        labelled = by_folder(root, [Labelled(image, labels.of(image)) for image in images])
    _note_unlisted(images, labelled, note)
    labels.check(images, labelled, on_bad)
    return labelled, names, _keypoints(document.get("kpt_shape"))


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
        document = yaml.load(file.read_text("utf-8-sig"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{file}: is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{file}: an object with names, train and val expected, got {type(document).__name__}")
    return document


def _class_names(file: Path, names: Any) -> list[str]:
    if isinstance(names, dict) and set(names) == set(map(str, range(len(names)))):
        names = [names[str(index)] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{file}: names must be a list of class names, or an object with the keys 0, 1, ...; got {brief(names)}")
    classes: list[str] = [normal(name) for name in names]
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
    return next((root / text for text in texts if (root / text).exists()), root / place)


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
