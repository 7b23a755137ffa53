"""Losses of detectors that find objects as keypoints: corners (CornerNet, CenterNet) or centers (Objects as Points)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes._dtype import upcast
from ._checks import check_finite, check_not_negative, check_positive, check_tensors
from ._logspace import error_margin, focal_cross_entropy, power
from ._reduce import Reduction, check_same_shape, find_ignored, reduce_loss, set_aside
from .box_regression import smooth_l1_loss


def keypoint_focal_loss(
    logits: Float[Tensor, "*shape"],
    heat: Float[Tensor, "*shape"],
    *,
    alpha: float = 2.0,
    beta: float = 4.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Focal loss of keypoint heat maps: a negative near a keypoint is punished less, since a box drawn from there is nearly right.

    ``L = -(1 - p)^alpha log(p)`` where the heat y is 1, ``-(1 - y)^beta p^alpha log(1 - p)`` elsewhere.

    Args:
        logits: any shape, before the sigmoid: one heat map per class.
        heat: the same shape, in [0, 1]: 1 at each keypoint, falling off around it as a Gaussian.
            -1 is ignored: no loss, no gradient, not counted in the mean.
        alpha: how fast easy examples fade, >= 0.
        beta: how much less a negative near a keypoint counts, >= 0.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by, usually the number of objects.

    Returns:
        A scalar in [0, inf), or the shape of ``logits`` without reduction.

    Raises:
        ValueError: shapes that differ, a negative alpha or beta; on a CPU, a heat that is neither -1 nor in [0, 1].

    Source:
        Law and Deng, CornerNet, ECCV 2018, Eq. (1).

    Example:
        >>> keypoint_focal_loss(torch.zeros(3), torch.tensor([1.0, 0.5, 0.0]), reduction="none")
        tensor([0.1733, 0.0108, 0.1733])
    """
    check_same_shape("logits", logits, "heat", heat)
    check_not_negative("alpha", alpha)
    check_not_negative("beta", beta)
    logits, ignored = upcast(logits), find_ignored(heat, "heat", soft=True)
    check_finite(ignored, logits=logits, heat=heat)
    heat = heat.detach().to(logits.dtype)
    keypoint = (heat == 1).to(logits.dtype)
    away = power(set_aside(1 - heat, ignored), beta)
    loss = focal_cross_entropy(error_margin(logits, keypoint, ignored), alpha) * torch.where(heat == 1, 1.0, away)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def pull_loss(embeddings: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """Pull loss of associative embedding: the keypoints of one object should have one embedding.

    ``L = 1/n sum_i sum_k (e_ik - m_i)^2`` with ``m_i`` the mean of the embeddings of object i.

    Args:
        embeddings: (n, k), a number for each of the k keypoints of each object; k = 2 for top left and bottom right corners.

    Returns:
        A scalar in [0, inf); 0 with a live graph without objects.

    Raises:
        ValueError: another number of dimensions than two.

    Source:
        Law and Deng, CornerNet, ECCV 2018, Eq. (4); Newell et al., Associative Embedding, NeurIPS 2017, Sec. 3.2.

    Example:
        >>> pull_loss(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
        tensor(1.)
    """
    embeddings = _of_objects(embeddings)
    return (embeddings - embeddings.mean(1, keepdim=True)).square().sum() / max(len(embeddings), 1)


def push_loss(embeddings: Float[Tensor, "n k"], *, margin: float = 1.0) -> Float[Tensor, ""]:
    """Push loss of associative embedding: a hinge that keeps the embeddings of different objects apart.

    ``L = 1/(n (n - 1)) sum_i sum_{j != i} max(0, margin - |m_i - m_j|)`` with ``m_i`` the mean of the embeddings of object i.

    Args:
        embeddings: (n, k), a number for each of the k keypoints of each object of *one* image.
        margin: distance from which two objects do not push each other, > 0.

    Returns:
        A scalar in [0, margin]; 0 with a live graph for fewer than two objects.

    Raises:
        ValueError: another number of dimensions than two, a margin that is not positive.

    Source:
        Law and Deng, CornerNet, ECCV 2018, Eq. (5).

    Example:
        >>> push_loss(torch.tensor([[1.0, 3.0], [2.5, 2.5]]))
        tensor(0.5000)
    """
    check_positive("margin", margin)
    mean = _of_objects(embeddings).mean(1)
    n = len(mean)
    hinge = (margin - (mean[:, None] - mean).abs()).clamp(min=0)
    others = 1 - torch.eye(n, dtype=mean.dtype, device=mean.device)
    return (hinge * others).sum() / max(n * (n - 1), 1)


def offset_loss(
    input: Float[Tensor, "n d"],
    points: Float[Tensor, "n d"],
    *,
    stride: float = 4.0,
    beta: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Offset loss: smooth L1 of what a keypoint loses when it is rounded down to a cell of the heat map.

    ``L = sum over x and y of SmoothL1(o - (k / stride - floor(k / stride)))``.

    Args:
        input: (n, 2) predicted offsets, in cells.
        points: (n, 2) where the keypoints are, in pixels.
        stride: pixels per cell, > 0.
        beta: where smooth L1 turns straight, >= 0.
        weight: (n,), multiplies the loss of each keypoint.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or (n,) without reduction.

    Raises:
        ValueError: shapes that differ, a stride that is not positive, a negative beta.

    Source:
        Law and Deng, CornerNet, ECCV 2018, Eqs. (2) and (3).

    Example:
        >>> offset_loss(torch.tensor([[0.5, 0.25]]), torch.tensor([[10.0, 9.0]]))
        tensor(0.)
    """
    check_same_shape("input", input, "points", points)
    check_positive("stride", stride)
    check_finite(input=input, points=points)
    cells = upcast(points) / stride
    loss = smooth_l1_loss(input, (cells - cells.floor()).detach(), beta=beta, reduction="none").sum(-1)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer)


def _of_objects(embeddings: Tensor) -> Tensor:
    check_tensors(embeddings=embeddings)
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings: (n, k), a number for each of k keypoints of n objects, expected, got {tuple(embeddings.shape)}")
    check_finite(embeddings=embeddings)
    return upcast(embeddings)
