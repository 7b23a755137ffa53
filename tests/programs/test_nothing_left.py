"""Every command where nothing is left to work on: it says so in a line or shows an empty result, and never ends in a traceback."""

import json
import shutil

import pytest
import yaml

from lossbox.__main__ import COMMANDS, main

UNKNOWN = "is none of the layouts that are known"
IMAGES = "images is empty; at least one image expected"
BOXES = "has 5 images and not one box"
CLASSES = "categories is empty; a detector needs at least one"

# What is called, the code it ends with, and what it says.
CASES = [
    ("check empty", 2, "found an empty folder"),
    ("check text", 2, UNKNOWN),
    ("check broken", 2, "found 2 images"),
    ("check unreadable", 1, "val: no image is left of 5; the first: "),
    ("check no_images.json {images}", 2, IMAGES),
    ("check no_images.json", 2, "all: no image is left; its labels name none, or none that exists"),
    ("check none.json", 2, UNKNOWN),
    ("convert empty --out converted", 2, "found an empty folder"),
    ("convert unreadable --out converted", 2, "is not an image that can be decoded"),
    ("convert unreadable --out converted --on-bad-box drop", 2, "val: no image is left of 5; the first: "),
    ("convert no_images.json --out converted", 2, "its labels name none"),
    ("convert unlabelled --out converted", 2, "val: none of its 5 images has a label that can be used; --allow-empty takes them"),
    ("convert void.json --out converted", 2, "void.json: is not JSON"),
    ("fit empty --out new", 2, "found an empty folder"),
    ("fit unreadable --out new", 2, "no image is left of 5"),
    ("fit --config {config} --out new --data.train_annotations no_images.json", 2, IMAGES),
    ("fit --config {config} --out new --data.val_annotations no_boxes.json", 2, BOXES),
    ("fit --config {config} --out new --data.train_annotations no_classes.json", 2, CLASSES),
    ("validate --config {config} --out empty", 2, "no empty/checkpoints/last.ckpt"),
    ("fit --config {config} --out new --ckpt_path x.csv", 2, "--ckpt_path: x.csv is not a checkpoint of lossbox fit"),
    ("fit --config {config} --out new --init-from x.csv", 2, "--init-from: x.csv is not a checkpoint of lossbox fit"),
    ("validate --config {config} --ckpt_path x.csv", 2, "--ckpt_path: x.csv is not a checkpoint of lossbox fit"),
    ("validate --config {config} --ckpt_path none.ckpt", 2, "--ckpt_path: no file none.ckpt"),
    ("validate --config {config} --data.val_annotations no_images.json", 2, IMAGES),
    ("evaluate {annotations} none.json", 0, "note: none.json has no detections"),
    ("evaluate {annotations} none.json --calibration --errors --bounds --json all.json", 0, "note: none.json has no detections"),
    ("evaluate no_images.json none.json", 0, "note: no_images.json has no boxes, so that nothing is defined (-)"),
    ("evaluate no_boxes.json none.json", 0, "note: no_boxes.json has no boxes, so that nothing is defined (-)"),
    ("evaluate no_classes.json none.json", 0, "note: no_classes.json has no boxes"),
    ("evaluate {annotations} void.json", 2, "void.json: is not JSON"),
    ("evaluate empty none.json", 2, "found an empty folder"),
    ("predict empty --ckpt {ckpt} --out found", 2, "in the folder empty"),
    (
        "predict broken --ckpt {ckpt} --out found --skip-bad",
        2,
        "IMAGES: none of the 2 can be read; the first: broken/a.jpg is not an image",
    ),
    ("predict {images} --ckpt {ckpt} --out found --score-threshold 0.9999", 0, "note: nothing was found: no score passes"),
    ("predict {images} --ckpt {ckpt} --out found --annotations no_images.json", 2, "no_images.json names no image"),
    ("calibrate --config {config} --annotations no_boxes.json --images {images}", 2, BOXES),
    ("calibrate --config {config} --annotations no_images.json --images {images}", 2, IMAGES),
    ("export model.onnx --ckpt empty", 2, "the folder empty has no checkpoints/best.ckpt"),
    ("export model.onnx --ckpt {ckpt} --size 7 0", 2, "--size: height and width of at least 1 pixel expected, got 7 0"),
    ("predict {images} --ckpt {ckpt} --out found --thresholds {annotations}", 2, "thresholds are a CSV file with the columns category_id,"),
    ("export model.onnx --ckpt void.json", 2, "void.json is not a checkpoint of lossbox fit"),
    ("report empty", 2, "empty holds no run"),
    ("report unfinished --out page.html", 0, "Nothing was validated: there is no metrics.json"),
    ("compare {config} --seeds", 2, "--seeds: at least one, each once, expected, got none"),
    ("compare none.json", 2, "NAMES: none.json must hold a recipe, got list"),
    (
        "compare study.yaml --seeds 0 --out new",
        2,
        "misspelled: Subcommand 'fit' does not accept option 'trainer.max_epoch'; did you mean --",
    ),
    ("validate --config x.csv", 2, "lossbox validate: --config: x.csv must hold a recipe, got str"),
    ("fit empty --config x.csv", 2, "lossbox fit: --config: x.csv must hold a recipe, got str"),
    ("losses --count x.csv", 2, "--count: x.csv must hold a recipe, got str"),
    ("demo --recipe none", 2, "lossbox demo: --recipe: no file none, and no recipe of that name ships with lossbox"),
    ("losses --count no_images.json", 2, "--count: no_images.json has no `model`; a recipe of lossbox fit expected"),
    ("digits drawn --train-images 0", 2, "--train-images: at least 1 image expected, got 0"),
    ("demo --out new --data drawn --val-images 0", 2, "--val-images: at least 1 image expected, got 0"),
]


@pytest.fixture(scope="module")
def folder(tiny_run, tmp_path_factory):
    """Files and folders with nothing in them; returns what stands for the words in braces, too."""
    root = tmp_path_factory.mktemp("nothing")
    truth = json.loads(tiny_run.annotations.read_text())
    contents = {
        "no_images": {**truth, "images": [], "annotations": []},
        "no_boxes": {**truth, "annotations": []},
        "no_classes": {**truth, "annotations": [], "categories": []},
        "none": [],
    }
    for name, content in contents.items():
        (root / f"{name}.json").write_text(json.dumps(content))
    (root / "void.json").touch()
    study = {"title": "t", "recipe": str(tiny_run.config), "variants": {"misspelled": {"trainer.max_epoch": 1}}, "measure": ["AP"]}
    (root / "study.yaml").write_text(yaml.safe_dump(study))
    (root / "x.csv").write_text("a,b,c\n1,2,3")
    for name in ("empty", "text", "broken", "unreadable/images"):
        (root / name).mkdir(parents=True)
    (root / "text" / "notes.txt").write_text("nothing here")
    for name in "ab":
        (root / "broken" / f"{name}.jpg").write_bytes(b"no image")
    shutil.copy(tiny_run.annotations, root / "unreadable" / "val.json")
    for image in tiny_run.images.iterdir():
        (root / "unreadable" / "images" / image.name).write_bytes(b"no image")
    shutil.copytree(tiny_run.images, root / "unlabelled" / "images")
    shutil.copy(root / "no_boxes.json", root / "unlabelled" / "val.json")
    (root / "unfinished" / "csv" / "version_0").mkdir(parents=True)
    for name in ("config.yaml", "csv/version_0/metrics.csv"):
        shutil.copy(tiny_run.out / name, root / "unfinished" / name)
    places = {"annotations": tiny_run.annotations, "images": tiny_run.images, "ckpt": tiny_run.checkpoint, "config": tiny_run.config}
    return root, places


@pytest.mark.parametrize(("called", "code", "said"), CASES, ids=[case[0] for case in CASES])
def test_nothing_to_work_on_is_said(called, code, said, folder, capsys, monkeypatch):
    root, places = folder
    monkeypatch.chdir(root)
    try:
        found = main([word.format(**places) for word in called.split()])
    except SystemExit as stopped:
        found = stopped.code
    assert found == code
    printed, error = capsys.readouterr()
    assert said in " ".join((error if code == 2 else printed).split())
    assert "Traceback" not in error
    if code == 2:
        assert error.startswith(f"lossbox {called.split()[0]}: ")
        assert len(error) < 700
        assert error.endswith("\n(--debug shows where this was raised)\n")
        assert not any((root / name).exists() for name in ("new/checkpoints", "model.onnx", "converted/annotations"))


def test_every_command_was_tried():
    assert {case[0].split()[0] for case in CASES} == set(COMMANDS)
