"""Faster R-CNN: shapes at odd sizes, one forward for training and evaluation, proposals that only fill up, autocast, checkpoints."""

import io
from dataclasses import replace
from typing import Any

import pytest
import torch

from lossbox.decoding import Decoder
from lossbox.detectors import Backbone, FasterRCNN

BACKBONE = Backbone(stages=2, strides=(4, 8, 16), channels=16)
SMALL: dict[str, Any] = {
    "backbone": BACKBONE,
    "region_levels": 2,
    "region_size": 3,
    "finest_scale": 12.0,
    "head_channels": 24,
    "max_proposals": 30,
}


def detector(seed: int = 0, **options: Any) -> FasterRCNN:
    torch.manual_seed(seed)
    return FasterRCNN(5, **{**SMALL, **options})


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (129, 31), (1, 1)])
def test_predictions_and_anchors_fit_each_other(size: tuple[int, int]) -> None:
    model = detector().eval()
    found = model.propose(torch.rand(2, 3, *size))
    raw = found.predictions
    assert raw.level_sizes == tuple(3 * -(-size[0] // s) * -(-size[1] // s) for s in (4, 8, 16))
    assert raw.logits.shape == (2, sum(raw.level_sizes), 1)
    assert raw.regression.shape == (2, sum(raw.level_sizes), 4)
    assert raw.anchors.shape == (sum(raw.level_sizes), 4)
    count = found.boxes.shape[1]
    assert 1 <= count <= 30
    assert (found.boxes >= 0).all()
    assert (found.boxes[..., 0::2] <= size[1]).all()
    assert (found.boxes[..., 1::2] <= size[0]).all()
    refined = model.refine(found.features, found.boxes)
    assert refined.logits.shape == (2, count, 5)
    assert refined.regression.shape == (2, count, 4)
    assert refined.anchors is found.boxes
    assert refined.level_sizes == (count,)


def test_the_whole_is_one_stage_after_the_other() -> None:
    model, images = detector().eval(), torch.rand(2, 3, 48, 64)
    found = model.propose(images)
    assert torch.equal(model(images).logits, model.refine(found.features, found.boxes).logits)


def test_training_mode_changes_nothing_but_the_batch_norms() -> None:
    model, images = detector(backbone=replace(BACKBONE, frozen_norm=True)), torch.rand(2, 3, 48, 64)
    trained, evaluated = model.train()(images), model.eval()(images)
    assert torch.equal(trained.anchors, evaluated.anchors)
    assert torch.equal(trained.logits, evaluated.logits)
    assert torch.equal(trained.regression, evaluated.regression)


def test_a_proposal_is_refined_by_itself_and_what_fills_up_detects_nothing() -> None:
    model, images = detector(prior=0.5).eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = model.propose(images).features
        boxes = torch.tensor([[[0.0, 0.0, 20.0, 30.0], [10.0, 10.0, 60.0, 60.0]], [[5.0, 5.0, 25.0, 25.0], [0.0] * 4]])
        both = model.refine(features, boxes)
        alone = model.refine([feature[1:] for feature in features], boxes[1:, :1])
        nothing = model.refine(features, boxes[:, :0])
    torch.testing.assert_close(both.logits[1, :1], alone.logits[0])
    torch.testing.assert_close(both.regression[1, :1], alone.regression[0])
    found = Decoder(score_threshold=0.0, nms_threshold=1.0)(both, [(64, 64)] * 2)
    assert [len(one.scores) for one in found] == [10, 5]
    assert (both.logits[1, 1].sigmoid() == 0).all()  # or it would take the place of a candidate
    assert nothing.logits.shape == (2, 0, 5)
    assert [len(one.scores) for one in Decoder()(nothing, [(64, 64)] * 2)] == [0, 0]


def test_gradients_reach_every_parameter_and_not_through_the_proposals() -> None:
    model = detector()
    found = model.propose(torch.rand(2, 3, 64, 64))
    raw = model.refine(found.features, found.boxes)
    generator = torch.Generator().manual_seed(0)

    def part(*tensors: torch.Tensor) -> torch.Tensor:
        return torch.stack([(x * torch.randn(x.shape, generator=generator)).sum() for x in tensors]).sum()

    part(raw.logits, raw.regression).backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in model.proposal_head.parameters())
    part(found.predictions.logits, found.predictions.regression).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_bf16_autocast_and_channels_last_agree_with_float32() -> None:
    model, images = detector(backbone=replace(BACKBONE, frozen_norm=True)), torch.rand(2, 3, 45, 64)
    found = model.propose(images)
    expected = model.refine(found.features, found.boxes)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", torch.bfloat16):
        again = model.propose(images.contiguous(memory_format=torch.channels_last))
        raw = model.refine(again.features, found.boxes)
    assert raw.logits.dtype == torch.bfloat16
    assert again.boxes.dtype == torch.float32
    torch.testing.assert_close(again.predictions.logits.float(), found.predictions.logits, atol=0.05, rtol=0.02)
    torch.testing.assert_close(raw.logits.float(), expected.logits, atol=0.05, rtol=0.02)
    torch.testing.assert_close(raw.regression.float(), expected.regression, atol=0.05, rtol=0.02)
    raw.logits.float().square().mean().backward()


def test_a_checkpoint_brings_the_same_predictions_back() -> None:
    first, images = detector(1).eval(), torch.rand(1, 3, 40, 40)
    stored = io.BytesIO()
    torch.save(first.state_dict(), stored)
    stored.seek(0)
    second = detector(2).eval()
    assert not torch.equal(second(images).logits, first(images).logits)
    second.load_state_dict(torch.load(stored, weights_only=True))
    assert torch.equal(second(images).logits, first(images).logits)


def test_images_without_a_proposal_have_no_predictions() -> None:
    model = detector()
    with torch.no_grad():
        model.proposal_head.box.bias.fill_(torch.nan)
    raw = model(torch.rand(2, 3, 32, 32))
    assert raw.logits.shape == (2, 0, 5)
    raw.logits.sum().backward()


@pytest.mark.parametrize("images", [torch.zeros(3, 32, 32), torch.zeros(1, 1, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)])
def test_what_is_no_batch_of_images_is_named(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"images: \(b, 3, h, w\) floats in \[0, 1\] expected, got"):
        detector()(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "scales: numbers > 0 expected"),
        ({"finest_scale": 0.0}, "finest_scale: numbers > 0 expected"),
        ({"anchor_delta_std": (0.1, 0.1, 0.2)}, "std: four numbers > 0 expected"),
        ({"max_proposals": 0}, "max_proposals: a number >= 1 expected, got 0"),
        ({"nms_threshold": 1.2}, r"nms_threshold: a number in \[0, 1\] expected"),
        ({"region_levels": 4}, r"region_levels: 1 to 3 \(the number of strides\) expected, got 4"),
        ({"head_channels": 0}, "head_channels: a number >= 1 expected, got 0"),
        ({"prior": 1.0}, r"prior: a probability in \(0, 1\) expected, got 1.0"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detector(**options)
