"""Boxes as plain tensors: overlap, paired and pairwise, the encodings that detectors predict, tiles. ``x1 y1 x2 y2`` in any one unit."""

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
from .tiling import check_tiling, tile_corners

__all__ = [
    "MAX_LOG_SCALE",
    "CellCoder",
    "DeltaCoder",
    "DistanceCoder",
    "PointCoder",
    "box_area",
    "centerness_targets",
    "check_tiling",
    "paired_ciou",
    "paired_diou",
    "paired_eiou",
    "paired_giou",
    "paired_iou",
    "pairwise_intersection",
    "tile_corners",
]
