"""Whether results can be written where the user wants them, before the work that makes them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def check_writable(option: str, path: Path | str, *, folder: bool) -> None:
    """Raises ValueError where a folder, or a file, cannot be written; leaves nothing behind.

    Args:
        option: begins the message: what the user named the place by.
        path: it need not exist, nor the folders above it.
        folder: whether it is to be a folder.

    Example:
        >>> check_writable("out", "/dev/null/runs", folder=True)
        Traceback (most recent call last):
        ValueError: out: /dev/null/runs cannot be written: /dev/null is no folder
    """
    path = Path(path).absolute()
    try:
        there = _nearest(path)
        if there == path and not folder:
            reason = "it is a folder" if path.is_dir() else "" if os.access(path, os.W_OK) else "no permission"
        elif not there.is_dir():
            reason = f"{there} is no folder"
        else:
            reason = ""
            with tempfile.TemporaryFile(dir=there):
                pass
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise ValueError(f"{option}: {path} cannot be written: {reason}")


def _nearest(path: Path) -> Path:
    """The path, or the first folder above it that is there."""
    for place in (path, *path.parents):
        try:
            os.stat(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        return place
    return path
