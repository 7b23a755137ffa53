"""GHM: definitions, published vectors, and where the published running mean is wrong."""

import published
import pytest
import torch
import torch.nn.functional as F

from lossbox.losses import (
    GHMCLoss,
    GHMRLoss,
    RunningHistogram,
    ghm_c_histogram,
    ghm_c_loss,
    ghm_r_histogram,
    ghm_r_loss,
)


def test_every_full_bin_weighs_the_same():
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(2000, generator=generator, dtype=torch.float64)
    targets = (torch.rand(2000, generator=generator) < 0.3).double()
    weights = ghm_c_loss(logits, targets, bins=10, reduction="none") / F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    index = ((logits.sigmoid() - targets).abs() * 10).floor()
    for i in range(10):
        assert weights[index == i].sum().item() == pytest.approx(2000 / 10)


def test_one_bin_is_the_plain_mean():
    logits, targets = torch.tensor([0.3, -1.0, 4.0]), torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(ghm_c_loss(logits, targets, bins=1), F.binary_cross_entropy_with_logits(logits, targets))


def test_ignored_elements_are_counted_nowhere():
    logits, targets = torch.tensor([0.3, -1.0, 4.0, 0.2]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0])
    kept = [0, 1, 3]
    assert ghm_c_histogram(logits, targets, bins=3, weight=weight).sum() == 3
    marked = torch.where(weight > 0, targets, -1.0)
    for bins in (1, 2, 3):
        expected = ghm_c_histogram(logits[kept], targets[kept], bins=bins)
        assert ghm_c_histogram(logits, marked, bins=bins).equal(expected)
        torch.testing.assert_close(ghm_c_loss(logits, marked, bins=bins), ghm_c_loss(logits[kept], targets[kept], bins=bins))
    torch.testing.assert_close(ghm_c_loss(logits, targets, weight=weight), ghm_c_loss(logits[kept], targets[kept]))
    torch.testing.assert_close(ghm_r_loss(logits, targets, weight=weight), ghm_r_loss(logits[kept], targets[kept]))


def test_gradients_of_0_and_1_fall_into_the_outer_bins():
    logits, targets = torch.tensor([1e4, -1e4, 1e4, -1e4]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    assert ghm_c_histogram(logits, targets, bins=4).tolist() == [2, 0, 0, 2]
    assert ghm_r_histogram(torch.tensor([0.0, 1e6]), torch.zeros(2), bins=4).tolist() == [1, 0, 0, 1]


# -- published vectors


def steps(name):
    """Each step of each published case, as (case, step's inputs, step's outputs, step's accumulator or None)."""
    for case in published.cases(f"classification/{name}"):
        ((source, output),) = case["outputs"].items()
        for number, (inputs, result) in enumerate(zip(case["inputs"]["steps"], output["steps"], strict=True)):
            yield pytest.param(case["args"], source, inputs, result, id=f"{case['id']}-{number}")


def full_bins(histogram):
    return max(int((histogram > 0).sum()), 1)


@pytest.mark.parametrize(("args", "source", "inputs", "result"), list(steps("ghm_c")))
def test_published_ghm_c(args, source, inputs, result):
    """Given the published accumulator, and divided by the number of full bins as the published code does (the paper: by all bins)."""
    logits, targets, weight = (published.tensor(inputs[name]) for name in ("logits", "targets", "label_weights"))
    if targets.ndim == 1:  # class indices, background first or last
        one_hot = F.one_hot(targets.long(), logits.shape[1] + 1).double()
        targets = one_hot[:, 1:] if source == "libuyu_head" else one_hot[:, :-1]
        weight = weight.unsqueeze(1)
    logits.requires_grad_()
    counts = published.optional(result.get("acc_sum"))
    factor = args["loss_weight"] * args["bins"] / full_bins(ghm_c_histogram(logits, targets, bins=args["bins"], weight=weight))
    loss = factor * ghm_c_loss(logits, targets, bins=args["bins"], counts=counts, weight=weight)
    loss.backward()
    published.assert_close(loss, result["loss"])
    published.assert_close(logits.grad, result["grad_logits"])


@pytest.mark.parametrize(("args", "source", "inputs", "result"), list(steps("ghm_r")))
def test_published_ghm_r(args, source, inputs, result):
    """As for GHM-C; the published weights only select, here they also multiply, so that they are made 0 or 1 first."""
    box, target = published.leaf(inputs["pred"]), published.tensor(inputs["target"])
    options = {"mu": args["mu"], "bins": args["bins"], "weight": (published.tensor(inputs["label_weights"]) > 0).double()}
    factor = args["loss_weight"] * args["bins"] / full_bins(ghm_r_histogram(box, target, **options))
    loss = factor * ghm_r_loss(box, target, counts=published.optional(result.get("acc_sum")), **options)
    loss.backward()
    published.assert_close(loss, result["loss"])
    published.assert_close(box.grad, result["grad_pred"])


# -- the running mean


@pytest.mark.parametrize("name", ["ghm_c", "ghm_r"])
def test_first_step_of_the_running_mean_is_the_batch(name):
    """The published accumulator starts at 0 uncorrected: at momentum 0.75 its first weights, and loss, are 4 times too large."""
    case = published.case(f"classification/{name}", "s02")
    inputs, result = case["inputs"]["steps"][0], next(iter(case["outputs"].values()))["steps"][0]
    first, second = ("logits", "targets") if name == "ghm_c" else ("pred", "target")
    prediction, target = published.tensor(inputs[first]), published.tensor(inputs[second])
    weight = published.tensor(inputs["label_weights"])
    histogram, function = (ghm_c_histogram, ghm_c_loss) if name == "ghm_c" else (ghm_r_histogram, ghm_r_loss)
    twin = (GHMCLoss if name == "ghm_c" else GHMRLoss)(bins=10, momentum=0.75)
    ours = twin(prediction, target, weight=weight)
    torch.testing.assert_close(ours, function(prediction, target, bins=10, weight=weight), rtol=1e-6, atol=0)
    as_published = ours * 10 / full_bins(histogram(prediction, target, bins=10, weight=weight))
    assert result["loss"] / as_published.item() == pytest.approx(4, rel=1e-6)


def test_running_mean_is_the_weighted_mean_of_the_steps():
    histogram = RunningHistogram(3, momentum=0.6)
    counts = torch.tensor([[8.0, 0.0, 1.0], [0.0, 4.0, 1.0], [2.0, 2.0, 2.0]])
    for step in range(1, 4):
        mean = histogram(counts[step - 1])
        weights = torch.tensor([0.6 ** (step - 1 - k) for k in range(step)])
        torch.testing.assert_close(mean, weights @ counts[:step] / weights.sum())


def test_empty_bins_are_forgotten_too():
    """The published accumulator of a bin that stays empty never decays."""
    histogram = RunningHistogram(2, momentum=0.5)
    histogram(torch.tensor([100.0, 0.0]))
    for _ in range(30):
        mean = histogram(torch.tensor([0.0, 100.0]))
    assert mean[0] < 1e-6


def test_eval_mode_remembers_nothing_and_checkpoints_resume():
    loss = GHMCLoss(bins=4)
    logits, targets = torch.tensor([0.3, -1.0, 4.0]), torch.tensor([1.0, 0.0, 0.0])
    loss(logits, targets)
    state = {k: v.clone() for k, v in loss.state_dict().items()}
    loss.eval()
    once = loss(-logits, targets)
    assert all((state[k] == v).all() for k, v in loss.state_dict().items())
    resumed = GHMCLoss(bins=4)
    resumed.load_state_dict(state)
    assert resumed(-logits, targets) == once
    assert loss(-logits, targets) == once


def test_a_batch_seen_in_eval_mode_only_is_finite():
    assert GHMCLoss().eval()(torch.tensor([3.0, -3.0]), torch.ones(2)).isfinite()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ghm_c_loss(x, x, bins=0), "bins: a whole number, at least 1, expected, got 0"),
        (lambda x: ghm_c_loss(x, x, bins=3, counts=torch.ones(2)), r"counts: shape \(3,\)"),
        (lambda x: ghm_r_loss(x, x, mu=0), "mu: a finite number > 0 expected, got 0"),
        (lambda x: ghm_r_loss(x, x[:1]), r"input and target: one shape expected, got \(2,\) and \(1,\)"),
        (lambda x: ghm_c_loss(x, x, weight=torch.ones(3)), "weight: a shape that broadcasts"),
        (lambda x: RunningHistogram(3, momentum=1), r"momentum: a number in \[0, 1\) expected, got 1"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2))
