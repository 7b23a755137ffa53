"""Boxes, labels and crowd flags follow the pixels through every transform."""

import math
from dataclasses import replace

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from lossbox.data.transforms import FILL, Augmentation, crop_and_place, eval_transforms, fitted_size, train_transforms
from lossbox.records import Targets

HEIGHT, WIDTH = 60, 80
COLORS = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]])
BOXES = torch.tensor([[4, 6, 24, 30], [40, 5, 76, 20], [30, 30, 44, 56], [60, 34, 79, 59]], dtype=torch.float32)
"""Four blocks of plain color, of which the color says the label: what comes out can be measured in the pixels."""
LABELS = torch.tensor([3, 1, 2, 0])
CROWD = torch.tensor([False, True, False, True])


def blocks():
    image = torch.full((3, HEIGHT, WIDTH), 40, dtype=torch.uint8)
    for color, box in zip(COLORS, BOXES.long(), strict=True):
        image[:, box[1] : box[3], box[0] : box[2]] = color[:, None, None].to(torch.uint8)
    return image, Targets(BOXES.clone(), LABELS.clone(), CROWD.clone(), 9, (HEIGHT, WIDTH), (HEIGHT, WIDTH))


def is_image(out, image):
    """Equal up to the last digit: torchvision does not divide by 255, it multiplies."""
    return out.shape == image.shape and torch.allclose(out, image / 255, atol=1e-6)


def empty_image():
    image, targets = blocks()
    return image, replace(targets, boxes=BOXES[:0], labels=LABELS[:0], crowd=CROWD[:0])


def measured(image, label):
    """The box around the pixels of one block, and how many they are; no pixels: None, 0."""
    color = COLORS[LABELS.tolist().index(label)] / 255
    inked = (image - color[:, None, None]).abs().amax(0) < 0.4
    rows, columns = inked.any(1).nonzero().flatten(), inked.any(0).nonzero().flatten()
    if len(rows) == 0:
        return None, 0
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float(), int(inked.sum())


AUGMENTATIONS = {
    "nothing": Augmentation(horizontal_flip=0.0),
    "flip": Augmentation(horizontal_flip=1.0),
    "zoom out": Augmentation(horizontal_flip=0.0, zoom_out=1.0, zoom_out_side=(1.0, 2.0)),
    "IoU crop": Augmentation(horizontal_flip=0.0, iou_crop=True),
    "larger": Augmentation(horizontal_flip=0.0, scale_jitter=(1.2, 2.0)),
    "smaller": Augmentation(horizontal_flip=0.0, scale_jitter=(0.5, 0.9)),
    "jitter": Augmentation(horizontal_flip=0.0, scale_jitter=(0.6, 1.6), aspect_jitter=1.5),
    "squeeze": Augmentation(horizontal_flip=0.0, keep_aspect=False),
    "all": Augmentation(zoom_out=0.5, iou_crop=True, scale_jitter=(0.7, 1.4), aspect_jitter=1.2, keep_aspect=False),
}


@pytest.mark.parametrize("augmentation", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_boxes_labels_and_crowd_stay_with_their_pixels(augmentation):
    transform = train_transforms(augmentation, size=180)
    seen = set()
    for seed in range(15):
        torch.manual_seed(seed)
        image, targets = transform(*blocks())
        assert image.dtype == torch.float32
        assert type(image) is torch.Tensor
        assert type(targets.boxes) is torch.Tensor
        assert image.min() >= 0
        assert image.max() <= 1
        assert targets.size == tuple(image.shape[-2:])
        assert (targets.image_id, targets.original_size) == (9, (HEIGHT, WIDTH))
        assert len(targets.boxes) == len(targets.labels) == len(targets.crowd)
        for box, label, crowd in zip(targets.boxes, targets.labels.tolist(), targets.crowd.tolist(), strict=True):
            expected, count = measured(image, label)
            assert crowd == CROWD[LABELS.tolist().index(label)]
            assert (box >= 0).all()
            assert (box.view(2, 2) <= torch.tensor(targets.size[::-1])).all()
            if count < 30:  # a sliver at the rim is blended with its surroundings
                continue
            torch.testing.assert_close(box, expected, atol=2.5, rtol=0)
            seen.add(label)
    assert seen == {0, 1, 2, 3}


def test_the_default_mirrors_half_of_the_images_and_nothing_else():
    transform = train_transforms(size=WIDTH)
    image, targets = blocks()
    mirrored = 0
    for seed in range(40):
        torch.manual_seed(seed)
        out, found = transform(image, targets)
        if is_image(out, image):
            assert torch.equal(found.boxes, BOXES)
        else:
            mirrored += 1
            assert is_image(out, image.flip(-1))
            assert torch.equal(found.boxes, torch.stack([WIDTH - BOXES[:, 2], BOXES[:, 1], WIDTH - BOXES[:, 0], BOXES[:, 3]], 1))
    assert 10 < mirrored < 30


def test_jitter_keeps_exactly_the_boxes_of_which_enough_is_left():
    """Scaled by 2, half of each side is cut away: what is left of each block is counted in the pixels."""
    least = 0.4
    transform = train_transforms(Augmentation(horizontal_flip=0.0, scale_jitter=(2.0, 2.0), min_visible=least), size=WIDTH)
    kept, lost = 0, 0
    for seed in range(60):
        torch.manual_seed(seed)
        image, targets = transform(*blocks())
        assert image.shape == (3, HEIGHT, WIDTH)
        for label in range(4):
            number = LABELS.tolist().index(label)
            box = BOXES[number]
            whole = 4 * float((box[2:] - box[:2]).prod())
            share = measured(image, label)[1] / whole
            if CROWD[number]:  # what shows of a crowd region is no background
                assert label in targets.labels or share < 0.1
            elif share > least + 0.1:
                assert label in targets.labels
                kept += 1
            elif share < least - 0.1:
                assert label not in targets.labels
                lost += 1
    assert kept > 20
    assert lost > 20


def test_jitter_draws_scales_and_places_from_the_whole_range():
    transform = train_transforms(Augmentation(horizontal_flip=0.0, scale_jitter=(0.5, 2.0), min_visible=0.0), size=WIDTH)
    widths, lefts = [], []
    for seed in range(200):
        torch.manual_seed(seed)
        _, targets = transform(*blocks())
        boxes = dict(zip(targets.labels.tolist(), targets.boxes, strict=True))
        if 3 in boxes and boxes[3][0] > 0 and boxes[3][2] < WIDTH:
            widths.append(float(boxes[3][2] - boxes[3][0]) / 20)
            lefts.append(float(boxes[3][0]))
    assert min(widths) < 0.55
    assert max(widths) > 1.8
    # Log-uniform: as many below 1 as above, but for the larger ones that are cut.
    assert 0.35 < sum(width < 1 for width in widths) / len(widths) < 0.75
    assert max(lefts) - min(lefts) > 30


def test_aspect_jitter_changes_width_over_height_up_to_its_factor():
    transform = train_transforms(Augmentation(horizontal_flip=0.0, scale_jitter=(0.5, 0.6), aspect_jitter=1.5), size=160)
    factors = []
    for seed in range(100):
        torch.manual_seed(seed)
        _, targets = transform(*blocks())
        box = targets.boxes[targets.labels == 3][0]
        factors.append(float((box[2] - box[0]) / (box[3] - box[1])) / (20 / 24))
    assert 1 / 1.55 < min(factors) < 0.75
    assert 1.35 < max(factors) < 1.55


def test_iou_crop_cuts_most_images():
    transform = train_transforms(Augmentation(horizontal_flip=0.0, iou_crop=True), size=WIDTH)
    scales = []
    for seed in range(30):
        torch.manual_seed(seed)
        image, targets = transform(*blocks())
        assert len(targets.boxes) >= 1
        scales.append(image.shape != (3, HEIGHT, WIDTH) or not is_image(image, blocks()[0]))
    assert 15 < sum(scales) < 30


def test_boxes_that_an_iou_crop_cuts_away_are_gone_with_their_labels_and_flags():
    """torchvision's crop sets such boxes to zero and keeps their labels; its sanitizing step, by default, filters `labels` and no more."""
    image, targets = blocks()
    boxes = tv_tensors.BoundingBoxes(targets.boxes, format="XYXY", canvas_size=(HEIGHT, WIDTH))
    transform = train_transforms(Augmentation(horizontal_flip=0.0, iou_crop=True), size=WIDTH)
    zeroed = 0
    for seed in range(20):
        torch.manual_seed(seed)
        _, sample = v2.RandomIoUCrop()(tv_tensors.Image(image), {"boxes": boxes, "labels": targets.labels, "crowd": targets.crowd})
        assert len(sample["boxes"]) == len(sample["labels"]) == 4
        inside = (sample["boxes"] != 0).any(1)
        zeroed += int((~inside).sum())
        torch.manual_seed(seed)
        _, found = transform(image, targets)
        assert found.labels.tolist() == targets.labels[inside].tolist()
        assert found.crowd.tolist() == targets.crowd[inside].tolist()
    assert zeroed > 10


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_iou_crop_passes_images_of_a_few_pixels(side):
    """torchvision takes a share of 0.3 of each side, rounded down: of 3 px nothing is left, and it divides by it."""
    whole = torch.tensor([[0.0, 0.0, side, side]])
    targets = Targets(whole, LABELS[:1], CROWD[:1], 1, (side, side), (side, side))
    for seed in range(20):
        torch.manual_seed(seed)
        image, found = train_transforms(Augmentation(iou_crop=True), size=64)(torch.zeros(3, side, side, dtype=torch.uint8), targets)
        assert max(image.shape[-2:]) == 64
        assert len(found.boxes) == 1


@pytest.mark.parametrize("largest", [1.0, 4.0])
def test_zoom_out_shows_the_whole_image_on_a_larger_canvas(largest):
    transform = train_transforms(Augmentation(horizontal_flip=0.0, zoom_out=1.0, zoom_out_side=(largest, largest)), size=WIDTH)
    for seed in range(5):
        torch.manual_seed(seed)
        image, targets = transform(*blocks())
        assert image.shape == (3, HEIGHT, WIDTH)
        assert targets.labels.tolist() == LABELS.tolist()
        sides = (targets.boxes[:, 2:] - targets.boxes[:, :2]) / (BOXES[:, 2:] - BOXES[:, :2])
        torch.testing.assert_close(sides, torch.full((4, 2), 1 / largest))
        plain = (image - torch.tensor(FILL)[:, None, None] / 255).abs().amax(0) < 0.02
        assert abs(float(plain.float().mean()) - (1 - 1 / largest**2)) < 0.05


def test_what_is_outside_the_image_is_filled_plainly():
    image, boxes = crop_and_place(
        torch.zeros(3, 8, 8, dtype=torch.uint8), torch.tensor([[0.0, 0, 8, 8]]), window=(0, 0, 8, 8), place=(2, 5, 4, 3), canvas=(10, 12)
    )
    assert boxes.tolist() == [[2, 5, 6, 8]]
    assert image.shape == (3, 10, 12)
    assert image[:, 5:8, 2:6].max() == 0
    image[:, 5:8, 2:6] = torch.tensor(FILL, dtype=torch.uint8)[:, None, None]
    assert (image == torch.tensor(FILL)[:, None, None]).all()


def test_photometric_changes_colors_and_no_boxes():
    transform = train_transforms(Augmentation(horizontal_flip=0.0, photometric=1.0), size=WIDTH)
    torch.manual_seed(0)
    image, targets = transform(*blocks())
    assert (image - blocks()[0] / 255).abs().mean() > 0.02
    assert image.min() >= 0
    assert image.max() <= 1
    assert torch.equal(targets.boxes, BOXES)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_images_without_boxes_pass(augmentation):
    for seed in range(5):
        torch.manual_seed(seed)
        image, targets = train_transforms(augmentation, size=64)(*empty_image())
        assert image.shape[0] == 3
        assert targets.boxes.shape == (0, 4)
        assert targets.labels.shape == targets.crowd.shape == (0,)
    image, targets = eval_transforms(size=64)(*empty_image())
    assert targets.boxes.shape == (0, 4)


@pytest.mark.parametrize("augmentation", [AUGMENTATIONS["all"], Augmentation(photometric=1.0)])
def test_the_input_is_not_changed(augmentation):
    image, targets = blocks()
    for seed in range(10):
        torch.manual_seed(seed)
        train_transforms(augmentation, size=WIDTH)(image, targets)
        eval_transforms(size=WIDTH)(image, targets)
    assert torch.equal(image, blocks()[0])
    assert torch.equal(targets.boxes, BOXES)
    assert torch.equal(targets.labels, LABELS)


def test_the_generator_decides_all():
    transform = train_transforms(replace(AUGMENTATIONS["all"], photometric=0.5), size=64)
    torch.manual_seed(3)
    first, first_targets = transform(*blocks())
    other, _ = transform(*blocks())
    torch.manual_seed(3)
    again, again_targets = transform(*blocks())
    assert torch.equal(first, again)
    assert torch.equal(first_targets.boxes, again_targets.boxes)
    assert first.shape != other.shape or not torch.equal(first, other)


# -- sizes


def test_eval_leaves_a_image_of_its_size_alone_and_removes_no_box():
    image, targets = blocks()
    tiny = replace(targets, boxes=torch.tensor([[1.0, 1.0, 1.2, 1.2], *BOXES[1:].tolist()]))
    out, found = eval_transforms(size=WIDTH)(image, tiny)
    assert is_image(out, image)
    assert torch.equal(found.boxes, tiny.boxes)
    out, found = eval_transforms(size=40)(image, tiny)
    assert out.shape == (3, 30, 40)
    torch.testing.assert_close(found.boxes, tiny.boxes / 2)
    assert found.size == (30, 40)
    assert found.original_size == (HEIGHT, WIDTH)


def test_boxes_at_the_rim_survive_scaling():
    """In float32, 139 * (115 / 139) exceeds 115 by 1e-5, for which torchvision's last step alone would remove the box."""
    for side in (67, 91, 139):
        whole = torch.tensor([[0.0, 0.0, side, side]])
        image, targets = (
            torch.zeros(3, side, side, dtype=torch.uint8),
            replace(blocks()[1], labels=LABELS[:1], crowd=CROWD[:1], boxes=whole),
        )
        for size in range(30, 140):
            _, found = train_transforms(Augmentation(horizontal_flip=0.0), size=size)(image, targets)
            assert len(found.boxes) == 1


def test_boxes_below_a_pixel_are_not_trained_on():
    image, targets = blocks()
    boxes = torch.cat([torch.tensor([[5.0, 5.0, 5.5, 20.0]]), BOXES[1:]])
    _, found = train_transforms(Augmentation(horizontal_flip=0.0), size=WIDTH)(image, replace(targets, boxes=boxes))
    assert found.labels.tolist() == LABELS[1:].tolist()
    assert found.crowd.tolist() == CROWD[1:].tolist()


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (300, 900), (5000, 10), (1, 1), (333, 500)])
@pytest.mark.parametrize(("shorter", "longer"), [(500, 833), (800, 1333), (128, 128), (32, 4000)])
def test_fitted_size_keeps_the_aspect_and_both_limits(height, width, shorter, longer):
    new = fitted_size(height, width, shorter=shorter, longer=longer)
    assert min(new) <= shorter
    assert max(new) <= longer
    assert min(new) == shorter or max(new) == longer
    factor = max(new) / max(height, width)
    assert math.isclose(min(new), max(min(height, width) * factor, 1), abs_tol=0.51)


def test_tuple_size_and_square():
    image, targets = blocks()
    assert train_transforms(size=(100, 120))(image, targets)[0].shape == (3, 90, 120)
    assert train_transforms(Augmentation(keep_aspect=False), size=96)(image, targets)[0].shape == (3, 96, 96)
    assert train_transforms(Augmentation(keep_aspect=False, scale_jitter=(0.5, 2.0)), size=96)(image, targets)[0].shape == (3, 96, 96)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"horizontal_flip": 1.5}, "horizontal_flip"),
        ({"photometric": -0.1}, "photometric"),
        ({"zoom_out": float("nan")}, "zoom_out"),
        ({"zoom_out_side": (0.5, 2.0)}, "zoom_out_side"),
        ({"scale_jitter": (0.0, 2.0)}, "scale_jitter"),
        ({"scale_jitter": (2.0, 1.0)}, "scale_jitter"),
        ({"aspect_jitter": 0.5}, "aspect_jitter"),
        ({"aspect_jitter": 2.0}, "aspect_jitter"),
        ({"min_visible": 2.0}, "min_visible"),
        ({"mosaic": 1.1}, "mosaic"),
    ],
)
def test_options_out_of_range_are_named(options, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        Augmentation(**options)


@pytest.mark.parametrize("size", [0, -5, (10, 5), (0, 5)])
def test_sizes_out_of_range_are_named(size):
    for build in (eval_transforms, train_transforms):
        with pytest.raises(ValueError, match=r"^size: a positive number of pixels"):
            build(size=size)
    with pytest.raises(ValueError, match=r"^size: a single number expected where keep_aspect is False"):
        train_transforms(Augmentation(keep_aspect=False), size=(5, 10))
