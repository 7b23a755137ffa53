"""The images of a run: the anchors of its first batch, and what a validation found."""

import numpy as np
import pytest
import torch

from lossbox import report
from lossbox.boxes import DeltaCoder
from lossbox.metrics import evaluate
from lossbox.records import IGNORE, Assignment, RawPredictions, Targets
from lossbox.report import _canvas

NAMES = ("cat", "dog", "cow")


@pytest.fixture
def figures(monkeypatch):
    """Keeps what is drawn, to look into it after it was saved."""
    kept = []
    plt = _canvas.pyplot()
    monkeypatch.setattr(plt, "close", kept.append)
    yield kept
    monkeypatch.undo()
    plt.close("all")


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


def test_a_validation_is_drawn_in_the_frame_of_the_shown_images(tmp_path, monkeypatch, random_data):
    truth, found = random_data(3)
    metrics = evaluate(truth, found)
    none = torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool()
    shown = [Targets(*none, image_id, size=(32, 96), original_size=(64, 64)) for image_id in (12, 99)]  # 99 was not validated
    drawn = {}
    monkeypatch.setattr("lossbox.report.images.draw_sheet", lambda images, targets, detections, *_, **options: drawn.update(locals()))
    report.draw_validation(tmp_path / "images.png", truth, found, metrics, [torch.rand(3, 32, 96)] * 2, shown)
    assert [target.image_id for target in drawn["targets"]] == [12]
    rows = found.image == 2
    x, y, w, h = found.boxes[rows].T
    expected = np.stack([x * 1.5, y * 0.5, (x + w) * 1.5, (y + h) * 0.5], axis=1)
    np.testing.assert_allclose(drawn["detections"][0].boxes.numpy(), expected, rtol=1e-5)
    assert drawn["detections"][0].labels.tolist() == found.category[rows].tolist()
