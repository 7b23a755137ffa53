"""`lossbox export`: the file runs without lossbox and says what the detector says."""

import json

import pytest
import torch

from lossbox.__main__ import main
from lossbox.programs import export
from lossbox.programs.trained import load_trained


def detector_says(run, images):
    trained = load_trained(run.checkpoint, device="cpu")
    with torch.inference_mode():
        predictions = trained.task.detector(images)
    return predictions.logits.sigmoid(), predictions.coder.decode(predictions.regression, predictions.anchors)


def test_onnx_says_what_the_detector_says(tiny_run, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "new" / "model.onnx"
    assert main(["export", str(file), "--ckpt", str(tiny_run.checkpoint)]) == 0
    assert "[64, 64] pixels, 320 places, 10 classes" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["scores", "boxes"]
    for count in (1, 3):
        images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))
        scores, boxes = map(torch.from_numpy, session.run(None, {"images": images.numpy()}))
        expected = detector_says(tiny_run, images)
        torch.testing.assert_close(scores, expected[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(boxes, expected[1], rtol=1e-4, atol=1e-3)
    card = json.loads(file.with_suffix(".json").read_text())
    assert (card["height"], card["width"]) == (64, 64)
    assert [row["name"] for row in card["classes"]] == [str(digit) for digit in range(10)]


def test_torch_export_says_what_the_detector_says(tiny_run, tmp_path):
    file = tmp_path / "model.pt2"
    assert main(["export", str(file), "--ckpt", str(tiny_run.checkpoint), "--size", "64", "96"]) == 0
    images = torch.rand(5, 3, 64, 96)
    found = torch.export.load(file).module()(images)
    for mine, expected in zip(found, detector_says(tiny_run, images), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_exported_is_named(tiny_run, tmp_path, capsys, monkeypatch):
    assert main(["export", str(tmp_path / "model.tflite"), "--ckpt", str(tiny_run.checkpoint)]) == 2
    assert "ends in .onnx or .pt2 expected" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "model.pt2"), "--ckpt", str(tmp_path / "no.ckpt")]) == 2
    assert "no.ckpt" in capsys.readouterr().err
    # a file that says something else than the detector is not passed over
    monkeypatch.setattr(export, "_run_pt2", lambda path, images: [torch.zeros(1, 320, 10), torch.zeros(1, 320, 4)])
    assert main(["export", str(tmp_path / "model.pt2"), "--ckpt", str(tiny_run.checkpoint)]) == 2
    assert "differs from the detector by" in capsys.readouterr().err
