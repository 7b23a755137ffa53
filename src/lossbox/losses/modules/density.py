"""The modules of the losses that are harmonized by the density of their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from .. import gradient_density
from .._reduce import Reduction
from .base import BoxLoss, ClassificationLoss, LossModule


class _Harmonized(LossModule):
    """Keeps the running density of the gradients, in buffers."""

    count: ClassVar[Callable[..., Tensor]]
    bins: int
    momentum: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self.histogram = gradient_density.RunningHistogram(self.bins, self.momentum)

    def forward(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor | None = None, normalizer: float | Tensor | None = None
    ) -> Tensor:
        options = self.options()
        reduction = options.pop("reduction")
        counts = self.histogram(self.count(prediction, target, weight=weight, **options))
        loss: Tensor = self.function(
            prediction, target, counts=counts, weight=weight, reduction=reduction, normalizer=normalizer, **options
        )
        return loss


@dataclass(kw_only=True, eq=False)
class GHMCLoss(_Harmonized, ClassificationLoss):
    """Module of ``ghm_c_loss`` with a running density: called with logits and targets of one shape; -1 is ignored."""

    function = staticmethod(gradient_density.ghm_c_loss)
    count = staticmethod(gradient_density.ghm_c_histogram)
    family = "gradient density"
    range = "[0, inf)"
    source = "Li et al., Gradient Harmonized Single-stage Detector, AAAI 2019, GHM-C"
    tuned = ("bins", "momentum")
    bins: int = 30
    momentum: float = field(default=0.75, metadata={"option": False})
    reduction: Reduction = "mean"

    def of_batch(self, logits: Tensor, *targets: Tensor, num_positives: Tensor, global_batch: bool) -> Tensor:
        loss: Tensor = self(logits, *targets)  # the mean over all scores: the density has weighted them already
        return loss


@dataclass(kw_only=True, eq=False)
class GHMRLoss(_Harmonized, BoxLoss):
    """Module of ``ghm_r_loss`` with a running density: called with input and target of one shape."""

    function = staticmethod(gradient_density.ghm_r_loss)
    count = staticmethod(gradient_density.ghm_r_histogram)
    family = "gradient density"
    range = "[0, inf)"
    source = "Li et al., Gradient Harmonized Single-stage Detector, AAAI 2019, GHM-R; Eq. (17) for its smooth L1"
    tuned = ("mu", "bins", "momentum")
    mu: float = 0.02
    bins: int = 10
    momentum: float = field(default=0.75, metadata={"option": False})
    reduction: Reduction = "mean"

    def of_positives(self, input: Tensor, target: Tensor, *, num_positives: Tensor) -> Tensor:
        loss: Tensor = self(input, target)  # the mean over all coordinates
        return loss
