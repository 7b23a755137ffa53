"""RetinaNet: shapes at odd sizes, one forward for training and evaluation, autocast, checkpoints, the size of the demo's detector."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn

from lossbox.detectors import Backbone, RetinaNet

BACKBONE = Backbone(stages=2, strides=(8, 16, 32), channels=16)
SMALL: dict[str, Any] = {"backbone": BACKBONE, "head_convs": 1}


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (129, 31), (1, 1)])
@pytest.mark.parametrize("places", [((1.0,), (1.0,)), ((1.0, 2**0.5), (0.5, 1.0, 2.0))])
def test_predictions_and_anchors_fit_each_other(size: tuple[int, int], places: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    detector = RetinaNet(5, scales=places[0], ratios=places[1], **SMALL).eval()
    raw = detector(torch.rand(2, 3, *size))
    per_place = len(places[0]) * len(places[1])
    assert raw.level_sizes == tuple(per_place * -(-size[0] // s) * -(-size[1] // s) for s in (8, 16, 32))
    total = sum(raw.level_sizes)
    assert raw.logits.shape == (2, total, 5)
    assert raw.regression.shape == (2, total, 4)
    assert raw.anchors.shape == (total, 4)


def test_a_prediction_belongs_to_the_anchor_of_its_index() -> None:
    """A bright spot changes most the predictions whose anchors stand on it."""
    torch.manual_seed(0)
    detector = RetinaNet(2, backbone=Backbone(stages=1, strides=(4,), channels=16), head_convs=0, scales=(1.0,), ratios=(1.0,)).eval()
    spot = torch.zeros(1, 3, 128, 64)
    spot[:, :, 88:96, 8:16] = 1
    with torch.no_grad():
        changed = (detector(spot).logits - detector(torch.zeros_like(spot)).logits).abs().sum(-1)[0]
    x1, y1, x2, y2 = detector(spot).anchors[changed.argmax()].tolist()
    assert abs((x1 + x2) / 2 - 12) <= 12
    assert abs((y1 + y2) / 2 - 92) <= 12


def test_images_are_normalized_inside() -> None:
    detector = RetinaNet(1, **SMALL).eval()
    seen: list[torch.Tensor] = []
    detector.pyramid.trunk.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    detector(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 16, 16), atol=1e-6, rtol=0)
    detector(torch.ones(1, 3, 16, 16))
    assert abs(seen[1][0, 0, 0, 0].item() - (1 - 0.485) / 0.229) < 1e-5


def test_training_mode_changes_nothing_but_the_batch_norms() -> None:
    detector = RetinaNet(2, backbone=replace(BACKBONE, frozen_norm=True), head_convs=1)
    images = torch.rand(2, 3, 40, 40)
    trained, evaluated = detector.train()(images), detector.eval()(images)
    assert torch.equal(trained.logits, evaluated.logits)
    assert torch.equal(trained.regression, evaluated.regression)


def test_gradients_reach_every_parameter() -> None:
    detector = RetinaNet(2, **SMALL)
    raw = detector(torch.rand(2, 3, 64, 64))
    generator = torch.Generator().manual_seed(0)
    parts = [(x * torch.randn(x.shape, generator=generator)).sum() for x in (raw.logits, raw.regression)]
    torch.stack(parts).sum().backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_bf16_autocast_and_channels_last_agree_with_float32() -> None:
    torch.manual_seed(0)
    detector = RetinaNet(3, backbone=replace(BACKBONE, frozen_norm=True), head_convs=1, head_norm="group")
    images = torch.rand(2, 3, 45, 64)
    expected = detector(images)
    detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", torch.bfloat16):
        raw = detector(images.contiguous(memory_format=torch.channels_last))
    assert raw.logits.dtype == torch.bfloat16
    assert raw.anchors.dtype == torch.float32
    torch.testing.assert_close(raw.logits.float(), expected.logits, atol=0.05, rtol=0.02)
    torch.testing.assert_close(raw.regression.float(), expected.regression, atol=0.05, rtol=0.02)
    raw.logits.float().square().mean().backward()


def test_a_checkpoint_holds_parameters_and_batch_statistics_only() -> None:
    detector = RetinaNet(2, **SMALL)
    detector(torch.rand(1, 3, 40, 48))
    names = set(detector.state_dict())
    statistics = {name for name in names if name.rsplit(".")[-1] in ("running_mean", "running_var", "num_batches_tracked")}
    assert names - statistics == {name for name, _ in detector.named_parameters()}


def test_a_checkpoint_restores_the_predictions() -> None:
    first, second = RetinaNet(2, **SMALL).eval(), RetinaNet(2, **SMALL).eval()
    images = torch.rand(1, 3, 40, 48)
    assert not torch.equal(first(images).logits, second(images).logits)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images).logits, second(images).logits)


def test_the_demos_detector_has_about_five_million_parameters() -> None:
    detector = RetinaNet(10, backbone=Backbone(stages=3, strides=(8, 16, 32), channels=128), head_convs=2, scales=(1.0,), ratios=(1.0,))
    count = sum(p.numel() for p in detector.parameters())
    convs = 9 * 128 * 128
    # 3 stages of ResNet-18, 2 laterals, 2 + 1 levels, 2 towers of 2, and what they put out for 10 classes and 4 offsets
    expected = 2_782_784 + (128 + 256 + 2) * 128 + 3 * (convs + 128) + 4 * (convs + 128) + (10 + 4) * (9 * 128 + 1)
    assert count == expected
    assert 3.5e6 < count < 5e6


def test_the_detector_of_the_paper_has_the_size_of_torchvisions() -> None:
    with torch.device("meta"):
        ours = RetinaNet(80, backbone=Backbone("resnet50"), scales=(1.0, 2 ** (1 / 3), 2 ** (2 / 3)))
        theirs = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=80)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_a_tracer_takes_the_whole_forward_and_leaves_the_anchors_of_later_steps_alone() -> None:
    torch._dynamo.reset()
    detector = RetinaNet(2, **SMALL).eval()
    images = torch.rand(1, 3, 37, 41)

    def tensors(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        raw = detector(x)
        return raw.logits, raw.regression, raw.anchors

    traced = torch.compile(tensors, backend="eager", fullgraph=True)(images)
    for a, b in zip(traced, tensors(images), strict=True):
        torch.testing.assert_close(a, b)
    assert type(detector(images).anchors) is torch.Tensor


@pytest.mark.parametrize("images", [torch.zeros(3, 32, 32), torch.zeros(1, 1, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)])
def test_what_is_no_batch_of_images_is_named(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"images: \(b, 3, h, w\) floats in \[0, 1\] expected, got"):
        RetinaNet(1, **SMALL)(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "scales: numbers > 0 expected"),
        ({"ratios": (1.0, 0.0)}, "ratios: numbers > 0 expected"),
        ({"anchor_scale": -1.0}, "anchor_scale: numbers > 0 expected"),
        ({"delta_std": (0.1, 0.1, 0.2)}, "std: four numbers > 0 expected"),
        ({"backbone": Backbone("vgg")}, "backbone: one of"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RetinaNet(1, **{**SMALL, **options})
