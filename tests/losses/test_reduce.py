import pytest
import torch

from lossbox.boxes._dtype import upcast
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
        ({"normalizer": 0}, "normalizer: a number > 0 expected, got 0"),
        ({"normalizer": float("nan")}, "normalizer: a number > 0"),
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
