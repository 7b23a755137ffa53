"""Pascal VOC and YOLO labels, one record at a time: every rule, and the same boxes as the supervision library reads where they are good."""

import re

import numpy as np
import pytest
from PIL import Image

from lossbox.coco.convert import coco_document
from lossbox.coco.files import BadLabel, Labelled
from lossbox.coco.voc import read_voc, voc_parts
from lossbox.coco.yolo import read_yolo, yolo_parts

WIDTH, HEIGHT = 40, 30


def stop(error):
    raise error


def draw(path, size=(WIDTH, HEIGHT), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **options)
    return path


def text(path, content="0 0.5 0.5 0.5 0.5\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def voc_object(xmin=1, ymin=1, xmax=40, ymax=30, name="dog", more=""):
    corners = {"xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax}
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners.items())
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def voc(folder, *objects, size=(WIDTH, HEIGHT), stem="a"):
    labels = folder / "Annotations" / f"{stem}.xml"
    labels.parent.mkdir(parents=True, exist_ok=True)
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    labels.write_text(f"<annotation><filename>old.jpg</filename>{stated}{''.join(objects)}</annotation>")
    return Labelled(draw(folder / "JPEGImages" / f"{stem}.png"), labels)


def yolo(folder, *lines, stem="a"):
    labels = folder / "labels" / f"{stem}.txt"
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text("\n".join(lines) + "\n")
    return Labelled(draw(folder / "images" / f"{stem}.png"), labels)


def corners(read):
    return [box.corners for box in read.boxes]


# -- VOC


def test_voc_counts_pixels_from_one_and_names_the_last_inside(tmp_path):
    """The whole image is 1 1 40 30, and its first pixel alone 1 1 1 1."""
    read = read_voc(voc(tmp_path, voc_object(), voc_object(1, 1, 1, 1, name="cat"), voc_object(5.5, 2, 10, 20)), stop)
    assert read.size == (WIDTH, HEIGHT)
    assert corners(read) == [(0, 0, 40, 30), (0, 0, 1, 1), (4.5, 1, 10, 20)]
    assert [box.name for box in read.boxes] == ["dog", "cat", "dog"]
    zero = read_voc(voc(tmp_path, voc_object(0, 0, 40, 30)), stop, first_pixel=0)
    assert corners(zero) == [(0, 0, 40, 30)]


@pytest.mark.parametrize(("difficult", "crowd"), [("crowd", [False, True, False]), ("keep", [False] * 3), ("drop", [False, False])])
def test_voc_difficult(tmp_path, difficult, crowd):
    hard, easy = "<difficult>1</difficult>", "<difficult>0</difficult>"
    item = voc(tmp_path, voc_object(), voc_object(more=hard), voc_object(more=easy))
    assert [box.crowd for box in read_voc(item, stop, difficult=difficult).boxes] == crowd


BAD_OBJECTS = {
    "no name": (voc_object(name=""), "lacks a name"),
    "other name": (voc_object(name="cow"), "the name must be one of dog, cat, got 'cow'"),
    "no box": ("<object><name>dog</name></object>", "bndbox must have the numbers xmin, ymin, xmax, ymax, got [None,"),
    "text": (voc_object(xmin="left"), "bndbox must have the numbers xmin, ymin, xmax, ymax, got ['left', '1', '40', '30']"),
    "nan": (voc_object(ymax="nan"), "bndbox must have the numbers"),
    "reversed": (voc_object(20, 1, 10, 30), "bbox must have a positive width and height, got ['20', '1', '10', '30']"),
    "outside": (voc_object(1, 1, 42, 30), "bbox must lie inside its image"),
    "from zero": (
        voc_object(0, 0, 39, 29),
        "bbox must lie inside its image (less than 1 px outside is clipped); files that count",
    ),
}


@pytest.mark.parametrize(("broken", "message"), BAD_OBJECTS.values(), ids=BAD_OBJECTS)
def test_a_bad_object_is_named_and_can_be_passed_over(tmp_path, broken, message):
    item = voc(tmp_path, voc_object(), broken, voc_object(name="cat"))
    with pytest.raises(BadLabel, match=f"^{re.escape(str(item.labels))}: object\\[1\\].*: {re.escape(message)}"):
        read_voc(item, stop, names=["dog", "cat"])
    bad = []
    assert [box.name for box in read_voc(item, bad.append, names=["dog", "cat"]).boxes] == ["dog", "cat"]
    assert len(bad) == 1


@pytest.mark.parametrize("content", ["", "<annotation>", "no xml", "<a>&#0;</a>", "<?xml version='1.0' encoding='nonsense'?><a/>"])
def test_broken_xml(tmp_path, content):
    item = voc(tmp_path)
    item.labels.write_text(content)
    with pytest.raises(BadLabel, match=r"a\.xml: is not XML: "):
        read_voc(item, stop)


def test_xml_and_image_must_belong_together(tmp_path):
    with pytest.raises(BadLabel, match=r"a\.xml: states 30 x 40 px, .*a\.png has 40 x 30"):
        read_voc(voc(tmp_path, size=(30, 40)), stop)
    for unstated in (None, (0, 0)):
        assert read_voc(voc(tmp_path, voc_object(), size=unstated), stop).size == (WIDTH, HEIGHT)
    item = voc(tmp_path)
    item.image.write_bytes(b"no image")
    with pytest.raises(BadLabel, match=r"a\.png: is not an image that can be decoded"):
        read_voc(item, stop)
    item = Labelled(draw(tmp_path / "JPEGImages" / "b.png"), None)
    assert read_voc(item, stop).boxes == []


def test_voc_parts_are_those_of_the_image_sets(tmp_path):
    for stem in "abc":
        voc(tmp_path, voc_object(), stem=stem)
    (tmp_path / "Annotations" / "b.xml").unlink()

    def stems():
        return {part: [item.image.stem for item in items] for part, items in voc_parts(tmp_path).items()}

    assert stems() == {"all": ["a", "b", "c"]}
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("c\nb\n\n")
    (main / "val.txt").write_text("a  1\n")
    (main / "dog_train.txt").write_text("a -1\n")
    assert {part: [item.image.stem for item in items] for part, items in voc_parts(tmp_path).items()} == {
        "train": ["c", "b"],
        "val": ["a"],
    }
    (main / "val.txt").write_text("a\nnone\n")
    with pytest.raises(ValueError, match=r"val\.txt: line 2: names an image that is not there, got 'none'"):
        voc_parts(tmp_path)


def test_voc_in_one_flat_folder_and_mistakes(tmp_path):
    item = voc(tmp_path / "parts", voc_object())
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (item.image, item.labels):
        (flat / file.name).write_bytes(file.read_bytes())
    assert [found.labels for found in voc_parts(flat)["all"]] == [flat / "a.xml"]
    (flat / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a\.xml: has no image of its name"):
        voc_parts(flat)
    (flat / "a.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"no \*\.xml in"):
        voc_parts(flat)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        voc_parts(tmp_path / "nowhere")


# -- YOLO


@pytest.mark.parametrize(
    ("line", "expected", "keypoints"),
    [
        ("1 0.5 0.5 0.5 0.4", (10, 9, 30, 21), 0),
        ("1.000e+00 0.5 0.5 1 1", (0, 0, 40, 30), 0),
        ("1 0.5 0.5 0.5 0.4 0.87", (10, 9, 30, 21), 0),  # with a confidence
        ("1 0.1 0.1 0.9 0.2 0.5 0.9", (4, 3, 36, 27), 0),  # a triangle
        ("1 0.25 0.2 0.75 0.2 0.75 0.8 0.25 0.8", (10, 6, 30, 24), 0),  # a turned box
        ("1 0.5 0.5 0.5 0.4 0.9 0.9 2 0.1 0.1 2", (10, 9, 30, 21), 6),  # a pose
        ("1 0.50001 0.5 1 1", (0.0004, 0, 40, 30), 0),  # rounded
    ],
)
def test_yolo_lines(tmp_path, line, expected, keypoints):
    read = read_yolo(yolo(tmp_path, "", line), stop, names=["cat", "dog"], keypoints=keypoints)
    assert [box.name for box in read.boxes] == ["dog"]
    np.testing.assert_allclose(corners(read)[0], expected, atol=1e-6)


BAD_LINES = {
    "short": ("1 0.5 0.5", "class, x, y, width, height or class and the corners"),
    "text": ("dog 0.5 0.5 0.1 0.1", "class, x, y, width, height or class"),
    "nan": ("0 nan 0.5 0.1 0.1", "class, x, y, width, height or class"),
    "half a corner": ("0 0.1 0.1 0.9 0.2 0.5 0.9 0.4", "class, x, y, width, height or class"),
    "class": ("2 0.5 0.5 0.1 0.1", "the class must be a whole number from 0 to 1, got '2'"),
    "class below": ("-1 0.5 0.5 0.1 0.1", "the class must be a whole number"),
    "class 0.5": ("0.5 0.5 0.5 0.1 0.1", "the class must be a whole number"),
    "pixels": ("0 20 15 10 10", "bbox must lie inside its image"),
    "outside": ("0 0.9 0.5 0.4 0.1", "bbox must lie inside its image"),
    "polygon outside": ("0 0.1 0.1 1.2 0.2 0.5 0.9", "bbox must lie inside its image"),
    "no width": ("0 0.5 0.5 0 0.1", "bbox must have a positive width and height"),
    "negative": ("0 0.5 0.5 0.1 -0.1", "bbox must have a positive width and height"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_and_can_be_passed_over(tmp_path, line, message):
    item = yolo(tmp_path, "0 0.5 0.5 0.1 0.1", line, "1 0.5 0.5 0.1 0.1")
    with pytest.raises(BadLabel, match=f"^{re.escape(str(item.labels))}: line 2.*: {re.escape(message)}"):
        read_yolo(item, stop, names=["cat", "dog"])
    bad = []
    assert [box.name for box in read_yolo(item, bad.append, names=["cat", "dog"]).boxes] == ["cat", "dog"]
    assert len(bad) == 1


def test_yolo_files(tmp_path):
    item = yolo(tmp_path)
    item.labels.write_bytes(b"\xff\xfe0 0.5")
    with pytest.raises(BadLabel, match=r"a\.txt: is not text"):
        read_yolo(item, stop, names=["cat"])
    item.labels.unlink()
    assert read_yolo(Labelled(item.image, None), stop, names=["cat"]).boxes == []
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Labelled(draw(tmp_path / "images" / "b.jpg", exif=exif), item.labels)
    with pytest.raises(BadLabel, match=r"b\.jpg: has an EXIF orientation"):
        read_yolo(turned, stop, names=["cat"])
    assert read_voc(Labelled(turned.image, None), stop).size == (WIDTH, HEIGHT)


def test_yolo_parts(tmp_path):
    for part, stems in {"train": "ab", "val": "c"}.items():
        for stem in stems:
            draw(tmp_path / "images" / part / "sub" / f"{stem}.jpg")
            text(tmp_path / "labels" / part / "sub" / f"{stem}.txt")

    def found(text):
        (tmp_path / "data.yaml").write_text(text)
        parts, names, keypoints = yolo_parts(tmp_path)
        labels = {part: [item.labels.relative_to(tmp_path).as_posix() for item in items] for part, items in parts.items()}
        return labels, names, keypoints

    both = {"train": ["labels/train/sub/a.txt", "labels/train/sub/b.txt"], "val": ["labels/val/sub/c.txt"]}
    assert found("train: images/train\nval: images/val\nnames: [cat, dog]\ntest:\n") == (both, ["cat", "dog"], 0)
    assert found("path: .\ntrain: [images/train]\nval: [images/val]\nnames: {1: dog, 0: cat}\nkpt_shape: [17, 3]\n") == (
        both,
        ["cat", "dog"],
        51,
    )
    assert found("path: /datasets/none\ntrain: ../images/train\nval: ../images/val\nnames: [7]\n") == (both, ["7"], 0)
    assert found("names: [cat]\n")[0] == both  # the folders name the parts
    (tmp_path / "val.txt").write_text("./images/val/sub/c.jpg\n")
    assert found("train: images/train\nval: val.txt\nnames: [cat]\n")[0] == both


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("[1]", "an object with names, train and val expected, got list"),
        ("train: images", "names must be a list of class names"),
        ("names: {0: a, 2: b}", "names must be a list of class names"),
        ("names: [a]\ntrain: {3: 4}", "a part must be a path or a list of paths, got {'3': '4'}"),
        ("names: [a]\ntrain: [[3]]", r"a part must be a path or a list of paths, got \[\['3'\]\]"),
        ("names: [a]\ntrain: nowhere", "nowhere is neither a folder nor a list"),
        ("names: [a]\nval: images\nvalid: images", "names the part val twice, the second time as valid"),
        ("names: [a, b, a]", "names has 'a' twice"),
    ],
)
def test_a_broken_data_yaml(tmp_path, text, message):
    draw(tmp_path / "images" / "a.png")
    with pytest.raises(FileNotFoundError, match=r"no data\.yaml in"):
        yolo_parts(tmp_path)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        yolo_parts(tmp_path)


# -- beside another reader


@pytest.mark.filterwarnings("ignore")
def test_the_boxes_of_the_supervision_library(tmp_path):
    supervision = pytest.importorskip("supervision")
    rng = np.random.default_rng(0)
    voc_folder, yolo_folder = tmp_path / "voc", tmp_path / "yolo"
    items = []
    for stem in "abc":
        x = np.sort(rng.integers(1, WIDTH + 1, (5, 2)), axis=1)
        y = np.sort(rng.integers(1, HEIGHT + 1, (5, 2)), axis=1)
        objects = [voc_object(*row, name=f"n{i % 2}") for i, row in enumerate(np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1))]
        center, size = rng.uniform(0.3, 0.7, (4, 2)), rng.uniform(0.1, 0.5, (4, 2))
        lines = [f"{i % 2} {' '.join(map(str, [*c, *s]))}" for i, (c, s) in enumerate(zip(center, size, strict=True))]
        lines.append("1 " + " ".join(map(str, rng.uniform(0, 1, 10))))
        items.append((voc(voc_folder, *objects, stem=stem), yolo(yolo_folder, *lines, stem=stem)))
    (yolo_folder / "data.yaml").write_text("names: [n0, n1]\n")
    theirs_voc = supervision.DetectionDataset.from_pascal_voc(str(voc_folder / "JPEGImages"), str(voc_folder / "Annotations"))
    theirs_yolo = supervision.DetectionDataset.from_yolo(
        str(yolo_folder / "images"), str(yolo_folder / "labels"), str(yolo_folder / "data.yaml")
    )
    for voc_item, yolo_item in items:
        for theirs, ours in (
            (theirs_voc.annotations[str(voc_item.image)], read_voc(voc_item, stop)),
            (theirs_yolo.annotations[str(yolo_item.image)], read_yolo(yolo_item, stop, names=["n0", "n1"])),
        ):
            np.testing.assert_allclose(corners(ours), theirs.xyxy, atol=1e-4)
            assert [box.name for box in ours.boxes] == theirs.data["class_name"].tolist()


def test_coco_file_names_are_relative_to_their_folder(tmp_path):
    read = read_yolo(Labelled(draw(tmp_path / "images" / "sub" / "a.png"), None), stop, names=["cat"])
    document = coco_document([read], ["cat", "dog"], tmp_path / "images")
    assert document["images"] == [{"id": 1, "file_name": "sub/a.png", "width": WIDTH, "height": HEIGHT}]
    assert document["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert document["annotations"] == []
