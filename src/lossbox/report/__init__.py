"""Numbers and runs to tables and pictures: what the commands print and draw.

Needs the extra: ``pip install 'lossbox[train]'`` (matplotlib and rich are imported where they are used).
"""

from .pictures import draw_curves, draw_sheet, read_curves
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
    "olrp_table",
    "print_losses",
    "print_metrics",
    "read_curves",
    "summarize",
    "write_json",
    "write_thresholds",
]
