"""The modules of the later losses of whole boxes."""

from __future__ import annotations

from dataclasses import dataclass

from .. import iou_variants
from .._reduce import Reduction
from .base import BoxLoss


@dataclass(kw_only=True, eq=False)
class BoundedIoULoss(BoxLoss):
    """Module of ``bounded_iou_loss``: called with (n, 4) boxes and targets."""

    compares = "boxes"
    function = staticmethod(iou_variants.bounded_iou_loss)
    family = "overlap"
    range = "[0, 4]"
    source = "Tychsen-Smith and Petersson, Bounded IoU Loss, CVPR 2018"
    tuned = ("beta",)
    beta: float = 0.2
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class NWDLoss(BoxLoss):
    """Module of ``nwd_loss``: called with (n, 4) boxes and targets."""

    compares = "boxes"
    function = staticmethod(iou_variants.nwd_loss)
    family = "overlap"
    range = "[0, 1]"
    source = "Wang et al., Normalized Wasserstein Distance, arXiv:2110.13389, Sec. 3"
    tuned = ("scale",)
    scale: float = 12.8
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class SIoULoss(BoxLoss):
    """Module of ``siou_loss``: called with (n, 4) boxes and targets."""

    compares = "boxes"
    function = staticmethod(iou_variants.siou_loss)
    family = "overlap"
    range = "[0, 3]"
    source = "Gevorgyan, SIoU Loss, arXiv:2205.12740, Sec. 2"
    tuned = ("theta",)
    theta: float = 4.0
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class WIoULoss(BoxLoss):
    """Module of ``wiou_loss``: called with (n, 4) boxes and targets."""

    compares = "boxes"
    no_derivative = "the box around both takes no gradient"
    function = staticmethod(iou_variants.wiou_loss)
    family = "overlap"
    range = "[0, 2.71829]"
    source = "Tong et al., Wise-IoU, arXiv:2301.10051, version 1"
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class MPDIoULoss(BoxLoss):
    """Module of ``mpdiou_loss``: called with (n, 4) boxes and targets."""

    compares = "boxes"
    function = staticmethod(iou_variants.mpdiou_loss)
    family = "overlap"
    range = "[0, inf)"
    source = "Ma and Xu, MPDIoU, arXiv:2307.07662, Sec. 3"
    image_size: tuple[float, float] = (640.0, 640.0)
    reduction: Reduction = "mean"


@dataclass(kw_only=True, eq=False)
class InnerIoULoss(BoxLoss):
    """Module of ``inner_iou_loss``: called with (n, 4) boxes and targets."""

    compares = "boxes"
    function = staticmethod(iou_variants.inner_iou_loss)
    family = "overlap"
    range = "[0, 1]"
    source = "Zhang et al., Inner-IoU, arXiv:2311.02877, Sec. 3"
    tuned = ("ratio",)
    ratio: float = 0.7
    reduction: Reduction = "mean"
