"""The modules of the losses of class scores that rank nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import class_balanced, classification, quality
from .._reduce import Reduction
from .base import ElementwiseLoss, ImageLoss, LossModule


@dataclass(kw_only=True, eq=False)
class SigmoidCrossEntropyLoss(ElementwiseLoss):
    """Module of ``sigmoid_cross_entropy_loss``: called with logits and targets of one shape; -1 is ignored."""

    function = staticmethod(classification.sigmoid_cross_entropy_loss)
    family = "classification"
    range = "[0, inf)"
    source = "Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eqs. (1)-(3)"
    alpha: float | None = None
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class FocalLoss(ElementwiseLoss):
    """Module of ``focal_loss``: called with logits and targets of one shape; -1 is ignored."""

    function = staticmethod(classification.focal_loss)
    family = "classification"
    range = "[0, inf)"
    source = "Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. (5)"
    tuned = ("alpha", "gamma")
    alpha: float | None = 0.25
    gamma: float = 2.0
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class DRLoss(ImageLoss):
    """Module of ``dr_loss``: called with the logits and targets of one image; -1 is ignored."""

    function = staticmethod(classification.dr_loss)
    family = "classification"
    range = "(0, inf)"
    source = "Qian et al., DR Loss, CVPR 2020, Sec. 3"
    tuned = ("pos_lambda", "neg_lambda", "smoothness")
    pos_lambda: float = 1.0
    neg_lambda: float = 0.1 / math.log(3.5)
    smoothness: float = 6.0
    tau: float = 4.0
    margin: float = 0.5


class _ClassWeighted(LossModule):
    """Keeps the weights of the classes in the buffer ``weights``, which moves with the module."""

    weights: Tensor | None
    no_objective = "its classes exclude each other, and a detector here scores each class by itself: SigmoidCrossEntropyLoss or FocalLoss"

    def forward(self, logits: Tensor, targets: Tensor, *, weight: Tensor | None = None, normalizer: float | Tensor | None = None) -> Tensor:
        loss: Tensor = self.function(logits, targets, class_weights=self.weights, weight=weight, normalizer=normalizer, **self.options())
        return loss


@dataclass(kw_only=True, eq=False)
class _SoftmaxLoss(_ClassWeighted):
    class_weights: list[float] | None = field(default=None, metadata={"option": False})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.register_buffer("weights", None if self.class_weights is None else torch.tensor(self.class_weights))


@dataclass(kw_only=True, eq=False)
class SoftmaxCrossEntropyLoss(_SoftmaxLoss):
    """Module of ``softmax_cross_entropy_loss``: called with (n, C) logits and (n,) classes; -1 is ignored."""

    function = staticmethod(classification.softmax_cross_entropy_loss)
    family = "classification"
    range = "[0, inf)"
    source = "Girshick, Fast R-CNN, ICCV 2015, Sec. 2.3"
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class SoftmaxFocalLoss(_SoftmaxLoss):
    """Module of ``softmax_focal_loss``: called with (n, C) logits and (n,) classes; -1 is ignored."""

    function = staticmethod(classification.softmax_focal_loss)
    family = "classification"
    range = "[0, inf)"
    source = "Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. (5), multi-class"
    tuned = ("gamma",)
    gamma: float = 2.0
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class _ClassBalancedLoss(_ClassWeighted):
    counts: list[float] = field(metadata={"option": False})
    beta: float = field(default=0.999, metadata={"option": False})
    normalize: bool = field(default=True, metadata={"option": False})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.register_buffer("weights", class_balanced.class_balanced_weights(self.counts, beta=self.beta, normalize=self.normalize))


@dataclass(kw_only=True, eq=False)
class ClassBalancedSoftmaxLoss(_ClassBalancedLoss):
    """Module of ``class_balanced_softmax_loss`` of the training set's ``counts``: called with (n, C) logits and classes; -1 is ignored."""

    function = staticmethod(class_balanced.class_balanced_softmax_loss)
    family = "class-balanced"
    range = "[0, inf)"
    source = "Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, Eq. (8)"
    tuned = ("beta",)
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class ClassBalancedSigmoidLoss(_ClassBalancedLoss):
    """Module of ``class_balanced_sigmoid_loss`` of the training set's ``counts``: called with (n, C) logits and classes; -1 is ignored."""

    function = staticmethod(class_balanced.class_balanced_sigmoid_loss)
    family = "class-balanced"
    range = "[0, inf)"
    source = "Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, Eq. (11)"
    tuned = ("beta",)
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class ClassBalancedFocalLoss(_ClassBalancedLoss):
    """Module of ``class_balanced_focal_loss`` of the training set's ``counts``: called with (n, C) logits and classes; -1 is ignored."""

    function = staticmethod(class_balanced.class_balanced_focal_loss)
    family = "class-balanced"
    range = "[0, inf)"
    source = "Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, Eq. (13)"
    tuned = ("beta", "gamma")
    gamma: float = 0.5
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class QualityFocalLoss(ElementwiseLoss):
    """Module of ``quality_focal_loss``: called with logits and qualities of one shape; -1 is ignored."""

    targets = ("ious",)
    function = staticmethod(quality.quality_focal_loss)
    family = "quality"
    range = "[0, inf)"
    source = "Li et al., Generalized Focal Loss, NeurIPS 2020, Eq. (2)"
    tuned = ("beta",)
    beta: float = 2.0
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class VarifocalLoss(ElementwiseLoss):
    """Module of ``varifocal_loss``: called with logits and qualities of one shape; -1 is ignored."""

    targets = ("ious",)
    function = staticmethod(quality.varifocal_loss)
    family = "quality"
    range = "[0, inf)"
    source = "Zhang et al., VarifocalNet, CVPR 2021, Eq. (2)"
    tuned = ("alpha", "gamma")
    alpha: float = 0.75
    gamma: float = 2.0
    detach_weight: bool = False
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class MatchabilityAwareLoss(ElementwiseLoss):
    """Module of ``matchability_aware_loss``: called with logits, targets and qualities of one shape; -1 is ignored."""

    targets = ("labels", "ious")
    function = staticmethod(quality.matchability_aware_loss)
    family = "quality"
    range = "[0, inf)"
    source = "Huang et al., DEIM, CVPR 2025, Eq. (3)"
    tuned = ("gamma",)
    gamma: float = 1.5
    detach_weight: bool = True
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class IABCELoss(ElementwiseLoss):
    """Module of ``ia_bce_loss``: called with logits, targets and qualities of one shape; -1 is ignored."""

    targets = ("labels", "ious")
    no_derivative = "the target depends on the score and takes no gradient"
    function = staticmethod(quality.ia_bce_loss)
    family = "quality"
    range = "[0, inf)"
    source = "Cai et al., Align-DETR, arXiv:2304.07527v1"
    tuned = ("alpha", "gamma")
    alpha: float = 0.25
    gamma: float = 2.0
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class GIoUAwareLoss(ElementwiseLoss):
    """Module of ``giou_aware_loss``: called with logits, targets and qualities of one shape; -1 is ignored."""

    targets = ("labels", "ious")
    function = staticmethod(quality.giou_aware_loss)
    family = "quality"
    range = "[0, inf)"
    source = "Pu et al., Rank-DETR, NeurIPS 2023 (arXiv:2310.08854)"
    tuned = ("alpha", "gamma")
    alpha: float = 0.25
    gamma: float = 2.0
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class CorrelationLoss(LossModule):
    """Module of ``correlation_loss``: called with (p,) logits and qualities of the positives."""

    no_objective = "it is added to another classification loss and sees the positives alone"
    function = staticmethod(quality.correlation_loss)
    family = "quality"
    range = "[0, 2]"
    source = "Kahraman et al., Correlation Loss, AAAI 2023"

    def forward(self, logits: Tensor, quality: Tensor) -> Tensor:
        loss: Tensor = self.function(logits, quality)
        return loss
