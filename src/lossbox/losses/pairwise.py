"""APE: a ranking loss of pairs, whose gradient is derived.

With ``S(x) = sigmoid(sharpness x)`` in the place of the step H of the other ranking losses, and y the quality of a positive, the entries
that should not outscore positive i are the negatives and the worse positives, ``A_i = N u {v in P: y_v < y_i}``:

    N_FP(i) = sum_{v in A_i} S(s_v - s_i)      rank(i) = N_FP(i) + sum_{v in P, y_v >= y_i} S(s_v - s_i)

where the self term is S(0) = 1/2. The other ranking losses *define* their gradient; here it is that of a cross-entropy over the pairs, the
rank held constant. Divided by the sharpness it has the form of theirs: times 1/|P|, positive i receives ``-y_i N_FP(i) / rank(i)`` and each
v in A_i its share ``y_i S(s_v - s_i) / rank(i)``, and all of it sums to 0.

Neither S nor its cross-entropy is piecewise linear, so there is no near-linear form: the cost is O(P R), with R the negatives that come
near enough to the lowest positive to count. Memory stays O(P + N).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes._dtype import upcast
from ._checks import check_per_positive, check_ranking_input
from ._compiled import one_operator
from ._distributed import count_positives
from ._gradient import with_gradient
from ._groups import GroupReduction, Groups, GroupWord, check_groups, number_groups
from ._knots import sum_dtype
from ._logspace import softplus
from ._ranking import positive_index, zero_loss

PAIRS = 1 << 20
"""Pairs handled at a time, or all those of one positive where they are more: what the temporaries take."""


@one_operator("quality")
def ape_loss(
    logits: Float[Tensor, ...],
    targets: Tensor,
    quality: Float[Tensor, " p"],
    *,
    sharpness: float = 4.0,
    cutoff: float = 4.0,
    groups: Tensor | GroupWord | None = None,
    group_reduction: GroupReduction = "mean",
) -> Float[Tensor, ""]:
    """Adaptive pairwise error: each positive against the negatives and the worse positives that come near it.

    With y the ``quality``, ``S(x) = sigmoid(sharpness x)`` and A_i the negatives and the positives v with y_v < y_i:

        rank(i) = sum_{v in A_i} S(s_v - s_i) + sum_{v in P, y_v >= y_i} S(s_v - s_i)                   constant in the gradient
        L       = 1/(sharpness |P'|) sum_{i in P'} y_i / rank(i) sum_{v in A_i} -log(1 - S(s_v - s_i))

    Only pairs with ``sharpness (s_v - s_i) > -cutoff`` count, in all three sums; P' are the positives with such a pair in A_i. The loss and
    its gradient jump where a pair enters or leaves, by ``log(1 + exp(-cutoff))`` in the sum, and more where a positive does;
    ``cutoff=math.inf`` has no such steps and costs all pairs. The time is O(P R), R the negatives within reach of the lowest positive: many
    at the start of a training, few later. Memory is O(P + N).

    Args:
        logits: scores, any shape; float16 and bfloat16 are computed in float32.
        targets: 1 positive, 0 negative, of the shape of ``logits``. -1 is ignored: no loss, no gradient.
        quality: (P,) in [0, 1], as a rule the IoU of the predicted box, in the order of ``logits[targets == 1]``; 0 stays a positive.
            No gradient flows to it.
        sharpness: lambda, > 0, in units of 1 / logit; with the default cutoff pairs reach as far as those of the other ranking losses do
            with ``delta = 4 / sharpness``.
        cutoff: > 0, in units of ``sharpness`` times logits; infinity keeps every pair.
        groups, group_reduction: as in ``ap_loss``; P' and the sums are those of each group.

    Returns:
        A scalar >= 0; 0 with a live graph where there are no positives or no pairs.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit; sharpness or cutoff not positive, sharpness not finite; wrong
            groups.

    Source:
        Xu, Deng, Li: Revisiting AP Loss for Dense Object Detection: Adaptive Ranking Pair Selection, CVPR 2022, arXiv:2207.12042. We could
        not establish the number of its equation: the form is that of the authors' code (Xudangliatiger/APE-Loss, commit 8c21505), without
        its limit of 100,000 negatives.

    Example:
        A negative beside the worse of two positives; the better one, well ahead, has no pair:

        >>> logits = torch.tensor([3.0, 0.0, 0.0], requires_grad=True)
        >>> loss = ape_loss(logits, torch.tensor([1, 1, 0]), torch.tensor([0.9, 0.5]))
        >>> loss.backward()
        >>> round(loss.item(), 4), logits.grad
        (0.0433, tensor([ 0.0000, -0.1250,  0.1250]))
    """
    check_ranking_input(logits, targets)
    if not 0 < sharpness < float("inf"):
        raise ValueError(f"sharpness: must be a finite number > 0, got {sharpness}")
    if not cutoff > 0:
        raise ValueError(f"cutoff: must be a number > 0, or infinity, got {cutoff}")
    check_groups(groups, group_reduction, logits)
    positives = positive_index(targets)
    check_per_positive(quality, "quality", len(positives))
    if not len(positives):
        return zero_loss(logits, targets)
    alone = count_positives(len(positives), positives.device, global_batch=False)
    numbered = None if groups is None else number_groups(groups, logits.shape, positives, alone)
    sums = _sum_pairs(logits, targets, quality, positives, numbered, group_reduction, sharpness, cutoff)
    value: Tensor = with_gradient(_keep_for_gradient, logits, *sums)
    return value


class _Entries(NamedTuple):
    """The positives and the negatives that count for any of them, by group, and within it in descending order of the scores."""

    place: Tensor  # (K,) in the flattened logits
    group: Tensor  # (K,) its number
    of_positive: Tensor  # (P,) which of the entries it is
    start: Tensor  # (P,) the first entry of its group
    length: Tensor  # (P,) so many of its group, the first ones, count for it


@torch.no_grad()
def _sum_pairs(
    logits: Tensor,
    targets: Tensor,
    quality: Tensor,
    positives: Tensor,
    groups: Groups | None,
    group_reduction: GroupReduction,
    sharpness: float,
    cutoff: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The value, (K,) places in the flattened logits and the gradient there: one pass over blocks of positives, the longest rows first."""
    flat, quality = upcast(logits.reshape(-1)), quality.detach()
    entries = _within_reach(flat, targets.reshape(-1) == 0, positives, flat[positives] - cutoff / sharpness, groups)
    scores = flat[entries.place]
    qualities = quality.new_full(scores.shape, -1.0).index_copy_(0, entries.of_positive, quality)
    exact = sum_dtype(flat.device)
    received = torch.zeros(len(scores), dtype=exact, device=flat.device)
    distances, pushes, is_member = torch.zeros(3, len(positives), dtype=exact, device=flat.device)
    length, order = entries.length.sort(descending=True, stable=True)
    lengths, first = length.tolist(), 0
    while first < len(order):
        row = order[first : first + max(1, PAIRS // max(lengths[first], 1))]
        column = torch.arange(lengths[first], device=flat.device)
        outside = column >= entries.length[row, None]
        if groups is not None:  # without groups the columns of all rows are the same
            column = (entries.start[row, None] + column).clamp_(max=len(scores) - 1)
        x = (scores[column] - scores[entries.of_positive[row], None]) * sharpness
        x.masked_fill_(outside, -torch.inf)
        wrong = (qualities[column] < quality[row, None]).logical_and_(outside.logical_not_())
        above, distance = torch.sigmoid(x), softplus(x)
        weight = upcast(quality[row]).to(flat.dtype) / above.sum(1, dtype=exact)
        above *= wrong
        distances[row] = weight * (distance * wrong).sum(1, dtype=exact)
        pushes[row] = weight * above.sum(1, dtype=exact)
        is_member[row] = wrong.any(1).to(exact)
        above *= weight.to(above.dtype)[:, None]
        if groups is None:
            received[: len(column)] += above.sum(0, dtype=exact)
        else:
            received.index_add_(0, column.view(-1), above.view(-1).to(exact))
        first += len(row)

    received[entries.of_positive] -= pushes
    scale = _scale_of_groups(entries, is_member, groups, group_reduction)
    value = (distances * scale[entries.group[entries.of_positive]]).sum() / sharpness
    if groups is not None:  # NaN in a group without positives
        value += torch.where((entries.group == groups.size).any(), torch.nan, 0.0)
    return value.to(flat.dtype), entries.place, received * scale[entries.group]


def _within_reach(flat: Tensor, is_negative: Tensor, positives: Tensor, reach: Tensor, groups: Groups | None) -> _Entries:
    """What counts: the scores above the (P,) reach of each positive. NaN comes first and is dropped by no comparison: the loss is NaN."""
    zero = torch.zeros_like(positives)
    group_of_positive = zero if groups is None else groups.of_positive
    lowest = reach.new_full((1 if groups is None else groups.size + 1,), torch.inf)
    lowest.scatter_reduce_(0, group_of_positive, reach, "amin")
    near = (is_negative & ~(flat <= (lowest if groups is None else lowest[groups.of_entry]))).nonzero().squeeze(1)
    place = torch.cat([near, positives])
    group = torch.cat([torch.zeros_like(near) if groups is None else groups.of_entry[near].long(), group_of_positive])

    # Each reach is put in front of the scores that are equal to it, which do not count.
    order = torch.cat([reach, flat[place]]).argsort(descending=True, stable=True)
    if groups is not None:
        order = order[torch.cat([group_of_positive, group])[order].argsort(stable=True)]
    is_score = order >= len(reach)
    before = torch.empty_like(order).scatter_(0, order, is_score.cumsum(0) - is_score.long())  # scores in front of each
    order = order[is_score] - len(reach)
    place, group = place[order], group[order]
    start = torch.searchsorted(group, group_of_positive)
    return _Entries(place, group, before[len(reach) + len(near) :], start, before[: len(reach)] - start)


def _scale_of_groups(entries: _Entries, is_member: Tensor, groups: Groups | None, reduction: GroupReduction) -> Tensor:
    """What each group's sum is multiplied with: its weight, divided by its positives that have a wrong pair; NaN after the last group."""
    size = 1 if groups is None else groups.size
    group = entries.group[entries.of_positive]
    members = is_member.new_zeros(size).index_add_(0, group, is_member)
    weight = torch.full_like(members, 1 / size)
    if reduction == "positives":
        weight = torch.bincount(group, minlength=size) / members.new_tensor(len(group))
    return torch.cat([weight / members.clamp(min=1), members.new_full((1,), torch.nan)])


def _keep_for_gradient(logits: Tensor, value: Tensor, index: Tensor, gradient: Tensor) -> tuple[Any, ...]:
    return value.clone(), (index, gradient), partial(_gradient_of_logits, logits.shape, logits.dtype)


def _gradient_of_logits(shape: torch.Size, dtype: torch.dtype, index: Tensor, gradient: Tensor, upstream: Tensor) -> Tensor:
    result = gradient.new_zeros(shape.numel(), dtype=dtype)
    result.index_copy_(0, index, (gradient * upstream.to(gradient.dtype)).to(dtype))
    return result.reshape(shape)
