"""`lossbox fit DATA` and `lossbox check DATA`: a folder as it is, and nothing else said."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lossbox.__main__ import main
from lossbox.coco.read import read_coco
from lossbox.data.module import CocoDataModule
from lossbox.programs import fit

WIDTH, HEIGHT = 40, 30


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def yolo(folder, count=10, classes="[cat, dog]"):
    """A folder without parts."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        (folder / "labels" / f"{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.5 0.5\n")
    (folder / "data.yaml").write_text(f"names: {classes}\n")


@pytest.fixture
def words(monkeypatch):
    """What `lossbox fit` hands to Lightning's parser."""
    handed = []
    monkeypatch.setattr(fit, "check_options", lambda argv: None)
    monkeypatch.setattr(fit, "run_lightning", lambda command, help, argv: handed.append(list(argv)))
    return handed


def value(argv, option):
    return argv[len(argv) - 1 - argv[::-1].index(option) + 1]


@pytest.mark.parametrize("source", ["mine", "mine/", "mine/data.yaml", "./mine/../mine"])
def test_fit_with_nothing_but_a_folder(tmp_path, capsys, words, source):
    yolo(tmp_path / "mine")
    assert main(["fit", source]) == 0
    (argv,) = words
    assert value(argv, "--config") == "own_data"
    assert value(argv, "--out") == "runs/mine"
    parts = [read_coco(value(argv, f"--data.{part}_annotations"), value(argv, f"--data.{part}_images")) for part in ("train", "val")]
    assert [len(part.images) for part in parts] == [8, 2]
    assert sorted(image.labels.item() for image in parts[1].images) == [0, 1]
    assert Path(value(argv, "--data.train_annotations")) == Path("runs/mine/data/train.json")
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith(
        "YOLO, 1 part: all 10 images; 2 classes: cat, dog; there is no val: 20 % of all, by the classes of the images (seed 0)"
    )


def test_what_the_user_says_wins(tmp_path, words):
    yolo(tmp_path / "mine")
    (tmp_path / "my.yaml").write_text("data: {on_bad_box: drop}\n")
    assert main(["fit", "mine", "--trainer.max_epochs", "2", "--config=my.yaml", "--out", "o", "--data.train_images", "elsewhere"]) == 0
    (argv,) = words
    assert argv[:4] == ["--config", "my.yaml", "--out", "o"]
    assert value(argv, "--trainer.max_epochs") == "2"
    assert value(argv, "--data.train_images") == "elsewhere"
    assert Path("o/data/train.json").is_file()


def test_bad_labels_stop_or_are_counted_as_the_recipe_says(tmp_path, capsys, words):
    yolo(tmp_path / "mine", classes="[cat]")
    assert main(["fit", "mine"]) == 0  # the recipe says drop
    said = capsys.readouterr().err
    assert "left out: 5, the first is " in said
    assert re.search(r"left out: 5, the first is \S*mine/images/\d.png: none of its labels can be used, so that it is left out", said)
    assert len(json.loads(Path("runs/mine/data/train.json").read_text())["images"]) == 4  # and 1 in val: none is trained as background
    assert main(["fit", "mine", "--data.on_bad_box", "error"]) == 2
    assert "the class must be a whole number from 0 to 0, got '1'; --data.on_bad_box drop leaves" in capsys.readouterr().err
    (tmp_path / "my.yaml").write_text("data: {batch_size: 1}\n")
    assert main(["fit", "mine", "--config", "my.yaml"]) == 2
    assert len(words) == 1


def test_a_run_that_goes_on_keeps_its_data(tmp_path, words):
    yolo(tmp_path / "mine")
    main(["fit", "mine"])
    run = tmp_path / "runs" / "mine"
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    data = {option.removeprefix("--data."): value(words[0], option) for option in words[0] if option.startswith("--data.")}
    (run / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    before = (run / "data" / "train.json").read_text()
    (tmp_path / "mine/labels/0.txt").write_text("")
    assert main(["fit", "mine", "--ckpt_path", "last"]) == 0
    assert words[1] == [*words[0], "--ckpt_path", "last"]
    assert (run / "data" / "train.json").read_text() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tile", "3"], "--data.tile: 32 pixels or more expected, or 0 for whole images, got 3"),
        (["--tile", "64", "--overlap=0.9"], "--data.overlap: a number in [0, 0.75] expected, got 0.9"),
        (["--batch_size", "0"], "--data.batch_size: at least 1 expected, got 0"),
        (["--data.bach_size", "3"], "unrecognized arguments: --data.bach_size 3; did you mean --data.batch_size?"),
        (["--minutes", "0"], "--minutes: a finite number > 0 expected, got 0"),
    ],
)
def test_a_wrong_option_is_refused_before_the_folder_is_converted(options, said, tmp_path, capsys, monkeypatch):
    yolo(tmp_path / "mine")
    monkeypatch.setattr(fit, "convert", None)
    assert main(["fit", "mine", *options]) == 2
    assert f"lossbox fit: {said}" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_folder_of_nothing_is_an_error(tmp_path, capsys, words):
    (tmp_path / "mine").mkdir()
    assert main(["fit", "mine"]) == 2
    assert "looked for COCO" in capsys.readouterr().err
    assert main(["fit", "nowhere"]) == 2
    assert "data: nowhere does not exist" in capsys.readouterr().err
    assert words == []


def check(*argv):
    try:
        return main(["check", *argv])
    except SystemExit as stopped:
        return stopped.code


def test_check_of_a_folder(tmp_path, capsys):
    yolo(tmp_path / "mine")
    assert check("mine", "--json", "found.json") == 0
    shown = capsys.readouterr().out
    assert "mine: YOLO, 1 part: all 10 images" in shown
    assert shown.endswith("usable as it is\n")
    assert "train: runs/check/mine/data/train.json with mine/images" in shown
    assert list(json.loads(Path("found.json").read_text())["parts"]) == ["train", "val"]


def test_check_of_fewer_images_than_a_batch_has_says_which_batch_size_works(tmp_path, capsys):
    yolo(tmp_path / "mine")
    (tmp_path / "mine/images/0.png").unlink()
    (tmp_path / "mine/labels/0.txt").unlink()
    assert check("mine", "--skip-images", "--json", "found.json") == 0
    shown = capsys.readouterr().out
    assert "note: a batch of own_data has more images than the 7 for training: `lossbox fit` needs --data.batch_size 7" in shown
    assert shown.endswith("usable with --data.batch_size 7\n")
    assert json.loads(Path("found.json").read_text())["batch_size"] == 7
    data = CocoDataModule(
        *(f"runs/check/mine/data/{part}.json" if at == 0 else "mine/images" for part in ("train", "val") for at in (0, 1))
    )
    with pytest.raises(ValueError, match=r"--data\.batch_size 7 works"):
        data.train_dataloader()
    Path("my.yaml").write_text("data: {batch_size: 4}\n")
    assert check("mine", "--skip-images", "--config", "my.yaml") == 0
    assert capsys.readouterr().out.endswith("usable as it is\n")


def test_check_of_a_folder_names_every_bad_label(tmp_path, capsys):
    yolo(tmp_path / "mine", classes="[cat]")
    (tmp_path / "mine/images/0.png").write_bytes(b"broken")
    assert check("mine", "--json", "found.json", "--limit", "2") == 1
    shown = capsys.readouterr().out
    assert "bad labels and images, left out of the parts below: 11" in shown
    assert "and 9 more" in shown
    assert "usable without 11 bad labels and images: `lossbox fit mine` leaves them out and trains on the rest" in shown
    found = json.loads(Path("found.json").read_text())
    assert found["usable"] is False
    assert sum(map(len, found["left_out"].values())) == 11  # five lines and the images that have no other, and a broken image


def test_convert_splits_and_recognizes(tmp_path, capsys):
    yolo(tmp_path / "mine")
    assert main(["convert", "mine", "--out", "out", "--val-share", "0.5"]) == 0
    assert [len(json.loads(Path(f"out/{part}.json").read_text())["images"]) for part in ("train", "val")] == [5, 5]
    assert capsys.readouterr().out.startswith("mine: YOLO, 1 part: all 10 images; 2 classes: cat, dog; there is no val: 50 % of all")
    assert main(["convert", "mine", "--out", "out", "--val-share", "1"]) == 2
    assert "--val-share: a number between 0 and 1 expected, got 1.0" in capsys.readouterr().err


def test_in_a_distributed_run_the_first_process_converts(tmp_path, monkeypatch, words):
    yolo(tmp_path / "mine")
    main(["fit", "mine"])
    before = (tmp_path / "runs/mine/data/train.json").stat().st_mtime_ns
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(fit, "convert", None)
    assert main(["fit", "mine"]) == 0
    assert [list(map(str, argv)) for argv in words] == [words[0], words[0]]
    assert (tmp_path / "runs/mine/data/train.json").stat().st_mtime_ns == before
    monkeypatch.setattr(fit, "WAIT", 0.01)
    (tmp_path / "mine/labels/0.txt").write_text("")  # what the first process wrote is of other data
    with pytest.raises(TimeoutError, match=r"converted\.json within"):
        fit.with_data(Path("mine"), [])


def test_check_names_validation_images_that_are_training_images(tmp_path, capsys):
    yolo(tmp_path / "mine")
    for part, numbers in (("train", range(6)), ("val", range(6, 10))):
        for kind, suffix in (("images", "png"), ("labels", "txt")):
            (tmp_path / "mine" / part / kind).mkdir(parents=True)
            for i in numbers:
                (tmp_path / f"mine/{kind}/{i}.{suffix}").rename(tmp_path / f"mine/{part}/{kind}/{i}.{suffix}")
    coarse = Image.fromarray(np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT))
    coarse.save(tmp_path / "mine/train/images/0.png")
    coarse.point(lambda value: value * 0.8 + 9).save(tmp_path / "mine/val/images/6.png")
    Image.open(tmp_path / "mine/train/images/1.png").save(tmp_path / "mine/train/images/1.png")
    (tmp_path / "mine/val/images/7.png").write_bytes((tmp_path / "mine/train/images/1.png").read_bytes())
    assert check("mine", "--json", "found.json") == 0
    assert "note: 2 of 4 validation images look like a training image, 1 of them are the same file" in capsys.readouterr().out
    assert json.loads(Path("found.json").read_text())["in_both_parts"] == [
        {"val": "mine/val/images/6.png", "train": "mine/train/images/0.png", "same_file": False},
        {"val": "mine/val/images/7.png", "train": "mine/train/images/1.png", "same_file": True},
    ]


def test_check_opens_each_image_once(tmp_path, monkeypatch):
    yolo(tmp_path / "mine", count=30)
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *rest, **more: opened.append(str(path)) or original(path, *rest, **more))
    assert check("mine") == 0
    assert len(opened) == 30 + 22  # the sheets show 16 of 24 training images, and all 6 validation images


def test_evaluate_measures_the_part_that_fit_validates_on(tmp_path, capsys):
    yolo(tmp_path / "mine")
    (tmp_path / "mine" / "labels" / "0.txt").write_text("0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.5 0.5\n")
    assert main(["convert", "mine", "--out", "o", "--val-share", "0.2", "--on-bad-box", "drop"]) == 0
    truth = json.loads((tmp_path / "o" / "val.json").read_text())
    name_of = {entry["id"]: entry["file_name"] for entry in truth["images"]}
    # by the names of the files, as other programs write them; every second box is missed
    rows = [{"image_id": name_of[box["image_id"]], "category_id": box["category_id"], "bbox": box["bbox"]} for box in truth["annotations"]]
    (tmp_path / "found.json").write_text(json.dumps([{**row, "score": 0.9} for row in rows[::2]]))
    capsys.readouterr()
    assert main(["evaluate", "mine", "found.json", "--json", "folder.json"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("note: mine: YOLO, 1 part: all 10 images; 2 classes: cat, dog; there is no val: 20 % of all")
    assert "; measured is the part val: 2 images (0 without boxes), 2 boxes, 2 classes\n" in shown
    assert "note: left out: 1, the first is mine/labels/0.txt: line 2" in shown
    assert main(["evaluate", "o/val.json", "found.json", "--json", "file.json"]) == 0
    of_folder, of_file = (json.loads((tmp_path / name).read_text()) for name in ("folder.json", "file.json"))
    assert of_folder["AP"] == of_file["AP"] == pytest.approx(0.5)
    assert of_folder["per_class"] == of_file["per_class"]


def test_evaluate_refuses_a_folder_without_labels(tmp_path, capsys):
    yolo(tmp_path / "mine")
    for file in (tmp_path / "mine" / "labels").iterdir():
        file.unlink()
    (tmp_path / "found.json").write_text("[]")
    assert main(["evaluate", "mine", "found.json"]) == 2
    said = capsys.readouterr().err
    assert "none of its 10 images has a file of labels" in said
    assert "--allow-empty" not in said


def test_check_has_a_folder_for_each_data_set_and_names_a_bad_line_once(tmp_path, capsys):
    for name in ("mine", "other"):
        yolo(tmp_path / name, classes="[cat]")
        (tmp_path / name / "data.yaml").write_text("names: [cat]\ntrain: images\nval: images\n")
        assert check(name, "--json", f"{name}.json") == 1
        shown = capsys.readouterr().out
        assert shown.count(f"{name}/labels/1.txt: line 1") == 1
        assert "left out of the parts below: 10" in shown  # five lines, each the only one of its image
    found = json.loads(Path("mine.json").read_text())
    assert [part["sheet"] for part in found["parts"].values()] == ["runs/check/mine/train.png", "runs/check/mine/val.png"]
    assert Path("runs/check/other/train.png").is_file()
