"""Which box each anchor, or each point of a detector without anchors, is trained on.

Every rule but one-to-one matching works on all boxes of the batch at once, and reads no value back from an accelerator; nothing here takes
a gradient.

Crowd regions are treated alike by all rules: a crowd is never matched, and an anchor that lies in it with at least half of its area and is
matched to no other box is ignored. The anchor of a point is the square around it that stands in ``RawPredictions.anchors``.
"""

from .anchors import ATSSAssigner, OverlapAssigner, SampledAssigner, assign_atss, assign_by_overlap
from .points import CellAssigner, CenterAssigner, FoveaAssigner, assign_by_center, assign_fovea, assign_to_cell
from .predictions import HungarianAssigner, TaskAlignedAssigner, assign_task_aligned, match_one_to_one

__all__ = [
    "ATSSAssigner",
    "CellAssigner",
    "CenterAssigner",
    "FoveaAssigner",
    "HungarianAssigner",
    "OverlapAssigner",
    "SampledAssigner",
    "TaskAlignedAssigner",
    "assign_atss",
    "assign_by_center",
    "assign_by_overlap",
    "assign_fovea",
    "assign_task_aligned",
    "assign_to_cell",
    "match_one_to_one",
]
