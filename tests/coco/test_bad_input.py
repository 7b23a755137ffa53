"""Every rule of the reader: the error names the file, the record and the rule; bad boxes can be dropped and are counted."""

import json
import os
import re
import warnings

import pytest
from PIL import Image

from lossbox.coco.checks import NO_LABEL_LEFT
from lossbox.coco.read import BOX_FINITE, BOX_INSIDE, BOX_SHAPE, BOX_SIZE, inspect_coco, read_coco
from lossbox.data.images import CocoDataset


def starts(message):
    return "^" + re.escape(message)


# -- the file as a whole


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "is not JSON"),
        (b"images: []", "is not JSON"),
        (b'{"images": [', "is not JSON"),
        (b"\xff\xfe\x00garbage", "is not JSON"),
        (b'{"images": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "is nested too deeply"),
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "is nested too deeply"),
        (b"[]", "an object with images, annotations and categories expected, got list"),
        (b'"text"', "an object with images, annotations and categories expected, got str"),
        (b"null", "an object with images, annotations and categories expected, got NoneType"),
    ],
)
def test_a_file_that_is_no_json_object(coco_folder, content, rule):
    coco_folder.write()
    coco_folder.json_file.write_bytes(content)
    with pytest.raises(ValueError, match=starts(f"{coco_folder.json_file}: {rule}")) as caught:
        read_coco(coco_folder.json_file, coco_folder.images)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_a_section_that_is_not_there_or_no_list_of_objects(coco_folder, section):
    for value, rule in [
        ({}, f"{section} must be a list, got {{}}"),
        (None, f"{section} must be a list, got None"),
        ([3], f"{section}[0]: must be an object, got 3"),
        ([[]], f"{section}[0]: must be an object, got []"),
    ]:
        coco_folder.document[section] = value
        with pytest.raises(ValueError, match=starts(f"{coco_folder.json_file}: {rule}")):
            read_coco(*coco_folder.write())
    del coco_folder.document[section]
    with pytest.raises(ValueError, match=f"lacks the section '{section}'"):
        read_coco(*coco_folder.write())


def test_files_and_folders_that_are_not_there(coco_folder):
    json_file, images = coco_folder.write()
    with pytest.raises(FileNotFoundError, match=r"other\.json does not exist; COCO detection JSON expected"):
        read_coco(coco_folder.root / "other.json", images)
    with pytest.raises(FileNotFoundError, match=r"image_root: .*nowhere is not a folder"):
        read_coco(json_file, coco_folder.root / "nowhere")
    with pytest.raises((ValueError, TypeError), match="on_bad_box"):  # a TypeError where the types are checked at run time
        read_coco(json_file, images, on_bad_box="skip")


# -- one record


def change(section, index, **values):
    def apply(document):
        document[section][index].update(values)

    return apply


def without(section, index, key):
    def apply(document):
        del document[section][index][key]

    return apply


HUGE = 10**400
BROKEN_RECORDS = {
    "category twice": (change("categories", 1, id=20), "categories[1] (id 20): id occurs twice in categories"),
    "category id text": (change("categories", 0, id="2O"), "categories[0] (id '2O'): id must be a whole number, got '2O'"),
    "category id missing": (without("categories", 0, "id"), "categories[0] (id None): lacks 'id'"),
    "category name": (change("categories", 0, name=None), "categories[0] (id 20): name must be a text that is not empty, got None"),
    "image twice": (change("images", 2, id=5), "images[2] (id 5): id occurs twice in images"),
    "image id bool": (change("images", 0, id=True), "images[0] (id True): id must be a whole number, got True"),
    "image id list": (change("images", 0, id=[]), "images[0] (id []): id must be a whole number, got []"),
    "width missing": (without("images", 0, "width"), "images[0] (id 5): lacks 'width'"),
    "width NaN": (change("images", 0, width=float("nan")), "images[0] (id 5): width must be a whole number, got nan"),
    "width zero": (change("images", 0, width=0), "images[0] (id 5): width and height must be positive numbers of pixels, got 0 and 30"),
    "height huge": (change("images", 0, height=2**31), "images[0] (id 5): width and height must be positive numbers of pixels"),
    "file_name missing": (without("images", 1, "file_name"), "images[1] (id 7): lacks 'file_name'"),
    "file_name empty": (change("images", 1, file_name=""), "images[1] (id 7): file_name must be a text that is not empty, got ''"),
    "annotation twice": (change("annotations", 1, id=1), "annotations[1] (id 1): id occurs twice in annotations"),
    "annotation id": (without("annotations", 1, "id"), "annotations[1] (id None): lacks 'id'"),
    "unknown image": (change("annotations", 1, image_id=99), "annotations[1] (id 2): image_id 99 is not the id of an image"),
    "image_id text": (change("annotations", 1, image_id="6a"), "annotations[1] (id 2): image_id must be a whole number, got '6a'"),
    "unknown category": (change("annotations", 1, category_id=4), "annotations[1] (id 2): category_id 4 is not the id of a category"),
    "iscrowd": (change("annotations", 1, iscrowd=2), "annotations[1] (id 2): iscrowd must be 0 or 1, got 2"),
    "iscrowd list": (change("annotations", 1, iscrowd=[]), "annotations[1] (id 2): iscrowd must be 0 or 1, got []"),
    "no categories": (lambda document: document.update(categories=[], annotations=[]), "categories is empty"),
    "no images": (lambda document: document.update(images=[], annotations=[]), "images is empty"),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN_RECORDS.values(), ids=BROKEN_RECORDS)
@pytest.mark.parametrize("on_bad_box", ["error", "drop"])
def test_a_record_that_breaks_a_rule(coco_folder, broken, message, on_bad_box):
    broken(coco_folder.document)
    with pytest.raises(ValueError, match=starts(f"{coco_folder.json_file}: {message}")):
        read_coco(*coco_folder.write(), on_bad_box=on_bad_box)


def test_a_name_of_two_classes(coco_folder):
    coco_folder.document["categories"][1]["name"] = "dog"
    with pytest.raises(ValueError, match=r"categories\[1\] \(id 3\): name is that of another category"):
        read_coco(*coco_folder.write())


@pytest.mark.parametrize(("stored", "named"), [("sub/a.png", "sub\\a.png"), ("e\u0301.png", "\u00e9.png"), ("\u00e9.png", "e\u0301.png")])
def test_backslashes_and_forms_of_unicode_in_file_names(coco_folder, stored, named):
    (coco_folder.images / stored).parent.mkdir(exist_ok=True)
    (coco_folder.images / "5.png").rename(coco_folder.images / stored)
    coco_folder.document["images"][0]["file_name"] = named
    assert read_coco(*coco_folder.write()).images[0].path == coco_folder.images / stored


# -- boxes


BROKEN_BOXES = {
    "missing": (None, BOX_SHAPE),
    "text": ("1 2 3 4", BOX_SHAPE),
    "object": ({"x": 1}, BOX_SHAPE),
    "three numbers": ([1, 2, 3], BOX_SHAPE),
    "five numbers": ([1, 2, 3, 4, 5], BOX_SHAPE),
    "a text in it": ([1, 2, 3, "4"], BOX_SHAPE),
    "a bool in it": ([1, 2, 3, True], BOX_SHAPE),
    "null in it": ([1, 2, 3, None], BOX_SHAPE),
    "a list in it": ([1, 2, 3, [4]], BOX_SHAPE),
    "NaN": ([1, 2, 3, float("nan")], BOX_FINITE),
    "infinite": ([float("-inf"), 2, 3, 4], BOX_FINITE),
    "too large for a float": ([1, 2, HUGE, 4], BOX_FINITE),
    "zero width": ([1, 2, 0, 4], BOX_SIZE),
    "zero height": ([1, 2, 3, 0.0], BOX_SIZE),
    "negative width": ([10, 2, -3, 4], BOX_SIZE),
    "no size in float32": ([39, 2, 1e-9, 4], BOX_SIZE),
    "left": ([-1, 2, 10, 4], BOX_INSIDE),
    "top": ([1, -5, 3, 10], BOX_INSIDE),
    "right": ([35, 2, 6, 4], BOX_INSIDE),
    "bottom": ([1, 25, 3, 6], BOX_INSIDE),
    "just outside": ([40.2, 2, 0.5, 4], BOX_INSIDE),
    "sum overflows": ([1e308, 2, 1.7e308, 4], BOX_INSIDE),
}


@pytest.mark.parametrize(("box", "rule"), BROKEN_BOXES.values(), ids=BROKEN_BOXES)
def test_a_box_that_breaks_a_rule_is_named_or_dropped(coco_folder, box, rule):
    coco_folder.document["annotations"][2]["bbox"] = box
    if box is None:
        del coco_folder.document["annotations"][2]["bbox"]
    where = f"{coco_folder.json_file}: annotations[2] (id 3), image id 5 of 40 x 30 px: {rule}, got "
    with pytest.raises(ValueError, match=starts(where)) as caught:
        read_coco(*coco_folder.write())
    assert len(str(caught.value)) < 600
    with pytest.warns(UserWarning, match="dropped") as warned:
        read = read_coco(*coco_folder.write(), on_bad_box="drop")
    assert len(warned) == 1
    assert str(warned[0].message).startswith(f"1 of 3 annotations dropped, the first is {where}")
    assert [len(image.boxes) for image in read.images] == [1, 0, 1]
    assert read.images[0].labels.tolist() == [1]
    assert read.dropped == {3}


def test_one_counted_warning_for_each_rule(coco_folder):
    boxes = [[0, 0, 0, 1], [5, 5, 5, 5], [0, 0, 100, 1], [0, 0, -1, 1], [1, 2], [1, 1, 2, 0]]
    coco_folder.document["annotations"] = [{"id": i, "image_id": 5, "category_id": 3, "bbox": box} for i, box in enumerate(boxes)]
    with pytest.warns(UserWarning, match="dropped") as warned:
        read = read_coco(*coco_folder.write(), on_bad_box="drop")
    messages = [str(warning.message) for warning in warned]
    assert len(messages) == 3
    assert messages[0].startswith("3 of 6 annotations dropped") and "(id 0)" in messages[0] and BOX_SIZE in messages[0]  # noqa: PT018
    assert messages[1].startswith("1 of 6 annotations dropped") and BOX_INSIDE in messages[1]  # noqa: PT018
    assert messages[2].startswith("1 of 6 annotations dropped") and BOX_SHAPE in messages[2]  # noqa: PT018
    assert read.images[0].boxes.tolist() == [[5, 5, 10, 10]]
    assert read.dropped == {0, 2, 3, 4, 5}


def test_an_image_that_lost_all_its_boxes_is_left_out_and_one_that_never_had_any_stays(coco_folder):
    coco_folder.document["annotations"][1]["bbox"] = [0, 0, 0, 1]  # the only box of image 6
    with pytest.warns(UserWarning, match="dropped") as warned:
        read = read_coco(*coco_folder.write(), on_bad_box="drop")
    where = f"{coco_folder.json_file}: images[2] (id 6) ('{coco_folder.images}/6.png')"
    assert str(warned[1].message) == f"1 of 3 images dropped, the first is {where}: {NO_LABEL_LEFT}"
    assert [(image.id, len(image.boxes)) for image in read.images] == [(5, 2), (7, 0)]
    assert read.ground_truth.image_ids.tolist() == [5, 7]
    inspected, bad = inspect_coco(*coco_folder.write())
    assert [image.id for image in inspected.images] == [5, 7]
    assert str(bad[1]) == f"{where}: {NO_LABEL_LEFT}"
    coco_folder.document["images"] = coco_folder.document["images"][2:]
    coco_folder.document["annotations"] = coco_folder.document["annotations"][1:2]
    with pytest.raises(ValueError, match="no image is left; the first: "), pytest.warns(UserWarning, match="1 of 1 annotations"):
        read_coco(*coco_folder.write(), on_bad_box="drop")


def test_no_warning_where_nothing_is_dropped(coco_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_coco(*coco_folder.write(), on_bad_box="drop")


# -- all of them


@pytest.mark.parametrize(("broken", "message"), BROKEN_RECORDS.values(), ids=BROKEN_RECORDS)
def test_inspection_finds_what_reading_stops_at(coco_folder, broken, message):
    broken(coco_folder.document)
    files = coco_folder.write()
    if " is empty" in message:
        with pytest.raises(ValueError, match=starts(f"{coco_folder.json_file}: {message}")):
            inspect_coco(*files)
        return
    _, bad = inspect_coco(*files)
    assert str(bad[0]).startswith(f"{coco_folder.json_file}: {message}")
    # where an id is wrong there is none by the right id
    assert all("is not the id of" in error.rule or error.rule == NO_LABEL_LEFT for error in bad[1:])
    assert message.split(": ")[1].startswith(bad[0].rule[:20])


def test_inspection_lists_every_bad_record_once_and_keeps_the_good_ones(coco_folder):
    document = coco_folder.document
    document["images"] += [{"id": 9, "file_name": "none.png", "width": 4, "height": 4}, "text", {"id": 10, "file_name": "../x", "width": 1}]
    document["categories"] += [{"id": 4, "name": ""}]
    bad_boxes = [box for box, _ in BROKEN_BOXES.values() if box is not None]
    first = len(document["annotations"])
    document["annotations"] += [{"id": 10 + i, "image_id": 6, "category_id": 20, "bbox": box} for i, box in enumerate(bad_boxes)]
    # what refers to a bad record is not told again
    document["annotations"] += [{"id": 90 + i, "image_id": i, "category_id": 20, "bbox": [0, 0, 1, 1]} for i in (9, 10)]
    document["annotations"] += [{"id": 95, "image_id": 6, "category_id": 4, "bbox": [0, 0, 1, 1]}]
    annotations, bad = inspect_coco(*coco_folder.write())
    rules = [error.rule for error in bad]
    assert rules[:3] == ["name must be a text that is not empty", "must be an object", "lacks 'height'"]
    assert rules[3:-1] == [rule for box, rule in BROKEN_BOXES.values() if box is not None]
    assert [error.where.number for error in bad[3:-1]] == list(range(first, first + len(bad_boxes)))
    assert "none.png" in rules[-1]
    assert [len(image.boxes) for image in annotations.images] == [2, 0, 1]
    assert annotations.categories == [(3, "cat"), (20, "dog")]
    assert annotations.dropped == {10 + i for i in range(len(bad_boxes))}


def test_inspection_of_a_good_file_is_reading(coco_folder):
    annotations, bad = inspect_coco(*coco_folder.write())
    assert bad == []
    read = read_coco(*coco_folder.write())
    assert (annotations.categories, annotations.dropped) == (read.categories, read.dropped)
    assert [image.boxes.tolist() for image in annotations.images] == [image.boxes.tolist() for image in read.images]


# -- images


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "a/../../secret.png",
        "..",
        "/etc/passwd",
        "\\windows\\x.png",
        "..\\secret.png",
        "C:/x.png",
        "c:x.png",
        "5.png\0.jpg",
    ],
)
def test_a_file_name_that_leaves_the_root(coco_folder, name):
    Image.new("RGB", (40, 30)).save(coco_folder.root / "secret.png")
    coco_folder.document["images"][0]["file_name"] = name
    with pytest.raises(ValueError, match=r"images\[0\] \(id 5\): file_name must be a path inside the image folder"):
        read_coco(*coco_folder.write())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_that_leaves_the_root(coco_folder, kind):
    outside = coco_folder.root / "outside"
    outside.mkdir()
    Image.new("RGB", (40, 30)).save(outside / "secret.png")
    link = coco_folder.images / "link"
    link.symlink_to(outside / "secret.png" if kind == "file" else outside)
    coco_folder.document["images"][0]["file_name"] = "link" if kind == "file" else "link/secret.png"
    with pytest.raises(ValueError, match=r"images\[0\] \(id 5\): file_name .* leads out of the image folder"):
        read_coco(*coco_folder.write())


def test_a_sibling_whose_name_begins_like_the_root_is_outside(coco_folder):
    sibling = coco_folder.root / "images2"
    sibling.mkdir()
    Image.new("RGB", (40, 30)).save(sibling / "secret.png")
    (coco_folder.images / "link.png").symlink_to(sibling / "secret.png")
    coco_folder.document["images"][0]["file_name"] = "link.png"
    with pytest.raises(ValueError, match="leads out of the image folder"):
        read_coco(*coco_folder.write())


@pytest.mark.parametrize("name", ["none.png", "folder", "x" * 5000, "\ud800.png", "dangling.png"])
def test_missing_images_are_counted(coco_folder, name):
    (coco_folder.images / "folder").mkdir()
    (coco_folder.images / "dangling.png").symlink_to("nothing.png")
    coco_folder.document["images"][1]["file_name"] = name
    coco_folder.document["images"][2]["file_name"] = "also_none.png"
    with pytest.raises(FileNotFoundError, match=r"images\[1\] \(id 7\): the image .* does not exist \(2 of 3 images are missing") as caught:
        read_coco(*coco_folder.write())
    assert len(str(caught.value)) < 1000


def cut(path):
    path.write_bytes(path.read_bytes()[: os.path.getsize(path) // 2])


def flip_a_byte_of_the_pixels(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def jpeg_cut(path):
    Image.open(path).save(path, format="JPEG")
    cut(path)


BROKEN_IMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not an image"),
    "JSON": lambda path: path.write_text(json.dumps({})),
    "truncated PNG": cut,
    "damaged PNG": flip_a_byte_of_the_pixels,
    "truncated JPEG": jpeg_cut,
    "header only": lambda path: path.write_bytes(path.read_bytes()[:8]),
}


@pytest.mark.parametrize("broken", BROKEN_IMAGES.values(), ids=BROKEN_IMAGES)
def test_a_image_file_that_cannot_be_decoded(coco_folder, broken):
    broken(coco_folder.images / "7.png")
    dataset = CocoDataset(read_coco(*coco_folder.write()))
    dataset[0]
    with pytest.raises(ValueError, match=r"is not an image that can be decoded") as caught:
        dataset[1]
    assert str(caught.value).startswith(f"{coco_folder.json_file}: image id 7: {coco_folder.images / '7.png'} ")


def test_a_image_of_another_size_than_the_json_states(coco_folder):
    coco_folder.document["images"][1]["width"] = 41
    dataset = CocoDataset(read_coco(*coco_folder.write()))
    where = f"{coco_folder.json_file}: image id 7: {coco_folder.images / '7.png'} "
    with pytest.raises(ValueError, match=starts(where + "has 40 x 30 pixels, the JSON states width x height = 41 x 30")):
        dataset[1]


def test_a_image_that_would_fill_the_memory_is_refused(coco_folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    dataset = CocoDataset(read_coco(*coco_folder.write()))
    with pytest.raises(ValueError, match=r"image id 5: .*decompression bomb"):
        dataset[0]
