"""Several looks at one image: each at its own size, every box back in the frame of the image, one list without doubles."""

import pytest
import torch

from lossbox.decoding import MultiScale, merge_detections
from lossbox.records import Detections

BOX = torch.tensor([10.0, 6.0, 22.0, 18.0])


def drawn(height, width, padded, box=BOX):
    image = torch.zeros(3, *padded)
    x1, y1, x2, y2 = box.long().tolist()
    image[:, y1:y2, x1:x2] = 1
    image[:, height:] = image[:, :, width:] = 0
    return image


class Finder:
    """Finds the bright block of each image; writes down what it was shown."""

    def __init__(self):
        self.shown = []

    def __call__(self, images, sizes):
        self.shown.append((tuple(images.shape), list(sizes)))
        found = []
        for image, (height, width) in zip(images, sizes, strict=True):
            assert image[:, height:].abs().sum() + image[:, :, width:].abs().sum() == 0
            rows, columns = (image[0] > 0.5).any(1).nonzero()[:, 0], (image[0] > 0.5).any(0).nonzero()[:, 0]
            box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else []
            boxes = torch.tensor([[float(side) for side in box]] if box else []).reshape(-1, 4)
            found.append(Detections(boxes, torch.full((len(boxes),), 0.1 * len(self.shown)), torch.zeros(len(boxes), dtype=torch.long)))
        return found


def test_every_look_brings_its_boxes_back():
    """The two images differ in size, so that mirroring about the padded width would put the box elsewhere."""
    images = torch.stack([drawn(32, 64, (32, 64)), drawn(24, 40, (32, 64))])
    finder = Finder()
    found = MultiScale(scales=(1.0, 0.5, 2.0), nms_threshold=1.0)(images, [(32, 64), (24, 40)], finder)
    assert finder.shown == [
        shown
        for shape, sizes in [
            ((2, 3, 32, 64), [(32, 64), (24, 40)]),
            ((2, 3, 32, 32), [(16, 32), (12, 20)]),
            ((2, 3, 64, 128), [(64, 128), (48, 80)]),
        ]
        for shown in [(shape, sizes)] * 2
    ]
    for one in found:
        assert one.boxes.shape == (6, 4)
        torch.testing.assert_close(one.boxes, BOX.expand(6, 4), atol=1.0, rtol=0)
        assert one.scores.tolist() == sorted(one.scores.tolist(), reverse=True)


def test_sizes_that_do_not_divide_are_mapped_back_by_their_own_factor():
    """7 px at the scale 0.5 are 4 px (not 3.5): a box around all of them is 7 px wide again."""

    def whole(images, sizes):
        return [Detections(torch.tensor([[0.0, 0.0, size[1], size[0]]]), torch.ones(1), torch.zeros(1).long()) for size in sizes]

    (found,) = MultiScale(scales=(0.5, 0.3), nms_threshold=1.0)(torch.rand(1, 3, 32, 32), [(9, 7)], whole)
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0.0, 7.0, 9.0]]).expand(4, 4))


def test_one_scale_without_mirror_is_the_detector_itself():
    images = torch.stack([drawn(32, 64, (32, 64))])
    (once,) = MultiScale(flip=False)(images, [(32, 64)], Finder())
    assert once.boxes.tolist() == [BOX.tolist()]


def test_merging_keeps_the_best_of_each_class():
    def found(rows):
        boxes = torch.tensor([[x, 0.0, x + 10, 10.0] for x, _, _ in rows]).reshape(-1, 4)
        return Detections(
            boxes, torch.tensor([score for _, score, _ in rows]), torch.tensor([label for *_, label in rows], dtype=torch.long)
        )

    parts = [found([(0.0, 0.5, 0), (50.0, 0.9, 1)]), found([]), found([(1.0, 0.8, 0), (1.0, 0.7, 1), (51.0, 0.3, 1)])]
    merged = merge_detections(parts)
    torch.testing.assert_close(merged.scores, torch.tensor([0.9, 0.8, 0.7]))
    assert merged.labels.tolist() == [1, 0, 1]
    assert merged.boxes[:, 0].tolist() == [50, 1, 1]
    assert len(merge_detections(parts, nms_threshold=1.0).scores) == 5
    assert len(merge_detections(parts, max_detections=2).scores) == 2
    assert merge_detections([found([])]).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"scales": ()}, "scales"),
        ({"scales": (1.0, 0.0)}, "scales"),
        ({"nms_threshold": 1.5}, "nms_threshold"),
        ({"max_detections": 0}, "max_detections"),
        ({"multiple": 0}, "multiple"),
    ],
)
def test_options_out_of_range_are_named(options, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        MultiScale(**options)


def test_calls_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"^sizes: "):
        MultiScale()(torch.zeros(1, 3, 8, 8), [], Finder())
    with pytest.raises(ValueError, match=r"^parts: "):
        merge_detections([])
