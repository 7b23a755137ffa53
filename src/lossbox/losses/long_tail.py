"""Losses for data sets with few frequent and many rare classes, which keep the many from drowning the few."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from ..boxes._dtype import upcast
from ._checks import check_finite, check_finite_classes, check_not_negative, check_number, check_tensors
from ._logspace import cross_entropy, softmax_cross_entropy
from ._reduce import Reduction, check_same_shape, find_ignored, reduce_loss, set_aside
from .classification import check_classes


def seesaw_loss(
    logits: Float[Tensor, "n c"],
    targets: Int[Tensor, " n"],
    counts: Float[Tensor, " c"],
    *,
    p: float = 0.8,
    q: float = 2.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Seesaw loss: softmax cross-entropy in which frequent classes push rare ones down less, unless they are mistaken for them.

    ``L = -log(e^z_i / (e^z_i + sum over j != i of M_ij C_ij e^z_j))`` with i the true class, ``M_ij = min(1, N_j / N_i)^p`` (mitigation)
    and ``C_ij = max(1, s_j / s_i)^q`` (compensation), s the softmax of the logits, which takes no gradient in C.

    Args:
        logits: (n, C) before the softmax.
        targets: (n,) int64 in [0, C). -1 is ignored: no loss, no gradient, not counted in the mean.
        counts: (C,) N: samples of each class in the training set, or seen so far; below 1 counts as 1.
        p: how much a rarer class is spared, >= 0.
        q: how much a mistaken class is punished, >= 0.
        weight: (n,), multiplies the loss of each example.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or (n,) without reduction.

    Raises:
        ValueError: shapes that do not fit, a negative p or q; on a CPU, other targets.

    Source:
        Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, CVPR 2021, Eqs. (3)-(6). mmdetection holds ``s_i`` above 0.01.

    Example:
        >>> seesaw_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor([100.0, 1.0]))
        tensor(0.0092)
    """
    check_classes(logits, targets, counts, "counts")
    check_not_negative("p", p)
    check_not_negative("q", q)
    ignored = find_ignored(targets, largest=logits.shape[1] - 1)
    check_finite_classes(logits, targets, ignored)
    logits, targets = set_aside(upcast(logits), ignored), set_aside(targets, ignored)
    frequency = counts.to(logits.dtype).clamp(min=1).log()
    index = targets[:, None]
    seen = logits.detach()
    mitigation = p * (frequency - frequency[targets][:, None]).clamp(max=0)
    compensation = q * (seen - seen.gather(1, index)).clamp(min=0)
    # both are 0 at the true class
    loss = set_aside(softmax_cross_entropy(logits + mitigation + compensation, targets), ignored)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def equalization_loss_v2(
    logits: Float[Tensor, "*shape c"],
    targets: Shaped[Tensor, "*shape c"],
    gradient_ratio: Float[Tensor, " c"],
    *,
    alpha: float = 4.0,
    gamma: float = 12.0,
    mu: float = 0.8,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Equalization loss v2 (EQL v2): cross-entropy that weighs both sides of each class by the gradients that it has seen.

    ``L = w CE`` with ``w = f(g)`` for a negative and ``1 + alpha (1 - f(g))`` for a positive of a class with ratio g of summed positive to
    negative gradients, ``f(g) = 1 / (1 + exp(-gamma (g - mu)))``.

    Args:
        logits: (..., C), before the sigmoid.
        targets: the same shape, 0 or 1. -1 is ignored: no loss, no gradient, not counted in the mean.
        gradient_ratio: (C,) g >= 0; infinite for a class without negatives yet. ``RunningGradients`` keeps it.
        alpha: how much more a positive of a class counts whose negatives prevail, >= 0.
        gamma: how sharply the weights change.
        mu: the ratio at which f is 1/2.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or the shape of ``logits`` without reduction.

    Raises:
        ValueError: shapes that do not fit, a negative alpha or gamma; on a CPU, other targets.

    Source:
        Tan et al., Equalization Loss v2, CVPR 2021, Eqs. (5)-(8).

    Example:
        >>> equalization_loss_v2(torch.zeros(2, 1), torch.tensor([[1], [0]]), torch.tensor([0.8]), reduction="none").T
        tensor([[2.0794, 0.3466]])
    """
    check_same_shape("logits", logits, "targets", targets)
    check_tensors(gradient_ratio=gradient_ratio)
    check_not_negative("alpha", alpha)
    check_not_negative("gamma", gamma)
    check_number("mu", mu)
    check_per_class("gradient_ratio", gradient_ratio, logits)
    logits, ignored = upcast(logits), find_ignored(targets)
    check_finite(ignored, logits=logits)
    targets = targets.to(logits.dtype)
    positive, negative = equalized_weights(gradient_ratio.detach().to(logits.dtype), alpha=alpha, gamma=gamma, mu=mu)
    loss = cross_entropy(logits, targets, ignored)[0] * torch.where(targets == 1, positive, negative)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def federated_loss(
    logits: Float[Tensor, "*shape c"],
    targets: Shaped[Tensor, "*shape c"],
    classes: Bool[Tensor, " c"],
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Federated loss: cross-entropy over some classes only, since an image is not labeled for all of a long list.

    ``L = CE`` for the classes that take part, 0 for the others, which are still counted in the mean.

    Args:
        logits: (..., C), before the sigmoid.
        targets: the same shape, 0 or 1. -1 is ignored: no loss, no gradient, not counted in the mean.
        classes: (C,) bool, which take part: those of ``sample_classes``.
        weight: multiplies the loss of each element.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or the shape of ``logits`` without reduction.

    Raises:
        ValueError: shapes that do not fit; on a CPU, other targets.

    Source:
        Zhou et al., Probabilistic Two-Stage Detection, arXiv:2103.07461, the section on LVIS.

    Example:
        >>> federated_loss(torch.zeros(1, 2), torch.tensor([[1, 0]]), torch.tensor([True, False]), reduction="none")
        tensor([[0.6931, 0.0000]])
    """
    check_same_shape("logits", logits, "targets", targets)
    check_tensors(classes=classes)
    check_per_class("classes", classes, logits)
    logits, ignored = upcast(logits), find_ignored(targets)
    check_finite(ignored, logits=logits)
    loss = torch.where(classes == 1, cross_entropy(logits, targets.to(logits.dtype), ignored)[0], 0.0)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def sample_classes(
    present: Bool[Tensor, " c"],
    counts: Float[Tensor, " c"],
    *,
    number: int = 50,
    power: float = 0.5,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, " c"]:
    """The classes of a federated loss: those that are present in the batch, filled up at random to ``number``.

    A class that is not present is drawn with a probability in proportion to ``counts^power``, without replacement.

    Args:
        present: (C,) bool: which classes have a box in the batch.
        counts: (C,) images of each class in the training set, >= 0; a class of 0 is never drawn.
        number: of classes that take part; all that are present where these are more.
        power: how much frequent classes are preferred.
        generator: of the random numbers; torch's own by default.

    Returns:
        (C,) bool.

    Raises:
        ValueError: shapes that differ, a ``present`` that is not bool, a negative number.

    Source:
        Zhou et al., Probabilistic Two-Stage Detection, arXiv:2103.07461, the section on LVIS: 50 classes, square root of the frequency.

    Example:
        >>> sample_classes(torch.tensor([False, True, False]), torch.tensor([5.0, 2.0, 0.0]), number=2)
        tensor([ True,  True, False])
    """
    check_same_shape("present", present, "counts", counts)
    if present.dtype != torch.bool:
        raise ValueError(f"present: booleans expected, got {present.dtype}")
    check_not_negative("number", number)
    chance = torch.where(present, 0.0, counts.float().clamp(min=0) ** power * (counts > 0))
    # the largest of u^(1 / chance) are a draw without replacement (Efraimidis and Spirakis, 2006)
    drawn = torch.rand(len(counts), generator=generator, device=counts.device)
    key = torch.where(chance > 0, torch.log(drawn) / chance.clamp(min=torch.finfo(torch.float32).tiny), -torch.inf)
    place = key.argsort(descending=True).argsort()
    return present | ((place < number - present.sum()) & (chance > 0))


class RunningGradients(nn.Module):
    """The summed gradients of each class so far, for ``equalization_loss_v2``; in a buffer, so that a checkpoint keeps them.

    In distributed training each process sums its own.

    Args:
        num_classes: C.

    Source:
        Tan et al., Equalization Loss v2, CVPR 2021, Eqs. (5) and (6).

    Example:
        >>> gradients = RunningGradients(1)
        >>> gradients.add(torch.zeros(3, 1), torch.tensor([[1.0], [0.0], [0.0]]), 1.0, 0.5)
        >>> gradients.ratio()
        tensor([1.])
    """

    sums: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(2, num_classes))

    def ratio(self) -> Float[Tensor, " c"]:
        """Of the positive to the negative gradients; infinite for a class without negatives yet."""
        positive, negative = self.sums
        return torch.where(negative > 0, positive / torch.where(negative > 0, negative, 1.0), torch.inf)

    @torch.no_grad()
    def add(self, logits: Tensor, targets: Tensor, positive: Tensor | float, negative: Tensor | float) -> None:
        """Adds those of a batch, with the weights (C,) that its positives and negatives had; -1 is ignored, and a score that is NaN."""
        if logits.shape[-1:] != self.sums.shape[1:]:
            raise ValueError(
                f"num_classes: {logits.shape[-1]} expected, the last dimension of logits {tuple(logits.shape)}, got {self.sums.shape[1]}"
            )
        error = (torch.sigmoid(upcast(logits)) - targets).abs()
        error = torch.where(error.isnan(), 0.0, error)  # one step that diverged, and the sums would stay NaN
        sides = [torch.where(targets == side, error * weight, 0.0) for side, weight in ((1, positive), (0, negative))]
        self.sums += torch.stack([side.flatten(0, -2).sum(0) for side in sides]).to(self.sums.dtype)


def equalized_weights(
    gradient_ratio: Float[Tensor, " c"], *, alpha: float, gamma: float, mu: float
) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """The weights of the positives and of the negatives of each class in ``equalization_loss_v2``.

    Example:
        >>> equalized_weights(torch.tensor([0.8]), alpha=4.0, gamma=12.0, mu=0.8)
        (tensor([3.]), tensor([0.5000]))
    """
    share = torch.sigmoid(gamma * (gradient_ratio - mu))
    return 1 + alpha * (1 - share), share


def check_per_class(name: str, values: Tensor, logits: Tensor) -> None:
    """Raises ValueError unless there is one of the values for each class."""
    if not logits.ndim or values.shape != logits.shape[-1:]:
        raise ValueError(
            f"{name}: one for each class expected, the last dimension of logits {tuple(logits.shape)}, got {tuple(values.shape)}"
        )
