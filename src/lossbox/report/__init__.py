"""Numbers and runs to tables and images: what the commands print and draw.

Needs the extra: ``pip install 'lossbox[train]'`` (matplotlib and rich are imported where they are used).
"""

from .evaluation import (
    draw_evaluation,
    draw_lrp,
    draw_precision_recall,
    draw_reliability,
    draw_score_iou,
    print_bounds,
)
from .images import draw_curves, draw_sheet
from .log import read_curves, read_log, write_results
from .loss_axes import Axis
from .loss_curves import LossCurves, axis_of, curves_of, draw_loss, plot_loss, trace
from .run import confusion_matrix, draw_assignment, draw_confusion_matrix, draw_validation
from .studies import draw_toy, print_toy
from .tables import (
    COMPARED,
    accuracy_table,
    print_metrics,
    summarize,
    write_json,
)

__all__ = [
    "COMPARED",
    "Axis",
    "LossCurves",
    "accuracy_table",
    "axis_of",
    "confusion_matrix",
    "curves_of",
    "draw_assignment",
    "draw_confusion_matrix",
    "draw_curves",
    "draw_evaluation",
    "draw_loss",
    "draw_lrp",
    "draw_precision_recall",
    "draw_reliability",
    "draw_score_iou",
    "draw_sheet",
    "draw_toy",
    "draw_validation",
    "plot_loss",
    "print_bounds",
    "print_metrics",
    "print_toy",
    "read_curves",
    "read_log",
    "summarize",
    "trace",
    "write_json",
    "write_results",
]
