"""The IoU family: definitions, published vectors, and where published code is wrong."""

import math

import published
import pytest
import torch

from lossbox.boxes import DeltaCoder
from lossbox.losses import alpha_iou_loss, ciou_loss, diou_loss, eiou_loss, giou_loss, iou_loss

FUNCTIONS = {
    "log": lambda p, t: iou_loss(p, t, form="log", reduction="none"),
    "linear": lambda p, t: iou_loss(p, t, reduction="none"),
    "square": lambda p, t: iou_loss(p, t, form="square", reduction="none"),
    "giou": lambda p, t: giou_loss(p, t, reduction="none"),
    "diou": lambda p, t: diou_loss(p, t, reduction="none"),
    "ciou": lambda p, t: ciou_loss(p, t, reduction="none"),
}


def definition(box, target):
    """IoU, GIoU, DIoU, CIoU, EIoU of two boxes in plain numbers, as the papers write them."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = box, target
    w, h, wt, ht = x2 - x1, y2 - y1, u2 - u1, v2 - v1
    intersection = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
    union = w * h + wt * ht - intersection
    iou = intersection / union
    width, height = max(x2, u2) - min(x1, u1), max(y2, v2) - min(y1, v1)
    distance = ((x1 + x2 - u1 - u2) ** 2 + (y1 + y2 - v1 - v2) ** 2) / 4
    diou = iou - distance / (width**2 + height**2)
    v = 4 / math.pi**2 * (math.atan(wt / ht) - math.atan(w / h)) ** 2
    return {
        "iou": iou,
        "giou": iou - (width * height - union) / (width * height),
        "diou": diou,
        "ciou": diou - (v * v / (1 - iou + v) if v else 0),
        "eiou": diou - (w - wt) ** 2 / width**2 - (h - ht) ** 2 / height**2,
    }


def test_the_family_against_its_definitions():
    generator = torch.Generator().manual_seed(0)
    corner = 10 * torch.rand(60, 2, 2, generator=generator, dtype=torch.float64)
    size = 0.1 + 8 * torch.rand(60, 2, 2, generator=generator, dtype=torch.float64)
    boxes, targets = torch.cat([corner, corner + size], -1).unbind(1)
    for i in range(60):
        expected = definition(boxes[i].tolist(), targets[i].tolist())
        pair = boxes[i : i + 1], targets[i : i + 1]
        for loss, name in ((iou_loss, "iou"), (giou_loss, "giou"), (diou_loss, "diou"), (ciou_loss, "ciou"), (eiou_loss, "eiou")):
            assert 1 - loss(*pair).item() == pytest.approx(expected[name], abs=1e-12)
        assert alpha_iou_loss(*pair, alpha=2.5).item() == pytest.approx(1 - expected["iou"] ** 2.5, abs=1e-12)


def test_the_shape_term_of_ciou_sees_its_weight_as_a_number():
    box = torch.tensor([[0.0, 0.0, 4.0, 2.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.0, 0.0, 3.0, 3.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(ciou_loss(box, target) - diou_loss(box, target), box)
    angle = math.atan(1) - math.atan(4 / 2)
    v = 4 / math.pi**2 * angle**2
    weight = v / (1 - 6 / 11 + v)
    # Eq. (12) with the factor 1 / (w^2 + h^2) that the paper drops
    dv_dw = -8 / math.pi**2 * angle * 2 / (4**2 + 2**2)
    dv_dh = 8 / math.pi**2 * angle * 4 / (4**2 + 2**2)
    torch.testing.assert_close(gradient, weight * torch.tensor([[-dv_dw, -dv_dh, dv_dw, dv_dh]], dtype=torch.float64))


# -- published vectors

# what the eps of the published code, added to areas or squared diagonals, moves at most; by scenario, where it is visible
ADDED_EPS = {"giou": 2e-10, "diou": 2e-10, "ciou": 3e-8}
NOT_COMPARED = {
    "s06": "zero-area boxes",
    "s07": "inverted boxes",
    "s09": "normalized coordinates: eps",
    "s10": "tiny boxes: eps",
}


@pytest.mark.parametrize(
    "case", [c for c in published.cases("regression/iou_losses") if c["id"] not in NOT_COMPARED], ids=lambda c: c["id"]
)
def test_published_iou_losses(case):
    for source, output in case["outputs"].items():
        name = source.split("_")[1]
        box = published.leaf(case["inputs"]["pred"])
        loss = FUNCTIONS[name](box, published.tensor(case["inputs"]["target"]))
        loss.sum().backward()
        if name in ("linear", "square"):
            # mmdet holds the IoU of disjoint boxes at 1e-6, so that their linear loss is 0.999999
            output = {**output, "loss": [1.0 if 1 - x < 2e-6 else x for x in output["loss"]]}
        if source == "mmdet_giou":
            published.assert_close(loss, output["loss"], 1e-12)
            published.assert_close(box.grad, output["grad_pred"], 1e-12)
            continue
        published.assert_close(loss, output["loss"], ADDED_EPS.get(name, 1e-9))
        if source != "mmdet_ciou":
            published.assert_close(box.grad, output["grad_pred"], 1e-9)


def test_zero_area_boxes_as_published_where_it_is_finite():
    case = published.case("regression/iou_losses", "s06")
    for name in ("mmdet_giou", "mmdet_diou", "mmdet_log"):
        box = published.leaf(case["inputs"]["pred"])
        loss = FUNCTIONS[name.split("_")[1]](box, published.tensor(case["inputs"]["target"]))
        loss.sum().backward()
        published.assert_close(loss, case["outputs"][name]["loss"])
        published.assert_close(box.grad, case["outputs"][name]["grad_pred"])


def test_a_box_without_width_has_a_gradient_to_grow_by():
    box = torch.tensor([[39.0, 39.0, 39.0, 51.0]], requires_grad=True)
    giou_loss(box, torch.tensor([[24.0, 24.0, 54.0, 54.0]])).backward()
    assert box.grad[0, 0] > 0 > box.grad[0, 2]


def test_ciou_lets_no_gradient_through_its_weight_as_mmdet_does():
    """mmdet (RankSort vintage) differentiates the trade-off weight, which the paper treats as a number: same value, other gradient."""
    case = published.case("regression/iou_losses", "s11")
    box = published.leaf(case["inputs"]["pred"])
    loss = ciou_loss(box, published.tensor(case["inputs"]["target"]), reduction="none")
    loss.sum().backward()
    published.assert_close(loss, case["outputs"]["mmdet_ciou"]["loss"], 1e-9)
    published.assert_close(box.grad, case["outputs"]["torchvision_ciou"]["grad_pred"], 1e-9)
    assert (box.grad - published.tensor(case["outputs"]["mmdet_ciou"]["grad_pred"])).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["giou", "diou", "ciou", "linear", "square", "log"])
def test_a_published_eps_hides_small_boxes(name):
    """Boxes of side 1e-4 and less: an eps of 1e-7 or 1e-6 beside an area of 1e-8 is most of the IoU."""
    case = published.case("regression/iou_losses", "s10")
    box, target = published.tensor(case["inputs"]["pred"]), published.tensor(case["inputs"]["target"])
    ours = FUNCTIONS[name](box, target)
    torch.testing.assert_close(ours, FUNCTIONS[name](1e4 * box, 1e4 * target), rtol=1e-9, atol=1e-9)
    theirs = published.tensor(case["outputs"][f"torchvision_{name}" if name == "ciou" else f"mmdet_{name}"]["loss"])
    assert (ours - theirs).abs().max() > 0.2


@pytest.mark.parametrize("loss", [iou_loss, giou_loss, diou_loss, ciou_loss, eiou_loss, alpha_iou_loss])
@pytest.mark.parametrize("side", [1e-6, 1e-4, 1e-2, 1.0, 100.0, 1e4, 1e6])
def test_equal_boxes_have_loss_0_whatever_their_size(loss, side):
    """Published CIoU is NaN for equal boxes of side 100 in float32 (0/0), and every eps makes those of side 1e-4 look wrong."""
    target = side * torch.tensor([[0.0, 0.0, 1.0, 1.7], [3.0, 5.0, 4.3, 6.0]])
    box = target.clone().requires_grad_()
    value = loss(box, target, reduction="none")
    value.sum().backward()
    assert value.abs().max() == 0
    assert box.grad.isfinite().all()


def test_inverted_boxes_are_empty():
    """With signed areas, two negative sides make a positive area: published GIoU then rewards an inside-out box with a loss below 0."""
    inverted = torch.tensor([[3.0, 3.0, 1.0, 1.0], [0.8, 0.2, 0.2, 0.8]], requires_grad=True)
    target = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4)
    for loss in (iou_loss, giou_loss, diou_loss, ciou_loss, eiou_loss, alpha_iou_loss):
        value = loss(inverted, target, reduction="none")
        (gradient,) = torch.autograd.grad(value.sum(), inverted)
        assert (value >= 1).all()
        assert gradient.isfinite().all()
    import torchvision

    signed = torchvision.ops.generalized_box_iou_loss(inverted, target, reduction="none")
    assert signed.min() < 0


@pytest.mark.parametrize(
    "case", [c for c in published.cases("regression/iou_losses_zzhtju") if "compute" in c["id"]], ids=lambda c: c["id"]
)
def test_published_losses_of_the_authors_of_diou_on_deltas(case):
    """Deltas around a unit box at the origin; their eps of 1e-7 beside areas near 1 is visible at 1e-7."""
    (source, output), inputs = next(iter(case["outputs"].items())), case["inputs"]
    coder, anchor = DeltaCoder(), torch.tensor([[-0.5, -0.5, 0.5, 0.5]], dtype=torch.float64)
    deltas = published.leaf(inputs["pred_deltas"])
    boxes, targets = coder.decode(deltas, anchor), coder.decode(published.tensor(inputs["target_deltas"]), anchor)
    weight = published.tensor(inputs["inside_weights"]).mean(1) * published.tensor(inputs["outside_weights"]).mean(1)
    loss = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}[source[-4:]](boxes, targets, weight=weight)
    loss.backward()
    published.assert_close(loss, output["loss"], 1e-7)
    published.assert_close(deltas.grad, output["grad_pred"], 1e-8)
    published.assert_close(iou_loss(boxes, targets, weight=weight), output["iou_loss"], 1e-7)


def test_published_ciou_of_yolact_is_nan_for_exact_boxes():
    raw = published.case("regression/iou_losses_zzhtju", "s_yolact_ciou_2")
    assert raw["outputs"]["zzhtju_yolact__ciou"]["loss"] == "NaN"
    center, log_size = published.tensor(raw["inputs"]["pred_raw"]).sigmoid().chunk(2, 1)
    boxes = torch.cat([center - log_size.exp() / 2, center + log_size.exp() / 2], 1)
    assert ciou_loss(boxes, boxes.clone()) == 0


# -- mistakes


def test_mistakes_are_named():
    box = torch.zeros(2, 4)
    with pytest.raises(ValueError, match="form: one of 'linear', 'log', 'square' expected, got 'cubic'"):
        iou_loss(box, box, form="cubic")
    with pytest.raises(ValueError, match="alpha: a finite number > 0 expected, got 0"):
        alpha_iou_loss(box, box, alpha=0)
    with pytest.raises(ValueError, match=r"one shape expected, got \(2, 4\) and \(1, 4\)"):
        giou_loss(box, box[:1])
