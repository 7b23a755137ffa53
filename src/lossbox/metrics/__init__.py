"""COCO average precision, optimal LRP, and how well scores order boxes by quality: from files, from columns, or image by image.

Importing this needs torch and numpy only; average precision needs hotcoco when it is computed. The torchmetrics class is
``lossbox.metrics.torchmetric.OptimalLRP``.
"""

from ..coco.columns import DetectionColumns, GroundTruth, read_ground_truth
from ..coco.results import read_results
from .average_precision import AveragePrecision, average_precision, interpolated_precision, tide_errors
from .calibration import ANY_OVERLAP, Calibration, CalibrationError, fit_calibration, localization_aware_calibration_error
from .comparison import compare_detections
from .correlation import pearson, reorder_true_positive_scores, score_bounds, score_iou_correlation
from .cost import CostOptimum, cost_optimal_threshold, cost_optimal_thresholds
from .errors import error_shares
from .evaluator import Evaluator, evaluate, numbers_of, to_json
from .lrp import LRP, LRPCurve, LRPOptimum, lrp, lrp_curve, optimal_lrp, optimal_lrp_per_class
from .matching import Matches, match_detections
from .slices import parts_by_attribute, parts_by_name, slice_by_area, slice_by_images

__all__ = [
    "ANY_OVERLAP",
    "LRP",
    "AveragePrecision",
    "Calibration",
    "CalibrationError",
    "CostOptimum",
    "DetectionColumns",
    "Evaluator",
    "GroundTruth",
    "LRPCurve",
    "LRPOptimum",
    "Matches",
    "average_precision",
    "compare_detections",
    "cost_optimal_threshold",
    "cost_optimal_thresholds",
    "error_shares",
    "evaluate",
    "fit_calibration",
    "interpolated_precision",
    "localization_aware_calibration_error",
    "lrp",
    "lrp_curve",
    "match_detections",
    "numbers_of",
    "optimal_lrp",
    "optimal_lrp_per_class",
    "parts_by_attribute",
    "parts_by_name",
    "pearson",
    "read_ground_truth",
    "read_results",
    "reorder_true_positive_scores",
    "score_bounds",
    "score_iou_correlation",
    "slice_by_area",
    "slice_by_images",
    "tide_errors",
    "to_json",
]
