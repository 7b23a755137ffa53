"""Image files as RGB, and the images of a COCO JSON file as a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ..coco.look import exif_orientation, has_8_bits, without_palette
from ..coco.read import CocoAnnotations, CocoImage
from ..records import Targets

if TYPE_CHECKING:
    from PIL.Image import Image

Transform = Callable[[Tensor, Targets], tuple[Tensor, Targets]]
Mosaic = Callable[[Sequence[tuple[Tensor, Targets]]], tuple[Tensor, Targets]]


def rgb_pixels(image: Image) -> UInt8[Tensor, "3 h w"]:
    """An image of Pillow's, of 8 bits per channel, as RGB."""
    return torch.from_numpy(np.array(without_palette(image).convert("RGB"))).permute(2, 0, 1).contiguous()


def decode_image(record: CocoImage, *, source: Path) -> UInt8[Tensor, "3 h w"]:
    """Reads an image file as RGB.

    Gray, palette and CMYK images are converted, an alpha channel is taken away, of several frames the first is read. An EXIF orientation
    is *not* applied: COCO boxes refer to the pixels as they are stored, and so do ``width`` and ``height``.

    Args:
        record: of the image.
        source: the JSON file that it comes from, for the message of an error.

    Returns:
        (3, height, width) in [0, 255].

    Raises:
        FileNotFoundError: the file is gone.
        ValueError: it cannot be decoded, has more than 8 bits per channel, or another size than the JSON states.
    """
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise ImportError("decoding images needs Pillow: pip install 'lossbox[train]'") from error
    where = f"{source}: image id {record.id}: {record.path}"
    try:
        with pillow.open(record.path) as opened:
            size, mode = opened.size, opened.mode
            if size == (record.width, record.height) and has_8_bits(mode):
                return rgb_pixels(opened)
            turned = exif_orientation(opened) in (5, 6, 7, 8)
    except FileNotFoundError:
        raise FileNotFoundError(f"{where} does not exist") from None
    except Exception as error:  # decoders of broken files raise OSError, SyntaxError, struct.error, zlib.error and more
        raise ValueError(f"{where} is not an image that can be decoded: {error}") from error
    if size != (record.width, record.height):
        raise ValueError(f"{where} {other_size(record, size, turned=turned)}")
    raise ValueError(f"{where} has pixels of mode {mode}; images of 8 bits per channel expected")


def other_size(record: CocoImage, size: tuple[int, int], *, turned: bool) -> str:
    """What is said of an image of another size than its JSON states."""
    hint = ""
    if turned and size == (record.height, record.width):
        hint = "; it has an EXIF orientation, which is not applied: store the image upright, or give size and boxes of the stored pixels"
    return f"has {size[0]} x {size[1]} pixels, the JSON states width x height = {record.width} x {record.height}{hint}"


@dataclass(frozen=True)
class Phase:
    """What the images of a data set go through in one phase of a training.

    Attributes:
        transforms: takes and returns an image and its targets.
        mosaic: takes and returns four of them as one, before the transforms; the other three are drawn at random.
        mosaic_probability: of each image, in [0, 1].
    """

    transforms: Transform | None = None
    mosaic: Mosaic | None = None
    mosaic_probability: float = 0.0


class CocoDataset(Dataset[tuple[Tensor, Targets]]):
    """The images of a COCO JSON file, or their tiles, with their targets.

    An item is ``(image, targets)``: without transforms a ``tv_tensors.Image`` (3, h, w), uint8; with ``lossbox.data.transforms`` float32 in
    [0, 1]. The index is a number, or what ``lossbox.data.module.SeededSampler`` gives, (number, seed, phase): the random choices of the
    transforms then come from that seed alone, whichever process makes them, and the image goes through what that phase says.

    Args:
        annotations: what ``read_coco`` gave.
        phases: what images go through, one or more after another in the course of a training; without one they stay as they are.
        cache: keep decoded images in memory, width x height x 3 bytes each; every worker process keeps its own. The last one is kept in
            any case.
    """

    def __init__(
        self,
        annotations: CocoAnnotations,
        *phases: Phase,
        cache: bool = False,
    ) -> None:
        self.annotations = annotations
        self.phases = phases or (Phase(),)
        self._cache = cache
        self._decoded: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.annotations.images)

    def __getitem__(self, index: int | tuple[int, int, int]) -> tuple[Tensor, Targets]:
        if not isinstance(index, tuple):
            return self._transformed(index, self.phases[0])
        number, seed, phase = index
        # Not torch.random.fork_rng: it costs 0.15 ms per image more.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            return self._transformed(number, self.phases[phase])
        finally:
            torch.set_rng_state(state)

    def _transformed(self, index: int, phase: Phase) -> tuple[Tensor, Targets]:
        image, targets = self._stored(index)
        # No number is drawn where there is no mosaic, so that the other choices stay what they were.
        if phase.mosaic is not None and phase.mosaic_probability and float(torch.rand(())) < phase.mosaic_probability:
            others = torch.randint(len(self), (3,)).tolist()
            image, targets = phase.mosaic([(image, targets), *map(self._stored, others)])
        return (image, targets) if phase.transforms is None else phase.transforms(image, targets)

    def _stored(self, index: int) -> tuple[Tensor, Targets]:
        record = self.annotations.images[index]
        size = height, width = record.height, record.width
        targets = Targets(record.boxes, record.labels, record.crowd, record.id, size=size, original_size=size, corner=record.corner)
        y, x = record.corner
        return tv_tensors.Image(self._image(record.stored)[:, y : y + height, x : x + width]), targets

    def _image(self, record: CocoImage) -> Tensor:
        if record.id not in self._decoded:
            if not self._cache:
                self._decoded.clear()
            self._decoded[record.id] = decode_image(record, source=self.annotations.path)
        return self._decoded[record.id]


class TiledImages(Dataset[list[tuple[Tensor, Targets]]]):
    """The tiles of each image as one item, in the order of the images.

    Args:
        tiles: of which those of an image follow each other.
    """

    def __init__(self, tiles: CocoDataset) -> None:
        self.tiles = tiles
        numbers: dict[int, list[int]] = {}
        for number, record in enumerate(tiles.annotations.images):
            numbers.setdefault(record.id, []).append(number)
        self.numbers = list(numbers.values())

    @property
    def most(self) -> int:
        """Tiles of the image that has the most."""
        return max(map(len, self.numbers))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> list[tuple[Tensor, Targets]]:
        return [self.tiles[number] for number in self.numbers[index]]
