"""`lossbox compare` on a study, called as a user would."""

import json

import pytest

from lossbox.__main__ import main
from lossbox.programs.compare import STUDIES


def test_toy_prints_the_papers_numbers_and_writes_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["compare", "toy", "--json", str(tmp_path / "new" / "toy.json"), "--out", str(tmp_path / "out")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    # IoU 0.65, then the losses of C & R3: cross-entropy, AP, IoU, aLRP
    assert ["0.65", "C", "&", "R3", *["0.33"] * 4, "0.30", "0.30", *["0.00"] * 4, "0.19"] in lines
    assert ["C", "&", "R3", "0.87", "0.36", "0.28", "0.89", "0.20", "0.84", "-0.99"] in lines
    numbers = json.loads((tmp_path / "new" / "toy.json").read_text())
    assert numbers["detectors"]["C & R2"]["alrp_loss"] == pytest.approx(0.6925)
    assert (tmp_path / "out" / "toy.png").read_bytes().startswith(b"\x89PNG")


def test_help_lists_the_studies(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for name in STUDIES:
        assert any(line.split()[:1] == [name] for line in shown.splitlines())


@pytest.mark.parametrize("name", STUDIES)
def test_each_study_has_its_own_help(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", name, "--help"])
    assert stopped.value.code == 0
    assert f"usage: lossbox compare {name}" in capsys.readouterr().out


def test_what_is_neither_study_nor_recipe_names_both(capsys):
    assert main(["compare", "toi"]) == 2
    said = capsys.readouterr().err
    assert "toi" in said
    assert "toy" in said
    assert "digits_retinanet_alrp" in said


def test_jobs_train_side_by_side_what_they_train_one_after_another(tiny_run, tmp_path, capsys, monkeypatch):
    words = ["compare", str(tiny_run.config), "--seeds", "0", "1", "--artifacts", "false", "--trainer.enable_checkpointing", "false"]
    part = tiny_run.images.parent / "train"  # that of the validation was changed
    words += ["--data.val_annotations", f"{part}.json", "--data.val_images", str(part)]
    monkeypatch.setattr("lossbox.data.digits.SILENCE", 0.1)
    found, said = {}, {}
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        assert main([*words, "--jobs", jobs, "--out", str(out), "--json", str(out / "all.json")]) == 0
        said[jobs] = capsys.readouterr().out.splitlines()
        document = json.loads((out / "all.json").read_text())
        found[jobs] = [run[name] for run in document["runs"] for name in ("seed", "AP", "oLRP", "steps")]
        assert document["summary"]["config"]["seeds"] == [0, 1]
        assert all(run["cpu_minutes"] > 0 and run["accelerator"] == "cpu" for run in document["runs"])
    assert found["1"] == pytest.approx(found["2"], rel=1e-6)  # trainings side by side have fewer threads, which add in another order
    assert "training RetinaNet" in (tmp_path / "2" / "config" / "seed-1" / "log.txt").read_text()
    assert any(line.startswith("training RetinaNet") for line in said["1"])
    assert not any(line.startswith("training RetinaNet") for line in said["2"])
    assert "   config, seed 0: starts" in said["2"]  # and later the last line of its log


def test_a_failed_job_is_named_with_its_log(tiny_run, tmp_path, capsys):
    words = ["compare", str(tiny_run.config), "--seeds", "0", "--jobs", "2", "--out", str(tmp_path)]
    assert main([*words, "--data.train_annotations", "nowhere.json"]) == 2
    said = capsys.readouterr().err
    assert "1 of 1 trainings failed" in said
    assert "nowhere.json does not exist" in said
    assert str(tmp_path / "config" / "seed-0" / "log.txt") in said
    assert main([*words, "--jobs", "0"]) == 2
    assert "jobs: a number >= 1" in capsys.readouterr().err
