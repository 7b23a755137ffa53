"""The positives of a batch, ranked among its positives and negatives: what a ranking loss reads, and how its gradient is attached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..boxes._dtype import upcast
from . import _knots
from ._checks import check_per_positive, check_ranked, check_ranking_input
from ._distributed import Processes, add_up, add_up_intervals, count_positives, highest, join
from ._gradient import keep, with_gradient
from ._groups import GroupReduction, Groups, GroupWord, check_groups, highest_in_group, number_groups
from ._logspace import may_look
from ._pairs import pair_sums, takes_pairs
from ._segments import highest_up


class _State(NamedTuple):
    """What a ``Ranking`` was made of: only its own methods look inside."""

    logits: Tensor
    is_negative: Tensor  # (M,) of the flattened logits
    positives: Tensor  # (own P,) places in the flattened logits
    processes: Processes
    groups: Groups | None
    knots: _knots.Knots
    among_positives: _knots.Located | None  # None where their pairs are taken all at once
    among_negatives: _knots.Located


@dataclass(frozen=True)
class Ranking:
    """Where each of P positives stands, in the order of ``logits[targets == 1]``. All float64, no gradients.

    ``H(x) = clamp(x / (2 delta) + 1/2, 0, 1)``, or ``1[x >= 0]`` where delta is 0. In a global batch the P positives are those of all
    processes, one process's after the other's. With groups, every sum is over the group of i.

    Attributes:
        scores: (P,) s_i.
        true_positives: (P,) ``rank+(i) = 1 + sum_{k in P, k != i} H(s_k - s_i)``.
        false_positives: (P,) ``N_FP(i) = sum_{j in N} H(s_j - s_i)``.
        num_positives: (P,) ``|P|``, that of the group of i where there are groups.
        weight: (P,) what positive i weighs in a mean: ``1/|P|``, or with groups what ``group_reduction`` makes of it; the sum is 1.
        delta: half the width of H.
    """

    scores: Float[Tensor, " p"]
    true_positives: Float[Tensor, " p"]
    false_positives: Float[Tensor, " p"]
    num_positives: Float[Tensor, " p"]
    weight: Float[Tensor, " p"]
    delta: float
    _state: _State

    @property
    def rank(self) -> Float[Tensor, " p"]:
        """(P,) ``rank+(i) + N_FP(i)``."""
        return self.true_positives + self.false_positives

    @property
    def group(self) -> Int[Tensor, " p"] | None:
        """(P,) the number of each positive's group, from 0 on; None where there are no groups."""
        return None if self._state.groups is None else self._state.groups.of_positive

    def __len__(self) -> int:
        return len(self.scores)

    def sum_above(self, values: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
        """(P,) ``sum_{k in P, k != i} H(s_k - s_i) values_k``, for values of one sign."""
        values = values.to(self.scores.dtype)
        knots, located = self._state.knots, self._state.among_positives
        if located is None:
            return pair_sums(self.scores, values[None], self.delta, group=self.group).squeeze(0)
        return _knots.sums_above(knots, _knots.weigh(located, values)) - knots.own_step * values

    def sum_below(self, values: Float[Tensor, " p"], *, hard: bool = False) -> Float[Tensor, " p"]:
        """(P,) ``values_k + sum_{i in P, i != k} H(s_k - s_i) values_i``, for values of one sign; ``hard`` takes 1[x >= 0] for H."""
        values = values.to(self.scores.dtype)
        knots, located = self._state.knots, self._state.among_positives
        if located is None:
            return values + pair_sums(self.scores, values[None], 0.0 if hard else self.delta, group=self.group, below=True).squeeze(0)
        if hard and self.delta > 0:
            knots, located = _locate_positives(self.scores, 0.0, self._state.groups)
        table = _knots.sums_below(knots, values, located.offset.dtype)
        return _knots.evaluate(*table, located.interval, located.offset) + (1 - knots.own_step) * values

    def highest_below(self, values: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
        """(P,) the greatest of ``values_k`` over the positives k that do not outscore i."""
        knots, located = _locate_positives(self.scores, 0.0, self._state.groups)
        ascending = torch.full_like(knots.position, -torch.inf).scatter_(0, knots.low, values.to(self.scores.dtype))
        return highest_up(ascending, knots.segments).index_select(0, (located.interval - 1).clamp_(min=0))  # a NaN is below all

    def join(self, values: Float[Tensor, " own"], name: str = "values") -> Float[Tensor, " p"]:
        """(P,) one value per positive of all processes, from those of this process, in the order of its ``logits[targets == 1]``.

        What an error of your own needs to know of each positive goes through this. Every process must call it, in the same order. The
        gradient that comes back is that at this process's values, times the number of processes. In a ranking of one process the result is
        ``values``.

        Raises:
            ValueError: ``values`` are not one per positive; ``name`` is what the message calls them.
        """
        check_per_positive(values, name, len(self._state.positives))
        return join(self._state.processes, values)

    def weighted_sum(self, values: Float[Tensor, " p"], weight: Float[Tensor, " p"]) -> Float[Tensor, ""]:
        """``sum_i weight_i values_i`` of values that come from ``join``: their gradient is the weight, which takes none."""
        values = upcast(values)
        weight = weight.to(values.dtype)
        processes = self._state.processes
        keep("weight", weight[processes.own] * processes.size)
        return (values * weight).sum()

    def loss(
        self,
        value: Float[Tensor, " p"],
        excess: Float[Tensor, " p"],
        *,
        normalizer: float | None = None,
        pmf: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, ""]:
        """``1/Z sum_i value_i``, with the gradient of the error-driven update.

        It is *defined*: ``-excess_i / Z`` at positive i and ``sum_i excess_i p(j|i) / Z`` at negative j. A positive that no negative
        outranks receives nothing. With groups this is a group's loss, and the result what ``group_reduction`` makes of them.

        Args:
            value: (P,) what is reported.
            excess: (P,) the error less the target error.
            normalizer: Z; ``num_positives`` if not given.
            pmf: phi of ``error_driven_loss``.
        """
        scale = self.weight if normalizer is None else self.weight * self.num_positives / normalizer
        phi, above = (None, self.false_positives) if pmf is None else self._weigh_negatives(pmf)
        total, at_positives, share = _spread(value, excess, above, scale)
        return self._attach(total[None], at_positives[None], share[None], phi).squeeze(0)

    def attach_gradient(
        self, values: Float[Tensor, " v"], at_positives: Float[Tensor, "v p"], to_negatives: Float[Tensor, "v p"]
    ) -> Float[Tensor, " v"]:
        """``values`` with a *defined* gradient each: ``at_positives_i`` at positive i, ``sum_i to_negatives_i p(j|i)`` at negative j."""
        above = self.false_positives
        return self._attach(values, at_positives, to_negatives / torch.where(above == 0, 1.0, above))

    def _attach(self, values: Tensor, at_positives: Tensor, share: Tensor, phi: Tensor | None = None) -> Tensor:
        """The gradient at negative j is ``phi_j sum_i H(s_j - s_i) share_i``."""
        logits = self._state.logits
        if not len(self):
            return _zero(logits, self._state.is_negative, self._state.processes).expand(len(values))
        values = values.to(torch.promote_types(logits.dtype, torch.float32))
        attached: Tensor = with_gradient(_keep_for_gradient, logits, self._state, values, at_positives, share, phi)
        return attached

    def _weigh_negatives(self, pmf: Callable[[Tensor], Tensor]) -> tuple[Tensor | None, Tensor]:
        """phi at every entry, (M,), 0 where it is no negative, and its sum above each positive, (P,)."""
        if not len(self):
            return None, self.false_positives
        logits, negative, processes, groups = self._state.logits, self._state.is_negative, self._state.processes, self._state.groups
        flat = _flat(logits)
        dtype = flat.dtype
        if groups is not None:
            flat = flat.to(self.scores.dtype)
        if processes.size > 1:  # one place more, which is no negative
            flat, negative = (torch.cat([each, each.new_zeros(1)]) for each in (flat, negative))
        # A pmf may look at the maximum of its scores: in the place of those that are no negatives it sees the highest negative of all
        # processes.
        top = highest(processes, torch.where(negative, flat, -torch.inf).max())
        phi = torch.where(negative, pmf(torch.where(negative, flat, top)), 0.0)[: logits.numel()]
        if groups is not None:
            # p(j|i) stays the same if phi is scaled in a group: the greatest becomes 1, so that no group's phi is lost in ``dtype``
            largest = highest(processes, highest_in_group(phi, groups)).index_select(0, groups.of_entry)
            phi = torch.where(largest > 0, phi / largest, 0.0).to(dtype)
        weighed = _knots.weigh(self._state.among_negatives, phi.to(self.scores.dtype))
        return phi, _knots.sums_above(self._state.knots, add_up_intervals(processes, weighed))


@torch.no_grad()
def rank_positives(
    logits: Tensor,
    targets: Tensor,
    *,
    delta: float,
    global_batch: bool = False,
    groups: Tensor | GroupWord | None = None,
    group_reduction: GroupReduction = "mean",
) -> Ranking:
    """Rank the positives of a batch, or of the batches of all processes, among all positives and negatives, or among those of their group.

    Args:
        logits: scores of any shape.
        targets: 1 positive, 0 negative, -1 ignored, of the shape of ``logits``.
        delta: half the width of the smoothed step, >= 0.
        global_batch, groups, group_reduction: of ``error_driven_loss``.

    Raises:
        ValueError: shapes, devices or dtypes that do not fit, delta negative or not finite, targets that are no labels, wrong groups.
    """
    check_ranking_input(logits, targets, delta)
    check_groups(groups, group_reduction, logits)
    flat, positives, is_negative = _flat(logits), positive_index(targets), targets.reshape(-1) == 0
    check_ranked(targets, len(positives), is_negative)
    processes = count_positives(len(positives), flat.device, global_batch)
    numbered = None if groups is None else number_groups(groups, logits.shape, positives, processes)
    scores = join(processes, flat.index_select(0, positives).to(_knots.sum_dtype(flat.device)))
    flat, placed = _knots.close_up(flat, scores, delta)
    if takes_pairs(scores):
        knots, among_positives = _place_knots(placed, delta, numbered), None
        above = pair_sums(scores, None, delta, group=None if numbered is None else numbered.of_positive).squeeze(0)
    else:
        knots, among_positives = _locate_positives(placed, delta, numbered)
        above = _knots.sums_above(knots, among_positives) - knots.own_step
    of_entry = None if numbered is None else numbered.of_entry
    among_negatives = add_up_intervals(processes, _knots.locate(knots, flat, is_negative, of_entry))
    state = _State(logits, is_negative, positives, processes, numbered, knots, among_positives, among_negatives)
    sizes, weight = _weigh_positives(scores, numbered, group_reduction)
    return Ranking(scores, 1 + above, _knots.sums_above(knots, among_negatives), sizes, weight, delta, state)


def _place_knots(scores: Tensor, delta: float, groups: Groups | None) -> _knots.Knots:
    if groups is None:
        return _knots.place_knots(scores, delta)
    return _knots.place_knots(scores, delta, groups.of_positive, groups.size + 1)


def _locate_positives(scores: Tensor, delta: float, groups: Groups | None) -> tuple[_knots.Knots, _knots.Located]:
    """The knots of the positives, and the positives among them."""
    knots = _place_knots(scores, delta, groups)
    return knots, _knots.locate(knots, scores, group=None if groups is None else groups.of_positive)


def _spread(value: Tensor, excess: Tensor, above: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of errors with their scale: the sum of the values; the gradient at each positive; what a negative of weight 1 receives from each."""
    kernels = _knots.kernels_for(above)
    if kernels is not None:
        total, at_positives, share = kernels.spread(value, excess, above, scale)
        return total, at_positives, share
    outranked = above > 0
    amount = torch.where(outranked, excess, 0 * excess) * scale  # NaN stays, for who looks at the gradient alone
    return (value * scale).sum(), -amount, amount / torch.where(outranked, above, 1.0)


def _weigh_positives(scores: Tensor, groups: Groups | None, reduction: GroupReduction) -> tuple[Tensor, Tensor]:
    """``num_positives`` and ``weight`` of a ranking."""
    size = max(len(scores), 1)
    sizes = torch.full_like(scores, size)
    if groups is not None:
        counts = torch.bincount(groups.of_positive, minlength=groups.size)
        sizes = counts.to(scores.dtype).index_select(0, groups.of_positive)
    if groups is None or reduction == "positives":
        return sizes, torch.full_like(scores, 1 / size)
    return sizes, 1 / (groups.size * sizes)


def positive_index(targets: Tensor) -> Tensor:
    """(P,) int64, the places of the positives in the flattened targets: the one wait for the device in a ranking loss."""
    positive = targets.reshape(-1) == 1
    if not may_look(positive):
        return positive.nonzero().squeeze(1)
    # Few of them: eight bytes at a time is eight times as fast, then the eight entries of each that is not 0.
    end = len(positive) - len(positive) % 8
    places = torch.arange(8, device=positive.device) + 8 * positive[:end].view(torch.int64).nonzero()
    places = torch.cat([places.view(-1), torch.arange(end, len(positive), device=positive.device)])
    return places[positive[places]]


def zero_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss without positives: 0 with a live graph whose gradient is 0, and NaN where a logit that counts is NaN."""
    return _zero(logits, targets.reshape(-1) == 0, None)


def _zero(logits: Tensor, is_negative: Tensor, processes: Processes | None) -> Tensor:
    flat = _flat(logits)
    poison = torch.where((flat.isnan() & is_negative).any(), torch.nan, 0.0).to(flat.dtype)
    return upcast(logits.reshape(-1)[:0]).sum() + (poison if processes is None else add_up(processes, poison))


def _keep_for_gradient(
    logits: Tensor, state: _State, values: Tensor, at_positives: Tensor, share: Tensor, phi: Tensor | None
) -> tuple[Tensor, tuple[Tensor | None, ...], Callable[..., Tensor]]:
    saved = (state.among_negatives.interval, state.among_negatives.offset, state.positives, at_positives, share, phi)
    return values.clone(), saved, partial(_gradient_of_logits, logits.shape, state.knots, state.processes)


def _gradient_of_logits(
    shape: torch.Size,
    knots: _knots.Knots,
    processes: Processes,
    interval: Tensor,
    offset: Tensor,
    positives: Tensor,
    at_positives: Tensor,
    share: Tensor,
    phi: Tensor | None,
    upstream: Tensor,
) -> Tensor:
    """The N-sized work of the backward pass: the positives' shares, summed at every negative."""
    upstream = upstream.to(knots.position.dtype)
    if processes.size > 1:
        upstream = upstream * processes.size
    share, own = (part[0] * upstream if len(part) == 1 else (part * upstream[:, None]).sum(0) for part in (share, at_positives))
    table = _knots.sums_below(knots, share, offset.dtype)
    gradient = _knots.evaluate(*table, interval, offset)
    if phi is not None:
        gradient *= phi
    gradient[positives] = own[processes.own].to(gradient.dtype)
    return gradient.reshape(shape)


def _flat(logits: Tensor) -> Tensor:
    """(M,) detached, float32 or float64."""
    return upcast(logits.detach().reshape(-1))
