"""Later losses of whole boxes, each a variation on ``1 - IoU``. Boxes are ``x1 y1 x2 y2`` in any one unit, paired by index.

How they compare under one budget is on the page "IoU losses compared".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes import paired_iou
from ..boxes.overlap import _center_distance, _corners, _enclosing_size, _paired_areas, _safe_ratio, _size
from ._checks import check_finite, check_positive, check_share
from ._logspace import power
from ._reduce import Reduction, reduce_loss
from .box_regression import smooth_l1_loss


def bounded_iou_loss(
    boxes: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    *,
    beta: float = 0.2,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Bounded IoU loss: smooth L1 of one minus the best IoU that the error of each coordinate alone allows.

    ``L = sum over x, y, w, h of SmoothL1(1 - B)`` with ``B_x = max(0, (w* - 2 |x - x*|) / (w* + 2 |x - x*|))`` for the centers x, y and
    ``B_w = min(w / w*, w* / w)`` for the sides.

    Args:
        boxes: (n, 4) predicted ``x1 y1 x2 y2``.
        targets: (n, 4) true ``x1 y1 x2 y2``, the same frame.
        beta: where smooth L1 turns straight, in [0, 1].
        weight: (n,), multiplies the loss of each pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar, or (n,) without reduction; in [0, 4 (1 - beta/2)].

    Raises:
        ValueError: shapes that differ, a beta outside of [0, 1].

    Source:
        Tychsen-Smith and Petersson, Improving Object Localization with Fitness NMS and Bounded IoU Loss, CVPR 2018, the section on the
        bounded IoU loss; beta: mmdetection.

    Example:
        >>> bounded_iou_loss(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[0., 0., 2., 4.]]))
        tensor(0.9667)
    """
    check_share("beta", beta)
    check_finite(boxes=boxes, targets=targets)
    low, high, other_low, other_high = _corners(boxes, targets)
    size, target_size = _size(low, high), _size(other_low, other_high)
    off = (low - other_low + (high - other_high)).abs()  # twice the distance of the centers
    place = _safe_ratio(target_size - off, target_size + off).clamp(min=0)
    shape = _safe_ratio(torch.minimum(size, target_size), torch.maximum(size, target_size))
    # two sides of length 0 are equal
    shape = torch.where((size == 0) & (target_size == 0), 1.0, shape)
    gap = 1 - torch.cat([place, shape], -1)
    loss = smooth_l1_loss(gap, torch.zeros_like(gap), beta=beta, reduction="none").sum(-1)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer)


def nwd_loss(
    boxes: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    *,
    scale: float = 12.8,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Normalized Wasserstein distance: boxes as Gaussians, so that tiny boxes that miss each other by a pixel still are near.

    ``L = 1 - exp(-W / scale)`` with ``W^2 = |c - c*|^2 + ((w - w*)^2 + (h - h*)^2) / 4``, c the centers.

    Args:
        boxes: (n, 4) predicted ``x1 y1 x2 y2``, in pixels.
        targets: (n, 4) true ``x1 y1 x2 y2``, the same frame.
        scale: the distance, in pixels, at which a pair counts ``1 - 1/e``; about the size of the objects of the data set, > 0.
        weight: (n,), multiplies the loss of each pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar, or (n,) without reduction; in [0, 1], 0 for equal boxes, where the gradient is 0.

    Raises:
        ValueError: shapes that differ, a scale that is not positive.

    Source:
        Wang et al., A Normalized Gaussian Wasserstein Distance for Tiny Object Detection, arXiv:2110.13389, Sec. 3; the default is the
        mean size of AI-TOD's objects.

    Example:
        >>> nwd_loss(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[3., 0., 5., 2.]]))
        tensor(0.2089)
    """
    check_positive("scale", scale)
    check_finite(boxes=boxes, targets=targets)
    low, high, other_low, other_high = _corners(boxes, targets)
    center = (low - other_low + (high - other_high)) / 2
    size = (_size(low, high) - _size(other_low, other_high)) / 2
    squared = (center.square() + size.square()).sum(-1)
    distance = torch.where(squared == 0, 0.0, torch.where(squared == 0, 1.0, squared).sqrt())
    return reduce_loss(-torch.expm1(-distance / scale), weight=weight, reduction=reduction, normalizer=normalizer)


def siou_loss(
    boxes: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    *,
    theta: float = 4.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """SIoU loss: IoU, the distance of the centers along x and y, which counts less where they lie on a diagonal, and the shape.

    ``L = 1 - IoU + (D + S) / 2`` with ``D = sum over x, y of (1 - exp(-(2 - A) (d / c)^2))``, d the distance of the centers along the axis
    and c the side of the smallest box around both, ``A = 2 |d_x d_y| / (d_x^2 + d_y^2)``, and
    ``S = sum over w, h of (1 - exp(-|w - w*| / max(w, w*)))^theta``.

    Args:
        boxes: (n, 4) predicted ``x1 y1 x2 y2``.
        targets: (n, 4) true ``x1 y1 x2 y2``, the same frame.
        theta: how little small errors of shape count, > 0; 2 to 6 in the paper.
        weight: (n,), multiplies the loss of each pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar, or (n,) without reduction; in [0, 3].

    Raises:
        ValueError: shapes that differ, a theta that is not positive.

    Source:
        Gevorgyan, SIoU Loss: More Powerful Learning for Bounding Box Regression, arXiv:2205.12740, Sec. 2.

    Example:
        >>> siou_loss(torch.tensor([[0., 0., 1., 1.]]), torch.tensor([[1., 1., 2., 2.]]))
        tensor(1.2212)
    """
    check_positive("theta", theta)
    check_finite(boxes=boxes, targets=targets)
    corners = _corners(boxes, targets)
    low, high, other_low, other_high = corners
    off = (low - other_low + (high - other_high)) / 2
    dx, dy = off.unbind(-1)
    angle = _safe_ratio(2 * (dx * dy).abs(), dx * dx + dy * dy)
    share = _safe_ratio(off, _enclosing_size(*corners))
    distance = -torch.expm1((angle - 2).unsqueeze(-1) * share.square())
    size, target_size = _size(low, high), _size(other_low, other_high)
    change = _safe_ratio((size - target_size).abs(), torch.maximum(size, target_size))
    shape = power(-torch.expm1(-change), theta)
    iou = _safe_ratio(*_paired_areas(*corners))  # not paired_iou: that of half-precision boxes would be rounded before it is added to
    loss = 1 - iou + (distance + shape).sum(-1) / 2
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer)


def wiou_loss(
    boxes: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """WIoU loss, version 1: one minus IoU, times up to e where the centers are far apart.

    ``L = (1 - IoU) exp(d^2 / c^2)`` with d the distance of the centers and c the diagonal of the smallest box around both, which takes no
    gradient. The focusing factors of versions 2 and 3 are weights of each pair: pass them as ``weight``.

    Args:
        boxes: (n, 4) predicted ``x1 y1 x2 y2``.
        targets: (n, 4) true ``x1 y1 x2 y2``, the same frame.
        weight: (n,), multiplies the loss of each pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar, or (n,) without reduction; in [0, e].

    Raises:
        ValueError: shapes that differ.

    Source:
        Tong et al., Wise-IoU, arXiv:2301.10051, the section on version 1.

    Example:
        >>> wiou_loss(torch.tensor([[0., 0., 1., 1.]]), torch.tensor([[1., 1., 2., 2.]]))
        tensor(1.2840)
    """
    check_finite(boxes=boxes, targets=targets)
    corners = _corners(boxes, targets)
    far = torch.exp(_center_distance(corners, _enclosing_size(*corners).detach()))
    loss = (1 - _safe_ratio(*_paired_areas(*corners))) * far
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer)


def mpdiou_loss(
    boxes: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    *,
    image_size: tuple[float, float] = (640.0, 640.0),
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """MPDIoU loss: IoU and the distances of the two corners, in units of the diagonal of the image.

    ``L = 1 - IoU + (d^2 + e^2) / (W^2 + H^2)`` with d the distance of the top left and e that of the bottom right corners.

    Args:
        boxes: (n, 4) predicted ``x1 y1 x2 y2``, in pixels.
        targets: (n, 4) true ``x1 y1 x2 y2``, the same frame.
        image_size: height and width of the image that the network saw, > 0.
        weight: (n,), multiplies the loss of each pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar, or (n,) without reduction; >= 0, at most 3 for boxes inside of the image.

    Raises:
        ValueError: shapes that differ, a size that is not two positive numbers.

    Source:
        Ma and Xu, MPDIoU, arXiv:2307.07662, Sec. 3.

    Example:
        >>> mpdiou_loss(torch.tensor([[0., 0., 10., 10.]]), torch.tensor([[0., 0., 10., 20.]]), image_size=(30, 40))
        tensor(0.5400)
    """
    if not isinstance(image_size, Sequence | Tensor) or len(image_size) != 2:
        raise ValueError(f"image_size: height and width expected, got {image_size!r}")
    for side in image_size:
        check_positive("image_size", side)
    check_finite(boxes=boxes, targets=targets)
    low, high, other_low, other_high = _corners(boxes, targets)
    corners = ((low - other_low).square() + (high - other_high).square()).sum(-1)
    loss = 1 - paired_iou(boxes, targets) + corners / (image_size[0] ** 2 + image_size[1] ** 2)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer)


def inner_iou_loss(
    boxes: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    *,
    ratio: float = 0.7,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Inner-IoU loss: one minus the IoU of both boxes shrunk, or enlarged, about their centers.

    ``L = 1 - IoU(A_r, B_r)`` with ``A_r`` the box A with both sides times ``ratio``.

    Args:
        boxes: (n, 4) predicted ``x1 y1 x2 y2``.
        targets: (n, 4) true ``x1 y1 x2 y2``, the same frame.
        ratio: > 0; below 1 the gradient of boxes that overlap much is larger, above 1 boxes that hardly overlap have one.
        weight: (n,), multiplies the loss of each pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar, or (n,) without reduction; in [0, 1]; 1, with a gradient of 0, where the resized boxes do not meet.

    Raises:
        ValueError: shapes that differ, a ratio that is not positive.

    Source:
        Zhang et al., Inner-IoU, arXiv:2311.02877, Sec. 3; ``inner_iou_loss(ratio=1)`` is the IoU loss.

    Example:
        >>> inner_iou_loss(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[1., 0., 3., 2.]]), ratio=0.75)
        tensor(0.8000)
    """
    check_positive("ratio", ratio)
    check_finite(boxes=boxes, targets=targets)
    low, high, other_low, other_high = _corners(boxes, targets)
    resized = [torch.cat(_about_center(*ends, ratio), -1) for ends in ((low, high), (other_low, other_high))]
    return reduce_loss(1 - paired_iou(*resized), weight=weight, reduction=reduction, normalizer=normalizer)


def _about_center(low: Tensor, high: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    center, half = (low + high) / 2, (high - low) * (ratio / 2)
    return center - half, center + half
