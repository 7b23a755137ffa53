"""Large images in tiles: small objects keep their size, as each tile goes through the detector as an image of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

from ..records import Detections


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
        y, x = self.corner
        return replace(found, boxes=found.boxes + found.boxes.new_tensor((x, y, x, y)))


def tiles_of(key: Any, image: Shaped[Tensor, "3 h w"], tile: int | None = None, overlap: float = 0.2) -> Iterator[Tile]:
    """The tiles of an image, row by row; the image itself where ``tile`` is None.

    Args:
        key: is handed on.
        image: of any size.
        tile, overlap: see :func:`tile_corners`.
    """
    size = height, width = image.shape[1], image.shape[2]
    corners = [(0, 0)] if tile is None else tile_corners(size, tile, overlap)
    tile = tile or max(size)
    for number, corner in enumerate(corners, 1):
        yield Tile(key, image, corner, (min(tile, height), min(tile, width)), number == len(corners))


def tile_corners(size: tuple[int, int], tile: int, overlap: float = 0.2) -> list[tuple[int, int]]:
    """Where the tiles of an image begin: neighbors share ``overlap`` of their side or, at the right and lower border, more.

    All are squares of ``tile`` pixels within the image; where the image is smaller than that, they are as wide or high as the image.

    Args:
        size: (height, width) of the image in pixels.
        tile: side of a tile in pixels, >= 1.
        overlap: fraction of the side in [0, 1); an object is whole in some tile if it is no larger than the overlap.

    Returns:
        (y, x) of the upper left pixels, row by row.

    Raises:
        ValueError: an option out of its range.

    Example:
        >>> tile_corners((100, 250), 100, 0.2)
        [(0, 0), (0, 80), (0, 150)]
        >>> tile_corners((40, 60), 100)
        [(0, 0)]
    """
    check_tiling(tile, overlap)
    step = max(1, round(tile * (1 - overlap)))
    return list(product(*([*range(0, side - tile, step), max(side - tile, 0)] for side in size)))


def check_tiling(tile: int | None, overlap: float) -> None:
    """Raises ValueError where an option of tiles is out of its range."""
    if tile is not None and tile < 1:
        raise ValueError(f"tile: a number of pixels >= 1 expected, got {tile}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: a number in [0, 1) expected, got {overlap}")
