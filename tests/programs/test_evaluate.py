"""`lossbox evaluate`, called as a user would."""

import csv
import json

import pytest

from lossbox.__main__ import main

TRUTH = {
    "images": [{"id": 1, "width": 100, "height": 100}, {"id": 2, "width": 100, "height": 100}],
    "categories": [{"id": 3, "name": "cup"}, {"id": 7, "name": "spoon"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 3, "bbox": [50, 50, 20, 20], "area": 400, "iscrowd": 0},
        {"id": 3, "image_id": 2, "category_id": 7, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0},
    ],
}
FOUND = [
    {"image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 16], "score": 0.9},  # IoU 0.8
    {"image_id": 2, "category_id": 3, "bbox": [50, 50, 20, 20], "score": 0.6},
    {"image_id": 2, "category_id": 3, "bbox": [0, 50, 20, 20], "score": 0.3},  # a false positive
]


@pytest.fixture
def files(tmp_path):
    truth, found = tmp_path / "truth.json", tmp_path / "found.json"
    truth.write_text(json.dumps(TRUTH))
    found.write_text(json.dumps(FOUND))
    return truth, found


def test_evaluate_writes_numbers_and_thresholds(files, tmp_path, capsys):
    words = ["evaluate", *map(str, files), "--json", str(tmp_path / "out" / "n.json"), "--thresholds", str(tmp_path / "out" / "t.csv")]
    assert main([*words, "--per-class"]) == 0
    shown = capsys.readouterr().out
    assert "cup" in shown
    numbers = json.loads((tmp_path / "out" / "n.json").read_text())
    cup, spoon = numbers["per_class"]
    # both true positives at the score 0.6: localization errors 0.4 and 0 over two boxes, no false positive, nothing missed
    assert cup["oLRP"] == pytest.approx(0.2)
    assert cup["threshold"] == 0.6
    assert (spoon["oLRP"], spoon["threshold"]) == (1, None)
    assert numbers["oLRP"] == pytest.approx(0.6)
    rows = list(csv.reader((tmp_path / "out" / "t.csv").open()))
    assert rows == [["category_id", "name", "threshold"], ["3", "cup", "0.6"], ["7", "spoon", ""]]
    assert main(words) == 0
    assert "cup" not in capsys.readouterr().out


def test_evaluate_at_another_iou(files, tmp_path):
    out = tmp_path / "n.json"
    assert main(["evaluate", *map(str, files), "--iou", "0.9", "--json", str(out)]) == 0
    # at IoU 0.9 only the exact box is right, below a false positive: (0 + 1 + 1) / 3
    assert json.loads(out.read_text())["per_class"][0]["oLRP"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "list"), ("not json", "JSON"), ('[{"image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 0.5}]', "image_id")],
)
def test_evaluate_names_what_is_wrong_with_a_file(files, capsys, content, message):
    files[1].write_text(content)
    assert main(["evaluate", *map(str, files)]) == 2
    error = capsys.readouterr().err
    assert "found.json" in error
    assert message in error
