"""`lossbox export`: the file runs without lossbox and says what the detector says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import lossbox
from lossbox.__main__ import main
from lossbox.programs import export
from lossbox.programs.model_card import write_card
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
    assert "ends in .onnx, .xml or .pt2 expected" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "model.pt2"), "--ckpt", str(tmp_path / "no.ckpt")]) == 2
    assert "no.ckpt" in capsys.readouterr().err
    # a file that says something else than the detector is not passed over
    monkeypatch.setitem(export._RUNNERS, ".pt2", lambda *_: [torch.zeros(1, 320, 10), torch.zeros(1, 320, 4)])
    assert main(["export", str(tmp_path / "model.pt2"), "--ckpt", str(tiny_run.checkpoint)]) == 2
    assert "differs from the detector by" in capsys.readouterr().err


# -- suppression in the file


def with_nms(run, folder, checkpoint, suffix=".onnx"):
    file = folder / f"model{suffix}"
    words = ["export", str(file), "--ckpt", str(checkpoint), "--config", str(run.config), "--license", "CC BY 4.0"]
    assert main([*words, "--nms"]) == 0
    return file


@pytest.fixture(scope="module")
def loud(tiny_run, tmp_path_factory):
    """A file with suppression of a checkpoint with a head that says many things, some of them loudly; and the checkpoint."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("loud")
    saved = torch.load(tiny_run.checkpoint, weights_only=False)
    generator = torch.Generator().manual_seed(1)
    for name, weight in saved["state_dict"].items():
        if name.endswith(("classification.weight", "box.weight", "regression.weight")):
            weight.normal_(std=0.4, generator=generator)
    torch.save(saved, folder / "loud.ckpt")
    return with_nms(tiny_run, folder, folder / "loud.ckpt"), folder / "loud.ckpt"


def detections(file, images, original):
    """Rows of x1 y1 x2 y2, score and label, as the file gives them."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    inputs = {"images": images.numpy(), "size": torch.tensor(original).numpy()}
    boxes, scores, labels = map(torch.from_numpy, session.run(["boxes", "scores", "labels"], inputs))
    assert (labels.dtype, boxes.dtype, scores.dtype) == (torch.int64, torch.float32, torch.float32)
    assert torch.equal(scores, scores.sort(descending=True).values)
    return torch.cat([boxes, scores[:, None], labels[:, None].float()], 1)


def decoded(trained, images, original, size):
    with torch.inference_mode():
        found = trained.task.decoder(trained.task.detector(images), [size])[0].resized(size, original)
    return torch.cat([found.boxes, found.scores[:, None], found.labels[:, None].float()], 1)


def test_suppression_in_the_file_is_the_decoders(tiny_run, loud):
    file, checkpoint = loud
    trained = load_trained(checkpoint, tiny_run.config, device="cpu")
    labels = set()
    for number, original in enumerate([(64, 64), (90, 128), (301, 77), (1, 500)]):
        images = torch.zeros(1, 3, 64, 64)
        size = tuple(max(round(side * 64 / max(original)), 1) for side in original)
        images[:, :, : size[0], : size[1]] = torch.rand(3, *size, generator=torch.Generator().manual_seed(number))
        found, expected = detections(file, images, original), decoded(trained, images, original, size)
        assert abs(len(found) - len(expected)) <= 1
        assert len(expected) > 5
        assert export._difference_in_any_order([found[None]], [expected[None]]) < 1e-4
        labels |= set(found[:, 5].tolist())
    assert len(labels) > 2


def test_nothing_found_is_empty(loud, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(loud[0]))
    (zero,) = (constant for constant in model.graph.initializer if constant.name == "nms_zero")
    zero.CopyFrom(onnx.helper.make_tensor("nms_zero", onnx.TensorProto.FLOAT, [1], [2.0]))
    onnx.save(model, str(tmp_path / "mute.onnx"))
    assert detections(tmp_path / "mute.onnx", torch.rand(1, 3, 64, 64), (64, 64)).shape == (0, 6)
    nothing, something = ([torch.rand(1, n, 1)] for n in (0, 1))
    assert export._difference_in_any_order(nothing, nothing) == 0
    assert export._difference_in_any_order(nothing, something) == torch.inf
    assert export._difference_in_any_order(something, nothing) > export.TOLERANCE


def test_the_example_runs_the_file_without_torch(tiny_run, loud):
    image = sorted(tiny_run.images.glob("*.jpg"))[1]
    script = Path(__file__).parents[2] / "examples" / "run_onnx.py"
    barred = "import sys; sys.modules |= dict.fromkeys(('torch', 'torchvision', 'lossbox')); "
    barred += f"sys.argv = ['x', {str(loud[0])!r}, {str(image)!r}]; exec(open({str(script)!r}).read())"
    done = subprocess.run([sys.executable, "-c", barred], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    with Image.open(image) as opened_image:
        width, height = opened_image.size
    for line in lines:
        x1, y1, x2, y2 = json.loads(line[line.index("[") :])
        assert 0 <= x1 < x2 <= width + 0.1
        assert 0 <= y1 < y2 <= height + 0.1
    first = lossbox.load(loud[1], tiny_run.config, device="cpu").predict(image)[0]
    assert float(lines[0].split()[2]) == pytest.approx(first.scores[0].item(), abs=0.05)


def test_openvino_says_the_same(tiny_run, loud, tmp_path):
    openvino = pytest.importorskip("openvino")
    with_nms(tiny_run, tmp_path, loud[1], suffix=".xml")
    file = tmp_path / "plain.xml"
    assert main(["export", str(file), "--ckpt", str(loud[1]), "--config", str(tiny_run.config)]) == 0
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    found = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"images": images.numpy()})
    for name, expected in zip(("scores", "boxes"), detector_says(tiny_run, images, loud[1]), strict=True):
        torch.testing.assert_close(torch.from_numpy(found[name].copy()), expected, rtol=1e-3, atol=1e-3)


def test_options_that_do_not_go_together(tiny_run, tmp_path, capsys):
    base = ["--ckpt", str(tiny_run.checkpoint)]
    assert main(["export", str(tmp_path / "m.pt2"), *base, "--nms"]) == 2
    assert "nms: a file name that ends in .onnx or .xml expected" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "m.onnx"), *base, "--thresholds", "t.csv"]) == 2
    assert "--thresholds goes with --nms" in capsys.readouterr().err
    few = tmp_path / "few.csv"
    few.write_text("category_id,name,threshold\n1,0,0.5\n")
    assert main(["export", str(tmp_path / "m.onnx"), *base, "--nms", "--thresholds", str(few)]) == 2
    assert "few.csv has 1 classes, the detector 10" in capsys.readouterr().err


def test_the_model_card(tiny_run, loud, tmp_path):
    card, metrics = json.loads(loud[0].with_suffix(".json").read_text()), json.loads((tiny_run.out / "metrics.json").read_text())
    assert (card["license"], card["nms"]) == ("CC BY 4.0", True)
    assert card["metrics"]["oLRP"] == metrics["oLRP"]
    assert [row["threshold"] for row in card["classes"]] == [row["threshold"] for row in metrics["per_class"]]
    assert card["recipe"]["detector"].endswith("RetinaNet")
    assert card["versions"]["torch"] == torch.__version__.split("+")[0]
    assert card["data"]["train_annotations"].endswith("train.json")
    text = loud[0].with_suffix(".md").read_text()
    for part in ("# model.onnx", "CC BY 4.0", "train.json", "| 9 | 10 | 9 |", "oLRP "):
        assert part in text

    # no metrics.json beside the recipe, but thresholds of the user's
    alone, thresholds = tmp_path / "config.yaml", tmp_path / "t.csv"
    alone.write_text(tiny_run.config.read_text())
    thresholds.write_text("category_id,name,threshold\n1,0,0.25\n2,1,\n")
    content = {name: card[name] for name in ("checkpoint", "height", "width", "nms")}
    classes = [{"label": 0, "id": 1, "name": "a|b"}, {"label": 1, "id": 2, "name": "<b>"}]
    path = write_card(tmp_path / "m.pt2", content | {"classes": classes}, alone, license="not stated", thresholds=thresholds)
    written = json.loads(path.read_text())
    assert (written["metrics"], [row["threshold"] for row in written["classes"]]) == (None, [0.25, None])
    text = path.with_suffix(".md").read_text()
    for part in ("**Accuracy**: not measured", "| 0 | 1 | a\\|b | 0.250 | - |", "| 1 | 2 | &lt;b> | - | - |"):
        assert part in text
