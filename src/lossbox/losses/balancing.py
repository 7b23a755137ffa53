"""How much each part of a loss, and each positive, weighs: the self-balance of aLRP and its rivals.

``SelfBalance`` and ``UncertaintyWeights`` weigh the tasks against each other; what they remember or learn is state of a module.
``CARLWeights`` and ``RankingWeights`` weigh the boxes of the positives against each other (soft sampling), whatever the box loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from ..boxes._dtype import upcast
from ._checks import check_delta, check_per_positive, check_ranking_input
from ._distributed import count_positives, join
from ._ranking import positive_index, rank_positives


class SelfBalance(nn.Module):
    """Multiplies the localization loss so that both tasks have gradients of one size.

    ``weight = mean(L_cls + L_loc) / mean(L_loc)``, both means over the previous period (an epoch) and over all processes;
    ``initial_weight`` in the first period. All state is in buffers: a checkpoint holds the sums of an unfinished period too, so that
    resuming is exact.

    Args:
        initial_weight: > 0, the weight of the first period; the paper's 50 (its value has little effect, Table 4).

    Raises:
        ValueError: initial_weight is not a finite number > 0.

    Source:
        Oksuz et al., NeurIPS 2020, Sec. 4.2 and Appendix F.3.

    Example:
        >>> balance = SelfBalance()
        >>> balance(torch.tensor(0.1))
        tensor(5.)
        >>> balance.update(torch.tensor(0.3), torch.tensor(0.1))
        >>> balance.end_period()
        >>> balance.weight
        tensor(4.)
    """

    weight: Tensor
    """The factor in force, a scalar."""
    sum_classification: Tensor
    sum_localization: Tensor

    def __init__(self, initial_weight: float = 50.0) -> None:
        super().__init__()
        if not 0 < initial_weight < float("inf"):
            raise ValueError(f"initial_weight: must be a finite number > 0, got {initial_weight}")
        self.register_buffer("weight", torch.tensor(float(initial_weight)))
        self.register_buffer("sum_classification", torch.tensor(0.0))
        self.register_buffer("sum_localization", torch.tensor(0.0))

    def forward(self, localization: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """``weight * localization``; log the unweighted one."""
        return self.weight * localization

    @torch.no_grad()
    def update(self, classification: Float[Tensor, ""], localization: Float[Tensor, ""], counts: bool | Tensor = True) -> None:
        """Take a training step's unweighted losses into the sums.

        Args:
            classification: L_cls, a scalar.
            localization: L_loc, a scalar.
            counts: False (or a boolean scalar tensor) for a batch without positives: it says nothing about the balance. So does a step
                whose losses are not finite: it is left out.
        """
        counted = torch.isfinite(classification) & torch.isfinite(localization) & counts
        self.sum_classification += torch.where(counted, classification, 0.0)
        self.sum_localization += torch.where(counted, localization, 0.0)

    @torch.no_grad()
    def end_period(self) -> None:
        """Put the next period's weight in force. Every process must call it; all then hold the same weight.

        The weight stays as it was after a period without a counted step, or one whose mean localization loss is 0.
        """
        sums = torch.stack([self.sum_classification, self.sum_localization])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        classification, localization = sums
        known = localization > 0
        self.weight.copy_(torch.where(known, (classification + localization) / torch.where(known, localization, 1.0), self.weight))
        self.sum_classification.zero_()
        self.sum_localization.zero_()


class UncertaintyWeights(nn.Module):
    """Weights of several tasks that are learned with the network: ``sum_t exp(-s_t) L_t + s_t``, s_t a parameter of each task.

    Where the network is trained to the end, ``exp(-s_t) = 1 / L_t``: each task then counts alike, and the value is ``sum_t 1 + log L_t``.
    The parameters must reach the optimizer, without weight decay; they follow its learning rate, so the weights need many steps to arrive.

    Args:
        num_tasks: T >= 1.
        initial_weights: T numbers > 0, exp(-s_t) at the start; 1 each by default.

    Raises:
        ValueError: fewer than one task; weights that are not as many finite numbers > 0.

    Source:
        Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty, CVPR 2018, with s_t = log sigma_t^2 and without the factors
        1/2, which there depend on the kind of a task; in a detector: Chabot et al., LapNet, arXiv 1911.01149.

    Example:
        >>> weights = UncertaintyWeights(2)
        >>> weights([torch.tensor(0.5), torch.tensor(2.0)])
        tensor(2.5000, grad_fn=<SumBackward0>)
        >>> weights.factors()
        tensor([1., 1.], grad_fn=<ExpBackward0>)
    """

    def __init__(self, num_tasks: int = 2, initial_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        given = [1.0] * num_tasks if initial_weights is None else list(initial_weights)
        if num_tasks < 1:
            raise ValueError(f"num_tasks: a number >= 1 expected, got {num_tasks}")
        if len(given) != num_tasks or not all(0 < weight < float("inf") for weight in given):
            raise ValueError(f"initial_weights: {num_tasks} finite numbers > 0 expected, got {given}")
        self.log_variance = nn.Parameter(-torch.tensor(given).log())

    def factors(self) -> Float[Tensor, " t"]:
        """``exp(-s_t)``, the weight of each task, with gradient."""
        return torch.exp(-self.log_variance)

    def forward(self, losses: Sequence[Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """``sum_t exp(-s_t) L_t + s_t``; log the unweighted losses.

        Raises:
            ValueError: not one loss for each task.
        """
        if len(losses) != len(self.log_variance):
            raise ValueError(f"losses: one for each of {len(self.log_variance)} tasks expected, got {len(losses)}")
        return (self.factors() * torch.stack(list(losses)) + self.log_variance).sum()


@dataclass(frozen=True)
class CARLWeights:
    """Weighs the box loss of each positive by its score: ``L = sum_i w_i l_i``, ``w_i = v_i / sum_k v_k``, ``v_i = (b + (1 - b) p_i)^k``.

    The mean of the box losses where all scores are equal. A gradient also flows to the scores: a positive whose box is worse than the
    weighted mean is pushed down, one whose box is better is pushed up.

    Args:
        bias: b in [0, 1]; 1 weighs all alike.
        power: k >= 0.

    Raises:
        ValueError: an option out of its range; shapes that do not fit.

    Source:
        Cao et al., Prime Sample Attention in Object Detection, CVPR 2020 (arXiv 1904.04821): the classification-aware regression loss
        (CARL) with its k = 1 and b = 0.2; as soft sampling, with b = 0: Oksuz et al., NeurIPS 2020, Eq. (A.44).

    Example:
        >>> logits, targets = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1, 0, 1])
        >>> CARLWeights()(logits, targets, torch.tensor([0.2, 0.4]))
        tensor(0.3000)
    """

    bias: float = 0.2
    power: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.bias <= 1:
            raise ValueError(f"bias: a number in [0, 1] expected, got {self.bias}")
        if not 0 <= self.power < float("inf"):
            raise ValueError(f"power: a finite number >= 0 expected, got {self.power}")

    def __call__(self, logits: Tensor, targets: Tensor, values: Float[Tensor, " p"], *, global_batch: bool = False) -> Float[Tensor, ""]:
        """The weighted sum.

        Args:
            logits: scores, any shape.
            targets: 1 positive, 0 negative, -1 ignored, of the shape of ``logits``.
            values: (P,) the box loss of each positive, in the order of ``logits[targets == 1]``.
            global_batch: over the positives of all processes, as in ``alrp_loss``.

        Returns:
            A scalar; 0 with a live graph where there are no positives.
        """
        check_ranking_input(logits, targets, 0.0)
        positive = positive_index(targets)
        check_per_positive(values, "values", len(positive))
        processes = count_positives(len(positive), logits.device, global_batch)
        scores = join(processes, upcast(logits.reshape(-1)[positive]).sigmoid())
        values = upcast(join(processes, values))
        v = (self.bias + (1 - self.bias) * scores) ** self.power
        return (v * values).sum() / v.sum().clamp(min=torch.finfo(v.dtype).tiny)


@dataclass(frozen=True)
class RankingWeights:
    """Weighs the box loss of each positive by its place in the ranking, as aLRP does: ``L = sum_i w_i l_i``.

    ``w_i = 1/|P| sum_{k in P: s_i >= s_k} 1 / rank(k)``, constant in the logits: a box counts in the error of each positive that does not
    outscore it, the more the fewer negatives stand above. The weights sum to the precision, averaged over the positives: to 1 at most.

    Args:
        delta: half the width of the smoothed step in rank(k), as in ``alrp_loss``.

    Raises:
        ValueError: delta negative or not finite; shapes that do not fit.

    Source:
        Oksuz et al., NeurIPS 2020, Eq. (A.46).

    Example:
        >>> logits, targets = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1, 0, 1])
        >>> RankingWeights(delta=0.0)(logits, targets, torch.tensor([0.2, 0.6]))
        tensor(0.2333)
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        check_delta(self.delta)

    def __call__(self, logits: Tensor, targets: Tensor, values: Float[Tensor, " p"], *, global_batch: bool = False) -> Float[Tensor, ""]:
        """The weighted sum; arguments and result as of ``CARLWeights``. No gradient flows to the logits."""
        ranking = rank_positives(logits, targets, delta=self.delta, global_batch=global_batch)
        weight = ranking.sum_below(1 / ranking.rank, hard=True) / max(len(ranking), 1)
        nothing = upcast(logits.reshape(-1)[:0]).sum()  # a live graph for the logits too
        return ranking.weighted_sum(ranking.join(values, "values"), weight) + nothing
