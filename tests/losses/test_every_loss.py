"""The properties that every loss of the catalog must have, one test per property.

The tensors that a loss is called with follow from what its module says that it takes; SPECIAL holds what does not.
"""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from lossbox import losses
from lossbox.losses import CATALOG, BoxLoss, ClassificationLoss, count_hyperparameters

# -- problems: float64 tensors for n elements, the differentiable ones first ---------------------------------------------------------------


def uniform(generator, *shape):
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def logits_and_targets(n, g):
    return 6 * uniform(g, n) - 3, (uniform(g, n) < 0.4).double()


def logits_and_quality(n, g):
    logits, targets = logits_and_targets(n, g)
    return logits, targets * (0.1 + 0.9 * uniform(g, n))


def logits_targets_quality(n, g):
    logits, targets = logits_and_targets(n, g)
    return logits, targets, targets * (0.1 + 0.9 * uniform(g, n))


def logits_and_all_quality(n, g):
    return 6 * uniform(g, n) - 3, uniform(g, n)


def logits_and_classes(n, g):
    return 6 * uniform(g, n, 3) - 3, torch.randint(3, (n,), generator=g)


def logits_classes_counts(n, g):
    return *logits_and_classes(n, g), torch.tensor([1.0, 50.0, 1000.0], dtype=torch.float64)


def logits_classes_weights(n, g):
    return *logits_and_classes(n, g), torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)


def ranking_problem(n, g):
    logits, targets = logits_and_targets(n, g)
    targets[: n // 3] = 1  # some of both
    targets[n // 3 : 2 * n // 3] = 0
    return logits, targets


def ranking_with_values(n, g):
    logits, targets = ranking_problem(n, g)
    return logits, targets, uniform(g, int(targets.sum()))


def coordinates(n, g):
    return 4 * uniform(g, n) - 2, 4 * uniform(g, n) - 2


def four_coordinates(n, g):
    inside = (uniform(g, n) < 0.7).double()[:, None].expand(n, 4).contiguous()
    return 4 * uniform(g, n, 4) - 2, 4 * uniform(g, n, 4) - 2, inside, torch.full((n, 4), 0.25, dtype=torch.float64)


def logits_and_heat(n, g):
    logits, targets = logits_and_targets(n, g)
    return logits, torch.where(targets == 1, 1.0, 0.9 * uniform(g, n))


def embeddings(n, g):
    return (4 * uniform(g, n, 2) - 2,)


def offsets_and_points(n, g):
    return 4 * uniform(g, n, 2) - 2, 40 * uniform(g, n, 2)


def rows_and_distances(n, g):
    return 6 * uniform(g, n, 5) - 3, 4 * uniform(g, n)


def rows_and_offsets(n, g):
    return 6 * uniform(g, n, 5) - 3, 2 * uniform(g, n) - 1


def rows_of_two_layers(n, g):
    return 6 * uniform(g, n, 5) - 3, 6 * uniform(g, n, 5) - 3, (uniform(g, n) < 0.4).double(), uniform(g, n)


def table_targets_numbers(n, g):
    return 6 * uniform(g, n, 3) - 3, (uniform(g, n, 3) < 0.4).double(), torch.tensor([0.1, 0.8, 2.0], dtype=torch.float64)


def table_targets_classes(n, g):
    return *table_targets_numbers(n, g)[:2], torch.tensor([True, False, True])


def proposals(n, g):
    logits, targets = logits_and_targets(n, g)
    return logits, 4 * uniform(g, n, 4) - 2, targets, 4 * uniform(g, n, 4) - 2


def boxes(n, g):
    corner, size = uniform(g, n, 2, 2), 0.2 + uniform(g, n, 2, 2)
    return torch.cat([corner, corner + size], -1).unbind(1)


# -- the list ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    name: str
    problem: Callable
    perfect: Callable | str  # the tensors of a problem with its differentiable ones made right, or why there is no such thing
    differentiable: int = 1  # how many of the tensors, from the first
    options: dict = field(default_factory=dict)

    @property
    def elementwise(self):
        """It takes reduction, weight and normalizer."""
        return "reduction" in inspect.signature(CATALOG[self.name].function).parameters

    def __call__(self, *tensors, **options):
        function = CATALOG[self.name].function
        if self.name == "rpn_loss":  # its second differentiable tensor is its third
            logits, regression, targets, wanted = tensors
            return function(logits, targets, regression, wanted, **self.options, **options)
        return function(*tensors, **self.options, **options)


def saturated(logits, targets, *others):
    return 40 * (2 * targets - 1), targets, *others


def target_again(prediction, target, *others):
    return target.clone(), target, *others


def quality_again(logits, quality):
    return torch.logit(quality.clamp(1e-15, 1 - 1e-15)), quality


def separated(logits, targets, errors=None):
    """Positives above negatives, each by more than the smoothing, and among them the smaller error first."""
    logits = 200 * targets + 3.0 * torch.arange(len(targets), dtype=logits.dtype)
    if errors is None:
        return logits, targets
    return logits.masked_scatter(targets == 1, 900 - 3 * errors.argsort().argsort().to(errors.dtype)), targets, errors


def separated_by_quality(logits, targets, quality):
    return separated(logits, targets, -quality)[0], targets, quality


def true_class_at(height, others):
    return lambda logits, classes, *weights: (height * torch.eye(3, dtype=logits.dtype)[classes] + others, classes, *weights)


BY_TARGETS = {
    ("labels",): (logits_and_targets, saturated),
    ("ious",): (logits_and_quality, quality_again),
    ("labels", "ious"): (logits_targets_quality, lambda logits, labels, quality: (quality_again(logits, quality)[0], labels, quality)),
    ("labels", "positive ious"): (ranking_with_values, separated_by_quality),
}
SPECIAL = {
    "softmax_cross_entropy_loss": {"problem": logits_and_classes, "perfect": true_class_at(40, 0)},
    "softmax_focal_loss": {"problem": logits_and_classes, "perfect": true_class_at(40, 0)},
    "class_balanced_softmax_loss": {"problem": logits_classes_weights, "perfect": true_class_at(40, 0)},
    "class_balanced_sigmoid_loss": {"problem": logits_classes_weights, "perfect": true_class_at(80, -40)},
    "class_balanced_focal_loss": {"problem": logits_classes_weights, "perfect": true_class_at(80, -40)},
    "dr_loss": {"problem": ranking_problem},
    "matchability_aware_loss": {
        "options": {"detach_weight": False},
        "perfect": lambda x, t, q: (torch.logit((q**1.5).clamp(1e-15, 1 - 1e-15)), t, q),
    },
    "ia_bce_loss": {"perfect": "its target moves with the score"},
    "correlation_loss": {"problem": logits_and_all_quality, "perfect": quality_again},
    "alrp_loss": {"problem": ranking_with_values, "perfect": separated},
    "rank_sort_loss": {"problem": ranking_with_values, "perfect": "it is the excess over a target error, not an error"},
    "seesaw_loss": {"problem": logits_classes_counts, "perfect": true_class_at(40, 0)},
    "equalization_loss_v2": {"problem": table_targets_numbers, "perfect": saturated},
    "federated_loss": {"problem": table_targets_classes, "perfect": saturated},
    "distribution_focal_loss": {"problem": rows_and_distances, "perfect": "it is the entropy of two bins, not 0"},
    "fine_grained_localization_loss": {"problem": rows_and_offsets, "perfect": "it is the entropy of two bins, not 0"},
    "decoupled_distillation_loss": {
        "problem": rows_of_two_layers,
        "perfect": lambda x, teacher, *others: (teacher.clone(), teacher, *others),
    },
    "keypoint_focal_loss": {"problem": logits_and_heat, "perfect": lambda x, heat: (torch.where(heat == 1, 40.0, -40.0).to(x), heat)},
    "pull_loss": {"problem": embeddings, "perfect": lambda x: (x.mean(1, keepdim=True).expand(-1, 2),)},
    "push_loss": {"problem": embeddings, "perfect": lambda x: (x + 10 * torch.arange(len(x))[:, None],)},
    "offset_loss": {"problem": offsets_and_points, "perfect": lambda x, points: ((points / 4).frac(), points)},
    "faster_rcnn_smooth_l1_loss": {"problem": four_coordinates, "perfect": target_again},
    "rpn_loss": {"problem": proposals, "perfect": lambda x, r, t, w: (40 * (2 * t - 1), w.clone(), t, w), "differentiable": 2},
}


def make_loss(name):
    module, special = CATALOG[name], SPECIAL.get(name, {})
    if issubclass(module, BoxLoss):
        problem, perfect = boxes if module.compares == "boxes" else coordinates, target_again
    elif issubclass(module, ClassificationLoss):
        problem, perfect = BY_TARGETS[module.targets]
        if module.family == "ranking" and problem is logits_and_targets:
            problem, perfect = ranking_problem, separated
    else:
        return Loss(name, **special)
    return Loss(name, **{"problem": problem, "perfect": perfect, **special})


SOFTMAX = {logits_and_classes, logits_classes_counts, logits_classes_weights}

LOSSES = [make_loss(name) for name in CATALOG]
ELEMENTWISE = [loss for loss in LOSSES if loss.elementwise]
OVERLAP = [loss for loss in LOSSES if CATALOG[loss.name].family == "overlap"]
every = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
elementwise = pytest.mark.parametrize("loss", ELEMENTWISE, ids=lambda loss: loss.name)
overlap = pytest.mark.parametrize("loss", OVERLAP, ids=lambda loss: loss.name)


def problem(loss, n=12, seed=0, dtype=torch.float64):
    tensors = loss.problem(n, torch.Generator().manual_seed(seed))
    return tuple(t.to(dtype) if t.is_floating_point() else t for t in tensors)


def evaluate(loss, tensors, upstream=1.0, **options):
    """Value and gradients; the parts of a loss of several are summed, which ``parts`` does not do."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors[: loss.differentiable]]
    value = total(loss(*leaves, *tensors[loss.differentiable :], **options))
    return value.detach(), torch.autograd.grad(upstream * value.sum(), leaves)


def total(result):
    return sum(result) if isinstance(result, tuple) else result


def test_what_is_special_is_in_the_catalog():
    assert SPECIAL.keys() <= CATALOG.keys()


# -- one test a property -------------------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_empty_input_gives_0_with_a_live_graph(loss, reduction):
    value, gradients = evaluate(loss, problem(loss, 0), **({"reduction": reduction} if loss.elementwise else {}))
    assert value == 0
    assert value.shape == ()
    assert [g.shape for g in gradients] == [t.shape for t in problem(loss, 0)[: loss.differentiable]]


@every
def test_a_single_element_is_finite(loss):
    for seed in range(4):
        value, gradients = evaluate(loss, problem(loss, 1, seed))
        assert value.isfinite()
        assert all(g.isfinite().all() for g in gradients)


@every
def test_strides_do_not_matter(loss):
    tensors = problem(loss)
    strided = tuple(torch.stack([t, t], -1)[..., 0] for t in tensors)
    assert not strided[0].is_contiguous()
    torch.testing.assert_close(evaluate(loss, strided), evaluate(loss, tensors))


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_float32_and_double_stays(loss, dtype):
    tensors = problem(loss, dtype=dtype)
    value, gradients = evaluate(loss, tensors)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert all(g.dtype == dtype for g in gradients)
    # the same rounded inputs, in double precision
    expected, expected_gradients = evaluate(loss, tuple(t.double() if t.is_floating_point() else t for t in tensors))
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-4, torch.float64: 1e-12}[dtype]
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=1e-6)


@every
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n", [12, 20_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gpu_says_what_the_cpu_says(loss, dtype, n):
    tensors = problem(loss, n, dtype=dtype)
    expected, expected_gradients = evaluate(loss, tensors, upstream=-2.5)
    value, gradients = evaluate(loss, tuple(t.cuda() for t in tensors), upstream=-2.5)
    assert value.is_cuda
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-9}[dtype]
    torch.testing.assert_close(value.cpu(), expected, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=10 * tolerance, atol=tolerance * float(theirs.abs().max()))


@elementwise
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_waits_for_a_gpu(loss):
    tensors = tuple(t.cuda() for t in problem(loss, dtype=torch.float32))
    evaluate(loss, tensors)  # what is made once is made
    torch.cuda.set_sync_debug_mode("error")
    try:
        evaluate(loss, tensors)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_debug_checks_name_the_argument_that_is_not_finite(loss, bad):
    """Entries that are left out may hold anything, and then nothing comes of them; -inf stands for such entries in two families."""
    names = ["logits", "regression"] if loss.name == "rpn_loss" else list(inspect.signature(CATALOG[loss.name].function).parameters)
    may_be_left_out = bad == -torch.inf and (CATALOG[loss.name].family == "ranking" or loss.problem in SOFTMAX)
    for index, place in ((index, place) for index in range(loss.differentiable) for place in (0, -1)):
        tensors = list(problem(loss))
        tensors[index] = tensors[index].contiguous().clone()
        tensors[index].view(-1)[place] = bad
        said = ""
        try:
            with losses.debug_checks():
                value, gradients = evaluate(loss, tensors)
        except ValueError as error:
            said = str(error)
        if said:
            assert said.startswith(f"{names[index]}: 1 of {tensors[index].numel()} entries are not finite, the first at (")
            assert said.endswith(f": {bad}")
        else:
            assert may_be_left_out or names[index] == "regression"
            assert value.isfinite()
            assert all(gradient.isfinite().all() for gradient in gradients)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_of_1e4_are_finite(loss, dtype):
    for sign in (1, -1):
        tensors = problem(loss, dtype=dtype)
        huge = tuple(sign * 1e4 * t.sign() for t in tensors[: loss.differentiable])
        value, gradients = evaluate(loss, huge + tensors[loss.differentiable :])
        assert value.isfinite()
        assert all(g.isfinite().all() for g in gradients)


@every
def test_the_gradient_is_linear_in_the_upstream_gradient(loss):
    tensors = problem(loss)
    _, once = evaluate(loss, tensors)
    _, scaled = evaluate(loss, tensors, upstream=-2.5)
    torch.testing.assert_close([-2.5 * g for g in once], list(scaled))


@every
def test_the_order_of_the_elements_does_not_matter(loss):
    tensors = problem(loss)
    n = len(tensors[0])
    order = torch.randperm(n, generator=torch.Generator().manual_seed(5))

    def permuted(t, index):
        if len(t) == n:
            return t[order]
        if loss.problem is ranking_with_values and index == 2:  # one value per positive, in the order of the positives
            everywhere = torch.zeros(n, dtype=t.dtype).masked_scatter(tensors[1] == 1, t)[order]
            return everywhere[tensors[1][order] == 1]
        return t  # one value per class

    value, gradients = evaluate(loss, tensors)
    again, permuted_gradients = evaluate(loss, tuple(permuted(t, i) for i, t in enumerate(tensors)))
    torch.testing.assert_close(again, value)
    torch.testing.assert_close(permuted_gradients, tuple(g[order] for g in gradients))


@every
def test_the_perfect_prediction_is_the_minimum(loss):
    if isinstance(loss.perfect, str):
        pytest.skip(loss.perfect)
    best, _ = evaluate(loss, loss.perfect(*problem(loss)))
    for seed in range(10):
        tensors = problem(loss)
        other = problem(loss, seed=seed + 1)[: loss.differentiable]
        assert best <= evaluate(loss, other + tensors[loss.differentiable :])[0] + 1e-12


@every
def test_gradcheck(loss):
    if CATALOG[loss.name].no_derivative:
        pytest.skip(CATALOG[loss.name].no_derivative)
    tensors = problem(loss, 6)
    leaves = tuple(t.clone().requires_grad_() for t in tensors[: loss.differentiable])
    upstream = 1.7  # a factor that is not 1

    def function(*leaves):
        return upstream * total(loss(*leaves, *tensors[loss.differentiable :]))

    assert torch.autograd.gradcheck(function, leaves)


@every
def test_compiled_is_the_same(loss):
    """Traced without a graph break."""
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    tensors = problem(loss)
    leaves = [t.clone().requires_grad_() for t in tensors[: loss.differentiable]]
    value = total(compiled(*leaves, *tensors[loss.differentiable :]))
    torch.testing.assert_close((value.detach(), torch.autograd.grad(value, leaves)), evaluate(loss, tensors))


@elementwise
def test_reduction_is_the_law(loss):
    tensors = problem(loss)
    none = loss(*tensors, reduction="none")
    torch.testing.assert_close(loss(*tensors, reduction="sum"), none.sum())
    torch.testing.assert_close(loss(*tensors), none.sum() / none.numel())
    for reduction in ("mean", "sum"):
        torch.testing.assert_close(loss(*tensors, reduction=reduction, normalizer=3.5), none.sum() / 3.5)
        torch.testing.assert_close(loss(*tensors, reduction=reduction, normalizer=torch.tensor(3.5)), none.sum() / 3.5)
    torch.testing.assert_close(loss(*tensors, reduction="none", normalizer=3.5), none / 3.5)


@elementwise
def test_weights_multiply(loss):
    tensors = problem(loss)
    none = loss(*tensors, reduction="none")
    weight = 0.5 + torch.rand(none.shape, generator=torch.Generator().manual_seed(3), dtype=none.dtype)
    torch.testing.assert_close(loss(*tensors, reduction="none", weight=weight), weight * none)
    torch.testing.assert_close(loss(*tensors, reduction="sum", weight=weight), (weight * none).sum())


@elementwise
def test_mistakes_raise(loss):
    tensors = problem(loss)
    with pytest.raises(ValueError, match="reduction: 'none', 'mean' or 'sum' expected, got 'avg'"):
        loss(*tensors, reduction="avg")
    with pytest.raises(ValueError, match="weight: a shape that broadcasts"):
        loss(*tensors, weight=torch.ones(99))
    with pytest.raises(ValueError, match=r"\(\d"):
        loss(tensors[0][:-1], *tensors[1:])


# -- ignored entries -----------------------------------------------------------------------------------------------------------------------

WITHOUT_LABELS = {
    "correlation_loss": "takes positives alone",
    "faster_rcnn_smooth_l1_loss": "compares coordinates",
    "fine_grained_localization_loss": "compares offsets",
    "pull_loss": "takes objects alone",
    "push_loss": "takes objects alone",
    "offset_loss": "takes keypoints alone",
}


def labels_of(loss):
    """Which tensor of a problem holds the labels: qualities where they are the targets."""
    return 2 if loss.name in ("rpn_loss", "decoupled_distillation_loss") else 1


IGNORING = [loss for loss in LOSSES if not issubclass(CATALOG[loss.name], BoxLoss) and loss.name not in WITHOUT_LABELS]
ignoring = pytest.mark.parametrize("loss", IGNORING, ids=lambda loss: loss.name)


def with_ignored(loss, tensors, garbage):
    """The problem with an ignored element before each of its own: -1 for the label, and garbage in what else it has of each element."""
    n = len(tensors[0])

    def interleaved(t, index):
        if len(t) != n:  # one value per class or a positive
            return t
        filler = torch.full_like(t, -1 if index == labels_of(loss) else garbage)
        return torch.stack([filler, t], 1).flatten(0, 1)

    return tuple(interleaved(t, i) for i, t in enumerate(tensors))


@ignoring
@pytest.mark.parametrize("garbage", [0.0, torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_target_of_minus_1_is_ignored(loss, reduction, garbage):
    if not loss.elementwise and reduction != "mean":
        pytest.skip("it has one value")
    options = {"reduction": reduction} if loss.elementwise else {}
    tensors = problem(loss)
    expected, expected_gradients = evaluate(loss, tensors, upstream=-2.5, **options)
    value, gradients = evaluate(loss, with_ignored(loss, tensors, garbage), upstream=-2.5, **options)
    if reduction == "none":
        assert (value[0::2] == 0).all()
        value = value[1::2]
    torch.testing.assert_close(value, expected)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        assert (ours[0::2] == 0).all()
        torch.testing.assert_close(ours[1::2], theirs)


@ignoring
def test_all_ignored_is_0_with_a_live_graph(loss):
    tensors = list(problem(loss))
    labels = tensors[labels_of(loss)]
    tensors[labels_of(loss)] = torch.full_like(labels, -1)
    if loss.problem is ranking_with_values:
        tensors[2] = tensors[2][:0]
    value, gradients = evaluate(loss, tensors)
    assert value == pytest.approx(0, abs=0) or loss.name == "dr_loss"  # as of an image without boxes
    assert all((g == 0).all() for g in gradients)


@ignoring
def test_ignoring_is_documented_in_the_same_words(loss):
    entry = CATALOG[loss.name]
    assert "-1 is ignored: no loss, no gradient" in entry.function.__doc__
    assert entry.__doc__.endswith("; -1 is ignored.")


@ignoring
def test_weights_of_what_is_ignored_do_not_matter(loss):
    if not loss.elementwise:
        pytest.skip("it takes no weights")
    tensors = with_ignored(loss, problem(loss), torch.nan)
    weight = torch.ones(tensors[labels_of(loss)].shape, dtype=torch.float64)
    weight[0::2] = torch.inf
    torch.testing.assert_close(evaluate(loss, tensors, weight=weight), evaluate(loss, tensors))


# -- digits --------------------------------------------------------------------------------------------------------------------------------

BINARY = [
    loss for loss in IGNORING if loss.problem in (logits_and_targets, logits_and_quality, logits_targets_quality) and loss.elementwise
]


@pytest.mark.parametrize("loss", BINARY, ids=lambda loss: loss.name)
@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("distance", [4.0, 11.0, 14.0, 16.0, 20.0])
def test_easy_examples_keep_their_digits_in_float32(loss, target, distance):
    """Each by itself: torch's cross-entropy of a negative at -16 is 0 in float32, and 14 % off at -14."""
    if target and loss.name == "ia_bce_loss":
        pytest.skip("its target is a soft one near 1, which has no more digits")
    logit = distance if target else -distance
    double = tuple(torch.tensor([v], dtype=torch.float64) for v in (logit, target, target))[: len(problem(loss))]
    value, (gradient,) = evaluate(loss, tuple(t.float() for t in double))
    expected, (expected_gradient,) = evaluate(loss, double)
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=0)
    assert gradient != 0


@pytest.mark.parametrize("name", ["softmax_cross_entropy_loss", "softmax_focal_loss"])
@pytest.mark.parametrize("distance", [4.0, 16.0, 20.0])
def test_easy_softmax_examples_keep_their_digits_in_float32(name, distance):
    loss = next(each for each in LOSSES if each.name == name)
    logits, targets = torch.tensor([[distance, 0.0, -1.0]]), torch.tensor([0])
    value, (gradient,) = evaluate(loss, (logits, targets))
    expected, (expected_gradient,) = evaluate(loss, (logits.double(), targets))
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=0)


# -- boxes ---------------------------------------------------------------------------------------------------------------------------------

SQUARE = [[0.0, 0.0, 1.0, 1.0]]
PECULIAR = {
    "a point": [[0.5, 0.5, 0.5, 0.5]],
    "without width": [[0.5, 0.0, 0.5, 1.0]],
    "without height": [[0.0, 0.5, 1.0, 0.5]],
    "inverted": [[1.0, 1.0, 0.0, 0.0]],
    "inverted in x": [[1.0, 0.0, 0.0, 1.0]],
    "touching at an edge": [[1.0, 0.0, 2.0, 1.0]],
    "touching at a corner": [[1.0, 1.0, 2.0, 2.0]],
    "disjoint": [[5.0, 5.0, 6.0, 7.0]],
}


BY_DISTANCE = {"nwd_loss": "small boxes are near", "bounded_iou_loss": "each coordinate counts by itself"}


@overlap
@pytest.mark.parametrize("peculiar", PECULIAR.values(), ids=PECULIAR.keys())
def test_peculiar_boxes_are_finite_and_no_better_than_none(loss, peculiar):
    for prediction, target in ((peculiar, SQUARE), (SQUARE, peculiar), (peculiar, peculiar)):
        value, (gradient,) = evaluate(loss, (torch.tensor(prediction), torch.tensor(target)))
        assert value.isfinite()
        assert gradient.isfinite().all()
        assert value >= 0
    if loss.name not in BY_DISTANCE:
        assert evaluate(loss, (torch.tensor(peculiar), torch.tensor(SQUARE)))[0] >= 0.99


@overlap
def test_the_documented_range_holds_for_every_box(loss):
    """Also where x2 < x1 in one of the two, or in both: of a million pairs on a coarse grid, where much coincides, and of far ones."""
    g = torch.Generator().manual_seed(0)
    low, high = (float(end) for end in CATALOG[loss.name].range.strip("[])").split(","))
    for scale in (1.0, 1e6):
        pairs = scale * torch.randint(-3, 4, (20_000, 2, 4), generator=g).double()
        far = 10.0 ** (12 * uniform(g, 20_000, 2, 4) - 6) * uniform(g, 20_000, 2, 4).sub(0.5).sign()
        for a, b in (pairs.unbind(1), far.unbind(1), pairs.float().unbind(1), far.float().unbind(1)):
            value, (gradient,) = evaluate(loss, (a, b), reduction="none")
            assert value.min() >= low - 1e-6
            assert value.max() <= high + 1e-6
            assert gradient.isfinite().all()


@overlap
@pytest.mark.parametrize("side", [10.0**k for k in range(-6, 7)])
def test_equal_boxes_have_loss_0(loss, side):
    box = side * torch.tensor([[0.0, 0.0, 1.0, 1.7]])
    value, (gradient,) = evaluate(loss, (box, box))
    assert value.abs() < 1e-6
    assert gradient.isfinite().all()


# -- the twins and the catalog -------------------------------------------------------------------------------------------------------------

GIVEN_IN_THE_CALL = {"weight", "normalizer", "counts", "class_weights", "localization_normalizer", "global_batch"}
OF_THE_TWIN_ONLY = {"class_weights", "counts", "num_classes", "number", "beta", "normalize", "momentum", "memory"}


PER_CLASS = {
    "seesaw_loss": {"counts": [1.0, 50.0, 1000.0]},
    "equalization_loss_v2": {"num_classes": 3},
    "federated_loss": {"counts": [1.0, 50.0, 1000.0]},
}
"""What the twin has to know of the classes."""


def make_twin(name, **options):
    if name.startswith("class_balanced") or name in PER_CLASS:
        options = {**PER_CLASS.get(name, {"counts": [10.0, 100.0, 1000.0]}), **options}
    return CATALOG[name](**options)


@every
def test_the_twin_has_the_options_of_the_function(loss):
    entry = CATALOG[loss.name]
    keyword_only = {
        p.name: p.default
        for p in inspect.signature(entry.function).parameters.values()
        if p.kind == p.KEYWORD_ONLY and p.name not in GIVEN_IN_THE_CALL
    }
    twin = {p.name: p.default for p in inspect.signature(entry).parameters.values()}
    assert keyword_only == {name: default for name, default in twin.items() if name in keyword_only}
    assert set(twin) - set(keyword_only) <= OF_THE_TWIN_ONLY
    assert make_twin(loss.name).options() == keyword_only


@every
def test_the_twin_computes_the_function(loss):
    tensors = problem(loss, dtype=torch.float32)
    if loss.name.startswith("class_balanced"):
        tensors = (*tensors[:2], losses.class_balanced_weights([10.0, 100.0, 1000.0]))
        value = make_twin(loss.name)(*tensors[:2])
    elif loss.name in PER_CLASS:
        numbers = {"equalization_loss_v2": torch.full((3,), torch.inf), "federated_loss": torch.ones(3, dtype=torch.bool)}
        tensors = (*tensors[:2], numbers.get(loss.name, tensors[-1]))
        value = make_twin(loss.name).eval()(*tensors[:2])
    elif loss.name == "rpn_loss":
        logits, regression, targets, wanted = tensors
        value = make_twin(loss.name)(logits, targets, regression, wanted)
    else:
        value = make_twin(loss.name, **loss.options)(*tensors)
    torch.testing.assert_close(total(value), total(loss(*tensors)))
    if loss.elementwise and not loss.name.startswith("class_balanced") and loss.name not in PER_CLASS:
        twin = make_twin(loss.name, **loss.options, reduction="sum")
        torch.testing.assert_close(twin(*tensors, normalizer=2.0), loss(*tensors, reduction="sum", normalizer=2.0))


@every
def test_the_twin_is_public_and_short(loss):
    module = CATALOG[loss.name]
    assert getattr(losses, module.__name__) is module
    assert getattr(losses, loss.name) is CATALOG[loss.name].function
    assert len(inspect.getsource(module).strip().splitlines()) <= 20  # decorator and docstring included
    assert repr(make_twin(loss.name)).startswith(module.__name__ + "(")


@every
def test_the_catalog_has_the_defaults_of_the_function(loss):
    entry = CATALOG[loss.name]
    parameters = {**inspect.signature(entry).parameters, **inspect.signature(entry.function).parameters}
    for name, default in entry.hyperparameters().items():
        given = parameters[name].default
        if given is None:  # smooth L1: beta or sigma
            tensors = problem(loss)
            assert loss(*tensors) == loss(*tensors, **{name: default})
        else:
            assert given == pytest.approx(default, rel=1e-3)


def test_hyperparameter_counts_of_the_paper():
    """Table A.11: of single losses; Table 1: of the combinations that exist here (Faster R-CNN adds four for its two samplers)."""
    single = {
        "sigmoid_cross_entropy_loss": 0,
        "focal_loss": 2,
        "ap_loss": 1,
        "dr_loss": 3,
        "smooth_l1_loss": 1,
        "balanced_l1_loss": 2,
        "iou_loss": 0,
    }
    assert {name: count_hyperparameters(name) for name in single} == single
    assert count_hyperparameters("alrp_loss") == 1
    assert count_hyperparameters("ap_loss", "smooth_l1_loss") == 3
    assert count_hyperparameters("focal_loss", "smooth_l1_loss") == 4
    assert count_hyperparameters("focal_loss", "iou_loss", "sigmoid_cross_entropy_loss") == 4
    assert count_hyperparameters("dr_loss", "smooth_l1_loss") == 5
    assert count_hyperparameters(*2 * ("softmax_cross_entropy_loss", "smooth_l1_loss")) + 4 == 9
    with pytest.raises(ValueError, match="names of the catalog expected, got 'hinge_loss'"):
        count_hyperparameters("hinge_loss")


@every
def test_the_twin_can_be_named_in_a_recipe(loss):
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=torch.nn.Module)
    module = CATALOG[loss.name]
    options = make_twin(loss.name).options()
    if loss.name.startswith("class_balanced") or loss.name in PER_CLASS:
        options |= PER_CLASS.get(loss.name, {"counts": [10.0, 100.0]})
    config = parser.parse_object({"loss": {"class_path": f"lossbox.losses.{module.__name__}", "init_args": options}})
    made = parser.instantiate(config).loss if hasattr(parser, "instantiate") else parser.instantiate_classes(config).loss
    assert type(made) is module
    assert made.options() == make_twin(loss.name).options()
    assert repr(copy.deepcopy(made)) == repr(made)
    with pytest.raises((jsonargparse.ArgumentError, ValueError, TypeError)):
        parser.parse_object({"loss": {"class_path": f"lossbox.losses.{module.__name__}", "init_args": {**options, "gama": 2.0}}})


@every
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_an_option_that_is_no_finite_number_is_refused(loss, bad):
    parameters = inspect.signature(CATALOG[loss.name].function).parameters.values()
    for name in [each.name for each in parameters if type(each.default) in (int, float) and each.kind is each.KEYWORD_ONLY]:
        if (name, bad) == ("cutoff", torch.inf):  # all pairs
            continue
        with pytest.raises(ValueError, match=name):
            loss(*problem(loss), **{name: bad})
