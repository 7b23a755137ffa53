"""Classification losses against hard labels: definitions, published vectors, and where published code is wrong."""

import math

import published
import pytest
import torch
import torch.nn.functional as F

from lossbox.losses import (
    class_balanced_focal_loss,
    class_balanced_sigmoid_loss,
    class_balanced_softmax_loss,
    class_balanced_weights,
    dr_loss,
    focal_loss,
    sigmoid_cross_entropy_loss,
    softmax_cross_entropy_loss,
    softmax_focal_loss,
)

LOGITS = torch.tensor([[-2.0, 0.5, 3.0], [1.0, -0.3, 0.0]], dtype=torch.float64)
TARGETS = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)


def loss_and_gradient(loss, logits, *args, **options):
    logits = logits.clone().requires_grad_()
    value = loss(logits, *args, **options)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


# -- cross-entropy and focal


def test_focal_loss_by_its_formula():
    alpha, gamma = 0.3, 1.7
    p = torch.sigmoid(LOGITS)
    expected = torch.where(TARGETS == 1, -alpha * (1 - p) ** gamma * p.log(), -(1 - alpha) * p**gamma * (1 - p).log())
    torch.testing.assert_close(focal_loss(LOGITS, TARGETS, alpha=alpha, gamma=gamma, reduction="none"), expected)


def test_gamma_0_without_alpha_is_cross_entropy():
    expected = F.binary_cross_entropy_with_logits(LOGITS, TARGETS)
    torch.testing.assert_close(focal_loss(LOGITS, TARGETS, alpha=None, gamma=0), expected)
    torch.testing.assert_close(sigmoid_cross_entropy_loss(LOGITS, TARGETS), expected)


def test_alpha_weighs_the_two_sides():
    plain = sigmoid_cross_entropy_loss(LOGITS, TARGETS, reduction="none")
    weighed = sigmoid_cross_entropy_loss(LOGITS, TARGETS, alpha=0.25, reduction="none")
    torch.testing.assert_close(weighed, plain * torch.where(TARGETS == 1, 0.25, 0.75))


def test_integer_and_bool_targets_are_welcome():
    expected = focal_loss(LOGITS, TARGETS)
    torch.testing.assert_close(focal_loss(LOGITS, TARGETS.long()), expected)
    torch.testing.assert_close(focal_loss(LOGITS, TARGETS.bool()), expected)


def test_softmax_losses_by_their_formulas():
    labels, class_weights = torch.tensor([2, 0]), torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    p = LOGITS.softmax(1)[[0, 1], labels]
    options = {"class_weights": class_weights, "reduction": "none"}
    torch.testing.assert_close(softmax_cross_entropy_loss(LOGITS, labels, **options), -class_weights[labels] * p.log())
    expected = -class_weights[labels] * (1 - p) ** 1.5 * p.log()
    torch.testing.assert_close(softmax_focal_loss(LOGITS, labels, gamma=1.5, **options), expected)
    torch.testing.assert_close(softmax_focal_loss(LOGITS, labels, gamma=0), F.cross_entropy(LOGITS, labels))


def test_two_class_softmax_focal_is_the_sigmoid_of_the_difference():
    pair, labels = LOGITS[:, :2], torch.tensor([0, 1])
    expected = focal_loss(pair[:, 1] - pair[:, 0], labels, alpha=None, gamma=2)
    torch.testing.assert_close(softmax_focal_loss(pair, labels, gamma=2), expected)


FOCAL = published.cases("classification/sigmoid_focal")
FOCAL_EXCEPTIONS = {"s12": "a NaN gradient", "s14": "soft targets: see quality_focal_loss"}


def published_focal(case):
    inputs, args = case["inputs"], case["args"]
    return loss_and_gradient(
        focal_loss,
        published.tensor(inputs["logits"]),
        published.tensor(inputs["targets"]),
        alpha=None if args["alpha"] < 0 else args["alpha"],
        gamma=args["gamma"],
        weight=published.optional(inputs.get("weight")),
        reduction=args["reduction"],
        normalizer=args.get("avg_factor"),
    )


@pytest.mark.parametrize("case", [c for c in FOCAL if c["id"] not in FOCAL_EXCEPTIONS], ids=lambda c: c["id"])
def test_published_focal_loss(case):
    loss, gradient = published_focal(case)
    (output,) = case["outputs"].values()
    published.assert_close(loss, output["loss"])
    published.assert_close(gradient, output["grad_logits"])


def test_focal_gradient_is_finite_where_published_ones_are_nan():
    """torchvision, fvcore and mmdet at gamma < 1: the power of a sigmoid that is 0 has the gradient 0 * inf. The true one is 0."""
    case = published.case("classification/sigmoid_focal", "s12")
    output = case["outputs"]["torchvision"]
    loss, gradient = published_focal(case)
    published.assert_close(loss, output["loss"])
    theirs = published.tensor(output["grad_logits"])
    assert theirs.isnan().any()
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient[~theirs.isnan()], theirs[~theirs.isnan()], rtol=1e-9, atol=1e-9)
    assert gradient[theirs.isnan()].abs().max() < 1e-6


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_focal_loss_is_right_however_large_the_logit(gamma, dtype):
    logits = torch.tensor([-1e4, -200.0, -30.0, 30.0, 200.0, 1e4], dtype=dtype)
    loss, gradient = loss_and_gradient(focal_loss, logits, torch.ones_like(logits), alpha=None, gamma=gamma, reduction="none")
    wrong = logits < 0
    torch.testing.assert_close(loss[wrong], -logits[wrong])
    torch.testing.assert_close(gradient[wrong], -torch.ones_like(logits[wrong]))
    assert loss[~wrong].max() < 1e-12
    assert gradient[~wrong].abs().max() < 1e-12


# -- class-balanced

BALANCED = {"focal": class_balanced_focal_loss, "sigmoid": class_balanced_sigmoid_loss, "softmax": class_balanced_softmax_loss}
CLASS_BALANCED_EXCEPTIONS = {"s29": "beta = 1", "s30": "a class without samples", "s31": "saturated", "s32": "saturated"}


def published_class_balanced(case):
    inputs, args = case["inputs"], case["args"]
    weights = class_balanced_weights(published.tensor(inputs["samples_per_cls"]), beta=args["beta"])
    options = {"gamma": args["gamma"]} if args["loss_type"] == "focal" else {}
    loss = BALANCED[args["loss_type"]]
    logits, labels = published.tensor(inputs["logits"]), torch.tensor(inputs["labels"])
    return weights, *loss_and_gradient(loss, logits, labels, weights, **options)


@pytest.mark.parametrize(
    "case",
    [c for c in published.cases("classification/class_balanced") if c["id"] not in CLASS_BALANCED_EXCEPTIONS],
    ids=lambda c: c["id"],
)
def test_published_class_balanced_losses_of_the_authors(case):
    weights, loss, gradient = published_class_balanced(case)
    output = case["outputs"]["authors"]
    published.assert_close(weights, output["class_weights"])
    published.assert_close(loss, output["loss"])
    published.assert_close(gradient, output["grad_logits"])


def test_class_balanced_softmax_is_a_softmax_cross_entropy():
    """A popular port takes the binary cross-entropy of softmax probabilities in place of the authors' cross-entropy."""
    case = published.case("classification/class_balanced", "s02")
    _, loss, _ = published_class_balanced(case)
    assert abs(loss - case["outputs"]["vandit15"]["loss"]) > 1


def test_class_balanced_losses_of_hopeless_scores():
    """Both published focal codes form exp(-logit), which overflows in float32 below -88.7: the loss of the worst positive becomes 0."""
    logits = torch.tensor([[-200.0, 0.0]], requires_grad=True)
    loss = class_balanced_focal_loss(logits, torch.tensor([0]), torch.ones(2), gamma=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(200 + 0.5**0.5 * math.log(2))
    assert logits.grad[0, 0] == -1
    for id in ("s31", "s32"):
        case = published.case("classification/class_balanced", id)
        _, loss, gradient = published_class_balanced(case)
        published.assert_close(loss, case["outputs"]["authors"]["loss"])  # in float64 it does not overflow yet
        published.assert_close(gradient, case["outputs"]["authors"]["grad_logits"])


def test_class_balanced_weights_near_beta_1_are_inverse_counts():
    counts = torch.tensor([1.0, 10.0, 1000.0], dtype=torch.float64)
    for beta in (1 - 1e-8, 1 - 1e-12):
        weights = class_balanced_weights(counts, beta=beta, normalize=False)
        torch.testing.assert_close(weights * counts, torch.ones(3, dtype=torch.float64), rtol=1e-4, atol=0)
    assert class_balanced_weights(counts, beta=0).tolist() == [1.0, 1.0, 1.0]
    assert class_balanced_weights([5, 50], beta=0.9).sum().item() == pytest.approx(2)


def test_class_balanced_weights_name_the_class_without_samples():
    """Published code gives NaN for it."""
    assert published.case("classification/class_balanced", "s30")["outputs"]["authors"]["loss"] == "NaN"
    with pytest.raises(ValueError, match="got none of class 1, 3"):
        class_balanced_weights([4, 0, 2, 0])
    with pytest.raises(ValueError, match=r"beta: a number in \[0, 1\) expected, got 1"):
        class_balanced_weights([4], beta=1)


# -- DR loss


@pytest.mark.parametrize("case", published.cases("classification/dr_loss"), ids=lambda c: c["id"])
def test_published_dr_loss(case):
    inputs, args = case["inputs"], case["args"]
    logits = published.tensor(inputs["logits"])
    labels = torch.tensor(inputs["targets"]).unsqueeze(1)  # 1-based, 0 background, -1 ignored
    targets = torch.where(labels < 0, -1, (labels == torch.arange(1, logits.shape[1] + 1)).long())
    names = {"pos_lambda": "pos_lambda", "neg_lambda": "neg_lambda", "L": "smoothness", "tau": "tau", "margin": "margin"}
    loss, gradient = loss_and_gradient(dr_loss, logits, targets, **{names[k]: v for k, v in args.items()})
    published.assert_close(loss, case["outputs"]["idstcv"]["loss"])
    published.assert_close(gradient, case["outputs"]["idstcv"]["grad_logits"])


def test_dr_loss_does_not_overflow():
    """The published code forms log(1 + exp(L x)), which is inf in float32 with a NaN gradient for a large L."""
    logits, targets = torch.tensor([-9.0, 9.0]), torch.tensor([1, 0])
    loss, gradient = loss_and_gradient(dr_loss, logits, targets, smoothness=1000.0)
    assert torch.log(1 + torch.exp(torch.tensor(1000.0))) == math.inf
    assert loss.item() == pytest.approx(4 * (1.5 - 2 * 1.2339e-4), abs=1e-3)
    assert gradient.isfinite().all()


# -- mistakes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: focal_loss(LOGITS, TARGETS[0]), r"logits and targets: one shape expected, got \(2, 3\) and \(3,\)"),
        (lambda: focal_loss(LOGITS, TARGETS, alpha=-1), r"alpha: a number in \[0, 1\] expected, got -1"),
        (lambda: focal_loss(LOGITS, TARGETS, gamma=-0.5), "gamma: a finite number >= 0 expected, got -0.5"),
        (lambda: sigmoid_cross_entropy_loss(LOGITS, TARGETS, alpha=2), "alpha: a number in"),
        (lambda: softmax_focal_loss(LOGITS[:, :1], torch.tensor([0, 0])), r"C >= 2 expected, got \(2, 1\)"),
        (lambda: softmax_cross_entropy_loss(LOGITS, TARGETS), r"\(n, C\) and \(n,\) expected, got \(2, 3\) and \(2, 3\)"),
        (lambda: softmax_cross_entropy_loss(LOGITS, torch.tensor([0, 1]), class_weights=torch.ones(2)), "class_weights: one for each of 3"),
        (lambda: dr_loss(LOGITS, TARGETS, neg_lambda=0), "neg_lambda: a finite number > 0 expected, got 0"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
