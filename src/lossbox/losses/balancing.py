"""The self-balance of aLRP: the one part of a loss that has to remember something."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


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
