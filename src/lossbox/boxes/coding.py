"""How detectors write boxes: the encodings relative to an anchor, and how central a point lies in a box."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ._dtype import upcast

MAX_LOG_SCALE = math.log(1000 / 16)
"""The largest log of a size ratio that is decoded: a network's wild first guesses would overflow ``exp``."""


@dataclass(frozen=True)
class DeltaCoder:
    """Boxes as offsets from an anchor: center shift in units of the anchor's size, log of the size ratio.

    ``t = ((x - x_a) / w_a, (y - y_a) / h_a, log(w / w_a), log(h / h_a)) / std``

    Attributes:
        std: what the four offsets are divided by; (0.1, 0.1, 0.2, 0.2) is usual.

    Source:
        Ren et al., Faster R-CNN, NeurIPS 2015, Eq. (2).

    Example:
        >>> coder = DeltaCoder()
        >>> anchors = torch.tensor([[0., 0., 10., 10.]])
        >>> coder.encode(torch.tensor([[1., 0., 11., 10.]]), anchors)
        tensor([[1., 0., 0., 0.]])
        >>> coder.decode(torch.tensor([[1., 0., 0., 0.]]), anchors)
        tensor([[ 1.,  0., 11., 10.]])
    """

    std: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)

    def __post_init__(self) -> None:
        if len(self.std) != 4 or not all(value > 0 for value in self.std):
            raise ValueError(f"std: four numbers > 0 expected (x, y, width, height), got {self.std}")

    def encode(self, boxes: Float[Tensor, "... 4"], anchors: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """Boxes to offsets.

        Args:
            boxes: (..., 4) ``x1 y1 x2 y2`` of positive width and height.
            anchors: (..., 4) ``x1 y1 x2 y2`` of positive width and height; broadcast against ``boxes``.

        Returns:
            (..., 4): x, y, log width, log height, in units of ``std``.
        """
        x, y, width, height = _center_and_size(boxes)
        anchor_x, anchor_y, anchor_width, anchor_height = _center_and_size(anchors)
        # numbers, not a tensor of std: that would be copied to the accelerator, which waits for it, at every call
        std_x, std_y, std_width, std_height = self.std
        return torch.stack(
            [
                (x - anchor_x) / anchor_width / std_x,
                (y - anchor_y) / anchor_height / std_y,
                torch.log(width / anchor_width) / std_width,
                torch.log(height / anchor_height) / std_height,
            ],
            -1,
        )

    def decode(self, regression: Float[Tensor, "... 4"], anchors: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """Offsets to boxes.

        Args:
            regression: (..., 4): x, y, log width, log height, in units of ``std``; the log size ratio is held within
                +-``MAX_LOG_SCALE``, with a gradient of 0 beyond.
            anchors: (..., 4) ``x1 y1 x2 y2``; broadcast against ``regression``.

        Returns:
            (..., 4) ``x1 y1 x2 y2`` in the frame of the anchors (float16 and bfloat16 give float32).
        """
        dx, dy, dw, dh = upcast(regression).unbind(-1)
        anchor_x, anchor_y, anchor_width, anchor_height = _center_and_size(anchors)
        std_x, std_y, std_width, std_height = self.std
        x = anchor_x + dx * std_x * anchor_width
        y = anchor_y + dy * std_y * anchor_height
        half_width = (dw * std_width).clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp() * anchor_width / 2
        half_height = (dh * std_height).clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp() * anchor_height / 2
        return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], -1)


@dataclass(frozen=True)
class PointCoder:
    """Boxes as the distances of their sides from a point, for detectors without anchors.

    ``t = log(clamp((x - x1, y - y1, x2 - x, y2 - y) / z, 1 / limit, limit))``

    The point ``(x, y)`` is the center of a square anchor and the unit z is its side: the base edge of the level in FoveaBox, the stride in
    FCOS.

    Attributes:
        limit: distances beyond it, in units, or below its inverse are encoded as it; > 1. What is decoded knows no such limit.

    Source:
        Kong et al., FoveaBox, IEEE TIP 2020 (arXiv:1904.03797), the section on box prediction, with the limit of its published code;
        Tian et al., FCOS, ICCV 2019, Eq. (1) and Sec. 3.1, which applies ``exp`` in the same way and has no limit.

    Example:
        >>> coder = PointCoder()
        >>> cell = torch.tensor([[0., 0., 16., 16.]])
        >>> coder.encode(torch.tensor([[-8., 0., 24., 12.]]), cell)
        tensor([[ 0.0000, -0.6931,  0.0000, -1.3863]])
        >>> coder.decode(torch.zeros(1, 4), cell)
        tensor([[-8., -8., 24., 24.]])
    """

    limit: float = 16.0

    def __post_init__(self) -> None:
        if not self.limit > 1:
            raise ValueError(f"limit: a number > 1 expected, got {self.limit}")

    def encode(self, boxes: Float[Tensor, "... 4"], anchors: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """Boxes to distances.

        Args:
            boxes: (..., 4) ``x1 y1 x2 y2``; sides that the point lies beyond are encoded as the smallest distance.
            anchors: (..., 4) squares ``x1 y1 x2 y2`` of positive side; broadcast against ``boxes``.

        Returns:
            (..., 4) in [-log(limit), log(limit)]: left, top, right, bottom.
        """
        x1, y1, x2, y2 = boxes.unbind(-1)
        x, y, side, _ = _center_and_size(anchors)
        distances = torch.stack([x - x1, y - y1, x2 - x, y2 - y], -1) / side[..., None]
        return distances.clamp(1 / self.limit, self.limit).log()

    def decode(self, regression: Float[Tensor, "... 4"], anchors: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """Distances to boxes.

        Args:
            regression: (..., 4): left, top, right, bottom; held within +-``MAX_LOG_SCALE``, with a gradient of 0 beyond.
            anchors: (..., 4) squares ``x1 y1 x2 y2``; broadcast against ``regression``.

        Returns:
            (..., 4) ``x1 y1 x2 y2`` around the point, in the frame of the anchors (float16 and bfloat16 give float32).
        """
        x, y, side, _ = _center_and_size(anchors)
        left, top, right, bottom = (upcast(regression).clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp() * side[..., None]).unbind(-1)
        return torch.stack([x - left, y - top, x + right, y + bottom], -1)


@dataclass(frozen=True)
class DistanceCoder:
    """Boxes as the distances of their sides from a point, not their logarithms, for detectors that predict them as distributions over bins.

    ``t = clamp((x - x1, y - y1, x2 - x, y2 - y) / z, 0, limit)`` with the point ``(x, y)`` and the unit z of ``PointCoder``.

    Attributes:
        limit: distances beyond it, in units, are encoded as it: the last bin; > 0. What is decoded knows no such limit.

    Source:
        Li et al., Generalized Focal Loss, NeurIPS 2020, Sec. 3.1, with the limits of the published code.

    Example:
        >>> coder = DistanceCoder(7)
        >>> cell = torch.tensor([[0., 0., 16., 16.]])
        >>> coder.encode(torch.tensor([[-8., 0., 24., 200.]]), cell)
        tensor([[1.0000, 0.5000, 1.0000, 7.0000]])
        >>> coder.decode(torch.ones(1, 4), cell)
        tensor([[-8., -8., 24., 24.]])
    """

    limit: float

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError(f"limit: a number > 0 expected, got {self.limit}")

    def encode(self, boxes: Float[Tensor, "... 4"], anchors: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """(..., 4) in [0, limit]: left, top, right, bottom, in sides of the anchor; 0 where the point lies beyond the side."""
        x, y, side, _ = _center_and_size(anchors)
        x1, y1, x2, y2 = boxes.unbind(-1)
        return (torch.stack([x - x1, y - y1, x2 - x, y2 - y], -1) / side[..., None]).clamp(0, self.limit)

    def decode(self, regression: Float[Tensor, "... 4"], anchors: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """(..., 4) ``x1 y1 x2 y2`` around the point, in the frame of the anchors (float16 and bfloat16 give float32)."""
        x, y, side, _ = _center_and_size(anchors)
        left, top, right, bottom = (upcast(regression) * side[..., None]).unbind(-1)
        return torch.stack([x - left, y - top, x + right, y + bottom], -1)


@dataclass(frozen=True)
class CellCoder:
    """Boxes as the place of their center in a cell and their size, for detectors that find centers.

    ``t = ((x - x_c) / z, (y - y_c) / z, w / z, h / z)`` with ``(x_c, y_c)`` the top left corner of the cell and z its side: the first two
    are in [0, 1] in the cell that holds the center.

    Source:
        Zhou et al., Objects as Points, arXiv:1904.07850, Eqs. (2)-(3) and the section on decoding, all in cells.

    Example:
        >>> coder = CellCoder()
        >>> cell = torch.tensor([[4., 4., 8., 8.]])
        >>> coder.encode(torch.tensor([[0., 4., 10., 8.]]), cell)
        tensor([[0.2500, 0.5000, 2.5000, 1.0000]])
        >>> coder.decode(torch.tensor([[0.25, 0.5, 2.5, 1.0]]), cell)
        tensor([[ 0.,  4., 10.,  8.]])
    """

    def encode(self, boxes: Float[Tensor, "... 4"], anchors: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """Boxes to place and size.

        Args:
            boxes: (..., 4) ``x1 y1 x2 y2``.
            anchors: (..., 4) the cells, squares ``x1 y1 x2 y2`` of positive side; broadcast against ``boxes``.

        Returns:
            (..., 4): x, y, width, height, in cells.
        """
        x, y, width, height = _center_and_size(boxes)
        side = anchors[..., 2] - anchors[..., 0]
        return torch.stack([x - anchors[..., 0], y - anchors[..., 1], width, height], -1) / side[..., None]

    def decode(self, regression: Float[Tensor, "... 4"], anchors: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
        """Place and size to boxes.

        Args:
            regression: (..., 4): x, y, width, height, in cells. A negative size makes an inverted box, which no detection is made of.
            anchors: (..., 4) the cells; broadcast against ``regression``.

        Returns:
            (..., 4) ``x1 y1 x2 y2`` in the frame of the cells (float16 and bfloat16 give float32).
        """
        side = anchors[..., 2] - anchors[..., 0]
        dx, dy, width, height = (upcast(regression) * side[..., None]).unbind(-1)
        x, y = anchors[..., 0] + dx, anchors[..., 1] + dy
        return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], -1)


def centerness_targets(points: Float[Tensor, "... 2"], boxes: Float[Tensor, "... 4"]) -> Float[Tensor, "*shape"]:
    """How central each point lies in its box.

    ``sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))`` with the distances l, t, r, b of the point from the sides.

    Args:
        points: (..., 2) x and y.
        boxes: (..., 4) ``x1 y1 x2 y2`` in the frame of the points; broadcast against them.

    Returns:
        (...) in [0, 1]: 1 at the center, 0 on the sides, outside, and in a box without area.

    Source:
        Tian et al., FCOS, ICCV 2019, Eq. (3).

    Example:
        >>> centerness_targets(torch.tensor([[5., 5.], [2., 5.], [10., 5.]]), torch.tensor([0., 0., 10., 10.]))
        tensor([1.0000, 0.5000, 0.0000])
    """
    low, high = points - boxes[..., :2], boxes[..., 2:] - points
    far = torch.maximum(low, high)
    # 0 where no side is at a positive distance: a point beside or on a box without width
    share = torch.minimum(low, high).clamp(min=0) / torch.where(far > 0, far, 1.0)
    return (share[..., 0] * share[..., 1]).sqrt()


def _center_and_size(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Center x and y, width and height."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
