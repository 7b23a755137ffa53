"""Files of a data set by name: images, the labels that belong to each, and the parts that folders and lists name."""

from __future__ import annotations

import os
import re
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

from .checks import brief, spellings

if TYPE_CHECKING:
    from .look import Look

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif", ".mpo")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")

PART_NAMES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
"""Other names of parts, in lower case."""

FOLD = r"fold[ _-]?\d+"
"""A part of a cross validation, in lower case."""

PARTS = ("train", "val", "test", "trainval", *PART_NAMES)

NEUTRAL = frozenset({"", "obj", "data", "dataset", "images", "image", "imgs", "img", "labels", "annotations", "set", "split", "part"})
"""Words beside that of a part in the name of a folder, such as ``obj_train_data`` or ``images-train``."""


class BadLabel(ValueError):
    """A label, an image or a list breaks a rule; the message names file, record and rule.

    Attributes:
        rule: what it breaks, in words.
        image: the file that it is about, where that is known and can be opened.
        box: ``x y width height`` in pixels, where it is about a box.
    """

    def __init__(self, where: str, rule: str, got: Any = ..., *, image: Path | None = None, box: Sequence[float] | None = None) -> None:
        self.rule, self.image, self.box = rule, image, box
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
        look: what the image file holds, where it has been opened.
    """

    image: Path
    labels: Path | None
    look: Look | None = field(default=None, compare=False, repr=False)


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
        self.by_place: dict[str, list[Path]] = defaultdict(list)
        self.by_key: dict[str, list[Path]] = defaultdict(list)
        self.by_stem: dict[str, list[Path]] = defaultdict(list)
        for file in files:
            self.by_place[self.key(file.relative_to(root), holder=["*"])].append(file)
            self.by_key[self.key(file.relative_to(root))].append(file)
            self.by_stem[normal(file.stem)].append(file)

    def key(self, relative: PurePath, holder: Sequence[str] = ()) -> str:
        """Folders and stem, with something else for each folder that says what it holds, or nothing."""
        folders = [word for part in relative.parts[:-1] for word in (holder if part.lower() in self.holders else [normal(part)])]
        return "/".join([*folders, normal(relative.stem)])

    def find(self, path: Path) -> list[Path]:
        """The files that share their name with one below the same folder, that of the same place in ``labels`` or beside it first.

        A file in the same place, as ``labels/images/a.txt`` of ``images/images/a.jpg``, is the only one.
        """
        relative = path.relative_to(self.root)
        found = self.by_place.get(self.key(relative, holder=["*"])) or self.by_key.get(self.key(relative), [])
        in_place = in_place_of_images(path).with_suffix("")
        return sorted(found, key=lambda file: (file.with_suffix("") != in_place, file.parent != path.parent, file))

    def named(self, line: str) -> list[Path]:
        """The files that a line of a list names: by path, with or without a suffix, or by stem where that is enough."""
        path = PurePosixPath(line.replace("\\", "/"))
        path = path if path.suffix.lower() in SUFFIXES else path.with_name(path.name + ".")
        stem = PurePosixPath(path.name[:-1]) if path.name.endswith(".") else PurePosixPath(path.stem)
        relative = PurePath(*(part for part in path.parts[:-1] if part not in (".", "..")), f"{stem}.x")
        key, place = self.key(relative), self.key(relative, holder=["*"])
        by_place = self.by_place.get(f"*/{place}") or self.by_place.get(place)
        return by_place or self.by_key.get(key) or (self.by_stem.get(normal(str(stem)), []) if "/" not in key else [])


class Images:
    """The images below a folder, by the ends of their paths."""

    def __init__(self, root: Path, note: OnBad) -> None:
        self.root, self.all = root, images_below(root, note)
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        self.bases: dict[str, str] = {}
        for image in self.all:
            self.by_name[normal(image.name)].append(image)

    def learn_base(self, part: str, file_names: Iterable[str]) -> None:
        """Learns the folder that the names of a part are relative to: the one below which most of them exist, if it is one."""
        count: Counter[str] = Counter()
        for name in file_names:
            end = "/" + normal(name.replace("\\", "/")).removeprefix("./")
            places = [self._place(image) for image in self.by_name.get(PurePosixPath(end).name, [])]
            count.update(place.removesuffix(end) for place in places if place.endswith(end))
        most = count.most_common(2)
        if most and most[0][1] > most[-1][1] * (len(most) - 1):
            self.bases[part] = most[0][0]

    def _place(self, image: Path) -> str:
        return "/" + normal(image.relative_to(self.root).as_posix())

    def find(self, file_name: str, part: str, beside: Path) -> list[Path]:
        """The images that a ``file_name`` may mean; one where it is clear."""
        name = PurePosixPath(normal(file_name.replace("\\", "/")))
        wanted = [word for word in name.parts if word not in (".", "..")]
        same_name = self.by_name.get(name.name, [])
        foreign = bool(wanted) and (wanted[0] == "/" or wanted[0].endswith(":"))
        for start in range(int(foreign), len(wanted) if foreign or ".." in name.parts else 1):
            end = wanted[start:]
            found = [image for image in same_name if [normal(word) for word in image.relative_to(self.root).parts[-len(end) :]] == end]
            if found:
                break
        else:
            found = []
        there, name_below, base = os.path.normpath(beside / name), normal("/".join(wanted)), self.bases.get(part, "")
        for closer in (
            [image for image in found if normal(os.path.normpath(image)) == normal(there)],
            [image for image in found if part_of_folders(self.root, image) == part],
            [image for image in found if image.is_relative_to(beside)],
            [image for image in found if self._place(image) == f"{base}/{name_below}"],
        ):
            found = [image for image in found if image in closer] or found
            if len(found) == 1:
                break
        return found


def in_place_of_images(image: Path) -> Path:
    """The same path with ``labels`` in the place of the last folder called ``images``."""
    parts = list(image.parts)
    at = [index for index, part in enumerate(parts[:-1]) if part.lower() == "images"]
    if at:
        parts[at[-1]] = "labels"
    return Path(*parts)


def part_of_folders(root: Path, image: Path) -> str | None:
    """The part that a folder on the way to an image names."""
    return next((part for name in image.relative_to(root).parts[:-1] if (part := part_of_folder(name)) is not None), None)


def part_of_folder(name: str) -> str | None:
    """The part that a folder is named after.

    Example:
        >>> [part_of_folder(name) for name in ("valid", "train2017", "obj_train_data", "VisDrone-DET-val", "fold_2", "contest")]
        ['val', 'train', 'train', 'val', 'fold_2', None]
    """
    name = name.lower()
    if re.fullmatch(FOLD, name):
        return name
    words = [word for word in re.split(r"[^a-z]+", name) if word not in NEUTRAL]
    return next((part_name(word) for word in (words[-1:] + words[:1]) if word in PARTS), None)


def part_of_file(root: Path, file: Path) -> str:
    """The part that a JSON is about: by a folder on the way to it, or by a word of its name; ``all`` where neither says."""
    words = [word for word in re.split(r"[^a-z]+", file.stem.lower()) if word in PARTS]
    return part_of_folders(root, file) or (part_name(words[-1]) if words else "all")


def note_unused(images: Iterable[Path], parts: Mapping[str, Sequence[Labelled]], note: OnBad) -> None:
    """Notes the images that no part has."""
    used = {item.image for items in parts.values() for item in items}
    for image in images:
        if image not in used:
            note(BadLabel(str(image), "is in no part", image=image))


def by_folder(root: Path, items: Sequence[Labelled]) -> dict[str, list[Labelled]]:
    """Items by the part that a folder names; all as ``all`` where none does."""
    parts: dict[str, list[Labelled]] = defaultdict(list)
    for item in items:
        parts[part_of_folders(root, item.image) or "all"].append(item)
    return dict(parts)


def lines_of(file: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers from 1; a name may have any other character that Unicode calls a separator."""
    lines = re.split(r"\r\n|\r|\n", text_of(file))
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def text_of(file: Path) -> str:
    """The text of a file: UTF-8, with or without a byte order mark, or UTF-16 with one, as Windows writes it."""
    content = file.read_bytes()
    try:
        return content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except ValueError as error:
        raise BadLabel(str(file), f"is not text: {error}") from error


def find_listed(line: str, *roots: Path) -> Path | None:
    """The file that a line of a list names, relative to one of the folders.

    Backslashes separate folders too, names may differ in their form of Unicode, and of a path of another machine (``C:\\data\\a.jpg``) the
    longest end that exists counts; of ``data/images/a.jpg`` too, where there is no folder ``data``: so Darknet and CVAT write them.
    """
    if (found := _existing(line, roots)) is not None:
        return found
    parts = PurePosixPath(line.replace("\\", "/")).parts
    foreign = bool(parts) and (parts[0] == "/" or re.fullmatch(r"[A-Za-z]:", parts[0]) is not None)
    above = bool(parts) and parts[0] == "data" and not any((root / "data").is_dir() for root in roots)
    ends = ("/".join(parts[start:]) for start in range(1, len(parts) if foreign else 2 if above else 0))
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
