"""Classification losses whose target is the quality of the box, so that the score says how good the detection is.

The quality, usually the IoU of the predicted with the true box, is a number: it takes no gradient in any of them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..boxes._dtype import upcast
from ._checks import check_finite, check_not_negative, check_share, check_tensors
from ._logspace import cross_entropy, power, softplus
from ._reduce import Reduction, check_same_shape, find_ignored, reduce_loss, set_aside


def quality_focal_loss(
    logits: Float[Tensor, "*shape"],
    quality: Float[Tensor, "*shape"],
    *,
    beta: float = 2.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Quality focal loss (QFL): cross-entropy against a quality in [0, 1] that fades where the score is near it.

    ``QFL = -|q - p|^beta (q log(p) + (1 - q) log(1 - p))``, for every beta >= 0.

    Args:
        logits: any shape, before the sigmoid.
        quality: the same shape: the IoU of a positive at its true class, 0 everywhere else.
            -1 is ignored: no loss, no gradient, not counted in the mean.
        beta: how fast easy examples fade, >= 0; 0 is the cross-entropy.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by, usually the number of positive anchors.

    Returns:
        A scalar in [0, inf), or the shape of ``logits`` without reduction.

    Raises:
        ValueError: shapes that differ, a negative beta; on a CPU, a quality that is neither -1 nor in [0, 1].

    Source:
        Li et al., Generalized Focal Loss, NeurIPS 2020, Eq. (2).

    Example:
        >>> quality_focal_loss(torch.tensor([0.0, 0.0]), torch.tensor([0.9, 0.0]), reduction="none")
        tensor([0.1109, 0.1733])
    """
    check_not_negative("beta", beta)
    logits, quality = _prepare(logits, quality)
    ignored = find_ignored(quality, "quality", soft=True)
    check_finite(ignored, logits=logits, quality=quality)
    loss, error = cross_entropy(logits, quality, ignored)
    loss = loss * power(error.abs(), beta)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def varifocal_loss(
    logits: Float[Tensor, "*shape"],
    quality: Float[Tensor, "*shape"],
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
    detach_weight: bool = False,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Varifocal loss (VFL): positives are weighted by their quality, only negatives fade.

    ``VFL = -q (q log(p) + (1 - q) log(1 - p))`` where ``q > 0``, ``-alpha p^gamma log(1 - p)`` where ``q = 0``: a positive of quality 0 is
    treated as a negative.

    Args:
        logits: any shape, before the sigmoid.
        quality: the same shape: the IoU of a positive at its true class, 0 everywhere else.
            -1 is ignored: no loss, no gradient, not counted in the mean.
        alpha: weight of the negatives, >= 0.
        gamma: how fast easy negatives fade, >= 0.
        detach_weight: let no gradient through ``p^gamma``, as the DETR family does.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by, usually the sum of the qualities.

    Returns:
        A scalar in [0, inf), or the shape of ``logits`` without reduction.

    Raises:
        ValueError: shapes that differ, a negative alpha or gamma; on a CPU, a quality that is neither -1 nor in [0, 1].

    Source:
        Zhang et al., VarifocalNet, CVPR 2021, Eq. (2).

    Example:
        >>> varifocal_loss(torch.tensor([0.0, 0.0]), torch.tensor([0.9, 0.0]), reduction="none")
        tensor([0.6238, 0.1300])
    """
    check_not_negative("alpha", alpha)
    check_not_negative("gamma", gamma)
    logits, quality = _prepare(logits, quality)
    ignored = find_ignored(quality, "quality", soft=True)
    check_finite(ignored, logits=logits, quality=quality)
    logits = set_aside(logits, ignored)
    factor = torch.where(quality > 0, quality, alpha * _score_power(logits, gamma, detach_weight))
    loss = factor * cross_entropy(logits, quality, ignored)[0]
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def matchability_aware_loss(
    logits: Float[Tensor, "*shape"],
    targets: Shaped[Tensor, "*shape"],
    quality: Float[Tensor, "*shape"],
    *,
    gamma: float = 1.5,
    detach_weight: bool = True,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Matchability-aware loss (MAL): varifocal loss without its weight of the positives, so that poor matches learn too.

    ``MAL = -q^gamma log(p) - (1 - q^gamma) log(1 - p)`` for a positive, of quality 0 too, and ``-p^gamma log(1 - p)`` for a negative.

    Args:
        logits: any shape, before the sigmoid.
        targets: the same shape, 0 or 1. -1 is ignored: no loss, no gradient, not counted in the mean.
        quality: the same shape: the IoU of each positive; looked at for positives only.
        gamma: >= 0.
        detach_weight: let no gradient through ``p^gamma``, as in the authors' code.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by, usually the number of true boxes.

    Returns:
        A scalar in [0, inf), or the shape of ``logits`` without reduction.

    Raises:
        ValueError: shapes that differ, a negative gamma; on a CPU, other targets.

    Source:
        Huang et al., DEIM: DETR with Improved Matching, CVPR 2025 (arXiv:2412.04234), Eq. (3).

    Example:
        >>> matchability_aware_loss(torch.zeros(2), torch.tensor([1, 0]), torch.tensor([0.5, 0.0]), reduction="none")
        tensor([0.6931, 0.2451])
    """
    check_same_shape("logits", logits, "targets", targets)
    check_not_negative("gamma", gamma)
    logits, quality = _prepare(logits, quality)
    ignored = find_ignored(targets)
    check_finite(ignored, logits=logits)
    check_finite(targets != 1, quality=quality)
    logits, quality = set_aside(logits, ignored), set_aside(quality, ignored)
    positive = targets == 1
    soft_target = torch.where(positive, power(quality, gamma), 0.0)
    factor = torch.where(positive, 1.0, _score_power(logits, gamma, detach_weight))
    loss = factor * cross_entropy(logits, soft_target, ignored)[0]
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def ia_bce_loss(
    logits: Float[Tensor, "*shape"],
    targets: Shaped[Tensor, "*shape"],
    quality: Float[Tensor, "*shape"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """IoU-aware binary cross-entropy (IA-BCE): the target of a positive is a mean of its score and its IoU.

    ``-t log(p) - (1 - t) log(1 - p)`` with ``t = p^alpha q^(1 - alpha)``, which takes no gradient, for a positive, and
    ``-p^gamma log(1 - p)`` for a negative. The authors' code holds t above 0.01; the formula does not, and nor does this.

    Args:
        logits: any shape, before the sigmoid.
        targets: the same shape, 0 or 1. -1 is ignored: no loss, no gradient, not counted in the mean.
        quality: the same shape: the IoU of each positive; looked at for positives only.
        alpha: share of the score in the target, in [0, 1].
        gamma: how fast easy negatives fade, >= 0.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by, usually the number of true boxes.

    Returns:
        A scalar in [0, inf), or the shape of ``logits`` without reduction.

    Raises:
        ValueError: shapes that differ, alpha outside [0, 1], a negative gamma; on a CPU, other targets.

    Source:
        Cai et al., Align-DETR: Improving DETR with Simple IoU-aware BCE loss, arXiv:2304.07527v1, the section on the IoU-aware
        classification loss.

    Example:
        >>> ia_bce_loss(torch.zeros(2), torch.tensor([1, 0]), torch.tensor([0.9, 0.0]), reduction="none")
        tensor([0.6931, 0.1733])
    """
    check_same_shape("logits", logits, "targets", targets)
    check_share("alpha", alpha)
    check_not_negative("gamma", gamma)
    logits, quality = _prepare(logits, quality)
    ignored = find_ignored(targets)
    check_finite(ignored, logits=logits)
    check_finite(targets != 1, quality=quality)
    logits, quality = set_aside(logits, ignored), set_aside(quality, ignored)
    positive = targets == 1
    soft_target = torch.where(positive, _score_power(logits, alpha, True) * power(quality, 1 - alpha), 0.0)
    factor = torch.where(positive, 1.0, _score_power(logits, gamma, False))
    loss = factor * cross_entropy(logits, soft_target, ignored)[0]
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def giou_aware_loss(
    logits: Float[Tensor, "*shape"],
    targets: Shaped[Tensor, "*shape"],
    quality: Float[Tensor, "*shape"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """GIoU-aware classification loss of Rank-DETR: a focal loss whose positives aim at how well they match.

    ``L = alpha |q - p|^gamma (-q log(p) - (1 - q) log(1 - p))`` for a positive, ``-(1 - alpha) p^gamma log(1 - p)`` for a negative. In the
    paper ``q = (GIoU + 1) / 2``; the objectives here pass the IoU.

    Args:
        logits: any shape, before the sigmoid.
        targets: the same shape, 0 or 1. -1 is ignored: no loss, no gradient, not counted in the mean.
        quality: the same shape, in [0, 1]: that of each positive; looked at for positives only.
        alpha: weight of the positives, in [0, 1].
        gamma: how fast easy examples fade, >= 0.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by, usually the number of true boxes.

    Returns:
        A scalar in [0, inf), or the shape of ``logits`` without reduction.

    Raises:
        ValueError: shapes that differ, alpha outside [0, 1], a negative gamma; on a CPU, other targets.

    Source:
        Pu et al., Rank-DETR for High Quality Object Detection, NeurIPS 2023 (arXiv:2310.08854), the section on the GIoU-aware loss; the
        weight alpha is that of the authors' code.

    Example:
        >>> giou_aware_loss(torch.zeros(2), torch.tensor([1, 0]), torch.tensor([0.9, 0.0]), reduction="none")
        tensor([0.0277, 0.1300])
    """
    check_same_shape("logits", logits, "targets", targets)
    check_share("alpha", alpha)
    check_not_negative("gamma", gamma)
    logits, quality = _prepare(logits, quality)
    ignored = find_ignored(targets)
    check_finite(ignored, logits=logits)
    check_finite(targets != 1, quality=quality)
    positive = targets == 1
    soft_target = torch.where(positive, set_aside(quality, ignored), 0.0)
    loss, error = cross_entropy(logits, soft_target, ignored)
    loss = loss * power(error.abs(), gamma) * torch.where(positive, alpha, 1 - alpha)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def correlation_loss(logits: Float[Tensor, " p"], quality: Float[Tensor, " p"]) -> Float[Tensor, ""]:
    """Correlation loss, concordance form: the scores of the positives should agree with the IoUs of their boxes.

    ``L = 1 - 2 cov(s, q) / (var(s) + var(q) + (mean(s) - mean(q))^2)`` with ``s = sigmoid(logits)``, moments over the positives: one minus
    Lin's concordance coefficient. It is added to the other losses, with a weight of its own.

    Args:
        logits: (p,) of the positives, at their true class, before the sigmoid.
        quality: (p,) IoU of each positive.

    Returns:
        A scalar in [0, 2], 0 where scores and IoUs are the same; 1 without gradient where neither varies, and 0 with a live graph for fewer
        than two positives, which have no correlation.

    Raises:
        ValueError: shapes that differ, or are not (p,).

    Source:
        Kahraman et al., Correlation Loss: Enforcing Correlation between Classification and Localization, AAAI 2023, the section on the
        loss; Lin, A Concordance Correlation Coefficient to Evaluate Reproducibility, Biometrics 1989.

    Example:
        >>> correlation_loss(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.5, 0.7, 0.9]))
        tensor(0.0087)
    """
    check_tensors(logits=logits, quality=quality)
    if logits.ndim != 1:
        raise ValueError(f"logits: (p,) expected, got {tuple(logits.shape)}")
    logits, quality = _prepare(logits, quality)
    check_finite(logits=logits, quality=quality)
    if len(logits) < 2:
        return logits.sum() * 0
    score = logits.sigmoid()
    score_mean, quality_mean = score.mean(), quality.mean()
    score_off, quality_off = score - score_mean, quality - quality_mean
    spread = score_off.square().mean() + quality_off.square().mean() + (score_mean - quality_mean).square()
    covariance = (score_off * quality_off).mean()
    return 1 - 2 * covariance / torch.where(spread == 0, 1.0, spread)


def _prepare(logits: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one dtype, the quality without a gradient."""
    check_same_shape("logits", logits, "quality", quality)
    logits = upcast(logits)
    return logits, quality.detach().to(logits.dtype)


def _score_power(logits: Tensor, exponent: float, detach: bool) -> Tensor:
    """``p^exponent`` in log-space, whose gradient is finite where p is 0."""
    if detach:
        logits = logits.detach()
    return torch.exp(exponent * (logits - softplus(logits)))
