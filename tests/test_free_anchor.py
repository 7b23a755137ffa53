"""FreeAnchor against a plain loop over images, boxes and anchors in float64: value and every gradient, empties and edges included."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lossbox.boxes import DeltaCoder, paired_giou, paired_iou
from lossbox.losses import FocalLoss, GIoULoss, SmoothL1Loss
from lossbox.objective import FreeAnchorObjective, weighted_sum
from lossbox.objective.free_anchor import focal_of_unmatched, negative_log_mean_max
from lossbox.records import IGNORE, Assignment, RawPredictions, Targets

CLASSES, CODER = 3, DeltaCoder()


def problem(seed: int, counts: tuple[int, ...] = (3, 0, 2), anchors: int = 14) -> tuple[RawPredictions, Assignment, list[Targets]]:
    """Images with boxes near the anchors, two of one class that share anchors, and some anchors that are ignored."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    corner = 8 * uniform(anchors, 2)
    grid = torch.cat([corner, corner + 12 + 8 * uniform(anchors, 2)], 1)  # each overlaps every box: no two IoUs are equal
    targets = []
    for i, n in enumerate(counts):
        boxes = grid[torch.arange(n) % anchors] + 2 * uniform(n, 4) - 1
        targets.append(Targets(boxes, torch.arange(n) % 2, torch.zeros(n, dtype=torch.bool), i, (48, 48), (48, 48)))
    logits = (4 * uniform(len(counts), anchors, CLASSES) - 2).requires_grad_()
    regression = (3 * uniform(len(counts), anchors, 4) - 1.5).requires_grad_()
    matched = torch.where(uniform(len(counts), anchors) < 0.2, IGNORE, -1)
    return RawPredictions(logits, regression, grid, (anchors,), CODER), Assignment(matched), targets


def iou(a: Tensor, b: Tensor) -> float:
    return paired_iou(a[None], b[None]).item()


def smooth_l1(x: Tensor, beta: float) -> Tensor:
    return x.square() / (2 * beta) if x.abs() < beta else x.abs() - beta / 2


def loop(
    raw: RawPredictions,
    assignment: Assignment,
    targets: list[Targets],
    *,
    bag: int,
    t1: float,
    t2: float | None,
    gamma: float,
    beta: float | None,
) -> tuple[Tensor, Tensor]:
    """The two parts by the paper's formulas, in probabilities; ``beta`` None compares boxes by GIoU."""
    p = raw.logits.sigmoid()
    positive, negative = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    count = sum(int((~t.crowd).sum()) for t in targets)
    for i, target in enumerate(targets):
        predicted = [CODER.decode(raw.regression[i, j], a).detach() for j, a in enumerate(raw.anchors)]
        objects = [(b, int(c)) for b, c, crowd in zip(target.boxes, target.labels, target.crowd, strict=True) if not crowd]
        for box, label in objects:
            order = sorted(range(len(raw.anchors)), key=lambda j: -iou(raw.anchors[j], box))[:bag]
            products = []
            for j in order:
                if beta is None:
                    error = 1 - paired_giou(CODER.decode(raw.regression[i, j], raw.anchors[j])[None], box[None])[0]
                else:
                    offsets = raw.regression[i, j] - CODER.encode(box, raw.anchors[j])
                    error = sum(smooth_l1(x, beta) for x in offsets)
                products.append(p[i, j, label] * torch.exp(-0.75 * error))
            mean_max = sum(x / (1 - x) for x in products) / sum(1 / (1 - x) for x in products)
            positive = positive - mean_max.log()
        top = [t2 if t2 is not None else max(iou(b, box) for b in predicted) for box, _ in objects]
        for j, c in ((j, c) for j in range(len(raw.anchors)) for c in range(CLASSES)):
            if assignment.matched[i, j] == IGNORE:
                continue
            share = 0.0
            for (box, label), most in zip(objects, top, strict=True):
                if label == c and most > t1:
                    share = max(share, min(max((iou(predicted[j], box) - t1) / (most - t1), 0.0), 1.0))
            q = p[i, j, c] * (1 - share)
            if share == 1 and gamma:
                continue  # q is 0, and its power may have no derivative there
            negative = negative - q**gamma * torch.log(1 - q)
    return positive / max(count, 1), negative / (max(count, 1) * bag)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("options", "box_loss"),
    [
        ({}, None),
        ({"bag_size": 1, "saturation": 0.8, "gamma": 0.5}, SmoothL1Loss(beta=1.0)),
        ({"bag_size": 9, "threshold": 0.3, "gamma": 0.0}, GIoULoss()),
    ],
)
def test_it_is_the_loop(seed: int, options: dict[str, Any], box_loss: Any) -> None:
    raw, assignment, targets = problem(seed)
    targets[0] = replace(targets[0], crowd=torch.tensor([False, False, True]))
    options = {"bag_size": 5, "threshold": 0.5, "saturation": None, "gamma": 2.0, **options}
    parts = FreeAnchorObjective(box_loss, **options)(raw, assignment, targets)
    beta = None if isinstance(box_loss, GIoULoss) else 1 / 9 if box_loss is None else box_loss.beta
    expected = loop(
        raw,
        assignment,
        targets,
        bag=options["bag_size"],
        t1=options["threshold"],
        t2=options["saturation"],
        gamma=options["gamma"],
        beta=beta,
    )
    inputs = [raw.logits, raw.regression]
    for part, value in zip(("positive", "negative"), expected, strict=True):
        torch.testing.assert_close(parts[part].value, value, rtol=1e-9, atol=1e-12)
        ours, theirs = (
            torch.autograd.grad(-1.7 * x, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)
            for x in (parts[part].value, value)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert {name: part.weight for name, part in parts.items()} == {"positive": 0.5, "negative": 0.5}


@pytest.mark.parametrize(("counts", "anchors"), [((0, 0), 6), ((), 6), ((2,), 0), ((2, 1), 3)])
def test_empties_have_a_live_graph_and_the_same_names(counts: tuple[int, ...], anchors: int) -> None:
    raw, assignment, targets = problem(0, counts or (0,), anchors or 1)
    if not counts or not anchors:
        few = (raw.logits[: len(counts), :anchors], raw.regression[: len(counts), :anchors], raw.anchors[:anchors], (anchors,))
        raw, assignment, targets = (
            RawPredictions(*few, CODER),
            Assignment(assignment.matched[: len(counts), :anchors]),
            targets[: len(counts)],
        )
    parts = FreeAnchorObjective()(raw, assignment, targets)
    assert list(parts) == ["positive", "negative"]
    assert (parts["positive"].value == 0) == (not sum(counts) or not anchors)
    gradients = torch.autograd.grad(weighted_sum(parts), [raw.logits, raw.regression])
    assert all(g.isfinite().all() for g in gradients)
    if not sum(counts):
        _, negative = loop(raw, assignment, targets, bag=50, t1=0.6, t2=None, gamma=2.0, beta=1 / 9)
        torch.testing.assert_close(parts["negative"].value, negative)


def test_extreme_scores_and_a_perfect_box_are_finite() -> None:
    raw, assignment, targets = problem(1, (2,), 8)
    perfect = CODER.encode(targets[0].boxes[:1], raw.anchors)
    for size in (1e4, -1e4):
        logits = torch.full_like(raw.logits, size).requires_grad_()
        regression = perfect.detach()[None].clone().requires_grad_()
        parts = FreeAnchorObjective()(replace(raw, logits=logits, regression=regression), assignment, targets)
        assert weighted_sum(parts).isfinite()
        assert all(g.isfinite().all() for g in torch.autograd.grad(weighted_sum(parts), [logits, regression]))


def test_half_precision_is_computed_in_float32() -> None:
    raw, assignment, targets = problem(2)
    half = replace(raw, logits=raw.logits.bfloat16(), regression=raw.regression.bfloat16(), anchors=raw.anchors.float())
    targets = [replace(t, boxes=t.boxes.float()) for t in targets]
    assert all(part.value.dtype == torch.float32 for part in FreeAnchorObjective()(half, assignment, targets).values())


def test_the_terms_keep_their_digits_in_float32() -> None:
    logits = torch.tensor([[-30.0, -28.0]])
    found = negative_log_mean_max(logits, torch.zeros(1, 2))
    torch.testing.assert_close(found.double(), -torch.log(logits.double().sigmoid().mean(1)), rtol=1e-6, atol=0)
    assert focal_of_unmatched(torch.tensor([-20.0]), torch.zeros(1), 2.0).item() == pytest.approx(math.exp(-60), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bag_size": 0}, "bag_size: a number >= 1"),
        ({"threshold": 1.0}, r"threshold: a number in \[0, 1\)"),
        ({"saturation": 0.6}, r"saturation: a number in \(threshold, 1\] expected, got 0.6 with threshold 0.6"),
        ({"gamma": -1.0}, "gamma: a finite number >= 0"),
        ({"negative_weight": math.inf}, "negative_weight: a finite number >= 0"),
        ({"localization": FocalLoss()}, "localization: FocalLoss compares class scores"),
    ],
)
def test_mistakes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FreeAnchorObjective(**options)


def test_another_batch_is_refused() -> None:
    raw, assignment, targets = problem(0)
    with pytest.raises(ValueError, match="assignment, targets"):
        FreeAnchorObjective()(raw, assignment, targets[:2])
