"""How much boxes overlap, paired and pairwise.

Boxes are ``x1 y1 x2 y2`` in any one unit; one with ``x2 < x1`` or ``y2 < y1`` is empty, and lies between its corners. What
torchvision.ops has right is taken from there.

Areas have to be finite: in float32, where computation takes place unless the boxes are float64, the box around both may have sides of up to
1e19. Beyond, values and gradients may be NaN.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ._dtype import upcast


def paired_iou(boxes: Float[Tensor, "n 4"], others: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Intersection over union of each box with the other of the same index.

    ``IoU = |A n B| / |A u B|``; two boxes whose union has no area have IoU 0, with a gradient of 0.

    Args:
        boxes: (n, 4) ``x1 y1 x2 y2``.
        others: (n, 4) ``x1 y1 x2 y2``.

    Returns:
        (n,) in [0, 1], in the dtype of the input (float16 and bfloat16 give float32).

    Example:
        >>> paired_iou(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[1., 0., 3., 2.]]))
        tensor([0.3333])
    """
    return _safe_ratio(*_paired_areas(*_corners(boxes, others)))


def paired_giou(boxes: Float[Tensor, "n 4"], others: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Generalized IoU of each box with the other of the same index.

    ``GIoU = IoU - |C \\ (A u B)| / |C|`` with C the smallest box around both; unlike IoU it has a gradient where the boxes are disjoint.

    Args:
        boxes: (n, 4) ``x1 y1 x2 y2``.
        others: (n, 4) ``x1 y1 x2 y2``.

    Returns:
        (n,) in [-1, 1]. Two equal boxes have GIoU 1, whatever their size; two points at one place have 0.

    Source:
        Rezatofighi et al., Generalized Intersection over Union, CVPR 2019, Algorithm 1.

    Example:
        Two unit squares that touch at a corner:

        >>> paired_giou(torch.tensor([[0., 0., 1., 1.]]), torch.tensor([[1., 1., 2., 2.]]))
        tensor([-0.5000])
    """
    corners = _corners(boxes, others)
    intersection, union = _paired_areas(*corners)
    width, height = _enclosing_size(*corners).unbind(-1)
    enclosing = width * height
    return _safe_ratio(intersection, union) - _safe_ratio(enclosing - union, enclosing)


def paired_diou(boxes: Float[Tensor, "n 4"], others: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Distance IoU of each box with the other of the same index.

    ``DIoU = IoU - d^2 / c^2`` with d the distance of the two centers and c the diagonal of the smallest box around both.

    Args:
        boxes: (n, 4) ``x1 y1 x2 y2``.
        others: (n, 4) ``x1 y1 x2 y2``.

    Returns:
        (n,) in [-1, 1]. Two equal boxes have DIoU 1, whatever their size; two points at one place have 0.

    Source:
        Zheng et al., Distance-IoU Loss, AAAI 2020, Eqs. (5)-(7).

    Example:
        >>> paired_diou(torch.tensor([[0., 0., 1., 1.]]), torch.tensor([[1., 1., 2., 2.]]))
        tensor([-0.2500])
    """
    corners = _corners(boxes, others)
    return _safe_ratio(*_paired_areas(*corners)) - _center_distance(corners, _enclosing_size(*corners))


def paired_ciou(boxes: Float[Tensor, "n 4"], others: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Complete IoU of each box with the other of the same index: DIoU less a term for the aspect ratio.

    ``CIoU = DIoU - a v``, ``v = 4 / pi^2 (atan(w'/h') - atan(w/h))^2``, ``a = v / ((1 - IoU) + v)``, where ``a`` takes no gradient and is 0
    where ``v`` is. The aspect ratio of a point is that of the other box.

    Args:
        boxes: (n, 4) ``x1 y1 x2 y2``.
        others: (n, 4) ``x1 y1 x2 y2``.

    Returns:
        (n,) in [-2, 1]. Two equal boxes have CIoU 1, whatever their size; two points at one place have 0.

    Source:
        Zheng et al., Distance-IoU Loss, AAAI 2020, Eqs. (8)-(11).

    Example:
        >>> paired_ciou(torch.tensor([[0., 0., 2., 1.]]), torch.tensor([[0., 0., 1., 2.]]))
        tensor([0.2371])
    """
    corners = _corners(boxes, others)
    iou = _safe_ratio(*_paired_areas(*corners))
    aspect = 4 / math.pi**2 * _angle_between_diagonals(*corners).square()
    with torch.no_grad():
        weight = _safe_ratio(aspect, 1 - iou + aspect)
    return iou - _center_distance(corners, _enclosing_size(*corners)) - weight * aspect


def paired_eiou(boxes: Float[Tensor, "n 4"], others: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Efficient IoU of each box with the other of the same index: DIoU less what width and height are off by.

    ``EIoU = DIoU - (w - w')^2 / W^2 - (h - h')^2 / H^2`` with W and H the sides of the smallest box around both.

    Args:
        boxes: (n, 4) ``x1 y1 x2 y2``.
        others: (n, 4) ``x1 y1 x2 y2``.

    Returns:
        (n,) in [-3, 1]. Two equal boxes have EIoU 1, whatever their size; two points at one place have 0.

    Source:
        Zhang et al., Focal and Efficient IOU Loss, Neurocomputing 2022 (arXiv:2101.08158), the loss named EIOU in Sec. 3.

    Example:
        >>> paired_eiou(torch.tensor([[0., 0., 2., 1.]]), torch.tensor([[0., 0., 1., 2.]]))
        tensor([-0.2292])
    """
    corners = _corners(boxes, others)
    low, high, other_low, other_high = corners
    difference = _size(low, high) - _size(other_low, other_high)
    sides = _enclosing_size(*corners)
    off = _safe_ratio(difference.square(), sides.square()).sum(-1)
    return _safe_ratio(*_paired_areas(*corners)) - _center_distance(corners, sides) - off


def pairwise_intersection(boxes: Float[Tensor, "n 4"], others: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Area that each box shares with each of the others.

    ``|A_i n B_j|``; the IoU and the share of one side alone, which a crowd region needs, are formed from it.

    Args:
        boxes: (n, 4) ``x1 y1 x2 y2``.
        others: (m, 4) ``x1 y1 x2 y2``, the same frame.

    Returns:
        (n, m), >= 0, in the square of the unit of the boxes.

    Raises:
        ValueError: a tensor that is not (k, 4).

    Example:
        >>> pairwise_intersection(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[1., 0., 3., 2.], [5., 5., 6., 6.]]))
        tensor([[2., 0.]])
    """
    for name, tensor in (("boxes", boxes), ("others", others)):
        if tensor.ndim != 2 or tensor.shape[-1] != 4:
            raise ValueError(f"{name}: a (k, 4) tensor expected, got {tuple(tensor.shape)}")
    x1, y1, x2, y2 = boxes.unsqueeze(1).unbind(-1)
    other_x1, other_y1, other_x2, other_y2 = others.unbind(-1)
    # relu, not clamp(min=0): the same values, but no gradient at 0 with any torch
    width = (torch.minimum(x2, other_x2) - torch.maximum(x1, other_x1)).relu()
    return width * (torch.minimum(y2, other_y2) - torch.maximum(y1, other_y1)).relu()


def box_area(boxes: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape"]:
    """Width times height of each box: ``(x2 - x1) (y2 - y1)``.

    Args:
        boxes: (..., 4) ``x1 y1 x2 y2``.

    Returns:
        (...), in the square of the unit of the boxes.

    Example:
        >>> box_area(torch.tensor([[0., 0., 2., 3.]]))
        tensor([6.])
    """
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    return width * height


def _corners(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top left and bottom right of the boxes, then of the others, (n, 2) each, in float32 or float64."""
    for name, value in (("boxes", boxes), ("others", others)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: a torch.Tensor expected, got {type(value).__name__}; torch.as_tensor(...) makes one")
    if boxes.shape != others.shape or boxes.shape[-1] != 4:
        raise ValueError(f"boxes and others: two (n, 4) tensors of one shape expected, got {tuple(boxes.shape)} and {tuple(others.shape)}")
    # once for all: each slice boxes[..., :2] costs its backward a tensor of zeros
    low, high = upcast(boxes).chunk(2, -1)
    other_low, other_high = upcast(others).chunk(2, -1)
    return low, high, other_low, other_high


def _paired_areas(low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union, (n,) each, >= 0: an inverted box is empty. Two negative sides would make an area, and a GIoU above 1."""

    # not prod(-1): its backward waits for the accelerator
    width, height = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).relu().unbind(-1)
    intersection = width * height
    return intersection, _area(low, high) + _area(other_low, other_high) - intersection


def _area(low: Tensor, high: Tensor) -> Tensor:
    width, height = _size(low, high).unbind(-1)
    return width * height


def _size(low: Tensor, high: Tensor) -> Tensor:
    """Width and height, (n, 2), >= 0."""
    size = high - low
    # not relu: it has no gradient at 0, and a box without width could not grow
    return torch.where(size < 0, 0.0, size)


def _enclosing_size(low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor) -> Tensor:
    """Width and height, (n, 2), of the smallest box around all four corners: the two of an inverted box have changed places."""
    low, high = _ordered(low, high)
    other_low, other_high = _ordered(other_low, other_high)
    return torch.maximum(high, other_high) - torch.minimum(low, other_low)


def _ordered(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the higher end; not minimum and maximum, whose gradient is split between two equal ends."""
    inverted = high < low
    return torch.where(inverted, high, low), torch.where(inverted, low, high)


def _center_distance(corners: tuple[Tensor, Tensor, Tensor, Tensor], enclosing: Tensor) -> Tensor:
    """Squared distance of the centers in units of the squared diagonal of the box around both, (n,) in [0, 1]."""
    low, high, other_low, other_high = corners
    dx, dy = ((low - other_low + (high - other_high)) / 2).unbind(-1)
    width, height = enclosing.unbind(-1)
    return _safe_ratio(dx * dx + dy * dy, width * width + height * height)


def _angle_between_diagonals(low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor) -> Tensor:
    """``atan(w'/h') - atan(w/h)``, (n,), by the difference formula of the tangent; 0 where one of the two boxes is a point."""
    width, height = _size(low, high).unbind(-1)
    other_width, other_height = _size(other_low, other_high).unbind(-1)
    opposite = other_width * height - width * other_height
    adjacent = height * other_height + width * other_width
    # torch before its pull request 166787 (end of 2025) has a NaN gradient at atan2(0, 0)
    return torch.atan2(opposite, torch.where((opposite == 0) & (adjacent == 0), 1.0, adjacent))


def _safe_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``numerator / denominator`` and 0 where the denominator is 0, with a gradient of 0 there.

    No absolute epsilon: an eps of 1e-6 makes the IoU of two equal boxes of side 1e-4 come out as 0.01.
    """
    empty = denominator <= 0
    return torch.where(empty, 0.0, numerator / torch.where(empty, 1.0, denominator))
