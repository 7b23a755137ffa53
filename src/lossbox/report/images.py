"""A run as images: the curves of its training, and its detections on photographs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..records import Detections, Targets
from ._canvas import name_box, pyplot, sheet
from .log import read_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_METRICS = ("val/AP", "val/AP50", "val/AP75", "val/oLRP")


def draw_curves(run: Path) -> Path:
    """Draws the loss parts, the self-balance weight, the gradient balance and the metrics of a run into ``run/curves.png``."""
    plt = pyplot()
    curves = read_curves(run)
    losses = {name.split("/")[1] for name in curves if name.startswith("train/")} - {"total"}
    chosen = {
        "Loss parts, unweighted": [name for name in curves if name.split("/")[-1] in losses and not name.startswith("weight/")],
        "Weight of each part (the self-balance)": [name for name in curves if name.startswith("weight/")],
        "Gradient balance: negatives / positives": [name for name in curves if name == "gradient_balance"],
        "Validation": [name for name in curves if name in _METRICS],
    }
    figure, axes = plt.subplots(2, 2, figsize=(12, 7), sharex=True, layout="constrained")
    for panel, (title, names) in zip(axes.flat, chosen.items(), strict=True):
        for name in names:
            steps, values = curves[name]
            panel.plot(steps, values, label=name, marker="." if len(steps) < 60 else None, linewidth=1.2)
        panel.set(title=title, xlabel="step")
        panel.tick_params(labelbottom=True)
        panel.grid(alpha=0.3)
        if names:
            panel.legend()
    balance = axes[1, 0]
    balance.axhline(1.0, color="black", linewidth=0.8, linestyle="--")
    low, high = balance.get_ylim()
    balance.set_ylim(min(low, 0.9), max(high, 1.1))  # the last digits of an exact balance are no news
    path = run / "curves.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def draw_sheet(
    images: Sequence[Tensor],
    targets: Sequence[Targets],
    detections: Sequence[Detections],
    class_names: Sequence[str],
    path: Path,
    *,
    columns: int = 4,
    thresholds: Mapping[int, float] | float = 0.5,
) -> Path:
    """Draws images with their predicted boxes (solid, with class and score) and their true boxes (dashed).

    Args:
        images: (3, h, w) each, in [0, 1].
        targets: one record per image; their boxes are dashed.
        detections: one record per image, in the frame of ``images``; solid.
        class_names: the name of each label.
        path: where the PNG goes.
        columns: images in a row.
        thresholds: draw detections with at least this score; by label where a mapping is given (a label it lacks is not drawn).

    Returns:
        ``path``.
    """
    plt = pyplot()
    figure, panels = sheet([target.size for target in targets], columns=columns)
    colors = plt.get_cmap("tab10")
    for panel, image, target, found in zip(panels, images, targets, detections, strict=True):
        height, width = target.size
        panel.imshow(np.clip(image.permute(1, 2, 0).float().cpu().numpy()[:height, :width], 0, 1))
        for box in target.boxes.tolist():
            _rectangle(panel, box, "black", "-", width=0.6)  # under the white dashes, which a bright image would hide
            _rectangle(panel, box, "white", "--")
        # the best last: its name is the one that can be read where two overlap
        for box, score, label in reversed(list(zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True))):
            least = thresholds.get(label, math.inf) if isinstance(thresholds, Mapping) else thresholds
            if score >= least:
                color = colors(label % 10)
                _rectangle(panel, box, color, "-")
                name_box(panel, box[0], box[1], f"{class_names[label]} {score:.2f}", color=color)
    figure.suptitle("solid: predicted, with class and score; dashed: true", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _rectangle(panel: Axes, box: Sequence[float], color: Any, style: str, *, width: float = 1.4) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box
    panel.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linestyle=style, linewidth=width))
