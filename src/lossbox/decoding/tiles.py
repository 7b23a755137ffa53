"""Large images in tiles: small objects keep their size, as each tile goes through the detector as an image of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

from ..boxes import tile_corners
from ..records import Detections
from .multi_scale import merge_detections


@dataclass(frozen=True)
class Tile:
    """A part of an image.

    Attributes:
        key: whatever says which image it is.
        image: (3, height, width), all of it.
        corner: (y, x) of the upper left pixel of the tile.
        size: (height, width) of the tile.
        last: whether all others of the image came before it.
    """

    key: Any
    image: Shaped[Tensor, "3 h w"]
    corner: tuple[int, int]
    size: tuple[int, int]
    last: bool

    @property
    def pixels(self) -> Tensor:
        (y, x), (height, width) = self.corner, self.size
        return self.image[:, y : y + height, x : x + width]

    def in_image(self, found: Detections) -> Detections:
        """Detections in the tile, in pixels of the image."""
        return found.moved(self.corner)


def tiles_of(key: Any, image: Shaped[Tensor, "3 h w"], tile: int | None = None, overlap: float = 0.2) -> Iterator[Tile]:
    """The tiles of an image, row by row; the image itself where ``tile`` is None.

    Args:
        key: is handed on.
        image: of any size.
        tile, overlap: see :func:`lossbox.boxes.tile_corners`.
    """
    size = height, width = image.shape[1], image.shape[2]
    corners = [(0, 0)] if tile is None else tile_corners(size, tile, overlap)
    tile = tile or max(size)
    for number, corner in enumerate(corners, 1):
        yield Tile(key, image, corner, (min(tile, height), min(tile, width)), number == len(corners))


def merge_tiles(parts: Sequence[Detections], decoder: Any) -> Detections:
    """What was found in the tiles of one image as its detections.

    They are merged by the class-wise non-maximum suppression of the decoder. One that has none, as those of heat maps, finds an object
    twice where tiles overlap: then it is that of :func:`merge_detections`.

    Args:
        parts: of each tile, in pixels of the image; one or more.
        decoder: its ``nms_threshold`` and ``max_detections`` are taken, where it has them.

    Returns:
        The remaining ones, best score first; those of a single tile as they are.

    Example:
        >>> import torch
        >>> from lossbox.decoding import Decoder
        >>> box = Detections(torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.tensor([0.5]), torch.tensor([0]))
        >>> len(merge_tiles([box, box], Decoder()).scores)
        1
    """
    if len(parts) == 1:
        return parts[0]
    options = {name: getattr(decoder, name) for name in ("nms_threshold", "max_detections") if hasattr(decoder, name)}
    if options.get("nms_threshold") == 1:
        del options["nms_threshold"]
    return merge_detections(parts, **options)
