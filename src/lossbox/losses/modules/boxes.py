"""The modules of the losses of boxes and their offsets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .. import box_regression, iou
from .._reduce import Reduction
from .base import BoxLoss, LossModule


@dataclass(kw_only=True, eq=False)
class L1Loss(BoxLoss):
    """Module of ``l1_loss``: called with input and target of one shape."""

    function = staticmethod(box_regression.l1_loss)
    family = "box distance"
    range = "[0, inf)"
    source = "Girshick, Fast R-CNN, ICCV 2015, Sec. 2.3"
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class L2Loss(BoxLoss):
    """Module of ``l2_loss``: called with input and target of one shape."""

    function = staticmethod(box_regression.l2_loss)
    family = "box distance"
    range = "[0, inf)"
    source = "Girshick et al., R-CNN, CVPR 2014, Appendix C"
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class SmoothL1Loss(BoxLoss):
    """Module of ``smooth_l1_loss``: called with input and target of one shape."""

    function = staticmethod(box_regression.smooth_l1_loss)
    family = "box distance"
    range = "[0, inf)"
    source = "Girshick, Fast R-CNN, ICCV 2015, Eq. (3)"
    tuned = ("beta",)
    beta: float | None = None
    sigma: float | None = None
    reduction: Reduction = "mean"

    @classmethod
    def hyperparameters(cls) -> dict[str, int | float]:
        return {"beta": 1.0}  # where neither beta nor sigma is given


@dataclass(kw_only=True, eq=False)
class FasterRCNNSmoothL1Loss(LossModule):
    """Module of ``faster_rcnn_smooth_l1_loss``: called with four tensors of one shape."""

    no_objective = "it asks for weights inside and outside: SmoothL1Loss(sigma=...) is the same loss without them"
    function = staticmethod(box_regression.faster_rcnn_smooth_l1_loss)
    family = "box distance"
    range = "[0, inf)"
    source = "Ren et al., Faster R-CNN, NeurIPS 2015, Eq. (1), regression"
    tuned = ("sigma",)
    sigma: float = 3.0
    dim: int | tuple[int, ...] = (1,)

    def forward(self, input: Tensor, target: Tensor, inside_weights: Tensor, outside_weights: Tensor) -> Tensor:
        loss: Tensor = self.function(input, target, inside_weights, outside_weights, **self.options())
        return loss


@dataclass(kw_only=True, eq=False)
class RPNLoss(LossModule):
    """Module of ``rpn_loss``: called with logits, targets, regression and regression targets of all anchors; -1 is ignored."""

    no_objective = "it has two parts: take SeparateObjective(SigmoidCrossEntropyLoss(), SmoothL1Loss(sigma=3.0))"
    function = staticmethod(box_regression.rpn_loss)
    family = "box distance"
    range = "[0, inf) each part"
    source = "Ren et al., Faster R-CNN, NeurIPS 2015, Eq. (1)"
    tuned = ("sigma", "localization_weight")
    sigma: float = 3.0
    localization_weight: float = 1.0

    def forward(self, logits: Tensor, targets: Tensor, regression: Tensor, regression_targets: Tensor) -> tuple[Tensor, Tensor]:
        loss: tuple[Tensor, Tensor] = self.function(logits, targets, regression, regression_targets, **self.options())
        return loss


@dataclass(kw_only=True, eq=False)
class BalancedL1Loss(BoxLoss):
    """Module of ``balanced_l1_loss``: called with input and target of one shape."""

    function = staticmethod(box_regression.balanced_l1_loss)
    family = "box distance"
    range = "[0, inf)"
    source = "Pang et al., Libra R-CNN, CVPR 2019, Sec. 3.3"
    tuned = ("alpha", "gamma")
    alpha: float = 0.5
    gamma: float = 1.5
    beta: float = 1.0
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class IoULoss(BoxLoss):
    """Module of ``iou_loss``: called with (n, 4) boxes and targets."""

    compares = "boxes"
    function = staticmethod(iou.iou_loss)
    family = "overlap"
    range = "[0, 1]"
    source = "Yu et al., UnitBox, ACM MM 2016, Algorithm 1 (log); Rahman and Wang, ISVC 2016"
    form: Literal["linear", "log", "square"] = "linear"
    reduction: Reduction = "mean"

    @property
    def largest(self) -> float:
        return math.inf if self.form == "log" else 1.0


@dataclass(kw_only=True, eq=False)
class GIoULoss(BoxLoss):
    """Module of ``giou_loss``: called with (n, 4) boxes and targets."""

    compares = "boxes"
    function = staticmethod(iou.giou_loss)
    family = "overlap"
    range = "[0, 2]"
    source = "Rezatofighi et al., GIoU, CVPR 2019, Algorithm 2"
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class DIoULoss(BoxLoss):
    """Module of ``diou_loss``: called with (n, 4) boxes and targets."""

    compares = "boxes"
    function = staticmethod(iou.diou_loss)
    family = "overlap"
    range = "[0, 2]"
    source = "Zheng et al., Distance-IoU Loss, AAAI 2020, Eqs. (5)-(7)"
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class CIoULoss(BoxLoss):
    """Module of ``ciou_loss``: called with (n, 4) boxes and targets."""

    compares = "boxes"
    no_derivative = "the weight of the shape term takes no gradient"
    function = staticmethod(iou.ciou_loss)
    family = "overlap"
    range = "[0, 3]"
    source = "Zheng et al., Distance-IoU Loss, AAAI 2020, Eqs. (8)-(12)"
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class EIoULoss(BoxLoss):
    """Module of ``eiou_loss``: called with (n, 4) boxes and targets."""

    compares = "boxes"
    function = staticmethod(iou.eiou_loss)
    family = "overlap"
    range = "[0, 4]"
    source = "Zhang et al., Focal and Efficient IOU Loss, Neurocomputing 2022, Sec. 3"
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class AlphaIoULoss(BoxLoss):
    """Module of ``alpha_iou_loss``: called with (n, 4) boxes and targets."""

    compares = "boxes"
    function = staticmethod(iou.alpha_iou_loss)
    family = "overlap"
    range = "[0, 1]"
    source = "He et al., Alpha-IoU, NeurIPS 2021, Sec. 3"
    tuned = ("alpha",)
    alpha: float = 3.0
    reduction: Reduction = "mean"
