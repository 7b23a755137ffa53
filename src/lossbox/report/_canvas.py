"""Matplotlib, imported where something is drawn."""

from __future__ import annotations

from typing import Any


def pyplot() -> Any:
    """Matplotlib without a window."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
