"""Objectives: what they hand to the losses, batches without positives, what is remembered, and a detector that learns from them."""

import functools
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

from lossbox.assignment import ATSSAssigner, OverlapAssigner
from lossbox.boxes import DeltaCoder
from lossbox.decoding import Decoder
from lossbox.detectors import Backbone, RetinaNet, pyramid_anchors
from lossbox.losses import (
    FocalLoss,
    GHMCLoss,
    GHMRLoss,
    GIoULoss,
    alrp_loss,
    ap_loss,
    ciou_loss,
    dr_loss,
    focal_loss,
    ghm_c_loss,
    ghm_r_loss,
    giou_loss,
    matchability_aware_loss,
    quality_focal_loss,
    rank_sort_loss,
    smooth_l1_loss,
)
from lossbox.objective import ALRPObjective, RankSortObjective, SeparateObjective, WithCenterness
from lossbox.objective.positives import global_count
from lossbox.records import BACKGROUND, IGNORE, Assignment, RawPredictions, Targets

CLASSES = 3
OBJECTIVES: list[Any] = [
    ALRPObjective,
    functools.partial(ALRPObjective, localization="iou", self_balance=False),
    SeparateObjective,
    functools.partial(SeparateObjective, localization=giou_loss, frame="boxes"),
    functools.partial(SeparateObjective, quality_focal_loss, target="iou"),
    functools.partial(SeparateObjective, matchability_aware_loss, target="label and iou"),
    functools.partial(SeparateObjective, dr_loss, classification_per="image"),
    functools.partial(SeparateObjective, ap_loss, ciou_loss, classification_per="batch", frame="boxes", self_balance=True),
    lambda: SeparateObjective(GHMCLoss(), GHMRLoss(), classification_per="element", localization_per="element"),
    RankSortObjective,
    functools.partial(RankSortObjective, smooth_l1_loss, frame="deltas", localization_weight=2.0),
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
        total = sum(factor * part for factor, part in zip((0.7, -1.9, 0.4), (parts[name] for name in sorted(parts)), strict=False))
        return list(torch.autograd.grad(total, [self.logits, self.regression], retain_graph=True))


def same(problem: Problem, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
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
    found = ALRPObjective(localization=localization, delta=delta, tau=tau)(problem.predictions, problem.assignment, problem.targets)
    if localization == "iou":
        error = (1 - box_iou(problem.decoded(), problem.matched_boxes()).diagonal()) / (1 - tau)
    else:
        error = (1 - generalized_box_iou(problem.decoded(), problem.matched_boxes()).diagonal()) / 2 / (1 - tau)
    expected = alrp_loss(problem.logits, problem.wanted(), error, delta=delta)
    same(problem, found, {"classification": expected.classification, "localization": expected.localization})


def test_alrp_pushes_both_sides_equally_and_ignored_anchors_not_at_all() -> None:
    problem = Problem(1)
    parts = ALRPObjective()(problem.predictions, problem.assignment, problem.targets)
    gradient = torch.autograd.grad(parts["classification"], problem.logits)[0]
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
    objective = SeparateObjective(functools.partial(focal_loss, alpha=None, gamma=0.0), giou_loss, frame="boxes", localization_weight=2.5)
    found = objective(problem.predictions, problem.assignment, problem.targets)
    wanted = problem.wanted()
    count = len(problem.positives())
    entropy = F.binary_cross_entropy_with_logits(problem.logits[wanted >= 0], wanted[wanted >= 0].double(), reduction="sum")
    box = (1 - generalized_box_iou(problem.decoded(), problem.matched_boxes()).diagonal()).sum()
    same(problem, found, {"classification": entropy / count, "localization": box / count})
    assert objective.weights() == {"classification": 1.0, "localization": 2.5}


def test_the_normalizer_is_the_mean_count_of_positives_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(0)
    alone = SeparateObjective()(problem.predictions, problem.assignment, problem.targets)
    count = len(problem.positives())

    def two_ranks(tensor: torch.Tensor) -> None:
        tensor += 3 * count

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", two_ranks)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    shared = SeparateObjective()(problem.predictions, problem.assignment, problem.targets)
    for name in alone:
        torch.testing.assert_close(shared[name], alone[name] / 2)
    # one positive in the whole batch, on this rank or on the other, counts as one
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.fill_(1.0))
    assert [float(global_count(torch.zeros(n, 4), training=True)) for n in (0, 1)] == [0.5, 0.5]
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor)
    assert float(global_count(torch.zeros(0, 4), training=True)) == 0.5
    # a validation may run on one rank alone: it must not wait for the others
    evaluated = SeparateObjective().eval()(problem.predictions, problem.assignment, problem.targets)
    torch.testing.assert_close(evaluated, alone)


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("iou", lambda a, b: 1 - box_iou(a, b).diagonal()),
        ("diou", lambda a, b: distance_box_iou_loss(a, b) / 2),
        ("ciou", lambda a, b: complete_box_iou_loss(a, b) / 3),
        ("alpha_iou", lambda a, b: 1 - box_iou(a, b).diagonal() ** 3),
    ],
)
def test_alrp_takes_any_error_of_the_iou_family_by_name(name: str, definition: Any) -> None:
    problem = Problem(3)
    with torch.no_grad():
        problem.regression *= 0.2  # overlapping pairs too
    found = ALRPObjective(localization=name)(problem.predictions, problem.assignment, problem.targets)
    error = definition(problem.decoded(), problem.matched_boxes()) / 0.5
    expected = alrp_loss(problem.logits, problem.wanted(), error)
    torch.testing.assert_close(found["localization"], expected.localization, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found["classification"], expected.classification)


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
    same(problem, SeparateObjective(quality_focal_loss, target="iou")(*arguments), expected)
    labels = (problem.wanted() == 1).double()
    expected["classification"] = matchability_aware_loss(problem.logits[kept], labels[kept], quality[kept], normalizer=count)
    same(problem, SeparateObjective(matchability_aware_loss, target="label and iou")(*arguments), expected)


def test_a_loss_is_called_per_batch_per_image_or_with_its_own_mean() -> None:
    problem = Problem(5)
    arguments = (problem.predictions, problem.assignment, problem.targets)
    wanted, logits = problem.wanted(), problem.logits
    deltas = DeltaCoder().encode(problem.matched_boxes(), problem.own_anchors())
    box = F.smooth_l1_loss(problem.offsets(), deltas, reduction="sum") / len(problem.positives())

    found = SeparateObjective(ap_loss, classification_per="batch")(*arguments)
    same(problem, found, {"classification": ap_loss(logits, wanted), "localization": box})

    of_images = torch.stack([dr_loss(one, targets) for one, targets in zip(logits, wanted, strict=True)])
    same(
        problem,
        SeparateObjective(dr_loss, classification_per="image")(*arguments),
        {"classification": of_images.mean(), "localization": box},
    )

    kept = wanted >= 0
    found = SeparateObjective(ghm_c_loss, ghm_r_loss, classification_per="element", localization_per="element")(*arguments)
    harmonized = {"classification": ghm_c_loss(logits[kept], wanted[kept]), "localization": ghm_r_loss(problem.offsets(), deltas)}
    same(problem, found, harmonized)


@pytest.mark.parametrize("frame", ["boxes", "deltas"])
def test_rank_sort_weights_boxes_by_score_and_balances_each_step(frame: Any) -> None:
    problem = Problem(6)
    with torch.no_grad():
        problem.regression *= 0.2
    box_loss = giou_loss if frame == "boxes" else smooth_l1_loss
    objective = RankSortObjective(box_loss, frame=frame)
    found = objective(problem.predictions, problem.assignment, problem.targets)
    ranking, sorting = rank_sort_loss(problem.logits, problem.wanted(), own_iou(problem))
    score = torch.stack([problem.logits[i, j, problem.targets[i].labels[box]] for i, j, box in problem.positives()]).detach().sigmoid()
    if frame == "boxes":
        each = 1 - generalized_box_iou(problem.decoded(), problem.matched_boxes()).diagonal()
    else:
        deltas = DeltaCoder().encode(problem.matched_boxes(), problem.own_anchors())
        each = F.smooth_l1_loss(problem.offsets(), deltas, reduction="none").sum(1)
    localization = (score * each).sum() / score.sum()
    same(problem, found, {"ranking": ranking, "sorting": sorting, "localization": localization})
    weights = objective.weights()
    assert sorting > 0
    balanced = weights["localization"] * found["localization"]
    torch.testing.assert_close(balanced, ranking + sorting)
    assert not torch.as_tensor(weights["localization"]).requires_grad
    assert RankSortObjective(localization_weight=3.0).weights()["localization"] == 3.0


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
        assert math.isclose(found["centerness"].item(), expected / len(problem.positives()), rel_tol=1e-9)
        assert torch.autograd.grad(found["centerness"], centerness)[0].abs().sum() > 0
    with pytest.raises(ValueError, match=r"predictions\.centerness: this objective needs a detector that says it"):
        WithCenterness(ALRPObjective())(problem.predictions, *arguments)
    with pytest.raises(ValueError, match="centerness_weight: a finite number >= 0 expected, got -1"):
        WithCenterness(ALRPObjective(), centerness_weight=-1)
    nothing = Assignment(torch.full((3, 16), BACKGROUND))
    assert WithCenterness(ALRPObjective())(replace(problem.predictions, centerness=centerness), nothing, problem.targets)["centerness"] == 0


def test_centerness_follows_the_balance_of_the_objective_it_is_added_to() -> None:
    objective = WithCenterness(ALRPObjective(initial_weight=7.0))
    assert objective.weights() == {"classification": 1.0, "localization": 7.0, "centerness": 1.0}
    problem = Problem(0)
    objective(replace(problem.predictions, centerness=torch.zeros(3, 16)), problem.assignment, problem.targets)
    objective.end_epoch()
    assert objective.weights()["localization"] != 7.0


def test_a_separate_objective_can_balance_itself() -> None:
    objective = SeparateObjective(ap_loss, giou_loss, classification_per="batch", frame="boxes", self_balance=True, localization_weight=5.0)
    assert objective.weights()["localization"] == 5.0
    problem = Problem(0)
    parts = objective(problem.predictions, problem.assignment, problem.targets)
    objective.end_epoch()
    expected = (parts["classification"] + parts["localization"]) / parts["localization"]
    assert math.isclose(float(objective.weights()["localization"]), expected.item(), rel_tol=1e-5)


@pytest.mark.parametrize("make", OBJECTIVES)
@pytest.mark.parametrize("matched", [BACKGROUND, IGNORE])
@pytest.mark.parametrize("counts", [(0, 0), (2, 1)])
def test_without_positives_the_parts_are_there_and_their_graph_is_alive(make: Any, matched: int, counts: tuple[int, ...]) -> None:
    problem = Problem(0, counts=counts)
    objective = make()
    parts = objective(problem.predictions, Assignment(torch.full((2, 16), matched)), problem.targets)
    assert list(parts) in (["classification", "localization"], ["ranking", "sorting", "localization"])
    assert list(objective.weights()) == list(parts)
    assert parts["localization"].item() == 0
    if isinstance(objective, ALRPObjective | RankSortObjective):
        assert all(part.item() == 0 for part in parts.values())
    elif matched == IGNORE and getattr(objective, "classification_per", "") != "image":
        assert parts["classification"].item() == 0
    of_logits, of_regression = problem.gradients(parts)
    assert of_logits.isfinite().all()
    assert of_regression.abs().max() == 0


@pytest.mark.parametrize("make", OBJECTIVES)
def test_an_objective_computes_in_float32_under_autocast(make: Any) -> None:
    problem = Problem(2, dtype=torch.float32)
    half = RawPredictions(
        problem.logits.bfloat16(), problem.regression.bfloat16(), problem.predictions.anchors, (12, 4), problem.predictions.coder
    )
    with torch.autocast("cpu", torch.bfloat16):
        found = make()(half, problem.assignment, problem.targets)
    full = RawPredictions(half.logits.float(), half.regression.float(), half.anchors, (12, 4), half.coder)
    expected = make()(full, problem.assignment, problem.targets)
    for name in expected:
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], expected[name])
    assert all(gradient.isfinite().all() for gradient in problem.gradients(found))


def test_a_users_own_loss_is_given_float32() -> None:
    seen = []

    def own(x: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.extend([x.dtype, target.dtype])
        return x.sum() * 0

    problem = Problem(2, dtype=torch.float32)
    half = RawPredictions(problem.logits.half(), problem.regression.half(), problem.predictions.anchors, (12, 4), DeltaCoder())
    SeparateObjective(own, own)(half, problem.assignment, problem.targets)
    assert seen == [torch.float32] * 4


@pytest.mark.parametrize("make", OBJECTIVES)
@pytest.mark.parametrize("wild", [1e6, -1e6])
def test_huge_regressions_give_finite_losses(make: Any, wild: float) -> None:
    problem = Problem(0, dtype=torch.float32)
    with torch.no_grad():
        problem.regression[0] = wild
    parts = make()(problem.predictions, problem.assignment, problem.targets)
    assert all(part.isfinite() for part in parts.values())
    assert all(gradient.isfinite().all() for gradient in problem.gradients(parts))


@pytest.mark.parametrize("make", OBJECTIVES)
@pytest.mark.parametrize("broken", ["logits", "regression"])
def test_a_nan_comes_out_as_a_nan(make: Any, broken: str) -> None:
    problem = Problem(0)
    i, j, _ = problem.positives()[0]
    with torch.no_grad():
        getattr(problem, broken)[i, j] = math.nan
    parts = make()(problem.predictions, problem.assignment, problem.targets)
    if broken == "logits":
        assert parts[next(iter(parts))].isnan()
    else:
        assert parts["localization"].isnan()


def test_the_self_balance_follows_training_steps_with_positives_only() -> None:
    objective = ALRPObjective(initial_weight=20.0)
    assert objective.weights()["localization"] == 20.0
    means = []
    for seed in (0, 1):
        problem = Problem(seed)
        parts = objective(problem.predictions, problem.assignment, problem.targets)
        means.append([part.item() for part in parts.values()])
    objective(problem.predictions, Assignment(torch.full((3, 16), BACKGROUND)), problem.targets)
    other = Problem(2)
    objective.eval()(other.predictions, other.assignment, other.targets)
    objective.train()
    assert objective.balance is not None
    sums = [objective.balance.sum_classification.item(), objective.balance.sum_localization.item()]
    assert all(math.isclose(each, of[0] + of[1], rel_tol=1e-6) for each, of in zip(sums, zip(*means, strict=True), strict=True))
    assert objective.weights()["localization"] == 20.0
    objective.end_epoch()
    classification, localization = torch.tensor(means).mean(0).tolist()
    weight = objective.weights()["localization"]
    assert isinstance(weight, torch.Tensor)
    assert not weight.requires_grad
    assert math.isclose(weight.item(), (classification + localization) / localization, rel_tol=1e-5)
    restored = ALRPObjective()
    restored.load_state_dict(objective.state_dict())
    assert restored.weights()["localization"] == weight


def test_without_self_balance_nothing_is_remembered() -> None:
    objective = ALRPObjective(self_balance=False)
    problem = Problem(0)
    objective(problem.predictions, problem.assignment, problem.targets)
    objective.end_epoch()
    assert objective.weights() == {"classification": 1.0, "localization": 1.0}
    assert not objective.state_dict()


def test_the_module_twins_of_the_losses_fit() -> None:
    problem = Problem(0)
    twins = SeparateObjective(FocalLoss(alpha=0.5, gamma=1.5), GIoULoss(), frame="boxes")
    functions = SeparateObjective(functools.partial(focal_loss, alpha=0.5, gamma=1.5), giou_loss, frame="boxes")
    arguments = (problem.predictions, problem.assignment, problem.targets)
    same(problem, twins(*arguments), functions(*arguments))


def test_a_loss_with_state_belongs_to_the_objective() -> None:
    class Counted(nn.Module):
        calls: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.tensor(0))

        def forward(self, logits: torch.Tensor, targets: torch.Tensor, **options: Any) -> torch.Tensor:
            self.calls += 1
            return focal_loss(logits, targets, **options)

    problem = Problem(0)
    objective = SeparateObjective(Counted())
    objective(problem.predictions, problem.assignment, problem.targets)
    assert objective.state_dict() == {"classification.calls": torch.tensor(1)}


def test_a_recipe_names_losses_as_functions_and_as_modules() -> None:
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--objective", type=nn.Module)
    options = {
        "classification": "lossbox.losses.focal_loss",
        "localization": {"class_path": "lossbox.losses.IoULoss", "init_args": {"form": "square"}},
        "frame": "boxes",
    }
    config = parser.parse_object({"objective": {"class_path": "lossbox.objective.SeparateObjective", "init_args": options}})
    # jsonargparse 4.49 gave it another name
    instantiate = parser.instantiate if hasattr(parser, "instantiate") else parser.instantiate_classes
    objective = instantiate(config).objective
    assert isinstance(objective, SeparateObjective)
    assert objective.classification is focal_loss
    assert objective.localization.form == "square"


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
        (lambda: ALRPObjective(localization="l1"), "localization: one of 'iou', 'giou', .*'alpha_iou' expected, got 'l1'"),
        (lambda: SeparateObjective(target="iuo"), "target: one of 'label', 'iou', .* expected, got 'iuo'"),  # type: ignore[arg-type]
        (lambda: SeparateObjective(classification_per="image"), "classification_per: one of 'positive', "),  # type: ignore[arg-type]
        (lambda: SeparateObjective(localization_per="image"), "localization_per: one of 'positive', "),  # type: ignore[arg-type]
        (lambda: RankSortObjective(frame="pixels"), "frame: one of 'deltas', 'boxes' expected"),  # type: ignore[arg-type]
        (lambda: RankSortObjective(delta=math.inf), "delta: a finite number >= 0 expected, got inf"),
        (lambda: RankSortObjective(localization_weight=-1.0), "localization_weight: a finite number >= 0 expected, got -1.0"),
        (lambda: ALRPObjective(delta=-1.0), "delta: a finite number >= 0 expected, got -1.0"),
        (lambda: ALRPObjective(tau=1.0), r"tau: a number in \[0, 1\) expected, got 1.0"),
        (lambda: SeparateObjective(frame="pixels"), "frame: one of 'deltas', 'boxes' expected, got 'pixels'"),  # type: ignore[arg-type]
        (lambda: SeparateObjective(localization_weight=math.nan), "localization_weight: a finite number >= 0 expected, got nan"),
    ],
)
def test_options_out_of_range_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [ALRPObjective, functools.partial(SeparateObjective, localization=giou_loss, frame="boxes")])
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
        weights = objective.weights()
        optimizer.zero_grad()
        torch.stack([parts[name] * weights[name] for name in parts]).sum().backward()
        optimizer.step()
        if step % 10 == 9:
            objective.end_epoch()
    for i, found in enumerate(Decoder(max_detections=1)(detector(images), [(32, 32)] * 2)):
        assert found.labels.tolist() == [i]
        assert box_iou(found.boxes, boxes[i : i + 1]).item() > 0.7
