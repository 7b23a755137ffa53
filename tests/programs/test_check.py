"""`lossbox check` and `lossbox convert`, called as a user would: what a conversion writes passes the check."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lossbox.__main__ import main
from lossbox.coco.read import read_coco

WIDTH, HEIGHT = 40, 30


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def draw(path, size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)


def coco(folder, part, boxes, names=("cat", "dog")):
    """An image for each box, and one without."""
    images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(1, len(boxes) + 2)]
    for entry in images:
        draw(folder / part / entry["file_name"])
    document = {
        "images": images,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": box} for i, box in enumerate(boxes, 1)],
    }
    (folder / f"{part}.json").write_text(json.dumps(document))
    return document


def check(*words):
    """The exit code."""
    try:
        return main(["check", *map(str, words)])
    except SystemExit as stopped:
        return stopped.code


def test_a_good_set(tmp_path, capsys):
    coco(tmp_path, "data", [[0, 0, 20, 20], [5, 5, 30, 10]])
    assert check("data.json", "data", "--json", "o/found.json") == 0
    shown = capsys.readouterr().out
    assert "3 images (1 without boxes), 2 boxes, 0 crowd regions, 2 classes" in shown
    assert "1 classes without a box: dog" in shown
    assert shown.endswith("usable as it is\n")
    found = json.loads((tmp_path / "o" / "found.json").read_text())
    assert found["usable"] is True
    assert found["parts"]["data"]["classes"] == {"cat": 2, "dog": 0}
    for image in ("data.png", "data_sizes.png"):
        assert Image.open(tmp_path / "runs/check/data" / image).size[0] > 400


def test_every_bad_record_is_listed(tmp_path, capsys):
    document = coco(tmp_path, "data", [[0, 0, 20, 20], [0, 0, 0, 5], [0, 0, 99, 5], [0, 0, 1], [1, 1, 2, 2]])
    document["images"][4]["width"] = 41
    (tmp_path / "data.json").write_text(json.dumps(document))
    (tmp_path / "data" / "1.png").write_bytes(b"broken")
    assert check("data.json", "data", "--json", "found.json", "--limit", "4") == 1
    shown = capsys.readouterr().out
    rows = json.loads((tmp_path / "found.json").read_text())["parts"]["data"]["bad"]
    assert [row["record"] for row in rows] == [
        *(f"data.json: annotations[{i}] (id {i + 1})" for i in (1, 2, 3)),
        *(f"data.json: images[{i}] (id {i + 1})" for i in (1, 2, 3)),
        "data.json: image id 1",
        "data.json: image id 5",
    ]
    assert "none of its labels can be used" in rows[3]["rule"]
    assert "is not an image that can be decoded" in rows[6]["rule"]
    assert "has 40 x 30 pixels, the JSON states width x height = 41 x 30" in rows[7]["rule"]
    assert all(row["message"] in shown for row in rows[:4])
    assert all(row["message"] not in shown for row in rows[4:])
    assert "and 4 more" in shown
    assert check("data.json", "data", "--skip-images") == 1
    assert "bad records: 6" in capsys.readouterr().out


EMPTY = {"no boxes": ([1, 2], []), "all broken": ([1, 2], [1, 2]), "all missing": ([1, 2], [1, 2])}


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("words", [(), ("--skip-images",), ("--config", "recipe.yaml")])
@pytest.mark.parametrize("crowd", [0, 1])
def test_where_nothing_is_left_the_page_says_so(tmp_path, capsys, kind, words, crowd):
    images, boxed = EMPTY[kind]
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    (tmp_path / "data").mkdir()
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in images],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": crowd} for i in boxed],
    }
    for entry in document["images"]:
        if kind == "all broken":
            (tmp_path / "data" / entry["file_name"]).write_bytes(b"broken")
        elif kind == "no boxes":
            draw(tmp_path / "data" / entry["file_name"])
    (tmp_path / "data.json").write_text(json.dumps(document))
    code, shown = check("data.json", "data", "--allow-empty", *words), capsys.readouterr()
    assert shown.err == ""
    broken = kind == "all missing" or (kind == "all broken" and "--skip-images" not in words)
    assert code == broken
    assert shown.out.endswith("usable as it is\n") or "not usable as it is: 2 bad records" in shown.out


def test_a_part_without_a_single_box_is_refused(tmp_path, capsys):
    coco(tmp_path, "data", [])
    assert check("data.json", "data") == 1
    assert "data.json: has no box that can be used; --allow-empty accepts that" in capsys.readouterr().out


def test_bad_records_are_listed_where_no_image_is_left_or_no_split_can_be_made(tmp_path, capsys):
    boxes = [[5, 5, -20, 20], [5, 5, "x", 20], [5, 5, float("nan"), 20]]
    document = coco(tmp_path / "none", "train", boxes)
    document["images"].pop()
    (tmp_path / "none" / "train.json").write_text(json.dumps(document))
    assert check("none", "--json", "none.json") == 1
    shown, numbers = capsys.readouterr().out, json.loads((tmp_path / "none.json").read_text())
    assert shown.index("annotations[0] (id 1): bbox must have a positive width and height") < shown.index("no image is left of 3")
    assert "bad labels and images, left out of the parts below: 6" in shown
    assert numbers["parts"] == {}
    assert "no image is left of 3" in numbers["unusable"]
    assert not numbers["usable"]
    assert main(["fit", "none", "--out", "run"]) == 2
    assert "left out before: 6 bad labels and images, the first: none/train.json: annotations[0] (id 1)" in capsys.readouterr().err

    coco(tmp_path / "one", "train", boxes)  # the image without labels stays
    assert check("one") == 1
    shown = capsys.readouterr().out
    assert "annotations[2] (id 3): bbox must be finite" in shown
    assert "train: runs/check/one/data/train.json with one/train" in shown
    assert shown.endswith("a split into train and val needs two different images at least, got 1 (one/train/4.png)\n")
    assert "batch" not in shown

    (tmp_path / "yolo").mkdir()
    draw(tmp_path / "yolo" / "a.png")
    (tmp_path / "yolo" / "classes.txt").write_text("cup")
    (tmp_path / "yolo" / "a.txt").write_text("0 1.5 0.5 0.5 0.5")
    assert check("yolo") == 1
    assert "yolo/a.txt: line 1 in 40 x 30 px: " in capsys.readouterr().out


@pytest.mark.parametrize("section", ["images", "categories", "annotations"])
def test_where_every_record_is_bad_the_page_says_so(tmp_path, capsys, section):
    document = coco(tmp_path, "data", [[0, 0, 9, 9], [1, 1, 9, 9]])
    document[section] = [{"id": None}] * 2
    (tmp_path / "data.json").write_text(json.dumps(document))
    assert check("data.json", "data") == 1
    assert "not usable as it is" in capsys.readouterr().out


def test_turned_images_are_counted(tmp_path, capsys):
    coco(tmp_path, "data", [[0, 0, 9, 9]])
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(tmp_path / "data" / "1.png").save(tmp_path / "data" / "1.png", exif=exif)
    assert check("data.json", "data") == 0
    assert "note: 1 images have an EXIF orientation, which is not applied" in capsys.readouterr().out


RECIPE = """
data: {{train_annotations: {folder}/train.json, train_images: {folder}/train, val_annotations: {folder}/val.json, val_images: {folder}/val,
       image_size: 80}}
model: {{detector: {{class_path: lossbox.detectors.retinanet.RetinaNet,
         init_args: {{backbone: {{strides: [8, 16]}}, anchor_scale: 2.0, scales: [1.0], ratios: [1.0]}}}}}}
"""


def test_a_recipe_gives_both_parts_and_the_anchors(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    coco(tmp_path, "train", [[2, 2, 8, 8], [4, 4, 16, 16], [0, 0, 2, 2], [0, 0, 40, 2]])
    coco(tmp_path, "val", [[4, 4, 16, 16]])
    assert check("--config", "recipe.yaml", "--json", "found.json") == 0
    parts = json.loads((tmp_path / "found.json").read_text())["parts"]
    # at twice the size, with anchors of 16 and 32 px: two boxes are just like an anchor, 4 x 4 px and 80 x 4 px like none
    assert parts["train"]["anchors"]["share_below_0.5"] == 0.5
    assert parts["val"]["anchors"]["share_below_0.5"] == 0
    assert "50.0% of the boxes have no anchor of IoU >= 0.5" in capsys.readouterr().out
    coco(tmp_path, "val", [[4, 4, 16, 16]], names=("cat", "cow"))
    assert check("--config", "recipe.yaml") == 1
    assert "both parts must have the same categories; 2 (id, name) are in one alone, the first is (2, 'cow')" in capsys.readouterr().out


def test_what_auto_would_choose(tmp_path, capsys):
    recipe = RECIPE.format(folder=tmp_path)
    (tmp_path / "recipe.yaml").write_text(recipe)
    (tmp_path / "auto.yaml").write_text(recipe.replace("80", "auto").replace("2.0", "auto"))
    for part in ("train", "val"):
        coco(tmp_path, part, [[3, 3, 6, 6], [11, 7, 6, 6]])
    assert check("--config", "recipe.yaml", "--json", "found.json") == 0
    found = json.loads((tmp_path / "found.json").read_text())["parts"]["train"]
    # the images are no larger than 40 px; at the 80 px of the recipe a box has 12 px around the center of a cell: 1.5 strides of 8
    assert found["auto"]["image_size"]["value"] == 32
    assert found["auto"]["anchor_scale"]["value"] == 1.5
    assert found["anchors"]["anchor_scale"] == 2.0
    assert found["anchors"]["image_size"] == [80, 80]
    assert found["auto"]["anchor_scale"]["share_below_0.5"] <= found["anchors"]["share_below_0.5"]
    shown = capsys.readouterr().out
    assert "of the boxes have no anchor of IoU >= 0.5 with anchor_scale 2.0" in shown
    assert shown.count("auto would choose for recipe.yaml:") == 1  # of the images to train on, not of those to validate
    assert f"image_size 32: {found['auto']['image_size']['reason']}" in shown
    assert f"anchor_scale 1.5 at 80 px: {found['auto']['anchor_scale']['reason']}; " in shown

    assert check("--config", "auto.yaml", "--json", "found.json") == 0
    found = json.loads((tmp_path / "found.json").read_text())["parts"]["train"]
    assert found["anchors"]["image_size"] == [32, 32]
    assert found["anchors"]["anchor_scale"] == found["auto"]["anchor_scale"]["value"]


def test_without_a_recipe_it_is_own_data(tmp_path, capsys):
    coco(tmp_path, "data", [[0, 0, 20, 20]])
    assert check("data.json", "data", "--json", "found.json") == 0
    assert "auto would choose for own_data:\n    image_size 32: " in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["parts"]["data"]["auto"]["anchor_scale"]["value"] == 3.0


def test_a_detector_without_anchors_has_an_image_size_only(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("model: {detector: lossbox.detectors.fcos.FCOS}")
    coco(tmp_path, "data", [[0, 0, 20, 20]])
    assert check("data.json", "data", "--config", "recipe.yaml", "--json", "found.json") == 0
    assert "anchor" not in capsys.readouterr().out
    assert list(json.loads((tmp_path / "found.json").read_text())["parts"]["data"]["auto"]) == ["image_size"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "DATA: a folder of data, a COCO JSON and the folder"),
        (["data.json", "data", "--limit", "-1"], "--limit: 0 or more bad records expected, got -1"),
        (["none.json", "data"], "none.json does not exist"),
        (["broken.json", "data"], "broken.json: is not JSON"),
        (["data.json", "nowhere"], "IMAGES: nowhere is not a folder; it must hold the images that data.json names"),
        (["--config", "nothing"], "--config: no file nothing"),
        (["--config", "broken.json"], "--config: broken.json is not YAML"),
        (["--config", "data.json"], "--config: the recipe does not say data.train_annotations"),
    ],
)
def test_mistakes_are_named(tmp_path, capsys, words, message):
    coco(tmp_path, "data", [])
    (tmp_path / "broken.json").write_text("[")
    assert check(*words) == 2
    assert f"lossbox check: {message}" in capsys.readouterr().err


# -- convert


def voc(folder, stem, *boxes):
    draw(folder / "JPEGImages" / f"{stem}.png")
    objects = "".join(
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for name, hard, x1, y1, x2, y2 in boxes
    )
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{objects}</annotation>")


def test_convert_voc(tmp_path, capsys):
    folder = tmp_path / "voc"
    voc(folder, "a", ("dog", 0, 1, 1, 40, 30), ("cat", 1, 2, 2, 9, 9))
    voc(folder, "b")
    voc(folder, "c", ("dog", 0, 5, 5, 10, 10))
    main_folder = folder / "ImageSets" / "Main"
    main_folder.mkdir(parents=True)
    (main_folder / "train.txt").write_text("a\nb\n")
    (main_folder / "val.txt").write_text("c\n")
    assert main(["convert", "voc", "voc", "--out", "out"]) == 0
    assert "train.json: 2 images (1 without boxes), 2 boxes, 2 classes; images in voc/JPEGImages" in capsys.readouterr().out
    train, val = (read_coco(f"out/{part}.json", "voc/JPEGImages") for part in ("train", "val"))
    assert train.categories == val.categories == [(1, "cat"), (2, "dog")]
    assert train.images[0].boxes.tolist() == [[0, 0, 40, 30], [1, 1, 9, 9]]
    assert train.images[0].crowd.tolist() == [False, True]
    assert check("out/train.json", "voc/JPEGImages") == check("out/val.json", "voc/JPEGImages") == 0


@pytest.mark.parametrize("images", ["copy", "link", "reference"])
def test_convert_yolo(tmp_path, images, capsys):
    for part, stems in {"train": "ab", "val": "c"}.items():
        for stem in stems:
            draw(tmp_path / "yolo" / "images" / part / f"{stem}.png")
            labels = tmp_path / "yolo" / "labels" / part / f"{stem}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "yolo" / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    assert main(["convert", "yolo", "--format", "yolo", "--out", "out", "--images", images]) == 0
    folder = "yolo/images/train" if images == "reference" else "out/train"
    assert f"images in {folder}" in capsys.readouterr().out
    read = read_coco("out/train.json", folder)
    assert [image.labels.tolist() for image in read.images] == [[1], [1]]
    torch.testing.assert_close(read.images[1].boxes, torch.tensor([[10.0, 7.5, 30.0, 22.5]]))
    assert check("out/train.json", folder) == 0


def test_convert_stops_at_a_bad_label_or_counts_it(tmp_path, capsys):
    draw(tmp_path / "yolo" / "images" / "a.png")
    draw(tmp_path / "yolo" / "images" / "b.png")
    (tmp_path / "yolo" / "images" / "b.png").write_bytes(b"")
    (tmp_path / "yolo" / "labels").mkdir()
    (tmp_path / "yolo" / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.5 0.5\n")
    (tmp_path / "yolo" / "data.yaml").write_text("names: [cat]\n")
    assert main(["convert", "yolo", "--format", "yolo", "--out", "out"]) == 2
    assert "a.txt: line 2: the class must be a whole number from 0 to 0, got '7'; --on-bad-box drop" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["convert", "yolo", "--format", "yolo", "--out", "out", "--on-bad-box", "drop"]) == 0
    shown = capsys.readouterr()
    assert "all.json: 1 images (0 without boxes), 1 boxes" in shown.out
    assert shown.err.count("left out: 1, the first is ") == 2
    assert check("out/all.json", "yolo/images") == 0
    assert main(["convert", "yolo", "--format", "voc", "--out", "out"]) == 2
    assert "a Pascal VOC folder has Annotations" in capsys.readouterr().err
