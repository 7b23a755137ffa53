"""What a run leaves behind, drawn: the first training batch with the anchors that it trains, and what a validation found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..metrics import DetectionColumns, GroundTruth, average_precision, match_detections
from ..records import IGNORE, Assignment, Detections, RawPredictions, Targets
from ._canvas import name_box, pyplot, rectangle, save_figure, sheet, show_image
from .evaluation import draw_evaluation
from .images import draw_sheet
from .tables import write_json

MANY_CLASSES = 25
"""With more classes a confusion matrix shows colors only, without the numbers."""


def confusion_matrix(
    ground_truth: GroundTruth, results: DetectionColumns, thresholds: Sequence[float], *, iou_threshold: float = 0.5
) -> Int[np.ndarray, "c1 c1"]:
    """Counts which class was taken for which.

    Best score first, a detection takes the free annotation of its image of largest IoU >= ``iou_threshold``, whatever their classes. What
    it takes counts at (true class, predicted class), a detection without annotation at (background, predicted class), an annotation
    without detection at (true class, background). A crowd is no error to find and none to miss.

    Args:
        ground_truth: the annotations, of C categories.
        results: the detections.
        thresholds: C scores, in the order of the categories: a detection counts from that of its class on; where it is NaN, none does.
        iou_threshold: in (0, 1].

    Returns:
        (C + 1, C + 1) counts: a row for each true class, a column for each predicted one, background last.

    Raises:
        ValueError: not one threshold per category; see :func:`lossbox.metrics.match_detections`.

    Example:
        A cup is taken for a bowl, a bowl is missed, and a cup is found where there is none:

        >>> truth = GroundTruth(np.array([1]), np.array([1, 2]), ("cup", "bowl"), np.array([0, 0]), np.array([0, 1]),
        ...                     np.array([[0., 0., 9., 9.], [50., 0., 9., 9.]]), np.array([81., 81.]), np.array([False, False]))
        >>> boxes = np.array([[0., 0., 9., 8.], [20., 0., 9., 9.]])
        >>> found = DetectionColumns(np.array([0, 0]), np.array([1, 0]), boxes, np.array([0.9, 0.8]))
        >>> confusion_matrix(truth, found, [0.5, 0.5])
        array([[0, 1, 0],
               [0, 0, 1],
               [1, 0, 0]])
    """
    classes = len(ground_truth.category_ids)
    if len(thresholds) != classes:
        raise ValueError(f"thresholds: {classes} numbers (one per category) expected, got {len(thresholds)}")
    kept = results.scores >= np.asarray(thresholds, dtype=float)[results.category]
    kept_results = DetectionColumns(results.image[kept], np.zeros(kept.sum(), dtype=np.int64), results.boxes[kept], results.scores[kept])
    one_class = replace(ground_truth, category_ids=np.zeros(1, dtype=np.int64), category_names=("any",), category=ground_truth.category * 0)
    matches = match_detections(one_class, kept_results, iou_threshold=iou_threshold, max_detections=max(1, len(kept_results.scores)))

    predicted = results.category[kept][matches.detection]
    true = np.append(ground_truth.category, classes)[matches.annotation]  # -1, no annotation, reads what was appended
    missed = ~ground_truth.crowd
    missed[matches.annotation[matches.is_tp]] = False
    matrix = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    np.add.at(matrix, (true[~matches.ignored], predicted[~matches.ignored]), 1)
    matrix[:classes, classes] = np.bincount(ground_truth.category[missed], minlength=classes)
    return matrix


def draw_confusion_matrix(matrix: Int[np.ndarray, "c1 c1"], class_names: Sequence[str], path: Path, *, title: str = "") -> Path:
    """Draws a confusion matrix: colors are shares of the row, numbers (of few classes) counts.

    Args:
        matrix: from :func:`confusion_matrix`.
        class_names: the name of each class, without background.
        path: where the PNG goes; its folder is made.
        title: what was counted.

    Returns:
        ``path``.
    """
    plt = pyplot()
    shares: Float[np.ndarray, "c1 c1"] = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    count = len(matrix)
    side = min(3 + 0.45 * count, 18)
    figure, panel = plt.subplots(figsize=(side + 1, side), layout="constrained")
    drawn = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, label="share of the row", shrink=0.8)
    size = 9 if count <= MANY_CLASSES else 5
    panel.set_xticks(range(count), [*class_names, "(missed)"], rotation=90, fontsize=size)
    panel.set_yticks(range(count), [*class_names, "(background)"], fontsize=size)
    panel.set(xlabel="predicted", ylabel="true", title=title)
    for edge in (panel.axhline, panel.axvline):
        edge(count - 1.5, color="black", linewidth=0.8)
    if count <= MANY_CLASSES + 1:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            panel.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8, color=color)
    return save_figure(figure, path)


def draw_validation(
    folder: Path,
    truth: GroundTruth,
    found: DetectionColumns,
    metrics: Mapping[str, Any],
    images: Sequence[Tensor],
    targets: Sequence[Targets],
) -> list[Path]:
    """Draws what a validation found.

    ``images.png``: some images, predicted and true. ``confusion_matrix.png`` and ``confusion_matrix.json``: which class was taken for
    which, at IoU 0.5. Both cut each class at its LRP-optimal score, since the scores of ranking losses are not probabilities; a class
    without a true positive has no such score, and nothing of it is drawn or counted. ``plots/``: see
    :func:`lossbox.report.evaluation.draw_evaluation`.

    Args:
        folder: is made where it does not exist.
        truth: the annotations of the images that were validated.
        found: the detections in them.
        metrics: of these two, from :func:`lossbox.metrics.evaluate`.
        images: (3, h, w) each, in [0, 1]: the images to show.
        targets: one record for each of them; those that were not validated are not drawn.

    Returns:
        The paths of the files.
    """
    names = truth.category_names
    thresholds = [row["threshold"] for row in metrics["per_class"]]
    matrix = confusion_matrix(truth, found, thresholds)
    content = {
        "iou_threshold": 0.5,
        "thresholds": thresholds,
        "classes": [*names, "background"],
        "rows": "true",
        "columns": "predicted",
        "matrix": matrix.tolist(),
    }
    write_json(folder / "confusion_matrix.json", content)
    # a hair lower: a score that equals its cut must not fall below it in float32
    cuts = {label: cut * (1 - 1e-6) for label, cut in enumerate(thresholds) if not math.isnan(cut)}
    drawn = [index for index, target in enumerate(targets) if target.image_id in truth.image_ids]
    images, targets = [images[index] for index in drawn], [targets[index] for index in drawn]
    detections = [_detections_in(target, truth, found) for target in targets]
    title = "IoU 0.5, each class cut at its LRP-optimal score"
    return [
        draw_sheet(images, targets, detections, names, folder / "images.png", thresholds=cuts),
        folder / "confusion_matrix.json",
        draw_confusion_matrix(matrix, names, folder / "confusion_matrix.png", title=title),
        *draw_evaluation(folder / "plots", average_precision(truth, found), match_detections(truth, found), names),
    ]


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
