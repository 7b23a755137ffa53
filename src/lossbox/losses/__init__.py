"""Losses as functions of tensors, and an nn.Module of each."""

from ._checks import debug_checks
from ._ranking import Ranking
from .balancing import SelfBalance
from .box_regression import (
    RPNTerms,
    balanced_l1_loss,
    faster_rcnn_smooth_l1_loss,
    l1_loss,
    l2_loss,
    rpn_loss,
    smooth_l1_loss,
)
from .catalog import CATALOG, count_hyperparameters
from .class_balanced import (
    class_balanced_focal_loss,
    class_balanced_sigmoid_loss,
    class_balanced_softmax_loss,
    class_balanced_weights,
)
from .classification import dr_loss, focal_loss, sigmoid_cross_entropy_loss, softmax_cross_entropy_loss, softmax_focal_loss
from .error_driven import error_driven_loss, skewed_pmf
from .gradient_density import RunningHistogram, ghm_c_histogram, ghm_c_loss, ghm_r_histogram, ghm_r_loss
from .iou import alpha_iou_loss, ciou_loss, diou_loss, eiou_loss, giou_loss, iou_loss
from .keypoints import keypoint_focal_loss, offset_loss, pull_loss, push_loss
from .modules.base import (
    BoxLoss,
    ClassificationLoss,
    LossModule,
)
from .modules.boxes import (
    AlphaIoULoss,
    BalancedL1Loss,
    CIoULoss,
    DIoULoss,
    EIoULoss,
    FasterRCNNSmoothL1Loss,
    GIoULoss,
    IoULoss,
    L1Loss,
    L2Loss,
    RPNLoss,
    SmoothL1Loss,
)
from .modules.classification import (
    ClassBalancedFocalLoss,
    ClassBalancedSigmoidLoss,
    ClassBalancedSoftmaxLoss,
    CorrelationLoss,
    DRLoss,
    FocalLoss,
    IABCELoss,
    MatchabilityAwareLoss,
    QualityFocalLoss,
    SigmoidCrossEntropyLoss,
    SoftmaxCrossEntropyLoss,
    SoftmaxFocalLoss,
    VarifocalLoss,
)
from .modules.custom import (
    CustomBoxLoss,
    CustomClassificationLoss,
)
from .modules.density import (
    GHMCLoss,
    GHMRLoss,
)
from .modules.keypoints import KeypointFocalLoss, OffsetLoss, PullLoss, PushLoss
from .modules.ranking import (
    ALRPLoss,
    APELoss,
    APLoss,
    NDCGLoss,
    RankSortLoss,
)
from .pairwise import ape_loss
from .quality import correlation_loss, ia_bce_loss, matchability_aware_loss, quality_focal_loss, varifocal_loss
from .ranking import ALRPTerms, RankSortTerms, alrp_loss, ap_loss, ndcg_loss, rank_sort_loss

__all__ = [
    "CATALOG",
    "ALRPLoss",
    "ALRPTerms",
    "APELoss",
    "APLoss",
    "AlphaIoULoss",
    "BalancedL1Loss",
    "BoxLoss",
    "CIoULoss",
    "ClassBalancedFocalLoss",
    "ClassBalancedSigmoidLoss",
    "ClassBalancedSoftmaxLoss",
    "ClassificationLoss",
    "CorrelationLoss",
    "CustomBoxLoss",
    "CustomClassificationLoss",
    "DIoULoss",
    "DRLoss",
    "EIoULoss",
    "FasterRCNNSmoothL1Loss",
    "FocalLoss",
    "GHMCLoss",
    "GHMRLoss",
    "GIoULoss",
    "IABCELoss",
    "IoULoss",
    "KeypointFocalLoss",
    "L1Loss",
    "L2Loss",
    "LossModule",
    "MatchabilityAwareLoss",
    "NDCGLoss",
    "OffsetLoss",
    "PullLoss",
    "PushLoss",
    "QualityFocalLoss",
    "RPNLoss",
    "RPNTerms",
    "RankSortLoss",
    "RankSortTerms",
    "Ranking",
    "RunningHistogram",
    "SelfBalance",
    "SigmoidCrossEntropyLoss",
    "SmoothL1Loss",
    "SoftmaxCrossEntropyLoss",
    "SoftmaxFocalLoss",
    "VarifocalLoss",
    "alpha_iou_loss",
    "alrp_loss",
    "ap_loss",
    "ape_loss",
    "balanced_l1_loss",
    "ciou_loss",
    "class_balanced_focal_loss",
    "class_balanced_sigmoid_loss",
    "class_balanced_softmax_loss",
    "class_balanced_weights",
    "correlation_loss",
    "count_hyperparameters",
    "debug_checks",
    "diou_loss",
    "dr_loss",
    "eiou_loss",
    "error_driven_loss",
    "faster_rcnn_smooth_l1_loss",
    "focal_loss",
    "ghm_c_histogram",
    "ghm_c_loss",
    "ghm_r_histogram",
    "ghm_r_loss",
    "giou_loss",
    "ia_bce_loss",
    "iou_loss",
    "keypoint_focal_loss",
    "l1_loss",
    "l2_loss",
    "matchability_aware_loss",
    "ndcg_loss",
    "offset_loss",
    "pull_loss",
    "push_loss",
    "quality_focal_loss",
    "rank_sort_loss",
    "rpn_loss",
    "sigmoid_cross_entropy_loss",
    "skewed_pmf",
    "smooth_l1_loss",
    "softmax_cross_entropy_loss",
    "softmax_focal_loss",
    "varifocal_loss",
]
