"""Losses of classification scores against hard labels: cross-entropy, focal, DR. All work on logits, in log-space.

A binary (sigmoid) loss takes logits of any shape and targets 0 or 1 of that shape; in detection that is one entry per anchor and class.
A softmax loss takes (n, C) logits and (n,) class indices. A target of -1 is ignored, whatever the logit there.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ..boxes._dtype import upcast
from ._checks import check_finite, check_finite_classes, check_not_negative, check_number, check_positive, check_share, check_tensors
from ._logspace import cross_entropy, error_margin, focal_cross_entropy, softmax_cross_entropy, softplus
from ._reduce import Reduction, check_same_shape, find_ignored, reduce_loss, set_aside


def sigmoid_cross_entropy_loss(
    logits: Float[Tensor, "*shape"],
    targets: Shaped[Tensor, "*shape"],
    *,
    alpha: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Cross-entropy of binary (sigmoid) scores, alpha-balanced on request.

    ``CE = -alpha_t log(p_t)`` with ``p_t = p`` and ``alpha_t = alpha`` for a positive, ``1 - p`` and ``1 - alpha`` for a negative; both
    weigh 1 without alpha.

    Args:
        logits: any shape, before the sigmoid.
        targets: the same shape, 0 or 1, or a probability between them. -1 is ignored: no loss, no gradient, not counted in the mean.
        alpha: weight of the positives, in [0, 1]; ``None`` does not weigh.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or the shape of ``logits`` without reduction.

    Raises:
        ValueError: shapes that differ, alpha outside [0, 1]; on a CPU, targets that are neither -1 nor in [0, 1].

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eqs. (1)-(3).

    Example:
        >>> sigmoid_cross_entropy_loss(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]), alpha=0.25, reduction="none")
        tensor([0.1733, 0.5199])
    """
    check_same_shape("logits", logits, "targets", targets)
    logits, ignored = upcast(logits), find_ignored(targets, soft=True)
    check_finite(ignored, logits=logits, targets=targets)
    targets = targets.to(logits.dtype)
    loss, _ = cross_entropy(logits, targets, ignored)
    if alpha is not None:
        loss = loss * _alpha_t(alpha, targets)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def focal_loss(
    logits: Float[Tensor, "*shape"],
    targets: Shaped[Tensor, "*shape"],
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Focal loss of binary (sigmoid) scores: cross-entropy that fades where the score is already right.

    ``FL = -alpha_t (1 - p_t)^gamma log(p_t)`` with ``p_t = p`` and ``alpha_t = alpha`` for a positive, ``1 - p`` and ``1 - alpha`` for a
    negative. ``gamma = 0`` without alpha is the cross-entropy.

    Args:
        logits: any shape, before the sigmoid.
        targets: the same shape, 0 or 1; for values between them see ``quality_focal_loss``.
            -1 is ignored: no loss, no gradient, not counted in the mean.
        alpha: weight of the positives, in [0, 1]; ``None`` weighs both sides by 1.
        gamma: how fast easy examples fade, >= 0.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by, usually the number of positive anchors.

    Returns:
        A scalar in [0, inf), or the shape of ``logits`` without reduction.

    Raises:
        ValueError: shapes that differ, alpha outside [0, 1], a negative gamma; on a CPU, other targets.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. (5).

    Example:
        >>> focal_loss(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]), reduction="none")
        tensor([0.0433, 0.1300])
    """
    check_same_shape("logits", logits, "targets", targets)
    check_not_negative("gamma", gamma)
    logits, ignored = upcast(logits), find_ignored(targets)
    check_finite(ignored, logits=logits)
    targets = targets.to(logits.dtype)
    loss = focal_cross_entropy(error_margin(logits, targets, ignored), gamma)
    if alpha is not None:
        loss = loss * _alpha_t(alpha, targets)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def softmax_cross_entropy_loss(
    logits: Float[Tensor, "n c"],
    targets: Int[Tensor, " n"],
    *,
    class_weights: Float[Tensor, " c"] | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Cross-entropy of softmax scores, one class an example.

    ``CE = -a_y log(p_y)`` with ``p = softmax(logits)`` and y the true class. The mean divides by the number of examples, where torch's own
    divides by the sum of the class weights.

    Args:
        logits: (n, C) before the softmax.
        targets: (n,) int64 in [0, C). -1 is ignored: no loss, no gradient, not counted in the mean.
        class_weights: (C,) the ``a`` of each class, 1 by default.
        weight: (n,), multiplies the loss of each example.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or (n,) without reduction.

    Raises:
        ValueError: shapes that do not fit; on a CPU, other targets.

    Source:
        Girshick, Fast R-CNN, ICCV 2015, Sec. 2.3 (``L_cls``).

    Example:
        >>> softmax_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([2]))
        tensor(1.3863)
    """
    check_classes(logits, targets, class_weights)
    ignored = find_ignored(targets, largest=logits.shape[1] - 1)
    check_finite_classes(logits, targets, ignored)
    logits, targets = set_aside(upcast(logits), ignored), set_aside(targets, ignored)
    loss = set_aside(softmax_cross_entropy(logits, targets), ignored)
    if class_weights is not None:
        loss = loss * class_weights.to(loss.dtype)[targets]
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def softmax_focal_loss(
    logits: Float[Tensor, "n c"],
    targets: Int[Tensor, " n"],
    *,
    gamma: float = 2.0,
    class_weights: Float[Tensor, " c"] | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Focal loss of softmax scores, one class an example.

    ``FL = -a_y (1 - p_y)^gamma log(p_y)`` with ``p = softmax(logits)`` and y the true class. ``gamma = 0`` is the cross-entropy.

    Args:
        logits: (n, C) before the softmax, C >= 2.
        targets: (n,) int64 in [0, C). -1 is ignored: no loss, no gradient, not counted in the mean.
        gamma: how fast easy examples fade, >= 0.
        class_weights: (C,) the ``a`` of each class, 1 by default.
        weight: (n,), multiplies the loss of each example.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or (n,) without reduction.

    Raises:
        ValueError: shapes that do not fit, a negative gamma; on a CPU, other targets.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. (5), in the multi-class form of its Sec. 3.

    Example:
        >>> softmax_focal_loss(torch.zeros(1, 4), torch.tensor([2]))
        tensor(0.7798)
    """
    check_classes(logits, targets, class_weights)
    check_not_negative("gamma", gamma)
    if logits.shape[1] < 2:
        raise ValueError(f"logits: (n, C) with C >= 2 expected, got {tuple(logits.shape)}")
    # p_y is the sigmoid of the true logit less the log-sum-exp of the others
    ignored = find_ignored(targets, largest=logits.shape[1] - 1)
    check_finite_classes(logits, targets, ignored)
    logits, targets = set_aside(upcast(logits), ignored), set_aside(targets, ignored)
    index = targets.unsqueeze(1)
    others = logits.scatter(1, index, -math.inf).logsumexp(1)
    loss = set_aside(focal_cross_entropy(others - logits.gather(1, index).squeeze(1), gamma), ignored)
    if class_weights is not None:
        loss = loss * class_weights.to(loss.dtype)[targets]
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def dr_loss(
    logits: Float[Tensor, "*shape"],
    targets: Shaped[Tensor, "*shape"],
    *,
    pos_lambda: float = 1.0,
    neg_lambda: float = 0.1 / math.log(3.5),
    smoothness: float = 6.0,
    tau: float = 4.0,
    margin: float = 0.5,
) -> Float[Tensor, ""]:
    """DR loss: ranks the distribution of the positives of an image above that of its negatives.

    ``L = tau / L log(1 + exp(L (P- - P+ + margin)))`` with ``P+ = sum_i q_i p_i`` over the positives, ``q = softmax(-p / pos_lambda)``, and
    ``P-`` over the negatives with ``q = softmax(p / neg_lambda)``: hard examples count most. Without positives ``P+`` is 1, without
    negatives ``P-`` is 0. L is called ``smoothness`` here.

    Args:
        logits: any shape, before the sigmoid: all anchors and classes of *one* image.
        targets: the same shape: 1 positive, 0 negative. -1 is ignored: no loss, no gradient.
        pos_lambda: how evenly the positives count, > 0.
        neg_lambda: how evenly the negatives count, > 0.
        smoothness: sharpness of the softened hinge, > 0.
        tau: factor of the loss.
        margin: by how much the positives must lead, in probability.

    Returns:
        A scalar, > 0 even where all scores are right: 0.032 with the defaults. Empty input gives 0.

    Raises:
        ValueError: shapes that differ, a lambda or smoothness that is not positive, a negative tau; on a CPU, other targets.

    Source:
        Qian et al., DR Loss: Improving Object Detection by Distributional Ranking, CVPR 2020, Sec. 3; the form and the defaults of the
        authors' code.

    Example:
        >>> dr_loss(torch.tensor([2.0, -2.0, 0.0]), torch.tensor([1, 0, -1]))
        tensor(0.1261)
    """
    check_same_shape("logits", logits, "targets", targets)
    for name, value in (("pos_lambda", pos_lambda), ("neg_lambda", neg_lambda), ("smoothness", smoothness)):
        check_positive(name, value)
    check_not_negative("tau", tau)
    check_number("margin", margin)
    ignored = find_ignored(targets)
    check_finite(ignored, logits=logits)
    logits = set_aside(upcast(logits), ignored)
    if not logits.numel():
        return logits.sum()
    probability = logits.sigmoid()
    positive = _expectation(probability, targets == 1, -1 / pos_lambda, if_none=1.0)
    negative = _expectation(probability, targets == 0, 1 / neg_lambda, if_none=0.0)
    return tau / smoothness * softplus(smoothness * (negative - positive + margin))


def _alpha_t(alpha: float, targets: Tensor) -> Tensor:
    """``alpha`` where the target is 1, ``1 - alpha`` where it is 0."""
    check_share("alpha", alpha)
    return 1 - alpha + (2 * alpha - 1) * targets


def _expectation(probability: Tensor, mask: Tensor, sharpness: float, *, if_none: float) -> Tensor:
    """Mean of the masked probabilities under ``softmax(sharpness * probability)``; no indexing, which would wait for the accelerator."""
    some = mask.any()
    exponent = torch.where(mask | ~some, sharpness * probability, -math.inf)
    share = exponent.flatten().softmax(0).view_as(probability)
    return torch.where(some, (share * probability).sum(), if_none)


def check_classes(logits: Tensor, targets: Tensor, class_weights: Tensor | None, name: str = "class_weights") -> None:
    """The shapes of a loss over (n, C) logits and (n,) classes, with a number of this name for each class."""
    check_tensors(logits=logits, targets=targets)
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(f"logits, targets: (n, C) and (n,) expected, got {tuple(logits.shape)} and {tuple(targets.shape)}")
    if targets.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"targets: int64 expected, got {targets.dtype}")
    if class_weights is not None:
        check_tensors(**{name: class_weights})
        if class_weights.shape != logits.shape[1:]:
            raise ValueError(f"{name}: one for each of {logits.shape[1]} classes expected, got shape {tuple(class_weights.shape)}")
