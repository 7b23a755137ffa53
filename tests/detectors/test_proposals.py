"""Between the stages: proposals against a naive definition, crops against torchvision's RoIAlign, boxes that only fill up."""

import pytest
import torch
from torchvision.ops import box_iou, roi_align

from lossbox.boxes import DeltaCoder
from lossbox.detectors import add_true_boxes, choose_proposals, crop_regions, pyramid_anchors
from lossbox.records import RawPredictions, Targets

SIZES = [(9, 12), (5, 6), (3, 3)]
STRIDES = (4, 8, 16)


def predictions(seed: int, images: int = 2) -> RawPredictions:
    generator = torch.Generator().manual_seed(seed)
    anchors = pyramid_anchors(SIZES, STRIDES, anchor_scale=3.0, scales=(1.0,))
    level_sizes = tuple(3 * rows * columns for rows, columns in SIZES)
    logits = torch.randn(images, len(anchors), 1, generator=generator)
    regression = torch.randn(images, len(anchors), 4, generator=generator)
    return RawPredictions(logits.requires_grad_(), regression.requires_grad_(), anchors, level_sizes, DeltaCoder())


def random_boxes(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Of 1 to 70 px, some of them partly or wholly outside of an image of 36 x 48."""
    corner = torch.rand(*shape, 2, generator=generator) * 90 - 30
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2, generator=generator).square() * 70], -1)


def naive_proposals(raw: RawPredictions, image: int, size: tuple[int, int], nms: float, top_k: int, most: int) -> list[list[float]]:
    boxes = raw.coder.decode(raw.regression[image], raw.anchors).detach()
    boxes = boxes.clamp(min=0).minimum(torch.tensor([size[1], size[0], size[1], size[0]]).float())
    scores, overlap = raw.logits[image, :, 0].tolist(), box_iou(boxes, boxes).tolist()
    chosen: list[int] = []
    start = 0
    for count in raw.level_sizes:
        of_level = sorted(range(start, start + count), key=lambda a: -scores[a])[:top_k]
        kept: list[int] = []
        for anchor in of_level:
            x1, y1, x2, y2 = boxes[anchor].tolist()
            if x2 > x1 and y2 > y1 and not any(overlap[anchor][better] > nms for better in kept):
                kept.append(anchor)
        chosen += kept
        start += count
    return [boxes[anchor].tolist() for anchor in sorted(chosen, key=lambda a: -scores[a])[:most]]


@pytest.mark.parametrize(("nms", "top_k", "most"), [(0.7, 1000, 1000), (0.3, 20, 1000), (0.5, 1000, 15)])
@pytest.mark.parametrize("seed", range(3))
def test_proposals_are_the_naive_definition(seed: int, nms: float, top_k: int, most: int) -> None:
    raw = predictions(seed)
    found = choose_proposals(raw, (36, 48), nms_threshold=nms, top_k_per_level=top_k, max_proposals=most)
    expected = [naive_proposals(raw, i, (36, 48), nms, top_k, most) for i in range(2)]
    assert found.shape == (2, max(map(len, expected)), 4)
    assert not found.requires_grad
    for rows, boxes in zip(found, expected, strict=True):
        torch.testing.assert_close(rows[: len(boxes)], torch.tensor(boxes))
        assert (rows[len(boxes) :] == 0).all()


def test_broken_numbers_propose_nothing() -> None:
    raw = predictions(0)
    with torch.no_grad():
        raw.regression[0] = torch.nan
        raw.logits[1] = torch.nan
    found = choose_proposals(raw, (36, 48))
    assert found.isfinite().all()
    assert (found[0] == 0).all()
    with torch.no_grad():
        raw.regression[1] = torch.nan
    assert choose_proposals(raw, (36, 48)).shape == (2, 0, 4)


class Traced(torch.nn.Module):
    """``choose_proposals`` and ``crop_regions`` as ``torch.export`` wants them."""

    def __init__(self, **options: float) -> None:
        super().__init__()
        self.options = options

    def forward(self, logits: torch.Tensor, regression: torch.Tensor, *features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raw = predictions(0)
        raw = RawPredictions(logits, regression, raw.anchors, raw.level_sizes, raw.coder)
        boxes = choose_proposals(raw, (36, 48), **self.options)  # type: ignore[arg-type]
        return boxes, crop_regions(features, boxes, STRIDES, size=3, finest_scale=9.0)


@pytest.mark.parametrize(("nms", "top_k", "most"), [(0.7, 1000, 1000), (0.3, 20, 1000), (0.0, 200, 15)])
def test_a_traced_graph_proposes_the_same_for_any_number_of_images(nms: float, top_k: int, most: int) -> None:
    network = Traced(nms_threshold=nms, top_k_per_level=top_k, max_proposals=most)

    def inputs(seed: int, images: int) -> tuple[torch.Tensor, ...]:
        raw, features = predictions(seed, images), pyramid(seed, images=images)
        return raw.logits.detach(), raw.regression.detach(), *(feature.detach() for feature in features)

    example = inputs(0, 2)
    number = torch.export.Dim("number", min=1, max=64)
    shapes = {"logits": {0: number}, "regression": {0: number}, "features": tuple({0: number} for _ in SIZES)}
    graph = torch.export.export(network, example, dynamic_shapes=shapes).module()
    for seed, images in enumerate((1, 2, 5)):
        given = inputs(seed, images)
        if images > 1:
            given[1][0] = torch.nan  # an image without any
            given[0][1, 3:9] = -torch.inf
        boxes, crops = network(*given)
        traced_boxes, traced_crops = graph(*given)
        count = boxes.shape[1]
        assert traced_boxes.shape[1] == min(most, sum(min(top_k, 3 * rows * columns) for rows, columns in SIZES)) >= count
        assert torch.equal(traced_boxes[:, :count], boxes)
        assert (traced_boxes[:, count:] == 0).all()
        traced_crops = traced_crops.unflatten(0, (images, -1))
        torch.testing.assert_close(traced_crops[:, :count].flatten(0, 1), crops, atol=1e-5, rtol=1e-5)
        assert (traced_crops[:, count:] == 0).all()


def test_true_boxes_join_the_proposals_but_crowds_do_not() -> None:
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    targets = [
        Targets(boxes, torch.tensor([0, 1]), torch.tensor([True, False]), 1, (9, 9), (9, 9)),
        Targets(boxes[:0], torch.zeros(0).long(), torch.zeros(0).bool(), 2, (9, 9), (9, 9)),
    ]
    nothing = [0.0] * 4
    proposals = torch.full((2, 1, 4), 9.0)
    assert add_true_boxes(proposals, targets).tolist() == [[[9.0] * 4, nothing, boxes[1].tolist()], [[9.0] * 4, nothing, nothing]]
    assert torch.equal(add_true_boxes(proposals[1:], targets[1:]), proposals[1:])
    with pytest.raises(ValueError, match="targets: one record for each of the 2 images expected, got 1"):
        add_true_boxes(proposals, targets[:1])


def pyramid(seed: int, *, images: int = 3, channels: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, channels, *size, generator=generator).requires_grad_() for size in SIZES]


def crops_by_torchvision(features: list[torch.Tensor], boxes: torch.Tensor, size: int, finest_scale: float) -> torch.Tensor:
    crops = []
    for image, own in enumerate(boxes):
        for box in own:
            side = ((box[2] - box[0]) * (box[3] - box[1])).sqrt().item()
            level = sum(side >= finest_scale * 2**k for k in range(1, len(features)))
            region = torch.cat([torch.tensor([0.0]), box])[None]
            crops.append(roi_align(features[level][image : image + 1], region, size, 1 / STRIDES[level], 2, aligned=True)[0])
    return torch.stack(crops).permute(0, 2, 3, 1)


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_crops_and_their_gradient_are_those_of_roi_align(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(generator, 3, 40)
    expected_of, found_of = pyramid(seed), pyramid(seed)
    expected = crops_by_torchvision(expected_of, boxes, size, 9.0)
    found = crop_regions(found_of, boxes, STRIDES, size=size, finest_scale=9.0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    upstream = torch.randn(found.shape, generator=generator)
    expected.backward(upstream)
    found.backward(upstream)
    for one, other in zip(found_of, expected_of, strict=True):
        assert one.grad is not None
        assert one.grad.abs().sum() > 0
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)


def test_a_box_takes_the_level_of_its_size() -> None:
    features = [torch.full((1, 1, 40 // 2**k, 40 // 2**k), float(k)) for k in range(3)]
    sides = torch.tensor([2.0, 17.9, 18.1, 35.9, 36.1, 71.0, 73.0, 150.0])
    boxes = torch.stack([torch.full_like(sides, 2.0)] * 2 + [sides + 2] * 2, -1)[None]
    crops = crop_regions(features, boxes, STRIDES, size=1, finest_scale=9.0)
    torch.testing.assert_close(crops.flatten(), torch.tensor([0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]))


def test_boxes_without_area_and_no_boxes_have_no_crop_and_a_live_graph() -> None:
    features = pyramid(0)
    boxes = torch.zeros(3, 2, 4)
    boxes[0, 0] = torch.tensor([4.0, 4.0, 20.0, 20.0])
    crops = crop_regions(features, boxes, STRIDES, size=3)
    assert (crops[0] != 0).all()
    assert (crops[1:] == 0).all()
    crops[1:].sum().backward()
    none = crop_regions(features, boxes[:, :0], STRIDES, size=3)
    assert none.shape == (0, 3, 3, 5)
    none.sum().backward()
    for feature in features:
        assert feature.grad is not None
        assert (feature.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_crops_have_the_dtype_of_the_features(dtype: torch.dtype) -> None:
    features = [feature.to(dtype) for feature in pyramid(1)]
    boxes = random_boxes(torch.Generator().manual_seed(0), 3, 4)
    found = crop_regions([feature.to(memory_format=torch.channels_last) for feature in features], boxes, STRIDES)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), crop_regions(pyramid(1), boxes, STRIDES), atol=0.02, rtol=0.02)
