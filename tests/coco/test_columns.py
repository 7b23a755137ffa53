"""Ground truth and results files: what is read, and what each mistake is called."""

import copy
import json
import math

import numpy as np
import pytest

from lossbox.coco.columns import read_ground_truth, read_index
from lossbox.coco.results import read_results

CONTENT = {
    "images": [{"id": 9}, {"id": 2}],
    "categories": [{"id": 5, "name": "cup"}, {"id": 3, "name": "spoon"}],
    "annotations": [
        {"id": 4, "image_id": 9, "category_id": 5, "bbox": [1, 2, 3.5, 4], "area": 10, "iscrowd": 0},
        {"id": 1, "image_id": 2, "category_id": 3, "bbox": [0, 0, 2, 2], "iscrowd": 1, "ignore": 1},
        {"id": 0, "image_id": 2, "category_id": 5, "bbox": [-5, 0, 2000, 2], "ignore": 1},
    ],
}
DETECTIONS = [
    {"image_id": 2, "category_id": 5, "bbox": [1, 2, 3, 4], "score": 0.5},
    {"image_id": 9, "category_id": 3, "bbox": [-1.5, 2, 3000, 0], "score": 1},
    {"image_id": 9, "category_id": 3, "bbox": [-1.5, 2, 3000, 0], "score": 0},
]


def test_ground_truth_as_columns(tmp_path):
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(CONTENT))
    for truth in (read_ground_truth(path), read_ground_truth(str(path)), read_ground_truth(CONTENT)):
        assert truth.image_ids.tolist() == [2, 9]
        assert truth.category_ids.tolist() == [3, 5]
        assert truth.category_names == ("spoon", "cup")
        assert truth.image.tolist() == [1, 0, 0]
        assert truth.category.tolist() == [1, 0, 1]
        assert truth.boxes.tolist() == [[1, 2, 3.5, 4], [0, 0, 2, 2], [-5, 0, 2000, 2]]
        assert truth.areas.tolist() == [10, 4, 4000]  # the box's where none is given
        assert truth.crowd.tolist() == [False, True, False]  # "ignore" has no effect


def test_results_as_columns(tmp_path):
    path = tmp_path / "dt.json"
    path.write_text(json.dumps(DETECTIONS))
    truth = read_ground_truth(CONTENT)
    for results in (read_results(path, truth), read_results(DETECTIONS, truth)):
        assert results.image.tolist() == [0, 1, 1]
        assert results.category.tolist() == [1, 0, 0]
        assert results.boxes[1].tolist() == [-1.5, 2, 3000, 0]
        assert results.scores.tolist() == [0.5, 1, 0]


def test_numbers_of_numpy_are_numbers():
    detection = {
        "image_id": np.int64(2),
        "category_id": np.int32(5),
        "bbox": np.array([1, 2, 3, 4], dtype=np.float32),
        "score": np.float32(0.5),
    }
    results = read_results([detection], read_ground_truth(CONTENT))
    assert results.boxes.dtype == np.float64
    assert results.scores.tolist() == [0.5]


def test_empty_results():
    results = read_results([], read_ground_truth(CONTENT))
    assert (results.image.shape, results.boxes.shape, results.scores.shape) == ((0,), (0, 4), (0,))


def changed(part, index, **fields):
    content = copy.deepcopy(CONTENT)
    content[part][index].update(fields)
    return content


def without(record, key):
    return {name: value for name, value in record.items() if name != key}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            without(CONTENT, "annotations"),
            r"ground truth: lacks the section 'annotations' of COCO detection JSON; it has \['categories', 'images'\]",
        ),
        (CONTENT | {"images": {}}, "ground truth: images must be a list, got {}"),
        (CONTENT | {"categories": "cup"}, "categories must be a list, got 'cup'"),
        (changed("images", 1, id=9), r"ground truth: images\[1\] \(id 9\): id occurs twice in images"),
        (changed("categories", 1, id=5), r"categories\[1\] \(id 5\): id occurs twice in categories"),
        (changed("annotations", 2, id=4), r"ground truth: annotations\[2\] \(id 4\): id occurs twice in annotations"),
        (changed("images", 0, id="9a"), r"images\[0\] \(id '9a'\): id must be a whole number, got '9a'"),
        (changed("images", 0, id="9.0"), r"images\[0\] \(id '9.0'\): id must be a whole number, got '9.0'"),
        (changed("images", 0, id="2"), r"images\[1\] \(id 2\): id occurs twice in images"),
        (changed("images", 0, id="9" * 25), r"id must be a whole number of 64 bits"),
        (changed("images", 0, id=True), r"images\[0\] \(id True\): id must be a whole number, got True"),
        (CONTENT | {"categories": [{"id": 3}, {"id": 5}]}, r"categories\[0\] \(id 3\): lacks 'name' \(2 such records\)"),
        (changed("annotations", 1, image_id=7), r"annotations\[1\] \(id 1\): image_id 7 is not the id of an image"),
        (changed("annotations", 1, image_id=10), r"annotations\[1\] \(id 1\): image_id 10 is not the id of an image"),
        (changed("annotations", 0, category_id=4), r"annotations\[0\] \(id 4\): category_id 4 is not the id of a category"),
        (changed("annotations", 0, bbox=[1, 2, math.nan, 4]), r"annotations\[0\] \(id 4\): bbox must be finite, got \[1, 2, nan, 4\]"),
        (changed("annotations", 0, bbox=[1, math.inf, 2, 4]), r"annotations\[0\] \(id 4\): bbox must be finite"),
        (
            changed("annotations", 1, bbox=[1, 2, 3, -4]),
            r"annotations\[1\] \(id 1\): bbox must not have a negative width or height.*got \[1, 2, 3, -4\]",
        ),
        (
            changed("annotations", 1, bbox=[1, 2, 3]),
            r"annotations\[1\] \(id 1\): bbox must be a list of four numbers: x, y, width, height, got \[1, 2, 3\]",
        ),
        (changed("annotations", 1, bbox=None), r"annotations\[1\] \(id 1\): bbox must be a list of four numbers"),
        (changed("annotations", 1, bbox=[1, 2, 3, "4"]), r"annotations\[1\] \(id 1\): bbox must be a list of four numbers"),
        (changed("annotations", 2, area=-1), r"annotations\[2\] \(id 0\): area must not be negative, got -1"),
        (changed("annotations", 2, area=math.nan), r"annotations\[2\] \(id 0\): area must not be negative, got nan"),
        (changed("annotations", 2, area=None), r"annotations\[2\] \(id 0\): area must be a number, got None"),
        (changed("annotations", 2, iscrowd=2), r"annotations\[2\] \(id 0\): iscrowd must be 0 or 1, got 2"),
        (CONTENT | {"annotations": [None]}, r"annotations\[0\]: must be an object, got None"),
    ],
)
def test_mistakes_in_ground_truth(content, message):
    with pytest.raises(ValueError, match=message):
        read_ground_truth(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([without(DETECTIONS[0], "score")], r"results\[0\]: lacks 'score'"),
        (
            [DETECTIONS[0], without(DETECTIONS[0], "bbox")],
            r"results\[1\]: bbox must be a list of four numbers: x, y, width, height, got None",
        ),
        ([DETECTIONS[0] | {"score": math.nan}], r"results\[0\]: score must be in \[0, 1\], got nan"),
        (
            [DETECTIONS[0], DETECTIONS[0] | {"score": 1.5}, DETECTIONS[0] | {"score": -1}],
            r"results\[1\]: score .*got 1.5 \(2 such records\)",
        ),
        ([DETECTIONS[0] | {"score": "0.5"}], r"results\[0\]: score must be a number, got '0.5'"),
        ([DETECTIONS[0] | {"image_id": 3}], r"results\[0\]: image_id 3 is not the id of an image of the ground truth"),
        ([DETECTIONS[0] | {"category_id": 1}], r"results\[0\]: category_id 1 is not the id of a category of the ground truth"),
        ([DETECTIONS[0] | {"bbox": [0, 0, math.nan, 1]}], r"results\[0\]: bbox must be finite"),
        ([DETECTIONS[0] | {"bbox": [0, 0, -1, 1]}], r"results\[0\]: bbox must not have a negative width or height"),
        ([DETECTIONS[0], DETECTIONS[0] | {"image_id": 10**30}], r"results\[1\]: image_id must be a whole number of 64 bits"),
        ([DETECTIONS[0], DETECTIONS[0] | {"bbox": [0, 0, 10**400, 1]}], r"results\[1\]: bbox must be finite"),
        ([DETECTIONS[0], DETECTIONS[0] | {"score": 10**400}], r"results\[1\]: score must be in \[0, 1\]"),
    ],
)
def test_mistakes_in_results(content, message):
    with pytest.raises(ValueError, match=message):
        read_results(content, read_ground_truth(CONTENT))


def test_results_for_an_empty_ground_truth():
    nothing = read_ground_truth({"images": [], "categories": [], "annotations": []})
    with pytest.raises(ValueError, match="image_id 2 is not the id of an image"):
        read_results(DETECTIONS, nothing)


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('{"images": [}')
    with pytest.raises(ValueError, match=r"broken.json: is not JSON: .*column"):
        read_ground_truth(path)
    path.write_text(json.dumps([CONTENT]))
    with pytest.raises(ValueError, match=r"broken.json: an object with images, annotations and categories expected, got list"):
        read_ground_truth(path)
    path.write_text(json.dumps({"annotations": DETECTIONS}))
    with pytest.raises(ValueError, match=r"broken.json: COCO results JSON .a list of objects with .* expected, got an object"):
        read_results(path, read_ground_truth(CONTENT))
    path.write_text(json.dumps([DETECTIONS[0], 5]))
    with pytest.raises(ValueError, match=r"broken.json\[1\]: must be an object, got 5"):
        read_results(path, read_ground_truth(CONTENT))
    path.write_text(json.dumps([DETECTIONS[0] | {"score": math.nan}]))  # Python writes and reads NaN, which is not JSON
    with pytest.raises(ValueError, match=r"broken.json\[0\]: score"):
        read_results(path, read_ground_truth(CONTENT))


def test_what_is_no_json_file_is_named(tmp_path):
    truth = read_ground_truth(CONTENT)
    path = tmp_path / "broken.json"
    with pytest.raises(FileNotFoundError, match=r"broken.json does not exist; COCO detection JSON expected"):
        read_ground_truth(path)
    with pytest.raises(FileNotFoundError, match=r"broken.json does not exist; COCO results JSON"):
        read_results(path, truth)
    with pytest.raises(IsADirectoryError, match="is a folder; COCO results JSON"):
        read_results(tmp_path, truth)
    for content in (b"", b"\x89PNG\r\n\x1a\n\x00\x00\xff", b"\x1f\x8b\x08\x00", b"[" + b"1" * 5000 + b"]"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"broken.json: is not JSON: "):
            read_results(path, truth)
    path.write_bytes(b"[" * 200_000)
    with pytest.raises(ValueError, match=r"broken.json: is nested too deeply"):
        read_results(path, truth)


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "dt.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(DETECTIONS).encode())
    assert len(read_results(path, read_ground_truth(CONTENT)).scores) == 3


# -- names of files as ids


NAMED = CONTENT | {"images": [{"id": 9, "file_name": "a/x.jpg"}, {"id": 2, "file_name": "a/0009.jpg"}, {"id": 3, "file_name": "b/x.png"}]}


def found(image_id, **more):
    return {"image_id": image_id, "category_id": 5, "bbox": [1, 2, 3, 4], "score": 0.5, **more}


@pytest.mark.parametrize(
    ("detection", "image_id"),
    [
        (found("a/x.jpg"), 9),
        (found("x.png"), 3),
        (found("0009"), 2),
        (found(9), 9),
        (found(9, file_name="x.jpg"), 9),
        (found(9, file_name="0009.jpg"), 2),  # 9 is the stem as a number
        (found(9, file_name="elsewhere.jpg"), 9),
    ],
)
def test_an_image_by_the_name_of_its_file(detection, image_id):
    truth = read_ground_truth(NAMED)
    columns = read_results([found(2), detection], truth)
    assert truth.image_ids[columns.image].tolist() == [2, image_id]


@pytest.mark.parametrize(
    ("detection", "message"),
    [
        (found("y"), r"results\[1\]: image_id 'y' is neither the id nor the file name of an image of the ground truth"),
        (found("x"), r"image_id 'x' is neither .* alone: several have this name"),
        (found(9, file_name="x.png"), r"image_id 9 and file_name 'x.png' are two images of the ground truth"),
        (found(None), r"image_id must be a whole number or the name of a file, got None"),
        (found(10**30, file_name="q"), "image_id 1000"),
    ],
)
def test_a_name_of_no_image_or_of_two(detection, message):
    with pytest.raises(ValueError, match=message):
        read_results([found("x.jpg"), detection], read_ground_truth(NAMED))


def test_names_stay_with_their_images():
    truth = read_ground_truth(NAMED)
    assert truth.file_names == ("a/0009.jpg", "b/x.png", "a/x.jpg")
    assert truth.of_images(np.array([True, False, True])).file_names == ("a/0009.jpg", "a/x.jpg")


def test_the_index_of_a_file_without_annotations(tmp_path):
    path = tmp_path / "info.json"
    path.write_text(json.dumps(without(NAMED, "annotations")))
    assert read_index(path) == ({"a/x.jpg": 9, "a/0009.jpg": 2, "b/x.png": 3}, [(3, "spoon"), (5, "cup")])
    path.write_text(json.dumps(NAMED | {"images": [{"id": 9, "file_name": ""}]}))
    with pytest.raises(ValueError, match=r"info.json: images\[0\] \(id 9\): file_name must be a text that is not empty"):
        read_index(path)
