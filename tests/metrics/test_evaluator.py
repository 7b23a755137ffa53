"""The evaluator: the numbers of the files, and what each mistake is called."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from lossbox.metrics import (
    Evaluator,
    evaluate,
    lrp,
    match_detections,
    read_ground_truth,
    read_results,
    score_iou_correlation,
    to_json,
)
from lossbox.records import Detections


def of_image(content, detections, image_id):
    """One image's detections as a detector gives them."""
    ids = sorted(category["id"] for category in content["categories"])
    records = [record for record in detections if record["image_id"] == image_id]
    boxes = torch.tensor([record["bbox"] for record in records], dtype=torch.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.tensor([record["score"] for record in records], dtype=torch.float64)
    return Detections(boxes, scores, torch.tensor([ids.index(record["category_id"]) for record in records], dtype=torch.int64))


def filled(content, detections, image_ids=None, **options):
    evaluator = Evaluator(content, **options)
    for image in content["images"]:
        if image_ids is None or image["id"] in image_ids:
            evaluator.update([image["id"]], [of_image(content, detections, image["id"])])
    return evaluator


def agree(ours, expected):
    assert ours.keys() == expected.keys()
    for name in expected.keys() - {"per_class"}:
        assert ours[name] == pytest.approx(expected[name], abs=1e-9, nan_ok=True), name
    for one, other in zip(ours["per_class"], expected["per_class"], strict=True):
        assert one == pytest.approx(other, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("seed", [0, 3, 5])  # scores without ties, with, boxes on a grid
@pytest.mark.parametrize("tau", [0.5, 0.75])
def test_image_by_image_is_the_whole_file(random_problem, tmp_path, seed, tau):
    content, detections = random_problem(seed)
    truth = read_ground_truth(content)
    evaluator = filled(content, detections, tau=tau)
    numbers = evaluator.compute()
    agree(numbers, evaluate(truth, read_results(detections, truth), tau=tau))
    path = tmp_path / "results.json"
    path.write_text(json.dumps(evaluator.results()))
    agree(evaluate(truth, read_results(path, truth), tau=tau), numbers)


def test_the_numbers_and_their_names(random_problem):
    content, detections = random_problem(3)
    numbers = filled(content, detections).compute()
    names = "AP AP50 AP75 AP90 APs APm APl AR1 AR10 AR100 ARs ARm ARl oLRP oLRP_localization oLRP_false_positive oLRP_false_negative rho"
    assert list(numbers) == [*names.split(), "per_class"]
    assert all(type(numbers[name]) is float for name in names.split())
    truth = read_ground_truth(content)
    matches = match_detections(truth, read_results(detections, truth))
    assert numbers["rho"] == pytest.approx(score_iou_correlation(matches), abs=1e-9)
    for index, row in enumerate(numbers["per_class"]):
        assert (row["id"], row["name"]) == (truth.category_ids[index], truth.category_names[index])
        assert row["num_ground_truth"] == int((~truth.crowd & (truth.category == index)).sum())
        error = lrp(*matches.of_class(index), row["num_ground_truth"], threshold=row["threshold"] - 1e-9)
        assert error == pytest.approx((row["oLRP"], row["localization"], row["false_positive"], row["false_negative"]))
    assert numbers["AP"] == pytest.approx(np.mean([row["AP"] for row in numbers["per_class"]]))
    assert numbers["oLRP"] == pytest.approx(np.mean([row["oLRP"] for row in numbers["per_class"]]))
    assert math.isnan(numbers["APl"])  # no annotation of this problem is large
    assert json.loads(to_json(numbers))["APl"] is None
    assert json.loads(to_json(numbers))["per_class"] == numbers["per_class"]


def test_nothing_found_at_all(random_problem):
    content, _ = random_problem(2)
    numbers = Evaluator(content).compute()
    assert (numbers["AP"], numbers["oLRP"], numbers["oLRP_false_negative"]) == (0, 1, 1)
    assert all(math.isnan(numbers[name]) for name in ("oLRP_localization", "oLRP_false_positive", "rho"))


def test_strict_json_of_undefined_numbers():
    text = to_json({"rho": float("nan"), "AP": 0.25, "per_class": [{"name": "cup", "threshold": float("nan"), "id": 3}]})
    assert json.loads(text) == {"rho": None, "AP": 0.25, "per_class": [{"name": "cup", "threshold": None, "id": 3}]}
    assert "NaN" not in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"AP": float("inf")})


def test_a_pass_over_some_images(random_problem, pycocotools):
    content, detections = random_problem(1)
    some = sorted(image["id"] for image in content["images"])[1:4]
    evaluator = filled(content, detections, some)
    of_some = pycocotools(content, detections, imgIds=some)
    assert evaluator.compute(seen_only=True)["AP"] == pytest.approx(of_some.stats[0], abs=1e-9)
    none_elsewhere = pycocotools(content, [record for record in detections if record["image_id"] in some])
    assert evaluator.compute()["AP"] == pytest.approx(none_elsewhere.stats[0], abs=1e-9)
    assert evaluator.compute()["AP"] < evaluator.compute(seen_only=True)["AP"]


def test_a_repeated_image(random_problem):
    content, detections = random_problem(1)
    evaluator = filled(content, detections)
    before = evaluator.compute()
    image_id = content["images"][0]["id"]
    found = of_image(content, detections, image_id)
    evaluator.update([image_id], [found])
    agree(evaluator.compute(), before)
    with pytest.raises(ValueError, match=rf"image_ids: {image_id} was already given with other detections; call reset\(\)"):
        evaluator.update([image_id], [Detections(found.boxes + 1, found.scores, found.labels)])
    agree(evaluator.compute(), before)
    evaluator.reset()
    assert evaluator.results() == []
    evaluator.update([image_id], [Detections(found.boxes + 1, found.scores, found.labels)])
    assert len(evaluator.results()) == len(found.scores)


def test_a_repeated_image_in_one_call(random_problem):
    content, detections = random_problem(1)
    image_id = content["images"][0]["id"]
    found = of_image(content, detections, image_id)
    evaluator = Evaluator(content)
    with pytest.raises(ValueError, match="already given"):
        evaluator.update([image_id, image_id], [found, Detections(found.boxes, found.scores / 2, found.labels)])
    assert evaluator.results() == []  # nothing of a refused call stays


def test_arrays_and_half_precision():
    content = {
        "images": [{"id": 7}, {"id": 8}],
        "categories": [{"id": 3, "name": "cup"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [8, 8, 16, 16]}],
    }
    evaluator = Evaluator(content)
    half = Detections(torch.tensor([[8.0, 8, 24, 24]]).bfloat16().requires_grad_(), torch.tensor([0.5]).half(), torch.tensor([0]).int())
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    evaluator.update(torch.tensor([7, 8]).tolist(), [half, nothing])
    evaluator.update([7], [Detections(np.array([[8, 8, 24, 24]]), np.array([0.5], dtype=np.float32), np.array([0], dtype=np.int32))])
    assert evaluator.results() == [{"image_id": 7, "category_id": 3, "bbox": [8.0, 8.0, 16.0, 16.0], "score": 0.5}]
    assert evaluator.compute()["oLRP"] == 0


BOXES, SCORES, LABELS = torch.tensor([[0.0, 0, 5, 5], [1, 1, 2, 2]]), torch.tensor([0.9, 0.8]), torch.tensor([0, 2])


@pytest.mark.parametrize(
    ("ids", "found", "message"),
    [
        ([1], Detections(BOXES, SCORES, LABELS), "image_ids: 1 is not the id of an image of the ground truth"),
        ([2, 5], Detections(BOXES, SCORES, LABELS), "one record for each image id expected, got 1 for 2 ids"),
        (
            [2],
            Detections(BOXES, torch.tensor([0.9, math.nan]), LABELS),
            r"image 2: scores must be in \[0, 1\], got nan at index 1 \(1 of 2\)",
        ),
        ([2], Detections(BOXES, torch.tensor([1.5, -1]), LABELS), r"image 2: scores must be in \[0, 1\], got 1.5 at index 0 \(2 of 2\)"),
        ([2], Detections(BOXES * math.nan, SCORES, LABELS), r"image 2: boxes must be finite, got \[nan"),
        ([2], Detections(BOXES / 0, SCORES, LABELS), "image 2: boxes must be finite"),
        (
            [2],
            Detections(BOXES[:, [2, 3, 0, 1]], SCORES, LABELS),
            r"image 2: boxes must have x2 >= x1 and y2 >= y1, got \[5.0, 5.0, 0.0, 0.0\]",
        ),
        ([2], Detections(BOXES, SCORES, LABELS + 1), r"image 2: labels must be in \[0, 3\), the number of categories, got 3 at index 1"),
        ([2], Detections(BOXES, SCORES, LABELS - 1), r"image 2: labels must be in \[0, 3\).*got -1 at index 0"),
        ([2], Detections(BOXES, SCORES, LABELS.float()), "image 2: labels must be integers, got float64"),
        ([2], Detections(BOXES[:1], SCORES, LABELS), r"image 2: boxes \(n, 4\).* expected, got \(1, 4\), \(2,\) and \(2,\)"),
        ([2], Detections(BOXES, SCORES[:, None], LABELS), "image 2: boxes"),
    ],
)
def test_mistakes_are_named(random_problem, ids, found, message):
    evaluator = Evaluator(random_problem(0)[0])
    assert evaluator.ground_truth.image_ids.tolist() == [2, 5, 8, 11, 14, 17]
    with pytest.raises(ValueError, match=message):
        evaluator.update(ids, [found])


@pytest.mark.parametrize("tau", [0.0, 1.0, math.nan])
def test_tau_out_of_range(random_problem, tau):
    with pytest.raises(ValueError, match="tau must be in"):
        Evaluator(random_problem(0)[0], tau=tau)


def test_bare_import_needs_no_evaluation_library():
    code = "import sys, lossbox.metrics; print(*{'hotcoco', 'torchmetrics', 'lightning', 'pycocotools', 'sklearn'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_lists_of_numbers_have_few_lines_and_nothing_else_changes():
    numbers = [math.nan, *(1.5e-9 * number for number in range(40))]
    content = {"seeds": [0, 1, 2], "names": ["a [\n  1\n]", "b"], "curve": numbers, "rows": [[1, 2], [3]], "none": []}
    text = to_json(content)
    assert json.loads(text) == json.loads(json.dumps({**content, "curve": [None, *numbers[1:]]}))
    assert text.splitlines()[1:7] == ['  "seeds": [0, 1, 2],', '  "names": [', '    "a [\\n  1\\n]",', '    "b"', "  ],", '  "curve": [']
    assert '  "rows": [\n    [1, 2],\n    [3]\n  ],\n  "none": []\n}' in text
    lines = text.partition('"curve": [\n')[2].partition("\n  ]")[0].splitlines()
    assert 2 <= len(lines) <= 5
    assert all(line.startswith("    ") and len(line) <= 124 for line in lines)
