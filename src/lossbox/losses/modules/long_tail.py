"""The modules of the losses for long tails, which keep what they have to know of each class."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import long_tail
from .._reduce import Reduction
from .base import ClassificationLoss, LossModule


class _PerClass(LossModule):
    """Called with logits and targets; its function takes a number for each class beside them."""

    @abstractmethod
    def of_classes(self, logits: Tensor, targets: Tensor) -> Tensor: ...

    def forward(self, logits: Tensor, targets: Tensor, *, weight: Tensor | None = None, normalizer: float | Tensor | None = None) -> Tensor:
        numbers = self.of_classes(logits.detach(), targets)
        loss: Tensor = self.function(logits, targets, numbers, weight=weight, normalizer=normalizer, **self.options())
        return loss


class _OfSigmoid(_PerClass, ClassificationLoss):
    def of_batch(self, logits: Tensor, *targets: Tensor, num_positives: Tensor, global_batch: bool) -> Tensor:
        loss: Tensor = self(logits, *targets, normalizer=num_positives)
        return loss


@dataclass(kw_only=True, eq=False)
class _Counts(_PerClass):
    """Keeps the counts of the training set in a buffer, which moves with the module."""

    counts: list[float] = field(metadata={"option": False})
    class_counts: Tensor = field(init=False, repr=False, metadata={"option": False})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.register_buffer("class_counts", torch.as_tensor(self.counts))

    def of_classes(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.class_counts


@dataclass(kw_only=True, eq=False)
class SeesawLoss(_Counts):
    """Module of ``seesaw_loss`` of the training set's ``counts``: called with (n, C) logits and (n,) classes; -1 is ignored."""

    no_objective = "its classes exclude each other, and a detector here scores each class by itself: EqualizationLossV2 or FederatedLoss"
    no_derivative = "the compensation factor takes no gradient"
    function = staticmethod(long_tail.seesaw_loss)
    family = "long tail"
    range = "[0, inf)"
    source = "Wang et al., Seesaw Loss, CVPR 2021, Eqs. (3)-(6)"
    tuned = ("p", "q")
    p: float = 0.8
    q: float = 2.0
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class _Equalized(_OfSigmoid):
    """Keeps the summed gradients of each class, of training only."""

    num_classes: int = field(metadata={"option": False})
    alpha: float = 4.0
    gamma: float = 12.0
    mu: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gradients = long_tail.RunningGradients(self.num_classes)

    def of_classes(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The ratio before this batch, whose own gradients are added in training."""
        ratio = self.gradients.ratio()
        if self.training:
            self.gradients.add(logits, targets, *long_tail.equalized_weights(ratio, alpha=self.alpha, gamma=self.gamma, mu=self.mu))
        return ratio


@dataclass(kw_only=True, eq=False)
class EqualizationLossV2(_Equalized):
    """Module of ``equalization_loss_v2`` with running gradients: called with logits and targets of one shape; -1 is ignored."""

    function = staticmethod(long_tail.equalization_loss_v2)
    family = "long tail"
    range = "[0, inf)"
    source = "Tan et al., Equalization Loss v2, CVPR 2021, Eqs. (5)-(8)"
    tuned = ("alpha", "gamma", "mu")
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class FederatedLoss(_Counts, _OfSigmoid):
    """Module of ``federated_loss`` of the training set's ``counts``: called with logits and targets of one shape; -1 is ignored."""

    function = staticmethod(long_tail.federated_loss)
    family = "long tail"
    range = "[0, inf)"
    source = "Zhou et al., Probabilistic Two-Stage Detection, arXiv:2103.07461, LVIS"
    tuned = ("number",)
    number: int = field(default=50, metadata={"option": False})
    reduction: Reduction = "mean"

    def of_classes(self, logits: Tensor, targets: Tensor) -> Tensor:
        long_tail.check_per_class("counts", self.class_counts, logits)
        present = (targets == 1).flatten(0, -2).any(0)
        return long_tail.sample_classes(present, self.class_counts, number=self.number)
