"""The later losses of whole boxes against the papers' formulas in plain numbers: value, gradient by differences, edge cases by hand."""

import math

import pytest
import torch

from lossbox.losses import bounded_iou_loss, inner_iou_loss, iou_loss, mpdiou_loss, nwd_loss, siou_loss, wiou_loss


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def parts(a, b):
    center = [((a[k] + a[k + 2]) - (b[k] + b[k + 2])) / 2 for k in (0, 1)]
    sizes = [(a[k + 2] - a[k], b[k + 2] - b[k]) for k in (0, 1)]
    around = [max(a[k + 2], b[k + 2]) - min(a[k], b[k]) for k in (0, 1)]
    return center, sizes, around


def bounded(a, b):
    center, sizes, _ = parts(a, b)
    gaps = [1 - max(0, (s[1] - 2 * abs(d)) / (s[1] + 2 * abs(d))) for d, s in zip(center, sizes, strict=True)]
    gaps += [1 - min(s[0] / s[1], s[1] / s[0]) for s in sizes]
    return sum(g * g / 0.4 if g < 0.2 else g - 0.1 for g in gaps)


def nwd(a, b):
    center, sizes, _ = parts(a, b)
    return 1 - math.exp(-math.sqrt(sum(d * d for d in center) + sum((s[0] - s[1]) ** 2 / 4 for s in sizes)) / 3)


def siou(a, b):
    center, sizes, around = parts(a, b)
    sigma = math.hypot(*center)
    angle = 1 - 2 * math.sin(math.asin(abs(center[1]) / sigma) - math.pi / 4) ** 2  # the paper's form
    distance = sum(1 - math.exp(-(2 - angle) * (d / c) ** 2) for d, c in zip(center, around, strict=True))
    shape = sum((1 - math.exp(-abs(s[0] - s[1]) / max(s))) ** 3 for s in sizes)
    return 1 - iou(a, b) + (distance + shape) / 2


def wiou(a, b):
    center, _, around = parts(a, b)
    return (1 - iou(a, b)) * math.exp(sum(d * d for d in center) / sum(c * c for c in around))


def mpdiou(a, b):
    return 1 - iou(a, b) + sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / (6**2 + 8**2)


def inner(a, b):
    def resized(box):
        x, y, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 1.2 * (box[2] - box[0]), 1.2 * (box[3] - box[1])
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2

    return 1 - iou(resized(a), resized(b))


LOSSES = {
    "bounded": (bounded_iou_loss, {}, bounded),
    "nwd": (nwd_loss, {"scale": 3.0}, nwd),
    "siou": (siou_loss, {"theta": 3.0}, siou),
    "wiou": (wiou_loss, {}, wiou),
    "mpdiou": (mpdiou_loss, {"image_size": (6.0, 8.0)}, mpdiou),
    "inner": (inner_iou_loss, {"ratio": 1.2}, inner),
}


def pairs(n=40):
    g = torch.Generator().manual_seed(0)
    corner, size = (
        3 * torch.rand(n, 2, 2, generator=g, dtype=torch.float64),
        0.3 + 3 * torch.rand(n, 2, 2, generator=g, dtype=torch.float64),
    )
    return torch.cat([corner, corner + size], -1).unbind(1)


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_those_of_the_formula(name):
    loss, options, formula = LOSSES[name]
    boxes, targets = pairs()
    boxes.requires_grad_()
    found = loss(boxes, targets, reduction="none", **options)
    expected = [formula(a, b) for a, b in zip(boxes.tolist(), targets.tolist(), strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    if name == "wiou":
        return  # its box around both takes no gradient
    (gradient,) = torch.autograd.grad(found.sum(), boxes)
    step = 1e-6
    for row, (a, b) in enumerate(zip(boxes.tolist(), targets.tolist(), strict=True)):
        for k in range(4):
            up, down = (formula([*a[:k], a[k] + s, *a[k + 1 :]], b) for s in (step, -step))
            assert gradient[row, k].item() == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-6)


def test_the_box_around_both_takes_no_gradient_in_wiou():
    boxes, targets = pairs()
    boxes.requires_grad_()
    low, high = torch.minimum(boxes[:, :2], targets[:, :2]).detach(), torch.maximum(boxes[:, 2:], targets[:, 2:]).detach()
    off = ((boxes[:, :2] + boxes[:, 2:]) - (targets[:, :2] + targets[:, 2:])) / 2
    expected = iou_loss(boxes, targets, reduction="none") * torch.exp(off.square().sum(1) / (high - low).square().sum(1))
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), boxes)[0] for x in (wiou_loss(boxes, targets, reduction="none"), expected)))


@pytest.mark.parametrize("loss", [bounded_iou_loss, nwd_loss, siou_loss, wiou_loss, mpdiou_loss, inner_iou_loss])
def test_boxes_in_a_grid_are_those_in_a_row(loss):
    boxes, targets = (torch.rand(2, 3, 4) + torch.tensor([0.0, 0.0, 1.0, 1.0]) for _ in range(2))
    expected = loss(boxes.view(6, 4), targets.view(6, 4), reduction="none").view(2, 3)
    torch.testing.assert_close(loss(boxes, targets, reduction="none"), expected)
    torch.testing.assert_close(loss(boxes[0, 0], targets[0, 0]), expected[0, 0])


def test_points_and_equal_boxes():
    point, box = torch.tensor([[1.0, 1.0, 1.0, 1.0]]), torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    assert bounded_iou_loss(point, point) == pytest.approx(2 * 0.9)  # a place without a size to measure by
    assert nwd_loss(point, point) == 0
    assert mpdiou_loss(box, box) == siou_loss(box, box) == 0
    assert inner_iou_loss(box, box + 1.9, ratio=1.0) < 1
    assert inner_iou_loss(box, box + 1.9, ratio=0.5) == 1


def test_siou_falls_with_the_distance_in_mmdetection():
    """What the page of the loss says of ``neg_gamma=False``, on diagonals, where the angle cost is 1 and equal boxes have no shape cost."""
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4)
    targets = boxes + torch.tensor([[1.0], [10.0]])
    share = torch.tensor([1 / 2, 10 / 11]).square()
    theirs = 1 - (share.exp() - 1).clamp(max=1)  # IoU 0, half of both axes each
    assert theirs.tolist() == pytest.approx([0.716, 0.0], abs=1e-3)
    ours = siou_loss(boxes, targets, reduction="none")
    torch.testing.assert_close(ours, 2 - (-share).exp())
    assert ours.tolist() == pytest.approx([1.22, 1.56], abs=5e-3)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (bounded_iou_loss, {"beta": -1.0}, r"beta: a number in \[0, 1\]"),
        (bounded_iou_loss, {"beta": 2.0}, r"beta: a number in \[0, 1\]"),
        (nwd_loss, {"scale": 0.0}, "scale: a finite number > 0"),
        (siou_loss, {"theta": 0.0}, "theta: a finite number > 0"),
        (mpdiou_loss, {"image_size": (0.0, 3.0)}, "image_size: a finite number > 0"),
        (mpdiou_loss, {"image_size": (4.0, 3.0, 3.0)}, "image_size: height and width expected, got"),
        (mpdiou_loss, {"image_size": 640}, "image_size: height and width expected, got 640"),
        (inner_iou_loss, {"ratio": -0.5}, "ratio: a finite number > 0"),
    ],
)
def test_mistakes_are_refused(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(1, 4), torch.zeros(1, 4), **options)
