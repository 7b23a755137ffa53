"""`lossbox report`, called as a user would."""

import json
import re
import shutil

import pytest

import lossbox
from lossbox.__main__ import main


def content_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])


@pytest.fixture
def two_runs(tiny_run, tmp_path):
    """A finished run, and one of another recipe that was interrupted in its first epoch."""
    shutil.copytree(tiny_run.out, tmp_path / "runs" / "done", ignore=shutil.ignore_patterns("checkpoints"))
    begun = tmp_path / "runs" / "deeper" / "begun"
    begun.mkdir(parents=True)
    begun.joinpath("config.yaml").write_text((tiny_run.out / "config.yaml").read_text().replace("max_epochs: 1", "max_epochs: 2"))
    return tmp_path / "runs"


def test_fit_leaves_a_page_and_says_where(tiny_run):
    content = content_of(tiny_run.out / "report.html")
    assert content["runs"][0]["numbers"]["AP"] == json.loads((tiny_run.out / "metrics.json").read_text())["AP"]
    assert content["runs"][0]["notes"] == []
    images = content["sets"][0]["images"]
    assert images
    assert all(image["source"] for image in images)
    command = content["runs"][0]["facts"]["command"]
    assert command[0] == "fit"
    assert str(tiny_run.out) in command


def test_runs_below_a_folder_and_one_that_was_interrupted(two_runs, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    assert main(["report", str(two_runs), str(two_runs / "done"), "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"2 runs: .*page.html \(\d.\d MB\)", said)
    assert "note: deeper/begun: The training did not end" in said
    assert "note: deeper/begun: Nothing was validated" in said
    content = content_of(page)
    assert [run["name"] for run in content["runs"]] == ["deeper/begun", "done"]
    assert [("set" in run, len(run["curves"]) > 0) for run in content["runs"]] == [(False, False), (True, True)]
    text = page.read_text()
    assert "trainer.max_epochs" in text
    assert f"lossbox report {two_runs} {two_runs / 'done'} --out {page}" in text


def test_two_seeds_have_an_interval(two_runs, tmp_path):
    shutil.copytree(two_runs / "done", two_runs / "again")
    again = two_runs / "again" / "config.yaml"
    again.write_text(again.read_text().replace("seed_everything: 0", "seed_everything: 1"))
    results = two_runs / "again" / "detections.json"
    results.write_text(json.dumps(json.loads(results.read_text())[::2]))
    written = lossbox.write_report([two_runs / "done", two_runs / "again"], out=tmp_path / "page.html", resamples=20)
    assert [content_of(written.page)["runs"][index]["group"] for index in (0, 1)] == [0, 0]
    assert written.page.read_text().count('<td>oLRP</td><td class="n">') == 1
    lossbox.write_report([two_runs / "done", two_runs / "again"], out=tmp_path / "page.html", resamples=0)
    assert '<td>oLRP</td><td class="n">' not in (tmp_path / "page.html").read_text()


def test_a_folder_that_is_no_run_is_named(tmp_path, two_runs, capsys):
    assert main(["report", str(two_runs), str(tmp_path / "none")]) == 2
    assert f"RUNS: {tmp_path / 'none'} does not exist; the folder of a run of `lossbox fit` expected" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 2
    assert f"RUNS: {tmp_path / 'empty'} holds no run" in capsys.readouterr().err
    assert main(["report", str(two_runs / "done" / "run.json")]) == 2
    assert "run.json is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.yaml", "a: [", "config.yaml: not YAML"),
        ("config.yaml", "a: 1", "config.yaml: not the resolved recipe of a run: it lacks 'model'"),
        ("metrics.json", "{", "metrics.json: not JSON"),
        ("detections.json", '[{"image_id": 1}]', "detections.json"),
        ("csv/version_0/metrics.csv", "step,epoch,a\n1,0,x\n", "metrics.csv"),
    ],
)
def test_a_damaged_file_is_named(two_runs, name, text, message, capsys):
    (two_runs / "done" / name).write_text(text)
    assert main(["report", str(two_runs / "done")]) == 2
    assert message in capsys.readouterr().err


def test_options_out_of_range(two_runs, capsys):
    assert main(["report", str(two_runs), "--iou", "1"]) == 2
    assert "iou: a number in (0, 1) expected, got 1.0" in capsys.readouterr().err
    assert main(["report", str(two_runs), "--resamples", "-1"]) == 2
    assert "resamples: a number >= 0 expected, got -1" in capsys.readouterr().err


def test_without_detections_the_page_says_what_is_missing(two_runs, tmp_path):
    (two_runs / "done" / "detections.json").unlink()
    written = lossbox.write_report(two_runs / "done", out=tmp_path / "page.html")
    assert [note.partition(": ")[2] for note in written.notes] == [
        "ground_truth.json and detections.json are not there (they are not written with --artifacts false): no curves, no images."
    ]
    assert content_of(written.page)["runs"][0]["numbers"]["AP"] is not None


def test_the_page_lies_in_the_folder_of_the_run_and_overwrites_no_other_file(two_runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = two_runs / "done" / "report.html"
    before = page.stat().st_mtime_ns
    assert main(["report", "runs/done", "--resamples", "0"]) == 0
    assert "1 run: runs/done/report.html" in capsys.readouterr().out
    assert page.stat().st_mtime_ns > before  # an earlier page is overwritten
    assert not (tmp_path / "report.html").exists()
    page.write_text("<html>mine</html>")
    assert main(["report", "runs/done", "--resamples", "0"]) == 2
    assert "--out: runs/done/report.html is there and no page of lossbox report" in capsys.readouterr().err
    assert page.read_text() == "<html>mine</html>"
