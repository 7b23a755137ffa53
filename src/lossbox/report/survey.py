"""A data set as images: a sheet of it with its boxes, and histograms of their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ..records import Targets
from ._canvas import name_box, plain, pyplot, rectangle, save_figure, sheet, show_image


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
    figure, panels = sheet([(image.shape[-2], image.shape[-1]) for image in images], columns=columns)
    colors = pyplot().get_cmap("tab10")
    for panel, image, target in zip(panels, images, targets, strict=True):
        show_image(panel, image)
        panel.set_title(f"image id {target.image_id}", fontsize=6, pad=2)
        for box, label, crowd in zip(target.boxes.tolist(), target.labels.tolist(), target.crowd.tolist(), strict=True):
            color = colors(label % 10)
            rectangle(panel, box, color, ":" if crowd else "-")
            name_box(panel, box[0], box[1], class_names[label], color=color)
    return save_figure(figure, path)


def draw_sizes(side: Sequence[float], aspect: Sequence[float], counts: dict[str, int], path: Path) -> Path:
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
    return save_figure(figure, path)
