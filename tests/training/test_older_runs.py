"""What version 0.1.0 left in the folder of a run (tests/fixtures/made_by_0_1_0.sh made it) is read, and says what it said then."""

import json
import math
from pathlib import Path

import pytest
import torch

import lossbox
from lossbox.__main__ import main
from lossbox.decoding import read_thresholds
from lossbox.metrics import evaluate, read_ground_truth, read_results, to_json

RUN = Path(__file__).parents[1] / "fixtures" / "run_0_1_0"


def read(name):
    return json.loads((RUN / name).read_text())


def test_a_checkpoint_finds_what_it_found():
    checkpoint = RUN / "checkpoints" / "best.ckpt"
    assert torch.load(checkpoint, weights_only=True)["lossbox_format"] == 1
    found = lossbox.load(checkpoint, device="cpu").predict(RUN / "image.png", score_threshold=0.049)[0]
    expected = read("predicted/detections.json")
    assert len(expected) > 20
    boxes, ids = found.boxes.clone(), torch.tensor([int(name) + 1 for name in found.class_names])
    boxes[:, 2:] -= boxes[:, :2]
    rows = torch.cat([boxes, 100 * found.scores[:, None], 100.0 * ids[:, None]], 1)
    stored = torch.tensor([[*row["bbox"], 100 * row["score"], 100 * row["category_id"]] for row in expected])
    # another processor rounds otherwise, which may change places; 0.05 is 0.05 pixels, and 0.0005 of a score
    nearest = torch.cdist(stored, rows, p=torch.inf).amin(1)
    assert nearest.max() < 0.05
    assert 0 <= len(rows) - len(stored) < 20


def test_its_numbers_are_those_of_its_detections():
    metrics = read("metrics.json")
    truth = read_ground_truth(RUN / "ground_truth.json")
    again = json.loads(to_json(evaluate(truth, read_results(RUN / "detections.json", truth))))
    for name in ("AP", "AP50", "AP75", "oLRP"):
        assert again[name] == pytest.approx(metrics[name], abs=1e-6)
    cuts = [math.nan if row["threshold"] is None else row["threshold"] for row in metrics["per_class"]]
    assert list(read_thresholds(RUN / "thresholds.csv").values()) == pytest.approx(cuts, nan_ok=True)


def test_its_report_is_written(tmp_path, capsys):
    assert main(["report", str(RUN), "--out", str(tmp_path / "page.html")]) == 0
    assert "1 run: " in capsys.readouterr().out
    assert f"{read('metrics.json')['oLRP']:.3f}" in (tmp_path / "page.html").read_text()
