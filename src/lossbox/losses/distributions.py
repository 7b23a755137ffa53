"""Losses of boxes that are predicted as distributions: each side as probabilities over bins, not as one number.

All take (n, bins) logits, one row for each side of each box.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes._dtype import upcast
from ._checks import check_finite, check_positive, check_tensors
from ._reduce import Reduction, check_same_shape, find_ignored, reduce_loss, set_aside


def distribution_focal_loss(
    logits: Float[Tensor, "n bins"],
    target: Float[Tensor, " n"],
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Distribution focal loss (DFL): cross-entropy with the two bins that the target lies between, by how near they are.

    ``L = -(i + 1 - y) log(S_i) - (y - i) log(S_{i+1})`` with ``S = softmax(logits)`` and ``i = floor(y)``. Its minimum is at the
    distribution whose mean is y.

    Args:
        logits: (n, bins), bins >= 2; bin i stands for the distance i.
        target: (n,) distances y in [0, bins - 1], in the unit of the bins, usually strides.
            -1 is ignored: no loss, no gradient, not counted in the mean.
        weight: (n,), multiplies the loss of each row.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or (n,) without reduction.

    Raises:
        ValueError: shapes that do not fit; on a CPU, a target that is neither -1 nor in [0, bins - 1].

    Source:
        Li et al., Generalized Focal Loss, NeurIPS 2020, Eq. (6).

    Example:
        >>> distribution_focal_loss(torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([1.25]))
        tensor(0.6576)
    """
    _check_rows(logits, target, "target", least=2)
    ignored = find_ignored(target, "target", largest=logits.shape[1] - 1, soft=True)
    check_finite(ignored, logits=logits, target=target)
    logits, target = set_aside(upcast(logits), ignored), set_aside(target.detach(), ignored).to(upcast(logits).dtype)
    left = target.long().clamp(0, logits.shape[1] - 2)  # of a NaN too, whose loss is NaN
    loss = set_aside(_between_bins(logits, left, target - left), ignored)
    return reduce_loss(loss, weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def fine_grained_localization_loss(
    logits: Float[Tensor, "n bins"],
    offset: Float[Tensor, " n"],
    *,
    a: float = 0.5,
    c: float = 0.25,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Fine-grained localization loss (FGL) of D-FINE: distribution focal loss on bins that lie dense around 0.

    ``L = -u log(S_n) - (1 - u) log(S_{n+1})`` with ``S = softmax(logits)``, n the bin with ``W(n) <= t < W(n + 1)``, t the offset, and
    ``u = (W(n + 1) - t) / (W(n + 1) - W(n))``; W is ``refinement_bins``.

    Args:
        logits: (n, N + 1), N even and >= 4: the probabilities of the corrections W(0) to W(N) of a side.
        offset: (n,) what the side of a first guess is off by, as a share of the height or width of that guess. Beyond W(0) or W(N), the
            end of the bins is the target.
        a: half the largest correction, > 0.
        c: how dense the bins lie around 0: the smaller, the denser, > 0.
        weight: (n,), multiplies the loss of each row; in D-FINE the IoU of the box.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or (n,) without reduction.

    Raises:
        ValueError: shapes that do not fit, an odd number N, a or c that is not positive.

    Source:
        Peng et al., D-FINE, ICLR 2025 (arXiv:2410.13842), the loss named FGL in the section on fine-grained distribution refinement.

    Example:
        >>> fine_grained_localization_loss(torch.zeros(1, 33), torch.tensor([0.1]))
        tensor(3.4965)
    """
    _check_rows(logits, offset, "offset", least=5)
    check_finite(logits=logits, offset=offset)
    logits = upcast(logits)
    bins = refinement_bins(logits.shape[1] - 1, a=a, c=c).to(logits)
    offset = torch.minimum(torch.maximum(offset.detach().to(logits.dtype), bins[0]), bins[-1])
    left = (torch.searchsorted(bins, offset, right=True) - 1).clamp(0, len(bins) - 2)
    share = (offset - bins[left]) / (bins[left + 1] - bins[left])
    return reduce_loss(_between_bins(logits, left, share), weight=weight, reduction=reduction, normalizer=normalizer)


def decoupled_distillation_loss(
    logits: Float[Tensor, "n bins"],
    teacher: Float[Tensor, "n bins"],
    targets: Tensor,
    confidence: Float[Tensor, " n"],
    *,
    temperature: float = 5.0,
) -> Float[Tensor, ""]:
    """Decoupled distillation focal loss (DDF) of D-FINE: an earlier layer learns the distributions of the last one.

    ``L = T^2 (sqrt(K_m) M + sqrt(K_u) U) / (sqrt(K_m) + sqrt(K_u))`` with M the mean over the K_m rows that are matched to a true
    box, and U over the K_u others, of ``q KL(softmax(teacher / T) || softmax(logits / T))``.

    Args:
        logits: (n, bins) of an earlier layer.
        teacher: (n, bins) of the last layer; it takes no gradient.
        targets: (n,) 1 where the row is matched, else 0. -1 is ignored: no loss, no gradient.
        confidence: (n,) q: the IoU of a matched box, the score of another.
        temperature: T, > 0.

    Returns:
        A scalar in [0, inf); 0 with a live graph without rows.

    Raises:
        ValueError: shapes that do not fit, a temperature that is not positive; on a CPU, other targets.

    Source:
        Peng et al., D-FINE, ICLR 2025 (arXiv:2410.13842), the loss named DDF in the section on self-distillation; means over the rows of
        each kind, as in the authors' code.

    Example:
        >>> decoupled_distillation_loss(torch.zeros(1, 3), torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([1]), torch.tensor([0.8]))
        tensor(2.4657)
    """
    check_same_shape("logits", logits, "teacher", teacher)
    _check_rows(logits, targets, "targets", least=1)
    _check_rows(logits, confidence, "confidence", least=1)
    check_positive("temperature", temperature)
    ignored = find_ignored(targets)
    check_finite(ignored, logits=logits, teacher=teacher, confidence=confidence)
    logits, teacher = (set_aside(upcast(x), ignored) / temperature for x in (logits, teacher.detach()))
    confidence = set_aside(confidence.detach(), ignored).to(logits.dtype)
    log_p, log_q = teacher.to(logits.dtype).log_softmax(1), logits.log_softmax(1)
    divergence = confidence * (log_p.exp() * (log_p - log_q)).sum(1)
    matched, others = (targets == 1).to(logits.dtype), (targets == 0).to(logits.dtype)
    roots = matched.sum().sqrt(), others.sum().sqrt()
    # sqrt(K) times a mean over K is a sum over sqrt(K)
    parts = [(divergence * rows).sum() / root.clamp(min=1) for rows, root in zip((matched, others), roots, strict=True)]
    return temperature**2 * (parts[0] + parts[1]) / (roots[0] + roots[1]).clamp(min=1)


def refinement_bins(steps: int, *, a: float = 0.5, c: float = 0.25) -> Float[Tensor, " bins"]:
    """The corrections W(0) to W(N) that the bins of D-FINE stand for: dense around 0, as a share of the size of the box.

    ``W(0) = -2a``, ``W(n) = c - c (a/c + 1)^((N - 2n) / (N - 2))`` for ``1 <= n < N/2``,
    ``W(n) = -c + c (a/c + 1)^((2n - N) / (N - 2))`` for ``N/2 <= n < N``, ``W(N) = 2a``.

    Args:
        steps: N, even, >= 4.
        a: half the largest correction, > 0.
        c: how dense the bins lie around 0, > 0.

    Returns:
        (N + 1,) float64, rising, W(N/2) = 0.

    Raises:
        ValueError: an N that is odd or too small, a or c that is not positive.

    Source:
        Peng et al., D-FINE, ICLR 2025 (arXiv:2410.13842), the weighting function W(n).

    Example:
        >>> refinement_bins(4)
        tensor([-1.0000, -0.5000,  0.0000,  0.5000,  1.0000], dtype=torch.float64)
    """
    if steps < 4 or steps % 2:
        raise ValueError(f"logits: an odd number of bins >= 5 expected, N + 1 of an even N, got {steps + 1}")
    check_positive("a", a)
    check_positive("c", c)
    half = c * torch.expm1(torch.arange(steps // 2, dtype=torch.float64) * (2 / (steps - 2) * math.log1p(a / c)))
    end = torch.tensor([2 * a], dtype=torch.float64)
    return torch.cat([-end, -half[1:].flip(0), half, end])


def _between_bins(logits: Tensor, left: Tensor, share: Tensor) -> Tensor:
    """Cross-entropy with the bin ``left`` and the next one, which counts ``share``."""
    log_p = logits.log_softmax(1)
    low, high = log_p.gather(1, left[:, None]).squeeze(1), log_p.gather(1, left[:, None] + 1).squeeze(1)
    return -(1 - share) * low - share * high


def _check_rows(logits: Tensor, values: Tensor, name: str, *, least: int) -> None:
    check_tensors(logits=logits, **{name: values})
    if logits.ndim != 2 or logits.shape[1] < least or values.shape != logits.shape[:1]:
        raise ValueError(
            f"logits, {name}: (n, bins) with bins >= {least} and (n,) expected, got {tuple(logits.shape)} and {tuple(values.shape)}"
        )
