"""Boxes as plain tensors: overlap, paired and pairwise, and the encodings that detectors predict. ``x1 y1 x2 y2`` in any one unit."""

from .coding import MAX_LOG_SCALE, CellCoder, DeltaCoder, DistanceCoder, PointCoder, centerness_targets
from .overlap import (
    box_area,
    paired_ciou,
    paired_diou,
    paired_eiou,
    paired_giou,
    paired_iou,
    pairwise_intersection,
)

__all__ = [
    "MAX_LOG_SCALE",
    "CellCoder",
    "DeltaCoder",
    "DistanceCoder",
    "PointCoder",
    "box_area",
    "centerness_targets",
    "paired_ciou",
    "paired_diou",
    "paired_eiou",
    "paired_giou",
    "paired_iou",
    "pairwise_intersection",
]
