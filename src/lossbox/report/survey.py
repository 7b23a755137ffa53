"""A data set as images: a sheet of it with its boxes, and histograms of their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..records import Targets
from ._canvas import name_box, plain, pyplot, sheet


def draw_labels(images: Sequence[Tensor], targets: Sequence[Targets], class_names: Sequence[str], path: Path, *, columns: int = 4) -> Path:
    """Draws images with their true boxes and classes; crowd regions are dotted.

    Args:
        images: (3, h, w) each, in [0, 1].
        targets: one record per image.
        class_names: the name of each label.
        path: where the PNG goes.
        columns: images in a row.

    Returns:
        ``path``.
    """
    plt = pyplot()
    from matplotlib.patches import Rectangle

    figure, panels = sheet([(image.shape[-2], image.shape[-1]) for image in images], columns=columns)
    colors = plt.get_cmap("tab10")
    for panel, image, target in zip(panels, images, targets, strict=True):
        panel.imshow(np.clip(image.permute(1, 2, 0).float().cpu().numpy(), 0, 1))
        panel.set_title(f"image id {target.image_id}", fontsize=6, pad=2)
        for (x1, y1, x2, y2), label, crowd in zip(target.boxes.tolist(), target.labels.tolist(), target.crowd.tolist(), strict=True):
            color, style = colors(label % 10), ":" if crowd else "-"
            panel.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linestyle=style, linewidth=1.4))
            name_box(panel, x1, y1, class_names[label], color=color)
    return _save(figure, path)


def draw_sizes(
    side: Sequence[float], aspect: Sequence[float], counts: dict[str, int], path: Path, *, anchors: Sequence[float] = ()
) -> Path:
    """Draws histograms of the sides and the aspect ratios of boxes, and the number of boxes of each class.

    Args:
        side: ``sqrt(w h)`` of each box, in pixels.
        aspect: ``h / w`` of each box.
        counts: boxes of each class; the 30 most frequent are drawn.
        path: where the PNG goes.

    Returns:
        ``path``.
    """
    plt = pyplot()
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for panel, values, name in ((axes[0], side, "side of the boxes, sqrt(w h), px"), (axes[1], aspect, "height / width")):
        if len(values):
            low, high = max(min(values) * 0.9, 1e-3), max(values) * 1.1
            panel.hist(values, bins=np.geomspace(low, high, 41), color="tab:blue")
        panel.set(xscale="log", xlabel=name, ylabel="boxes")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.3)
    most = sorted(counts.items(), key=lambda entry: -entry[1])[:30][::-1]
    for panel in axes[:2]:
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes[2].set_ylim(-max(1.0, 3 - len(most) / 2), len(most) - 1 + max(1.0, 3 - len(most) / 2))  # a bar alone would fill the panel
    axes[2].barh([plain(name) for name, _ in most], [count for _, count in most], color="tab:blue")
    axes[2].set(xlabel="boxes", title=f"{len(most)} most frequent of {len(counts)} classes" if len(counts) > len(most) else "")
    axes[2].tick_params(axis="y", labelsize=max(4, min(9, 200 // max(len(most), 1))))
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot().close(figure)
    return path
