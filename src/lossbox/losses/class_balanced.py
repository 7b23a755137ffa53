"""Class-balanced losses: a class of many samples counts less for each of them, by the effective number of its samples.

The weights are computed once, from the counts of the training set; the losses take them as ``class_weights``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..boxes._dtype import upcast
from ._checks import check_finite, check_not_negative
from ._logspace import error_margin, focal_cross_entropy
from ._reduce import Reduction, find_ignored, reduce_loss, set_aside
from .classification import check_classes, softmax_cross_entropy_loss


def class_balanced_weights(counts: Tensor | Sequence[float], *, beta: float = 0.999, normalize: bool = True) -> Float[Tensor, " c"]:
    """Weight of each class: one over the effective number of its samples.

    ``w_y = (1 - beta) / (1 - beta^n_y)``, by ``expm1`` and ``log``, so that beta may be as near to 1 as 1 - 1e-12.

    Args:
        counts: (C,) samples of each class in the training set.
        beta: in [0, 1); 0 weighs all classes by 1, near 1 by one over their count.
        normalize: scale the weights so that they sum to C.

    Returns:
        (C,) > 0, in the dtype of floating-point counts, else float32.

    Raises:
        ValueError: a class without samples (it is named), beta outside [0, 1).

    Source:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, Eqs. (2) and (6).

    Example:
        >>> class_balanced_weights([10, 1000], beta=0.99)
        tensor([1.8254, 0.1746])
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta: a number in [0, 1) expected, got {beta}")
    as_passed = torch.as_tensor(counts)
    count = as_passed.double()
    if count.ndim != 1:
        raise ValueError(f"counts: (C,) expected, got shape {tuple(count.shape)}")
    empty = (~(count > 0)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"counts: at least one sample of each class expected, got none of class {', '.join(map(str, empty))}")
    weights = torch.ones_like(count) if beta == 0 else (1 - beta) / -torch.expm1(count * math.log(beta))
    if normalize:
        weights = weights * (len(weights) / weights.sum())
    return weights.to(as_passed.dtype if as_passed.is_floating_point() else torch.float32)


def class_balanced_softmax_loss(
    logits: Float[Tensor, "n c"],
    targets: Int[Tensor, " n"],
    class_weights: Float[Tensor, " c"],
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Class-balanced softmax cross-entropy.

    ``CB = -w_y log(p_y)`` with ``p = softmax(logits)``. The mean divides by the number of examples, not by the sum of their weights.

    Args:
        logits: (n, C) before the softmax.
        targets: (n,) int64 in [0, C). -1 is ignored: no loss, no gradient, not counted in the mean.
        class_weights: (C,) of ``class_balanced_weights``.
        weight: (n,), multiplies the loss of each example.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or (n,) without reduction.

    Raises:
        ValueError: shapes that do not fit.

    Source:
        Cui et al., CVPR 2019, Eq. (8).

    Example:
        >>> class_balanced_softmax_loss(torch.zeros(1, 2), torch.tensor([0]), class_balanced_weights([10, 1000], beta=0.99))
        tensor(1.2653)
    """
    return softmax_cross_entropy_loss(
        logits, targets, class_weights=class_weights, weight=weight, reduction=reduction, normalizer=normalizer
    )


def class_balanced_sigmoid_loss(
    logits: Float[Tensor, "n c"],
    targets: Int[Tensor, " n"],
    class_weights: Float[Tensor, " c"],
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Class-balanced sigmoid cross-entropy: each class is a yes-or-no question, all weighed by the true class.

    ``CB = -w_y sum_i log(p_i^t)`` over the C classes, with ``p^t = p`` for the true class and ``1 - p`` for the others.

    Args:
        logits: (n, C) before the sigmoid.
        targets: (n,) int64 in [0, C). -1 is ignored: no loss, no gradient, not counted in the mean.
        class_weights: (C,) of ``class_balanced_weights``.
        weight: (n,), multiplies the loss of each example.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or (n,) without reduction.

    Raises:
        ValueError: shapes that do not fit.

    Source:
        Cui et al., CVPR 2019, Eq. (11).

    Example:
        >>> class_balanced_sigmoid_loss(torch.zeros(1, 2), torch.tensor([0]), class_balanced_weights([10, 1000], beta=0.99))
        tensor(2.5306)
    """
    return class_balanced_focal_loss(logits, targets, class_weights, gamma=0.0, weight=weight, reduction=reduction, normalizer=normalizer)


def class_balanced_focal_loss(
    logits: Float[Tensor, "n c"],
    targets: Int[Tensor, " n"],
    class_weights: Float[Tensor, " c"],
    *,
    gamma: float = 0.5,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Class-balanced focal loss: each class is a yes-or-no question, all weighed by the true class.

    ``CB = -w_y sum_i (1 - p_i^t)^gamma log(p_i^t)`` over the C classes, with ``p^t = p`` for the true class and ``1 - p`` for the others.

    Args:
        logits: (n, C) before the sigmoid.
        targets: (n,) int64 in [0, C). -1 is ignored: no loss, no gradient, not counted in the mean.
        class_weights: (C,) of ``class_balanced_weights``.
        gamma: how fast easy examples fade, >= 0.
        weight: (n,), multiplies the loss of each example.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or (n,) without reduction.

    Raises:
        ValueError: shapes that do not fit, a negative gamma.

    Source:
        Cui et al., CVPR 2019, Eq. (13).

    Example:
        >>> class_balanced_focal_loss(torch.zeros(1, 2), torch.tensor([0]), class_balanced_weights([10, 1000], beta=0.99))
        tensor(1.7894)
    """
    check_classes(logits, targets, class_weights)
    check_not_negative("gamma", gamma)
    ignored = find_ignored(targets, largest=logits.shape[1] - 1)
    check_finite(ignored, logits=logits)
    logits, targets = set_aside(upcast(logits), ignored), set_aside(targets, ignored)
    positive = F.one_hot(targets.long(), logits.shape[1]).to(logits.dtype)
    loss = focal_cross_entropy(error_margin(logits, positive), gamma).sum(1) * class_weights.to(logits.dtype)[targets]
    loss = set_aside(loss, ignored)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)
