"""Random ground truth and detections."""

import numpy as np
import pytest

from lossbox.metrics import DetectionColumns, GroundTruth

NAMES = ("cat", "dog", "cow")


def _random_data(seed, *, images=6, crowds=True):
    """Boxes on a coarse grid, so that many overlap, and detections that are moved and of any class."""
    rng = np.random.default_rng(seed)
    count = 24
    corners, sides = rng.integers(0, 5, (count, 2)) * 8.0, rng.integers(2, 4, (count, 2)) * 8.0
    boxes = np.concatenate([corners, sides], axis=1)
    truth = GroundTruth(
        image_ids=np.arange(10, 10 + images),
        category_ids=np.array([3, 5, 9]),
        category_names=NAMES,
        image=rng.integers(0, images, count),
        category=rng.integers(0, 3, count),
        boxes=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        crowd=rng.random(count) < (0.2 if crowds else 0.0),
    )
    chosen = rng.integers(0, count, 60)
    moved = boxes[chosen] + rng.uniform(-3, 3, (60, 4))
    found = DetectionColumns(truth.image[chosen], rng.integers(0, 3, 60), moved, rng.random(60))
    return truth, found


@pytest.fixture(scope="session")
def random_data():
    """``random_data(seed)``: ground truth of three classes in six images, and 60 detections."""
    return _random_data
