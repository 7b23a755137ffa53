"""`lossbox evaluate`, called as a user would."""

import csv
import json
import math
import re
import subprocess
import sys

import pytest

from lossbox.__main__ import main
from lossbox.coco.results import RESULTS
from lossbox.programs import evaluate as program

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


def written(tmp_path, truth, found):
    paths = tmp_path / "truth.json", tmp_path / "found.json"
    for path, content in zip(paths, (truth, found), strict=True):
        path.write_text(json.dumps(content))
    return list(map(str, paths))


def numbers_of(tmp_path, truth, found, *words):
    out = tmp_path / "n.json"
    assert main(["evaluate", *written(tmp_path, truth, found), "--json", str(out), *words]) == 0
    return json.loads(out.read_text())


def test_a_class_without_ground_truth_has_no_numbers_and_no_say(tmp_path):
    jar = {"id": 9, "name": "jar"}
    found = [*FOUND, {"image_id": 1, "category_id": 9, "bbox": [0, 0, 5, 5], "score": 0.9}]
    before = numbers_of(tmp_path, TRUTH, FOUND)
    numbers = numbers_of(tmp_path, TRUTH | {"categories": [*TRUTH["categories"], jar]}, found)
    assert numbers["per_class"][2] == dict.fromkeys(numbers["per_class"][2]) | {"id": 9, "name": "jar", "num_ground_truth": 0}
    assert {name: numbers[name] for name in ("AP", "oLRP", "rho")} == {name: before[name] for name in ("AP", "oLRP", "rho")}


def test_nothing_found_is_a_result(tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    numbers = numbers_of(tmp_path, TRUTH, [], "--bounds", "--per-class", "--report", str(page))
    assert (numbers["AP"], numbers["AR100"], numbers["oLRP"], numbers["oLRP_false_negative"]) == (0, 0, 1, 1)
    assert numbers["rho"] is numbers["oLRP_localization"] is numbers["oLRP_false_positive"] is None
    assert {row["AP"] for row in numbers["bounds"].values()} == {0}
    assert page.is_file()


def test_why_nothing_is_defined_is_said(tmp_path, capsys):
    truth, found = tmp_path / "truth.json", tmp_path / "found.json"
    truth.write_text(json.dumps({"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "cup"}]}))
    found.write_text("[]")
    assert main(["evaluate", str(truth), str(found), "--calibration"]) == 0
    said = capsys.readouterr().out
    assert "calibration: LaECE -, LaACE -, LaMCE -" in said
    assert f"note: {truth} has no boxes, so that nothing is defined (-)" in said
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}
    truth.write_text(json.dumps(json.loads(truth.read_text()) | {"annotations": [box]}))
    assert main(["evaluate", str(truth), str(found)]) == 0
    assert f"note: {found} has no detections" in capsys.readouterr().out


def test_images_without_boxes_and_a_data_set_without_any(tmp_path):
    before = numbers_of(tmp_path, TRUTH, FOUND)
    assert numbers_of(tmp_path, TRUTH | {"images": [*TRUTH["images"], {"id": 3}]}, FOUND) == before
    numbers = numbers_of(
        tmp_path, {"images": [], "categories": [], "annotations": []}, [], "--bounds", "--report", str(tmp_path / "p.html")
    )
    assert numbers["AP"] is numbers["oLRP"] is numbers["rho"] is None
    assert numbers["per_class"] == []


def test_boxes_outside_the_image_are_evaluated_as_they_are(tmp_path):
    far = [-50, -50, 2000, 2000]
    truth = TRUTH | {"annotations": [TRUTH["annotations"][0] | {"bbox": far, "area": 4e6}]}
    assert numbers_of(tmp_path, truth, [FOUND[0] | {"bbox": far}])["AP"] == pytest.approx(1)


def test_the_same_detection_twice_is_a_false_positive(tmp_path):
    truth = TRUTH | {"annotations": TRUTH["annotations"][:1]}
    cup = numbers_of(tmp_path, truth, [FOUND[0], FOUND[0]])["per_class"][0]
    # the two have one score, so both are kept: (0.2 / 0.5 + 1) / 2
    assert (cup["oLRP"], cup["false_positive"]) == pytest.approx((0.7, 0.5))


def test_bounds_and_report(tmp_path, capsys):
    # of the two cups that are right, the looser one (IoU 0.8) has the higher score
    numbers = numbers_of(tmp_path, TRUTH, FOUND, "--bounds", "--report", str(tmp_path / "page.html"))
    bounds = numbers["bounds"]
    for name in ("AP", "AP50", "AP75", "AP90"):
        assert bounds["measured"][name] == numbers[name]
        assert bounds["lower"][name] == numbers[name]
    # at IoU 0.9 one of two cups is found, at precision 1/2 as scored and 1 at best, up to recall 1/2: 51 of 101 recalls; and no spoon
    assert (bounds["measured"]["AP90"], bounds["upper"]["AP90"]) == pytest.approx((51 / 101 / 4, 51 / 101 / 2))
    assert bounds["upper"]["AP50"] == numbers["AP50"]
    shown = capsys.readouterr().out
    assert "upper bound" in shown
    page = tmp_path / "page.html"
    assert f"for a browser: {page}" in shown.replace("\n", "")
    content = json.loads(re.search('id="data">(.*?)</script>', page.read_text())[1])
    assert content["runs"][0]["numbers"]["AP"] == pytest.approx(numbers["AP"])
    assert [len(one["classes"]) for one in (content["runs"][0], content["sets"][0])] == [2, 2]


def test_the_bar_is_for_terminals_and_what_is_short_says_nothing_elsewhere(files, capsys, monkeypatch):
    assert main(["evaluate", *map(str, files)]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes any stream for a terminal
    assert main(["evaluate", *map(str, files)]) == 0
    shown = capsys.readouterr().err
    assert "reading the detections" in shown
    assert "4/4" not in shown  # the last stage is never over before the bar is gone
    assert "3/4" in shown


def annotation(**fields):
    return TRUTH | {"annotations": [TRUTH["annotations"][0], TRUTH["annotations"][1] | fields]}


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (TRUTH | {"images": [{"id": 1}, {"id": 1}]}, "truth.json: images[1] (id 1): id occurs twice in images"),
        (
            TRUTH | {"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]},
            "truth.json: categories[1] (id 3): id occurs twice in categories",
        ),
        (annotation(id=1), "truth.json: annotations[1] (id 1): id occurs twice in annotations"),
        (annotation(image_id=8), "truth.json: annotations[1] (id 2): image_id 8 is not the id of an image"),
        (annotation(category_id=8), "truth.json: annotations[1] (id 2): category_id 8 is not the id of a category"),
        (annotation(bbox=[0, 0, math.nan, 1]), "truth.json: annotations[1] (id 2): bbox must be finite, got [0, 0, nan, 1]"),
        (annotation(bbox=[5, 5, 1, -2]), "truth.json: annotations[1] (id 2): bbox must not have a negative width or height"),
        ([TRUTH], "truth.json: an object with images, annotations and categories expected, got list"),
    ],
)
def test_evaluate_names_the_record_of_the_ground_truth(tmp_path, capsys, truth, message):
    assert main(["evaluate", *written(tmp_path, truth, FOUND)]) == 2
    assert_one_line(capsys.readouterr().err, message)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([FOUND[0], FOUND[0] | {"image_id": 9}], "found.json[1]: image_id 9 is not the id of an image of the ground truth"),
        ([FOUND[0] | {"category_id": 9}], "found.json[0]: category_id 9 is not the id of a category of the ground truth"),
        ([FOUND[0] | {"bbox": [0, math.nan, 1, 1]}], "found.json[0]: bbox must be finite"),
        ([FOUND[0] | {"bbox": [9, 9, -1, 1]}], "found.json[0]: bbox must not have a negative width or height"),
        ([FOUND[0] | {"score": 1.01}], "found.json[0]: score must be in [0, 1], got 1.01"),
        ([FOUND[0] | {"score": math.nan}], "found.json[0]: score must be in [0, 1], got nan"),
        ([FOUND[0], {}], "found.json[1]: lacks 'score'"),
        ({"annotations": FOUND}, f"found.json: {RESULTS} expected, got an object"),
    ],
)
def test_evaluate_names_the_record_of_the_results(tmp_path, capsys, found, message):
    assert main(["evaluate", *written(tmp_path, TRUTH, found)]) == 2
    assert_one_line(capsys.readouterr().err, message)


def test_evaluate_names_the_format_that_it_expects_of_a_csv(files, tmp_path, capsys):
    (tmp_path / "found.csv").write_text("file,x,y\na.jpg,1,2\n")
    assert main(["evaluate", str(files[0]), str(tmp_path / "found.csv")]) == 2
    said = capsys.readouterr().err
    assert "found.csv: is not JSON" in said
    assert f"; {RESULTS} expected\n" in said


def test_evaluate_names_what_is_no_json_file(files, tmp_path, capsys):
    truth, found = files
    (tmp_path / "a folder").mkdir()
    image = tmp_path / "image.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\xff")
    for wrong, message in (
        (tmp_path / "absent.json", "absent.json does not exist; COCO results JSON"),
        (tmp_path / "a folder", "a folder is a folder; COCO results JSON"),
        (image, "image.png: is not JSON"),
    ):
        assert main(["evaluate", str(truth), str(wrong)]) == 2
        assert_one_line(capsys.readouterr().err, message)
        assert main(["evaluate", str(wrong), str(found)]) == 2
        folder = "a folder is none of the layouts that are known" if wrong.is_dir() else None  # a folder of data may stand here
        assert_one_line(capsys.readouterr().err, folder or message.replace("results", "detection"))


def assert_one_line(said, message):
    first, *more = said.splitlines()
    assert first.startswith("lossbox evaluate: ")
    assert message in first
    assert more == ["(--debug shows where this was raised)"]


@pytest.mark.parametrize("iou", ["0", "1", ".nan", "-0.5"])
def test_evaluate_refuses_an_iou_that_is_none(files, capsys, iou):
    assert main(["evaluate", *map(str, files), f"--iou={iou}"]) == 2
    assert "iou: a number in (0, 1) expected, got" in capsys.readouterr().err


def test_evaluate_says_how_calibrated_the_scores_are(files, tmp_path, capsys):
    out = tmp_path / "n.json"
    assert main(["evaluate", *map(str, files), "--calibration", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    numbers = json.loads(out.read_text())
    # each of three detections is alone in its bin: |0.9 - 0.8|, |0.6 - 1|, |0.3 - 0|; the class without detections has no number
    assert numbers["LaECE"] == pytest.approx((0.1 + 0.4 + 0.3) / 3)
    assert numbers["LaMCE"] == pytest.approx(0.4)
    assert f"LaECE {numbers['LaECE']:.3f}" in shown


# -- what else can be asked for


def test_several_ious(files, tmp_path, capsys):
    out = tmp_path / "n.json"
    assert main(["evaluate", *map(str, files), "--iou", "0.5", "0.9", "--json", str(out)]) == 0
    assert "Optimal LRP by IoU" in capsys.readouterr().out
    numbers = json.loads(out.read_text())
    assert numbers["at_iou"]["0.5"]["oLRP"] == numbers["oLRP"] == pytest.approx(0.6)
    assert numbers["at_iou"]["0.9"]["oLRP"] == pytest.approx((2 / 3 + 1) / 2)
    assert main(["evaluate", *map(str, files), "--iou", "0.5", "1"]) == 2
    assert "iou: a number in (0, 1) expected, got 1" in capsys.readouterr().err


def test_the_scores_that_cost_least(files, tmp_path, capsys):
    csv_file, out = tmp_path / "t.csv", tmp_path / "n.json"
    words = ["evaluate", *map(str, files), "--thresholds", str(csv_file), "--json", str(out)]
    assert main([*words, "--fp-cost", "1", "--fn-cost", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert "Least cost: 1 a false positive, 0.5 a miss" in shown
    assert "the score at which each class costs least: " in shown
    cup, spoon = list(csv.reader(csv_file.open()))[1:]
    assert (cup, spoon) == (["3", "cup", "0.6"], ["7", "spoon", ""])
    assert main([*words, "--fp-cost", "1", "--fn-cost", "5", "--localization-cost", "20"]) == 0
    assert list(csv.reader(csv_file.open()))[1] == ["3", "cup", "0.6"]
    numbers = json.loads(out.read_text())
    assert numbers["per_class"][0]["cost"] == pytest.approx(20 * 0.4)
    assert numbers["cost"]["total"] == pytest.approx(20 * 0.4 + 5)
    assert main([*words, "--fp-cost", "1", "--fn-cost", "5", "--localization-cost", "30"]) == 0
    assert list(csv.reader(csv_file.open()))[1] == ["3", "cup", ""]  # the loose box that comes first costs more than both misses
    for wrong in (["--fp-cost", "1"], ["--localization-cost", "1"]):
        assert main([*words, *wrong]) == 2
        assert f"--fp-cost and --fn-cost expected together, got {wrong[0]} alone" in capsys.readouterr().err
    assert main([*words, "--fp-cost", "-1", "--fn-cost", "1"]) == 2
    assert "--fp-cost: a finite number >= 0 expected, got -1" in capsys.readouterr().err


def test_errors_parts_and_comparison(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(program, "LONG", 0.0)
    truth = TRUTH | {"images": [image | {"file_name": f"{image['id']}.png", "camera": "left"} for image in TRUTH["images"]]}
    first, second = (tmp_path / name for name in ("first.json", "second.json"))
    first.write_text(json.dumps(FOUND))
    second.write_text(json.dumps(FOUND[1:]))
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    out = tmp_path / "n.json"
    words = ["evaluate", str(tmp_path / "truth.json"), str(first), "--json", str(out)]
    assert main([*words, "--errors", "--slice-by", "area", "camera", "file:1*", "--against", str(second), "--resamples", "30"]) == 0
    shown, said = capsys.readouterr()
    assert said == "comparing: the draws of the images take about 0 s\n"
    for text in ("What is wrong", "By area", "By camera", "By file", "Comparison", "second.json"):
        assert text in shown
    numbers = json.loads(out.read_text())
    assert [row["main"] for row in numbers["errors"]] == ["localization", "missed"]
    assert numbers["tide"]["counts"]["Bkg"] == 1
    assert [row["name"] for row in numbers["slices"]["file"]] == ["1*", "(none)"]
    assert numbers["slices"]["camera"][0]["oLRP"] == numbers["oLRP"]
    assert numbers["comparison"]["metrics"]["oLRP"]["first"] == numbers["oLRP"]
    assert numbers["comparison"]["resamples"] == 30
    assert main([*words, "--slice-by", "kamera"]) == 2
    assert "no image has the field 'kamera'" in capsys.readouterr().err


def test_ultralytics_files(tmp_path, capsys):
    truth = {
        "images": [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate(("a", "b"))],
        "categories": [{"id": 0, "name": "cup"}, {"id": 1, "name": "spoon"}],
        "annotations": [{"id": 0, "image_id": 1, "category_id": 0, "bbox": [0, 0, 20, 20]}],
    }
    found = [{"image_id": "b", "file_name": "b.jpg", "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.9}]
    words = written(tmp_path, truth, found)
    assert main(["evaluate", *words]) == 2
    assert "category_ids (--category-ids): from-1 or id expected" in capsys.readouterr().err
    out = tmp_path / "n.json"
    assert main(["evaluate", *words, "--category-ids", "from-1", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "note: image_id: the name of the image's file, in 1 of 1 detections" in shown
    assert "note: category_id: the place of a class, counted from 1" in shown
    assert json.loads(out.read_text())["AP"] == pytest.approx(1)


def test_masks(tmp_path):
    mask = {"size": [100, 100], "counts": [0, 2000, 8000]}
    half = {"size": [100, 100], "counts": [0, 1500, 8500]}
    truth = TRUTH | {"annotations": [annotation | {"segmentation": mask} for annotation in TRUTH["annotations"][:1]]}
    found = [{"image_id": 1, "category_id": 3, "segmentation": half, "score": 0.9}]
    numbers = numbers_of(tmp_path, truth, found, "--iou-type", "segm")
    assert numbers["oLRP"] == pytest.approx(0.25 / 0.5)
    assert numbers["AP"] == pytest.approx(0.6)


# What needs none of the packages of the trainer; the extra `eval` names what it does need.
ALONE = """
import importlib.machinery, sys
BARRED = {"lightning", "pytorch_lightning", "torchmetrics", "sklearn", "tensorboard", "timm", "plotext", "pycocotools"}
class Barred:
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name in BARRED else None
    def create_module(self, spec):
        raise ModuleNotFoundError(f"barred: {spec.name}", name=spec.name)
sys.meta_path.insert(0, Barred())
from lossbox.__main__ import main
from lossbox.coco.results import RESULTS
sys.exit(main(sys.argv[1:]))
"""


def test_the_extra_eval_is_enough(files):
    words = [sys.executable, "-c", ALONE, "evaluate", *map(str, files), "--errors", "--calibration", "--fp-cost", "1", "--fn-cost", "2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "Optimal LRP" in done.stdout
