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

With ``groups`` there are many rankings in one call, of images, classes, queries, ...: P and N of a positive are those of its group, and
every sum, |P| and G_max are the group's. The loss is the mean of the groups' losses; a group without positives has none and does not count
in it, though a NaN there is seen: a logit that is NaN makes the whole value NaN, and then the gradient is undefined in every group, as one
sorting serves all (``debug_checks`` names the entry). In a global batch groups of the same key are one group on all processes, classes too;
images and rows are each process's own. On a GPU groups are found by steps of torch, not by kernels of ours.

The gradient is not differentiable: second derivatives of a ranking loss are 0, so that a penalty on its gradient trains nothing.

The transforms of ``torch.func`` (``vmap``, ``grad``, ``jacrev``, ``jvp``) do not go through these losses, which raise a ValueError under
them: the gradient is defined and not derived, and the number of positives decides shapes. In place of ``vmap`` over rankings take
``groups="row"``, whose gradient in each row is that of the row's own loss, divided by the number of rows with a positive; in place of
``torch.func.grad`` take ``loss.backward()`` or ``torch.autograd.grad(loss, logits)``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ._checks import check_tensors
from ._compiled import one_operator
from ._dominance import dominance_sums
from ._groups import GroupReduction, GroupWord
from ._ranking import rank_positives


class ALRPTerms(NamedTuple):
    """The two parts of aLRP, unweighted."""

    classification: Float[Tensor, ""]
    localization: Float[Tensor, ""]


class RankSortTerms(NamedTuple):
    """The two parts of Rank & Sort, unweighted."""

    ranking: Float[Tensor, ""]
    sorting: Float[Tensor, ""]


@one_operator()
def ap_loss(
    logits: Float[Tensor, ...],
    targets: Tensor,
    *,
    delta: float = 1.0,
    interpolated: bool = False,
    global_batch: bool = False,
    groups: Tensor | GroupWord | None = None,
    group_reduction: GroupReduction = "mean",
) -> Float[Tensor, ""]:
    """AP loss: 1 - average precision over the positives.

    ``L = 1/|P| sum_i N_FP(i) / rank(i)``, target error 0.

    Args:
        logits: scores, any shape; float16 and bfloat16 are computed in float32.
        targets: 1 positive, 0 negative, of the shape of ``logits``. -1 is ignored: no loss, no gradient.
        delta: half the width of the smoothed step, in units of the logits, >= 1e-6; 0 is the hard step.
        interpolated: the published code's form: the precision of a positive is the largest among the positives that do not outscore it,
            as in interpolated AP.
        global_batch: rank the batches of all processes as one (see the module's docstring): |P| and the ranks are those of all.
        groups: each group is ranked by itself, as if it were a batch of its own: an int64 tensor of keys, of the shape of ``logits`` or one
            that broadcasts to it, or "image", "class", "row": the first dimension, the last, or all but the last.
        group_reduction: "mean" of the G groups with a positive, ``1/G sum_g L_g``; "positives": each group weighs as many positives as it
            has, ``sum_g |P_g| L_g / sum_g |P_g|``.

    Returns:
        A scalar in [0, 1]; 0 with a live graph where there are no positives.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit; delta negative or not finite; wrong groups; targets not 1, 0 or -1 (on a CPU;
            elsewhere with ``debug_checks``).

    Source:
        Chen et al., AP-Loss for Accurate One-Stage Object Detection, TPAMI 2020 (CVPR 2019), Eqs. (4)-(7); as a case of the general
        framework: Oksuz et al., NeurIPS 2020, Sec. 3.

    Example:
        >>> logits = torch.tensor([1.0, 2.0, -3.0, 0.0], requires_grad=True)
        >>> ap_loss(logits, torch.tensor([1, 0, 0, 1]), delta=0)
        tensor(0.4167, grad_fn=<SqueezeBackward1>)
    """
    ranking = rank_positives(logits, targets, delta=delta, global_batch=global_batch, groups=groups, group_reduction=group_reduction)
    error = ranking.false_positives / ranking.rank
    if interpolated:
        error = 1 - ranking.highest_below(ranking.true_positives / ranking.rank)
    return ranking.loss(value=error, excess=error)


@one_operator("localization_error", terms=ALRPTerms)
def alrp_loss(
    logits: Float[Tensor, ...],
    targets: Tensor,
    localization_error: Float[Tensor, " p"],
    *,
    delta: float = 1.0,
    smooth_localization: bool = False,
    global_batch: bool = False,
    groups: Tensor | GroupWord | None = None,
    group_reduction: GroupReduction = "mean",
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
        delta: half the width of the smoothed step, in units of the logits, >= 1e-6; 0 is the hard step.
        smooth_localization: H instead of the unit step in the localization value.
        global_batch: rank the batches of all processes as one (see the module's docstring): |P|, the ranks and both sums are of all, and
            the gradients of logits and of E are W times this process's shares.
        groups: each group is ranked by itself, as if it were a batch of its own: an int64 tensor of keys, of the shape of ``logits`` or one
            that broadcasts to it, or "image", "class", "row": the first dimension, the last, or all but the last.
        group_reduction: "mean" of the G groups with a positive, ``1/G sum_g L_g``; "positives": each group weighs as many positives as it
            has, ``sum_g |P_g| L_g / sum_g |P_g|``.

    Returns:
        ``ALRPTerms(classification, localization)``; classification in [0, 1], localization in [0, max E]; their sum in [0, 1] where E <= 1
        and delta = 0. Multiply ``localization`` by a ``SelfBalance`` weight as the paper does. Zeros with a live graph where there are no
        positives.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit; delta negative or not finite; wrong groups; targets not 1, 0 or -1 (on a CPU;
            elsewhere with ``debug_checks``).

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
    ranking = rank_positives(logits, targets, delta=delta, global_batch=global_batch, groups=groups, group_reduction=group_reduction)
    e = ranking.join(localization_error, "localization_error")
    with torch.no_grad():
        false_positives, rank = ranking.false_positives, ranking.rank
        # l - l*, in which E(i) itself cancels
        excess = (false_positives + ranking.sum_above(e)) / rank
        weight = ranking.sum_below(ranking.weight / rank, hard=not smooth_localization)
    classification = ranking.loss(value=false_positives / rank, excess=excess)
    return ALRPTerms(classification, ranking.weighted_sum(e, weight).to(classification.dtype))


@one_operator()
def ndcg_loss(
    logits: Float[Tensor, ...],
    targets: Tensor,
    *,
    delta: float = 1.0,
    global_batch: bool = False,
    groups: Tensor | GroupWord | None = None,
    group_reduction: GroupReduction = "mean",
) -> Float[Tensor, ""]:
    """NDCG loss: 1 - normalized discounted cumulative gain of the positives.

    ``L = sum_i l(i)``, ``l(i) = 1/|P| - 1 / log2(1 + rank(i)) / G_max``, ``l*`` the same with rank+, ``G_max = sum_{i=1..|P|} 1 / log2(1 +
    i)``.

    Args:
        logits: scores, any shape; float16 and bfloat16 are computed in float32.
        targets: 1 positive, 0 negative, of the shape of ``logits``. -1 is ignored: no loss, no gradient.
        delta: half the width of the smoothed step, in units of the logits, >= 1e-6; 0 is the hard step.
        global_batch: rank the batches of all processes as one (see the module's docstring): |P|, G_max and the ranks are those of all.
        groups: each group is ranked by itself, as if it were a batch of its own: an int64 tensor of keys, of the shape of ``logits`` or one
            that broadcasts to it, or "image", "class", "row": the first dimension, the last, or all but the last.
        group_reduction: "mean" of the G groups with a positive, ``1/G sum_g L_g``; "positives": each group weighs as many positives as it
            has, ``sum_g |P_g| L_g / sum_g |P_g|``.

    Returns:
        A scalar in [0, 1) where delta = 0 and no positives tie; the smoothed ranks can take it slightly below 0.
        0 with a live graph where there are no positives.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit; delta negative or not finite; wrong groups; targets not 1, 0 or -1 (on a CPU;
            elsewhere with ``debug_checks``).

    Source:
        Oksuz et al., NeurIPS 2020, Appendix D.

    Example:
        >>> ndcg_loss(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0, 1, 0]), delta=0)
        tensor(0.3691)
    """
    ranking = rank_positives(logits, targets, delta=delta, global_batch=global_batch, groups=groups, group_reduction=group_reduction)
    discount, least_discount = torch.log2(1 + ranking.rank), torch.log2(1 + ranking.true_positives)
    gains = 1 / torch.log2(torch.arange(2, len(ranking) + 2, dtype=discount.dtype, device=discount.device))
    largest_gain = gains.cumsum(0).index_select(0, ranking.num_positives.long() - 1)
    gain, best_gain = 1 / (discount * largest_gain), 1 / (least_discount * largest_gain)
    return ranking.loss(value=1 / ranking.num_positives - gain, excess=best_gain - gain, normalizer=1.0)


@one_operator("quality", terms=RankSortTerms, of_logits=2)
def rank_sort_loss(
    logits: Float[Tensor, ...],
    targets: Tensor,
    quality: Float[Tensor, " p"],
    *,
    delta: float = 0.5,
    global_batch: bool = False,
    groups: Tensor | GroupWord | None = None,
    group_reduction: GroupReduction = "mean",
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
        delta: half the width of the smoothed step, in units of the logits, >= 1e-6; 0 is the hard step.
        global_batch: rank and sort the batches of all processes as one (see the module's docstring): |P| and all sums are those of all.
        groups: each group is ranked by itself, as if it were a batch of its own: an int64 tensor of keys, of the shape of ``logits`` or one
            that broadcasts to it, or "image", "class", "row": the first dimension, the last, or all but the last.
        group_reduction: "mean" of the G groups with a positive, ``1/G sum_g L_g``; "positives": each group weighs as many positives as it
            has, ``sum_g |P_g| L_g / sum_g |P_g|``.

    Returns:
        ``RankSortTerms(ranking, sorting)``: 1/|P| times the sums of l_R and of l_S - l_S*. Each carries its own gradient with respect to
        the logits and scales with its own upstream gradient. Zeros with a live graph where there are no positives.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit; delta negative or not finite; wrong groups; targets not 1, 0 or -1 (on a CPU;
            elsewhere with ``debug_checks``).

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
    ranking = rank_positives(logits, targets, delta=delta, global_batch=global_batch, groups=groups, group_reduction=group_reduction)
    check_tensors(quality=quality)
    y = ranking.join(quality.detach(), "quality").contiguous()
    scores, false_positives, self_term = ranking.scores, ranking.false_positives, 0.5 if delta > 0 else 1.0
    true_positives = ranking.true_positives - 1 + self_term
    ranking_error = false_positives / (true_positives + false_positives)

    shortfall = 1 - y.to(scores.dtype)
    above = ranking.sum_above(shortfall) + self_term * shortfall
    # the part of both sums that is of lower quality than i, and the rest
    worse, worse_shortfall = dominance_sums(scores, y, torch.stack([torch.ones_like(shortfall), shortfall]), delta, ranking.group)
    better, better_shortfall = true_positives - worse, above - worse_shortfall
    sorting_excess = above / true_positives - better_shortfall / better
    # i gives its excess to those above it of lower quality in equal shares of H; what k receives is the same sum with both orders reversed
    share = torch.where(worse > 0, sorting_excess / torch.where(worse > 0, worse, 1.0), 0.0)
    received = dominance_sums(-scores, -y, share[None], delta, ranking.group).squeeze(0)

    values = (torch.stack([ranking_error, sorting_excess]) * ranking.weight).sum(1)
    at_positives = torch.stack([-ranking_error, received - share * worse]) * ranking.weight
    to_negatives = torch.stack([ranking_error, torch.zeros_like(ranking_error)]) * ranking.weight
    return RankSortTerms(*ranking.attach_gradient(values, at_positives, to_negatives).unbind())
