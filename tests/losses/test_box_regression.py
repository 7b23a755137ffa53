"""Box regression by distance: worked examples, laws, published vectors, and where published code is wrong."""

import math

import published
import pytest
import torch

from lossbox.losses import (
    balanced_l1_loss,
    faster_rcnn_smooth_l1_loss,
    l1_loss,
    l2_loss,
    rpn_loss,
    smooth_l1_loss,
)

P, Q = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.1, 2.0, 3.3])


def value_and_slope(loss, x, **options):
    x = torch.as_tensor(x, dtype=torch.float64).requires_grad_()
    value = loss(x, torch.zeros_like(x), reduction="none", **options)
    (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope


# -- the worked examples of the two tutorials


def test_l1_distance_of_the_worked_example():
    assert l1_loss(P, Q, reduction="sum").item() == pytest.approx(0.4)


def test_smooth_l1_of_the_worked_example():
    distance = l1_loss(P, Q, reduction="sum")[None]
    assert smooth_l1_loss(distance, torch.zeros(1)).item() == pytest.approx(0.080)
    assert smooth_l1_loss(distance, torch.zeros(1), sigma=3).item() == pytest.approx(0.34444, abs=1e-5)


def test_smooth_l1_gradient_is_the_error_then_its_sign():
    _, slope = value_and_slope(smooth_l1_loss, [-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    assert slope.tolist() == [-1.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.0]


def test_l2_gradient_is_the_error():
    value, slope = value_and_slope(l2_loss, [-3.0, 0.5])
    assert value.tolist() == [4.5, 0.125]
    assert slope.tolist() == [-3.0, 0.5]


def test_sigma_is_another_way_to_say_beta():
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    for sigma in (0.5, 1.0, 3.0):
        torch.testing.assert_close(value_and_slope(smooth_l1_loss, x, sigma=sigma), value_and_slope(smooth_l1_loss, x, beta=1 / sigma**2))


def test_beta_0_is_l1():
    x = [-2.0, -1e-8, 0.0, 1e-8, 2.0]
    value, slope = value_and_slope(smooth_l1_loss, x, beta=0)
    torch.testing.assert_close(value, value_and_slope(l1_loss, x)[0])
    assert slope.tolist() == [-1.0, -1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("beta", [1 / 9, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("loss", [smooth_l1_loss, balanced_l1_loss])
def test_scaling_law_and_continuity(loss, beta):
    x = torch.linspace(0.01, 4, 60, dtype=torch.float64)
    value, slope = value_and_slope(loss, x, beta=beta)
    unit_value, unit_slope = value_and_slope(loss, x / beta, beta=1.0)
    torch.testing.assert_close(value, beta * unit_value)
    torch.testing.assert_close(slope, unit_slope)
    edge = torch.tensor([beta * (1 - 1e-9), beta, beta * (1 + 1e-9)])
    value, slope = value_and_slope(loss, edge.double(), beta=beta)
    assert value.max() - value.min() < 1e-6
    assert slope.max() - slope.min() < 1e-6


@pytest.mark.parametrize("beta", [1 / 9, 0.5, 1.0, 2.0])
def test_balanced_l1_gradient_is_the_promised_logarithm(beta):
    alpha, gamma = 0.5, 1.5
    b = math.exp(gamma / alpha) - 1
    x = torch.linspace(0, 3, 50, dtype=torch.float64)
    value, slope = value_and_slope(balanced_l1_loss, x, beta=beta)
    expected = torch.where(x < beta, alpha * torch.log1p(b * x / beta), gamma)
    torch.testing.assert_close(slope[1:], expected[1:])
    assert value[0] == 0
    assert (value >= 0).all()


def test_balanced_l1_in_float32_is_not_negative_near_0():
    x = torch.logspace(-12, 0, 200)
    for beta in (1 / 9, 1.0, 2.0):
        assert balanced_l1_loss(x, torch.zeros_like(x), beta=beta, reduction="none").min() > -1e-8


# -- published vectors


@pytest.mark.parametrize("case", published.cases("regression/smooth_l1"), ids=lambda c: c["id"])
def test_published_smooth_l1(case):
    inputs, args = case["inputs"], case["args"]
    for source, output in case["outputs"].items():
        if "error" in output:
            continue
        if source == "jwyang":
            x = published.leaf(inputs["bbox_pred"])
            others = [published.tensor(inputs[name]) for name in ("bbox_targets", "inside_weights", "outside_weights")]
            loss = faster_rcnn_smooth_l1_loss(x, *others, sigma=args["sigma"], dim=tuple(args["dim"]))
        else:
            x = published.leaf(inputs["pred"])
            loss = smooth_l1_loss(
                x,
                published.tensor(inputs["target"]),
                beta=args["beta"],
                weight=published.optional(inputs["weight"]),
                reduction=args["reduction"],
                normalizer=args["avg_factor"],
            )
        loss.sum().backward()
        published.assert_close(loss, output["loss"])
        published.assert_close(x.grad, output["grad_pred"])


def test_published_smooth_l1_refuses_what_ours_computes():
    """mmdet raises for an empty input and for a normalized sum: an image without boxes is no mistake, and a sum may be normalized."""
    assert "error" in published.case("regression/smooth_l1", "s_mm17")["outputs"]["mmdet"]
    assert "error" in published.case("regression/smooth_l1", "s_mm16")["outputs"]["mmdet"]
    assert smooth_l1_loss(torch.zeros(0, 4), torch.zeros(0, 4)) == 0
    assert smooth_l1_loss(torch.full((1,), 2.5), torch.zeros(1), reduction="sum", normalizer=2) == 1


BALANCED = [c for c in published.cases("regression/balanced_l1") if c["id"] != "s_boundary_table"]


def balanced(case):
    inputs, args = case["inputs"], dict(case["args"])
    x = published.leaf(inputs["pred"])
    args["normalizer"] = args.pop("avg_factor")
    loss = balanced_l1_loss(x, published.tensor(inputs["target"]), weight=published.optional(inputs["weight"]), **args)
    loss.sum().backward()
    return loss.detach(), x.grad


@pytest.mark.parametrize("case", [c for c in BALANCED if c["args"]["beta"] == 1], ids=lambda c: c["id"])
def test_published_balanced_l1_at_beta_1(case):
    loss, gradient = balanced(case)
    published.assert_close(loss, case["outputs"]["libra"]["loss"])
    published.assert_close(gradient, case["outputs"]["libra"]["grad_pred"])


@pytest.mark.parametrize(("beta", "grid"), [(0.5, "s03"), (2.0, "s05"), (1 / 9, "s07")])
def test_balanced_l1_differs_from_mmdet_where_beta_is_not_1(beta, grid):
    """mmdet leaves out the division of b x by beta inside (b x + beta): its gradient neither starts at 0 nor reaches gamma at beta."""
    table = published.case("regression/balanced_l1", "s_boundary_table")["outputs"]["libra"]["table"]
    row = next(r for r in table if math.isclose(r["beta"], beta))
    assert abs(row["grad_jump"]) > 0.01
    assert abs(row["grad_right_of_0"]) > 0.2
    _, (right_of_0, left_of_beta, at_beta) = value_and_slope(balanced_l1_loss, [1e-12, beta * (1 - 1e-12), beta], beta=beta)
    assert abs(right_of_0) < 1e-9
    assert left_of_beta == pytest.approx(1.5, abs=1e-9)
    assert at_beta == 1.5
    case = published.case("regression/balanced_l1", grid)
    ours, _ = balanced(case)
    theirs = published.tensor(case["outputs"]["libra"]["loss"])
    assert (ours >= 0).all()
    assert (ours - theirs).abs().max() > 0.03
    if beta == 2:
        assert theirs.min() < 0, "a loss below that of the perfect box"


# -- the region proposal loss


def test_rpn_loss_in_visible_arithmetic():
    targets = torch.tensor([1, 0, 0, -1])
    logits = torch.tensor([0.0, 0.0, 0.0, 50.0], requires_grad=True)
    regression = torch.zeros(4, 4, requires_grad=True)
    wanted = torch.full((4, 4), 1.0)
    wanted[1:] = math.inf
    terms = rpn_loss(logits, targets, regression, wanted, localization_weight=10, localization_normalizer=2400)
    assert terms.classification.item() == pytest.approx(3 * math.log(2) / 3)
    assert terms.localization.item() == pytest.approx(10 / 2400 * 4 * (1 - 1 / 18))
    sum(terms).backward()
    assert logits.grad[3] == 0
    assert (regression.grad[0] == -10 / 2400).all()
    assert (regression.grad[1:] == 0).all(), "targets of negatives are not looked at, though infinite"


def test_rpn_loss_without_any_sampled_anchor():
    logits, regression = torch.zeros(2, requires_grad=True), torch.zeros(2, 4, requires_grad=True)
    terms = rpn_loss(logits, torch.tensor([-1, -1]), regression, torch.ones(2, 4))
    sum(terms).backward()
    assert terms == (0, 0)


# -- mistakes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smooth_l1_loss(P, Q, beta=1, sigma=1), "beta, sigma: only one of the two"),
        (lambda: smooth_l1_loss(P, Q, beta=-1), "beta: a finite number >= 0 expected, got -1"),
        (lambda: smooth_l1_loss(P, Q, sigma=0), "sigma: a finite number > 0 expected, got 0"),
        (lambda: smooth_l1_loss(P, Q[:2]), r"input and target: one shape expected, got \(3,\) and \(2,\)"),
        (lambda: balanced_l1_loss(P, Q, beta=0), "beta: a finite number > 0 expected, got 0"),
        (lambda: balanced_l1_loss(P, Q, alpha=1e-4), "gamma / alpha <= 700"),
        (lambda: faster_rcnn_smooth_l1_loss(P[None], Q[None], P[None], Q), r"input and outside_weights: .* \(1, 3\) and \(3,\)"),
        (lambda: rpn_loss(P, Q, torch.zeros(2, 4), torch.zeros(2, 4)), r"regression: \(3, 4\) expected, got \(2, 4\)"),
        (lambda: rpn_loss(P, Q, torch.zeros(3, 4), torch.zeros(3, 4), localization_weight=-1), "localization_weight: a finite number >= 0"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
