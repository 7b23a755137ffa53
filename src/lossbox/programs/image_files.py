"""Which images the user names: files, folders, patterns, lists."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from .command import File

LISTS = (".txt", ".lst", ".list")
"""Endings of files that hold paths of images, one per line."""


def find_images(words: Sequence[File], *, outside: Path | None = None) -> list[Path]:
    """The files that words name, each once: of folders all images below, of patterns what matches, both sorted, of lists what they name.

    Args:
        words: files, folders, patterns, lists (text files with a path per line).
        outside: a folder whose files are not taken: earlier results are no images to look at.

    Raises:
        FileNotFoundError: a word or a line of a list names nothing, or a folder without an image.
        ValueError: a URL, or a list without an image.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "deep").mkdir()
        >>> for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.jpg"):
        ...     (root / name).touch()
        >>> [file.name for file in find_images([root, f"{root}/*.jpg"])]
        ['a.PNG', 'b.jpg', 'c.jpg']
    """
    from ..training.images import images_in

    found: dict[Path, Path] = {}
    for word in words:
        path = Path(word)
        if re.match("[a-z]{2,}:/", str(word)):  # of a Path, which has lost one of the two
            raise ValueError(f"IMAGES: {word} is a URL; a file expected: download it first, nothing is fetched here")
        if path.is_file():
            files = _listed(path) if path.suffix.lower() in LISTS else [path]
        elif path.is_dir():
            files = images_in(path, option="IMAGES")
            if outside is not None and outside.is_dir():
                files = [file for file in files if outside.resolve() not in file.resolve().parents]
        else:
            files = [Path(name) for name in sorted(glob.glob(str(word), recursive=True)) if Path(name).is_file()]
            if not files:
                raise FileNotFoundError(f"IMAGES: no file, folder or pattern {word}")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _listed(path: Path) -> list[Path]:
    """The images that a text file names, one per line, relative to its folder or the current one; lines that begin with # do not count."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"IMAGES: {path} is no list of images: {error}") from error
    files = []
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            if "://" in line:
                raise ValueError(
                    f"IMAGES: {path}, line {number}: {line} is a URL; a file expected: download it first, nothing is fetched here"
                )
            file = next((place for place in (path.parent / line, Path(line)) if place.is_file()), None)
            if file is None:
                raise FileNotFoundError(f"IMAGES: {path}, line {number}: no file {line}")
            files.append(file)
    if not files:
        raise ValueError(f"IMAGES: the list {path} names no image")
    return files


def relative_names(files: Sequence[Path], words: Sequence[File]) -> list[str]:
    """What to call each file: its path below the folder that holds everything that was named, so that no two are called the same.

    Example:
        >>> relative_names([Path("x/a/1.jpg"), Path("x/b/1.jpg")], ["x/a/1.jpg", "x/b/1.jpg"])
        ['a/1.jpg', 'b/1.jpg']
    """
    folders = {os.path.abspath(file.parent) for file in files} | {os.path.abspath(word) for word in words if Path(word).is_dir()}
    base = os.path.commonpath(folders)
    return [Path(os.path.abspath(file)).relative_to(base).as_posix() for file in files]
