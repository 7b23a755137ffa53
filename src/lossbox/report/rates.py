"""The loss against the learning rate of a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ._canvas import pyplot, save_figure


def draw_rates(path: Path, rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], found: float) -> Path:
    """Draws the loss of each step of a search, its running mean, and the rate that was found.

    Args:
        path: where the PNG goes; its folder is made.
        rates: of the steps, rising.
        losses: of the steps.
        smoothed: their running mean.
        found: the rate.

    Returns:
        ``path``.
    """
    figure, panel = pyplot().subplots(figsize=(7, 4), layout="constrained")
    panel.plot(rates, losses, color="0.75", linewidth=0.8, label="each step")
    panel.plot(rates, smoothed, color="tab:blue", label="running mean")
    panel.axvline(found, color="tab:orange", label=f"found: {found:g}")
    panel.set(xscale="log", xlabel="learning rate", ylabel="sum of the parts of the loss")
    panel.legend()
    return save_figure(figure, path)
