"""A run as images: its first training batch with the anchors that it trains, and its detections on photographs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..metrics import DetectionColumns, GroundTruth
from ..records import IGNORE, Assignment, Detections, RawPredictions, Targets
from ._canvas import name_box, pyplot, rectangle, save_figure, sheet, show_image


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


def draw_validation(
    path: Path,
    truth: GroundTruth,
    found: DetectionColumns,
    metrics: Mapping[str, Any],
    images: Sequence[Tensor],
    targets: Sequence[Targets],
) -> Path:
    """Draws some images of a validation, predicted and true, each class cut at its LRP-optimal score.

    The scores of ranking losses are not probabilities. A class without a true positive has no such score, and nothing of it is drawn.

    Args:
        path: where the PNG goes.
        truth: the annotations of the images that were validated.
        found: the detections in them.
        metrics: of these two, from :func:`lossbox.metrics.evaluate`.
        images: (3, h, w) each, in [0, 1]: the images to show.
        targets: one record for each of them; those that were not validated are not drawn.

    Returns:
        ``path``.
    """
    thresholds = [row["threshold"] for row in metrics["per_class"]]
    # a hair lower: a score that equals its cut must not fall below it in float32
    cuts = {label: cut * (1 - 1e-6) for label, cut in enumerate(thresholds) if not math.isnan(cut)}
    drawn = [index for index, target in enumerate(targets) if target.image_id in truth.image_ids]
    images, targets = [images[index] for index in drawn], [targets[index] for index in drawn]
    detections = [_detections_in(target, truth, found) for target in targets]
    return draw_sheet(images, targets, detections, truth.category_names, path, thresholds=cuts)


def _detections_in(target: Targets, truth: GroundTruth, found: DetectionColumns) -> Detections:
    """The detections of one image, in the frame of its targets."""
    rows = np.flatnonzero(truth.image_ids[found.image] == target.image_id)
    boxes = torch.from_numpy(found.boxes[rows]).float()
    boxes[:, 2:] += boxes[:, :2]
    detections = Detections(boxes, torch.from_numpy(found.scores[rows]).float(), torch.from_numpy(found.category[rows]))
    return detections.resized(target.original_size, target.size)


def draw_assignment(
    images: Sequence[Tensor],
    targets: Sequence[Targets],
    predictions: RawPredictions,
    assignment: Assignment,
    class_names: Sequence[str],
    path: Path,
    *,
    columns: int = 4,
    scale: float = 3.4,
) -> Path:
    """Draws training images with their boxes and, in the color of each, the centers of the anchors that are trained on it.

    Args:
        images: (3, h, w) each, in [0, 1].
        targets: one record per image.
        predictions: about these images; its anchors are drawn.
        assignment: of these anchors.
        class_names: the name of each label.
        path: where the PNG goes; its folder is made.
        columns: images in a row.
        scale: inches of an image.

    Returns:
        ``path``.
    """
    figure, panels = sheet([target.size for target in targets], columns=columns, scale=scale)
    colors = pyplot().get_cmap("tab10")
    # the coarser the level, the larger the dot
    level = np.repeat(np.arange(len(predictions.level_sizes)), predictions.level_sizes)
    for index, (panel, image, target) in enumerate(zip(panels, images, targets, strict=True)):
        matched = assignment.matched[index]
        height, width = target.size
        show_image(panel, image, target.size)
        panel.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))  # dots at the border must not widen it
        positive = (matched >= 0).nonzero()[:, 0]
        anchors = predictions.anchors_at(index, positive).float().cpu().numpy()
        centers = (anchors[:, :2] + anchors[:, 2:]) / 2 - 0.5  # the middle of the first pixel is 0 in the image, 0.5 in the frame
        owner = matched[positive].cpu().numpy()
        for number, (box, label, crowd) in enumerate(
            zip(target.boxes.tolist(), target.labels.tolist(), target.crowd.tolist(), strict=True)
        ):
            color = colors(number % 10)
            own = owner == number
            border = [side - 0.5 for side in box]
            for edge, thick in (("white", 2.6), (color, 1.4)):
                rectangle(panel, border, edge, "-" if own.any() else ":", width=thick)
            size = 16 + 16 * level[positive.cpu().numpy()[own]] if len(level) == len(matched) else 16
            panel.scatter(*centers[own].T, s=size, color=color, edgecolors="white", linewidths=0.5, zorder=3)
            name = class_names[label] + (" (crowd)" if crowd else "")
            name_box(panel, border[0], border[1], name, color=color)
        ignored = int((matched == IGNORE).sum())
        panel.set_title(f"image {target.image_id}: {len(positive)} positives" + (f", {ignored} ignored" if ignored else ""), fontsize=7)
    figure.suptitle(
        "dots: centers of the anchors trained on the box of their color, larger on coarser levels; dotted: no anchor", fontsize=9
    )
    return save_figure(figure, path)
