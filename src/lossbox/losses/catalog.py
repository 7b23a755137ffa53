"""What there is to choose from: every loss with its family, what it asks to be tuned, its range and its paper.

``hyperparameters`` are those that a user has to tune, in the sense of Table A.11 of Oksuz et al., NeurIPS 2020, with the paper's defaults;
options that only select a form are not among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from . import box_regression, class_balanced, classification, gradient_density, iou, modules, pairwise, quality, ranking


@dataclass(frozen=True)
class CatalogEntry:
    """One loss.

    Attributes:
        function: of tensors.
        module: its nn.Module twin.
        family: "classification", "class-balanced", "gradient density", "quality", "ranking", "box distance" or "overlap".
        range: of the mean or scalar value.
        source: the paper, and the equation where its number is known.
        hyperparameters: name to the paper's default.
    """

    function: Callable[..., Any]
    module: type[nn.Module]
    family: str
    range: str
    source: str
    hyperparameters: Mapping[str, int | float] = field(default_factory=dict)


_FOCAL = "Lin et al., Focal Loss for Dense Object Detection, ICCV 2017"
_CLASS_BALANCED = "Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019"
_GHM = "Li et al., Gradient Harmonized Single-stage Detector, AAAI 2019"
_ALRP = "Oksuz et al., A Ranking-based, Balanced Loss Function, NeurIPS 2020"
_DIOU = "Zheng et al., Distance-IoU Loss, AAAI 2020"

CATALOG: dict[str, CatalogEntry] = {
    # -- classification
    "sigmoid_cross_entropy_loss": CatalogEntry(
        classification.sigmoid_cross_entropy_loss,
        modules.SigmoidCrossEntropyLoss,
        "classification",
        "[0, inf)",
        f"{_FOCAL}, Eqs. (1)-(3)",
    ),
    "softmax_cross_entropy_loss": CatalogEntry(
        classification.softmax_cross_entropy_loss,
        modules.SoftmaxCrossEntropyLoss,
        "classification",
        "[0, inf)",
        "Girshick, Fast R-CNN, ICCV 2015, Sec. 2.3",
    ),
    "focal_loss": CatalogEntry(
        classification.focal_loss,
        modules.FocalLoss,
        "classification",
        "[0, inf)",
        f"{_FOCAL}, Eq. (5)",
        {"alpha": 0.25, "gamma": 2.0},
    ),
    "softmax_focal_loss": CatalogEntry(
        classification.softmax_focal_loss,
        modules.SoftmaxFocalLoss,
        "classification",
        "[0, inf)",
        f"{_FOCAL}, Eq. (5), multi-class",
        {"gamma": 2.0},
    ),
    "dr_loss": CatalogEntry(
        classification.dr_loss,
        modules.DRLoss,
        "classification",
        "(0, inf)",
        "Qian et al., DR Loss, CVPR 2020, Sec. 3",
        {"pos_lambda": 1.0, "neg_lambda": 0.0798, "smoothness": 6.0},
    ),
    # -- class-balanced
    "class_balanced_softmax_loss": CatalogEntry(
        class_balanced.class_balanced_softmax_loss,
        modules.ClassBalancedSoftmaxLoss,
        "class-balanced",
        "[0, inf)",
        f"{_CLASS_BALANCED}, Eq. (8)",
        {"beta": 0.999},
    ),
    "class_balanced_sigmoid_loss": CatalogEntry(
        class_balanced.class_balanced_sigmoid_loss,
        modules.ClassBalancedSigmoidLoss,
        "class-balanced",
        "[0, inf)",
        f"{_CLASS_BALANCED}, Eq. (11)",
        {"beta": 0.999},
    ),
    "class_balanced_focal_loss": CatalogEntry(
        class_balanced.class_balanced_focal_loss,
        modules.ClassBalancedFocalLoss,
        "class-balanced",
        "[0, inf)",
        f"{_CLASS_BALANCED}, Eq. (13)",
        {"beta": 0.999, "gamma": 0.5},
    ),
    # -- gradient density
    "ghm_c_loss": CatalogEntry(
        gradient_density.ghm_c_loss,
        modules.GHMCLoss,
        "gradient density",
        "[0, inf)",
        f"{_GHM}, GHM-C",
        {"bins": 30, "momentum": 0.75},
    ),
    "ghm_r_loss": CatalogEntry(
        gradient_density.ghm_r_loss,
        modules.GHMRLoss,
        "gradient density",
        "[0, inf)",
        f"{_GHM}, GHM-R; Eq. (17) for its smooth L1",
        {"mu": 0.02, "bins": 10, "momentum": 0.75},
    ),
    # -- quality
    "quality_focal_loss": CatalogEntry(
        quality.quality_focal_loss,
        modules.QualityFocalLoss,
        "quality",
        "[0, inf)",
        "Li et al., Generalized Focal Loss, NeurIPS 2020, Eq. (2)",
        {"beta": 2.0},
    ),
    "varifocal_loss": CatalogEntry(
        quality.varifocal_loss,
        modules.VarifocalLoss,
        "quality",
        "[0, inf)",
        "Zhang et al., VarifocalNet, CVPR 2021, Eq. (2)",
        {"alpha": 0.75, "gamma": 2.0},
    ),
    "matchability_aware_loss": CatalogEntry(
        quality.matchability_aware_loss,
        modules.MatchabilityAwareLoss,
        "quality",
        "[0, inf)",
        "Huang et al., DEIM, CVPR 2025, Eq. (3)",
        {"gamma": 1.5},
    ),
    "ia_bce_loss": CatalogEntry(
        quality.ia_bce_loss,
        modules.IABCELoss,
        "quality",
        "[0, inf)",
        "Cai et al., Align-DETR, arXiv:2304.07527v1",
        {"alpha": 0.25, "gamma": 2.0},
    ),
    "correlation_loss": CatalogEntry(
        quality.correlation_loss,
        modules.CorrelationLoss,
        "quality",
        "[0, 2]",
        "Kahraman et al., Correlation Loss, AAAI 2023",
    ),
    # -- ranking
    "ap_loss": CatalogEntry(
        ranking.ap_loss,
        modules.APLoss,
        "ranking",
        "[0, 1]",
        "Chen et al., AP-Loss, TPAMI 2020 (CVPR 2019), Eqs. (4)-(7)",
        {"delta": 1.0},
    ),
    "alrp_loss": CatalogEntry(
        ranking.alrp_loss,
        modules.ALRPLoss,
        "ranking",
        "[0, 1] where the localization errors are",
        f"{_ALRP}, Eqs. (9)-(13)",
        {"delta": 1.0},
    ),
    "ndcg_loss": CatalogEntry(
        ranking.ndcg_loss,
        modules.NDCGLoss,
        "ranking",
        "[0, 1]",
        f"{_ALRP}, Appendix D",
        {"delta": 1.0},
    ),
    "rank_sort_loss": CatalogEntry(
        ranking.rank_sort_loss,
        modules.RankSortLoss,
        "ranking",
        "[0, 1] each part",
        "Oksuz et al., Rank & Sort Loss, ICCV 2021, Eqs. (3)-(11)",
        {"delta": 0.5},
    ),
    "ape_loss": CatalogEntry(
        pairwise.ape_loss,
        modules.APELoss,
        "ranking",
        "[0, inf)",
        "Xu et al., Revisiting AP Loss, CVPR 2022 (arXiv:2207.12042), as in the authors' code",
        {"sharpness": 4.0},
    ),
    # -- box distance
    "l1_loss": CatalogEntry(
        box_regression.l1_loss, modules.L1Loss, "box distance", "[0, inf)", "Girshick, Fast R-CNN, ICCV 2015, Sec. 2.3"
    ),
    "l2_loss": CatalogEntry(
        box_regression.l2_loss, modules.L2Loss, "box distance", "[0, inf)", "Girshick et al., R-CNN, CVPR 2014, Appendix C"
    ),
    "smooth_l1_loss": CatalogEntry(
        box_regression.smooth_l1_loss,
        modules.SmoothL1Loss,
        "box distance",
        "[0, inf)",
        "Girshick, Fast R-CNN, ICCV 2015, Eq. (3)",
        {"beta": 1.0},
    ),
    "faster_rcnn_smooth_l1_loss": CatalogEntry(
        box_regression.faster_rcnn_smooth_l1_loss,
        modules.FasterRCNNSmoothL1Loss,
        "box distance",
        "[0, inf)",
        "Ren et al., Faster R-CNN, NeurIPS 2015, Eq. (1), regression",
        {"sigma": 3.0},
    ),
    "rpn_loss": CatalogEntry(
        box_regression.rpn_loss,
        modules.RPNLoss,
        "box distance",
        "[0, inf) each part",
        "Ren et al., Faster R-CNN, NeurIPS 2015, Eq. (1)",
        {"sigma": 3.0, "localization_weight": 1.0},
    ),
    "balanced_l1_loss": CatalogEntry(
        box_regression.balanced_l1_loss,
        modules.BalancedL1Loss,
        "box distance",
        "[0, inf)",
        "Pang et al., Libra R-CNN, CVPR 2019, Sec. 3.3",
        {"alpha": 0.5, "gamma": 1.5},
    ),
    # -- overlap
    "iou_loss": CatalogEntry(
        iou.iou_loss, modules.IoULoss, "overlap", "[0, 1]", "Yu et al., UnitBox, ACM MM 2016, Algorithm 1 (log); Rahman and Wang, ISVC 2016"
    ),
    "giou_loss": CatalogEntry(iou.giou_loss, modules.GIoULoss, "overlap", "[0, 2]", "Rezatofighi et al., GIoU, CVPR 2019, Algorithm 2"),
    "diou_loss": CatalogEntry(iou.diou_loss, modules.DIoULoss, "overlap", "[0, 2]", f"{_DIOU}, Eqs. (5)-(7)"),
    "ciou_loss": CatalogEntry(iou.ciou_loss, modules.CIoULoss, "overlap", "[0, 3]", f"{_DIOU}, Eqs. (8)-(12)"),
    "eiou_loss": CatalogEntry(
        iou.eiou_loss, modules.EIoULoss, "overlap", "[0, 4]", "Zhang et al., Focal and Efficient IOU Loss, Neurocomputing 2022, Sec. 3"
    ),
    "alpha_iou_loss": CatalogEntry(
        iou.alpha_iou_loss, modules.AlphaIoULoss, "overlap", "[0, 1]", "He et al., Alpha-IoU, NeurIPS 2021, Sec. 3", {"alpha": 3.0}
    ),
}
"""Every loss by the name of its function, by family."""


def count_hyperparameters(*losses: str) -> int:
    """How many numbers a sum of losses asks to be tuned: those of each loss, and a weight for each but the first.

    Args:
        losses: keys of ``CATALOG``.

    Raises:
        ValueError: a loss that is not in the catalog.

    Source:
        Oksuz et al., NeurIPS 2020, Tables 1 and A.11.

    Example:
        >>> count_hyperparameters("alrp_loss"), count_hyperparameters("focal_loss", "smooth_l1_loss")
        (1, 4)
    """
    for name in losses:
        if name not in CATALOG:
            raise ValueError(f"losses: names of the catalog expected, got {name!r}")
    return sum(len(CATALOG[name].hyperparameters) for name in losses) + max(len(losses) - 1, 0)
