"""Two gloo processes give the numbers of one."""

import json
from pathlib import Path

import pytest

from lossbox.metrics import Evaluator, evaluate, match_detections, optimal_lrp_per_class, read_ground_truth, read_results, to_json

WORKER = Path(__file__).parent / "gloo_worker.py"


@pytest.fixture(scope="module")
def problem(random_problem):
    content, results = random_problem(8)
    image_ids = sorted(image["id"] for image in content["images"])
    # An odd number of images, so that dealing them to two processes repeats one.
    kept = image_ids[:5]
    content = content | {
        "images": [{"id": number} for number in kept],
        "annotations": [record for record in content["annotations"] if record["image_id"] in kept],
    }
    return content, [record for record in results if record["image_id"] in kept]


@pytest.fixture(scope="module")
def ranks(problem, tmp_path_factory, run_processes):
    """What each of two processes wrote."""
    folder = tmp_path_factory.mktemp("gloo")
    (folder / "problem.json").write_text(json.dumps(problem))
    run_processes(WORKER, 2, 2, folder)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_evaluator_gathers_and_drops_the_padding(problem, ranks):
    content, detections = problem
    truth = read_ground_truth(content)
    alone = evaluate(truth, read_results(detections, truth))
    assert ranks[0]["numbers"] == ranks[1]["numbers"]
    assert alone["AP"] > 0
    gathered = ranks[0]["numbers"]
    for name, expected in json.loads(to_json(alone)).items():
        if name != "per_class":
            assert gathered[name] == pytest.approx(expected, abs=1e-9), name
    for ours, expected in zip(gathered["per_class"], alone["per_class"], strict=True):
        assert ours == pytest.approx(expected, abs=1e-9)


def test_results_of_all_processes_are_saved_once(problem, ranks):
    _, detections = problem
    assert ranks[0]["results"] == ranks[1]["results"]
    saved = sorted((record["image_id"], record["category_id"], record["score"]) for record in ranks[0]["results"])
    expected = sorted((record["image_id"], record["category_id"], record["score"]) for record in detections)
    assert [record[:2] for record in saved] == [record[:2] for record in expected]
    assert [record[2] for record in saved] == pytest.approx([record[2] for record in expected])
    assert max(record["bbox"][0] for record in ranks[0]["results"]) < 900  # the lowest rank's copy, not the shifted one


def test_torchmetric_gathers(problem, ranks):
    content, detections = problem
    truth = read_ground_truth(content)
    optima = optimal_lrp_per_class(match_detections(truth, read_results(detections, truth)))
    assert ranks[0]["metrics"] == ranks[1]["metrics"]
    for numbers in ranks[0]["metrics"]:
        assert numbers["classes"] == [0, 1, 2]
        assert numbers["olrp_per_class"] == pytest.approx([optimum.olrp for optimum in optima])
        assert numbers["thresholds"] == pytest.approx([optimum.threshold for optimum in optima])
        assert numbers["olrp"] == pytest.approx(sum(optimum.olrp for optimum in optima) / 3)


def test_one_process_without_a_group(problem):
    evaluator = Evaluator(problem[0])
    assert evaluator.compute()["AP"] == 0
    assert evaluator.results() == []
