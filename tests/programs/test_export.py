"""`lossbox export`: the file runs without lossbox and says what the detector says."""

import json

import pytest
import torch
import torch.nn.functional as F

from lossbox.__main__ import main
from lossbox.programs import export
from lossbox.training.load import load_trained


def detector_says(run, images, checkpoint=None):
    trained = load_trained(checkpoint or run.checkpoint, run.config, device="cpu")
    with torch.inference_mode():
        predictions = trained.task.detector(images)
    return predictions.logits.sigmoid(), predictions.coder.decode(predictions.regression, predictions.anchors)


def opened(file):
    """The file as a function of images."""
    if file.suffix == ".pt2":
        return torch.no_grad()(torch.export.load(file).module())
    session = pytest.importorskip("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(array) for array in session.run(["scores", "boxes"], {"images": images.numpy()})]


def outspoken(run, folder, *, shift=0.0):
    """The checkpoint of a two-stage run that says different things of different places; ``shift`` moves the proposals to the right."""
    saved = torch.load(run.checkpoint, weights_only=False)
    generator = torch.Generator().manual_seed(0)
    for name, weight in saved["state_dict"].items():
        if name.endswith(("head.classification.weight", "head.box.weight")):
            weight.normal_(std=0.3, generator=generator)
    saved["state_dict"]["detector.proposal_head.box.bias"][0] += shift
    torch.save(saved, folder / "outspoken.ckpt")
    return folder / "outspoken.ckpt"


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


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_two_stages_say_the_same_for_any_batch(tiny_two_stage_run, tmp_path, capsys, suffix):
    file, checkpoint = tmp_path / f"model{suffix}", outspoken(tiny_two_stage_run, tmp_path)
    assert main(["export", str(file), "--ckpt", str(checkpoint), "--config", str(tiny_two_stage_run.config)]) == 0
    assert "[64, 64] pixels, 300 places, 10 classes" in capsys.readouterr().out
    file_says = opened(file)
    for count in (1, 3, 5):
        images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))
        images[-1, :, 20:] = 0.5
        found = file_says(images)
        assert [tuple(part.shape) for part in found] == [(count, 300, 10), (count, 300, 4)]
        assert found[0].aminmax() == (0, pytest.approx(1, abs=0.5))
        expected = detector_says(tiny_two_stage_run, images, checkpoint)
        most = expected[0].shape[1]
        assert 0 < most < 300
        assert all((part[:, most:] == 0).all() for part in found)
        # rounding may make two proposals change places
        rows, others = (torch.cat([scores, boxes / 10], -1) for scores, boxes in (found, expected))
        apart = torch.cdist(rows[:, :most], others, p=torch.inf)
        assert max(apart.amin(1).max(), apart.amin(2).max()) < 1e-4


def test_images_without_proposals_have_scores_and_boxes_of_zero(tiny_two_stage_run, tmp_path):
    file, checkpoint = tmp_path / "model.onnx", outspoken(tiny_two_stage_run, tmp_path, shift=1e3)
    assert main(["export", str(file), "--ckpt", str(checkpoint), "--config", str(tiny_two_stage_run.config)]) == 0
    images = torch.rand(3, 3, 64, 64)
    assert detector_says(tiny_two_stage_run, images, checkpoint)[0].shape == (3, 0, 10)
    scores, boxes = opened(file)(images)
    assert torch.equal(scores, torch.zeros(3, 300, 10))
    assert torch.equal(boxes, torch.zeros(3, 300, 4))


def test_proposals_are_compared_in_any_order_and_one_in_a_hundred_may_be_another():
    generator = torch.Generator().manual_seed(0)
    scores, boxes = torch.rand(1, 200, 3, generator=generator), torch.rand(1, 200, 4, generator=generator) * 50
    order = torch.randperm(200, generator=generator)
    found = [F.pad(part[:, order], (0, 0, 0, 9)) for part in (scores, boxes)]
    assert export._difference_in_any_order(found, (scores, boxes)) == 0
    for rows, differs in (([3, 140], False), ([3, 140, 141], True)):
        other = found[0].clone()
        other[0, rows] += 0.5
        assert (export._difference_in_any_order([other, found[1]], (scores, boxes)) > 0.1) == differs
    # too few
    few = [part[:, :150] for part in found]
    assert export._difference_in_any_order(few, (scores, boxes)) > 0.1
    for i in range(2):
        broken = [part.clone() for part in (scores, boxes)]
        broken[i][0, 7, 0] = torch.nan
        for difference in (export._difference, export._difference_in_any_order):
            assert not difference(broken, (scores, boxes)) <= export.TOLERANCE


def test_what_cannot_be_exported_is_named(tiny_run, tmp_path, capsys, monkeypatch):
    assert main(["export", str(tmp_path / "model.tflite"), "--ckpt", str(tiny_run.checkpoint)]) == 2
    assert "ends in .onnx or .pt2 expected" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "model.pt2"), "--ckpt", str(tmp_path / "no.ckpt")]) == 2
    assert "no.ckpt" in capsys.readouterr().err
    # a file that says something else than the detector is not passed over
    monkeypatch.setattr(export, "_run_pt2", lambda path, images: [torch.zeros(1, 320, 10), torch.zeros(1, 320, 4)])
    assert main(["export", str(tmp_path / "model.pt2"), "--ckpt", str(tiny_run.checkpoint)]) == 2
    assert "differs from the detector by" in capsys.readouterr().err
