"""The confusion matrix against its definition, and the images of a run."""

import json
import math

import numpy as np
import pytest
import torch

from lossbox import report
from lossbox.boxes import DeltaCoder
from lossbox.metrics import DetectionColumns, GroundTruth, evaluate
from lossbox.records import IGNORE, Assignment, RawPredictions, Targets
from lossbox.report import _canvas

NAMES = ("cat", "dog", "cow")


def random_data(seed, *, images=6, crowds=True):
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
def test_confusion_matrix_is_its_definition(seed, iou_threshold):
    truth, found = random_data(seed)
    thresholds = [0.0, 0.4, math.nan if seed % 2 else 0.7]
    matrix = report.confusion_matrix(truth, found, thresholds, iou_threshold=iou_threshold)
    assert matrix.tolist() == confusion_by_definition(truth, found, thresholds, iou_threshold).tolist()
    assert matrix[:3].sum(axis=1).tolist() == np.bincount(truth.category[~truth.crowd], minlength=3).tolist()


def test_confusion_matrix_of_nothing():
    truth, found = random_data(0, crowds=False)
    nothing = DetectionColumns(found.image[:0], found.category[:0], found.boxes[:0], found.scores[:0])
    all_missed = report.confusion_matrix(truth, nothing, [0.0] * 3)
    assert all_missed[:3, 3].tolist() == np.bincount(truth.category, minlength=3).tolist()
    assert all_missed.sum() == len(truth.category)
    empty = truth.of_images(np.zeros(len(truth.image_ids), dtype=bool))
    assert report.confusion_matrix(empty, nothing, [0.0] * 3).sum() == 0
    with pytest.raises(ValueError, match="thresholds: 3 numbers"):
        report.confusion_matrix(truth, found, [0.5])


@pytest.fixture
def figures(monkeypatch):
    """Keeps what is drawn, to look into it after it was saved."""
    kept = []
    plt = _canvas.pyplot()
    monkeypatch.setattr(plt, "close", kept.append)
    yield kept
    monkeypatch.undo()
    plt.close("all")


@pytest.mark.parametrize(("classes", "numbers"), [(3, True), (60, False)])
def test_a_confusion_matrix_of_many_classes_has_no_numbers(tmp_path, figures, classes, numbers):
    matrix = np.eye(classes + 1, dtype=int) * 7
    path = report.draw_confusion_matrix(matrix, [f"c{index}" for index in range(classes)], tmp_path / "new" / "confusion.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    panel = figures[0].axes[0]
    assert [text.get_text() for text in panel.texts] == (["7"] * (classes + 1) if numbers else [])
    assert panel.get_xticklabels()[-1].get_text() == "(missed)"


def test_drawn_dots_are_the_centers_of_the_anchors_of_each_box(tmp_path, figures):
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0], [0.0, 0.0, 16.0, 16.0], [16.0, 16.0, 32.0, 32.0]])
    raw = RawPredictions(torch.zeros(2, 4, 3), torch.zeros(2, 4, 4), anchors, (2, 2), DeltaCoder())
    boxes = torch.tensor([[0.0, 0.0, 12.0, 8.0], [20.0, 20.0, 30.0, 30.0]])
    first = Targets(boxes, torch.tensor([0, 2]), torch.tensor([False, False]), 41, (32, 32), (32, 32))
    second = Targets(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool(), 42, (24, 32), (24, 32))
    matched = torch.tensor([[0, 0, -1, IGNORE], [-1, -1, -1, -1]])
    path = report.draw_assignment([torch.rand(3, 32, 32)] * 2, [first, second], raw, Assignment(matched), NAMES, tmp_path / "batch.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    one, two = figures[0].axes
    dots = [collection.get_offsets().tolist() for collection in one.collections]
    assert dots == [[[3.5, 3.5], [11.5, 3.5]], []]  # pixel (0, 0) is drawn around 0, not 0.5
    assert one.get_title() == "image 41: 2 positives, 1 ignored"
    assert [patch.get_linestyle() for patch in one.patches] == ["-", "-", ":", ":"]
    assert [text.get_text() for text in one.texts] == ["cat", "cow"]
    assert two.get_title() == "image 42: 0 positives"


def test_a_validation_is_drawn_in_the_frame_of_the_shown_images(tmp_path, monkeypatch):
    truth, found = random_data(3)
    metrics = evaluate(truth, found)
    none = torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool()
    shown = [Targets(*none, image_id, size=(32, 96), original_size=(64, 64)) for image_id in (12, 99)]  # 99 was not validated
    drawn = {}
    monkeypatch.setattr("lossbox.report.run.draw_sheet", lambda images, targets, detections, *_, **options: drawn.update(locals()))
    report.draw_validation(tmp_path, truth, found, metrics, [torch.rand(3, 32, 96)] * 2, shown)
    assert [target.image_id for target in drawn["targets"]] == [12]
    rows = found.image == 2
    x, y, w, h = found.boxes[rows].T
    expected = np.stack([x * 1.5, y * 0.5, (x + w) * 1.5, (y + h) * 0.5], axis=1)
    np.testing.assert_allclose(drawn["detections"][0].boxes.numpy(), expected, rtol=1e-5)
    assert drawn["detections"][0].labels.tolist() == found.category[rows].tolist()
    content = json.loads((tmp_path / "confusion_matrix.json").read_text())
    assert content["matrix"] == report.confusion_matrix(truth, found, [row["threshold"] for row in metrics["per_class"]]).tolist()
    assert content["classes"] == [*NAMES, "background"]
