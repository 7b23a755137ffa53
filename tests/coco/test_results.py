"""Detections as other programs write them: file stems as image ids, classes counted from 0 or 1."""

import pytest

from lossbox.coco.columns import read_ground_truth
from lossbox.coco.results import read_results


def truth(*category_ids, names=("a/0012.jpg", "a/0340.jpg")):
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    categories = [{"id": id_, "name": f"class {id_}"} for id_ in category_ids]
    return read_ground_truth({"images": images, "categories": categories, "annotations": []})


def found(image_id, category_id=1, **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": [1, 2, 3, 4], "score": 0.5, **more}


def test_numbers_that_are_file_names_and_no_ids():
    columns = read_results([found(12), found(340), found(12)], truth(1))
    assert columns.image.tolist() == [0, 1, 0]
    assert columns.notes == ("image_id: the number that is the name of the image's file",)
    assert read_results([found(0), found(1)], truth(1)).notes == ()


@pytest.mark.parametrize("ids", [(12, 0), (0, 12)])
def test_ids_and_file_names_do_not_mix(ids):
    with pytest.raises(ValueError, match=r"image_id 12 is not the id of an image of the ground truth"):
        read_results([found(id_) for id_ in ids], truth(1))


def test_names_are_counted():
    columns = read_results([found("0012"), found("0340"), found(1)], truth(1))
    assert columns.notes == ("image_id: the name of the image's file, in 2 of 3 detections",)


def test_classes_counted_from_1_as_ultralytics_writes_them():
    ultralytics = [found(12, 1, file_name="0012.jpg"), found(340, 3, file_name="0340.jpg")]
    assert read_results(ultralytics, truth(1, 2, 3)).category.tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"category_id 3 is not the id .*\(ids: \[0, 1, 2\]\); if the classes are counted from 1.*from-1"):
        read_results(ultralytics, truth(0, 1, 2))
    columns = read_results(ultralytics, truth(0, 1, 2), category_ids="from-1")
    assert columns.category.tolist() == [0, 2]
    assert "category_id: the place of a class, counted from 1" in columns.notes
    assert read_results(ultralytics, truth(7, 9, 20), category_ids="from-1").category.tolist() == [0, 2]


def test_two_meanings_must_be_decided():
    """Both of class 0 to 2 by id, and counted from 1: scored by id, every class would be that beside it, without a word."""
    for detection in (found("0012", 1), found(12, 1, file_name="0012.jpg"), found(12, 1)):
        with pytest.raises(ValueError, match=r"results: category_id: .* may be meant too; category_ids \(--category-ids\): from-1 or id"):
            read_results([detection, detection | {"category_id": 2}], truth(0, 1, 2))
        assert read_results([detection], truth(0, 1, 2), category_ids="id").category.tolist() == [1]
    assert read_results([found(0, 1), found(1, 2)], truth(0, 1, 2)).category.tolist() == [1, 2]  # COCO's own


def test_classes_counted_from_0():
    assert read_results([found(0, 0), found(0, 1)], truth(5, 9), category_ids="from-0").category.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"if the classes are counted from 0.*from-0"):
        read_results([found(0, 0), found(0, 1)], truth(5, 9))


@pytest.mark.parametrize(("meaning", "places"), [("from-0", "0 to 1"), ("from-1", "1 to 2")])
def test_places_that_are_none(meaning, places):
    for id_ in (-1, 3):
        with pytest.raises(ValueError, match=rf"results\[1\]: category_id must be the place of a class, {places}, got {id_}"):
            read_results([found(0, 1), found(0, id_)], truth(5, 9), category_ids=meaning)
    with pytest.raises(ValueError, match="category_ids: one of id, from-0, from-1 expected, got 'name'"):
        read_results([], truth(5), category_ids="name")


def test_what_cannot_be_used_is_counted():
    with pytest.raises(ValueError, match=r"image_id 7 is not .* ground truth; 3 of 4 detections cannot be used"):
        read_results([found(0), found(7), found(8), found(9)], truth(1))


def test_ids_written_as_text():
    """By programs and tables that know no numbers; in one list or in all, mixed with numbers."""
    document = {
        "images": [{"id": "7", "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "categories": [{"id": "3", "name": "cup"}, {"id": "05", "name": "plate"}],
        "annotations": [{"id": "1", "image_id": 7, "category_id": "3", "bbox": [0, 0, 4, 4]}, truth_row(2, "8", 5)],
    }
    columns = read_ground_truth(document)
    assert (columns.image_ids.tolist(), columns.category_ids.tolist()) == ([7, 8], [3, 5])
    assert (columns.image.tolist(), columns.category.tolist()) == ([0, 1], [0, 1])
    detections = read_results([found("8", "5"), found(7, "3"), found("b.jpg", 5)], columns)
    assert (detections.image.tolist(), detections.category.tolist()) == ([1, 0, 1], [1, 0, 1])
    assert detections.notes == ("image_id: the name of the image's file, in 1 of 3 detections",)
    assert document["images"][0]["id"] == "7"  # what the caller handed over stays as it is


def truth_row(id_, image_id, category_id):
    return {"id": id_, "image_id": image_id, "category_id": category_id, "bbox": [0, 0, 4, 4]}


def test_text_that_is_a_name_and_the_id_of_another_image():
    columns = truth(1, names=("1.jpg", "7.jpg"))
    with pytest.raises(ValueError, match=r"results\[0\]: image_id '1' is the file name of one image .* and the id of another"):
        read_results([found("1")], columns)
    assert read_results([found("7"), found("0")], columns).image.tolist() == [1, 0]
