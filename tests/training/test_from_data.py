"""`auto` in a recipe: a run holds the numbers, a number given wins, and what comes after the training keeps them."""

import json
from pathlib import Path

import pytest
import yaml

from lossbox.__main__ import main
from lossbox.coco import read
from lossbox.data.digits import write_digits
from lossbox.data.module import CocoDataModule
from lossbox.detectors import FasterRCNN, RetinaNet

IMAGE_SIZE, ANCHOR_SCALE = "--data.image_size", "--model.detector.init_args.anchor_scale"


@pytest.fixture
def digits(tmp_path):
    return write_digits(tmp_path / "digits", train_images=4, val_images=2, size=64, progress=False)


@pytest.fixture
def words(digits, tiny_recipe, tmp_path):
    """A tiny run whose detector has an anchor of one shape on a place."""
    content = tiny_recipe(digits, image_size="auto")
    content["model"]["detector"]["init_args"]["anchor_scale"] = "auto"
    content |= {"out": str(tmp_path / "run"), "artifacts": False}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    return ["--config", str(tmp_path / "recipe.yaml")]


def of_the_run(out):
    config = yaml.safe_load((out / "config.yaml").read_text())
    return config["data"]["image_size"], config["model"]["detector"]["init_args"]["anchor_scale"]


def grow(path, factor):
    """Larger boxes, from the upper left corner, as far as an image of 64 px goes."""
    document = json.loads(path.read_text())
    for entry in document["annotations"]:
        entry["bbox"] = [0, 0, *(min(64, factor * side) for side in entry["bbox"][2:])]
    path.write_text(json.dumps(document))


def test_a_run_holds_the_numbers_and_what_follows_keeps_them(words, digits, tmp_path, capsys):
    assert main(["fit", *words]) == 0
    size, scale = began = of_the_run(tmp_path / "run")
    assert size == 64
    assert scale in (1.5, 2.0, 3.0)
    shown = capsys.readouterr().out
    assert "image_size: 64 (auto: 90 % of the boxes have a side of at least " in shown
    assert f"anchor_scale: {scale} (auto: the median box is " in shown

    grow(digits.train_annotations, 20)
    assert main(["fit", *words, "--trainer.max_epochs", "2", "--ckpt_path", "last"]) == 0
    assert of_the_run(tmp_path / "run") == began
    assert f"anchor_scale: {scale} (auto: as in {tmp_path / 'run' / 'config.yaml'})" in capsys.readouterr().out

    digits.train_annotations.unlink()
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert main(["validate", *words]) == 0
    assert main(["validate", "--config", str(tmp_path / "run" / "config.yaml")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("(auto: as in ") == 2  # for the recipe; the config of the run says no auto
    assert main(["predict", str(digits.val_images), "--ckpt", checkpoint, "--no-images", "--out", str(tmp_path / "found")]) == 0


def test_the_training_file_is_read_once_and_left_out_boxes_are_told_of_once(words, digits, monkeypatch):
    document = json.loads(digits.train_annotations.read_text())
    document["annotations"][0]["bbox"][2] = 0
    digits.train_annotations.write_text(json.dumps(document))
    opened, load = [], read.load_json
    monkeypatch.setattr(read, "load_json", lambda path, expected: opened.append(Path(path)) or load(path, expected))
    fast = ["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1", "--data.on_bad_box", "drop"]
    with pytest.warns(UserWarning, match="annotations dropped") as told:
        assert main(["fit", *words, *fast]) == 0
    assert opened.count(digits.train_annotations) == 1
    assert sum("annotations dropped" in str(one.message) for one in told) == 1


def test_a_run_after_the_boxes_have_grown_chooses_anew_and_a_number_wins(words, digits, tmp_path, capsys):
    grow(digits.train_annotations, 20)
    fast = ["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"]
    assert main(["fit", *words, *fast]) == 0
    assert of_the_run(tmp_path / "run") == (64, 8.0)
    capsys.readouterr()
    assert main(["fit", *words, *fast, "--out", str(tmp_path / "own"), IMAGE_SIZE, "96", ANCHOR_SCALE, "2.5"]) == 0
    assert of_the_run(tmp_path / "own") == (96, 2.5)
    assert "auto" not in capsys.readouterr().out
    # at a size of one's own the scale is that for it
    assert main(["fit", *words, *fast, "--out", str(tmp_path / "small"), IMAGE_SIZE, "16"]) == 0
    size, scale = of_the_run(tmp_path / "small")
    assert size == 16
    assert scale < 8.0


def test_the_training_annotations_are_needed(words, digits, capsys):
    digits.train_annotations.unlink()
    assert main(["fit", *words]) == 2
    assert f"train_annotations: {digits.train_annotations} does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "option"),
    [("digits_fcos_alrp", "anchor_scale"), ("digits_foveabox_alrp", "base_scale"), ("digits_retinanet_alrp", "scales")],
)
def test_what_auto_cannot_decide_is_refused_by_name(recipe, option, tmp_path, capsys):
    assert main(["fit", "--config", recipe, "--out", str(tmp_path), f"--model.detector.init_args.{option}", "auto"]) == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize("detector", [RetinaNet, FasterRCNN])
def test_a_detector_takes_a_number_only(detector):
    with pytest.raises(ValueError, match="anchor_scale: a number > 0 expected, got 'auto', which `lossbox fit` decides"):
        detector(3, anchor_scale="auto")


def test_the_data_module_takes_a_number_only():
    with pytest.raises(ValueError, match="image_size: a number of pixels or a pair expected, got 'auto', which `lossbox fit` decides"):
        CocoDataModule("a.json", "a", "b.json", "b", image_size="auto")
