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
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes._dtype import upcast
from ._checks import check_per_positive, check_ranking_input
from ._gradient import with_gradient
from ._knots import sum_dtype
from ._logspace import softplus
from ._ranking import positive_index, zero_loss

PAIRS = 1 << 20
"""Pairs handled at a time, or all those of one positive where they are more: what the temporaries take."""


def ape_loss(
    logits: Float[Tensor, ...], targets: Tensor, quality: Float[Tensor, " p"], *, sharpness: float = 4.0, cutoff: float = 4.0
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

    Returns:
        A scalar >= 0; 0 with a live graph where there are no positives or no pairs.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit; sharpness or cutoff not positive, sharpness not finite.

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
    positives = positive_index(targets)
    check_per_positive(quality, "quality", len(positives))
    if not len(positives):
        return zero_loss(logits, targets)
    sums = _sum_pairs(logits, targets, quality, positives, sharpness, cutoff)
    value: Tensor = with_gradient(_keep_for_gradient, logits, *sums)
    return value


@torch.no_grad()
def _sum_pairs(
    logits: Tensor, targets: Tensor, quality: Tensor, positives: Tensor, sharpness: float, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The value, (P + R,) places in the flattened logits and the gradient there: one pass over blocks of positives, the lowest first."""
    flat, labels = upcast(logits.reshape(-1)), targets.reshape(-1)
    scores, order = flat.index_select(0, positives).sort()
    ranked = quality.detach()[order]
    y = upcast(ranked).to(flat.dtype)
    reach = scores - cutoff / sharpness  # what scores more than this counts
    negatives, negative_index, counts, lengths = _within_reach(flat, labels, reach)

    exact = sum_dtype(flat.device)
    place = torch.arange(len(negatives), device=flat.device)
    received, total, members = (torch.zeros(shape, dtype=exact, device=flat.device) for shape in (len(place) + len(scores), (), ()))
    start, size = 0, len(scores)
    while start < size:
        near = lengths[start]
        block = slice(start, start + max(1, PAIRS // (near + size)))
        # Columns: the negatives that count for any row of the block, then all positives.
        worse = ranked < ranked[block, None]
        counted = torch.cat([place[:near] < counts[block, None], scores > reach[block, None]], 1)
        x = (torch.cat([negatives[:near], scores]) - scores[block, None]) * sharpness
        x.masked_fill_(~counted, -torch.inf)
        above, distance = torch.sigmoid(x), softplus(x)
        weight = y[block] / above.sum(1, dtype=exact)
        above[:, near:] *= worse
        distance[:, near:] *= worse
        counted[:, near:] &= worse

        members += counted.any(1).sum()
        total += (weight * distance.sum(1, dtype=exact)).sum()
        received[len(place) :][block] -= weight * above.sum(1, dtype=exact)
        above *= weight.to(above.dtype)[:, None]
        spread = above.sum(0, dtype=exact)
        received[:near] += spread[:near]
        received[len(place) :] += spread[near:]
        start = block.stop

    scale = 1 / members.clamp(min=1)
    value = (total * scale / sharpness).to(flat.dtype)
    return value, torch.cat([negative_index, positives[order]]), received * scale


def _within_reach(flat: Tensor, labels: Tensor, reach: Tensor) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """The negatives that count for any positive, in descending order; their places; how many of the first count for each positive.

    The last comes twice, as (P,) and as a list: the second of the two waits for the device, after that of ``positive_index``.
    """
    candidates = torch.where(labels == 0, flat, -torch.inf)
    # By the positives in front of this place. NaN comes after everything, so it is counted and the loss is NaN.
    seen_by = torch.searchsorted(reach, candidates)
    histogram = torch.zeros(len(reach) + 1, dtype=torch.int64, device=flat.device)
    histogram.scatter_add_(0, seen_by, torch.ones_like(seen_by))
    counts = histogram.flip(0).cumsum(0).flip(0)[1:]
    lengths = counts.tolist()
    negatives, index = candidates.topk(lengths[0])
    return negatives, index, counts, lengths


def _keep_for_gradient(logits: Tensor, value: Tensor, index: Tensor, gradient: Tensor) -> tuple[Any, ...]:
    return value.clone(), (index, gradient), partial(_gradient_of_logits, logits.shape, logits.dtype)


def _gradient_of_logits(shape: torch.Size, dtype: torch.dtype, index: Tensor, gradient: Tensor, upstream: Tensor) -> Tensor:
    result = gradient.new_zeros(shape.numel(), dtype=dtype)
    result.index_copy_(0, index, (gradient * upstream.to(gradient.dtype)).to(dtype))
    return result.reshape(shape)
