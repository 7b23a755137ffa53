"""Pascal VOC and YOLO folders as COCO detection JSON.

Label files are read here, one record at a time, and not by the ``supervision`` library: its readers lose VOC's ``difficult``, swap reversed
corners, pass boxes that leave their image, keep a mask of the whole image for each polygon, and stop at a bad label without saying
which. Where the labels are good, the tests compare the boxes with those of supervision.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from .checks import brief
from .read import corners_of

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
PARTS = ("train", "val", "valid", "trainval", "test")
EXIF_ORIENTATION = 0x0112

Difficult = Literal["crowd", "keep", "drop"]


class BadLabel(ValueError):
    """A label breaks a rule; the message names file, record and rule."""

    def __init__(self, where: str, rule: str, got: Any = ...) -> None:
        self.rule = rule
        super().__init__(f"{where}: {rule}" + ("" if got is ... else f", got {brief(got)}"))


OnBad = Callable[[BadLabel], None]


@dataclass(frozen=True)
class Labelled:
    """An image and where its labels are.

    Attributes:
        image: the file.
        labels: its file of labels, which need not exist.
    """

    image: Path
    labels: Path


@dataclass(frozen=True)
class Box:
    """One label.

    Attributes:
        name: of the class.
        corners: ``x1 y1 x2 y2`` in pixels, inside the image.
        crowd: neither an example nor a mistake to find.
    """

    name: str
    corners: tuple[float, float, float, float]
    crowd: bool = False


@dataclass(frozen=True)
class Read:
    """What the labels of one image say.

    Attributes:
        image: the file.
        size: (width, height) of the stored image.
        boxes: the good ones.
    """

    image: Path
    size: tuple[int, int]
    boxes: list[Box]


# -- Pascal VOC


def voc_parts(source: Path) -> dict[str, list[Labelled]]:
    """The images of a VOC folder by part: those of ``ImageSets/Main``, or all of them as ``all`` where there are none.

    Images lie in ``JPEGImages``, ``images`` or the folder itself, labels in ``Annotations``, ``annotations`` or the folder itself.

    Raises:
        FileNotFoundError: no such folder, or no XML in it.
        ValueError: a part names an image that is not there; names the file and the line.
    """
    labels = _first_folder(source, "Annotations", "annotations")
    images = _images(_first_folder(source, "JPEGImages", "images"))
    if not any(labels.glob("*.xml")):
        raise FileNotFoundError(f"source: no *.xml in {labels}; a Pascal VOC folder has Annotations/*.xml and JPEGImages/")
    by_stem = {image.stem: image for image in images}
    lists = [source / "ImageSets" / "Main" / f"{part}.txt" for part in PARTS]
    parts = {file.stem: _voc_part(file, by_stem, labels) for file in lists if file.is_file()}
    if parts:
        return parts
    alone = sorted({file.stem for file in labels.glob("*.xml")} - by_stem.keys())
    if alone:
        raise ValueError(f"{labels / alone[0]}.xml: has no image of its name in {_first_folder(source, 'JPEGImages', 'images')}")
    return {"all": [Labelled(image, labels / f"{image.stem}.xml") for image in images]}


def _voc_part(file: Path, by_stem: dict[str, Path], labels: Path) -> list[Labelled]:
    found = []
    for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), 1):
        stem = line.split()[0] if line.strip() else None
        if stem is None:
            continue
        if stem not in by_stem:
            raise ValueError(f"{file}: line {number}: names an image that is not there, got {brief(stem)}")
        found.append(Labelled(by_stem[stem], labels / f"{stem}.xml"))
    return found


def read_voc(
    item: Labelled, on_bad: OnBad, *, names: Sequence[str] | None = None, difficult: Difficult = "crowd", first_pixel: int = 1
) -> Read:
    """The boxes of one image of a VOC folder; an image without XML has none.

    VOC counts pixels from 1 and names the last pixel inside: ``x1 y1 x2 y2 = xmin - 1, ymin - 1, xmax, ymax``.

    Args:
        item: the image.
        on_bad: takes each object that breaks a rule; raise, or return to pass it over.
        names: the classes that there are; any by default.
        difficult: objects with ``difficult`` 1 become crowd regions (ignored in training and evaluation), or are kept, or dropped.
        first_pixel: 0 for files that count from 0 and name the pixel after the last.

    Raises:
        BadLabel: the XML is broken, the image is, or they do not belong together.
    """
    size = _size(item.image, upright=False)
    if not item.labels.is_file():
        return Read(item.image, size, [])
    try:
        root = ElementTree.parse(item.labels).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # also an unknown encoding
        raise BadLabel(str(item.labels), f"is not XML: {error}") from error
    stated = tuple(_text(root, f"size/{side}") for side in ("width", "height"))
    if all(stated) and stated not in (("0", "0"), tuple(map(str, size))):
        raise BadLabel(str(item.labels), f"states {stated[0]} x {stated[1]} px, {item.image} has {size[0]} x {size[1]}")
    boxes = []
    for index, entry in enumerate(root.findall("object")):
        try:
            box = _voc_object(f"{item.labels}: object[{index}]", entry, size, names, first_pixel)
        except BadLabel as error:
            on_bad(error)
            continue
        hard = _text(entry, "difficult") == "1"
        if not (hard and difficult == "drop"):
            boxes.append(Box(box.name, box.corners, crowd=hard and difficult == "crowd"))
    return Read(item.image, size, boxes)


def _voc_object(where: str, entry: ElementTree.Element, size: tuple[int, int], names: Sequence[str] | None, first_pixel: int) -> Box:
    name = _text(entry, "name")
    if not name:
        raise BadLabel(where, "lacks a name")
    if names is not None and name not in names:
        raise BadLabel(where, f"the name must be one of {', '.join(names)}", name)
    given = [_text(entry, f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")]
    numbers = [_number(text) for text in given]
    if None in given or None in numbers:
        raise BadLabel(where, "bndbox must have the numbers xmin, ymin, xmax, ymax", given)
    xmin, ymin, xmax, ymax = (number for number in numbers if number is not None)
    x, y = xmin - first_pixel, ymin - first_pixel
    corners = _corners([x, y, xmax - x, ymax - y], size)
    if isinstance(corners, str):
        hint = "; files that count pixels from 0: --first-pixel 0" if min(xmin, ymin) == 0 and first_pixel == 1 else ""
        raise BadLabel(f"{where} in {size[0]} x {size[1]} px", corners + hint, given)
    return Box(name, corners)


# -- YOLO


def yolo_parts(source: Path) -> tuple[dict[str, list[Labelled]], list[str], int]:
    """The images of a YOLO folder by part, the names of its classes, and how many numbers of keypoints follow each box.

    ``data.yaml`` names the classes (``names``) and the parts (``train``, ``val``, ``test``): each a folder of images, a text file of
    paths, or a list of these; without a part it is ``images``, as ``all``. The labels of ``.../images/a.jpg`` are in ``.../labels/a.txt``.

    Args:
        source: the folder, or its YAML file.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: the YAML breaks a rule.
    """
    try:
        import yaml
    except ImportError as error:
        raise ImportError("reading data.yaml needs PyYAML: pip install 'lossbox[train]'") from error
    file = (
        source if source.is_file() else next((source / name for name in ("data.yaml", "dataset.yaml") if (source / name).is_file()), None)
    )
    if file is None:
        raise FileNotFoundError(f"source: no data.yaml in {source}; a YOLO folder has data.yaml, images/ and labels/")
    try:
        document = yaml.safe_load(file.read_text("utf-8-sig"))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{file}: is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{file}: an object with names, train and val expected, got {type(document).__name__}")
    names = _yolo_names(file, document.get("names"))
    root = file.parent / str(document.get("path") or "")
    root = root if root.is_dir() else file.parent
    parts = {}
    for part in ("train", "val", "test"):
        places = document.get(part) or []
        images = [image for place in (places if isinstance(places, list) else [places]) for image in _yolo_images(file, root, place)]
        if images:
            parts[part] = [Labelled(image, _yolo_labels(image)) for image in images]
    if not parts:
        parts["all"] = [Labelled(image, _yolo_labels(image)) for image in _images(_folder(root / "images"))]
    shape = document.get("kpt_shape")
    return parts, names, math.prod(shape) if isinstance(shape, list) and all(type(side) is int for side in shape) else 0


def _yolo_names(file: Path, names: Any) -> list[str]:
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{file}: names must be a list of class names, or an object with the keys 0, 1, ...; got {brief(names)}")
    return [str(name) for name in names]


def _yolo_images(file: Path, root: Path, place: Any) -> list[Path]:
    if not isinstance(place, str):
        raise ValueError(f"{file}: a part must be a path or a list of paths, got {brief(place)}")
    # exports of Roboflow say ../train/images where ./train/images is meant
    path = next((path for path in (root / place, root / place.removeprefix("../")) if path.exists()), root / place)
    if path.is_file():
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
        return [path.parent / line if line.startswith("./") else root / line for line in lines]
    return _images(_folder(path))


def _yolo_labels(image: Path) -> Path:
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def read_yolo(item: Labelled, on_bad: OnBad, *, names: Sequence[str], keypoints: int = 0) -> Read:
    """The boxes of one image of a YOLO folder; an image without a label file has none.

    A line is ``class x y w h``: center and size in shares of the image; a number after it (a confidence) and keypoints are not read. A
    polygon ``class x y x y x y ...`` becomes the box around it.

    Args:
        item: the image.
        on_bad: takes each line that breaks a rule; raise, or return to pass it over.
        names: of the classes.
        keypoints: numbers of keypoints after each box.

    Raises:
        BadLabel: the image or the label file is broken.
    """
    width, height = _size(item.image, upright=True)
    if not item.labels.is_file():
        return Read(item.image, (width, height), [])
    try:
        lines = item.labels.read_text("utf-8-sig").splitlines()
    except ValueError as error:
        raise BadLabel(str(item.labels), f"is not text: {error}") from error
    boxes = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                boxes.append(_yolo_line(f"{item.labels}: line {number}", line, names, (width, height), keypoints))
            except BadLabel as error:
                on_bad(error)
    return Read(item.image, (width, height), boxes)


def _yolo_line(where: str, line: str, names: Sequence[str], size: tuple[int, int], keypoints: int) -> Box:
    words = line.split()
    numbers = [number for number in map(_number, words) if number is not None]
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
    corners = _corners([x * width, y * height, w * width, h * height], size)
    if isinstance(corners, str):
        raise BadLabel(f"{where} in {width} x {height} px", corners, line)
    return Box(names[int(numbers[0])], corners)


# -- COCO


def coco_document(parts: Iterable[Read], names: Sequence[str], root: Path) -> dict[str, Any]:
    """COCO detection JSON of what was read.

    Args:
        parts: what was read, of one part of the data.
        names: of the classes; the category ids are 1, 2, ... in this order.
        root: the folder that each ``file_name`` is to be relative to.

    Returns:
        An object with ``images``, ``categories`` and ``annotations``, ids from 1.

    Example:
        >>> read = Read(Path("images/a.jpg"), (40, 30), [Box("cup", (1.0, 2.0, 11.0, 22.0))])
        >>> coco_document([read], ["cup"], Path("images"))["annotations"]
        [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1.0, 2.0, 10.0, 20.0], 'area': 200.0, 'iscrowd': 0}]
    """
    categories = {name: number for number, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, read in enumerate(parts, 1):
        file_name = Path(os.path.relpath(read.image, root)).as_posix()
        images.append({"id": image_id, "file_name": file_name, "width": read.size[0], "height": read.size[1]})
        for box in read.boxes:
            x1, y1, x2, y2 = box.corners
            width, height = x2 - x1, y2 - y1
            row = {"image_id": image_id, "category_id": categories[box.name], "bbox": [x1, y1, width, height]}
            annotations.append({"id": len(annotations) + 1, **row, "area": width * height, "iscrowd": int(box.crowd)})
    return {
        "images": images,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": annotations,
    }


# -- files


def _corners(box: list[float], size: tuple[int, int]) -> tuple[float, float, float, float] | str:
    corners, broken = corners_of(np.array([box]), size)
    x1, y1, x2, y2 = corners[0].tolist()
    return broken.get(0, (x1, y1, x2, y2))


def _first_folder(source: Path, *names: str) -> Path:
    return next((source / name for name in names if (source / name).is_dir()), _folder(source))


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise FileNotFoundError(f"source: {path} is not a folder")
    return path


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _size(image: Path, *, upright: bool) -> tuple[int, int]:
    """Width and height from the header of an image; ``upright``: labels in shares of the turned image do not fit the stored one."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("the sizes of images need Pillow: pip install 'lossbox[train]'") from error
    try:
        with Image.open(image) as opened:
            size, turned = opened.size, opened.getexif().get(EXIF_ORIENTATION, 1) != 1
    except Exception as error:  # decoders of broken files raise OSError, SyntaxError, struct.error and more
        raise BadLabel(str(image), f"is not an image that can be opened: {error}") from error
    if turned and upright:
        raise BadLabel(str(image), "has an EXIF orientation, which is not applied in training: store the image upright")
    return size


def _text(element: ElementTree.Element, path: str) -> str | None:
    text = element.findtext(path)
    return text.strip() if text is not None else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
