"""Runs beside each other: what belongs together, what differs, and what to type."""

from pathlib import Path

import pytest

from lossbox.metrics import DetectionColumns, evaluate
from lossbox.report import comparison
from lossbox.report.runs import Run


def run(name, seed=0, *, rate=0.1, folder=None, truth=None, found=None, **config):
    out = folder or f"runs/{name}"
    recipe = {"seed_everything": seed, "out": out, "model": {"rate": rate}, "data": {"val": f"{out}/data/val.json"}, **config}
    metrics = None if truth is None else evaluate(truth, found)
    return Run(name, Path(out), recipe, {}, {}, truth, found, None, metrics)


def test_runs_that_differ_in_seed_and_folder_are_of_one_recipe():
    runs = [run("a/0"), run("b/0", rate=0.2), run("a/1", 1), run("b/1", 1, rate=0.2), run("c", rate=0.2, more={"x": None, "y": []})]
    assert comparison.group_runs(runs) == [0, 1, 0, 1, 2]
    assert comparison.differing_options(runs, [0, 1, 0, 1, 2]) == [
        ("model.rate", ["0.1", "0.2", "0.2"]),
        ("more.x", ["", "", "null"]),
        ("more.y", ["", "", "[]"]),
    ]
    assert comparison.options_of(runs[0])["data.val"] == "OUT/data/val.json"
    nothing = [Run(name, Path(name), {}, {}, {}) for name in "ab"]
    assert comparison.group_runs(nothing) == [0, 1]


def test_groups_of_one_name_are_told_apart():
    assert comparison.name_groups(["a/0", "a/x/0", "a/1", "a/x/1"], [0, 1, 0, 1]) == ["a", "a/x"]
    assert comparison.name_groups(["m-0", "m-1", "m-2", "m-3"], [0, 0, 1, 1]) == ["m", "m (2)"]


def test_each_recipe_is_compared_with_the_first_and_only_on_the_same_annotations(random_data):
    (truth, found), (other, others_found) = random_data(0), random_data(1)
    same = {"truth": truth, "found": found}
    runs = [run("a/0", **same), run("b/0", rate=0.2, **same), run("a/1", 1, **same), run("b/1", 1, rate=0.2, **same)]
    assert comparison.paired_runs(runs) == [(0, 1), (2, 3)]
    assert comparison.paired_runs([runs[0], runs[2]]) == [(0, 1)]
    assert comparison.paired_runs([runs[0], run("b/0", rate=0.2, truth=other, found=others_found)]) == []
    assert comparison.paired_runs([runs[0], run("b/0", rate=0.2)]) == []
    assert comparison.paired_runs(runs[:1]) == []


def test_the_interval_of_a_difference_is_around_it(random_data):
    truth, found = random_data(0)
    worse = DetectionColumns(found.image[::2], found.category[::2], found.boxes[::2], found.scores[::2])
    base, other = run("a", truth=truth, found=found), run("b", truth=truth, found=worse)
    rows = comparison.interval_rows(base, other, tau=0.5, resamples=50)
    assert [row["number"] for row in rows] == ["AP", "AP50", "oLRP"]
    assert rows[0]["difference"] == pytest.approx(other.metrics["AP"] - base.metrics["AP"])
    assert all(row["lower"] <= row["upper"] and (row["base"], row["name"]) == ("a", "b") for row in rows)
    assert comparison.spread([None]) == {"mean": None, "deviation": None}


def test_commands_are_those_of_a_finished_an_unfinished_and_a_foreign_run(tmp_path):
    words = ["fit", "--config", "my recipe.yaml"]
    finished = Run("a", Path("runs/a"), {"out": "runs/a", "ckpt_path": None}, {"command": words, "folder": "/home/me"}, {})
    typed, again = comparison.commands_of(finished)
    assert typed == ("as it was trained, in /home/me", "lossbox fit --config 'my recipe.yaml'")
    assert again[1] == "lossbox fit --config runs/a/config.yaml --out runs/a-again"
    resumed = Run("a", Path("runs/a"), {"out": "runs/a", "ckpt_path": "last"}, {"command": words}, {})
    assert comparison.commands_of(resumed)[1][1].endswith("--ckpt_path null")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    unfinished = Run("a", tmp_path, {"out": str(tmp_path)}, {}, {})
    assert comparison.commands_of(unfinished)[-1][1].endswith("--ckpt_path last")
    assert comparison.commands_of(Run("a", tmp_path, {}, {}, {})) == []
    assert comparison.report_command([Path("a"), Path("b")], Path("o.html"), tau=0.75) == "lossbox report a b --out o.html --iou 0.75"
