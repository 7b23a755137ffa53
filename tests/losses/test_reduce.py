import inspect

import pytest
import torch

from lossbox.boxes._dtype import upcast
from lossbox.losses import CATALOG, debug_checks, focal_loss
from lossbox.losses._reduce import check_same_shape, reduce_loss

LOSS = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
WEIGHT = torch.tensor([[1.0, 0.0, 2.0], [1.0, 1.0, 0.5]])


@pytest.mark.parametrize("weight", [None, WEIGHT, torch.tensor([[0.5], [2.0]]), torch.tensor(3.0)])
@pytest.mark.parametrize("normalizer", [None, 4.0, torch.tensor(4.0), torch.tensor([4.0])])
def test_sum_is_the_sum_of_none(weight, normalizer):
    none = reduce_loss(LOSS, weight=weight, reduction="none", normalizer=normalizer)
    assert none.shape == LOSS.shape
    torch.testing.assert_close(reduce_loss(LOSS, weight=weight, reduction="sum", normalizer=normalizer), none.sum())


def test_the_law_in_visible_arithmetic():
    assert reduce_loss(LOSS, weight=WEIGHT, reduction="sum") == 1 * 1 + 0 * 2 + 2 * 3 + 1 * 4 + 1 * 5 + 0.5 * 6
    assert reduce_loss(LOSS, weight=WEIGHT) == 19 / 6, "the mean divides by the number of elements, not by the weights"
    assert reduce_loss(LOSS, weight=WEIGHT, normalizer=2) == 19 / 2
    assert reduce_loss(LOSS, weight=WEIGHT, reduction="sum", normalizer=2) == 19 / 2
    assert reduce_loss(LOSS, reduction="none", normalizer=2).tolist() == [[0.5, 1.0, 1.5], [2.0, 2.5, 3.0]]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_gives_0_with_a_live_graph(reduction):
    loss = torch.zeros(0, 3, requires_grad=True)
    value = reduce_loss(loss, reduction=reduction, weight=torch.zeros(0, 1))
    value.backward()
    assert value == 0
    assert loss.grad.shape == (0, 3)


def test_half_precision_weights_do_not_lower_the_loss():
    assert reduce_loss(LOSS, weight=WEIGHT.half()).dtype == torch.float32
    assert reduce_loss(LOSS.double(), weight=WEIGHT.bfloat16()).dtype == torch.float64
    assert [upcast(torch.zeros(1, dtype=t)).dtype for t in (torch.float16, torch.bfloat16, torch.int64, torch.bool)] == [torch.float32] * 4
    assert upcast(LOSS.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "average"}, "reduction: 'none', 'mean' or 'sum' expected, got 'average'"),
        ({"normalizer": 0}, "normalizer: a finite number > 0 expected, got 0"),
        ({"normalizer": float("nan")}, "normalizer: a finite number > 0"),
        ({"normalizer": float("inf")}, "normalizer: a finite number > 0"),
        ({"normalizer": torch.ones(2)}, r"normalizer: .* one element expected, got shape \(2,\)"),
        ({"weight": torch.ones(2)}, r"weight: .* \(2, 3\) expected, got \(2,\)"),
        ({"weight": torch.ones(4, 2, 3)}, r"weight: .* got \(4, 2, 3\)"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        reduce_loss(LOSS, **options)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"logits and targets: one shape expected, got \(3,\) and \(3, 1\)"):
        check_same_shape("logits", torch.ones(3), "targets", torch.ones(3, 1))


# -- what targets may be

HARD = ["focal_loss", "dr_loss", "ghm_c_loss", "matchability_aware_loss"]
SOFT = ["sigmoid_cross_entropy_loss", "quality_focal_loss", "varifocal_loss", "keypoint_focal_loss"]
CLASSES = ["softmax_cross_entropy_loss", "softmax_focal_loss", "class_balanced_focal_loss"]


def call(name, targets):
    function = CATALOG[name].function
    if name in CLASSES:
        weights = (torch.ones(3),) if name.startswith("class_balanced") else ()
        return function(torch.zeros(len(targets), 3), targets, *weights)
    return function(torch.zeros(targets.shape), targets, *((torch.zeros(targets.shape),) if name == "matchability_aware_loss" else ()))


@pytest.mark.parametrize("name", HARD + SOFT + CLASSES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.float32, torch.bfloat16])
def test_targets_that_there_are_not_are_refused(name, dtype):
    if name in CLASSES and dtype != torch.int64:
        pytest.skip("classes are int64")
    right = [1, 0, 1, 0] if dtype == torch.uint8 else [1, 0, -1, 0]
    assert call(name, torch.tensor(right).to(dtype)).isfinite()
    wrong = [3 if name in CLASSES else 2] + ([] if dtype == torch.uint8 else [-2])
    if dtype.is_floating_point:
        wrong += [-0.5, 1.5] + ([0.5] if name in HARD else [])
    for value in wrong:
        with pytest.raises(ValueError, match=rf"1 of 4 entries are not .*, the first at \(2,\): {value}"):
            call(name, torch.tensor([1, 0, value, 0]).to(dtype))


@pytest.mark.parametrize("name", SOFT)
def test_soft_targets_pass_where_the_docstring_says_so(name):
    assert call(name, torch.tensor([0.3, 1.0, -1.0, 1.0001])).isfinite()
    if name != "sigmoid_cross_entropy_loss":
        assert call(name, torch.tensor([0.3, torch.nan])).isnan()  # as of a network that diverged


@pytest.mark.parametrize("name", [name for name in CATALOG if name not in ("push_loss", "pull_loss")])
@pytest.mark.parametrize("wrap", [list, lambda t: t.numpy(), tuple])
def test_what_is_no_tensor_is_named(name, wrap):
    names = [p.name for p in inspect.signature(CATALOG[name].function).parameters.values() if p.kind != p.KEYWORD_ONLY]
    with pytest.raises(TypeError, match=rf"({names[0]}|{names[1]}): a torch.Tensor expected, got (list|ndarray|tuple)"):
        CATALOG[name].function(*[wrap(torch.zeros(2, 4)) for _ in names])


@pytest.mark.parametrize("name", ["alrp_loss", "rank_sort_loss", "ape_loss"])
def test_an_error_or_a_quality_below_0_is_refused(name):
    with pytest.raises(ValueError, match=r"(localization_error|quality): 1 of 2 entries are negative, the first at \(1,\)"):
        CATALOG[name].function(torch.zeros(3), torch.tensor([1, 0, 1]), torch.tensor([0.5, -0.1]))


def test_debug_checks_do_not_trace():
    """A compiler sees no look at values."""
    with debug_checks():
        compiled = torch.compile(focal_loss, backend="eager", fullgraph=True)
        assert compiled(torch.zeros(3), torch.tensor([0.0, 2.0, 1.0])).isfinite()
