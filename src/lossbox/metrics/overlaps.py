"""How much pairs of a detection and an annotation overlap: boxes, masks or keypoints, each as COCO computes it.

Boxes are COCO's ``x y width height`` in float64, in COCO's order of operations: a pair that sits exactly on a threshold falls on the same
side as in pycocotools. The IoU of masks is hotcoco's.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from ..coco.columns import DetectionColumns, GroundTruth

COCO_SIGMAS = np.array([0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89]) / 10
"""Of the 17 keypoints of a person; other numbers of keypoints have 1 / K each, as Ultralytics takes them."""


def overlaps(
    ground_truth: GroundTruth, results: DetectionColumns, detection: Int[np.ndarray, " p"], annotation: Int[np.ndarray, " p"]
) -> Float[np.ndarray, " p"]:
    """The IoU of pairs, or their object keypoint similarity, by ``ground_truth.iou_type``.

    Args:
        ground_truth: the annotations.
        results: the detections.
        detection: (p,) index of a detection.
        annotation: (p,) index of an annotation of the same image.

    Returns:
        (p,) in [0, 1] up to rounding; with a crowd the union is the detection's own area.
    """
    return _OVERLAPS[ground_truth.iou_type](ground_truth, results, detection, annotation)


def sigmas(keypoints: int) -> Float[np.ndarray, " k"]:
    """The fall-off of each of so many keypoints."""
    return COCO_SIGMAS if keypoints == len(COCO_SIGMAS) else np.full(keypoints, 1 / keypoints)


def without_keypoints(ground_truth: GroundTruth) -> Bool[np.ndarray, " n"]:
    """True for an annotation of which no keypoint is labeled, where keypoints are compared: it counts neither way."""
    if ground_truth.iou_type != "keypoints" or not ground_truth.shapes:
        return np.zeros(len(ground_truth.boxes), dtype=bool)
    return np.asarray(np.all(np.stack(ground_truth.shapes)[:, :, 2] <= 0, axis=1))


def _boxes(
    truth: GroundTruth, results: DetectionColumns, detection: Int[np.ndarray, " p"], annotation: Int[np.ndarray, " p"]
) -> Float[np.ndarray, " p"]:
    """IoU of pairs of ``x y width height`` boxes; with a crowd the union is the detection's own area."""
    boxes, others, crowd = results.boxes[detection], truth.boxes[annotation], truth.crowd[annotation]
    width = np.minimum(boxes[:, 0] + boxes[:, 2], others[:, 0] + others[:, 2]) - np.maximum(boxes[:, 0], others[:, 0])
    height = np.minimum(boxes[:, 1] + boxes[:, 3], others[:, 1] + others[:, 3]) - np.maximum(boxes[:, 1], others[:, 1])
    overlap = (width > 0) & (height > 0)
    intersection = width * height
    area = boxes[:, 2] * boxes[:, 3]
    union = np.where(crowd, area, area + others[:, 2] * others[:, 3] - intersection)
    # A box of no area overlaps nothing, so the union is never 0 where it divides.
    iou: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros(len(boxes)), where=overlap)
    return iou


def _masks(
    truth: GroundTruth, results: DetectionColumns, detection: Int[np.ndarray, " p"], annotation: Int[np.ndarray, " p"]
) -> Float[np.ndarray, " p"]:
    """By hotcoco, for each run of pairs of one image."""
    from hotcoco import mask

    iou = np.zeros(len(detection))
    image = truth.image[annotation]
    for start, stop in pairwise(np.flatnonzero(np.diff(image, prepend=-1, append=-1)).tolist() if len(image) else ()):
        found, row = np.unique(detection[start:stop], return_inverse=True)
        true, column = np.unique(annotation[start:stop], return_inverse=True)
        crowd = truth.crowd[true].tolist()
        iou[start:stop] = mask.iou([results.shapes[i] for i in found], [truth.shapes[i] for i in true], crowd)[row, column]
    return iou


def _keypoints(
    truth: GroundTruth, results: DetectionColumns, detection: Int[np.ndarray, " p"], annotation: Int[np.ndarray, " p"]
) -> Float[np.ndarray, " p"]:
    """Mean over the labeled keypoints of ``exp(-distance^2 / (2 area (2 sigma)^2))``; without one, of the distance from the doubled box."""
    if not len(detection):
        return np.zeros(0)
    found, true = np.stack(results.shapes)[detection][:, :, :2], np.stack(truth.shapes)[annotation]
    labeled = true[:, :, 2] > 0
    box = truth.boxes[annotation]
    lowest, highest = (box[:, :2] - box[:, 2:])[:, None], (box[:, :2] + 2 * box[:, 2:])[:, None]
    from_box = np.maximum(0, lowest - found) + np.maximum(0, found - highest)
    any_labeled = labeled.any(1)
    away = np.where(any_labeled[:, None, None], found - true[:, :, :2], from_box)
    area = truth.areas[annotation][:, None] + np.spacing(1)
    similarity = np.exp(-(away**2).sum(2) / (2 * sigmas(found.shape[1])) ** 2 / area / 2)
    counted = labeled | ~any_labeled[:, None]
    mean: NDArray[np.float64] = (similarity * counted).sum(1) / counted.sum(1)
    return mean


_OVERLAPS: dict[str, Callable[..., Float[np.ndarray, " p"]]] = {"bbox": _boxes, "segm": _masks, "keypoints": _keypoints}
