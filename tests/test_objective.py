"""Objectives: what they hand to the losses, batches without positives, what is remembered, and a detector that learns from them."""

import functools
import inspect
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from torch import nn
from torchvision.ops import box_iou, complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou, sigmoid_focal_loss

from lossbox.analysis.wrong_target import alrp_loss_with_target_zero
from lossbox.assignment import ATSSAssigner, OverlapAssigner
from lossbox.boxes import DeltaCoder
from lossbox.decoding import Decoder
from lossbox.detectors import Backbone, RetinaNet, pyramid_anchors
from lossbox.losses import (
    CATALOG,
    AlphaIoULoss,
    APELoss,
    APLoss,
    BoxLoss,
    CARLWeights,
    CIoULoss,
    ClassificationLoss,
    CustomBoxLoss,
    CustomClassificationLoss,
    DIoULoss,
    DRLoss,
    FocalLoss,
    GHMCLoss,
    GHMRLoss,
    GIoULoss,
    IoULoss,
    L1Loss,
    MatchabilityAwareLoss,
    QualityFocalLoss,
    RankingWeights,
    SmoothL1Loss,
    alrp_loss,
    ap_loss,
    ape_loss,
    dr_loss,
    focal_loss,
    ghm_c_loss,
    ghm_r_loss,
    giou_loss,
    matchability_aware_loss,
    quality_focal_loss,
    rank_sort_loss,
)
from lossbox.objective import ALRPObjective, Objective, Part, RankSortObjective, SeparateObjective, WithCenterness, weighted_sum
from lossbox.objective.positives import global_count
from lossbox.records import BACKGROUND, IGNORE, Assignment, RawPredictions, Targets

CLASSES = 3
OBJECTIVES: list[Any] = [
    ALRPObjective,
    lambda: ALRPObjective(IoULoss(), self_balance=False),
    SeparateObjective,
    lambda: SeparateObjective(localization=GIoULoss()),
    lambda: SeparateObjective(QualityFocalLoss()),
    lambda: SeparateObjective(MatchabilityAwareLoss()),
    lambda: SeparateObjective(DRLoss()),
    lambda: SeparateObjective(APLoss(), CIoULoss(), self_balance=True),
    lambda: SeparateObjective(APELoss()),
    lambda: SeparateObjective(APLoss(), box_weights=CARLWeights()),
    lambda: SeparateObjective(APLoss(), GIoULoss(), box_weights=RankingWeights()),
    lambda: SeparateObjective(GHMCLoss(), GHMRLoss()),
    lambda: SeparateObjective(
        CustomClassificationLoss(functools.partial(focal_loss, reduction="none")),
        CustomBoxLoss(functools.partial(giou_loss, reduction="none"), compares="boxes"),
    ),
    RankSortObjective,
    lambda: RankSortObjective(SmoothL1Loss(), localization_weight=2.0),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks of these sizes are slower on several threads, and much slower on a machine that does something else too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Problem:
    """Three images (the second without boxes) and an assignment drawn at random, with ignored anchors."""

    def __init__(self, seed: int = 0, *, counts: tuple[int, ...] = (4, 0, 2), dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(seed)
        anchors = pyramid_anchors([(4, 3), (2, 2)], [8, 16], scales=(1.0,), ratios=(1.0,), anchor_scale=2.0).to(dtype)
        a, b = len(anchors), len(counts)
        self.logits = torch.randn(b, a, CLASSES, generator=generator, dtype=dtype).requires_grad_()
        self.regression = (torch.randn(b, a, 4, generator=generator, dtype=dtype) * 3).requires_grad_()
        self.predictions = RawPredictions(self.logits, self.regression, anchors, (12, 4), DeltaCoder())
        self.targets, matched = [], []
        for i, n in enumerate(counts):
            corner = torch.rand(n, 2, generator=generator, dtype=dtype) * 16
            boxes = torch.cat([corner, corner + 4 + torch.rand(n, 2, generator=generator, dtype=dtype) * 12], 1)
            labels = torch.randint(0, CLASSES, (n,), generator=generator)
            self.targets.append(Targets(boxes, labels, torch.zeros(n, dtype=torch.bool), i, (32, 24), (32, 24)))
            matched.append(torch.randint(IGNORE, max(n, 0), (a,), generator=generator))
        self.assignment = Assignment(torch.stack(matched))

    def positives(self) -> list[tuple[int, int, int]]:
        rows = self.assignment.matched.tolist()
        return [(i, j, box) for i, row in enumerate(rows) for j, box in enumerate(row) if box >= 0]

    def wanted(self) -> torch.Tensor:
        wanted = torch.zeros(self.logits.shape, dtype=torch.int64)
        for i, row in enumerate(self.assignment.matched.tolist()):
            for j, box in enumerate(row):
                if box == IGNORE:
                    wanted[i, j] = -1
                if box >= 0:
                    wanted[i, j, self.targets[i].labels[box]] = 1
        return wanted

    def matched_boxes(self) -> torch.Tensor:
        return torch.stack([self.targets[i].boxes[box] for i, _, box in self.positives()])

    def offsets(self) -> torch.Tensor:
        return torch.stack([self.regression[i, j] for i, j, _ in self.positives()])

    def own_anchors(self) -> torch.Tensor:
        return torch.stack([self.predictions.anchors[j] for _, j, _ in self.positives()])

    def decoded(self) -> torch.Tensor:
        return DeltaCoder().decode(self.offsets(), self.own_anchors())

    def gradients(self, parts: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Of a sum of the parts with factors that are not 1."""
        total = sum(factor * part for factor, part in zip((0.7, -1.9, 0.4), (parts[name] for name in sorted(parts)), strict=False))
        return list(torch.autograd.grad(total, [self.logits, self.regression], retain_graph=True))


def values(parts: dict[str, Part]) -> dict[str, torch.Tensor]:
    return {name: part.value for name, part in parts.items()}


def weights(parts: dict[str, Part]) -> dict[str, Any]:
    return {name: part.weight for name, part in parts.items()}


def same(problem: Problem, parts: dict[str, Part], expected: dict[str, torch.Tensor]) -> None:
    found = values(parts)
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
    for a, b in zip(problem.gradients(found), problem.gradients(expected), strict=True):
        torch.testing.assert_close(a, b)
        assert a.abs().sum() > 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("localization", "delta", "tau"), [("giou", 1.0, 0.5), ("iou", 1.0, 0.5), ("giou", 0.25, 0.7)])
def test_alrp_is_the_loss_of_all_scores_of_the_batch(seed: int, localization: Any, delta: float, tau: float) -> None:
    problem = Problem(seed)
    found = ALRPObjective({"giou": GIoULoss, "iou": IoULoss}[localization](), delta=delta, tau=tau)(
        problem.predictions, problem.assignment, problem.targets
    )
    if localization == "iou":
        error = (1 - box_iou(problem.decoded(), problem.matched_boxes()).diagonal()) / (1 - tau)
    else:
        error = (1 - generalized_box_iou(problem.decoded(), problem.matched_boxes()).diagonal()) / 2 / (1 - tau)
    expected = alrp_loss(problem.logits, problem.wanted(), error, delta=delta)
    same(problem, found, {"classification": expected.classification, "localization": expected.localization})


def test_alrp_pushes_both_sides_equally_and_ignored_anchors_not_at_all() -> None:
    problem = Problem(1)
    parts = ALRPObjective()(problem.predictions, problem.assignment, problem.targets)
    gradient = torch.autograd.grad(parts["classification"].value, problem.logits)[0]
    wanted = problem.wanted()
    assert (wanted == -1).any()
    assert gradient[wanted == -1].abs().max() == 0
    torch.testing.assert_close(gradient[wanted == 1].sum(), -gradient[wanted == 0].sum())
    assert gradient[wanted == 1].sum() < -0.01


@pytest.mark.parametrize("seed", range(3))
def test_separate_is_focal_plus_smooth_l1_over_the_positives(seed: int) -> None:
    problem = Problem(seed)
    found = SeparateObjective()(problem.predictions, problem.assignment, problem.targets)
    wanted = problem.wanted()
    count = len(problem.positives())
    assert count > 5
    focal = sigmoid_focal_loss(problem.logits[wanted >= 0], wanted[wanted >= 0].double(), alpha=0.25, gamma=2.0, reduction="sum")
    deltas = DeltaCoder().encode(problem.matched_boxes(), problem.own_anchors())
    box = F.smooth_l1_loss(problem.offsets(), deltas, reduction="sum")
    same(problem, found, {"classification": focal / count, "localization": box / count})


@pytest.mark.parametrize("seed", range(3))
def test_separate_on_boxes_compares_decoded_boxes(seed: int) -> None:
    problem = Problem(seed)
    objective = SeparateObjective(FocalLoss(alpha=None, gamma=0.0), GIoULoss(), localization_weight=2.5)
    found = objective(problem.predictions, problem.assignment, problem.targets)
    wanted = problem.wanted()
    count = len(problem.positives())
    entropy = F.binary_cross_entropy_with_logits(problem.logits[wanted >= 0], wanted[wanted >= 0].double(), reduction="sum")
    box = (1 - generalized_box_iou(problem.decoded(), problem.matched_boxes()).diagonal()).sum()
    same(problem, found, {"classification": entropy / count, "localization": box / count})
    assert weights(found) == {"classification": 1.0, "localization": 2.5}


def test_the_normalizer_is_the_mean_count_of_positives_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(0)
    alone = SeparateObjective()(problem.predictions, problem.assignment, problem.targets)
    count = len(problem.positives())

    def two_processes(tensor: torch.Tensor) -> None:
        tensor += 3 * count

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", two_processes)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    shared = SeparateObjective()(problem.predictions, problem.assignment, problem.targets)
    for name in alone:
        torch.testing.assert_close(shared[name].value, alone[name].value / 2)
    # one positive in the whole batch, in this process or in the other, counts as one
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.fill_(1.0))
    assert [float(global_count(torch.zeros(n, 4), training=True)) for n in (0, 1)] == [0.5, 0.5]
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor)
    assert float(global_count(torch.zeros(0, 4), training=True)) == 0.5
    # a validation may run in one process alone: it must not wait for the others
    evaluated = SeparateObjective().eval()(problem.predictions, problem.assignment, problem.targets)
    torch.testing.assert_close(values(evaluated), values(alone))


@pytest.mark.parametrize(
    ("box_loss", "definition"),
    [
        (IoULoss(), lambda a, b: 1 - box_iou(a, b).diagonal()),
        (DIoULoss(), lambda a, b: distance_box_iou_loss(a, b) / 2),
        (CIoULoss(), lambda a, b: complete_box_iou_loss(a, b) / 3),
        (AlphaIoULoss(), lambda a, b: 1 - box_iou(a, b).diagonal() ** 3),
    ],
)
def test_alrp_takes_any_bounded_loss_of_boxes(box_loss: BoxLoss, definition: Any) -> None:
    problem = Problem(3)
    with torch.no_grad():
        problem.regression *= 0.2  # overlapping pairs too
    found = ALRPObjective(box_loss)(problem.predictions, problem.assignment, problem.targets)
    error = definition(problem.decoded(), problem.matched_boxes()) / 0.5
    expected = alrp_loss(problem.logits, problem.wanted(), error)
    torch.testing.assert_close(found["localization"].value, expected.localization, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found["classification"].value, expected.classification)


def own_iou(problem: Problem) -> torch.Tensor:
    return box_iou(problem.decoded(), problem.matched_boxes()).diagonal().detach()


def test_a_quality_loss_is_told_the_iou_of_each_positive() -> None:
    problem = Problem(4)
    with torch.no_grad():
        problem.regression *= 0.2
    quality = torch.zeros_like(problem.logits)
    for iou, (i, j, box) in zip(own_iou(problem), problem.positives(), strict=True):
        quality[i, j, problem.targets[i].labels[box]] = iou
    assert (quality > 0.1).any()
    kept, count = problem.wanted() >= 0, len(problem.positives())
    deltas = DeltaCoder().encode(problem.matched_boxes(), problem.own_anchors())
    expected = {
        "classification": quality_focal_loss(problem.logits[kept], quality[kept], normalizer=count),
        "localization": F.smooth_l1_loss(problem.offsets(), deltas, reduction="sum") / count,
    }
    arguments = (problem.predictions, problem.assignment, problem.targets)
    same(problem, SeparateObjective(QualityFocalLoss())(*arguments), expected)
    labels = (problem.wanted() == 1).double()
    expected["classification"] = matchability_aware_loss(problem.logits[kept], labels[kept], quality[kept], normalizer=count)
    same(problem, SeparateObjective(MatchabilityAwareLoss())(*arguments), expected)
    expected["classification"] = ape_loss(problem.logits, problem.wanted(), own_iou(problem))
    same(problem, SeparateObjective(APELoss())(*arguments), expected)


def test_a_loss_is_called_per_batch_per_image_or_with_its_own_mean() -> None:
    problem = Problem(5)
    arguments = (problem.predictions, problem.assignment, problem.targets)
    wanted, logits = problem.wanted(), problem.logits
    deltas = DeltaCoder().encode(problem.matched_boxes(), problem.own_anchors())
    box = F.smooth_l1_loss(problem.offsets(), deltas, reduction="sum") / len(problem.positives())

    found = SeparateObjective(APLoss())(*arguments)
    same(problem, found, {"classification": ap_loss(logits, wanted), "localization": box})

    of_images = torch.stack([dr_loss(one, targets) for one, targets in zip(logits, wanted, strict=True)])
    same(
        problem,
        SeparateObjective(DRLoss())(*arguments),
        {"classification": of_images.mean(), "localization": box},
    )

    kept = wanted >= 0
    found = SeparateObjective(GHMCLoss(), GHMRLoss())(*arguments)
    harmonized = {"classification": ghm_c_loss(logits[kept], wanted[kept]), "localization": ghm_r_loss(problem.offsets(), deltas)}
    same(problem, found, harmonized)


@pytest.mark.parametrize("box_loss", [GIoULoss(), SmoothL1Loss()])
def test_rank_sort_weights_boxes_by_score_and_balances_each_step(box_loss: BoxLoss) -> None:
    problem = Problem(6)
    with torch.no_grad():
        problem.regression *= 0.2
    found = RankSortObjective(box_loss)(problem.predictions, problem.assignment, problem.targets)
    ranking, sorting = rank_sort_loss(problem.logits, problem.wanted(), own_iou(problem))
    score = torch.stack([problem.logits[i, j, problem.targets[i].labels[box]] for i, j, box in problem.positives()]).detach().sigmoid()
    if box_loss.compares == "boxes":
        each = 1 - generalized_box_iou(problem.decoded(), problem.matched_boxes()).diagonal()
    else:
        deltas = DeltaCoder().encode(problem.matched_boxes(), problem.own_anchors())
        each = F.smooth_l1_loss(problem.offsets(), deltas, reduction="none").sum(1)
    localization = (score * each).sum() / score.sum()
    same(problem, found, {"ranking": ranking, "sorting": sorting, "localization": localization})
    assert sorting > 0
    value, weight = found["localization"]
    torch.testing.assert_close(weight * value, ranking + sorting)
    assert not torch.as_tensor(weight).requires_grad
    fixed = RankSortObjective(localization_weight=3.0)(problem.predictions, problem.assignment, problem.targets)
    assert fixed["localization"].weight == 3.0
    torch.testing.assert_close(weighted_sum(found), 2 * (ranking + sorting))


@pytest.mark.parametrize("groups", ["image", "class"])
def test_images_or_classes_are_ranked_by_themselves(groups: Any) -> None:
    problem = Problem(6)
    arguments = problem.predictions, problem.assignment, problem.targets
    labels, error = problem.wanted(), 1 - generalized_box_iou(problem.decoded(), problem.matched_boxes()).diagonal()
    alrp = alrp_loss(problem.logits, labels, error, groups=groups)
    same(problem, ALRPObjective(groups=groups)(*arguments), {"classification": alrp.classification, "localization": alrp.localization})
    found = RankSortObjective(groups=groups)(*arguments)
    ranking, sorting = rank_sort_loss(problem.logits, labels, own_iou(problem), groups=groups)
    torch.testing.assert_close((found["ranking"].value, found["sorting"].value), (ranking, sorting))
    assert ranking != rank_sort_loss(problem.logits, labels, own_iou(problem)).ranking
    for objective in (ALRPObjective, RankSortObjective):
        with pytest.raises(ValueError, match="groups: 'image', 'class' or None expected, got 'row'"):
            objective(groups="row")  # type: ignore[arg-type]


def test_centerness_is_a_third_part_of_any_objective() -> None:
    problem = Problem(7)
    centerness = torch.randn(3, 16, dtype=torch.float64).requires_grad_()
    arguments = (problem.assignment, problem.targets)
    for objective in (SeparateObjective(), ALRPObjective()):
        found = WithCenterness(objective, centerness_weight=0.5)(replace(problem.predictions, centerness=centerness), *arguments)
        assert list(found) == ["classification", "localization", "centerness"]
        expected = 0.0
        for (i, j, box), anchor in zip(problem.positives(), problem.own_anchors().tolist(), strict=True):
            x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
            x1, y1, x2, y2 = problem.targets[i].boxes[box].tolist()
            sides = [max(side, 0.0) for side in (x - x1, x2 - x, y - y1, y2 - y)]
            wanted = math.sqrt(min(sides[:2]) / max(sides[:2]) * min(sides[2:]) / max(sides[2:])) if max(sides) > 0 else 0.0
            score = centerness[i, j].sigmoid().item()
            expected -= wanted * math.log(score) + (1 - wanted) * math.log(1 - score)
        assert math.isclose(found["centerness"].value.item(), expected / len(problem.positives()), rel_tol=1e-9)
        assert torch.autograd.grad(found["centerness"].value, centerness)[0].abs().sum() > 0
    with pytest.raises(ValueError, match=r"predictions\.centerness: this objective needs a detector that says it"):
        WithCenterness(ALRPObjective())(problem.predictions, *arguments)
    with pytest.raises(ValueError, match="centerness_weight: a finite number >= 0 expected, got -1"):
        WithCenterness(ALRPObjective(), centerness_weight=-1)
    nothing = Assignment(torch.full((3, 16), BACKGROUND))
    parts = WithCenterness(ALRPObjective())(replace(problem.predictions, centerness=centerness), nothing, problem.targets)
    assert parts["centerness"].value == 0


def test_centerness_follows_the_balance_of_the_objective_it_is_added_to() -> None:
    objective = WithCenterness(ALRPObjective(localization_weight=7.0))
    problem = Problem(0)
    arguments = (replace(problem.predictions, centerness=torch.zeros(3, 16)), problem.assignment, problem.targets)
    assert weights(objective(*arguments)) == {"classification": 1.0, "localization": 7.0, "centerness": 1.0}
    objective.end_epoch()
    assert objective(*arguments)["localization"].weight != 7.0


def test_a_separate_objective_can_balance_itself() -> None:
    objective = SeparateObjective(APLoss(), GIoULoss(), self_balance=True, localization_weight=5.0)
    problem = Problem(0)
    parts = objective(problem.predictions, problem.assignment, problem.targets)
    objective.end_epoch()
    classification, localization = values(parts).values()
    expected = (classification + localization) / localization
    weight = objective(problem.predictions, problem.assignment, problem.targets)["localization"].weight
    assert math.isclose(float(weight), expected.item(), rel_tol=1e-5)


@pytest.mark.parametrize("make", [ALRPObjective, lambda **options: SeparateObjective(APLoss(), GIoULoss(), **options)])
def test_learned_weights_are_parameters_of_the_objective_and_a_part(make: Any) -> None:
    options = {"self_balance": False} if make is ALRPObjective else {}
    objective, constant = make(uncertainty_weights=True, localization_weight=4.0, **options), make(localization_weight=4.0, **options)
    problem = Problem(0)
    parts = objective(problem.predictions, problem.assignment, problem.targets)
    before = constant(problem.predictions, problem.assignment, problem.targets)
    assert list(parts) == ["classification", "localization", "uncertainty"]
    assert [torch.as_tensor(parts[name].weight).item() for name in before] == pytest.approx([1.0, 4.0])
    weighted_sum(parts).backward()
    assert weighted_sum(parts).item() == pytest.approx(weighted_sum(before).item() - math.log(4))
    (learned,) = objective.parameters()
    expected = [1 - torch.as_tensor(part.weight).item() * part.value.item() for name, part in parts.items() if name != "uncertainty"]
    assert learned.grad is not None
    assert learned.grad.tolist() == pytest.approx(expected, rel=1e-5)
    objective.end_epoch()  # nothing to end
    assert "balance.log_variance" in objective.state_dict()


@pytest.mark.parametrize("box_loss", [GIoULoss(), SmoothL1Loss(), L1Loss()])
def test_weights_of_the_positives_weigh_any_box_loss(box_loss: Any) -> None:
    problem = Problem(0)
    arguments = (problem.predictions, problem.assignment, problem.targets)
    boxes = (problem.decoded(), problem.matched_boxes()) if box_loss.compares == "boxes" else None
    input, target = boxes or (problem.offsets(), DeltaCoder().encode(problem.matched_boxes(), problem.own_anchors()))
    of_each = box_loss.elementwise(input, target).reshape(len(input), -1).sum(1)
    for rule in (CARLWeights(), RankingWeights(), lambda logits, labels, values, global_batch: values.max() + 0 * logits.sum()):
        found = SeparateObjective(APLoss(), box_loss, box_weights=rule)(*arguments)["localization"].value
        expected = rule(problem.logits, problem.wanted(), of_each, global_batch=False)
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)
        for one, other in zip(problem.gradients({"a": found}), problem.gradients({"a": expected}), strict=True):
            torch.testing.assert_close(one, other)


def test_ranking_weights_of_giou_are_the_boxes_of_alrp() -> None:
    problem = Problem(0)
    arguments = (problem.predictions, problem.assignment, problem.targets)
    weighed = SeparateObjective(APLoss(), GIoULoss(), box_weights=RankingWeights())(*arguments)
    assert weighed["localization"].value.item() == pytest.approx(ALRPObjective()(*arguments)["localization"].value.item(), rel=1e-6)
    assert weighed["classification"].value.item() == pytest.approx(ALRPObjective()(*arguments)["classification"].value.item(), rel=1e-6)


def test_alrp_takes_another_function_that_is_called_as_its_own() -> None:
    problem = Problem(0)
    arguments = (problem.predictions, problem.assignment, problem.targets)
    right, wrong = ALRPObjective(), ALRPObjective(loss=alrp_loss_with_target_zero)
    assert values(wrong(*arguments)) == values(right(*arguments))
    of_right, of_wrong = (problem.gradients({"a": weighted_sum(objective(*arguments))}) for objective in (right, wrong))
    assert not torch.allclose(of_right[0], of_wrong[0])
    torch.testing.assert_close(of_right[1], of_wrong[1])


@pytest.mark.parametrize("make", OBJECTIVES)
@pytest.mark.parametrize("matched", [BACKGROUND, IGNORE])
@pytest.mark.parametrize("counts", [(0, 0), (2, 1)])
def test_without_positives_the_parts_are_there_and_their_graph_is_alive(make: Any, matched: int, counts: tuple[int, ...]) -> None:
    problem = Problem(0, counts=counts)
    objective = make()
    parts = objective(problem.predictions, Assignment(torch.full((2, 16), matched)), problem.targets)
    assert list(parts) in (["classification", "localization"], ["ranking", "sorting", "localization"])
    assert parts["localization"].value.item() == 0
    if isinstance(objective, ALRPObjective | RankSortObjective):
        assert all(part.value.item() == 0 for part in parts.values())
    elif matched == IGNORE and not isinstance(objective.classification, DRLoss):
        assert parts["classification"].value.item() == 0
    of_logits, of_regression = problem.gradients(values(parts))
    assert of_logits.isfinite().all()
    assert of_regression.abs().max() == 0


@pytest.mark.parametrize("make", OBJECTIVES)
def test_an_objective_computes_in_float32_under_autocast(make: Any) -> None:
    problem = Problem(2, dtype=torch.float32)
    half = RawPredictions(
        problem.logits.bfloat16(), problem.regression.bfloat16(), problem.predictions.anchors, (12, 4), problem.predictions.coder
    )
    with torch.autocast("cpu", torch.bfloat16):
        found = values(make()(half, problem.assignment, problem.targets))
    full = RawPredictions(half.logits.float(), half.regression.float(), half.anchors, (12, 4), half.coder)
    expected = values(make()(full, problem.assignment, problem.targets))
    for name in expected:
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], expected[name])
    assert all(gradient.isfinite().all() for gradient in problem.gradients(found))


def test_a_users_own_loss_is_given_float32() -> None:
    seen = []

    def own(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.extend([x.dtype, target.dtype])
        return x * 0

    problem = Problem(2, dtype=torch.float32)
    half = RawPredictions(problem.logits.half(), problem.regression.half(), problem.predictions.anchors, (12, 4), DeltaCoder())
    SeparateObjective(CustomClassificationLoss(own), CustomBoxLoss(own, compares="deltas"))(half, problem.assignment, problem.targets)
    assert seen == [torch.float32] * 4


@pytest.mark.parametrize("make", OBJECTIVES)
@pytest.mark.parametrize("wild", [1e6, -1e6])
def test_huge_regressions_give_finite_losses(make: Any, wild: float) -> None:
    problem = Problem(0, dtype=torch.float32)
    with torch.no_grad():
        problem.regression[0] = wild
    parts = values(make()(problem.predictions, problem.assignment, problem.targets))
    assert all(part.isfinite() for part in parts.values())
    assert all(gradient.isfinite().all() for gradient in problem.gradients(parts))


@pytest.mark.parametrize("make", OBJECTIVES)
@pytest.mark.parametrize("broken", ["logits", "regression"])
def test_a_nan_comes_out_as_a_nan(make: Any, broken: str) -> None:
    problem = Problem(0)
    i, j, _ = problem.positives()[0]
    with torch.no_grad():
        getattr(problem, broken)[i, j] = math.nan
    parts = values(make()(problem.predictions, problem.assignment, problem.targets))
    if broken == "logits":
        assert parts[next(iter(parts))].isnan()
    else:
        assert parts["localization"].isnan()


def test_the_self_balance_follows_training_steps_with_positives_only() -> None:
    objective = ALRPObjective(localization_weight=20.0)
    means = []
    for seed in (0, 1):
        problem = Problem(seed)
        parts = objective(problem.predictions, problem.assignment, problem.targets)
        assert parts["localization"].weight == 20.0
        means.append([part.value.item() for part in parts.values()])
    objective(problem.predictions, Assignment(torch.full((3, 16), BACKGROUND)), problem.targets)
    other = Problem(2)
    objective.eval()(other.predictions, other.assignment, other.targets)
    objective.train()
    assert objective.balance is not None
    sums = [objective.balance.sum_classification.item(), objective.balance.sum_localization.item()]
    assert all(math.isclose(each, of[0] + of[1], rel_tol=1e-6) for each, of in zip(sums, zip(*means, strict=True), strict=True))
    assert objective.balance.weight == 20.0
    objective.end_epoch()
    assert parts["localization"].weight == 20.0  # that of its own step
    classification, localization = torch.tensor(means).mean(0).tolist()
    weight = objective(problem.predictions, problem.assignment, problem.targets)["localization"].weight
    assert isinstance(weight, torch.Tensor)
    assert not weight.requires_grad
    assert math.isclose(weight.item(), (classification + localization) / localization, rel_tol=1e-5)
    restored = ALRPObjective()
    restored.load_state_dict(objective.state_dict())
    assert restored(problem.predictions, problem.assignment, problem.targets)["localization"].weight == weight


def test_without_self_balance_nothing_is_remembered() -> None:
    objective = ALRPObjective(self_balance=False)
    problem = Problem(0)
    for _ in range(2):
        parts = objective(problem.predictions, problem.assignment, problem.targets)
        assert weights(parts) == {"classification": 1.0, "localization": 1.0}
        objective.end_epoch()
    assert not objective.state_dict()


def test_functions_of_ones_own_fit_and_see_no_ignored_anchor() -> None:
    problem = Problem(0)
    with torch.no_grad():
        problem.logits[problem.wanted() == -1] = math.nan

    def focal(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        assert targets.min() == 0
        return sigmoid_focal_loss(logits, targets, alpha=0.5, gamma=1.5)

    functions = SeparateObjective(
        CustomClassificationLoss(focal),
        CustomBoxLoss(lambda a, b: 1 - generalized_box_iou(a, b).diagonal(), compares="boxes"),
    )
    modules = SeparateObjective(FocalLoss(alpha=0.5, gamma=1.5), GIoULoss())
    arguments = (problem.predictions, problem.assignment, problem.targets)
    same(problem, functions(*arguments), values(modules(*arguments)))
    both = SeparateObjective(CustomClassificationLoss(lambda x, t, q: x * (t - q), targets=("labels", "ious")))(*arguments)
    ious = sum(own_iou(problem)[n] * problem.logits[i, j, problem.targets[i].labels[k]] for n, (i, j, k) in enumerate(problem.positives()))
    ones = sum(problem.logits[i, j, problem.targets[i].labels[k]] for i, j, k in problem.positives())
    torch.testing.assert_close(both["classification"].value, (ones - ious) / len(problem.positives()))
    with pytest.raises(ValueError, match=r"function: a value per score, of shape \(3, 16, 3\), without reduction expected, got \(\)"):
        SeparateObjective(CustomClassificationLoss(lambda x, t: x.sum()))(*arguments)
    with pytest.raises(ValueError, match=r"function: a value per boxes, of shape"):
        SeparateObjective(localization=CustomBoxLoss(lambda a, b: a - b, compares="boxes"))(*arguments)


def test_a_loss_with_state_belongs_to_the_objective() -> None:
    class Counted(ClassificationLoss):
        calls: torch.Tensor

        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.register_buffer("calls", torch.tensor(0))

        def of_batch(self, logits: torch.Tensor, *targets: torch.Tensor, num_positives: torch.Tensor, global_batch: bool) -> torch.Tensor:
            self.calls += 1
            return focal_loss(logits, *targets, normalizer=num_positives)

    problem = Problem(0)
    objective = SeparateObjective(Counted())
    objective(problem.predictions, problem.assignment, problem.targets)
    assert objective.state_dict() == {"classification.calls": torch.tensor(1)}


def from_recipe(**options: Any) -> SeparateObjective:
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--objective", type=Objective)
    config = parser.parse_object({"objective": {"class_path": "lossbox.objective.SeparateObjective", "init_args": options}})
    # jsonargparse 4.49 gave it another name
    objective = (parser.instantiate if hasattr(parser, "instantiate") else parser.instantiate_classes)(config).objective
    assert isinstance(objective, SeparateObjective)
    return objective


def test_a_recipe_names_losses() -> None:
    form = {"class_path": "lossbox.losses.IoULoss", "init_args": {"form": "square"}}
    objective = from_recipe(classification="lossbox.losses.FocalLoss", localization=form)
    assert isinstance(objective.classification, FocalLoss)
    assert isinstance(objective.localization, IoULoss)
    assert objective.localization.form == "square"
    own = {
        "class_path": "lossbox.losses.CustomBoxLoss",
        "init_args": {"function": "torchvision.ops.complete_box_iou_loss", "compares": "boxes"},
    }
    custom = from_recipe(localization=own).localization
    assert isinstance(custom, CustomBoxLoss)
    assert custom.values is complete_box_iou_loss


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classification": "lossbox.losses.GIoULoss"}, "GIoULoss compares boxes; it is a loss for localization"),
        ({"localization": "lossbox.losses.FocalLoss"}, "FocalLoss compares class scores; it is a loss for classification"),
        ({"classification": "lossbox.losses.focal_loss"}, "lossbox.losses.FocalLoss"),
        ({"classification": "lossbox.losses.RankSortLoss"}, "it has two parts: take RankSortObjective"),
    ],
)
def test_a_recipe_with_a_loss_that_does_not_fit_gets_the_reason(options: Any, message: str) -> None:
    with pytest.raises(Exception, match=message):  # jsonargparse wraps some
        from_recipe(**options)


def place(module: Any) -> str:
    return "classification" if issubclass(module, ClassificationLoss) else "localization" if issubclass(module, BoxLoss) else ""


def make_loss(module: Any) -> Any:
    needed = {"counts": [10.0, 100.0, 1000.0], "num_classes": 3}
    return module(**{name: value for name, value in needed.items() if name in inspect.signature(module).parameters})


@pytest.mark.parametrize("name", CATALOG)
def test_every_loss_is_called_right_or_refused_with_a_reason(name: str) -> None:
    """No loss of the catalog is silently wrong: it fits one place and is refused in the other, or in both."""
    loss = make_loss(CATALOG[name])
    for argument in ("classification", "localization"):
        if argument == place(CATALOG[name]):
            problem = Problem(0)
            parts = SeparateObjective(**{argument: loss})(problem.predictions, problem.assignment, problem.targets)
            gradient = torch.autograd.grad(weighted_sum(parts), problem.logits if argument == "classification" else problem.regression)[0]
            assert gradient.isfinite().all()
            assert gradient.abs().sum() > 0
        else:
            with pytest.raises(ValueError, match=f"^{argument}: ") as refused:
                SeparateObjective(**{argument: loss})
            assert type(loss).__name__ in str(refused.value)
            assert not str(refused.value).endswith(": ")
    with pytest.raises(ValueError, match=f"lossbox.losses.{type(loss).__name__}\\(\\) is its module"):
        SeparateObjective(CATALOG[name].function)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", OBJECTIVES)
def test_an_assignment_of_another_batch_is_named(make: Any) -> None:
    problem = Problem(0)
    with pytest.raises(ValueError, match=r"assignment, targets: \(3, 16\) .* got \(2, 16\) and 3 targets"):
        make()(problem.predictions, Assignment(problem.assignment.matched[:2]), problem.targets)
    with pytest.raises(ValueError, match=r"got \(3, 16\) and 2 targets"):
        make()(problem.predictions, problem.assignment, problem.targets[:2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ALRPObjective(L1Loss()), "localization: a loss of boxes with a greatest value expected, as GIoULoss, got L1Loss"),
        (lambda: ALRPObjective(IoULoss(form="log")), "got IoULoss that compares boxes and has no greatest value"),
        (lambda: ALRPObjective("giou"), "localization: a lossbox.losses.BoxLoss expected, got str"),  # type: ignore[arg-type]
        (lambda: RankSortObjective(FocalLoss()), "localization: FocalLoss compares class scores"),  # type: ignore[arg-type]
        (lambda: SeparateObjective(FocalLoss), r"a loss expected, got its class: FocalLoss\(\)"),  # type: ignore[arg-type]
        (lambda: SeparateObjective(F.cross_entropy), "CustomClassificationLoss makes one of a function of yours"),  # type: ignore[arg-type]
        (lambda: SeparateObjective(FocalLoss(reduction="none")), "classification: reduction 'mean' expected, .* got 'none'"),
        (lambda: RankSortObjective(GIoULoss(reduction="sum")), "localization: reduction 'mean' expected, .* got 'sum'"),
        (lambda: CustomBoxLoss(giou_loss, compares="pixels"), "compares: 'deltas' or 'boxes' expected, got 'pixels'"),  # type: ignore[arg-type]
        (lambda: CustomBoxLoss(giou_loss, compares="boxes", largest=0), "largest: a number > 0 expected, got 0"),
        (lambda: CustomClassificationLoss(focal_loss, targets=()), "targets: 'labels', 'ious' or both expected"),
        (lambda: RankSortObjective(delta=math.inf), "delta: 0 or a finite number >= 1e-06 expected, got inf"),
        (lambda: RankSortObjective(localization_weight=-1.0), "localization_weight: a finite number >= 0 expected, got -1.0"),
        (lambda: ALRPObjective(delta=-1.0), "delta: 0 or a finite number >= 1e-06 expected, got -1.0"),
        (lambda: ALRPObjective(tau=1.0), r"tau: a number in \[0, 1\) expected, got 1.0"),
        (lambda: ALRPObjective(localization_weight=-1.0), "localization_weight: a finite number >= 0 expected, got -1.0"),
        (lambda: ALRPObjective(localization_weight=0.0), "localization_weight: a number > 0 expected where it is the first"),
        (lambda: ALRPObjective(uncertainty_weights=True), "self_balance, uncertainty_weights: one of them expected, got both"),
        (lambda: SeparateObjective(localization_weight=math.nan), "localization_weight: a finite number >= 0 expected, got nan"),
    ],
)
def test_options_out_of_range_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [ALRPObjective, lambda: SeparateObjective(localization=GIoULoss())])
@pytest.mark.parametrize("assigner", [OverlapAssigner(), ATSSAssigner()])
def test_a_detector_learns_two_images_by_heart(make: Any, assigner: Any) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32) * 0.2
    boxes = torch.tensor([[4.0, 5.0, 15.0, 17.0], [18.0, 14.0, 30.0, 28.0]])
    images[0, 0, 5:17, 4:15] += 0.7
    images[1, 2, 14:28, 18:30] += 0.7
    targets = [Targets(boxes[i : i + 1], torch.tensor([i]), torch.tensor([False]), i, (32, 32), (32, 32)) for i in range(2)]
    detector = RetinaNet(
        2,
        backbone=Backbone(strides=(4, 8), stages=1, channels=16),
        head_convs=1,
        head_norm="group",
        scales=(1.0,),
        ratios=(1.0,),
        anchor_scale=3.0,
    )
    objective = make()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=5e-3)
    for step in range(40):
        raw = detector(images)
        parts = objective(raw, assigner(raw, targets), targets)
        optimizer.zero_grad()
        weighted_sum(parts).backward()
        optimizer.step()
        if step % 10 == 9:
            objective.end_epoch()
    for i, found in enumerate(Decoder(max_detections=1)(detector(images), [(32, 32)] * 2)):
        assert found.labels.tolist() == [i]
        assert box_iou(found.boxes, boxes[i : i + 1]).item() > 0.7
