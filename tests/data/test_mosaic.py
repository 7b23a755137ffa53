"""Four images as one: each box where its pixels are, clipped to its part, and gone where too little of it is left."""

import itertools

import pytest
import torch

from lossbox.data.mosaic import mosaic_of_four
from lossbox.data.transforms import FILL
from lossbox.records import Targets

COLORS = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]], dtype=torch.uint8)
BACKGROUND = 20


def sample(label, height=60, width=80, box=(20, 10, 60, 50), crowd=False):
    """One plain block; its color says the label."""
    image = torch.full((3, height, width), BACKGROUND, dtype=torch.uint8)
    x1, y1, x2, y2 = box
    image[:, y1:y2, x1:x2] = COLORS[label][:, None, None]
    size = (height, width)
    return image, Targets(torch.tensor([box]).float(), torch.tensor([label]), torch.tensor([crowd]), 10 + label, size, size)


def four(**options):
    return [sample(label, **options) for label in range(4)]


def inked(image, label):
    """The box around the pixels of one block, None without any."""
    mask = (image.int() - COLORS[label].int()[:, None, None]).abs().amax(0) < 100
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float() if len(rows) else None


def test_every_box_is_where_its_pixels_are():
    seen = 0
    for seed in range(40):
        torch.manual_seed(seed)
        image, targets = mosaic_of_four(four(), size=(96, 128), keep_aspect=False, min_visible=0.0)
        assert image.shape == (3, 96, 128)
        assert image.dtype == torch.uint8
        assert (targets.size, targets.image_id, targets.original_size) == ((96, 128), 10, (60, 80))
        for label in range(4):
            expected, at = inked(image, label), (targets.labels == label).nonzero()[:, 0]
            if expected is None or (expected[2:] - expected[:2]).min() < 3:  # a sliver is blended with its surroundings
                continue
            assert len(at) == 1
            torch.testing.assert_close(targets.boxes[at[0]], expected, atol=1.6, rtol=0)
            seen += 1
    assert seen > 120


def test_the_parts_meet_in_the_middle_half_and_keep_their_order():
    """Images of one plain color each: the canvas is divided among them, but for what is smaller than its part."""
    for seed in range(20):
        torch.manual_seed(seed)
        image, targets = mosaic_of_four(four(box=(0, 0, 80, 60)), size=(60, 80), keep_aspect=False, min_visible=0.0)
        left_top, right_top, left_bottom, right_bottom = targets.boxes
        x, y = left_top[2:].tolist()
        assert (right_top[[0, 3]].tolist(), left_bottom[[2, 1]].tolist(), right_bottom[:2].tolist()) == ([x, y], [x, y], [x, y])
        assert 20 <= x <= 60
        assert 15 <= y <= 45
        covered = sum(float((box[2:] - box[:2]).prod()) for box in targets.boxes)
        plain = float((image == torch.tensor(FILL)[:, None, None]).all(0).sum())
        assert covered + plain == 60 * 80


def test_boxes_of_which_too_little_is_left_are_dropped_and_crowd_regions_are_not():
    kept = {False: 0, True: 0}
    for seed, crowd in itertools.product(range(40), (False, True)):
        images = four(crowd=crowd)
        torch.manual_seed(seed)
        _, whole = mosaic_of_four(images, size=(60, 80), keep_aspect=False, min_visible=0.0)
        torch.manual_seed(seed)
        _, found = mosaic_of_four(images, size=(60, 80), keep_aspect=False, min_visible=0.9)
        assert found.crowd.tolist() == [crowd] * len(found.boxes)
        if crowd:
            assert torch.equal(found.boxes, whole.boxes)
        else:
            # at 0.5 to 1 times its 40 x 40 px, a block of which 0.9 is left has at least 360 px
            assert ((found.boxes[:, 2:] - found.boxes[:, :2]).prod(1) > 350).all()
        kept[crowd] += len(found.boxes)
    assert 0 < kept[False] < 0.8 * kept[True]


def test_labels_and_flags_stay_with_their_boxes():
    images = [sample(0), sample(1, crowd=True), sample(2), sample(3, crowd=True)]
    for seed in range(20):
        torch.manual_seed(seed)
        _, targets = mosaic_of_four(images, size=(60, 80), keep_aspect=False)
        assert targets.crowd.tolist() == [label in (1, 3) for label in targets.labels.tolist()]


def test_images_without_boxes_and_of_any_size_take_part():
    image, _ = sample(0)
    empty = Targets(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool(), 5, (60, 80), (60, 80))
    for seed in range(10):
        torch.manual_seed(seed)
        tiny, long = sample(1, 1, 1, (0, 0, 1, 1)), sample(2, 2, 300, (0, 0, 300, 2))
        made, found = mosaic_of_four([(image, empty), tiny, long, (image, empty)], size=(7, 64), keep_aspect=False)
        assert made.shape == (3, 7, 64)
        assert found.image_id == 5
        assert (found.boxes >= 0).all()
        assert (found.boxes.view(-1, 2, 2) <= torch.tensor([64, 7])).all()
    _, found = mosaic_of_four([(image, empty)] * 4, size=(60, 80), keep_aspect=False)
    assert found.boxes.shape == (0, 4)


def test_the_generator_decides_all_and_the_input_is_not_changed():
    images = four()
    torch.manual_seed(1)
    first = mosaic_of_four(images, size=(60, 80), keep_aspect=False)
    torch.rand(3)
    torch.manual_seed(1)
    again = mosaic_of_four(images, size=(60, 80), keep_aspect=False)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1].boxes, again[1].boxes)
    for (image, targets), (fresh, fresh_targets) in zip(images, four(), strict=True):
        assert torch.equal(image, fresh)
        assert torch.equal(targets.boxes, fresh_targets.boxes)


@pytest.mark.parametrize(("size", "keep_aspect", "canvas"), [(128, True, (96, 128)), (128, False, (128, 128)), ((30, 60), True, (30, 40))])
def test_a_mosaic_is_as_large_as_its_first_image_would_be(size, keep_aspect, canvas):
    image, targets = mosaic_of_four(four(), size=size, keep_aspect=keep_aspect)
    assert tuple(image.shape[-2:]) == targets.size == canvas


@pytest.mark.parametrize(
    ("options", "name"),
    [({"size": (3, 9)}, "size"), ({"size": (9, 5)}, "size"), ({"min_visible": 1.5}, "min_visible"), ({"samples": []}, "samples")],
)
def test_options_out_of_range_are_named(options, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        mosaic_of_four(options.pop("samples", four()), **{"size": (60, 80), **options})
