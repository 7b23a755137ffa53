"""The ranking losses against the papers' formulas (pairwise_reference), on drawn problems and in every corner."""

import functools
import runpy

import hypothesis
import numpy as np
import pairwise_reference as reference
import pytest
import torch
from hypothesis import strategies as st
from torch.testing import assert_close

from lossbox.losses import _checks, _knots, alrp_loss, ap_loss, debug_checks, ndcg_loss, rank_sort_loss

DELTAS = (0.0, 0.25, 0.5, 1.0, 2.0)
close = {
    torch.float64: functools.partial(assert_close, rtol=1e-9, atol=1e-13, check_dtype=False),
    torch.float32: functools.partial(assert_close, rtol=1e-5, atol=1e-8, check_dtype=False),
}


@st.composite
def problems(draw):
    """Logits, targets, one number in [0, 1] a positive, delta: random, tied, clustered with an outlier, saturated."""
    size = draw(st.integers(0, 120))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["normal", "ties", "all equal", "saturated", "cluster", "tiny", "far apart"]))
    logits = rng.normal(size=size)
    shares = draw(st.sampled_from([(0.1, 0.6), (0.4, 0.4), (0.0, 0.9), (1.0, 0.0), (0.0, 0.0), (0.5, 0.5), (0.02, 0.98)]))
    kinds = rng.random(size)
    targets = np.where(kinds < shares[0], 1, np.where(kinds < sum(shares), 0, -1))
    if kind == "ties":
        logits = np.round(logits * 4) / 4
    elif kind == "all equal":
        logits = np.full(size, 0.375)
    elif kind == "saturated":
        logits = np.where(rng.random(size) < 0.5, 50.0, -50.0) + np.round(logits)
    elif kind == "cluster":
        logits = np.where((targets == 1) & (rng.random(size) < 0.9), 0.5 + 1e-6 * rng.random(size), 2 * logits)
        if size:
            logits[rng.integers(size)] = 40.0
    elif kind == "tiny":
        logits *= 1e-3
    elif kind == "far apart":
        logits = np.round(logits * 20)
    values = rng.random(int((targets == 1).sum()))
    if draw(st.booleans()):
        values = np.round(values * 4) / 4
    return torch.tensor(logits), torch.tensor(targets), torch.tensor(values), draw(st.sampled_from(DELTAS))


def drawn(test):
    test = hypothesis.given(
        problem=problems(), dtype=st.sampled_from([torch.float64, torch.float32]), upstream=st.sampled_from([1.0, -2.5, 1e-3])
    )(test)
    return hypothesis.settings(max_examples=150, deadline=None)(test)


def gradient(logits, loss, upstream=1.0):
    (result,) = torch.autograd.grad(loss, logits, torch.tensor(upstream, dtype=loss.dtype), retain_graph=True)
    assert result.dtype == logits.dtype
    return result / upstream


@drawn
@pytest.mark.parametrize("interpolated", [False, True])
def test_ap_is_the_papers(problem, dtype, upstream, interpolated):
    logits, targets, _, delta = problem
    logits = logits.to(dtype).requires_grad_()
    loss = ap_loss(logits, targets, delta=delta, interpolated=interpolated)
    value, grad = reference.ap(logits, targets, delta, interpolated)
    close[dtype](loss.double(), value.double())
    close[dtype](gradient(logits, loss, upstream).double(), grad)


@drawn
def test_ndcg_is_the_papers(problem, dtype, upstream):
    logits, targets, _, delta = problem
    logits = logits.to(dtype).requires_grad_()
    loss = ndcg_loss(logits, targets, delta=delta)
    value, grad = reference.ndcg(logits, targets, delta)
    assert_close(loss.double(), value.double(), rtol=1e-9, atol=1e-13 if dtype == torch.float64 else 1e-6)  # 1 - something near 1
    close[dtype](gradient(logits, loss, upstream).double(), grad)


@drawn
@pytest.mark.parametrize("smooth", [False, True])
def test_alrp_is_the_papers(problem, dtype, upstream, smooth):
    logits, targets, error, delta = problem
    logits, error = logits.to(dtype).requires_grad_(), error.to(dtype).requires_grad_()
    loss = alrp_loss(logits, targets, error, delta=delta, smooth_localization=smooth)
    classification, localization, grad, error_grad = reference.alrp(logits, targets, error, delta, smooth)
    close[dtype](loss.classification.double(), classification.double())
    close[dtype](loss.localization.double(), localization.double())
    close[dtype](gradient(logits, loss.classification, upstream).double(), grad)
    close[dtype](gradient(error, loss.localization, upstream).double(), error_grad)


@drawn
def test_rank_sort_is_the_papers(problem, dtype, upstream):
    logits, targets, quality, delta = problem
    logits, quality = logits.to(dtype).requires_grad_(), quality.to(dtype)
    loss = rank_sort_loss(logits, targets, quality, delta=delta)
    ranking, sorting, ranking_grad, sorting_grad = reference.rank_sort(logits, targets, quality, delta)
    loose = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-7}
    close[dtype](loss.ranking.double(), ranking.double())
    assert_close(loss.sorting.double(), sorting.double(), **loose)
    close[dtype](gradient(logits, loss.ranking, upstream).double(), ranking_grad)
    assert_close(gradient(logits, loss.sorting, upstream).double(), sorting_grad, **loose)


def every_loss():
    """name -> f(logits, targets, values) -> scalar; values has one number per positive."""
    return {
        "ap": lambda logits, targets, values: ap_loss(logits, targets),
        "ap_interpolated": lambda logits, targets, values: ap_loss(logits, targets, interpolated=True),
        "ap_hard": lambda logits, targets, values: ap_loss(logits, targets, delta=0),
        "ndcg": lambda logits, targets, values: ndcg_loss(logits, targets),
        "alrp": lambda logits, targets, values: sum(alrp_loss(logits, targets, values)),
        "rank_sort": lambda logits, targets, values: sum(rank_sort_loss(logits, targets, values)),
    }


every = pytest.mark.parametrize("name", every_loss())


def large_problem(positives=300, negatives=30_000, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.zeros(positives + negatives, dtype=torch.int64)
    targets[torch.randperm(len(targets), generator=generator)[:positives]] = 1
    logits = torch.randn(len(targets), generator=generator) * 3 + targets
    return logits.to(dtype), targets, torch.rand(positives, generator=generator)


def expected(name, logits, targets, values):
    """What `every_loss()[name]` has to be: value and gradient."""
    if name == "ndcg":
        return reference.ndcg(logits, targets, 1.0)
    if name == "alrp":
        classification, localization, grad, _ = reference.alrp(logits, targets, values, 1.0)
        return classification + localization, grad
    if name == "rank_sort":
        ranking, sorting, ranking_grad, sorting_grad = reference.rank_sort(logits, targets, values, 0.5)
        return ranking + sorting, ranking_grad + sorting_grad
    return reference.ap(logits, targets, 0.0 if name == "ap_hard" else 1.0, name == "ap_interpolated")


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_table_look_up_changes_nothing(name, dtype):
    """30,000 negatives take the grid, the drawn problems the binary search: both must hold against the reference."""
    logits, targets, values = large_problem(positives=60, dtype=dtype)
    logits.requires_grad_()
    loss = every_loss()[name](logits, targets, values.to(dtype))
    value, grad = expected(name, logits, targets, values)
    close[dtype](loss.double(), value)
    close[dtype](gradient(logits, loss).double(), grad)


@every
def test_clustered_positives_with_an_outlier_fall_back_to_the_search(name):
    logits, targets, values = large_problem(dtype=torch.float64)
    positive = targets == 1
    logits[positive] = 0.5 + 1e-6 * torch.rand(300, dtype=torch.float64)
    logits[positive.nonzero()[0]] = 1e4
    logits.requires_grad_()
    loss = every_loss()[name](logits, targets, values.double())
    value, grad = expected(name, logits, targets, values)
    close[torch.float64](loss, value)
    close[torch.float64](gradient(logits, loss), grad)


@every
def test_balance_of_positives_and_negatives(name):
    """Theorem 2: the summed gradient magnitudes are equal. (The sorting part of Rank & Sort moves positives against positives.)"""
    logits, targets, values = large_problem(dtype=torch.float64)
    logits.requires_grad_()
    if name == "rank_sort":
        loss = rank_sort_loss(logits, targets, values).ranking
    else:
        loss = every_loss()[name](logits, targets, values.double())
    grad = gradient(logits, loss)
    positive, negative = grad[targets == 1].abs().sum(), grad[targets == 0].abs().sum()
    assert positive > 0
    assert_close(positive, negative, rtol=1e-12, atol=0)
    assert abs(gradient(logits, every_loss()[name](logits, targets, values.double())).sum()) < 1e-14


@every
@pytest.mark.parametrize(("positives", "negatives", "ignored"), [(0, 5, 0), (0, 0, 4), (0, 0, 0), (0, 3, 2)])
def test_no_positives_is_zero_with_a_live_graph(name, positives, negatives, ignored):
    logits = torch.randn(negatives + ignored, requires_grad=True)
    targets = torch.tensor([0] * negatives + [-1] * ignored, dtype=torch.int64)
    loss = every_loss()[name](logits, targets, torch.zeros(0))
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_no_positives_keeps_the_localization_graph_alive():
    error = torch.zeros(0, requires_grad=True)
    loss = alrp_loss(torch.zeros(3), torch.zeros(3), error)
    loss.localization.backward()
    assert loss._fields == ("classification", "localization")
    assert error.grad is not None


@every
def test_no_negatives(name):
    logits = torch.randn(6, requires_grad=True, dtype=torch.float64)
    values = torch.rand(6, dtype=torch.float64)
    loss = every_loss()[name](logits, torch.ones(6), values)
    grad = gradient(logits, loss)
    if name == "rank_sort":
        assert_close(grad.sum(), torch.zeros((), dtype=torch.float64))
    else:
        assert torch.equal(grad, torch.zeros_like(logits))
    if name.startswith("ap"):
        assert loss.item() == 0


@every
def test_perfect_ranking_by_a_margin(name):
    logits, targets, values = large_problem()
    logits = (torch.where(targets == 1, 20.0, -20.0) + 0 * logits).requires_grad_()
    if name in ("alrp", "rank_sort"):
        values = values * 0 + (0 if name == "alrp" else 1)
    loss = every_loss()[name](logits, targets, values)
    if name != "ndcg":  # the positives tie: the NDCG of their smoothed ranks is not 1
        assert loss.item() == pytest.approx(0, abs=1e-7)
    assert torch.equal(gradient(logits, loss), torch.zeros_like(logits))


def test_ndcg_of_a_perfect_hard_ranking_is_zero():
    logits = torch.arange(10.0, 0, -1)
    assert ndcg_loss(logits, (logits > 4).long(), delta=0).item() == pytest.approx(0, abs=1e-7)


@every
def test_any_shape_and_layout(name):
    logits, targets, values = large_problem(negatives=2_100)
    flat = logits.clone().requires_grad_()
    expected = every_loss()[name](flat, targets, values)
    shaped = logits.reshape(4, 6, 100).permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    assert not shaped.is_contiguous()
    loss = every_loss()[name](shaped, targets.reshape(4, 6, 100).float(), values)
    assert torch.equal(loss, expected)
    assert torch.equal(gradient(shaped, loss).reshape(-1), gradient(flat, expected))


@every
def test_order_of_the_input_does_not_matter(name):
    logits, targets, values = large_problem(dtype=torch.float64)
    logits = (logits * 4).round() / 4  # ties between positives, between negatives, and across
    values = values.double()
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(1))
    place = torch.full((len(logits),), -1)
    place[targets == 1] = torch.arange(len(values))
    shuffled_values = values[place[order][targets[order] == 1]]
    first, second = logits.clone().requires_grad_(), logits[order].requires_grad_()
    loss, again = every_loss()[name](first, targets, values), every_loss()[name](second, targets[order], shuffled_values)
    assert_close(loss, again, rtol=1e-12, atol=1e-14)
    assert_close(gradient(first, loss)[order], gradient(second, again), rtol=1e-10, atol=1e-15)


@every
def test_ignored_entries_do_not_exist(name):
    logits, targets, values = large_problem(negatives=3_000)
    garbage = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, 0.0])
    more = torch.cat([logits, garbage]).requires_grad_()
    logits.requires_grad_()
    loss = every_loss()[name](logits, targets, values)
    with_garbage = every_loss()[name](more, torch.cat([targets, targets.new_full((5,), -1)]), values)
    assert torch.equal(loss, with_garbage)
    assert torch.equal(gradient(more, with_garbage), torch.cat([gradient(logits, loss), torch.zeros(5)]))


@every
def test_infinite_negatives_are_the_farthest_negatives(name):
    logits, targets, values = large_problem(negatives=10_000)
    near, far = logits.clone(), logits.clone()
    index = (targets == 0).nonzero().squeeze(1)[:20]
    near[index[:10]], near[index[10:]] = -1e3, 1e3
    far[index[:10]], far[index[10:]] = -torch.inf, torch.inf
    near.requires_grad_()
    far.requires_grad_()
    loss, again = every_loss()[name](near, targets, values), every_loss()[name](far, targets, values)
    assert_close(loss, again)
    assert_close(gradient(near, loss), gradient(far, again))


@every
@pytest.mark.parametrize("size", [50, 20_000])
@pytest.mark.parametrize("where", [0, 1])
def test_nan_in_nan_out(name, size, where):
    logits, targets, values = large_problem(positives=20, negatives=size)
    logits[(targets == where).nonzero()[3]] = torch.nan
    logits.requires_grad_()
    loss = every_loss()[name](logits, targets, values)
    assert loss.isnan()
    loss.backward()
    assert logits.grad.isnan().any()


@every
def test_nan_without_positives_is_nan(name):
    assert every_loss()[name](torch.tensor([0.0, torch.nan]), torch.zeros(2), torch.zeros(0)).isnan()
    assert every_loss()[name](torch.tensor([0.0, torch.nan]), torch.tensor([0, -1]), torch.zeros(0)) == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_localization_error_is_not_swallowed(bad):
    loss = alrp_loss(torch.randn(4), torch.tensor([1, 0, 1, 0]), torch.tensor([0.1, bad]))
    assert not loss.localization.isfinite()


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_with_300_000_negatives(name, dtype):
    logits, targets, values = large_problem(positives=500, negatives=300_000, dtype=dtype)
    half, full = logits.clone().requires_grad_(), logits.float().requires_grad_()
    loss, expected = every_loss()[name](half, targets, values), every_loss()[name](full, targets, values)
    assert loss.isfinite()
    assert_close(loss, expected)
    grad, expected_grad = gradient(half, loss, 1024.0), gradient(full, expected)
    assert grad.dtype == dtype
    assert grad.isfinite().all()
    smallest = torch.finfo(dtype).smallest_normal / 1024
    assert_close(grad.float(), expected_grad, rtol=2 * torch.finfo(dtype).eps, atol=smallest)


@every
def test_under_autocast(name):
    logits, targets, values = large_problem()
    logits.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        inside = every_loss()[name](logits, targets, values)
    assert torch.equal(inside, every_loss()[name](logits, targets, values))


@every
def test_no_graph_when_none_is_wanted(name):
    logits, targets, values = large_problem()
    assert not every_loss()[name](logits, targets, values).requires_grad


@every
def test_devices_without_float64(name, monkeypatch):
    """MPS has no float64: forced here on the CPU, the sums are float32 and good to 1e-4."""
    logits, targets, values = large_problem(positives=1_000, negatives=200_000)
    exact = logits.clone().requires_grad_()
    expected = every_loss()[name](exact, targets, values)
    expected_grad = gradient(exact, expected)
    monkeypatch.setattr(_knots, "sum_dtype", lambda device: torch.float32)
    logits.requires_grad_()
    loss = every_loss()[name](logits, targets, values)
    assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    assert_close(gradient(logits, loss), expected_grad, rtol=1e-2, atol=1e-3 * float(expected_grad.abs().max()))


def test_the_parts_of_rank_sort_scale_on_their_own():
    logits, targets, quality = large_problem(negatives=500, dtype=torch.float64)
    logits.requires_grad_()
    ranking, sorting = rank_sort_loss(logits, targets, quality)
    both = gradient(logits, 3 * ranking + 0.5 * sorting)
    assert_close(both, 3 * gradient(logits, ranking) + 0.5 * gradient(logits, sorting))
    assert gradient(logits, sorting)[targets == 0].abs().sum() == 0


def test_alrp_localization_has_no_gradient_to_the_logits():
    logits, targets, error = large_problem(negatives=500)
    logits.requires_grad_()
    loss = alrp_loss(logits, targets, error)
    assert not loss.localization.requires_grad


def test_alrp_weighs_the_better_ranked_box_more():
    error = torch.full((3,), 0.5, requires_grad=True)
    alrp_loss(torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([1, 1, 1, 0]), error, delta=0).localization.backward()
    assert_close(error.grad, torch.tensor([1 + 1 / 2 + 1 / 3, 1 / 2 + 1 / 3, 1 / 3]) / 3)


def test_a_positive_of_zero_quality_stays_a_positive():
    """Published code reads quality 0 as a negative and pushes it down (golden README, 9)."""
    logits = torch.zeros(2, requires_grad=True)
    rank_sort_loss(logits, torch.tensor([1, 0]), torch.zeros(1)).ranking.backward()
    assert logits.grad[0] < 0 < logits.grad[1]


TOY_IOUS = {"R1": (0.95, 0.80, 0.65, 0.50), "R2": (0.80, 0.65, 0.50, 0.95), "R3": (0.50, 0.65, 0.80, 0.95)}


@pytest.mark.parametrize(("output", "expected"), [("R1", 0.53), ("R2", 0.69), ("R3", 0.89)])
def test_toy_example_of_figure_1(output, expected):
    scores = torch.arange(10, 0, -1, dtype=torch.float64) / 10
    targets = torch.zeros(10)
    targets[[0, 2, 5, 9]] = 1
    assert round(ap_loss(scores, targets, delta=0).item(), 2) == 0.36
    iou = torch.tensor(TOY_IOUS[output], dtype=torch.float64)
    assert round((1 - iou).mean().item(), 3) == 0.275
    loss = sum(alrp_loss(scores, targets, (1 - iou) / 0.5, delta=0)).item()
    assert loss == pytest.approx(expected, abs=0.0051)


def test_more_pairs_than_memory_could_hold():
    """20,000 x 2,000,000 pairs are 320 GB in float64."""
    logits, targets, error = large_problem(positives=20_000, negatives=2_000_000)
    logits.requires_grad_()
    loss = alrp_loss(logits, targets, error)
    grad = gradient(logits, loss.classification)
    assert_close(grad[targets == 1].double().sum(), -grad[targets == 0].double().sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("name", "on"), [("LOSSBOX_DEBUG_CHECKS", True), ("LOSSBOX_DEBUG", False)])
def test_debug_checks_have_a_variable_of_their_own(monkeypatch, name, on):
    """That of ``--debug``, which shows tracebacks, is another."""
    monkeypatch.setenv(name, "1")
    assert runpy.run_module(_checks.__name__)["_debug"] is on


def test_debug_checks_say_how_many_and_where():
    logits = torch.zeros(2, 3)
    logits[1, 0] = logits[1, 2] = torch.nan
    targets = torch.ones(2, 3)
    assert ap_loss(logits, targets).isnan()
    with debug_checks(), pytest.raises(ValueError, match=r"logits: 2 of 6 entries are not finite, the first at \(1, 0\)"):
        ap_loss(logits, targets)
    with debug_checks(), debug_checks(False):
        assert ap_loss(logits, targets).isnan()
    with debug_checks(), pytest.raises(ValueError, match=r"targets: 1 of 3 entries are not 1, 0 or -1, the first at \(2,\)"):
        ndcg_loss(torch.zeros(3), torch.tensor([0, 1, 2]))
    with debug_checks(), pytest.raises(ValueError, match=r"localization_error: 1 of 1 entries are not finite"):
        alrp_loss(torch.zeros(2), torch.tensor([0, 1]), torch.tensor([torch.nan]))
    with debug_checks():
        ap_loss(torch.tensor([0.0, torch.nan]), torch.tensor([1, -1]))  # an ignored entry may be anything


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ap_loss(torch.zeros(3), torch.zeros(4)), r"targets: must have the shape of logits \(3,\), got \(4,\)"),
        (lambda: ap_loss(torch.zeros(3).long(), torch.zeros(3)), "logits: must be floating point"),
        (lambda: ap_loss(torch.zeros(3), torch.zeros(3) > 0), "targets: must be numbers"),
        (lambda: ap_loss(torch.zeros(3), torch.zeros(3), delta=-1), "delta: 0 or a finite number >= 1e-06 expected, got -1"),
        (lambda: ap_loss(torch.zeros(3), torch.zeros(3), delta=1e-12), "delta: 0 or a finite number >= 1e-06 expected, got 1e-12"),
        (lambda: ap_loss(torch.zeros(3), torch.zeros(3), delta="1"), "delta: 0 or a finite number >= 1e-06 expected, got '1'"),
        (lambda: ndcg_loss(torch.zeros(3), torch.zeros(3), delta=float("nan")), "delta: 0 or a finite number"),
        (lambda: alrp_loss(torch.zeros(3), torch.ones(3), torch.zeros(2)), r"localization_error: must have shape \(3,\)"),
        (lambda: rank_sort_loss(torch.zeros(3), torch.ones(3), torch.zeros(3, 1)), r"quality: must have shape \(3,\)"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_threads_finds_the_intervals_of_a_binary_search(dtype):
    generator = torch.Generator().manual_seed(2)
    positives = torch.cat([torch.randn(997, generator=generator), torch.zeros(3)]).double()
    scores = torch.cat([torch.randn(200_000, generator=generator) * 2, positives.repeat(2), -torch.zeros(5), torch.tensor([torch.inf])])
    scores = scores[torch.randperm(len(scores), generator=generator)].to(dtype)
    assert len(scores) % _knots.ROWS
    threads = torch.get_num_threads()
    for delta, weight in ((0.0, torch.rand(1000, generator=generator).double()), (1.0, torch.ones(1000).double())):
        knots = _knots.place_knots(positives, delta)
        expected = torch.bucketize(scores.double(), knots.position, right=True, out_int32=True)
        value, slope = _knots.sums_below(knots, weight, torch.float64)
        for count in (1, 2, 3, 20):
            torch.set_num_threads(count)
            try:
                located = _knots.locate(knots, scores)
                spread = _knots.evaluate(value, slope, located.interval, located.offset)
            finally:
                torch.set_num_threads(threads)
            assert torch.equal(located.interval, expected)
            assert_close(located.weight_sum, torch.bincount(expected, minlength=len(value)).double())
            assert_close(located.offset_sum, torch.bincount(expected, located.offset.double(), minlength=len(value)), rtol=1e-5, atol=1e-9)
            assert_close(spread, (value[expected] + slope[expected] * located.offset.double()).to(dtype), rtol=1e-5, atol=1e-5)


def test_a_nan_between_knots_that_share_a_cell_stays_within_the_table():
    knots = _knots.place_knots(torch.tensor([-5.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64), 0.0)
    scores = torch.zeros(1 << 14)
    scores[7::100] = torch.nan
    located = _knots.locate(knots, scores)
    assert located.interval.min() >= 0
    assert located.interval.max() <= 5
    assert _knots.sums_above(knots, located).isnan().all()


@pytest.mark.parametrize("places", [1, 7])
@pytest.mark.parametrize("n", [0, 1, 1000])
def test_counting_in_turn_is_counting(n, places):
    """What runs on a GPU, on this CPU."""
    generator = torch.Generator().manual_seed(0)
    interval = torch.randint(places, (n,), generator=generator)
    weight = torch.randn(n, generator=generator, dtype=torch.float64)
    expected = torch.zeros(places, dtype=torch.float64)
    for i, each in enumerate(interval.tolist()):
        expected[each] += weight[i]
    for count, copies in ((_knots._count_in_turn, 3), (_knots._count, _knots.cpu_rows())):
        counters = torch.zeros(copies, places, dtype=torch.float64)
        count(counters, interval, weight)
        assert_close(counters.sum(0), expected)


@every
@pytest.mark.parametrize("bad", [2, 0.5, -2, torch.nan])
def test_a_target_that_is_no_label_is_refused(name, bad):
    targets = torch.tensor([[1, 0, 0], [-1, bad, 0]])
    with pytest.raises(ValueError, match=r"targets: 1 of 6 entries are not 1, 0 or -1, the first at \(1, 1\)"):
        every_loss()[name](torch.zeros(2, 3), targets, torch.zeros(1))


def test_an_error_or_quality_below_0_is_refused_but_for_rounding():
    logits, targets = torch.zeros(3), torch.tensor([1, 1, 0])
    with pytest.raises(ValueError, match=r"localization_error: 1 of 2 entries are negative, the first at \(1,\)"):
        alrp_loss(logits, targets, torch.tensor([0.5, -0.1]))
    with pytest.raises(ValueError, match=r"quality: 1 of 2 entries are negative, the first at \(0,\)"):
        rank_sort_loss(logits, targets, torch.tensor([-0.1, 0.1]))
    assert alrp_loss(logits, targets, torch.tensor([0.5, -1e-7])).localization > 0


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_smallest_delta_is_the_hard_step_but_for_ties(scale):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, generator=generator, dtype=torch.float64) * scale
    targets = (torch.rand(2000, generator=generator) < 0.1).long()
    torch.testing.assert_close(ap_loss(logits, targets, delta=1e-6), ap_loss(logits, targets, delta=0), rtol=0, atol=1e-6)


FAR_LOGITS = (1e8, 1e16, 1e30, torch.finfo(torch.float32).max)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("delta", [0.0, 1e-6, 0.5, 1.0])
@pytest.mark.parametrize("far", FAR_LOGITS)
def test_logits_of_any_size_are_ranked_as_the_papers_say(far, delta, groups, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, generator=generator).to(dtype)
    targets = (torch.rand(60, generator=generator) < 0.4).long()
    for place, (score, target) in enumerate([(far, 1), (far, 1), (-far, 1), (-far, 0), (far, 0), (far / 2, 0), (-far / 2, 1)]):
        logits[place], targets[place] = score, target
    quality = torch.rand(int(targets.sum()), generator=generator, dtype=torch.float64).to(dtype)
    keys = torch.arange(60) % 2 if groups else None
    parts = [torch.arange(60)] if keys is None else [torch.where(keys == key)[0] for key in (0, 1)]
    for number, (loss, papers) in enumerate(
        [
            (lambda s: ap_loss(s, targets, delta=delta, groups=keys), lambda s, t, q: reference.ap(s, t, delta, False)),
            (lambda s: ndcg_loss(s, targets, delta=delta, groups=keys), lambda s, t, q: reference.ndcg(s, t, delta)),
        ]
    ):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf)
        expected_value, expected = 0.0, torch.zeros(60, dtype=torch.float64)
        for part in parts:
            each = papers(logits[part].double(), targets[part], quality[(torch.cumsum(targets, 0) - 1)[part][targets[part] == 1]])
            expected_value += each[0] / len(parts)
            expected[part] = each[1] / len(parts)
        tolerance = 1e-6 if dtype == torch.float32 else 1e-8
        assert_close(value.double(), expected_value.double(), rtol=tolerance, atol=tolerance, msg=f"loss {number}")
        assert_close(gradient(leaf, value).double(), expected, rtol=tolerance, atol=tolerance, msg=f"loss {number}")


@pytest.mark.parametrize("delta", [1e-6, 0.5])
def test_a_far_positive_is_like_one_out_of_reach(delta):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, generator=generator, dtype=torch.float64)
    targets = (torch.rand(300, generator=generator) < 0.1).long()
    targets[0], logits[4] = 1, 99.0
    values = torch.rand(int(targets.sum()), generator=generator, dtype=torch.float64)
    for groups in (None, torch.arange(300) % 3):
        for loss in (
            lambda s, groups=groups: sum(alrp_loss(s, targets, values, delta=delta, groups=groups)),
            lambda s, groups=groups: sum(rank_sort_loss(s, targets, values, delta=delta, groups=groups)),
        ):
            found = []
            for far in (100.0, *FAR_LOGITS):
                logits[0] = far
                leaf = logits.clone().requires_grad_()
                found.append(gradient(leaf, loss(leaf)))
                assert_close(found[-1], found[0], rtol=0, atol=1e-8)


@every
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_positive_that_is_not_finite_makes_value_and_gradient_nan(name, bad):
    """So that who looks at the gradient alone, as a gradient scaler does, sees it."""
    logits = torch.tensor([bad, 0.0, 1.0, 2.0], requires_grad=True)
    loss = every_loss()[name](logits, torch.tensor([1, 0, 0, 1]), torch.tensor([0.5, 0.2]))
    assert loss.isnan()
    assert gradient(logits, loss).isnan().any()


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad, torch.func.jacrev])
def test_torch_func_is_refused_with_what_to_do_instead(transform):
    targets = torch.tensor([1, 0, 0])
    with pytest.raises(ValueError, match=r"does not go through torch\.func .*groups='row' or keys, .*loss\.backward\(\)"):
        transform(lambda row: ap_loss(row, targets))(torch.zeros((2, 3) if transform is torch.func.vmap else 3))
