"""Data sets as people have them: every label and every image is used, or named and counted."""

import json
import re
import unicodedata

import numpy as np
import pytest
from PIL import Image

from lossbox.__main__ import main

BOX = "0 0.5 0.5 0.5 0.5\n"
NFC, NFD = unicodedata.normalize("NFC", "caf\u00e9"), unicodedata.normalize("NFD", "caf\u00e9")


def draw(path, mode="RGB", size=(64, 48), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full(size[::-1], 300, dtype=np.uint16)) if mode == "I;16" else Image.new(mode, size)
    image.save(path, **options)


def text(path, content=BOX):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def voc(path, name="cup", width="64", filename=None):
    named = f"<filename>{filename}</filename>" if filename else ""
    size = f"<size><width>{width}</width><height>48</height></size>"
    box = "<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
    text(path, f"<annotation>{named}{size}<object><name>{name}</name>{box}</object></annotation>")


@pytest.fixture
def convert(tmp_path, capsys):
    """The exit code, the parts and what was said."""

    def run(kind, *words):
        out = tmp_path / "out"
        code = main(["convert", str(tmp_path / "d"), "--format", kind, "--out", str(out), *words])
        parts = {file.stem: json.loads(file.read_text()) for file in out.glob("*.json")} if out.exists() else {}
        shown = capsys.readouterr()
        return code, parts, shown.out + shown.err

    return run


def boxes(parts):
    return {part: len(document["annotations"]) for part, document in parts.items()}


def files(parts):
    return {part: [image["file_name"] for image in document["images"]] for part, document in parts.items()}


# -- where the labels of a YOLO image may lie


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/1.jpg", "labels/train/1.txt"),
        ("train/images/1.jpg", "train/labels/1.txt"),
        ("train/images/1.jpg", "train/images/1.txt"),
        ("train/images/1.jpg", "labels/train/1.txt"),
        ("train/1.jpg", "train/labels/1.txt"),
        ("train/1.jpg", "labels/train/1.txt"),
        ("train/1.jpg", "train/1.txt"),
        ("train/a/images/1.jpg", "train/a/labels/1.txt"),
        ("train/images/a/1.JPG", "train/labels/a/1.TXT"),
        ("train/Images/1.jpg", "train/Labels/1.txt"),
        (f"train/images/{NFC}.jpg", f"train/labels/{NFD}.txt"),
    ],
)
def test_yolo_labels_beside_or_in_place_of_images(tmp_path, convert, image, label):
    draw(tmp_path / "d" / image)
    text(tmp_path / "d" / label)
    text(tmp_path / "d/data.yaml", f"train: {'images/train' if image.startswith('images') else 'train'}\nnames: [cup]\n")
    code, parts, said = convert("yolo")
    assert (code, boxes(parts)) == (0, {"train": 1}), said


def test_the_folders_above_the_data_do_not_matter(tmp_path, capsys):
    root = tmp_path / "images" / "d"
    draw(root / "train/1.jpg")
    text(root / "train/1.txt")
    text(root / "data.yaml", "train: train\nnames: [cup]\n")
    assert main(["convert", str(root), "--out", str(tmp_path / "out")]) == 0
    assert len(json.loads((tmp_path / "out/train.json").read_text())["annotations"]) == 1


@pytest.mark.parametrize("kind", ["yolo", "voc"])
def test_a_part_without_any_labels_is_an_error(tmp_path, convert, kind):
    for part in ("train", "val"):
        draw(tmp_path / f"d/{part}/images/1.jpg")
    if kind == "yolo":
        text(tmp_path / "d/train/labels/1.txt")
        text(tmp_path / "d/data.yaml", "train: train\nval: val\nnames: [cup]\n")
    else:
        voc(tmp_path / "d/train/labels/1.xml")
    code, _, said = convert(kind)
    assert code == 2
    assert "val: none of its 1 images has a file of labels; looked for " in said
    assert "d/val/labels/1 and " in said
    code, parts, said = convert(kind, "--allow-empty")
    assert (code, boxes(parts)) == (0, {"train": 1, "val": 0})
    assert "1 images (1 without boxes, 1 of them without a file of labels), 0 boxes" in said


def test_labels_without_an_image_and_images_of_one_name(tmp_path, convert):
    for name in ("1.jpg", "2.jpg", "2.png"):
        draw(tmp_path / "d/images" / name)
    for stem in "123":
        text(tmp_path / f"d/labels/{stem}.txt")
    text(tmp_path / "d/labels/classes.txt", "cup\n")
    text(tmp_path / "d/data.yaml", "train: images\nnames: [cup]\n")
    assert convert("yolo")[0] == 2
    code, parts, said = convert("yolo", "--on-bad-box", "drop")
    assert (code, files(parts)) == (0, {"train": ["1.jpg"]})
    assert "2.txt: belongs to several images of its name: 2.jpg, 2.png" in said
    assert "3.txt: holds labels and has no image of its name" in said
    assert "classes.txt" not in said


def test_what_is_left_out_is_named(tmp_path, convert):
    draw(tmp_path / "d/train/1.jpg")
    text(tmp_path / "d/train/1.txt")
    draw(tmp_path / "d/more/2.jpg")
    draw(tmp_path / "d/train/masks/3.png")
    text(tmp_path / "d/train/film.mp4", "")
    draw(tmp_path / "d/val/1.jpg")
    text(tmp_path / "d/val.txt", "train/1.jpg\ntrain/1.jpg\n")
    text(tmp_path / "d/data.yaml", "train: train\nval: val.txt\nnames: [cup]\n")
    code, parts, said = convert("yolo")
    assert (code, files(parts)) == (0, {"train": ["1.jpg"], "val": ["1.jpg"]})
    for line in (
        "2, the first is .*more/2.jpg: is in no part",
        "1, the first is .*3.png: lies in a folder of masks",
        "1, the first is .*film.mp4: is a video: its frames must be stored as images",
        "1, the first is .*train/1.jpg: is in the parts train and val",
        "1 images of val are named for the second time",
    ):
        assert re.search(line, said), (line, said)


@pytest.mark.parametrize(
    ("key", "part"), [("valid", "val"), ("validation", "val"), ("testing", "test"), ("holdout", "holdout")], ids=lambda value: value
)
def test_yolo_parts_by_any_name(tmp_path, convert, key, part):
    for folder in ("train", key):
        draw(tmp_path / f"d/{folder}/1.jpg")
        text(tmp_path / f"d/{folder}/1.txt")
    text(tmp_path / "d/data.yaml", f"train: train\n{key}: {key}\nnames: [cup]\n")
    assert boxes(convert("yolo")[1]) == {"train": 1, part: 1}


def test_class_names_stay_as_they_are(tmp_path, convert):
    draw(tmp_path / "d/images/1.jpg")
    text(tmp_path / "d/labels/1.txt", "".join(f"{label} .5 .5 .1 .1\n" for label in range(5)))
    for names in ("[no, yes, 007, 1e3, ~x]", "{0: no, 1: yes, 2: 007, 3: 1e3, 4: ~x}"):
        text(tmp_path / "d/data.yaml", f"train: images\nnames: {names}\n")
        document = convert("yolo")[1]["train"]
        assert [category["name"] for category in document["categories"]] == ["no", "yes", "007", "1e3", "~x"]


def test_classes_txt_without_a_yaml(tmp_path, convert):
    draw(tmp_path / "d/images/1.jpg")
    text(tmp_path / "d/labels/1.txt", "1 .5 .5 .1 .1\n")
    text(tmp_path / "d/classes.txt", "cup\nsmall plate\n")
    code, parts, _ = convert("yolo")
    assert (code, [category["name"] for category in parts["all"]["categories"]]) == (0, ["cup", "small plate"])


@pytest.mark.parametrize(
    "line", ["images\\1.jpg", ".\\images\\1.jpg", "C:\\old\\d\\images\\1.jpg", "/home/old/d/images/1.jpg", "images/1.jpg"]
)
def test_lines_of_other_machines(tmp_path, convert, line):
    draw(tmp_path / "d/images/1.jpg")
    text(tmp_path / "d/labels/1.txt")
    text(tmp_path / "d/train.txt", f"{line}\n")
    text(tmp_path / "d/data.yaml", "train: train.txt\nnames: [cup]\n")
    assert (convert("yolo")[0], boxes(convert("yolo")[1])) == (0, {"train": 1})


def test_a_part_of_which_nothing_is_left_is_an_error(tmp_path, convert):
    draw(tmp_path / "d/images/1.jpg")
    text(tmp_path / "d/labels/1.txt")
    text(tmp_path / "d/train.txt", "images/2.jpg\n")
    text(tmp_path / "d/data.yaml", "train: train.txt\nnames: [cup]\n")
    assert convert("yolo", "--on-bad-box", "drop", "--allow-empty")[0] == 2
    assert "train: no image is left of 1" in convert("yolo", "--on-bad-box", "drop", "--allow-empty")[2]


# -- Pascal VOC


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("JPEGImages/1.jpg", "Annotations/1.XML"),
        ("images/1.jpg", "annots/1.xml"),
        ("1.jpg", "somewhere/else/1.xml"),
        ("1.jpg", "1.xml"),
        ("pictures/sub/1.jpg", "Annotations/1.xml"),
        (f"JPEGImages/{NFD}.jpg", f"Annotations/{NFC}.xml"),
    ],
)
def test_voc_labels_in_any_folder(tmp_path, convert, image, label):
    draw(tmp_path / "d" / image)
    voc(tmp_path / "d" / label, width="64.0")
    code, parts, said = convert("voc")
    assert (code, boxes(parts)) == (0, {"all": 1}), said


def test_voc_masks_are_no_images(tmp_path, convert):
    draw(tmp_path / "d/1.jpg")
    draw(tmp_path / "d/SegmentationClass/1.png")
    draw(tmp_path / "d/thumbnails/1.png")
    voc(tmp_path / "d/Annotations/1.xml")
    code, parts, said = convert("voc")
    assert (code, files(parts)) == (0, {"all": ["1.jpg"]})
    assert "1.png: lies in a folder of masks" in said
    assert "thumbnails/1.png: has no labels, and the name of another image that has some" in said


def test_voc_images_of_one_name(tmp_path, convert):
    for name in ("1.jpg", "1.png"):
        draw(tmp_path / "d/JPEGImages" / name)
    voc(tmp_path / "d/Annotations/1.xml", filename="1.png")
    assert files(convert("voc")[1]) == {"all": ["1.png"]}
    voc(tmp_path / "d/Annotations/1.xml", filename="other.png")
    code, _, said = convert("voc")
    assert code == 2
    assert "1.xml: has several images of its name, and its filename names none of them" in said


@pytest.mark.parametrize("flag", ["", "  1", " -1"])
def test_voc_lists_with_spaces_flags_and_other_names(tmp_path, convert, flag):
    for stem in ("img", "img 2", NFC):
        draw(tmp_path / f"d/JPEGImages/{stem}.jpg")
        voc(tmp_path / f"d/Annotations/{stem}.xml")
    main_folder = tmp_path / "d/ImageSets/Main"
    for name, stem in (("Train", "img"), ("Validation", "img 2"), ("default", NFD)):
        text(main_folder / f"{name}.txt", f"{stem}{flag}\n")
    text(main_folder / "cup_train.txt", "img -1\n")
    code, parts, said = convert("voc")
    assert (code, files(parts)) == (0, {"train": ["img.jpg"], "val": ["img 2.jpg"], "default": [f"{NFC}.jpg"]}), said
    assert "cup_train.txt: is the list of a class and not of a part" in said


def test_voc_parts_by_folder(tmp_path, convert):
    for part in ("train", "valid"):
        draw(tmp_path / f"d/{part}/1.jpg")
        voc(tmp_path / f"d/{part}/1.xml")
    assert boxes(convert("voc")[1]) == {"train": 1, "val": 1}


# -- kinds of images


@pytest.mark.parametrize("kind", ["yolo", "voc"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_turned_images_do_not_pass_in_silence(tmp_path, convert, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for stem in "12":
        draw(tmp_path / f"d/images/{stem}.jpg", size=(48, 48), **({"exif": exif} if stem == "1" else {}))
        text(tmp_path / f"d/labels/{stem}.txt")
        voc(tmp_path / f"d/labels/{stem}.xml", width="48")
    text(tmp_path / "d/data.yaml", "train: images\nnames: [cup]\n")
    code, _, said = convert(kind)
    assert code == 2
    assert "1.jpg: has an EXIF orientation, which is not applied in training" in said
    assert sum(boxes(convert(kind, "--on-bad-box", "drop")[1]).values()) == 1


def test_palettes_are_used_and_sixteen_bits_named(tmp_path, convert):
    draw(tmp_path / "d/images/1.png", mode="P")
    draw(tmp_path / "d/images/2.gif", mode="P")
    draw(tmp_path / "d/images/3.png", mode="I;16")
    for stem in "123":
        text(tmp_path / f"d/labels/{stem}.txt")
    text(tmp_path / "d/data.yaml", "train: images\nnames: [cup]\n")
    code, parts, said = convert("yolo", "--on-bad-box", "drop")
    assert (code, files(parts)) == (0, {"train": ["1.png", "2.gif"]})
    assert "3.png: has pixels of mode I" in said
