"""A folder of data is recognized by what is there, read whole, and split where it has no validation part."""

import json

import numpy as np
import pytest
from PIL import Image

from lossbox.coco.checks import NO_LABEL_LEFT
from lossbox.coco.convert import coco_document
from lossbox.coco.files import BadLabel
from lossbox.coco.labels import Box, Read
from lossbox.coco.layout import read_part
from lossbox.coco.recognize import describe, recognize
from lossbox.coco.split import split, with_val

WIDTH, HEIGHT = 40, 30


def draw(path, seed=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (HEIGHT, WIDTH, 3)
    pixels = np.zeros(shape, np.uint8) if seed is None else np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def coco(names, categories=((3, "cup"), (5, "plate")), box=(1, 2, 10, 20), **more):
    """A COCO document with one annotation of the first category per image."""
    return {
        "images": [{"id": 7 + i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)],
        "categories": [{"id": id_, "name": name} for id_, name in categories],
        "annotations": [
            {"id": 90 + i, "image_id": 7 + i, "category_id": categories[-1][0], "bbox": list(box), "area": 33.5, **more}
            for i in range(len(names))
        ],
    }


def voc(path):
    box = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>11</xmax><ymax>22</ymax></bndbox>"
    return text(path, f"<annotation><object><name>cup</name>{box}</object></annotation>")


def read(source, on_bad=None, **options):
    """The kind, the boxes by part and image, and the notes."""
    layout = recognize(source, *([on_bad] if on_bad else []), **options)
    parts = {part: read_part(layout, part, *([on_bad] if on_bad else [])) for part in layout.parts}
    found = {part: {image.image.name: [box.corners for box in image.boxes] for image in images} for part, images in parts.items()}
    return layout.kind, found, [str(note) for note in layout.notes]


# -- COCO


@pytest.mark.parametrize(
    ("json_file", "image", "file_name"),
    [
        ("train.json", "train/1.jpg", "1.jpg"),
        ("train.json", "train/1.jpg", "train/1.jpg"),
        ("train/_annotations.coco.json", "train/1.jpg", "1.jpg"),
        ("annotations/instances_train2017.json", "train2017/1.jpg", "1.jpg"),
        ("annotations/train.json", "images/train/1.jpg", "1.jpg"),
        ("annotations/train.json", "images/1.jpg", "C:\\data\\images\\1.jpg"),
        ("annotations/train.json", "images/1.jpg", "/home/old/images/1.jpg"),
        ("annotations/train.json", "images/1.jpg", "../images/1.jpg"),
        ("coco/train.json", "a/b/c/1.jpg", "b/c/1.jpg"),
    ],
)
def test_coco_images_in_any_folder(tmp_path, json_file, image, file_name):
    draw(tmp_path / image)
    text(tmp_path / json_file, coco([file_name]))
    assert read(tmp_path) == ("COCO", {"train": {"1.jpg": [(1, 2, 11, 22)]}}, [])
    assert list(read(tmp_path / json_file)[1].values()) == [{"1.jpg": [(1, 2, 11, 22)]}]


def test_coco_parts_of_roboflow(tmp_path):
    """The same names in every part, and a group among the categories."""
    for part in ("train", "valid", "test"):
        draw(tmp_path / part / "1.jpg")
        document = coco(["1.jpg"], [(0, "things"), (1, "cup")])
        document["categories"][1]["supercategory"] = "things"
        text(tmp_path / part / "_annotations.coco.json", document)
    layout = recognize(tmp_path)
    assert {part: [item.image for item in items] for part, items in layout.parts.items()} == {
        part: [tmp_path / folder / "1.jpg"] for part, folder in (("test", "test"), ("train", "train"), ("val", "valid"))
    }
    assert layout.names == ["cup"]
    assert [str(note) for note in layout.notes] == ["category 0 ('things'): is the group of other categories, has no box and is no class"]


def test_coco_records_stay_as_they_are(tmp_path):
    draw(tmp_path / "train/1.jpg")
    text(tmp_path / "train.json", coco(["1.jpg"], iscrowd=0, segmentation=[[1, 2, 3, 4, 5, 6]]))
    layout = recognize(tmp_path)
    document = coco_document(read_part(layout, "train"), layout.ids, tmp_path)
    assert document["images"] == [{"id": 7, "file_name": "train/1.jpg", "width": WIDTH, "height": HEIGHT}]
    assert document["categories"] == [{"id": 3, "name": "cup"}, {"id": 5, "name": "plate"}]
    assert document["annotations"] == coco(["1.jpg"], iscrowd=0, segmentation=[[1, 2, 3, 4, 5, 6]])["annotations"]


def test_coco_bad_records_and_unused_images_are_named(tmp_path):
    for name in "123":
        draw(tmp_path / f"train/{name}.jpg")
    document = coco(["1.jpg", "2.jpg", "2.jpg", "4.jpg"])
    document["annotations"][0]["bbox"] = [0, 0, 0, 5]
    document["annotations"][1]["category_id"] = 4
    document["annotations"].append(document["annotations"][1] | {"id": 95, "category_id": 3})
    text(tmp_path / "train.json", document)
    with pytest.raises(BadLabel, match=r"images\[2\] \(id 9\): file_name is that of another record, got '2.jpg'"):
        recognize(tmp_path)
    bad = []
    _, found, notes = read(tmp_path, bad.append)
    assert found == {"train": {"2.jpg": [(1, 2, 11, 22)]}}
    assert [str(error).removeprefix(f"{tmp_path}/") for error in bad] == [
        "train.json: images[2] (id 9): file_name is that of another record, got '2.jpg'",
        "train.json: images[3] (id 10): the image does not exist, got '4.jpg'",
        "train.json: annotations[0] (id 90): bbox must have a positive width and height, got [0, 0, 0, 5]",
        "train.json: annotations[1] (id 91): category_id 4 is not the id of a category",
        f"train/1.jpg: {NO_LABEL_LEFT}",
    ]
    assert notes == [f"{tmp_path}/train/3.jpg: is in no part"]


def test_coco_image_of_several_folders_is_named(tmp_path):
    for folder in ("a", "b"):
        draw(tmp_path / folder / "1.jpg")
    text(tmp_path / "train.json", coco(["1.jpg"]))
    with pytest.raises(BadLabel, match="file_name is that of several images"):
        recognize(tmp_path)


def test_coco_categories_are_matched_by_name(tmp_path):
    for part, categories in (("train", [(1, "cup"), (2, "plate")]), ("val", [(1, "plate")])):
        draw(tmp_path / part / f"{part}.jpg")
        text(tmp_path / f"{part}.json", coco([f"{part}.jpg"], categories))
    layout = recognize(tmp_path)
    assert layout.ids == {"cup": 1, "plate": 2}
    assert "matched by name" in str(layout.notes[0])
    for part in ("train", "val"):
        document = coco_document(read_part(layout, part), layout.ids, tmp_path)
        assert [row["category_id"] for row in document["annotations"]] == [2]


def test_coco_other_files_of_a_part(tmp_path):
    draw(tmp_path / "val2017/1.jpg")
    for name in ("instances", "person_keypoints"):
        text(tmp_path / f"annotations/{name}_val2017.json", coco(["1.jpg"]))
    text(tmp_path / "annotations/captions_val2017.json", {"images": [], "annotations": []})
    kind, found, notes = read(tmp_path)
    assert (kind, list(found)) == ("COCO", ["val"])
    assert "person_keypoints_val2017.json: is left out beside instances_val2017.json" in notes[0]
    (tmp_path / "annotations/instances_val2017.json").rename(tmp_path / "annotations/boxes_val2017.json")
    with pytest.raises(ValueError, match=r"several files for the part val; name one of them"):
        recognize(tmp_path)


# -- the others, and none


def test_voc_is_recognized(tmp_path):
    draw(tmp_path / "train/1.jpg")
    voc(tmp_path / "train/1.xml")
    assert read(tmp_path) == ("Pascal VOC", {"train": {"1.jpg": [(1, 2, 11, 22)]}}, [])


def test_voc_below_a_folder_keeps_its_lists(tmp_path):
    for stem in "12":
        draw(tmp_path / f"VOC2012/JPEGImages/{stem}.jpg")
        voc(tmp_path / f"VOC2012/Annotations/{stem}.xml")
    text(tmp_path / "VOC2012/ImageSets/Main/train.txt", "1\n")
    text(tmp_path / "VOC2012/ImageSets/Main/val.txt", "2\n")
    assert {part: list(images) for part, images in read(tmp_path)[1].items()} == {"train": ["1.jpg"], "val": ["2.jpg"]}
    (tmp_path / "VOC2007/ImageSets").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds several data sets"):
        recognize(tmp_path)


@pytest.mark.parametrize("file", ["data.yaml", "sub/data.yaml", "classes.txt", "labels/classes.txt", "my.yml"])
def test_yolo_is_recognized(tmp_path, file):
    root = tmp_path / "sub" if file.startswith("sub/") else tmp_path
    draw(root / "images/train/1.jpg")
    text(root / "labels/train/1.txt", "0 0.15 0.4 0.25 0.6666667\n")
    text(tmp_path / file, "names: [cup]\ntrain: images/train\n" if file.endswith("ml") else "cup\n")
    kind, found, notes = read(tmp_path)
    assert (kind, list(found), notes) == ("YOLO", ["train"], [])
    assert len(found["train"]["1.jpg"]) == 1
    assert read(tmp_path / file)[:2] == (kind, found)


def test_yolo_of_roboflow_without_its_test_part(tmp_path):
    for part in ("train", "valid"):
        draw(tmp_path / part / "images/1.jpg")
        text(tmp_path / part / "labels/1.txt", "0 .5 .5 .1 .1\n")
    text(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cup]\n")
    _, found, notes = read(tmp_path)
    assert list(found) == ["train", "val"]
    assert notes == [f"{tmp_path}/data.yaml: names a part test that is not there, got '../test/images'"]


def test_several_layouts_are_an_error_that_names_them(tmp_path):
    draw(tmp_path / "train/1.jpg")
    voc(tmp_path / "train/1.xml")
    text(tmp_path / "train.json", coco(["1.jpg"]))
    with pytest.raises(ValueError, match=r"may be several things: COCO .*train.json, Pascal VOC .*1.xml; name the JSON"):
        recognize(tmp_path)
    assert read(tmp_path / "train.json")[0] == "COCO"
    assert read(tmp_path, format="voc")[0] == "Pascal VOC"


def test_no_layout_is_an_error_that_says_what_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        recognize(tmp_path / "none")
    with pytest.raises(ValueError, match=r"looked for COCO \(JSON .*Pascal VOC \(.*YOLO \(.*; found an empty folder"):
        recognize(tmp_path)
    draw(tmp_path / "1.jpg")
    text(tmp_path / "1.txt", "0 .5 .5 .1 .1\n")
    text(tmp_path / "boxes.json", {"images": [], "annotations": []})
    text(tmp_path / "settings.xml", "<project/>")
    with pytest.raises(
        ValueError, match=r"found 1 images, 1 .json, 1 .txt, 1 .xml, .*boxes.json with the keys \['annotations', 'images'\]"
    ):
        recognize(tmp_path)
    text(tmp_path / "boxes.json", '{"images": []} and more')
    with pytest.raises(ValueError, match=r"boxes.json which is not JSON: Extra data: line 1 column 16"):
        recognize(tmp_path)


def test_one_line_about_the_data(tmp_path):
    text(tmp_path / "classes.txt", "cup\nplate\n")
    for stem in "12":
        draw(tmp_path / f"{stem}.jpg")
        text(tmp_path / f"{stem}.txt", "0 .5 .5 .1 .1\n")
    layout = recognize(tmp_path)
    parts = {part: read_part(layout, part) for part in layout.parts}
    assert describe(layout, parts, layout.names) == "YOLO, 1 part: all 2 images; 2 classes: cup, plate"


# -- the split


def reads(tmp_path, classes):
    return [
        Read(draw(tmp_path / f"{i:03}.png", i), (WIDTH, HEIGHT), [Box(name, (0, 0, 1, 1)) for name in names])
        for i, names in enumerate(classes)
    ]


def test_the_split_has_its_share_of_every_class(tmp_path):
    images = reads(tmp_path, ["a"] * 40 + ["b"] * 10 + ["ab"] * 10 + [""] * 10)
    train, val = split(images, share=0.2)
    assert sorted(image.image for image in train + val) == [image.image for image in images]
    assert [sum(name in [box.name for box in image.boxes] for image in val) for name in "ab"] == [10, 4]
    assert sum(not image.boxes for image in val) == 2
    assert len(val) == 14
    assert (train, val) == split(images, share=0.2)
    assert val != split(images, share=0.2, seed=1)[1]


def test_images_of_the_same_bytes_stay_together(tmp_path):
    images = reads(tmp_path, ["a"] * 20)
    for image in images[1::2]:
        image.image.write_bytes(images[0].image.read_bytes())
    for seed in range(5):
        sides = split(images, share=0.3, seed=seed)
        assert sum(images[1] in side for side in sides) == 1
        assert any(all(image in side for image in [images[0], *images[1::2]]) for side in sides)
        assert all(sides)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_neither_side_of_a_split_is_empty(tmp_path, count):
    assert all(split(reads(tmp_path, ["a"] * count), share=0.1))
    assert all(split(reads(tmp_path, ["a"] * count), share=0.9))
    with pytest.raises(ValueError, match="two different images at least, got 1"):
        split(reads(tmp_path, ["a"]))


def test_the_split_of_the_data_is_kept(tmp_path):
    images = reads(tmp_path, ["a"] * 10)
    own = {"train": images[:8], "val": images[8:]}
    assert with_val(own) == (own, "")
    parts, said = with_val({"all": images[:5], "val": images[5:]})
    assert (parts, said) == ({"train": images[:5], "val": images[5:]}, "all is train")
    parts, said = with_val({"train": images[:5], "test": images[5:]})
    assert {part: len(of_part) for part, of_part in parts.items()} == {"train": 4, "val": 1, "test": 5}
    assert said == "there is no val: 20 % of train, by the classes of the images (seed 0)"
    parts, said = with_val({"val": images})
    assert ({part: len(of_part) for part, of_part in parts.items()}, said[:40]) == (
        {"train": 8, "val": 2},
        "val alone is there: 20 % of it, by the c",
    )
    with pytest.raises(ValueError, match="a part called train expected, or one part beside val and test, got a, b"):
        with_val({"a": images[:5], "b": images[5:]})
