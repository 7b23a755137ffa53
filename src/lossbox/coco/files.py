"""Files of a data set by name: images, the labels that belong to each, and the parts that folders and lists name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

from .checks import brief, spellings

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif", ".mpo")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")

PART_NAMES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
"""Other names of parts, in lower case."""

PARTS = ("train", "val", "test", "trainval", *PART_NAMES)

EXIF_ORIENTATION = 0x0112


class BadLabel(ValueError):
    """A label, an image or a list breaks a rule; the message names file, record and rule."""

    def __init__(self, where: str, rule: str, got: Any = ...) -> None:
        self.rule = rule
        super().__init__(f"{where}: {rule}" + ("" if got is ... else f", got {brief(got)}"))


OnBad = Callable[[BadLabel], None]
"""What is done about a bad record: raise it, or write it down, upon which the record is left out."""


def stop(error: BadLabel) -> None:
    """Raises the error: the default of what is done about a bad record."""
    raise error


@dataclass(frozen=True)
class Labelled:
    """An image and where its labels are.

    Attributes:
        image: the file.
        labels: its file of labels; None where there is none.
    """

    image: Path
    labels: Path | None


def normal(text: str) -> str:
    """Text in the one form of Unicode in which equal letters are equal: macOS stores names in another one."""
    return unicodedata.normalize("NFC", text)


def part_name(name: str) -> str:
    """What a part of the data is called here: ``Validation`` and ``valid`` are ``val``."""
    return PART_NAMES.get(name.lower(), name.lower())


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files with one of these suffixes, in any case, at any depth, by name; hidden ones are left out."""
    if not folder.is_dir():
        raise FileNotFoundError(f"source: {folder} is not a folder")
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        found += [Path(parent, name) for name in names if not name.startswith(".") and PurePath(name).suffix.lower() in suffixes]
    return sorted(found)


def images_below(folder: Path, note: OnBad) -> list[Path]:
    """The images of a folder at any depth. Masks are left out and noted, videos too."""
    images = []
    for path in files_below(folder, SUFFIXES + VIDEOS):
        folders = path.relative_to(folder).parts[:-1]
        if path.suffix.lower() in VIDEOS:
            note(BadLabel(str(path), "is a video: its frames must be stored as images"))
        elif any(name.lower().startswith("segmentation") or "mask" in name.lower() for name in folders):
            note(BadLabel(str(path), "lies in a folder of masks and is not taken as an image"))
        else:
            images.append(path)
    return images


class Names:
    """Files of a folder by what an image and its labels share: folders and stem, but for the folders that say which of both they hold.

    Example:
        >>> names = Names(Path("d"), [Path("d/labels/train/a.txt")], {"images", "labels"})
        >>> names.find(Path("d/train/images/a.jpg")), names.find(Path("d/val/images/a.jpg"))
        ([PosixPath('d/labels/train/a.txt')], [])
    """

    def __init__(self, root: Path, files: Iterable[Path], holders: Collection[str]) -> None:
        self.root, self.holders = root, holders
        self.by_key: dict[str, list[Path]] = defaultdict(list)
        self.by_stem: dict[str, list[Path]] = defaultdict(list)
        for file in files:
            self.by_key[self.key(file.relative_to(root))].append(file)
            self.by_stem[normal(file.stem)].append(file)

    def key(self, relative: PurePath) -> str:
        folders = [normal(part) for part in relative.parts[:-1] if part.lower() not in self.holders]
        return "/".join([*folders, normal(relative.stem)])

    def find(self, path: Path) -> list[Path]:
        """The files that share their name with one below the same folder, that of the same place in ``labels`` or beside it first."""
        found = self.by_key.get(self.key(path.relative_to(self.root)), [])
        in_place = in_place_of_images(path).with_suffix("")
        return sorted(found, key=lambda file: (file.with_suffix("") != in_place, file.parent != path.parent, file))

    def named(self, line: str) -> list[Path]:
        """The files that a line of a list names: by path, with or without a suffix, or by stem where that is enough."""
        path = PurePosixPath(line.replace("\\", "/"))
        path = path if path.suffix.lower() in SUFFIXES else path.with_name(path.name + ".")
        stem = PurePosixPath(path.name[:-1]) if path.name.endswith(".") else PurePosixPath(path.stem)
        key = "/".join([*(normal(part) for part in path.parts[:-1] if part.lower() not in {*self.holders, ".", ".."}), normal(str(stem))])
        return self.by_key.get(key) or (self.by_stem.get(normal(str(stem)), []) if "/" not in key else [])


def in_place_of_images(image: Path) -> Path:
    """The same path with ``labels`` in the place of the last folder called ``images``."""
    parts = list(image.parts)
    at = [index for index, part in enumerate(parts[:-1]) if part.lower() == "images"]
    if at:
        parts[at[-1]] = "labels"
    return Path(*parts)


def part_of_folders(root: Path, image: Path) -> str | None:
    """The part that a folder on the way to an image names."""
    return next((part_name(name) for name in image.relative_to(root).parts[:-1] if name.lower() in PARTS), None)


def by_folder(root: Path, items: Sequence[Labelled]) -> dict[str, list[Labelled]]:
    """Items by the part that a folder names; all as ``all`` where none does."""
    parts: dict[str, list[Labelled]] = defaultdict(list)
    for item in items:
        parts[part_of_folders(root, item.image) or "all"].append(item)
    return dict(parts)


def lines_of(file: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers from 1."""
    try:
        text = file.read_text("utf-8-sig")
    except ValueError as error:
        raise BadLabel(str(file), f"is not text: {error}") from error
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def find_listed(line: str, *roots: Path) -> Path | None:
    """The file that a line of a list names, relative to one of the folders.

    Backslashes separate folders too, names may differ in their form of Unicode, and of a path of another machine (``C:\\data\\a.jpg``) the
    longest end that exists counts.
    """
    if (found := _existing(line, roots)) is not None:
        return found
    parts = PurePosixPath(line.replace("\\", "/")).parts
    foreign = bool(parts) and (parts[0] == "/" or re.fullmatch(r"[A-Za-z]:", parts[0]) is not None)
    ends = ("/".join(parts[start:]) for start in range(1, len(parts) if foreign else 0))
    return next((found for end in ends if (found := _existing(end, roots)) is not None), None)


def _existing(name: str, roots: Sequence[Path]) -> Path | None:
    for spelling in spellings(name):
        for root in roots:
            try:
                if (root / spelling).is_file():
                    return root / spelling
            except (OSError, ValueError):  # a name that is too long, or no name at all
                continue
    return None


def image_size(image: Path) -> tuple[tuple[int, int], int]:
    """Width and height of the stored image, and its EXIF orientation (1 is upright), from its header.

    Raises:
        BadLabel: it is not there, cannot be opened, or has more than 8 bits per channel.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("the sizes of images need Pillow: pip install 'lossbox[train]'") from error
    if not image.is_file():
        raise BadLabel(str(image), "does not exist")
    try:
        with Image.open(image) as opened:
            size, mode, orientation = opened.size, opened.mode, exif_orientation(opened)
    except Exception as error:  # decoders of broken files raise OSError, SyntaxError, struct.error and more
        raise BadLabel(str(image), f"is not an image that can be opened: {error}") from error
    if not has_8_bits(mode):
        raise BadLabel(str(image), f"has pixels of mode {mode}; images of 8 bits per channel expected")
    return size, orientation


def exif_orientation(image: Image) -> int:
    """Of an image that Pillow has opened; 1, upright, where it states none."""
    orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    return orientation if isinstance(orientation, int) else 1


def has_8_bits(mode: str) -> bool:
    """Whether an image of this mode of Pillow's has at most 8 bits per channel."""
    return not mode.startswith(("I", "F"))
