"""The confusion matrix against its definition."""

import math

import numpy as np
import pytest

from lossbox import report
from lossbox.metrics import DetectionColumns


def iou(one, other, *, crowd):
    (x, y, w, h), (u, v, a, b) = one, other
    inner = max(0.0, min(x + w, u + a) - max(x, u)) * max(0.0, min(y + h, v + b) - max(y, v))
    return inner / (w * h if crowd else w * h + a * b - inner)


def confusion_by_definition(truth, found, thresholds, iou_threshold):
    classes = len(truth.category_ids)
    matrix = np.zeros((classes + 1, classes + 1), dtype=int)
    free = [True] * len(truth.boxes)
    for row in sorted(range(len(found.scores)), key=lambda row: -found.scores[row]):
        label = found.category[row]
        if not found.scores[row] >= thresholds[label]:
            continue
        here = [index for index in range(len(free)) if truth.image[index] == found.image[row]]
        overlap = {index: iou(found.boxes[row], truth.boxes[index], crowd=truth.crowd[index]) for index in here}
        partners = [index for index in here if free[index] and not truth.crowd[index] and overlap[index] >= iou_threshold]
        if partners:
            best = max(partners, key=lambda index: (overlap[index], index))
            free[best] = False
            matrix[truth.category[best], label] += 1
        elif not any(truth.crowd[index] and overlap[index] >= iou_threshold for index in here):
            matrix[classes, label] += 1
    for index, missed in enumerate(free):
        if missed and not truth.crowd[index]:
            matrix[truth.category[index], classes] += 1
    return matrix


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("iou_threshold", [0.3, 0.5])
def test_confusion_matrix_is_its_definition(seed, iou_threshold, random_data):
    truth, found = random_data(seed)
    thresholds = [0.0, 0.4, math.nan if seed % 2 else 0.7]
    matrix = report.confusion_matrix(truth, found, thresholds, iou_threshold=iou_threshold)
    assert matrix.tolist() == confusion_by_definition(truth, found, thresholds, iou_threshold).tolist()
    assert matrix[:3].sum(axis=1).tolist() == np.bincount(truth.category[~truth.crowd], minlength=3).tolist()


def test_confusion_matrix_of_nothing(random_data):
    truth, found = random_data(0, crowds=False)
    nothing = DetectionColumns(found.image[:0], found.category[:0], found.boxes[:0], found.scores[:0])
    all_missed = report.confusion_matrix(truth, nothing, [0.0] * 3)
    assert all_missed[:3, 3].tolist() == np.bincount(truth.category, minlength=3).tolist()
    assert all_missed.sum() == len(truth.category)
    empty = truth.of_images(np.zeros(len(truth.image_ids), dtype=bool))
    assert report.confusion_matrix(empty, nothing, [0.0] * 3).sum() == 0
    with pytest.raises(ValueError, match="thresholds: 3 numbers"):
        report.confusion_matrix(truth, found, [0.5])
