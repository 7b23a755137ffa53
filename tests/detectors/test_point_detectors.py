"""FoveaBox and FCOS: points and shapes, the scales of the levels, and that each learns two boxes by heart with each kind of objective."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from lossbox.assignment import CenterAssigner, FoveaAssigner
from lossbox.boxes import PointCoder
from lossbox.decoding import Decoder
from lossbox.detectors import FCOS, Backbone, CenternessHead, DenseHead, FoveaBox, cell_centers
from lossbox.losses import GIoULoss
from lossbox.objective import ALRPObjective, SeparateObjective, WithCenterness, WithDistribution, weighted_sum
from lossbox.records import Assignment, Targets

BACKBONE = Backbone(stages=3, strides=(8, 16, 32), channels=16)
SMALL: dict[str, Any] = {"backbone": BACKBONE, "head_convs": 1}
BINS = partial(FCOS, bins=8)
DETECTORS: list[Any] = [FoveaBox, FCOS, BINS]


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("size", [(64, 64), (33, 70), (1, 1)])
def test_one_point_a_cell(detector: Callable[..., nn.Module], size: tuple[int, int]) -> None:
    raw = detector(5, **SMALL).eval()(torch.rand(2, 3, *size))
    grid = [(-(-size[0] // s), -(-size[1] // s)) for s in (8, 16, 32)]
    assert raw.level_sizes == tuple(rows * columns for rows, columns in grid)
    total = sum(raw.level_sizes)
    assert raw.logits.shape == (2, total, 5)
    assert raw.regression.shape == (2, total, 4)
    centers = torch.cat([cell_centers(cells, stride) for cells, stride in zip(grid, (8, 16, 32), strict=True)])
    torch.testing.assert_close((raw.anchors[:, :2] + raw.anchors[:, 2:]) / 2, centers)


def test_the_square_of_a_point_has_the_unit_of_its_level() -> None:
    for detector, scale in ((FoveaBox(1, **SMALL), 2), (FoveaBox(1, base_scale=0.5, **SMALL), 0.5), (FCOS(1, **SMALL), 1)):
        raw = detector.eval()(torch.rand(1, 3, 64, 64))
        sides = [level[0, 2:] - level[0, :2] for level in raw.anchors.split(raw.level_sizes)]
        assert [side.tolist() for side in sides] == [[scale * s, scale * s] for s in (8, 16, 32)]
    assert FoveaBox(1, limit=9.0, **SMALL).coder == PointCoder(9.0)


def test_the_default_base_edges_and_towers_are_the_published_ones() -> None:
    with torch.device("meta"):
        detector = FoveaBox(80, backbone=Backbone("resnet50"))
    assert [detector.base_scale * stride for stride in detector.pyramid.strides] == [16, 32, 64, 128, 256]
    assert sum(isinstance(m, nn.Conv2d) for m in detector.head.modules()) == 2 * (4 + 1)
    with torch.device("meta"):
        fcos = FCOS(80, backbone=Backbone("resnet50"))
    assert sum(isinstance(m, nn.GroupNorm) for m in fcos.head.modules()) == 2 * 4
    assert fcos.head.scales.shape == (5,)


def test_centerness_comes_beside_the_box_and_each_level_has_its_factor() -> None:
    torch.manual_seed(0)
    head = CenternessHead(8, num_classes=3, levels=2, convs=2)
    levels = [torch.rand(2, 8, 3, 5), torch.rand(2, 8, 2, 1)]
    before = head(levels)
    with torch.no_grad():
        head.scales.copy_(torch.tensor([2.0, -3.0]))
        after = head(levels)
    torch.testing.assert_close(after[1][:, :15], 2 * before[1][:, :15])
    torch.testing.assert_close(after[1][:, 15:], -3 * before[1][:, 15:])
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(before[0].sigmoid(), torch.full_like(before[0], 0.01), rtol=0.3, atol=0)
    torch.testing.assert_close(before[2].sigmoid(), torch.full_like(before[2], 0.5), rtol=0.3, atol=0)
    for level, found in zip(levels, after[2].split([15, 2], 1), strict=True):
        expected = head.centerness(head.box_tower([level])[0])[:, 0].flatten(1)
        torch.testing.assert_close(found, expected)
    plain = DenseHead(8, num_classes=3, levels=2, convs=2, norm="group")
    assert plain.state_dict().keys() < head.state_dict().keys()


def test_fcos_starts_at_boxes_of_two_strides() -> None:
    detector = FCOS(2, **SMALL).eval()
    with torch.no_grad():
        raw = detector(torch.rand(1, 3, 64, 64))
        boxes = raw.coder.decode(raw.regression, raw.anchors)[0]
    for level, stride in zip(boxes.split(raw.level_sizes), (8, 16, 32), strict=True):
        torch.testing.assert_close(level[:, 2:] - level[:, :2], torch.full((len(level), 2), 2.0 * stride), rtol=0.3, atol=0)
    assert raw.coder.encode(torch.tensor([-310.0, 0.0, 8.0, 8.0]), raw.anchors[0])[0].item() == pytest.approx(math.log(314 / 8))


def test_a_distance_is_the_mean_of_its_bins_and_focal_loss_pulls_them_beside_it() -> None:
    torch.manual_seed(0)
    raw = BINS(2, **SMALL)(torch.rand(2, 3, 64, 64))
    assert raw.distribution.shape == (*raw.regression.shape, 8)
    p = raw.distribution.softmax(-1)
    torch.testing.assert_close(raw.regression, sum(distance * p[..., distance] for distance in range(8)))
    target = Targets(torch.tensor([[20.0, 16.0, 34.0, 50.0]]), torch.tensor([1]), torch.tensor([False]), 0, (64, 64), (64, 64))
    matched = torch.full(raw.logits.shape[:2], -1)
    matched[1, 27] = 0  # the cell of the point (28, 28), stride 8: 1, 1.5, 0.75 and 2.75 strides from the sides
    parts = WithDistribution(SeparateObjective(localization=GIoULoss()))(raw, Assignment(matched), [target, target])
    s = raw.distribution[1, 27].log_softmax(-1)
    by_hand = [s[0, 1], (s[1, 1] + s[1, 2]) / 2, 0.25 * s[2, 0] + 0.75 * s[2, 1], 0.25 * s[3, 2] + 0.75 * s[3, 3]]
    torch.testing.assert_close(parts["distribution"].value, -sum(by_hand) / 4)
    assert parts["distribution"].weight == 0.25
    assert WithDistribution(SeparateObjective())(raw, Assignment(matched.clamp(max=-1)), [target, target])["distribution"].value == 0
    with pytest.raises(ValueError, match=r"predictions.distribution: .* as FCOS\(bins=17\) does, got None"):
        WithDistribution(SeparateObjective())(replace(raw, distribution=None), Assignment(matched), [target, target])
    with pytest.raises(ValueError, match="distribution_weight: a finite number >= 0 expected, got -1"):
        WithDistribution(SeparateObjective(), distribution_weight=-1)


@pytest.mark.parametrize("detector", DETECTORS)
def test_gradients_reach_every_parameter_and_a_checkpoint_holds_no_constants(detector: Callable[..., nn.Module]) -> None:
    net = detector(2, **SMALL)
    raw = net(torch.rand(2, 3, 96, 96))
    generator = torch.Generator().manual_seed(0)
    outputs = [raw.logits, raw.regression, *([] if raw.centerness is None else [raw.centerness])]
    torch.stack([(x * torch.randn(x.shape, generator=generator)).sum() for x in outputs]).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    buffers = {name for name, _ in net.named_buffers() if "running" in name or "tracked" in name}
    assert set(net.state_dict()) == buffers | {name for name, _ in net.named_parameters()}


@pytest.mark.parametrize("detector", DETECTORS)
def test_bf16_autocast_and_channels_last_agree_with_float32(detector: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    net = detector(3, backbone=replace(BACKBONE, frozen_norm=True), head_convs=1)
    images = torch.rand(2, 3, 77, 96)
    expected = net(images)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", torch.bfloat16):
        raw = net(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(raw.logits.float(), expected.logits, atol=0.05, rtol=0.02)
    torch.testing.assert_close(raw.regression.float(), expected.regression, atol=0.05, rtol=0.02)
    raw.logits.float().square().mean().backward()


RANGES = ((0.0, 40.0), (20.0, 64.0), (40.0, math.inf))
OBJECTIVES: dict[str, Callable[[], Any]] = {
    "alrp": ALRPObjective,
    "deltas": SeparateObjective,
    "boxes": lambda: SeparateObjective(localization=GIoULoss()),
}


@pytest.mark.parametrize(("detector", "objective"), [*((one, name) for one in (FoveaBox, FCOS) for name in OBJECTIVES), (BINS, "boxes")])
def test_two_boxes_are_learned_by_heart(detector: Callable[..., Any], objective: str) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 96, 96) * 0.1
    boxes = torch.tensor([[8.0, 12.0, 40.0, 44.0], [30.0, 20.0, 90.0, 76.0]])
    for image, (x1, y1, x2, y2) in zip(images, boxes.int().tolist(), strict=True):
        image[:, y1:y2, x1:x2] += 0.8
    targets = [Targets(boxes[i : i + 1], torch.tensor([i]), torch.tensor([False]), i, (96, 96), (96, 96)) for i in range(2)]
    if detector is not FoveaBox:
        net, assigner = detector(2, **SMALL), CenterAssigner(regress_ranges=RANGES)
        loss: Any = WithCenterness(OBJECTIVES[objective]())
        loss = loss if detector is FCOS else WithDistribution(loss)
    else:
        net, assigner = FoveaBox(2, base_scale=1.0, head_norm="group", **SMALL), FoveaAssigner(scale_ranges=RANGES)  # type: ignore[assignment]
        loss = OBJECTIVES[objective]()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    totals = []
    for _ in range(40):
        raw = net(images)
        parts = loss(raw, assigner(raw, targets), targets)
        assert ("centerness" in parts) == (detector is not FoveaBox)
        assert ("distribution" in parts) == (detector is BINS)
        if objective == "alrp":
            parts = {name: part._replace(weight=1.0) for name, part in parts.items()}
        total = weighted_sum(parts)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.5 * totals[0]
    with torch.no_grad():
        found = Decoder(score_threshold=0.0)(net(images), [(96, 96)] * 2)
    for i, one in enumerate(found):
        assert one.labels[0] == i
        assert (one.boxes[0] - boxes[i]).abs().max() < 12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FoveaBox(1, base_scale=0.0, **SMALL), "base_scale: a number > 0 expected, got 0"),
        (lambda: FoveaBox(1, limit=1.0, **SMALL), "limit: a number > 1 expected, got 1"),
        (lambda: FCOS(0, **SMALL), "num_classes: a number >= 1 expected, got 0"),
        (lambda: FCOS(1, bins=1, **SMALL), "bins: 0, or a number >= 2 expected, got 1"),
        (lambda: FCOS(1, head_norm="layer", **SMALL), "norm: one of 'none', 'group', 'batch' expected"),  # type: ignore[arg-type]
        (lambda: CenternessHead(8, num_classes=1, levels=0), "levels: a number >= 1 expected, got 0"),
        (lambda: FoveaBox(1, **SMALL)(torch.zeros(3, 32, 32)), r"images: \(b, 3, h, w\) floats in \[0, 1\] expected"),
        (lambda: FCOS(1, **SMALL)(torch.zeros(1, 1, 32, 32)), r"images: \(b, 3, h, w\) floats in \[0, 1\] expected"),
    ],
)
def test_options_out_of_range_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
