"""Matplotlib, imported where something is drawn, and what all sheets of images share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = 0.25
"""Inches for the title of an image on a sheet."""


def pyplot() -> Any:
    """Matplotlib without a window."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def sheet(sizes: Sequence[tuple[int, int]], *, columns: int = 4, scale: float = 2.6) -> tuple[Any, list[Any]]:
    """A figure with a panel for each image, without axes; a row is as high as its highest image.

    Args:
        sizes: (height, width) of each image.
        columns: images in a row; fewer where there are fewer images.
        scale: inches of an image's width.

    Returns:
        The figure, and a panel for each image.
    """
    columns = max(1, min(columns, len(sizes)))
    rows = [sizes[start : start + columns] for start in range(0, len(sizes), columns)] or [[(1, 1)]]
    # no higher than wide: a tall image is drawn narrower
    heights = [scale * min(1.0, max(height / width for height, width in row)) + TITLE for row in rows]
    figure, axes = pyplot().subplots(
        len(rows),
        columns,
        figsize=(scale * max(columns, 2), sum(heights) + TITLE),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for panel in axes.flat:
        panel.axis("off")
    return figure, list(axes.flat[: len(sizes)])


def save_figure(figure: Any, path: Path) -> Path:
    """Writes a figure into a file, whose folder is made, and closes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot().close(figure)
    return path


def show_image(panel: Axes, image: Tensor, size: tuple[int, int] | None = None) -> None:
    """Shows an image (3, h, w) in [0, 1]; of a padded one, the upper left part of that height and width."""
    height, width = size or image.shape[-2:]
    panel.imshow(np.clip(image.permute(1, 2, 0).float().cpu().numpy()[:height, :width], 0, 1))


def rectangle(panel: Axes, box: Sequence[float], color: Any, style: str = "-", *, width: float = 1.4) -> None:
    """Draws the border of a box ``x1 y1 x2 y2``."""
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box
    panel.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linestyle=style, linewidth=width))


def name_box(panel: Axes, x: float, y: float, name: str, *, color: Any) -> None:
    """Writes a name above the upper left corner of a box, or into it where the image ends above; call it when the image is drawn."""
    bottom, top = panel.get_ylim()
    above = y - top > 0.06 * (bottom - top)
    label = {"pad": 1.0, "edgecolor": "none", "facecolor": color}
    left = max(x, panel.get_xlim()[0])
    at, align = (y - 1, "bottom") if above else (max(y, top) + 1, "top")
    panel.text(left, at, plain(name), va=align, fontsize=6, color="white", bbox=label, clip_on=True)


def plain(name: str) -> str:
    """A name as plain text: a dollar sign would begin a formula."""
    return name.replace("$", r"\$")
