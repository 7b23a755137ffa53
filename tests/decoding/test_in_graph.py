"""Candidates of fixed shape, with non-maximum suppression after them, are what the decoder returns."""

import math

import pytest
import torch
from torchvision.ops import batched_nms

from lossbox.boxes import DeltaCoder
from lossbox.decoding import Candidates, Decoder
from lossbox.records import RawPredictions

HEIGHT, WIDTH, CLASSES = 60, 80, 3


def made_up(seed, *, centerness):
    """A detector that says the same of every image."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(70, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    anchors = torch.cat([corners, corners + 2 + 30 * torch.rand(70, 2, generator=generator)], 1)
    numbers = {name: torch.randn(1, 70, size, generator=generator) for name, size in (("logits", CLASSES), ("regression", 4))}
    extra = {"centerness": torch.randn(1, 70, generator=generator)} if centerness else {}
    raw = RawPredictions(numbers["logits"], numbers["regression"] * 0.3, anchors, (50, 20), DeltaCoder(), **extra)
    return lambda images: raw


def suppressed(boxes, scores, factors, decoder):
    label, place = (scores > 0).nonzero().unbind(1)
    kept = batched_nms(boxes[place], scores[label, place], label, decoder.nms_threshold)[: decoder.max_detections]
    return boxes[place[kept]] * factors, scores[label[kept], place[kept]], label[kept]


@pytest.mark.parametrize("centerness", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k_per_level": 20},
        {"thresholds": [0.6, math.nan, 0.2]},
        {"score_threshold": 0.5, "max_detections": 7, "nms_threshold": 0.3},
    ],
)
def test_candidates_are_the_decoders(options, centerness):
    decoder = Decoder(**options)
    for seed, original in enumerate([(60, 80), (120, 160), (33, 200), (301, 77), (1, 900)]):
        detector = made_up(seed, centerness=centerness)
        images = torch.zeros(1, 3, HEIGHT, WIDTH)
        factor = min(HEIGHT / original[0], WIDTH / original[1])
        fitted = tuple(max(round(side * factor), 1) for side in original)
        expected = decoder(detector(images), [fitted])[0].resized(fitted, original)
        found = suppressed(*Candidates(detector, decoder, images)(images, torch.tensor(original)), decoder)
        torch.testing.assert_close(found, (expected.boxes, expected.scores, expected.labels))
        assert len(expected.labels) > 0 or original == (1, 900)


def test_neighboring_cells_are_refused():
    with pytest.raises(ValueError, match="nms: a decoder without peak_window expected, got 3"):
        Candidates(made_up(0, centerness=False), Decoder(peak_window=3), torch.zeros(1, 3, HEIGHT, WIDTH))
