"""Losses of box regression by distance: each coordinate against its target."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from ..boxes._dtype import upcast
from ._checks import check_finite, check_not_negative, check_positive
from ._reduce import Reduction, check_same_shape, reduce_loss
from .classification import sigmoid_cross_entropy_loss


def l1_loss(
    input: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """L1: the absolute error. torch's own has no weight and no normalizer, and sums float16 in float16.

    ``L = |input - target|``.

    Args:
        input: predicted coordinates, any shape and unit.
        target: the same shape.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or the shape of ``input`` without reduction.

    Raises:
        ValueError: shapes that differ.

    Source:
        Girshick, Fast R-CNN, ICCV 2015, Sec. 2.3; ``smooth_l1_loss`` at beta = 0.

    Example:
        >>> l1_loss(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.1, 2.0, 3.3]), reduction="sum")
        tensor(0.4000)
    """
    check_same_shape("input", input, "target", target)
    check_finite(input=input, target=target)
    loss = F.l1_loss(upcast(input), upcast(target), reduction="none")
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer)


def l2_loss(
    input: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """L2: half the squared error, so that its gradient is the error. torch's ``mse_loss`` is twice that.

    ``L = (input - target)^2 / 2``.

    Args:
        input: predicted coordinates, any shape and unit.
        target: the same shape.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or the shape of ``input`` without reduction.

    Raises:
        ValueError: shapes that differ.

    Source:
        Girshick et al., R-CNN, CVPR 2014, Appendix C.

    Example:
        >>> l2_loss(torch.tensor([3.0]), torch.tensor([1.0]))
        tensor(2.)
    """
    check_same_shape("input", input, "target", target)
    check_finite(input=input, target=target)
    loss = F.mse_loss(upcast(input), upcast(target), reduction="none")
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer) / 2


def smooth_l1_loss(
    input: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    *,
    beta: float | None = None,
    sigma: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Smooth L1: a parabola near 0, so that small errors have small gradients, and straight from ``beta`` on.

    With ``x = input - target``: ``L = x^2 / (2 beta)`` for ``|x| < beta``, else ``|x| - beta / 2``; ``sigma`` says the same with
    ``beta = 1 / sigma^2``. ``beta = 0`` is L1.

    Args:
        input: predicted coordinates, any shape and unit.
        target: the same shape.
        beta: where the parabola ends, >= 0; 1 by default (Fast R-CNN), 1/9 in Mask R-CNN.
        sigma: the other way to say it, > 0; 3 in the RPN of Faster R-CNN.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or the shape of ``input`` without reduction.

    Raises:
        ValueError: shapes that differ, both beta and sigma, one out of range.

    Source:
        Girshick, Fast R-CNN, ICCV 2015, Eq. (3); sigma: the authors' code of Faster R-CNN.

    Example:
        >>> x = torch.tensor([0.4])
        >>> smooth_l1_loss(x, torch.zeros(1)), smooth_l1_loss(x, torch.zeros(1), sigma=3)
        (tensor(0.0800), tensor(0.3444))
    """
    check_same_shape("input", input, "target", target)
    check_finite(input=input, target=target)
    loss = F.smooth_l1_loss(upcast(input), upcast(target), beta=_transition(beta, sigma), reduction="none")
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer)


def faster_rcnn_smooth_l1_loss(
    input: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    inside_weights: Float[Tensor, "*shape"],
    outside_weights: Float[Tensor, "*shape"],
    *,
    sigma: float = 3.0,
    dim: int | tuple[int, ...] = (1,),
) -> Float[Tensor, ""]:
    """Smooth L1 as Faster R-CNN computes it: weighted inside and outside, summed over ``dim``, averaged over the rest.

    ``mean_b sum_dim outside * SmoothL1(inside * (input - target))``.

    Args:
        input: predicted offsets, (rois, 4) in the second stage, (b, 4 anchors, h, w) in the RPN.
        target: the same shape.
        inside_weights: the same shape; 1 for foreground, 0 elsewhere: only a foreground box has a target.
        outside_weights: the same shape; 1 / N, the share of each entry in the average.
        sigma: ``beta = 1 / sigma^2``, > 0; 3 in the RPN, 1 in the second stage.
        dim: what is summed over: ``(1,)`` in the second stage, ``(1, 2, 3)`` in the RPN.

    Returns:
        A scalar in [0, inf). The mean is over *all* rois or images, those without foreground too.

    Raises:
        ValueError: shapes that differ, a sigma that is not positive.

    Source:
        Ren et al., Faster R-CNN, NeurIPS 2015, the regression part of Eq. (1); the weights are those of the authors' code.

    Example:
        >>> one = torch.ones(1, 3)
        >>> faster_rcnn_smooth_l1_loss(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.1, 2.0, 3.3]]), one, one)
        tensor(0.2894)
    """
    for name, other in (("target", target), ("inside_weights", inside_weights), ("outside_weights", outside_weights)):
        check_same_shape("input", input, name, other)
    check_finite(input=input, target=target)
    difference = inside_weights * (upcast(input) - upcast(target))
    loss = F.smooth_l1_loss(difference, torch.zeros_like(difference), beta=_transition(None, sigma), reduction="none")
    return reduce_loss((outside_weights * loss).sum(dim))


class RPNTerms(NamedTuple):
    """The two terms of the loss of a region proposal network; their sum is the loss."""

    classification: Float[Tensor, ""]
    localization: Float[Tensor, ""]


def rpn_loss(
    logits: Float[Tensor, "*anchors"],
    targets: Shaped[Tensor, "*anchors"],
    regression: Float[Tensor, "*anchors 4"],
    regression_targets: Float[Tensor, "*anchors 4"],
    *,
    sigma: float = 3.0,
    localization_weight: float = 1.0,
    localization_normalizer: float | Tensor | None = None,
) -> RPNTerms:
    """The multi-task loss of a region proposal network: is there an object, and where.

    ``L = 1/N_cls sum_i L_cls(p_i, p*_i) + lambda 1/N_reg sum_i p*_i SmoothL1(t_i - t*_i)`` with N_cls the number of sampled anchors.

    Args:
        logits: one score per anchor, before the sigmoid.
        targets: the same shape: 1 positive, 0 negative, -1 not sampled. -1 is ignored: no loss, no gradient, not counted in the mean.
        regression: (..., 4) predicted offsets ``t``.
        regression_targets: (..., 4) ``t*``; looked at for positives only.
        sigma: of the smooth L1, > 0.
        localization_weight: lambda, >= 0.
        localization_normalizer: N_reg. By default it is N_cls, as in the authors' code; the paper takes the number of anchor places, about
            2400, together with ``localization_weight=10``.

    Returns:
        ``RPNTerms(classification, localization)``, both in [0, inf) and weighted.

    Raises:
        ValueError: shapes that do not fit, a sigma that is not positive, a negative weight.

    Source:
        Ren et al., Faster R-CNN, NeurIPS 2015, Eq. (1), with one logit for the paper's two.

    Example:
        >>> logits, targets = torch.tensor([0.0, 0.0, 9.0]), torch.tensor([1, 0, -1])
        >>> rpn_loss(logits, targets, torch.ones(3, 4), torch.zeros(3, 4))
        RPNTerms(classification=tensor(0.6931), localization=tensor(1.8889))
    """
    check_same_shape("logits", logits, "targets", targets)
    check_same_shape("regression", regression, "regression_targets", regression_targets)
    if regression.shape != (*logits.shape, 4):
        raise ValueError(f"regression: {(*logits.shape, 4)} expected, got {tuple(regression.shape)}")
    check_not_negative("localization_weight", localization_weight)
    positive = targets == 1
    check_finite(~positive, regression=regression, regression_targets=regression_targets)
    number = (targets != -1).sum().clamp(min=1)
    classification = sigmoid_cross_entropy_loss(logits, targets, reduction="sum", normalizer=number)
    # where and not a product with 0: the targets of the others may be infinite
    difference = torch.where(positive.unsqueeze(-1), upcast(regression) - upcast(regression_targets), 0.0)
    localization = smooth_l1_loss(
        difference,
        torch.zeros_like(difference),
        sigma=sigma,
        reduction="sum",
        normalizer=number if localization_normalizer is None else localization_normalizer,
    )
    return RPNTerms(classification, localization_weight * localization)


def balanced_l1_loss(
    input: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    *,
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Balanced L1: its gradient grows by a logarithm up to ``beta``, so that small errors count more than in smooth L1.

    With ``x = |input - target|`` and ``b = e^(gamma/alpha) - 1``, which makes the gradient continuous:
    ``L = alpha/b (b x + beta) log(1 + b x/beta) - alpha x`` for ``x < beta``, else ``gamma x + (gamma/b - alpha) beta``. The gradient is
    ``alpha log(1 + b x/beta)``, then ``gamma``.

    Args:
        input: predicted coordinates, any shape and unit.
        target: the same shape.
        alpha: weight of the small errors, > 0.
        gamma: the largest gradient, > 0.
        beta: where it is reached, > 0; ``L(x; beta) = beta L(x/beta; 1)``. The widely used implementation is wrong for beta != 1.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or the shape of ``input`` without reduction.

    Raises:
        ValueError: shapes that differ, a parameter that is not positive, gamma / alpha above 700.

    Source:
        Pang et al., Libra R-CNN, CVPR 2019, Sec. 3.3, for beta = 1; the general form follows by integrating the gradient.

    Example:
        >>> balanced_l1_loss(torch.tensor([0.5, 2.0]), torch.zeros(2), reduction="none")
        tensor([0.4006, 2.5786])
    """
    check_same_shape("input", input, "target", target)
    check_finite(input=input, target=target)
    for name, value in (("alpha", alpha), ("gamma", gamma), ("beta", beta)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: a finite number > 0 expected, got {value}")
    if gamma / alpha > 700:
        raise ValueError(f"gamma, alpha: gamma / alpha <= 700 expected (e^(gamma/alpha) overflows), got {gamma} / {alpha}")
    b = math.expm1(gamma / alpha)
    x = (upcast(input) - upcast(target)).abs()
    inside = alpha / b * (b * x + beta) * torch.log1p(b / beta * x) - alpha * x
    loss = torch.where(x < beta, inside, gamma * x + (gamma / b - alpha) * beta)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer)


def _transition(beta: float | None, sigma: float | None) -> float:
    """The one ``beta`` that the two ways to say it mean."""
    if beta is not None and sigma is not None:
        raise ValueError(f"beta, sigma: only one of the two expected (beta = 1 / sigma^2), got beta={beta} and sigma={sigma}")
    if sigma is not None:
        check_positive("sigma", sigma)
        return 1 / sigma**2
    if beta is None:
        return 1.0
    check_not_negative("beta", beta)
    return beta
