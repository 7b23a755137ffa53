"""Which class was taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from ..metrics import DetectionColumns, GroundTruth, match_detections


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
    rows = np.flatnonzero(kept)
    kept_results = DetectionColumns(
        results.image[rows],
        np.zeros(len(rows), dtype=np.int64),
        results.boxes[rows],
        results.scores[rows],
        areas=None if results.areas is None else results.areas[rows],
        shapes=tuple(results.shapes[row] for row in rows) if results.shapes else (),
    )
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
