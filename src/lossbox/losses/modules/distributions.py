"""The modules of the losses of boxes that are predicted as distributions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .. import distributions
from .._reduce import Reduction
from .base import LossModule


class _OfRows(LossModule):
    """Called with (n, bins) logits and a number for each row."""

    no_objective = "no detector here refines distributions of box sides"

    def forward(self, logits: Tensor, target: Tensor, *, weight: Tensor | None = None, normalizer: float | Tensor | None = None) -> Tensor:
        loss: Tensor = self.function(logits, target, weight=weight, normalizer=normalizer, **self.options())
        return loss


@dataclass(kw_only=True, eq=False)
class DistributionFocalLoss(_OfRows):
    """Module of ``distribution_focal_loss``: called with (n, bins) logits and (n,) distances; -1 is ignored."""

    no_objective = "it is a part beside a box loss: WithDistribution adds it to an objective"
    function = staticmethod(distributions.distribution_focal_loss)
    family = "distribution"
    range = "[0, inf)"
    source = "Li et al., Generalized Focal Loss, NeurIPS 2020, Eq. (6)"
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class FineGrainedLocalizationLoss(_OfRows):
    """Module of ``fine_grained_localization_loss``: called with (n, bins) logits and (n,) offsets."""

    function = staticmethod(distributions.fine_grained_localization_loss)
    family = "distribution"
    range = "[0, inf)"
    source = "Peng et al., D-FINE, ICLR 2025 (arXiv:2410.13842), FGL"
    tuned = ("a", "c")
    a: float = 0.5
    c: float = 0.25
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class DecoupledDistillationLoss(LossModule):
    """Module of ``decoupled_distillation_loss``: called with logits, teacher, targets and confidence of n rows; -1 is ignored."""

    no_objective = _OfRows.no_objective
    function = staticmethod(distributions.decoupled_distillation_loss)
    family = "distribution"
    range = "[0, inf)"
    source = "Peng et al., D-FINE, ICLR 2025 (arXiv:2410.13842), DDF"
    tuned = ("temperature",)
    temperature: float = 5.0

    def forward(self, logits: Tensor, teacher: Tensor, targets: Tensor, confidence: Tensor) -> Tensor:
        loss: Tensor = self.function(logits, teacher, targets, confidence, **self.options())
        return loss
