"""What an image file holds: opened once, by several threads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .files import BadLabel

if TYPE_CHECKING:
    from PIL.Image import Image

Depth = Literal["header", "thumb", "pixels"]
"""How far an image is read: its header; a coarse image of it, which JPEG gives fast; or every pixel."""

Track = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Gives the items on and shows how far they are: ``(items, what, how many)``."""

THUMB = 16
"""Side of the coarse gray image, in pixels."""

EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Look:
    """What was seen in an image file.

    Attributes:
        size: (width, height) of the stored image.
        mode: of its pixels, in Pillow's words.
        orientation: of EXIF; 1 is upright.
        frames: more than one in GIF, TIFF and others.
        thumb: the gray image of ``THUMB`` x ``THUMB``, empty where it was not asked for.
        error: why it cannot be opened; empty where it can.
    """

    size: tuple[int, int] = (0, 0)
    mode: str = ""
    orientation: int = 1
    frames: int = 1
    thumb: bytes = b""
    error: str = ""

    def fault(self) -> str:
        """Why it cannot be used as an image; empty where it can."""
        if self.error:
            return self.error
        return "" if has_8_bits(self.mode) else f"has pixels of mode {self.mode}; images of 8 bits per channel expected"


def look_at(image: Path, depth: Depth = "header") -> Look:
    """Opens an image file; what is wrong with it is in the ``error`` of what is returned."""
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise ImportError("the sizes of images need Pillow: pip install 'lossbox[train]'") from error
    size, mode, orientation, frames, thumb = (0, 0), "", 1, 1, b""
    try:
        with pillow.open(image) as opened:
            size, mode, orientation = opened.size, opened.mode, exif_orientation(opened)
            frames = getattr(opened, "n_frames", 1)
            if depth != "header" and has_8_bits(mode):
                if depth == "thumb":
                    opened.draft("L", (4 * THUMB, 4 * THUMB))
                thumb = _thumb(opened)
            elif depth == "pixels":
                opened.load()
    except FileNotFoundError:
        return Look(error="does not exist")
    except Exception as error:  # decoders of broken files raise OSError, SyntaxError, struct.error and more
        return Look(size, mode, orientation, frames, error=f"is not an image that can be decoded: {error}")
    return Look(size, mode, orientation, frames, thumb)


def look_at_all(images: Sequence[Path], depth: Depth = "header") -> Iterator[Look]:
    """Looks at images in their order, on all cores: Pillow decodes without holding the interpreter."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about odd metadata
        yield from pool.map(partial(look_at, depth=depth), images)


def usable(image: Path, look: Look | None = None) -> Look:
    """What an image file holds.

    Args:
        image: the file.
        look: what was seen in it, where it has been opened.

    Raises:
        BadLabel: it is not there, cannot be opened, or has more than 8 bits per channel.
    """
    look = look or look_at(image)
    if rule := look.fault():
        raise BadLabel(str(image), rule)
    return look


def exif_orientation(image: Image) -> int:
    """Of an image that Pillow has opened; 1, upright, where it states none."""
    orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    return orientation if isinstance(orientation, int) else 1


def has_8_bits(mode: str) -> bool:
    """Whether an image of this mode of Pillow's has at most 8 bits per channel."""
    return not mode.startswith(("I", "F"))


def without_palette(image: Image) -> Image:
    """An image of Pillow's to be converted: straight from a palette with transparency to gray or RGB, Pillow warns."""
    return image.convert("RGBA") if image.mode == "P" else image


def _thumb(image: Image) -> bytes:
    from PIL import Image as pillow

    return without_palette(image).convert("L").resize((THUMB, THUMB), pillow.Resampling.BOX).tobytes()
