"""Optimal LRP as a torchmetrics metric, in one process (two: test_distributed)."""

import math

import pytest
import torch

from lossbox.metrics import match_detections, optimal_lrp_per_class, read_ground_truth, read_results
from lossbox.metrics.torchmetric import OptimalLRP


def batches(content, detections):
    """torchmetrics' format, labels as COCO ids."""

    def columns(records, **names):
        boxes = torch.tensor([record["bbox"] for record in records], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([record["category_id"] for record in records], dtype=torch.int64)
        return {"boxes": boxes, "labels": labels} | {
            new: torch.tensor([record[name] for record in records], dtype=torch.float64) for new, name in names.items()
        }

    for image in content["images"]:
        found = [record for record in detections if record["image_id"] == image["id"]]
        true = [record for record in content["annotations"] if record["image_id"] == image["id"]]
        yield columns(found, scores="score"), columns(true, iscrowd="iscrowd", area="area")


@pytest.mark.parametrize("seed", [0, 4, 7])
@pytest.mark.parametrize(("tau", "max_detections"), [(0.5, 100), (0.75, 2)])
def test_equals_the_pure_functions(random_problem, seed, tau, max_detections):
    content, detections = random_problem(seed)
    truth = read_ground_truth(content)
    matches = match_detections(truth, read_results(detections, truth), iou_threshold=tau, max_detections=max_detections)
    optima = optimal_lrp_per_class(matches, tau=tau)
    metric = OptimalLRP(tau=tau, max_detections=max_detections)
    pairs = list(batches(content, detections))
    metric.update([found for found, _ in pairs[:4]], [true for _, true in pairs[:4]])
    metric.update([found for found, _ in pairs[4:]], [true for _, true in pairs[4:]])
    numbers = metric.compute()
    assert numbers["classes"].tolist() == truth.category_ids.tolist()
    columns = dict(zip(optima[0]._fields, zip(*optima, strict=True), strict=True))
    for name in ("olrp", "localization", "false_positive", "false_negative"):
        assert numbers[f"{name}_per_class"].tolist() == pytest.approx(columns[name], abs=1e-9, nan_ok=True)
        assert numbers[name].item() == pytest.approx(sum(columns[name]) / 3, abs=1e-9)
    assert numbers["thresholds"].tolist() == list(columns["threshold"])


def test_without_crowd_and_area(random_problem):
    content, detections = random_problem(4)
    plain = [{key: value for key, value in record.items() if key not in ("area", "iscrowd")} for record in content["annotations"]]
    truth = read_ground_truth(content | {"annotations": plain})
    optima = optimal_lrp_per_class(match_detections(truth, read_results(detections, truth)))
    metric = OptimalLRP()
    for found, true in batches(content, detections):
        metric.update([found], [{"boxes": true["boxes"], "labels": true["labels"]}])
    assert metric.compute()["olrp_per_class"].tolist() == pytest.approx([optimum.olrp for optimum in optima])


def test_reset_and_nothing():
    nothing = {"boxes": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    metric = OptimalLRP()
    metric.update([nothing | {"scores": torch.zeros(0)}], [nothing])
    numbers = metric.compute()
    assert math.isnan(numbers["olrp"])
    assert numbers["classes"].shape == (0,)
    true = {"boxes": torch.tensor([[0.0, 0, 5, 5]]), "labels": torch.tensor([1])}
    metric.update([nothing | {"scores": torch.zeros(0)}], [true])
    assert metric.compute()["olrp"] == 1
    metric.reset()
    metric.update([true | {"scores": torch.tensor([0.5])}], [true])
    assert metric.compute()["olrp"] == 0
    assert metric(preds=[true | {"scores": torch.tensor([0.5])}], target=[true])["thresholds"] == 0.5


FOUND = {"boxes": torch.tensor([[0.0, 0, 5, 5]]), "scores": torch.tensor([0.5]), "labels": torch.tensor([1])}
TRUE = {"boxes": torch.tensor([[0.0, 0, 5, 5]]), "labels": torch.tensor([1])}


@pytest.mark.parametrize(
    ("preds", "target", "message"),
    [
        ([FOUND], [], "one dict per image expected in both, got 1 and 0"),
        ([FOUND, TRUE], [TRUE, TRUE], r"preds\[1\]: 'scores' must be a tensor, got nothing"),
        ([FOUND], [{"boxes": TRUE["boxes"]}], r"target\[0\]: 'labels' must be a tensor, got nothing"),
        ([FOUND | {"labels": [1]}], [TRUE], r"preds\[0\]: 'labels' must be a tensor, got list"),
        ([FOUND | {"labels": torch.tensor([1.0])}], [TRUE], r"preds\[0\]: labels must be integers, got torch.float32"),
        ([FOUND | {"labels": torch.tensor([1, 1])}], [TRUE], r"preds\[0\]: boxes \(n, 4\) .*got shapes \(1, 4\), \(2,\), \(1,\)"),
        ([FOUND], [TRUE | {"iscrowd": torch.tensor([0, 0])}], r"target\[0\]: boxes \(n, 4\)"),
        ([FOUND | {"scores": torch.tensor([math.nan])}], [TRUE], r"preds\[0\]: scores must be in \[0, 1\]"),
        ([FOUND | {"boxes": FOUND["boxes"] * math.nan}], [TRUE], r"preds\[0\]: boxes must be finite"),
        ([FOUND], [TRUE | {"boxes": TRUE["boxes"][:, [2, 3, 0, 1]]}], r"target\[0\]: boxes must have x2 >= x1"),
    ],
)
def test_mistakes_are_named(preds, target, message):
    metric = OptimalLRP()
    with pytest.raises(ValueError, match=message):
        metric.update(preds, target)
    assert metric.predictions == metric.targets == []


def test_tau_out_of_range():
    with pytest.raises(ValueError, match="tau must be in"):
        OptimalLRP(tau=1.0)
