"""From raw predictions to detections: thresholds, non-maximum suppression, several scales and mirror images."""

from .decoder import Decoder, ScoresAndBoxes, class_scores
from .in_graph import Candidates
from .multi_scale import MultiScale, merge_detections
from .thresholds import read_thresholds, write_thresholds
from .tiles import Tile, merge_tiles, tiles_of

__all__ = [
    "Candidates",
    "Decoder",
    "MultiScale",
    "ScoresAndBoxes",
    "Tile",
    "class_scores",
    "merge_detections",
    "merge_tiles",
    "read_thresholds",
    "tiles_of",
    "write_thresholds",
]
