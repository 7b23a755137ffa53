"""AP, aLRP, NDCG and Rank & Sort losses: exact, in time linear in the number of negatives.

All take ``logits`` of any shape and ``targets`` of the same shape (1 positive, 0 negative, -1 ignored). In detection each box is one entry
per class, so that the scores of all boxes and classes of the batch are ranked against each other. With

    H(x) = clamp(x / (2 delta) + 1/2, 0, 1)            (1[x >= 0] where delta = 0: ties count)
    rank+(i) = 1 + sum_{k in P, k != i} H(s_k - s_i)   N_FP(i) = sum_{j in N} H(s_j - s_i)   rank(i) = rank+(i) + N_FP(i)

the gradient with respect to the logits is *defined* by the error-driven update (see ``error_driven``), it is not the derivative of the
value.

With ``global_batch=True`` in a job of W processes (torch.distributed's default group), P and N are the positives and negatives of all W
batches: |P|, rank+, N_FP and every sum of the formulas are global and exact, and every process returns the same value, that of one loss of
the concatenated batch. Each process's gradient is W times its share of that loss's gradient, so that the *mean* over the processes,
which DistributedDataParallel takes, is the gradient of the one loss. Every process must call the loss, without positives too, and weigh it
alike; what travels is O(|P|) numbers and does not depend on |N|. In one process nothing changes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from . import _knots
from ._checks import check_per_positive, check_ranking_input
from ._distributed import meet
from ._dominance import dominance_sums
from ._reduce import upcast
from .error_driven import Ranking, attach_gradient, error_driven_loss, loss_of_ranking, positive_index, rank, zero_loss


class ALRPTerms(NamedTuple):
    """The two parts of aLRP, unweighted."""

    classification: Float[Tensor, ""]
    localization: Float[Tensor, ""]


class RankSortTerms(NamedTuple):
    """The two parts of Rank & Sort, unweighted."""

    ranking: Float[Tensor, ""]
    sorting: Float[Tensor, ""]


def ap_loss(
    logits: Float[Tensor, ...], targets: Tensor, *, delta: float = 1.0, interpolated: bool = False, global_batch: bool = False
) -> Float[Tensor, ""]:
    """AP loss: 1 - average precision over the positives.

    ``L = 1/|P| sum_i N_FP(i) / rank(i)``, target error 0.

    Args:
        logits: scores, any shape; float16 and bfloat16 are computed in float32.
        targets: 1 positive, 0 negative, of the shape of ``logits``. -1 is ignored: no loss, no gradient.
        delta: half the width of the smoothed step, in units of the logits, >= 0; 0 is the hard step.
        interpolated: the published code's form: the precision of a positive is the largest among the positives that do not outscore it,
            as in interpolated AP.
        global_batch: rank the batches of all processes as one (see the module's docstring): |P| and the ranks are those of all.

    Returns:
        A scalar in [0, 1]; 0 with a live graph where there are no positives.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit; delta negative or not finite.

    Source:
        Chen et al., AP-Loss for Accurate One-Stage Object Detection, TPAMI 2020 (CVPR 2019), Eqs. (4)-(7); as a case of the general
        framework: Oksuz et al., NeurIPS 2020, Sec. 3.

    Example:
        >>> logits = torch.tensor([1.0, 2.0, -3.0, 0.0], requires_grad=True)
        >>> ap_loss(logits, torch.tensor([1, 0, 0, 1]), delta=0)
        tensor(0.4167, grad_fn=<SqueezeBackward1>)
    """

    def error(ranking: Ranking) -> Tensor:
        if not interpolated:
            return ranking.false_positives / ranking.rank
        order = ranking.scores.argsort()
        precision = ranking.true_positives / ranking.rank
        return 1 - torch.empty_like(precision).scatter_(0, order, precision[order].cummax(0).values)

    return error_driven_loss(logits, targets, error, delta=delta, global_batch=global_batch)


def alrp_loss(
    logits: Float[Tensor, ...],
    targets: Tensor,
    localization_error: Float[Tensor, " p"],
    *,
    delta: float = 1.0,
    smooth_localization: bool = False,
    global_batch: bool = False,
) -> ALRPTerms:
    """Average localization-recall-precision loss: one ranking for classification and localization.

    With E(i) the ``localization_error``, at positive i

        l(i) = (N_FP(i) + E(i) + sum_{k != i} H(s_k - s_i) E(k)) / rank(i)        l*(i) = E(i) / rank(i)

    The value comes in two parts: ``classification = 1/|P| sum_i N_FP(i) / rank(i)``, which carries the whole gradient with respect to the
    logits, *defined* by l - l*; and ``localization = 1/|P| sum_i (E(i) + sum_{k != i} 1[s_k >= s_i] E(k)) / rank(i)``, which is
    differentiable in E and constant in the logits: positive k weighs ``1/|P| sum_{i: s_k >= s_i} 1/rank(i)``.

    Args:
        logits: scores, any shape; float16 and bfloat16 are computed in float32.
        targets: 1 positive, 0 negative, of the shape of ``logits``. -1 is ignored: no loss, no gradient.
        localization_error: (P,) E >= 0 in the order of ``logits[targets == 1]``: ``(1 - IoU) / (1 - tau)``, or ``(1 - GIoU) / 2 / (1 -
            tau)``, tau = 0.5 the IoU from which a box counts as positive. Its graph receives the localization gradient.
        delta: half the width of the smoothed step, in units of the logits, >= 0; 0 is the hard step.
        smooth_localization: H instead of the unit step in the localization value.
        global_batch: rank the batches of all processes as one (see the module's docstring): |P|, the ranks and both sums are of all, and
            the gradients of logits and of E are W times this process's shares.

    Returns:
        ``ALRPTerms(classification, localization)``; classification in [0, 1], localization in [0, max E]; their sum in [0, 1] where E <= 1
        and delta = 0. Multiply ``localization`` by a ``SelfBalance`` weight as the paper does. Zeros with a live graph where there are no
        positives.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit; delta negative or not finite.

    Source:
        Oksuz et al., NeurIPS 2020, Eqs. (9)-(13), Appendices E and F.1.

    Example:
        >>> logits = torch.tensor([2.0, 1.0, 0.0, -1.0], requires_grad=True)
        >>> error = torch.tensor([0.2, 0.6], requires_grad=True)
        >>> loss = alrp_loss(logits, torch.tensor([1, 0, 1, 0]), error, delta=0)
        >>> loss
        ALRPTerms(classification=tensor(0.1667, grad_fn=<SqueezeBackward1>), localization=tensor(0.2333, grad_fn=<SumBackward0>))
        >>> (loss.classification + loss.localization).backward()
        >>> error.grad
        tensor([0.6667, 0.1667])
    """
    check_ranking_input(logits, targets, delta)
    positives = positive_index(targets)
    check_per_positive(localization_error, "localization_error", len(positives))
    ranks = meet(len(positives), logits.device, global_batch)
    if not sum(ranks.counts):
        return ALRPTerms(zero_loss(logits, targets, ranks), localization_error.sum())
    ranking = rank(logits, targets, positives, delta, ranks)
    errors = ranking.join(localization_error)
    fixed = errors.detach().to(ranking.scores.dtype)
    classification = loss_of_ranking(
        logits,
        targets,
        positives,
        ranking,
        error=lambda r: (r.false_positives + fixed + r.sum_above(fixed)) / r.rank,
        target_error=lambda r: fixed / r.rank,
        value=lambda r: r.false_positives / r.rank,
    )
    return ALRPTerms(classification, _localization(ranking, errors, smooth_localization).to(classification.dtype))


def ndcg_loss(logits: Float[Tensor, ...], targets: Tensor, *, delta: float = 1.0, global_batch: bool = False) -> Float[Tensor, ""]:
    """NDCG loss: 1 - normalized discounted cumulative gain of the positives.

    ``L = sum_i l(i)``, ``l(i) = 1/|P| - 1 / log2(1 + rank(i)) / G_max``, ``l*`` the same with rank+, ``G_max = sum_{i=1..|P|} 1 / log2(1 +
    i)``.

    Args:
        logits: scores, any shape; float16 and bfloat16 are computed in float32.
        targets: 1 positive, 0 negative, of the shape of ``logits``. -1 is ignored: no loss, no gradient.
        delta: half the width of the smoothed step, in units of the logits, >= 0; 0 is the hard step.
        global_batch: rank the batches of all processes as one (see the module's docstring): |P|, G_max and the ranks are those of all.

    Returns:
        A scalar in [0, 1) where delta = 0 and no positives tie; the smoothed ranks can take it slightly below 0.
        0 with a live graph where there are no positives.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit; delta negative or not finite.

    Source:
        Oksuz et al., NeurIPS 2020, Appendix D.

    Example:
        >>> ndcg_loss(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0, 1, 0]), delta=0)
        tensor(0.3691)
    """

    def gain(position: Tensor) -> Tensor:
        return 1 / torch.log2(1 + position)

    def shortfall(ranking: Ranking, position: Tensor) -> Tensor:
        best = gain(torch.arange(1, len(ranking) + 1, dtype=position.dtype, device=position.device)).sum()
        return 1 / len(ranking) - gain(position) / best

    return error_driven_loss(
        logits,
        targets,
        lambda ranking: shortfall(ranking, ranking.rank),
        lambda ranking: shortfall(ranking, ranking.true_positives),
        delta=delta,
        normalizer=1.0,
        global_batch=global_batch,
    )


def rank_sort_loss(
    logits: Float[Tensor, ...], targets: Tensor, quality: Float[Tensor, " p"], *, delta: float = 0.5, global_batch: bool = False
) -> RankSortTerms:
    """Rank & Sort loss: positives above negatives, and among positives the better box above the worse.

    Here the self term counts, ``rank+(i) = sum_{k in P} H(s_k - s_i)``. With y the ``quality``:

        ranking error  l_R(i) = N_FP(i) / rank(i)                          target 0
        sorting error  l_S(i) = sum_k H(s_k - s_i) (1 - y_k) / rank+(i)
        its target     the same average over those k with y_k >= y_i

    The ranking error is spread over the negatives by ``H(s_j - s_i)``, the excess of the sorting error over its target over the positives
    of lower quality by ``H(s_k - s_i) 1[y_k < y_i]``.

    Args:
        logits: scores, any shape; float16 and bfloat16 are computed in float32.
        targets: 1 positive, 0 negative, of the shape of ``logits``. -1 is ignored: no loss, no gradient.
        quality: (P,) in [0, 1], as a rule the IoU of the predicted box, in the order of ``logits[targets == 1]``; 0 stays a positive.
            No gradient flows to it.
        delta: half the width of the smoothed step, in units of the logits, >= 0; 0 is the hard step.
        global_batch: rank and sort the batches of all processes as one (see the module's docstring): |P| and all sums are those of all.

    Returns:
        ``RankSortTerms(ranking, sorting)``: 1/|P| times the sums of l_R and of l_S - l_S*. Each carries its own gradient with respect to
        the logits and scales with its own upstream gradient. Zeros with a live graph where there are no positives.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit; delta negative or not finite.

    Source:
        Oksuz et al., Rank & Sort Loss for Object Detection and Instance Segmentation, ICCV 2021, Eqs. (3)-(11).

    Example:
        The lower box is the better one:

        >>> logits = torch.tensor([1.0, 0.0, -5.0], requires_grad=True)
        >>> loss = rank_sort_loss(logits, torch.tensor([1, 1, 0]), torch.tensor([0.5, 0.9]), delta=0)
        >>> loss.ranking.item(), round(loss.sorting.item(), 4)
        (0.0, 0.1)
        >>> loss.sorting.backward()
        >>> logits.grad
        tensor([ 0.1000, -0.1000,  0.0000])
    """
    check_ranking_input(logits, targets, delta)
    positives = positive_index(targets)
    check_per_positive(quality, "quality", len(positives))
    ranks = meet(len(positives), logits.device, global_batch)
    if not sum(ranks.counts):
        nothing = zero_loss(logits, targets, ranks)
        return RankSortTerms(nothing, nothing)
    ranking = rank(logits, targets, positives, delta, ranks)
    with torch.no_grad():
        true_positives = ranking.true_positives - 1 + ranking._own_knots.step_at_zero
        above = ranking.false_positives
        ranking_error = above / (true_positives + above) / len(ranking)
        share = ranking_error / torch.where(above > 0, above, 1.0)
        sorting_error, sorting_gradient = _sort(ranking, ranking.join(quality.detach()), true_positives)
        values = torch.stack([ranking_error.sum(), sorting_error])
        own = torch.stack([-ranking_error, sorting_gradient])
        shares = torch.stack([share, torch.zeros_like(share)])
    return RankSortTerms(*attach_gradient(logits, values, ranking, positives, own, shares).unbind())


def _localization(ranking: Ranking, error: Tensor, smooth: bool) -> Tensor:
    """``1/|P| sum_k E(k) sum_{i: s_k >= s_i} 1/rank(i)``: the double sum in the order that leaves E in front."""
    with torch.no_grad():
        inverse_rank = 1 / ranking.rank
        if smooth and ranking._own_knots.delta > 0:
            located = ranking._positives
            value, slope = _knots.spread(ranking._own_knots, inverse_rank)
            weight = _knots.evaluate(value, slope, located.interval, located.offset) + 0.5 * inverse_rank  # the self term is 1, not H(0)
        else:
            ascending, order = ranking.scores.sort()
            below = torch.searchsorted(ascending, ranking.scores, right=True)
            weight = inverse_rank[order].cumsum(0)[below - 1]
        weight /= len(ranking)
    error = upcast(error)
    return (error * weight.to(error.dtype)).sum()


def _sort(ranking: Ranking, quality: Tensor, true_positives: Tensor) -> tuple[Tensor, Tensor]:
    """The mean sorting error above its target, and its gradient with respect to the positives' scores, (P,)."""
    scores, quality, delta = ranking.scores, quality.contiguous(), ranking._own_knots.delta
    shortfall = 1 - quality.to(scores.dtype)
    # Sums over the positives above i that are of lower quality; those above of no lower quality are the rest.
    worse, worse_shortfall = dominance_sums(scores, quality, torch.stack([torch.ones_like(shortfall), shortfall]), delta)
    better = true_positives - worse
    better_shortfall = ranking.sum_above(shortfall) + ranking._own_knots.step_at_zero * shortfall - worse_shortfall
    excess = ((better_shortfall + worse_shortfall) / true_positives - better_shortfall / better) / len(ranking)
    share = torch.where(worse > 0, excess / torch.where(worse > 0, worse, 1.0), 0.0)
    # Positive k receives from those i that it lies above although it is of lower quality: the same sums with both orders reversed.
    received = dominance_sums(-scores, -quality, share[None], delta).squeeze(0)
    return excess.sum(), received - share * worse
