"""Anchors: centers in the cells, the areas and ratios of the paper, the order of the head's output."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator

from lossbox.detectors import cell_centers, pyramid_anchors
from lossbox.detectors.anchors import anchor_shapes, anchors_on


def test_anchors_are_a_loop_over_level_row_column_ratio_scale() -> None:
    sizes, strides, scales, ratios = [(3, 4), (2, 2), (1, 1)], [8, 16, 32], (1.0, 2**0.5), (0.5, 1.0, 2.0)
    expected = []
    for (rows, columns), stride in zip(sizes, strides, strict=True):
        for row in range(rows):
            for column in range(columns):
                for ratio in ratios:
                    for scale in scales:
                        side = 4 * stride * scale
                        width, height = side / ratio**0.5, side * ratio**0.5
                        x, y = (column + 0.5) * stride, (row + 0.5) * stride
                        expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    torch.testing.assert_close(pyramid_anchors(sizes, strides, scales=scales, ratios=ratios), torch.tensor(expected))


def test_anchors_are_torchvisions_moved_to_the_centers_of_the_cells() -> None:
    """Where torchvision does not round (whole even sides), only its half-cell shift tells the two apart."""
    generator = AnchorGenerator(((32, 64), (64, 128)), ((0.25, 1.0, 4.0),) * 2)
    grid = generator.grid_anchors([(5, 3), (3, 2)], [[torch.tensor(8)] * 2, [torch.tensor(16)] * 2])
    ours = pyramid_anchors([(5, 3), (3, 2)], [8, 16], scales=(1.0, 2.0), ratios=(0.25, 1.0, 4.0))
    torch.testing.assert_close(ours, torch.cat([grid[0] + 4, grid[1] + 8]))


def test_cell_centers_go_row_by_row() -> None:
    assert cell_centers((2, 3), 4).tolist() == [[2, 2], [6, 2], [10, 2], [2, 6], [6, 6], [10, 6]]


def test_the_cache_returns_one_tensor_and_tells_options_apart() -> None:
    levels = [torch.zeros(1, 5, 2, 3), torch.zeros(1, 5, 1, 2)]
    first, level_sizes = anchors_on(levels, (8, 16), anchor_scale=4.0, ratios=(0.5, 2.0))
    assert torch.equal(first, pyramid_anchors([(2, 3), (1, 2)], [8, 16], scales=(1.0,), ratios=(0.5, 2.0)))
    assert level_sizes == (12, 4)
    assert anchors_on(levels, (8, 16), anchor_scale=4.0, ratios=(0.5, 2.0))[0] is first
    assert not torch.equal(anchors_on(levels, (8, 16), anchor_scale=3.0, ratios=(0.5, 2.0))[0], first)


def test_anchors_first_made_under_inference_mode_serve_a_training_step() -> None:
    levels = [torch.zeros(1, 5, 7, 9)]
    with torch.inference_mode():
        anchors_on(levels, (8,), anchor_scale=4.0)
    anchors, _ = anchors_on(levels, (8,), anchor_scale=4.0)
    assert not anchors.is_inference()
    factor = torch.ones(len(anchors), 4, requires_grad=True)
    (factor * anchors).sum().backward()


@pytest.mark.parametrize("option", ["strides", "scales", "ratios"])
def test_anchors_of_nothing_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option}: numbers > 0 expected, got \(\)"):
        anchor_shapes(**{"strides": (8, 16), option: ()})  # type: ignore[arg-type]


def test_one_stride_a_level() -> None:
    with pytest.raises(ValueError, match="zip"):
        pyramid_anchors([(2, 2), (1, 1)], [8])
