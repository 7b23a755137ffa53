"""The numbers about a data set, each against its plain definition."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from lossbox.coco.read import CocoAnnotations, CocoImage
from lossbox.data.survey import best_anchor_iou, boxes_as_seen, near_doubles, percentiles, survey
from lossbox.detectors.anchors import anchor_shapes, pyramid_anchors


def image(boxes, labels=None, crowd=None, size=(100, 80), image_id=1):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(boxes), dtype=torch.long) if labels is None else torch.tensor(labels)
    crowd = torch.zeros(len(boxes), dtype=torch.bool) if crowd is None else torch.tensor(crowd)
    return CocoImage(image_id, Path("a.png"), *size, boxes, labels, crowd)


def data(*images):
    return CocoAnnotations(Path("a.json"), [(1, "cat"), (2, "dog"), (5, "cow")], list(images))


def test_counts_sizes_and_shapes():
    crowded = image([[0, 0, 50, 50], [0, 0, 10, 40]], [2, 1], [True, False])
    found = survey(
        data(image([[0, 0, 10, 10], [0, 0, 10.5, 10], [0, 0, 10, 9.9]], [0, 0, 1]), crowded, image([]), image([[0, 0, 9, 9]], [2], [True]))
    )
    assert (found["images"], found["boxes"], found["crowd_regions"], found["without_boxes"]) == (4, 4, 2, 2)
    assert found["classes"] == {"cat": 2, "dog": 2, "cow": 0}
    assert found["doubles"] == {"same_class": 1, "other_class": 2}
    assert found["side"]["0"] == pytest.approx(99**0.5)
    assert found["side"]["100"] == pytest.approx(20)
    assert found["share"]["100"] == pytest.approx(20 / 8000**0.5)
    assert (found["aspect"]["0"], found["aspect"]["100"]) == (pytest.approx(10 / 10.5), pytest.approx(4))


def test_a_data_set_without_boxes():
    found = survey(data(image([])))
    assert (found["boxes"], found["without_boxes"], found["side"]["50"]) == (0, 1, None)
    assert best_anchor_iou(boxes_as_seen(data(image([])), size=(64, 64)), [torch.ones(1, 2)], [8]).shape == (0,)


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_percentiles_are_numpys(count):
    values = torch.rand(count, generator=torch.Generator().manual_seed(count))
    np.testing.assert_allclose(list(percentiles(values).values()), np.percentile(values.double().numpy(), [0, 5, 25, 50, 75, 95, 100]))


def test_near_doubles_against_the_definition():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(30, 4, generator=generator).sort(1).values[:, [0, 1, 2, 3]] * 10
    boxes = torch.cat([boxes, boxes + 0.05])
    expected = {(i, j) for i, j in (box_iou(boxes, boxes) >= 0.8).nonzero().tolist() if i < j}
    assert len(expected) > 5
    assert set(map(tuple, near_doubles(boxes, iou=0.8).tolist())) == expected


def test_best_anchor_iou_is_that_of_all_anchors():
    """Boxes of every size and place, at the rim too, against every anchor of the padded image."""
    generator = torch.Generator().manual_seed(1)
    strides, options = (8, 16, 64), {"anchor_scale": 2.0, "scales": (1.0, 1.5), "ratios": (0.5, 1.0, 3.0)}
    images = []
    for width, height in ((100, 80), (70, 150), (33, 31)):
        low = torch.rand(40, 2, generator=generator) * torch.tensor([width, height])
        sides = torch.rand(40, 2, generator=generator) ** 3 * (torch.tensor([width, height]) - low) + 0.1
        images.append(image(torch.cat([low, low + sides], 1).tolist(), size=(width, height)))
    found = best_anchor_iou(boxes_as_seen(data(*images), size=(64, 96)), anchor_shapes(strides, **options), strides)
    expected = []
    for one in images:
        factor = min(64 / min(one.width, one.height), 96 / max(one.width, one.height))
        width, height = round(one.width * factor), round(one.height * factor)
        padded = [-(-side // 32) * 32 for side in (height, width)]
        anchors = pyramid_anchors([(-(-padded[0] // s), -(-padded[1] // s)) for s in strides], strides, **options)
        scaled = one.boxes * torch.tensor([width / one.width, height / one.height]).repeat(2)
        expected.append(box_iou(scaled, anchors).max(1).values)
    torch.testing.assert_close(found, torch.cat(expected))
    assert found.min() < 0.1
    assert found.max() > 0.6
