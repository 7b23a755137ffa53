"""`lossbox calibrate`, called as a user would, on the run of two training steps."""

import json

import numpy as np
import pytest

from lossbox.__main__ import main
from lossbox.metrics import Calibration, DetectionColumns, Matches
from lossbox.programs.calibrate import cross_fitted


def calibrate(run, *words):
    images = ["--annotations", str(run.annotations), "--images", str(run.images)]
    assert main(["calibrate", "--config", str(run.config), *images, *map(str, words)]) == 0


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_calibrate_writes_plain_numbers_and_prints_the_error_before_and_after(tiny_run, tmp_path, capsys, method):
    path = tmp_path / "calibration.json"
    calibrate(tiny_run, "--method", method, "--out", path)
    said = capsys.readouterr().out
    for word in ("before", "after", "cross-fitted", f"LaECE with the {method} map", str(path)):
        assert word in said.replace("\n", "") if word == str(path) else word in said
    content = json.loads(path.read_text())
    assert len(content["classes"]) == 10
    assert content["fitted_on"]["images"] == 5
    errors = content["errors"]
    assert errors["after"]["LaECE"] < errors["before"]["LaECE"]
    assert errors["after"]["LaECE"] <= errors["cross_fitted"]["LaECE"] + 1e-9
    assert Calibration.read(path).method == method


def test_one_map_for_all_classes(tiny_run, tmp_path):
    calibrate(tiny_run, "--class-agnostic", "--out", tmp_path / "c.json")
    assert len(set(Calibration.read(tmp_path / "c.json").curves)) == 1


def test_by_default_it_lies_beside_the_recipe(tiny_run):
    path = tiny_run.out / "calibration.json"
    assert not path.exists()
    try:
        calibrate(tiny_run, "--ckpt", "best")
        assert json.loads(path.read_text())["checkpoint"].endswith("best.ckpt")
    finally:
        path.unlink(missing_ok=True)


def test_a_missing_recipe_is_named(capsys):
    assert main(["calibrate", "--config", "nowhere.yaml"]) == 2
    assert "config: no file nowhere.yaml" in capsys.readouterr().err


def test_wrong_arguments_are_named(tiny_run, tmp_path, capsys):
    base = ["calibrate", "--config", str(tiny_run.config)]
    assert main([*base, "--annotations", str(tiny_run.annotations)]) == 2
    assert "--annotations and --images belong together" in capsys.readouterr().err
    assert main([*base, "--ckpt", "none.ckpt"]) == 2
    assert "ckpt: no file none.ckpt" in capsys.readouterr().err
    alone = tmp_path / "config.yaml"
    alone.write_text(tiny_run.config.read_text())
    assert main(["calibrate", "--config", str(alone)]) == 2
    missing = tmp_path / "checkpoints" / "last.ckpt"
    assert f"ckpt: no {missing}; name the folder of the run, or the file of a checkpoint" in capsys.readouterr().err
    document = json.loads(tiny_run.annotations.read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**document, "categories": [{**entry, "name": f"n{entry['id']}"} for entry in document["categories"]]}))
    assert main([*base, "--annotations", str(other), "--images", str(tiny_run.images)]) == 2
    assert "must have the classes that" in capsys.readouterr().err


def test_cross_fitting_judges_each_half_by_the_other():
    n = np.arange(8)
    image = np.array([0, 1, 0, 1, 2, 3, 2, 3])
    matches = Matches(n, n * 0, np.linspace(0.9, 0.2, 8), n * 0.1, n, n < 0, n >= 0, num_ground_truth=np.array([8]))
    results = DetectionColumns(image, n * 0, np.zeros((8, 4)), matches.scores)
    seen = []

    def fit(part):
        seen.append(part.detection.tolist())
        return lambda scores, labels: scores * 0 + len(seen)

    crossed = cross_fitted(matches, results, fit)
    even, odd = n[image % 2 == 0], n[image % 2 == 1]
    assert seen == [odd.tolist(), even.tolist()]
    assert crossed.scores[even].tolist() == [1] * 4
    assert crossed.scores[odd].tolist() == [2] * 4
    assert matches.scores[0] == 0.9
