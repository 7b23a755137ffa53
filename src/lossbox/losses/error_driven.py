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

import torch
from jaxtyping import Float
from torch import Tensor

from ._checks import check_positive
from ._groups import GroupReduction, GroupWord
from ._ranking import Ranking, rank_positives

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
    groups: Tensor | GroupWord | None = None,
    group_reduction: GroupReduction = "mean",
) -> Float[Tensor, ""]:
    """Any ranking loss, from its error and its target error at each positive.

    ``L = 1/Z sum_i l(i)``; the gradient is *defined* as ``dL/ds_i = -(l(i) - l*(i)) / Z`` and
    ``dL/ds_j = sum_i (l(i) - l*(i)) p(j|i) / Z``, it is not the derivative of the value.

    Args:
        logits: scores of any shape; float16 and bfloat16 are computed in float32.
        targets: 1 positive, 0 negative, of the shape of ``logits``. -1 is ignored: no loss, no gradient.
        error: l, a function of a ``Ranking`` of P positives that returns (P,).
        target_error: l*, likewise or a constant; at most l, and equal to it where N_FP is 0.
        delta: half the width over which the step function is smoothed, in units of the logits, >= 1e-6; 0 is the hard step, ties counted.
        normalizer: Z; the number of positives if not given, of all processes in a global batch, of the group with groups.
        pmf: phi in ``p(j|i) ~ H(s_j - s_i) phi(s_j)``, a function from (N,) scores to (N,) numbers >= 0; uniform if not given, and
            ``skewed_pmf`` promotes harder negatives. A positive whose negatives all have phi = 0 receives no gradient. In a global batch
            phi may depend on the score and on the highest of all scores, which is among those that it is called with on every process.
        value: what the loss reports instead of l, where the two differ; the gradient never sees it.
        global_batch: rank the batches of all W processes of the default group as one: |P|, N_FP and Z are theirs, and the value is
            the same on each. The gradient is W times this process's share, so that the mean over the processes, which
            DistributedDataParallel takes, is the gradient of the one loss. Every process must call it, with or without positives, and
            weigh its value alike. Without a group of several processes it changes nothing.
        groups: many rankings in one call: each group is ranked by itself, as if it were a batch of its own. An int64 tensor of keys, of
            the shape of ``logits`` or one that broadcasts to it, or "image", "class", "row": the first dimension, the last, or all but the
            last. What ``error`` reads of a ``Ranking`` is then the group's; phi is called once, with the scores of all groups.
        group_reduction: with ``L_g = 1/Z sum_{i in g} l(i)``, "mean" of the G groups with a positive, ``1/G sum_g L_g``; "positives": each
            group weighs as many positives as it has, ``sum_g |P_g| L_g / sum_g |P_g|``.

    Returns:
        A scalar, float32 or wider; 0 with a live graph where there are no positives, NaN where a logit that counts is NaN.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit, delta negative or not finite, a normalizer that is not positive, wrong
            groups, an error that is no function or does not return (P,).

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
    if normalizer is not None:
        check_positive("normalizer", normalizer)
    for name, function in (("error", error), ("value", value), ("pmf", pmf)):
        if not callable(function) and (function is not None or name == "error"):
            raise ValueError(f"{name}: a function expected, got {function!r}")
    ranking = rank_positives(logits, targets, delta=delta, global_batch=global_batch, groups=groups, group_reduction=group_reduction)
    with torch.no_grad():
        reported = _at_each(ranking, error, "error")
        excess = reported - _at_each(ranking, target_error, "target_error")
        if value is not None:
            reported = _at_each(ranking, value, "value")
    return ranking.loss(reported, excess, normalizer=normalizer, pmf=pmf)


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


def _at_each(ranking: Ranking, function: ErrorFunction | float, name: str) -> Tensor:
    if not len(ranking) or not callable(function):
        return torch.full_like(ranking.scores, 0.0 if callable(function) else function)
    result = function(ranking)
    if not isinstance(result, Tensor):
        raise ValueError(f"{name}: must return a tensor, got {type(result).__name__}")
    if result.shape != ranking.scores.shape:
        raise ValueError(f"{name}: must return one number per positive, ({len(ranking)},), got {tuple(result.shape)}")
    return result.to(ranking.scores.dtype)
