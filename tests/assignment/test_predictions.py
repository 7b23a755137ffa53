"""Rules that look at predictions, against loops and against every permutation."""

import itertools
import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lossbox.assignment import HungarianAssigner, TaskAlignedAssigner, assign_task_aligned, match_one_to_one
from lossbox.boxes import DeltaCoder, paired_giou, paired_iou
from lossbox.records import BACKGROUND, IGNORE, RawPredictions, Targets

CODER = DeltaCoder()


def problem(seed: int, counts: tuple[int, ...], anchors: int = 12) -> tuple[RawPredictions, list[Targets]]:
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g)

    corner = 24 * uniform(anchors, 2)
    own = torch.cat([corner, corner + 6 + 10 * uniform(anchors, 2)], 1)
    targets = []
    for i, n in enumerate(counts):
        corner = 20 * uniform(n, 2)
        boxes = torch.cat([corner, corner + 6 + 14 * uniform(n, 2)], 1)
        targets.append(Targets(boxes, torch.arange(n) % 3, torch.arange(n) == 3, i, (40, 50), (40, 50)))
    logits, regression = 4 * uniform(len(counts), anchors, 3) - 2, 3 * uniform(len(counts), anchors, 4) - 1.5
    return RawPredictions(logits, regression, own, (anchors,), CODER), targets


def pairs(raw: RawPredictions, target: Targets, i: int) -> tuple[Tensor, list[int]]:
    return CODER.decode(raw.regression[i], raw.anchors), [j for j, crowd in enumerate(target.crowd.tolist()) if not crowd]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("top_k", "alpha", "beta"), [(3, 1.0, 6.0), (1, 0.5, 1.0), (50, 0.0, 2.0)])
def test_task_aligned_is_its_definition(seed: int, top_k: int, alpha: float, beta: float) -> None:
    raw, targets = problem(seed, (4, 0, 2))
    found = TaskAlignedAssigner(top_k, alpha, beta)(raw, targets).matched
    assert (found >= 0).any()
    for i, target in enumerate(targets):
        predicted, kept = pairs(raw, target, i)
        best: dict[int, tuple[float, int]] = {}
        for box in kept:
            iou = paired_iou(predicted, target.boxes[box].expand_as(predicted)).tolist()
            score = raw.logits[i, :, target.labels[box]].sigmoid().tolist()
            x1, y1, x2, y2 = target.boxes[box].tolist()
            centers = ((raw.anchors[:, :2] + raw.anchors[:, 2:]) / 2).tolist()
            aligned = [s**alpha * u**beta if x1 < x < x2 and y1 < y < y2 else 0.0 for s, u, (x, y) in zip(score, iou, centers, strict=True)]
            for anchor in sorted(range(len(aligned)), key=lambda j: -aligned[j])[:top_k]:
                if aligned[anchor] > 0 and iou[anchor] > best.get(anchor, (0.0, 0))[0]:
                    best[anchor] = (iou[anchor], box)
        expected = [best[j][1] if j in best else BACKGROUND for j in range(len(raw.anchors))]
        assert all(m == e or (m == IGNORE and e == BACKGROUND) for m, e in zip(found[i].tolist(), expected, strict=True))


def cost_of(raw: RawPredictions, target: Targets, i: int, j: int, box: int) -> float:
    p = raw.logits[i, j, target.labels[box]].double().sigmoid().item()
    focal = 0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p)
    a, b = (x.double().tolist() for x in (CODER.decode(raw.regression[i, j], raw.anchors[j]), target.boxes[box]))

    def coded(v: list[float]) -> list[float]:
        return [(v[0] + v[2]) / 2 / 50, (v[1] + v[3]) / 2 / 40, (v[2] - v[0]) / 50, (v[3] - v[1]) / 40]

    giou = paired_giou(torch.tensor([a]), torch.tensor([b])).item()
    return 2 * focal + 5 * sum(abs(u - v) for u, v in zip(coded(a), coded(b), strict=True)) - 2 * giou


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("boxes", "anchors"), [(3, 6), (4, 3), (1, 1)])
def test_one_to_one_is_the_best_of_all_permutations(seed: int, boxes: int, anchors: int) -> None:
    pytest.importorskip("scipy")
    raw, targets = problem(seed, (boxes, 0), anchors)
    targets[0] = replace(targets[0], crowd=torch.zeros(boxes, dtype=torch.bool))
    found = HungarianAssigner()(raw, targets).matched
    pairs_found = [(j, box) for j, box in enumerate(found[0].tolist()) if box >= 0]
    assert len(pairs_found) == min(boxes, anchors) == len({box for _, box in pairs_found})
    cost = [[cost_of(raw, targets[0], 0, j, box) for box in range(boxes)] for j in range(anchors)]
    if anchors >= boxes:
        best = min(sum(cost[j][box] for box, j in enumerate(order)) for order in itertools.permutations(range(anchors), boxes))
    else:
        best = min(sum(cost[j][box] for j, box in enumerate(order)) for order in itertools.permutations(range(boxes), anchors))
    assert sum(cost[j][box] for j, box in pairs_found) == pytest.approx(best, rel=1e-4)
    assert (found[1] == BACKGROUND).all()


def test_what_is_empty_crowded_or_not_a_number() -> None:
    pytest.importorskip("scipy")
    raw, targets = problem(0, (4, 0))
    for rule in (assign_task_aligned, match_one_to_one):
        assert not (rule(raw, targets).matched == 3).any()  # a crowd
        none = RawPredictions(raw.logits[:, :0], raw.regression[:, :0], raw.anchors[:0], (0,), CODER)
        assert rule(none, targets).matched.shape == (2, 0)
        wild = replace(raw, regression=torch.full_like(raw.regression, torch.nan))
        rule(wild, targets)  # a network that diverged is stopped by its loss
        with pytest.raises(ValueError, match="targets: one record for each of 2 images"):
            rule(raw, targets[:1])


@pytest.mark.parametrize("rule", [assign_task_aligned, match_one_to_one])
@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_no_score_is_of_is_named(rule: Any, label: int) -> None:
    pytest.importorskip("scipy")
    raw, targets = problem(0, (2, 2))
    targets[1].labels[1] = label
    with pytest.raises(ValueError, match=rf"targets\[1\]\.labels: classes from 0 to 2 expected, as the predictions have 3, got {label}"):
        rule(raw, targets)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (TaskAlignedAssigner, {"top_k": 0}, "top_k: a whole number >= 1"),
        (TaskAlignedAssigner, {"top_k": 2.5}, "top_k: a whole number >= 1"),
        (partial(match_one_to_one, *problem(0, (1,))), {"alpha": 2.0}, r"alpha: a number in \[0, 1\]"),
        (TaskAlignedAssigner, {"beta": -1.0}, "beta: a finite number >= 0"),
        (HungarianAssigner, {"giou_weight": math.nan}, "giou_weight: a finite number >= 0"),
    ],
)
def test_mistakes_are_refused(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)
