"""A data set of large images as one of their tiles: small objects keep their size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from ..boxes import box_area, check_tiling, tile_corners
from ..coco.read import CocoAnnotations, CocoImage


def cut_into_tiles(annotations: CocoAnnotations, *, tile: int, overlap: float = 0.2, min_visible: float = 0.4) -> CocoAnnotations:
    """The tiles of all images as images of their own, image by image, row by row; those without boxes too.

    A box is clipped to each tile that shows a part of it. It is trained on in every tile that shows at least ``min_visible`` of its area,
    and in the one that shows the most of it (of several the first), so in one tile at least. In the other tiles it is marked as a crowd
    region: what shows of it is neither an object nor background. A crowd region stays one. An image that is not larger than a tile stays
    whole.

    Args:
        annotations: of whole images.
        tile: side of a tile in pixels, >= 32.
        overlap: see :func:`lossbox.boxes.tile_corners`.
        min_visible: share of the area of a box, in [0, 1].

    Returns:
        The same data set in tiles; ``ground_truth`` is that of the whole images.

    Raises:
        ValueError: an option out of its range.

    Example:
        >>> from pathlib import Path
        >>> boxes = torch.tensor([[70.0, 10.0, 110.0, 20.0]])
        >>> image = CocoImage(1, Path("a.png"), 180, 100, boxes, torch.tensor([0]), torch.tensor([False]))
        >>> tiles = cut_into_tiles(CocoAnnotations(Path("a.json"), [(1, "cup")], [image]), tile=100).images
        >>> [(part.corner, part.boxes.tolist(), part.crowd.tolist()) for part in tiles]
        [((0, 0), [[70.0, 10.0, 100.0, 20.0]], [False]), ((0, 80), [[0.0, 10.0, 30.0, 20.0]], [False])]
    """
    check_tiling(tile, overlap)
    if not 0 <= min_visible <= 1:
        raise ValueError(f"min_visible: a number in [0, 1] expected, got {min_visible}")
    tiles = [part for image in annotations.images for part in _tiles(image, tile, overlap, min_visible)]
    return replace(annotations, images=tiles)


def _tiles(image: CocoImage, tile: int, overlap: float, min_visible: float) -> Iterator[CocoImage]:
    corners = tile_corners((image.height, image.width), tile, overlap)
    if len(corners) == 1:
        yield image
        return
    width, height = min(tile, image.width), min(tile, image.height)
    corner = torch.tensor([(x, y) for y, x in corners]).repeat(1, 2)[:, None]
    clipped = (image.boxes - corner).clamp(min=0).minimum(torch.tensor([width, height] * 2))  # (tiles, boxes, 4)
    sides = (clipped[..., 2:] - clipped[..., :2]).double()
    touched, shown = (sides > 0).all(-1), sides.prod(-1)
    most = torch.zeros_like(touched)
    most[shown.argmax(0), torch.arange(len(image.boxes))] = True
    trained = most | (shown >= min_visible * box_area(image.boxes.double()))
    for number, (y, x) in enumerate(corners):
        there = touched[number]
        crowd = image.crowd[there] | ~trained[number, there]
        yield CocoImage(image.id, image.path, width, height, clipped[number, there], image.labels[there], crowd, (y, x), image)
