"""The log of the steps: its numbers against loops, and its lines over an interruption."""

import json
from types import SimpleNamespace

import pytest
import torch

from lossbox.boxes import DeltaCoder, paired_iou
from lossbox.losses import APLoss, GIoULoss
from lossbox.objective import SeparateObjective, weighted_sum
from lossbox.records import BACKGROUND, IGNORE, Assignment, Batch, RawPredictions, Targets
from lossbox.training import StepLog
from lossbox.training.task import Losses


def problem(matched=((0, 0, 1, BACKGROUND, IGNORE, BACKGROUND), (BACKGROUND, 0, BACKGROUND, BACKGROUND, IGNORE, IGNORE))):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 6, 3, generator=generator).requires_grad_()
    regression = torch.randn(2, 6, 4, generator=generator).requires_grad_()
    corner = torch.rand(6, 2, generator=generator) * 20
    predictions = RawPredictions(logits, regression, torch.cat([corner, corner + 10], 1), (6,), DeltaCoder())
    boxes = torch.tensor([[1.0, 1.0, 9.0, 9.0], [10.0, 8.0, 22.0, 20.0]])
    targets = [Targets(boxes[:n], torch.tensor([2, 0])[:n], torch.zeros(n, dtype=torch.bool), n, (32, 32), (32, 32)) for n in (2, 1)]
    return predictions, Assignment(torch.tensor(matched)), targets


def observed(log, step, matched=None):
    predictions, assignment, targets = problem() if matched is None else problem(matched)
    parts = SeparateObjective(APLoss(), GIoULoss(), localization_weight=2.0)(predictions, assignment, targets)
    log.on_train_batch_start(SimpleNamespace(global_step=step, current_epoch=0), None, None, 0)
    log._observe(Batch(torch.zeros(2, 3, 32, 32), targets), Losses(predictions, assignment, parts))
    weighted_sum(parts).backward()
    return log._row, predictions, targets, parts


def test_the_numbers_of_a_step_are_those_of_loops():
    row, predictions, targets, parts = observed(StepLog(by_rank_every=2), 4)
    places = [(0, 0, 0), (0, 1, 0), (0, 2, 1), (1, 1, 0)]
    score, box = predictions.logits.grad, predictions.regression.grad
    positive = [(i, a, int(targets[i].labels[k])) for i, a, k in places]
    ious = [
        paired_iou(DeltaCoder().decode(predictions.regression[i, a][None], predictions.anchors[a][None]), targets[i].boxes[k][None]).item()
        for i, a, k in places
    ]
    assert (row["step"], row["epoch"], row["positives"]) == (4, 0, 4)
    assert row["classification"] == parts["classification"].value.item()
    assert (row["weight_classification"], row["weight_localization"]) == (1.0, 2.0)
    assert row["total"] == pytest.approx(row["classification"] + 2 * row["localization"])
    assert row["positive_gradient"] == pytest.approx(sum(score[place].abs().item() for place in positive))
    others = score.abs().double().sum().item() - row["positive_gradient"]
    assert row["negative_gradient"] == pytest.approx(others)
    assert row["balance"] == pytest.approx(1, abs=1e-6)
    assert row["box_gradient"] == pytest.approx(box.abs().sum().item(), rel=1e-6)
    assert row["iou"] == pytest.approx(sum(ious) / 4, rel=1e-6)
    order = sorted(range(4), key=lambda k: -predictions.logits[positive[k]].item())
    shares = [ious[k] / sum(ious) for k in order]
    assert [row["rank_iou"][place] for place in (0, 2, 5, 7)] == pytest.approx(shares, rel=1e-6)  # of tenths of four
    magnitudes = [box[places[k][:2]].abs().sum().item() for k in order]
    assert [row["rank_box_gradient"][place] for place in (0, 2, 5, 7)] == pytest.approx([m / sum(magnitudes) for m in magnitudes])
    assert sum(row["rank_score_gradient"]) == pytest.approx(1)


def test_clear_is_the_share_of_positives_that_no_negative_comes_near():
    predictions, assignment, targets = problem()
    with torch.no_grad():
        highest = torch.where(torch.ones(2, 6, 3, dtype=torch.bool), predictions.logits, 0).max().item()
        predictions.logits[0, 0, 2], predictions.logits[0, 1, 2] = highest + 1.5, highest + 0.5
        predictions.logits[0, 4] = 100.0  # ignored
    log = StepLog()
    parts = SeparateObjective(APLoss())(predictions, assignment, targets)
    log._observe(Batch(torch.zeros(2, 3, 32, 32), targets), Losses(predictions, assignment, parts))
    assert log._row["clear"] == 0.25


def test_a_step_without_positives_and_one_that_is_not_listed():
    nothing = ((BACKGROUND,) * 6, (IGNORE,) * 6)
    row, *_ = observed(StepLog(by_rank_every=2), 4, nothing)
    assert (row["positives"], row["clear"], row["balance"], row["positive_gradient"]) == (0, 0, None, 0)
    assert "rank_iou" not in observed(StepLog(by_rank_every=2), 5)[0]
    assert "rank_iou" not in observed(StepLog(), 4)[0]


def test_lines_of_steps_that_are_trained_again_and_of_half_a_line_are_dropped(tmp_path):
    trainer = SimpleNamespace(is_global_zero=True, default_root_dir=str(tmp_path), global_step=2, current_epoch=1)
    (tmp_path / "steps.jsonl").write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n{"step": 3, "x')
    log, task = StepLog(), SimpleNamespace(observers=[])
    log.on_train_start(trainer, task)
    log.on_train_batch_start(trainer, task, None, 0)
    log._row["balance"] = float("nan")
    log.on_train_batch_end(trainer, task, None, None, 0)
    log.teardown(trainer, task, "fit")
    rows = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert rows[2]["balance"] is None
    assert rows[2]["seconds"] >= 0
    assert task.observers == []


def test_every_how_many_steps_is_a_number_that_is_not_negative():
    with pytest.raises(ValueError, match="by_rank_every: a number >= 0 expected, got -1"):
        StepLog(-1)
