"""Where the tiles of a large image lie."""

from __future__ import annotations

from itertools import product

LEAST_TILE = 32
"""Pixels of the side of a tile: a smaller one is a slip of the pen, and would cut an image into thousands."""

MOST_OVERLAP = 0.75
"""A pixel then lies in 16 tiles, and all tiles together take 16 times the work of the image; at 0.99 it would be 10,000 times."""


def tile_corners(size: tuple[int, int], tile: int, overlap: float = 0.2) -> list[tuple[int, int]]:
    """Where the tiles of an image begin: neighbors share ``overlap`` of their side or, at the right and lower border, more.

    All are squares of ``tile`` pixels within the image; where the image is smaller than that, they are as wide or high as the image.

    Args:
        size: (height, width) of the image in pixels.
        tile: side of a tile in pixels, >= 32.
        overlap: fraction of the side in [0, 0.75]; a pixel lies in up to ``1 / (1 - overlap)^2`` tiles, 16 at 0.75.
            An object is whole in some tile if it is no larger than the overlap.

    Returns:
        (y, x) of the upper left pixels, row by row.

    Raises:
        ValueError: an option out of its range.

    Example:
        >>> tile_corners((100, 250), 100, 0.2)
        [(0, 0), (0, 80), (0, 150)]
        >>> tile_corners((40, 60), 100)
        [(0, 0)]

    Their number has no limit; programs say it before their work:

        >>> len(tile_corners((10_000, 10_000), 640)), len(tile_corners((10_000, 10_000), 64))
        (400, 38416)
    """
    check_tiling(tile, overlap)
    step = round(tile * (1 - overlap))
    return list(product(*([*range(0, side - tile, step), max(side - tile, 0)] for side in size)))


def check_tiling(tile: int | None, overlap: float) -> None:
    """Raises ValueError where an option of tiles is out of its range; a ``tile`` of None stands for whole images."""
    if tile is not None and tile < LEAST_TILE:
        raise ValueError(f"tile: {LEAST_TILE} pixels or more expected, or 0 for whole images, got {tile}")
    if not 0 <= overlap <= MOST_OVERLAP:
        raise ValueError(f"overlap: a number in [0, {MOST_OVERLAP}] expected, got {overlap}")
