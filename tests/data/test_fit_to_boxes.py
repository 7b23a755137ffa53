"""What `auto` chooses, on made-up distributions of boxes."""

from pathlib import Path

import pytest
import torch
from torchvision.ops import box_iou

from lossbox.coco.read import CocoAnnotations, CocoImage
from lossbox.data.fit_to_boxes import ANCHOR_SCALES, AnchorGrid, choose, choose_anchor_scale, choose_image_size
from lossbox.data.survey import best_anchor_iou
from lossbox.detectors.anchors import anchor_shapes, pyramid_anchors

STRIDES = (8, 16, 32)
SQUARES = anchor_shapes(STRIDES, anchor_scale=1.0, scales=(1.0,), ratios=(1.0,))
GRID = AnchorGrid(SQUARES, STRIDES)


def boxes(sides, aspect=1.0, count=400):
    """Log-uniform sides between two numbers, anywhere in an image of 320 px; `aspect` is height over width."""
    generator = torch.Generator().manual_seed(0)
    side = sides[0] * (sides[1] / sides[0]) ** torch.rand(count, generator=generator)
    size = torch.stack([side / aspect**0.5, side * aspect**0.5], 1)
    corner = torch.rand(count, 2, generator=generator) * (320 - size).clamp(min=0)
    return torch.cat([corner, corner + size], 1)


@pytest.mark.parametrize(
    ("sides", "aspect", "scale"),
    [
        ((12, 20), 1.0, 2.0),
        ((8, 14), 1.0, 1.5),
        ((30, 130), 1.0, 4.0),
        ((150, 230), 1.0, 6.0),
        ((250, 320), 1.0, 8.0),
        ((14, 22), 3.0, 3.0),
    ],
)
def test_the_scale_suits_the_boxes(sides, aspect, scale):
    assert choose_anchor_scale(boxes(sides, aspect), SQUARES, STRIDES).value == scale


def test_the_scale_is_the_best_of_all_anchors():
    """Against every anchor of the pyramid and every scale, for a detector with six anchors on a place."""
    options = {"scales": (1.0, 2**0.5), "ratios": (0.5, 1.0, 2.0)}
    some = boxes((15, 40), 2.0)
    cells = [(-(-320 // stride), -(-320 // stride)) for stride in STRIDES]
    mean = {
        scale: box_iou(some, pyramid_anchors(cells, STRIDES, anchor_scale=scale, **options)).max(1).values.mean().item()
        for scale in ANCHOR_SCALES
    }
    best = max(mean, key=mean.get)
    choice = choose_anchor_scale(some, anchor_shapes(STRIDES, anchor_scale=1.0, **options), STRIDES)
    assert choice.value == best != 4.0
    assert choice.reason.endswith(f"mean best IoU {mean[best]:.2f}, {mean[4.0]:.2f} with 4.0")


def test_of_scales_that_fit_about_equally_the_one_nearest_to_4():
    some = boxes((32, 128))
    mean = {scale: best_anchor_iou(some, [scale * shape for shape in SQUARES], STRIDES).mean().item() for scale in (4.0, 6.0)}
    assert 0.01 < mean[6.0] - mean[4.0] < 0.03
    choice = choose_anchor_scale(some, SQUARES, STRIDES)
    assert choice.value == 4.0
    assert choice.reason.endswith("no scale has much more")


@pytest.mark.parametrize(
    ("side", "longer", "size"),
    [(100.0, 640.0, 320), (24.0, 640.0, 320), (20.0, 640.0, 384), (5.0, 640.0, 512), (5.0, 450.0, 448), (5.0, 128.0, 128), (5.0, 20.0, 32)],
)
def test_small_boxes_take_larger_images_but_no_larger_than_they_are(side, longer, size):
    sizes = torch.tensor([[side / 2, side * 2]]).expand(50, 2)  # what counts is the root of the area
    choice = choose_image_size(sizes, torch.full((50,), longer))
    assert choice.value == size
    assert choice.reason.endswith("no larger") == (longer < 512 and size < 512 and side == 5.0)


def test_a_tenth_of_the_boxes_may_be_small_and_the_stride_counts():
    sizes = torch.cat([torch.full((9, 2), 6.0), torch.full((91, 2), 30.0)])
    longer = torch.full((100,), 640.0)
    assert choose_image_size(sizes, longer).value == 320
    assert choose_image_size(torch.cat([sizes, torch.full((2, 2), 6.0)]), torch.full((102,), 640.0)).value == 512
    assert choose_image_size(sizes, longer, stride=16).value == 512
    assert choose_image_size(sizes[:9], longer[:9], stride=2).value == 320


def test_degenerate_boxes_change_nothing():
    good = boxes((12, 20))
    bad = torch.tensor([[50.0, 50.0, 50.0, 90.0], [60.0, 60.0, 40.0, 40.0], [0.0, 0.0, 0.0, 0.0]]).repeat(300, 1)
    both = torch.cat([good, bad])
    assert choose_anchor_scale(both, SQUARES, STRIDES) == choose_anchor_scale(good, SQUARES, STRIDES)
    size = [choose_image_size(some[:, 2:] - some[:, :2], torch.full((len(some),), 640.0)) for some in (good, both)]
    assert size[0] == size[1]


def image(some, crowd=None):
    crowd = torch.zeros(len(some), dtype=torch.bool) if crowd is None else crowd
    return CocoImage(1, Path("a.png"), 640, 480, some, torch.zeros(len(some), dtype=torch.long), crowd)


def chosen(*images, image_size, anchors=GRID):
    found = choose(CocoAnnotations(Path("a.json"), [(1, "cat")], list(images)), image_size=image_size, anchors=anchors)
    return {name: choice.value for name, choice in found.items()}, [choice.reason for choice in found.values()]


def test_without_boxes_the_defaults_and_why():
    for nothing in (image(torch.zeros(0, 4)), image(boxes((12, 20)), torch.ones(400, dtype=torch.bool))):  # crowd regions do not count
        assert chosen(nothing, image_size="auto") == ({"image_size": 320, "anchor_scale": 4.0}, ["there are no boxes to go by"] * 2)


def test_the_scale_is_for_the_image_size_in_use():
    tiny = image(boxes((20, 22)))
    assert chosen(tiny, image_size="auto")[0] == {"image_size": 384, "anchor_scale": 2.0}
    assert chosen(tiny, image_size=640)[0] == {"image_size": 384, "anchor_scale": 3.0}
    assert chosen(tiny, image_size=(960, 1280))[0] == {"image_size": 384, "anchor_scale": chosen(tiny, image_size=1280)[0]["anchor_scale"]}
    assert chosen(tiny, image_size=1280)[0]["anchor_scale"] == 6.0
    assert chosen(tiny, image_size=640, anchors=None)[0] == {"image_size": 384}
