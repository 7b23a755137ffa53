"""Numbers and runs to tables and pictures: what the commands print and draw.

Needs the extra: ``pip install 'lossbox[train]'`` (matplotlib and rich are imported where they are used).
"""

from .pictures import draw_curves, draw_sheet, read_curves
from .studies import draw_toy, print_toy, toy_loss_table, toy_precision_table
from .tables import (
    COMPARED,
    accuracy_table,
    ap_table,
    olrp_table,
    print_losses,
    print_metrics,
    summarize,
    write_json,
    write_thresholds,
)

__all__ = [
    "COMPARED",
    "accuracy_table",
    "ap_table",
    "draw_curves",
    "draw_sheet",
    "draw_toy",
    "olrp_table",
    "print_losses",
    "print_metrics",
    "print_toy",
    "read_curves",
    "summarize",
    "toy_loss_table",
    "toy_precision_table",
    "write_json",
    "write_thresholds",
]
