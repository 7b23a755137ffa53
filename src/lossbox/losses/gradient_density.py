"""Gradient harmonizing (GHM): an example counts the less, the more others of the batch have a gradient of the same size.

The size of the gradient, in [0, 1], is cut into bins; the weight of an example is ``N / (bins * number in its bin)``, with N all examples.
The number may be a running mean over steps, which the functions take as ``counts`` and ``RunningHistogram`` remembers.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ..boxes._dtype import upcast
from ._checks import check_finite, check_positive
from ._logspace import cross_entropy
from ._reduce import Reduction, check_same_shape, check_weight, find_ignored, reduce_loss


def ghm_c_loss(
    logits: Float[Tensor, "*shape"],
    targets: Shaped[Tensor, "*shape"],
    *,
    bins: int = 30,
    counts: Float[Tensor, " bins"] | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """GHM-C: binary cross-entropy harmonized by gradient density.

    ``L = 1/N sum_i beta_i CE(p_i, t_i)`` with ``beta_i = N / (bins R_i)`` and ``R_i`` the number of examples whose gradient ``g = |p - t|``
    is in the bin of ``g_i``. The weights ``beta`` take no gradient.

    Args:
        logits: any shape, before the sigmoid.
        targets: the same shape, 0 or 1. -1 is ignored: no loss, no gradient, not counted in the mean.
        bins: number of equal parts of [0, 1].
        counts: (bins,) in place of this batch's own ``R``, usually a running mean of ``ghm_c_histogram``.
        weight: multiplies the loss of each element; one of weight 0 is ignored and counted nowhere.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``; the mean is over the N examples that are not ignored.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or the shape of ``logits`` without reduction.

    Raises:
        ValueError: shapes that do not fit, fewer than one bin.

    Source:
        Li et al., Gradient Harmonized Single-stage Detector, AAAI 2019, the sections on GHM-C and on unit region approximation. The
        published code divides by the number of bins that are not empty in place of all bins.

    Example:
        Three easy examples share the weight of the hard one:

        >>> ghm_c_loss(torch.tensor([3.0, 3.0, 3.0, -3.0]), torch.ones(4), bins=2, reduction="none")
        tensor([0.0324, 0.0324, 0.0324, 6.0972])
    """
    norm, loss, ignored = _ghm_c_terms(logits, targets)
    return _harmonized(norm, loss, bins, counts, weight, reduction, normalizer, ignored)


def ghm_c_histogram(
    logits: Float[Tensor, "*shape"], targets: Shaped[Tensor, "*shape"], *, bins: int = 30, weight: Tensor | None = None
) -> Float[Tensor, " bins"]:
    """How many examples GHM-C finds in each bin of ``|sigmoid(logits) - targets|``; those of weight 0 or target -1 are not counted.

    Example:
        >>> ghm_c_histogram(torch.tensor([3.0, 3.0, 3.0, -3.0]), torch.ones(4), bins=2)
        tensor([3., 1.])
    """
    norm, _, ignored = _ghm_c_terms(logits, targets)
    return _histogram(_bin_index(norm, bins), _counted(norm, weight, ignored), bins)


def ghm_r_loss(
    input: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    *,
    mu: float = 0.02,
    bins: int = 10,
    counts: Float[Tensor, " bins"] | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """GHM-R: authentic smooth L1 harmonized by gradient density.

    ``L = 1/N sum_i beta_i ASL1(d_i)`` with ``ASL1(d) = sqrt(d^2 + mu^2) - mu``, ``beta_i = N / (bins R_i)`` and ``R_i`` the number of
    coordinates whose gradient ``|d| / sqrt(d^2 + mu^2)`` is in the bin of that of ``d_i``. The weights ``beta`` take no gradient.

    Args:
        input: predicted offsets, any shape, in units in which 0.02 is small.
        target: the same shape.
        mu: where the loss turns from a parabola to a line, > 0.
        bins: number of equal parts of [0, 1].
        counts: (bins,) in place of this batch's own ``R``, usually a running mean of ``ghm_r_histogram``.
        weight: multiplies the loss of each element; one of weight 0 is ignored and counted nowhere.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``; the mean is over the N coordinates that are not ignored.
        normalizer: what the sum is divided by.

    Returns:
        A scalar in [0, inf), or the shape of ``input`` without reduction.

    Raises:
        ValueError: shapes that do not fit, fewer than one bin, a mu that is not positive.

    Source:
        Li et al., Gradient Harmonized Single-stage Detector, AAAI 2019, the section on GHM-R, Eq. (17) for ASL1. The published code
        divides by the number of bins that are not empty in place of all bins.

    Example:
        >>> ghm_r_loss(torch.tensor([0.01, 1.0]), torch.zeros(2), reduction="none")
        tensor([0.0005, 0.1960])
    """
    norm, loss = _ghm_r_terms(input, target, mu)
    return _harmonized(norm, loss, bins, counts, weight, reduction, normalizer)


def ghm_r_histogram(
    input: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"], *, mu: float = 0.02, bins: int = 10, weight: Tensor | None = None
) -> Float[Tensor, " bins"]:
    """How many coordinates GHM-R finds in each bin of ``|d| / sqrt(d^2 + mu^2)``; those of weight 0 are not counted.

    Example:
        >>> ghm_r_histogram(torch.tensor([0.01, 1.0]), torch.zeros(2), bins=4)
        tensor([0., 1., 0., 1.])
    """
    norm, _ = _ghm_r_terms(input, target, mu)
    return _histogram(_bin_index(norm, bins), _counted(norm, weight), bins)


class RunningHistogram(nn.Module):
    """Mean of a histogram over the steps, which smooths the density of small batches.

    ``S_t = momentum S_(t-1) + (1 - momentum) R_t`` from ``S_0 = 0``, given out as ``S_t / (1 - momentum^t)``: without the correction the
    first step would have too small a density, and weights 1 / (1 - momentum) times too large. In ``eval`` mode nothing is remembered.

    Args:
        bins: number of bins, >= 1.
        momentum: in [0, 1); 0 forgets everything.

    Raises:
        ValueError: fewer than one bin, momentum outside [0, 1).

    Source:
        Li et al., Gradient Harmonized Single-stage Detector, AAAI 2019, the section on exponential moving average; the correction is ours.

    Example:
        >>> histogram = RunningHistogram(2, momentum=0.75)
        >>> histogram(torch.tensor([8.0, 4.0])), histogram(torch.tensor([0.0, 4.0]))
        (tensor([8., 4.]), tensor([3.4286, 4.0000]))
    """

    running: Tensor
    steps: Tensor

    def __init__(self, bins: int, momentum: float = 0.75) -> None:
        super().__init__()
        _check_bins(bins)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: a number in [0, 1) expected, got {momentum}")
        self.momentum = momentum
        self.register_buffer("running", torch.zeros(bins))
        self.register_buffer("steps", torch.tensor(0.0))

    @torch.no_grad()
    def forward(self, counts: Float[Tensor, " bins"]) -> Float[Tensor, " bins"]:
        """The mean that includes this step's counts."""
        running = torch.lerp(counts.to(self.running.dtype), self.running, self.momentum)
        steps = self.steps + 1
        if self.training:
            self.running.copy_(running)
            self.steps.copy_(steps)
        return running / (1 - self.momentum**steps)


def _ghm_c_terms(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    check_same_shape("logits", logits, "targets", targets)
    logits, ignored = upcast(logits), find_ignored(targets)
    check_finite(ignored, logits=logits)
    loss, error = cross_entropy(logits, targets.to(logits.dtype), ignored)
    return error.detach().abs(), loss, ignored


def _ghm_r_terms(input: Tensor, target: Tensor, mu: float) -> tuple[Tensor, Tensor]:
    check_same_shape("input", input, "target", target)
    check_positive("mu", mu)
    check_finite(input=input, target=target)
    difference = upcast(input) - upcast(target)
    root = torch.sqrt(difference.square() + mu**2)
    return (difference / root).detach().abs(), root - mu


def _harmonized(
    norm: Tensor,
    loss: Tensor,
    bins: int,
    counts: Tensor | None,
    weight: Tensor | None,
    reduction: Reduction,
    normalizer: float | Tensor | None,
    ignored: Tensor | None = None,
) -> Tensor:
    """The losses times N / (bins * count of the bin)."""
    index, counted = _bin_index(norm, bins), _counted(norm, weight, ignored)
    if counts is None:
        counts = _histogram(index, counted, bins)
    elif counts.shape != (bins,):
        raise ValueError(f"counts: shape ({bins},), one for each bin, expected, got {tuple(counts.shape)}")
    number, counts = counted.sum().to(loss.dtype), counts.to(loss.dtype)
    per_bin = number / (bins * torch.where(counts > 0, counts, torch.inf))
    if reduction == "mean" and normalizer is None:
        normalizer = number.clamp(min=1)
    return reduce_loss(loss * per_bin[index], weight=weight, reduction=reduction, normalizer=normalizer, ignored=ignored)


def _check_bins(bins: int) -> None:
    if not isinstance(bins, int) or bins < 1:
        raise ValueError(f"bins: a whole number, at least 1, expected, got {bins}")


def _bin_index(norm: Tensor, bins: int) -> Tensor:
    _check_bins(bins)
    return (norm * bins).long().clamp(0, bins - 1)


def _counted(norm: Tensor, weight: Tensor | None, ignored: Tensor | None = None) -> Tensor:
    """1 for each element that takes part, 0 for one ignored or of weight 0; integers, since float32 stops counting at 2^24."""
    counted = torch.ones_like(norm, dtype=torch.int64) if ignored is None else (~ignored).long()
    if weight is None:
        return counted
    check_weight(weight, norm)
    return counted * (weight > 0)


def _histogram(index: Tensor, counted: Tensor, bins: int) -> Tensor:
    # not bincount, which waits for the accelerator
    return counted.new_zeros(bins).index_add_(0, index.flatten(), counted.flatten()).float()
