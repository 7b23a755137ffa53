"""A training on tiles: what its detector finds is measured in whole images, by every command alike."""

import json

import numpy as np
import pytest
import yaml

import lossbox
from lossbox.__main__ import main
from lossbox.data.digits import write_digits
from lossbox.programs.model_card import write_card
from lossbox.training.cli import LossboxCLI
from lossbox.training.load import Trained


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"), train_images=2, val_images=3, size=128, progress=False)


@pytest.fixture(scope="module")
def run(digits, tiny_recipe, tmp_path_factory):
    """A run of one epoch on tiles of 96 px, and what it said."""
    out = tmp_path_factory.mktemp("run")
    content = tiny_recipe(digits, image_size="auto", batch_size=3)
    content["model"]["decoder"]["init_args"] = {"score_threshold": 0.001, "max_detections": 9}
    content["artifacts"] = False
    (out / "recipe.yaml").write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(out / "recipe.yaml"), "--out", str(out), "--tile", "96", "--overlap=0.25"]) == 0
    return out


def predict(run, digits, out, *words):
    words = ["predict", str(digits.val_images), "--ckpt", str(run / "checkpoints" / "last.ckpt"), "--no-images", "--device", "cpu", *words]
    assert main([*words, "--annotations", str(digits.val_annotations), "--out", str(out)]) == 0
    return json.loads((out / "detections.json").read_text())


@pytest.fixture(scope="module")
def as_trained(run, digits, tmp_path_factory):
    return predict(run, digits, tmp_path_factory.mktemp("as_trained"))


def test_a_run_keeps_its_tiles_and_validation_finds_in_whole_images_what_predict_does(run, digits, as_trained, tmp_path, capsys):
    data = yaml.safe_load((run / "config.yaml").read_text())["data"]
    assert (data["tile"], data["overlap"], data["image_size"]) == (96, 0.25, 96)
    metrics = json.loads((run / "metrics.json").read_text())
    validation = LossboxCLI(["validate", "--config", str(run / "config.yaml")])
    assert "tiles of 96 px, overlap 0.25: validation 3 images, 12 tiles (" in capsys.readouterr().out
    assert json.loads((run / "metrics.json").read_text()) == metrics
    boxes = len(json.loads(digits.val_annotations.read_text())["annotations"])
    assert sum(row["num_ground_truth"] for row in metrics["per_class"]) == boxes

    _, found = validation.model.detected()
    order = np.lexsort([-found.scores, found.image])
    np.testing.assert_allclose(found.scores[order], [row["score"] for row in as_trained], rtol=1e-4)
    np.testing.assert_allclose(found.boxes[order], [row["bbox"] for row in as_trained], atol=1e-2)
    assert any(row["bbox"][0] + row["bbox"][2] > 100 for row in as_trained)  # right of the first tile
    (tmp_path / "found.json").write_text(json.dumps(as_trained))
    numbers = lossbox.evaluate(digits.val_annotations, tmp_path / "found.json")
    assert [numbers[name] for name in ("AP", "oLRP")] == pytest.approx([metrics[name] for name in ("AP", "oLRP")], abs=1e-5)


def test_the_model_card_names_the_tiles(run, tmp_path):
    content = {"checkpoint": "last.ckpt", "height": 96, "width": 96, "classes": [], "nms": False}
    card = write_card(tmp_path / "model.onnx", content, run / "config.yaml", license="mine", thresholds=None)
    assert {"tile": 96, "overlap": 0.25}.items() <= json.loads(card.read_text()).items()
    assert "- **Tiles**: trained and measured on tiles of 96 pixels, overlap 0.25\n" in card.with_suffix(".md").read_text()


def test_the_number_of_tiles_is_said_before_the_work(run, digits, tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise ValueError("the work begins")

    monkeypatch.setattr(Trained, "detect_tiles", stop)
    words = ["predict", str(digits.val_images), "--ckpt", str(run), "--no-images", "--device", "cpu", "--out", str(tmp_path)]
    assert main(words) == 2
    said, _, then = capsys.readouterr().err.partition("\n")
    assert said == "tiles of 96 px, overlap 0.25 (as in the training; --tile 0 looks at whole images): 3 files, 12 tiles"
    assert "the work begins" in then


def test_tiles_are_switched_off_and_chosen(run, digits, as_trained, tmp_path, capsys):
    whole = predict(run, digits, tmp_path / "a", "--tile", "0")
    assert "tiles of" not in capsys.readouterr().err
    other = predict(run, digits, tmp_path / "b", "--tile", "64")
    assert "tiles of 64 px, overlap 0.25: 3 files, 27 tiles\n" in capsys.readouterr().err
    assert len({json.dumps(rows) for rows in (whole, other, as_trained)}) == 3
    detector = lossbox.load(run, device="cpu")
    assert "tiles of 96 px at 96 px" in repr(detector)
    files = sorted(digits.val_images.glob("*.*g"))
    for rows, options in ((whole, {"tile": 0}), (as_trained, {})):
        assert [row["score"] for row in rows] == [score for one in detector.predict(files, **options) for score in one.scores.tolist()]
