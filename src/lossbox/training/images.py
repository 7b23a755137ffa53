"""Images as people have them, files, Pillow's, arrays and tensors, as the tensors that a detector of ours takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..coco.files import SUFFIXES
from ..coco.look import has_8_bits
from ..data.images import rgb_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

OneImage: TypeAlias = "str | os.PathLike[str] | Image | np.ndarray | Tensor"
"""A file, or an image of 8 bits per channel or in [0, 1]: Pillow's, an array (h, w), (h, w, 3 or 4), a tensor (h, w), (1, 3 or 4, h, w)."""


IMAGE_SUFFIXES = (*SUFFIXES, ".ppm", ".pgm")
"""What is taken from a folder; a file that is named is opened whatever its name."""


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Reads an image file as the data sets of the training do: (3, h, w) uint8, RGB.

    Gray, palette and CMYK images are converted, an alpha channel is taken away, of several frames the first is read. An EXIF orientation is
    *not* applied: boxes refer to the pixels as they are stored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be decoded, or has more than 8 bits per channel.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return _of_pillow(image, str(path))
    except (FileNotFoundError, _Refused):
        raise
    except Exception as error:  # decoders of broken files raise OSError, SyntaxError, struct.error and more
        raise ValueError(f"{path} is not an image that can be decoded: {error}") from error


def named_images(images: OneImage | Iterable[OneImage]) -> Iterator[tuple[Path | None, Tensor]]:
    """One image or several, each with its path, where it is a file, and as (3, h, w): uint8, or floating point in [0, 1].

    Args:
        images: see :data:`OneImage`; a folder stands for all images below it; also a batch as one array (b, h, w, 3) or tensor
            (b, 3, h, w). Channels are in the order RGB.

    Raises:
        FileNotFoundError: a file is not there, or a folder has no image.
        ValueError: something that is not an image, or one of another shape, type or range; it says which one of several.

    Example:
        >>> [image.shape for _, image in named_images([np.zeros((4, 6, 3), np.uint8), torch.zeros(3, 4, 6), torch.zeros(1, 4, 6)])]
        [torch.Size([3, 4, 6]), torch.Size([3, 4, 6]), torch.Size([3, 4, 6])]
    """
    alone = _is_one(images)
    for number, image in enumerate([images] if alone else images):  # type: ignore[arg-type]
        if isinstance(image, str | os.PathLike):
            path = Path(image)
            yield from ((file, read_image(file)) for file in (images_in(path) if path.is_dir() else [path]))
        else:
            yield None, _as_tensor(image, "images" if alone else f"images[{number}]")


def images_in(folder: Path, *, option: str = "images") -> list[Path]:
    """The images below a folder, by the ends of their names, sorted.

    Args:
        folder: is searched at any depth.
        option: begins the message.

    Raises:
        FileNotFoundError: there is none.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if not files:
        raise FileNotFoundError(f"{option}: no image ({', '.join(IMAGE_SUFFIXES)}) in the folder {folder}")
    return files


class _Refused(ValueError):
    """The image can be decoded, but is none of those that are taken."""


def _is_one(images: Any) -> bool:
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim < 4
    return isinstance(images, str | os.PathLike) or _is_pillow(images) or not isinstance(images, Iterable)


def _is_pillow(image: Any) -> bool:
    return type(image).__module__.startswith("PIL.")


def _as_tensor(image: Any, name: str) -> Tensor:
    if _is_pillow(image):
        return _of_pillow(image, name)
    if not isinstance(image, np.ndarray | Tensor):
        raise ValueError(f"{name}: a path, an image of Pillow's, an array or a tensor expected, got {type(image).__name__}")
    kind, order, turn, last = "array", "(height, width, 1, 3 or 4)", "transpose(1, 2, 0)", -1
    if isinstance(image, Tensor):
        kind, order, turn, last = "tensor", "(1, 3 or 4, height, width)", "permute(2, 0, 1)", 0
    shape = tuple(image.shape)
    channels = 1 if len(shape) == 2 else shape[last] if len(shape) == 3 else 0
    if channels not in (1, 3, 4) or 0 in shape:
        hint = f"; turn it by .{turn}" if len(shape) == 3 and 0 not in shape and shape[-1 - last] in (1, 3, 4) else ""
        raise ValueError(f"{name}: {kind} of shape (height, width) or {order} expected, got {shape}{hint}")
    tensor = torch.from_numpy(np.array(image, order="C")) if isinstance(image, np.ndarray) else image.detach()
    if len(shape) == 2:
        tensor = tensor[None]
    elif last == -1:
        tensor = tensor.permute(2, 0, 1)
    _check_values(tensor, name)
    return (tensor[:3] if channels > 1 else tensor.expand(3, -1, -1)).contiguous()


def _check_values(tensor: Tensor, name: str) -> None:
    if tensor.is_floating_point():
        low, high = (float(value) for value in tensor.aminmax())
        if not 0 <= low <= high <= 1:
            raise ValueError(f"{name}: floating point values in [0, 1] expected, got {low:g} to {high:g}")
    elif tensor.dtype != torch.uint8:
        raise ValueError(f"{name}: uint8, or floating point in [0, 1], expected, got {str(tensor.dtype).removeprefix('torch.')}")


def _of_pillow(image: Any, name: str) -> Tensor:
    if not has_8_bits(image.mode):
        raise _Refused(f"{name} has pixels of mode {image.mode}; images of 8 bits per channel expected")
    return rgb_pixels(image)
