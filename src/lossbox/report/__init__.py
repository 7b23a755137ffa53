"""Numbers and runs to tables, images and one HTML page: what the commands print and draw.

Needs the extra: ``pip install 'lossbox[train]'`` (matplotlib, plotly and rich are imported where they are used).
"""

from .comparison import report_command
from .confusion import confusion_matrix
from .images import draw_assignment, draw_sheet, draw_validation
from .log import read_curves, read_log, write_results
from .loss_axes import Axis
from .loss_curves import LossCurves, axis_of, curves_of, draw_loss, plot_loss, trace
from .page import page_content, render_page, write_page
from .rates import draw_rates
from .runs import Run, find_runs, names_of, read_run, write_validation
from .studies import check_lines, difference_table, draw_study, print_study
from .tables import (
    COMPARED,
    accuracy_table,
    print_metrics,
    write_json,
)

__all__ = [
    "COMPARED",
    "Axis",
    "LossCurves",
    "Run",
    "accuracy_table",
    "axis_of",
    "check_lines",
    "confusion_matrix",
    "curves_of",
    "difference_table",
    "draw_assignment",
    "draw_loss",
    "draw_rates",
    "draw_sheet",
    "draw_study",
    "draw_validation",
    "find_runs",
    "names_of",
    "page_content",
    "plot_loss",
    "print_metrics",
    "print_study",
    "read_curves",
    "read_log",
    "read_run",
    "render_page",
    "report_command",
    "trace",
    "write_json",
    "write_page",
    "write_results",
    "write_validation",
]
