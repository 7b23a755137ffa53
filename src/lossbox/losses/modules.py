"""The nn.Module twin of each loss function, so that a recipe can name it: options in the constructor, tensors in the call.

A twin is the list of its options, which are the function's own with the same defaults. ``weight`` and ``normalizer`` belong to a batch and
are given in the call; so does ``global_batch``, which a training step may ask for and a validation that one rank runs alone may not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from . import box_regression, class_balanced, classification, gradient_density, iou, pairwise, quality, ranking
from ._reduce import Reduction
from ._twin import ElementwiseTwin, ImageTwin, QualityTwin, RankingTwin, Twin

# -- classification ------------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class SigmoidCrossEntropyLoss(ElementwiseTwin):
    """Twin of ``sigmoid_cross_entropy_loss``: called with logits and targets of one shape; -1 is ignored."""

    function = staticmethod(classification.sigmoid_cross_entropy_loss)
    alpha: float | None = None
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class FocalLoss(ElementwiseTwin):
    """Twin of ``focal_loss``: called with logits and targets of one shape; -1 is ignored."""

    function = staticmethod(classification.focal_loss)
    alpha: float | None = 0.25
    gamma: float = 2.0
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class DRLoss(ImageTwin):
    """Twin of ``dr_loss``: called with the logits and targets of one image; -1 is ignored."""

    function = staticmethod(classification.dr_loss)
    pos_lambda: float = 1.0
    neg_lambda: float = 0.1 / math.log(3.5)
    smoothness: float = 6.0
    tau: float = 4.0
    margin: float = 0.5


class _ClassWeighted(Twin):
    """Keeps the weights of the classes in the buffer ``weights``, which moves with the module."""

    weights: Tensor | None

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
    """Twin of ``softmax_cross_entropy_loss``: called with (n, C) logits and (n,) classes; -1 is ignored."""

    function = staticmethod(classification.softmax_cross_entropy_loss)
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class SoftmaxFocalLoss(_SoftmaxLoss):
    """Twin of ``softmax_focal_loss``: called with (n, C) logits and (n,) classes; -1 is ignored."""

    function = staticmethod(classification.softmax_focal_loss)
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
    """Twin of ``class_balanced_softmax_loss`` of the training set's ``counts``: called with (n, C) logits, (n,) classes; -1 is ignored."""

    function = staticmethod(class_balanced.class_balanced_softmax_loss)
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class ClassBalancedSigmoidLoss(_ClassBalancedLoss):
    """Twin of ``class_balanced_sigmoid_loss`` of the training set's ``counts``: called with (n, C) logits, (n,) classes; -1 is ignored."""

    function = staticmethod(class_balanced.class_balanced_sigmoid_loss)
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class ClassBalancedFocalLoss(_ClassBalancedLoss):
    """Twin of ``class_balanced_focal_loss`` of the training set's ``counts``: called with (n, C) logits, (n,) classes; -1 is ignored."""

    function = staticmethod(class_balanced.class_balanced_focal_loss)
    gamma: float = 0.5
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class QualityFocalLoss(ElementwiseTwin):
    """Twin of ``quality_focal_loss``: called with logits and qualities of one shape; -1 is ignored."""

    function = staticmethod(quality.quality_focal_loss)
    beta: float = 2.0
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class VarifocalLoss(ElementwiseTwin):
    """Twin of ``varifocal_loss``: called with logits and qualities of one shape; -1 is ignored."""

    function = staticmethod(quality.varifocal_loss)
    alpha: float = 0.75
    gamma: float = 2.0
    detach_weight: bool = False
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class MatchabilityAwareLoss(QualityTwin):
    """Twin of ``matchability_aware_loss``: called with logits, targets and qualities of one shape; -1 is ignored."""

    function = staticmethod(quality.matchability_aware_loss)
    gamma: float = 1.5
    detach_weight: bool = True
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class IABCELoss(QualityTwin):
    """Twin of ``ia_bce_loss``: called with logits, targets and qualities of one shape; -1 is ignored."""

    function = staticmethod(quality.ia_bce_loss)
    alpha: float = 0.25
    gamma: float = 2.0
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class CorrelationLoss(Twin):
    """Twin of ``correlation_loss``: called with (p,) logits and qualities of the positives."""

    function = staticmethod(quality.correlation_loss)

    def forward(self, logits: Tensor, quality: Tensor) -> Tensor:
        loss: Tensor = self.function(logits, quality)
        return loss


class _Harmonized(Twin):
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
class GHMCLoss(_Harmonized):
    """Twin of ``ghm_c_loss`` with a running density: called with logits and targets of one shape; -1 is ignored."""

    function = staticmethod(gradient_density.ghm_c_loss)
    count = staticmethod(gradient_density.ghm_c_histogram)
    bins: int = 30
    momentum: float = field(default=0.75, metadata={"option": False})
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class GHMRLoss(_Harmonized):
    """Twin of ``ghm_r_loss`` with a running density: called with input and target of one shape."""

    function = staticmethod(gradient_density.ghm_r_loss)
    count = staticmethod(gradient_density.ghm_r_histogram)
    mu: float = 0.02
    bins: int = 10
    momentum: float = field(default=0.75, metadata={"option": False})
    reduction: Reduction = "mean"


# -- ranking -------------------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class APLoss(RankingTwin):
    """Twin of ``ap_loss``: called with logits and targets of one shape; -1 is ignored."""

    function = staticmethod(ranking.ap_loss)
    delta: float = 1.0
    interpolated: bool = False


@dataclass(kw_only=True, eq=False)
class NDCGLoss(RankingTwin):
    """Twin of ``ndcg_loss``: called with logits and targets of one shape; -1 is ignored."""

    function = staticmethod(ranking.ndcg_loss)
    delta: float = 1.0


@dataclass(kw_only=True, eq=False)
class ALRPLoss(Twin):
    """Twin of ``alrp_loss``: called with logits and targets of one shape and the positives' (p,) localization errors; -1 is ignored."""

    function = staticmethod(ranking.alrp_loss)
    delta: float = 1.0
    smooth_localization: bool = False

    def forward(self, logits: Tensor, targets: Tensor, localization_error: Tensor, *, global_batch: bool = False) -> tuple[Tensor, Tensor]:
        loss: tuple[Tensor, Tensor] = self.function(logits, targets, localization_error, global_batch=global_batch, **self.options())
        return loss


@dataclass(kw_only=True, eq=False)
class RankSortLoss(Twin):
    """Twin of ``rank_sort_loss``: called with logits and targets of one shape and the (p,) qualities of the positives; -1 is ignored."""

    function = staticmethod(ranking.rank_sort_loss)
    delta: float = 0.5

    def forward(self, logits: Tensor, targets: Tensor, quality: Tensor, *, global_batch: bool = False) -> tuple[Tensor, Tensor]:
        loss: tuple[Tensor, Tensor] = self.function(logits, targets, quality, global_batch=global_batch, **self.options())
        return loss


@dataclass(kw_only=True, eq=False)
class APELoss(Twin):
    """Twin of ``ape_loss``: called with logits and targets of one shape and the (p,) qualities of the positives; -1 is ignored."""

    function = staticmethod(pairwise.ape_loss)
    sharpness: float = 4.0
    cutoff: float = 4.0

    def forward(self, logits: Tensor, targets: Tensor, quality: Tensor) -> Tensor:
        loss: Tensor = self.function(logits, targets, quality, **self.options())
        return loss


# -- box regression ------------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class L1Loss(ElementwiseTwin):
    """Twin of ``l1_loss``: called with input and target of one shape."""

    function = staticmethod(box_regression.l1_loss)
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class L2Loss(ElementwiseTwin):
    """Twin of ``l2_loss``: called with input and target of one shape."""

    function = staticmethod(box_regression.l2_loss)
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class SmoothL1Loss(ElementwiseTwin):
    """Twin of ``smooth_l1_loss``: called with input and target of one shape."""

    function = staticmethod(box_regression.smooth_l1_loss)
    beta: float | None = None
    sigma: float | None = None
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class FasterRCNNSmoothL1Loss(Twin):
    """Twin of ``faster_rcnn_smooth_l1_loss``: called with four tensors of one shape."""

    function = staticmethod(box_regression.faster_rcnn_smooth_l1_loss)
    sigma: float = 3.0
    dim: int | tuple[int, ...] = (1,)

    def forward(self, input: Tensor, target: Tensor, inside_weights: Tensor, outside_weights: Tensor) -> Tensor:
        loss: Tensor = self.function(input, target, inside_weights, outside_weights, **self.options())
        return loss


@dataclass(kw_only=True, eq=False)
class RPNLoss(Twin):
    """Twin of ``rpn_loss``: called with logits, targets, regression and regression targets of all anchors; -1 is ignored."""

    function = staticmethod(box_regression.rpn_loss)
    sigma: float = 3.0
    localization_weight: float = 1.0

    def forward(self, logits: Tensor, targets: Tensor, regression: Tensor, regression_targets: Tensor) -> tuple[Tensor, Tensor]:
        loss: tuple[Tensor, Tensor] = self.function(logits, targets, regression, regression_targets, **self.options())
        return loss


@dataclass(kw_only=True, eq=False)
class BalancedL1Loss(ElementwiseTwin):
    """Twin of ``balanced_l1_loss``: called with input and target of one shape."""

    function = staticmethod(box_regression.balanced_l1_loss)
    alpha: float = 0.5
    gamma: float = 1.5
    beta: float = 1.0
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class IoULoss(ElementwiseTwin):
    """Twin of ``iou_loss``: called with (n, 4) boxes and targets."""

    function = staticmethod(iou.iou_loss)
    form: Literal["linear", "log", "square"] = "linear"
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class GIoULoss(ElementwiseTwin):
    """Twin of ``giou_loss``: called with (n, 4) boxes and targets."""

    function = staticmethod(iou.giou_loss)
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class DIoULoss(ElementwiseTwin):
    """Twin of ``diou_loss``: called with (n, 4) boxes and targets."""

    function = staticmethod(iou.diou_loss)
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class CIoULoss(ElementwiseTwin):
    """Twin of ``ciou_loss``: called with (n, 4) boxes and targets."""

    function = staticmethod(iou.ciou_loss)
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class EIoULoss(ElementwiseTwin):
    """Twin of ``eiou_loss``: called with (n, 4) boxes and targets."""

    function = staticmethod(iou.eiou_loss)
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class AlphaIoULoss(ElementwiseTwin):
    """Twin of ``alpha_iou_loss``: called with (n, 4) boxes and targets."""

    function = staticmethod(iou.alpha_iou_loss)
    alpha: float = 3.0
    reduction: Reduction = "mean"
