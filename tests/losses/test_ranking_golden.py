"""What the authors' own code computes (tests/golden/ranking), float64, to 1e-9; each deviation is a test of its own that says why."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lossbox.losses import SelfBalance, alrp_loss, ap_loss, rank_sort_loss

GOLDEN = Path(__file__).parents[1] / "golden" / "ranking"
SCENARIOS = np.load(GOLDEN / "scenarios.npz")
HEADS = json.loads((GOLDEN / "heads.json").read_text())
NAMES = sorted({key.split("/")[0] for key in SCENARIOS.files})
close = functools.partial(assert_close, rtol=1e-9, atol=1e-12)

EMPTY = {"s37_no_positives", "s38_all_ignored", "s39_empty_input"}
HARD_TIES = {"s41_delta_zero_ties"}
HARD = {name for name in NAMES if SCENARIOS[f"{name}/delta"][0] == 0}
ZERO_QUALITY = {name for name in NAMES if ((SCENARIOS[f"{name}/rs_targets"] == 0) & (SCENARIOS[f"{name}/targets"] == 1)).any()}


def tensor(array):
    return torch.from_numpy(np.asarray(array)).double()


def problem(name):
    load = lambda key: SCENARIOS[f"{name}/{key}"]  # noqa: E731
    return tensor(load("logits")).requires_grad_(), tensor(load("targets")), load


def ties_among_positives(name):
    scores = SCENARIOS[f"{name}/logits"][SCENARIOS[f"{name}/targets"] == 1]
    return len(np.unique(scores)) < len(scores)


def names(excluded):
    return pytest.mark.parametrize("name", [name for name in NAMES if name not in excluded])


@names(EMPTY | HARD)
def test_ap(name):
    logits, targets, golden = problem(name)
    loss = ap_loss(logits, targets, delta=float(golden("delta")[0]), interpolated=True)
    loss.backward()
    close(loss.detach(), tensor(golden("ap/loss")).reshape(()))
    close(logits.grad, tensor(golden("ap/grad_logits")))


@names(EMPTY | HARD_TIES)
def test_alrp_classification(name):
    logits, targets, golden = problem(name)
    loss = alrp_loss(logits, targets, tensor(golden("localization_error")), delta=float(golden("delta")[0]))
    loss.classification.backward()
    close(loss.classification.detach(), tensor(golden("alrp/cls_loss")))
    close(logits.grad, tensor(golden("alrp/grad_logits")))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in EMPTY | HARD_TIES and not ties_among_positives(name)])
def test_alrp_localization(name):
    logits, targets, golden = problem(name)
    error = tensor(golden("localization_error")).requires_grad_()
    loss = alrp_loss(logits, targets, error, delta=float(golden("delta")[0])).localization
    loss.backward()
    close(loss.detach(), tensor(golden("alrp/loc_loss_unweighted")))
    close(error.grad, tensor(golden("alrp/grad_regression_losses")))


@names(EMPTY | ZERO_QUALITY)
def test_rank_sort(name):
    logits, targets, golden = problem(name)
    quality = tensor(golden("rs_targets"))[targets == 1]
    loss = rank_sort_loss(logits, targets, quality, delta=float(golden("delta")[1]))
    sum(loss).backward()
    close(loss.ranking.detach(), tensor(golden("rs/ranking_loss")))
    close(loss.sorting.detach(), tensor(golden("rs/sorting_loss")))
    close(logits.grad, tensor(golden("rs/grad_logits")))


def test_twenty_thousand_negatives():
    golden = np.load(GOLDEN / "large.npz")
    logits, targets, index = tensor(golden["logits"]), torch.from_numpy(golden["targets"]), golden["index"]
    ap, alrp, rs = (logits.clone().requires_grad_() for _ in range(3))
    error = tensor(golden["localization_error"]).requires_grad_()
    loss = ap_loss(ap, targets, interpolated=True)
    loss.backward()
    close(loss.detach(), tensor(golden["ap_loss"]))
    close(ap.grad[index], tensor(golden["ap_grad"]))
    parts = alrp_loss(alrp, targets, error)
    sum(parts).backward()
    close(torch.stack(parts).detach(), tensor([golden["alrp_cls_loss"], golden["alrp_loc_loss_unweighted"]]))
    close(alrp.grad[index], tensor(golden["alrp_grad"]))
    close(error.grad, tensor(golden["alrp_grad_regression_losses"]))
    parts = rank_sort_loss(rs, targets, tensor(golden["quality"]))
    sum(parts).backward()
    close(torch.stack(parts).detach(), tensor([golden["rs_ranking_loss"], golden["rs_sorting_loss"]]))
    close(rs.grad[index], tensor(golden["rs_grad"]))


def head_problem(case, background):
    """Labels of one class an anchor to 1 / 0 / -1 over (anchor, class), as the heads do."""
    logits = torch.tensor(case["cls_logits"], dtype=torch.float64)
    labels = torch.tensor(case["labels"])
    targets = torch.zeros_like(logits)
    positive = labels != background
    targets[positive, labels[positive] - int(background == 0)] = 1
    targets[torch.tensor(case["label_weights"]) == 0] = -1
    return logits.requires_grad_(), targets


@pytest.mark.parametrize("case", [c for c in HEADS["alrp_retina_head"] if c["id"] not in ("s_bg3", "s08")], ids=lambda c: c["id"])
def test_alrp_in_the_published_retinanet_head(case):
    logits, targets = head_problem(case, background=80)
    loss = alrp_loss(logits, targets, torch.tensor(case["giou_loss_per_positive"], dtype=torch.float64))
    loss.classification.backward()
    close(loss.classification.item(), case["loss_cls"])
    close(loss.localization.item(), case["loss_bbox_unweighted"])
    close(logits.grad, torch.tensor(case["grad_cls_logits"], dtype=torch.float64))


@pytest.mark.parametrize("case", [c for c in HEADS["alrp_rpn_head"] if c["id"] != "s08"], ids=lambda c: c["id"])
def test_alrp_in_the_published_rpn_head(case):
    """tau is 0.7 there, and the head weight multiplies both parts."""
    logits, targets = head_problem(case, background=0)
    weight = case["args"]["head_weight"]
    error = torch.tensor(case["giou_loss_per_positive_before_division"], dtype=torch.float64) / (2 * (1 - case["args"]["tau"]))
    loss = alrp_loss(logits, targets, error, delta=case["args"]["delta"])
    (weight * loss.classification).backward()
    close(weight * loss.classification.item(), case["loss_cls"])
    close(weight * loss.localization.item(), case["loss_bbox_unweighted"])
    close(logits.grad, torch.tensor(case["grad_cls_logits"], dtype=torch.float64))


@pytest.mark.parametrize("case", [c for c in HEADS["rank_sort_atss_head"] if c["id"] not in ("s06", "s07", "s08")], ids=lambda c: c["id"])
def test_rank_sort_in_the_published_atss_head(case):
    logits, targets = head_problem(case, background=case["args"]["num_classes"])
    loss = rank_sort_loss(logits, targets, torch.tensor(case["iou_targets"], dtype=torch.float64), delta=case["args"]["delta"])
    sum(loss).backward()
    close(loss.ranking.item(), case["loss_rank"])
    close(loss.sorting.item(), case["loss_sort"])
    close(logits.grad, torch.tensor(case["grad_cls_logits"], dtype=torch.float64))


@pytest.mark.parametrize("case", HEADS["alrp_self_balance"], ids=lambda c: c["id"])
def test_self_balance(case):
    """Published code has the new weight in force from the last of `period` iterations; ours from the first of the next period."""
    balance, counted = SelfBalance(case["args"]["SB_weight_initial"]).double(), 0
    for step in case["steps"]:
        if step["SB_weight_before"] is not None:  # absent where there were no positives
            close(balance.weight.item(), float(step["SB_weight_before"]))
        cls, loc = (
            torch.tensor(0.0 if step[key] is None else step[key], dtype=torch.float64) for key in ("loss_cls", "loss_bbox_unweighted")
        )
        balance.update(cls, loc, counts=loc > 0)
        counted += int(loc > 0)
        if counted == case["args"]["period"]:
            balance.end_period()
            counted = 0
        close(balance.weight.item(), float(step["SB_weight_after"]))


# -- deviations: the published code is broken, and ours is what the paper says --


@pytest.mark.parametrize("name", sorted(EMPTY))
def test_deviation_no_positives_is_zero_and_not_an_exception(name):
    """aLRP and Rank & Sort raise RuntimeError (the minimum of nothing); AP raises on empty input."""
    logits, targets, golden = problem(name)
    assert golden("alrp/raises") == golden("rs/raises") == "RuntimeError"
    for loss in (ap_loss(logits, targets), *alrp_loss(logits, targets, torch.zeros(0)), *rank_sort_loss(logits, targets, torch.zeros(0))):
        assert loss.item() == 0


@pytest.mark.parametrize("name", sorted(HARD))
def test_deviation_hard_step_is_finite(name):
    """delta = 0 divides by 0: cccorn gives NaN always, aLRP with ties. Ours counts ties, as the limit of the definition says."""
    logits, targets, golden = problem(name)
    assert np.isnan(golden("ap/grad_logits")).any()
    loss = ap_loss(logits, targets, delta=0, interpolated=True)
    loss.backward()
    assert 0 <= loss.item() <= 1
    assert logits.grad.isfinite().all()
    if name not in HARD_TIES:  # without ties the later copy of the code, in the aLRP repository, is right
        close(loss.detach(), tensor(golden("ap_alrp_repo/loss")))
        close(logits.grad, tensor(golden("ap_alrp_repo/grad_logits")))
    else:
        assert np.isnan(golden("alrp/cls_loss"))
        assert alrp_loss(logits, targets, tensor(golden("localization_error")), delta=0).classification.isfinite()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in EMPTY | HARD_TIES and ties_among_positives(name)])
def test_deviation_localization_of_tied_positives_depends_on_no_order(name):
    """The published head sorts: among tied positives the value depends on an unstable argsort. Ours counts both, the largest such value."""
    logits, targets, golden = problem(name)
    error = tensor(golden("localization_error"))
    delta = float(golden("delta")[0])
    loss = alrp_loss(logits, targets, error, delta=delta).localization.item()
    assert loss >= float(golden("alrp/loc_loss_unweighted")) - 1e-12
    reverse = alrp_loss(logits.flip(0), targets.flip(0), error.flip(0), delta=delta).localization.item()
    assert loss == pytest.approx(reverse, rel=1e-12)


@pytest.mark.parametrize("name", sorted(ZERO_QUALITY - EMPTY))
def test_deviation_a_positive_of_quality_zero_stays_positive(name):
    """Published code marks positives by quality > 0, and pushes a positive of IoU 0 down. Ours takes targets and quality apart."""
    logits, targets, golden = problem(name)
    quality = tensor(golden("rs_targets"))
    ours = rank_sort_loss(logits, targets, quality[targets == 1], delta=float(golden("delta")[1]))
    ours.ranking.backward()
    zero = (quality == 0) & (targets == 1)
    assert (logits.grad[zero] <= 0).all()
    as_published = torch.where(zero, 0.0, targets)
    if (as_published == 1).any():
        published = rank_sort_loss(logits, as_published, quality[as_published == 1], delta=float(golden("delta")[1]))
        close(published.ranking.detach(), tensor(golden("rs/ranking_loss")))
        assert published.ranking.item() != ours.ranking.item()
