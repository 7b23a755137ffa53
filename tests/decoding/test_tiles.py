"""Tiles cover the image, and boxes come back to their place."""

import itertools

import pytest
import torch

from lossbox.boxes import tile_corners
from lossbox.decoding import tiles_of
from lossbox.records import Detections


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 63), (100, 250), (64, 500), (333, 129)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5, 0.75])
def test_tiles_cover_every_pixel_overlap_enough_and_stay_in_the_image(size, overlap):
    height, width = size
    seen = torch.zeros(size, dtype=torch.long)
    tiles = list(tiles_of("key", torch.arange(height * width).reshape(1, height, width).expand(3, -1, -1), 64, overlap))
    for tile in tiles:
        assert tile.pixels.shape == (3, min(64, height), min(64, width))
        seen.view(-1)[tile.pixels[0].reshape(-1)] += 1
        (y, x), key = tile.corner, tile.key
        assert tile.pixels[0, 0, 0] == y * width + x
        assert key == "key"
    assert seen.min() == 1
    assert [tile.last for tile in tiles] == [False] * (len(tiles) - 1) + [True]
    for axis in (0, 1):
        starts = sorted({tile.corner[axis] for tile in tiles})
        assert all(after - before <= max(1, round(64 * (1 - overlap))) for before, after in itertools.pairwise(starts))


def test_without_a_size_the_image_is_the_tile_and_boxes_move_with_the_corner():
    (tile,) = tiles_of(1, torch.zeros(3, 5, 9))
    assert tile.pixels.shape == (3, 5, 9)
    *_, tile = tiles_of(1, torch.zeros(3, 50, 90), 40)
    found = Detections(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.ones(1), torch.zeros(1).long())
    assert tile.in_image(found).boxes.tolist() == [[51.0, 12.0, 53.0, 14.0]]


@pytest.mark.parametrize(
    ("tile", "overlap", "said"),
    [
        (31, 0.2, "tile: 32 pixels or more expected, or 0 for whole images, got 31"),
        (40, 0.76, r"overlap: a number in \[0, 0.75\] expected, got 0.76"),
        (40, float("nan"), "got nan"),
    ],
)
def test_options_out_of_range(tile, overlap, said):
    with pytest.raises(ValueError, match=said):
        tile_corners((10, 10), tile, overlap)
