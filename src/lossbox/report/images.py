"""A run as images: the curves of its training, and its detections on photographs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ..records import Detections, Targets
from ._canvas import name_box, pyplot, rectangle, save_figure, sheet, show_image
from .log import read_curves

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
    return save_figure(figure, run / "curves.png")


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
    figure, panels = sheet([target.size for target in targets], columns=columns)
    colors = pyplot().get_cmap("tab10")
    for panel, image, target, found in zip(panels, images, targets, detections, strict=True):
        show_image(panel, image, target.size)
        for box in target.boxes.tolist():
            rectangle(panel, box, "black", width=0.6)  # under the white dashes, which a bright image would hide
            rectangle(panel, box, "white", "--")
        # the best last: its name is the one that can be read where two overlap
        for box, score, label in reversed(list(zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True))):
            least = thresholds.get(label, math.inf) if isinstance(thresholds, Mapping) else thresholds
            if score >= least:
                color = colors(label % 10)
                rectangle(panel, box, color)
                name_box(panel, box[0], box[1], f"{class_names[label]} {score:.2f}", color=color)
    figure.suptitle("solid: predicted, with class and score; dashed: true", fontsize=9)
    return save_figure(figure, path)
