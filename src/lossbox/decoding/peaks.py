"""The peaks of heat maps."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..records import RawPredictions


def only_peaks(scores: Float[Tensor, "a c"], predictions: RawPredictions, window: int) -> Float[Tensor, "a c"]:
    """The scores of one image, 0 where another cell within the window has a higher score for the class. Equal neighbors all stay.

    Args:
        scores: (a, C) in [0, 1], in the order of the anchors.
        predictions: whose anchors and levels they are of; one anchor per cell, row by row.
        window: cells, odd.

    Raises:
        ValueError: anchors that are not one per cell, row by row.

    Source:
        Zhou et al., Objects as Points, arXiv:1904.07850, Sec. 4: a 3 x 3 max pooling.

    Example:
        >>> from lossbox.boxes import CellCoder
        >>> cells = torch.tensor([[0., 0., 4., 4.], [4., 0., 8., 4.], [8., 0., 12., 4.]])
        >>> raw = RawPredictions(torch.zeros(1, 3, 1), torch.zeros(1, 3, 4), cells, (3,), CellCoder())
        >>> only_peaks(torch.tensor([[0.2], [0.9], [0.3]]), raw, 3).T
        tensor([[0.0000, 0.9000, 0.0000]])
    """
    if predictions.anchors.ndim != 2:
        raise ValueError("peak_window: the anchors of a pyramid expected, got those of each image, as a second stage has them")
    levels, sizes = [], list(predictions.level_sizes)
    for level, anchors in zip(torch.split(scores, sizes), torch.split(predictions.anchors, sizes), strict=True):
        columns = max(int((anchors[:, 1] == anchors[:1, 1]).sum()), 1)
        grid = anchors[: len(anchors) // columns * columns].view(-1, columns, 4)
        x, y = grid[..., 0], grid[..., 1]
        if grid.numel() != anchors.numel() or (x != x[:1]).any() or (y != y[:, :1]).any() or (x[:1].diff() <= 0).any():
            raise ValueError("peak_window: a detector of one anchor per cell expected, row by row; more than 1 looks at neighboring cells")
        if len(level):
            maps = level.T.reshape(1, -1, len(grid), columns)
            level = torch.where(max_pool2d(maps, window, 1, window // 2) == maps, maps, 0.0).flatten(2)[0].T
        levels.append(level)
    return torch.cat(levels)
