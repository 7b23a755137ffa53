"""Ranking losses in general: an error and a target error at each positive give a value, a gradient and balance.

A ranking loss ``L = 1/Z sum_{i in P} l(i)`` is piecewise constant in the scores (or nearly), so its gradient is not derived but *defined*,
by an update of the differences ``x_ij = s_j - s_i`` that would mend the ranking (Oksuz et al., NeurIPS 2020, Sec. 3):

    primary term   L_ij  = l(i) p(j|i)                        Definition 1, p a probability mass over the negatives
    update         dx_ij = -(l(i) - l*(i)) p(j|i)             l* the target error: what l would be were i ranked properly
    gradient       dL/ds_i = 1/Z (sum_j dx_ij - sum_j dx_ji)  Algorithm 1

So positive i receives ``-(l(i) - l*(i)) / Z`` and negative j ``sum_i (l(i) - l*(i)) p(j|i) / Z``; the magnitudes over positives and over
negatives sum to the same (Theorem 2), at every step. A positive that no negative outranks receives nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import _knots
from ._checks import check_ranking_input
from ._distributed import Processes, add_up, add_up_intervals, highest, join, meet
from ._reduce import upcast


@dataclass(frozen=True)
class Ranking:
    """Where each of P positives stands, in the order of ``logits[targets == 1]``. All float64, no gradients.

    ``H(x) = clamp(x / (2 delta) + 1/2, 0, 1)``, or ``1[x >= 0]`` where delta is 0. In a ranking over all ranks the P positives are those of
    all ranks, one rank's after the other's.

    Attributes:
        scores: (P,) s_i.
        true_positives: (P,) ``rank+(i) = 1 + sum_{k in P, k != i} H(s_k - s_i)``.
        false_positives: (P,) ``N_FP(i) = sum_{j in N} H(s_j - s_i)``.
    """

    scores: Float[Tensor, " p"]
    true_positives: Float[Tensor, " p"]
    false_positives: Float[Tensor, " p"]
    _own_knots: _knots.Knots
    _positives: _knots.Located
    _negatives: _knots.Located
    _processes: Processes

    @property
    def rank(self) -> Float[Tensor, " p"]:
        """(P,) ``rank+(i) + N_FP(i)``."""
        return self.true_positives + self.false_positives

    def __len__(self) -> int:
        return len(self.scores)

    def sum_above(self, values: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
        """(P,) ``sum_{k in P, k != i} H(s_k - s_i) values_k``, for values of one sign."""
        values = values.to(self.scores.dtype)
        return _sum_above(self._own_knots, _knots.weigh(self._positives, values), values)

    def join(self, values: Float[Tensor, " own"]) -> Float[Tensor, " p"]:
        """(P,) one value per positive of all ranks, from this rank's, in the order of its ``logits[targets == 1]``.

        What an error of your own needs to know of each positive goes through this. Every rank must call it, in the same order. The gradient
        that comes back is that at this rank's values, times the number of ranks. In a ranking of one process it returns what it is given.
        """
        return join(self._processes, values)


ErrorFunction = Callable[[Ranking], Tensor]
WeightFunction = Callable[[Tensor], Tensor]


def error_driven_loss(
    logits: Float[Tensor, ...],
    targets: Tensor,
    error: ErrorFunction,
    target_error: ErrorFunction | float = 0.0,
    *,
    delta: float = 1.0,
    normalizer: float | None = None,
    pmf: WeightFunction | None = None,
    value: ErrorFunction | None = None,
    global_batch: bool = False,
) -> Float[Tensor, ""]:
    """Any ranking loss, from its error and its target error at each positive.

    ``L = 1/Z sum_i l(i)``; the gradient is *defined* as ``dL/ds_i = -(l(i) - l*(i)) / Z`` and
    ``dL/ds_j = sum_i (l(i) - l*(i)) p(j|i) / Z``, it is not the derivative of the value.

    Args:
        logits: scores of any shape; float16 and bfloat16 are computed in float32.
        targets: 1 positive, 0 negative, of the shape of ``logits``. -1 is ignored: no loss, no gradient.
        error: l, a function of a ``Ranking`` of P positives that returns (P,).
        target_error: l*, likewise or a constant; at most l, and equal to it where N_FP is 0.
        delta: half the width over which the step function is smoothed, in units of the logits; 0 is the hard step, ties counted.
        normalizer: Z; the number of positives if not given, of all ranks where all are ranked.
        pmf: phi in ``p(j|i) ~ H(s_j - s_i) phi(s_j)``, a function from (N,) scores to (N,) numbers >= 0; uniform if not given, and
            ``skewed_pmf`` promotes harder negatives. A positive whose negatives all have phi = 0 receives no gradient. Over all ranks phi
            may depend on the score and on the highest of all scores, which is among those that it is given on every rank.
        value: what the loss reports instead of l, where the two differ; the gradient never sees it.
        global_batch: rank the batches of all W processes of the default group as one: |P|, N_FP and Z are theirs, and the value is
            the same on each. The gradient is W times this rank's share, so that the mean over the ranks, which
            DistributedDataParallel takes, is the gradient of the one loss. Every rank must call it, with or without positives, and weigh
            its value alike. Without a group of several ranks it changes nothing.

    Returns:
        A scalar, float32 or wider; 0 with a live graph where there are no positives, NaN where a logit that counts is NaN.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit, delta negative or not finite, an error that is not (P,).

    Source:
        Oksuz, Cam, Akbas, Kalkan: A Ranking-based, Balanced Loss Function Unifying Classification and Localisation in Object Detection,
        NeurIPS 2020, Definition 1, Eqs. (5), (7), Algorithm 1, Theorems 1 and 2.

    Example:
        The AP loss of one positive that one of two negatives outranks:

        >>> logits = torch.tensor([0.0, 2.0, -2.0], requires_grad=True)
        >>> loss = error_driven_loss(logits, torch.tensor([1, 0, 0]), lambda r: r.false_positives / r.rank)
        >>> loss.backward()
        >>> loss.item(), logits.grad
        (0.5, tensor([-0.5000,  0.5000,  0.0000]))
    """
    check_ranking_input(logits, targets, delta)
    positives = positive_index(targets)
    ranks = meet(len(positives), logits.device, global_batch)
    if not sum(ranks.counts):
        return zero_loss(logits, targets, ranks)
    ranking = rank(logits, targets, positives, delta, ranks)
    return loss_of_ranking(logits, targets, positives, ranking, error, target_error, normalizer=normalizer, pmf=pmf, value=value)


def skewed_pmf(temperature: float = 1.0) -> WeightFunction:
    """A ``pmf`` for ``error_driven_loss`` that promotes harder negatives: ``phi(s) = exp(s / temperature)``.

    Args:
        temperature: > 0, in units of the logits; the smaller, the more of the error goes to the highest negatives.

    Returns:
        A function of (N,) scores, scaled so that the largest value is 1.

    Source:
        NeurIPS 2020, Sec. 3, below Definition 1: "a skewed p can be used to promote harder examples".

    Example:
        >>> skewed_pmf(0.5)(torch.tensor([1.0, 0.0]))
        tensor([1.0000, 0.1353])
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature: must be a finite number > 0, got {temperature}")
    return lambda scores: torch.exp((scores - scores.max()) / temperature)


def positive_index(targets: Tensor) -> Tensor:
    """(P,) int64, the places of the positives in the flattened targets: the one wait for the device in a ranking loss."""
    return (targets.reshape(-1) == 1).nonzero().squeeze(1)


@torch.no_grad()
def rank(logits: Tensor, targets: Tensor, positives: Tensor, delta: float, ranks: Processes) -> Ranking:
    """Where each of P > 0 positives of the ranks stands among all their positives and negatives."""
    flat = _flat(logits)
    scores = join(ranks, flat.index_select(0, positives).to(_knots.sum_dtype(flat.device)))
    knots = _knots.place_knots(scores, delta)
    own = _knots.locate(knots, scores)
    negatives = add_up_intervals(ranks, _knots.locate(knots, flat, member=targets.reshape(-1) == 0))
    true_positives = 1 + _sum_above(knots, own, torch.ones_like(scores))
    return Ranking(scores, true_positives, _knots.gather(knots, negatives), knots, own, negatives, ranks)


def loss_of_ranking(
    logits: Tensor,
    targets: Tensor,
    positives: Tensor,
    ranking: Ranking,
    error: ErrorFunction,
    target_error: ErrorFunction | float = 0.0,
    *,
    normalizer: float | None = None,
    pmf: WeightFunction | None = None,
    value: ErrorFunction | None = None,
) -> Tensor:
    """``error_driven_loss`` of what is ranked already."""
    with torch.no_grad():
        reported = _at_each(ranking, error, "error")
        update = reported - _at_each(ranking, target_error, "target_error")
        if value is not None:
            reported = _at_each(ranking, value, "value")
        scale = 1 / (len(ranking) if normalizer is None else normalizer)
        phi, above = (None, ranking.false_positives) if pmf is None else _weigh(ranking, logits, targets, pmf)
        update = torch.where(above > 0, update, 0.0) * scale
        share = update / torch.where(above > 0, above, 1.0)
    return attach_gradient(logits, (reported.sum() * scale)[None], ranking, positives, -update[None], share[None], phi).squeeze(0)


def zero_loss(logits: Tensor, targets: Tensor, ranks: Processes | None = None) -> Tensor:
    """The loss without positives: 0 with a live graph whose gradient is 0, and NaN where a logit that counts is NaN."""
    flat = _flat(logits)
    poison = torch.where((flat.isnan() & (targets.reshape(-1) == 0)).any(), torch.nan, 0.0)
    poison = poison.to(flat.dtype)
    return upcast(logits.reshape(-1)[:0]).sum() + (poison if ranks is None else add_up(ranks, poison))


def attach_gradient(
    logits: Tensor,
    values: Tensor,
    ranking: Ranking,
    positives: Tensor,
    positive_gradient: Tensor,
    negative_share: Tensor,
    phi: Tensor | None = None,
) -> Tensor:
    """Give each of v values a gradient: ``positive_gradient``, (v, P); ``phi_j sum_i H(s_j - s_i) negative_share_i`` for negative j."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    result: Tensor = _DefinedGradient.apply(logits, values.to(dtype), ranking, positives, positive_gradient, negative_share, phi)
    return result


class _DefinedGradient(torch.autograd.Function):
    """The forward result is given; the backward pass does the N-sized work of spreading the positives' shares over the negatives."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        values: Tensor,
        ranking: Ranking,
        positives: Tensor,
        positive_gradient: Tensor,
        negative_share: Tensor,
        phi: Tensor | None,
    ) -> Tensor:
        knots, negatives = ranking._own_knots, ranking._negatives
        ctx.shape, ctx.dtype, ctx.delta, ctx.ranks = logits.shape, logits.dtype, knots.delta, ranking._processes
        ctx.save_for_backward(
            knots.position, knots.low, knots.high, negatives.interval, negatives.offset, positives, positive_gradient, negative_share, phi
        )
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        position, low, high, interval, offset, positives, positive_gradient, negative_share, phi = ctx.saved_tensors
        upstream = upstream.to(position.dtype) * ctx.ranks.size
        share, own = ((part * upstream[:, None]).sum(0) for part in (negative_share, positive_gradient))
        value, slope = _knots.spread(_knots.Knots(position, low, high, ctx.delta), share)
        gradient = _knots.evaluate(value, slope, interval, offset)
        if phi is not None:
            gradient *= phi
        gradient[positives] = own[ctx.ranks.own].to(gradient.dtype)
        return gradient.reshape(ctx.shape).to(ctx.dtype), None, None, None, None, None, None


def _flat(logits: Tensor) -> Tensor:
    """(M,) detached, float32 or float64."""
    return upcast(logits.detach().reshape(-1))


def _sum_above(knots: _knots.Knots, positives: _knots.Located, values: Tensor) -> Tensor:
    """``sum_{k != i} H(s_k - s_i) values_k`` for positives that are weighed with the values: the sum over all, less the self term."""
    return _knots.gather(knots, positives) - knots.step_at_zero * values


def _weigh(ranking: Ranking, logits: Tensor, targets: Tensor, pmf: WeightFunction) -> tuple[Tensor, Tensor]:
    """phi at every entry, (M,), 0 where it is no negative, and its sum above each positive, (P,)."""
    flat, negative, ranks = _flat(logits), targets.reshape(-1) == 0, ranking._processes
    if ranks.size > 1:  # one place more, which is no negative
        flat, negative = (torch.cat([each, each.new_zeros(1)]) for each in (flat, negative))
    # A pmf may look at the maximum of its scores: in the place of those that are no negatives it sees the highest negative of all ranks.
    top = highest(ranks, torch.where(negative, flat, -torch.inf).max())
    phi = torch.where(negative, pmf(torch.where(negative, flat, top)), 0.0)[: logits.numel()]
    located = add_up_intervals(ranks, _knots.weigh(ranking._negatives, phi.to(ranking.scores.dtype)))
    return phi, _knots.gather(ranking._own_knots, located)


def _at_each(ranking: Ranking, function: ErrorFunction | float, name: str) -> Tensor:
    if not callable(function):
        return torch.full_like(ranking.scores, function)
    result = function(ranking)
    if result.shape != ranking.scores.shape:
        raise ValueError(f"{name}: must return one number per positive, ({len(ranking)},), got {tuple(result.shape)}")
    return result.to(ranking.scores.dtype)
