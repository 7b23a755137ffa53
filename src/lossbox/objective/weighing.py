"""How the two tasks of a detector are weighed against each other: by a constant, by the self-balance, or by weights that are learned."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..losses import SelfBalance, UncertaintyWeights
from .base import Part
from .positives import mean_over_processes

Weighing = SelfBalance | UncertaintyWeights | float


def make_weighing(localization_weight: float, *, self_balance: bool, uncertainty_weights: bool) -> Weighing:
    """The weighing that the options of an objective ask for.

    Raises:
        ValueError: both at once; a weight that is negative or not finite, or 0 where it only starts.
    """
    if not 0 <= localization_weight < float("inf"):
        raise ValueError(f"localization_weight: a finite number >= 0 expected, got {localization_weight}")
    if self_balance and uncertainty_weights:
        raise ValueError("self_balance, uncertainty_weights: one of them expected, got both")
    if (self_balance or uncertainty_weights) and not localization_weight:
        raise ValueError("localization_weight: a number > 0 expected where it is the first of a weight that moves, got 0")
    if uncertainty_weights:
        return UncertaintyWeights(2, [1.0, localization_weight])
    return SelfBalance(localization_weight) if self_balance else localization_weight


def weighed(
    weighing: Weighing, classification: Float[Tensor, ""], localization: Float[Tensor, ""], num_positives: int, *, training: bool
) -> dict[str, Part]:
    """The parts with their weights; "uncertainty" is the part of learned weights, ``sum_t s_t``.

    In training a step enters the means of the self-balance, as those of all processes, so that all remember the same. A step counts where
    any process has a positive.
    """
    if isinstance(weighing, UncertaintyWeights):
        of_scores, of_boxes = weighing.factors().unbind()
        return {
            "classification": Part(classification, of_scores),
            "localization": Part(localization, of_boxes),
            "uncertainty": Part(weighing.log_variance.sum()),
        }
    weight: Tensor | float
    if isinstance(weighing, SelfBalance):
        if training:
            step = torch.stack([classification.detach(), localization.detach(), classification.new_full((), num_positives)])
            means = mean_over_processes(step, training=True)
            weighing.update(means[0], means[1], counts=means[2] > 0)
        weight = weighing.weight.clone()  # the epoch may change it
    else:
        weight = weighing
    return {"classification": Part(classification), "localization": Part(localization, weight)}
