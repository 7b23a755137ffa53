"""Losses of whole boxes by their overlap. Boxes are ``x1 y1 x2 y2`` in any one unit, paired by index: (n, 4) against (n, 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes import paired_ciou, paired_diou, paired_eiou, paired_giou, paired_iou
from ._checks import check_finite, check_positive
from ._logspace import power
from ._reduce import Reduction, reduce_loss

SMALLEST_IOU = 1e-6
"""The IoU below which the log form of ``iou_loss`` stays flat: -log(0) has no value."""


def iou_loss(
    boxes: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    *,
    form: Literal["linear", "log", "square"] = "linear",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """IoU loss: how much of the union of two boxes they do not share.

    ``linear: 1 - IoU``, ``log: -log(IoU)``, ``square: 1 - IoU^2``. Disjoint boxes have the largest loss and a gradient of 0.

    Args:
        boxes: (n, 4) predicted ``x1 y1 x2 y2``.
        targets: (n, 4) true ``x1 y1 x2 y2``, the same frame.
        form: one of the three; ``"log"`` ends at ``-log(1e-6) = 13.8``, the loss of disjoint boxes.
        weight: (n,), multiplies the loss of each pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar, or (n,) without reduction; in [0, 1], for ``"log"`` in [0, 13.8].

    Raises:
        ValueError: shapes that differ, an unknown form.

    Source:
        Yu et al., UnitBox, ACM MM 2016, Algorithm 1, for the log form; Rahman and Wang, ISVC 2016, for the linear one.

    Example:
        >>> iou_loss(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[1., 0., 3., 2.]]))
        tensor(0.6667)
    """
    if form not in _IOU_FORMS:
        raise ValueError(f"form: one of {', '.join(map(repr, _IOU_FORMS))} expected, got {form!r}")
    check_finite(boxes=boxes, targets=targets)
    loss = _IOU_FORMS[form](paired_iou(boxes, targets))
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer)


_IOU_FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda iou: 1 - iou,
    "log": lambda iou: -torch.log(iou.clamp(min=SMALLEST_IOU)),
    "square": lambda iou: 1 - iou.square(),
}


def giou_loss(
    boxes: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """GIoU loss: one minus the generalized IoU; disjoint boxes are drawn together.

    ``L = 1 - IoU + |C \\ (A u B)| / |C|`` with C the smallest box around both.

    Args:
        boxes: (n, 4) predicted ``x1 y1 x2 y2``.
        targets: (n, 4) true ``x1 y1 x2 y2``, the same frame.
        weight: (n,), multiplies the loss of each pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar, or (n,) without reduction; in [0, 2].

    Raises:
        ValueError: shapes that differ.

    Source:
        Rezatofighi et al., Generalized Intersection over Union, CVPR 2019, Algorithm 2.

    Example:
        >>> giou_loss(torch.tensor([[0., 0., 1., 1.]]), torch.tensor([[1., 1., 2., 2.]]))
        tensor(1.5000)
    """
    check_finite(boxes=boxes, targets=targets)
    return reduce_loss(1 - paired_giou(boxes, targets), weight=weight, reduction=reduction, normalizer=normalizer)


def diou_loss(
    boxes: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """DIoU loss: draws the centers together, disjoint boxes too.

    ``L = 1 - IoU + d^2 / c^2`` with d the distance of the centers and c the diagonal of the smallest box around both.

    Args:
        boxes: (n, 4) predicted ``x1 y1 x2 y2``.
        targets: (n, 4) true ``x1 y1 x2 y2``, the same frame.
        weight: (n,), multiplies the loss of each pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar, or (n,) without reduction; in [0, 2].

    Raises:
        ValueError: shapes that differ.

    Source:
        Zheng et al., Distance-IoU Loss, AAAI 2020, Eqs. (5)-(7).

    Example:
        >>> diou_loss(torch.tensor([[0., 0., 1., 1.]]), torch.tensor([[1., 1., 2., 2.]]))
        tensor(1.2500)
    """
    check_finite(boxes=boxes, targets=targets)
    return reduce_loss(1 - paired_diou(boxes, targets), weight=weight, reduction=reduction, normalizer=normalizer)


def ciou_loss(
    boxes: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """CIoU loss: DIoU loss with a term for the aspect ratio.

    ``L = 1 - IoU + d^2 / c^2 + a v`` with ``v = 4 / pi^2 (atan(w'/h') - atan(w/h))^2`` and ``a = v / ((1 - IoU) + v)``, which takes no
    gradient. Some later code switches the last term off below an IoU of 0.5 or lets a gradient through ``a``; the paper does neither.

    Args:
        boxes: (n, 4) predicted ``x1 y1 x2 y2``.
        targets: (n, 4) true ``x1 y1 x2 y2``, the same frame.
        weight: (n,), multiplies the loss of each pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar, or (n,) without reduction; in [0, 3].

    Raises:
        ValueError: shapes that differ.

    Source:
        Zheng et al., Distance-IoU Loss, AAAI 2020, Eqs. (8)-(12).

    Example:
        >>> ciou_loss(torch.tensor([[0., 0., 2., 1.]]), torch.tensor([[0., 0., 1., 2.]]))
        tensor(0.7629)
    """
    check_finite(boxes=boxes, targets=targets)
    return reduce_loss(1 - paired_ciou(boxes, targets), weight=weight, reduction=reduction, normalizer=normalizer)


def eiou_loss(
    boxes: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """EIoU loss: DIoU loss with a term each for the width and the height.

    ``L = 1 - IoU + d^2 / c^2 + (w - w')^2 / W^2 + (h - h')^2 / H^2`` with W, H and c the sides and the diagonal of the smallest box around
    both.

    Args:
        boxes: (n, 4) predicted ``x1 y1 x2 y2``.
        targets: (n, 4) true ``x1 y1 x2 y2``, the same frame.
        weight: (n,), multiplies the loss of each pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar, or (n,) without reduction; in [0, 4].

    Raises:
        ValueError: shapes that differ.

    Source:
        Zhang et al., Focal and Efficient IOU Loss, Neurocomputing 2022 (arXiv:2101.08158), the loss named EIOU in Sec. 3.

    Example:
        >>> eiou_loss(torch.tensor([[0., 0., 2., 1.]]), torch.tensor([[0., 0., 1., 2.]]))
        tensor(1.2292)
    """
    check_finite(boxes=boxes, targets=targets)
    return reduce_loss(1 - paired_eiou(boxes, targets), weight=weight, reduction=reduction, normalizer=normalizer)


def alpha_iou_loss(
    boxes: Float[Tensor, "n 4"],
    targets: Float[Tensor, "n 4"],
    *,
    alpha: float = 3.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Alpha-IoU loss: a power of the IoU, which asks most of boxes that are nearly right.

    ``L = 1 - IoU^alpha``.

    Args:
        boxes: (n, 4) predicted ``x1 y1 x2 y2``.
        targets: (n, 4) true ``x1 y1 x2 y2``, the same frame.
        alpha: the power, > 0; above 1 the gradient at high IoU grows.
        weight: (n,), multiplies the loss of each pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar, or (n,) without reduction; in [0, 1].

    Raises:
        ValueError: shapes that differ, an alpha that is not positive.

    Source:
        He et al., Alpha-IoU, NeurIPS 2021, Sec. 3.

    Example:
        >>> alpha_iou_loss(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[1., 0., 3., 2.]]))
        tensor(0.9630)
    """
    check_positive("alpha", alpha)
    check_finite(boxes=boxes, targets=targets)
    return reduce_loss(1 - power(paired_iou(boxes, targets), alpha), weight=weight, reduction=reduction, normalizer=normalizer)
