"""Run folders to tables and images."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from lossbox import report
from lossbox.analysis import Run, summarize
from lossbox.metrics import DetectionColumns, evaluate, read_ground_truth
from lossbox.records import Detections, Targets
from lossbox.report._canvas import TITLE, name_box, pyplot, sheet


def log(run, version, text):
    folder = run / "csv" / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(text)


LOG = "epoch,gradient_balance,step,train/classification,train/total,val/AP,weight/localization\n"


@pytest.fixture
def run(tmp_path):
    log(tmp_path, 0, LOG + "0,1.5,9,0.9,1.0,,50.0\n0,nan,19,0.8,0.9,,50.0\n0,,19,,,0.25,\n1,1.2,29,0.7,0.8,,4.0\n")
    return tmp_path


def test_curves_leave_out_undefined_values(run):
    curves = report.read_curves(run)
    assert curves["gradient_balance"] == ([9, 29], [1.5, 1.2])
    assert curves["val/AP"] == ([19], [0.25])
    assert set(curves) == {"gradient_balance", "train/classification", "train/total", "val/AP", "weight/localization"}


def test_the_log_of_a_resumed_run_continues_the_first(run):
    log(run, 1, LOG + "1,1.1,25,0.6,0.7,,5.0\n")
    log(run, 10, LOG + "1,1.0,39,0.5,0.6,,6.0\n")
    log(run, 2, LOG)
    assert report.read_curves(run)["train/classification"] == ([9, 19, 25, 39], [0.9, 0.8, 0.6, 0.5])


def test_results_have_a_row_per_epoch_of_a_resumed_run_and_a_validation_after_it(run):
    log(run, 1, LOG + "1,nan,29,0.6,0.7,,5.0\n1,,29,,,,\n1,1.5,39,0.5,0.6,,7.0\n2,,40,,,0.5,\n")
    path = report.write_results(run)
    with path.open(newline="") as opened:
        first, second = csv.DictReader(opened)
    assert (first["epoch"], first["step"], first["gradient_balance"], first["train/total"], first["val/AP"]) == (
        "1",
        "20",
        "1.5",
        "0.95",
        "0.25",
    )
    assert (second["epoch"], second["step"], second["gradient_balance"], second["weight/localization"]) == ("2", "40", "1.5", "6")
    assert second["val/AP"] == "0.5"
    assert [file.name for file in run.glob("results*")] == ["results.csv"]


def test_epochs_shorter_than_the_interval_of_logging_have_a_row_each(tmp_path):
    log(tmp_path, 0, "epoch,seconds,step,train/total,val/AP\n0,,2,,0.1\n0,5,2,,\n1,,5,,0.2\n1,6,5,,\n2,,7,0.5,\n2,,8,,0.3\n2,7,8,,\n")
    with report.write_results(tmp_path).open(newline="") as opened:
        rows = [(row["epoch"], row["step"], row["seconds"], row["train/total"], row["val/AP"]) for row in csv.DictReader(opened)]
    assert rows == [("1", "3", "5", "", "0.1"), ("2", "6", "6", "", "0.2"), ("3", "9", "7", "0.5", "0.3")]


def test_without_a_log_there_are_no_results(tmp_path):
    assert report.write_results(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_log_is_a_named_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no log .* in .*lossbox fit --out"):
        report.read_curves(tmp_path)


def image_of(tmp_path, **options):
    target = Targets(
        torch.tensor([[4.0, 4.0, 20.0, 24.0]]), torch.tensor([1]), torch.tensor([False]), 7, size=(32, 32), original_size=(64, 64)
    )
    found = Detections(torch.tensor([[5.0, 5.0, 21.0, 24.0], [0.0, 0.0, 8.0, 8.0]]), torch.tensor([0.9, 0.3]), torch.tensor([1, 0]))
    path = report.draw_sheet([torch.full((3, 32, 40), 0.5)], [target], [found], ["cat", "dog"], tmp_path / "new" / "sheet.png", **options)
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_sheet_draws_boxes_from_their_threshold_on(tmp_path):
    colored = {
        name: (np.ptp(image_of(tmp_path, thresholds=thresholds), axis=-1) > 60).sum()
        for name, thresholds in {"none": 0.95, "one": 0.5, "both": 0.2, "dog": {1: 0.5}, "by class": {0: 0.2, 1: 0.5}, "never": {}}.items()
    }
    assert colored["none"] == colored["never"] == 0
    assert 0 < colored["one"] < colored["both"]
    assert colored["dog"] == colored["one"]
    assert colored["by class"] == colored["both"]


@pytest.mark.parametrize(("sizes", "columns", "shape"), [([(2, 4)] * 3 + [(9, 3)], 3, (3, 2)), ([(2, 4)], 4, (1, 1)), ([], 4, (1, 1))])
def test_a_row_of_a_sheet_is_as_high_as_its_highest_image(sizes, columns, shape):
    figure, panels = sheet(sizes, columns=columns)
    grid = figure.axes[0].get_gridspec()
    assert (grid.ncols, grid.nrows) == shape
    assert len(panels) == len(sizes)
    if len(sizes) == 4:
        low, high = (height - TITLE for height in grid.get_height_ratios())
        assert low == pytest.approx(high / 2)
    pyplot().close(figure)


def test_a_name_stands_above_its_box_or_inside_the_image():
    figure, (panel,) = sheet([(100, 100)])
    panel.imshow(np.zeros((100, 100, 3)))
    for corner in ((10, 50), (10, 2), (-30, -20)):
        name_box(panel, *corner, "a_$b", color="red")
    places = [(text.get_position(), text.get_va()) for text in panel.texts]
    assert places == [((10, 49), "bottom"), ((10, 3), "top"), ((-0.5, 0.5), "top")]
    assert panel.texts[0].get_text() == r"a_\$b"
    pyplot().close(figure)


TRUTH = {
    "images": [{"id": 1}],
    "categories": [{"id": 3, "name": "cup"}, {"id": 5, "name": "jar"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 10, 10]}],
}


def test_tables_show_every_class_and_the_mean(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    found = DetectionColumns(np.array([0]), np.array([0]), np.array([[0.0, 0.0, 10.0, 8.0]]), np.array([0.9]))
    report.print_metrics(evaluate(read_ground_truth(TRUTH), found))
    lines = capsys.readouterr().out.splitlines()
    rows = {line.replace("│", " ").split()[0]: line.replace("│", " ").split()[1:] for line in lines if line.replace("│", " ").split()}
    assert rows["AP75"] == ["IoU", "0.75", "1.000"]
    assert rows["AP90"][-1] == "0.000"
    assert rows["cup"] == ["1", "0.700", "1.000", "0.400", "0.200", "0.000", "0.000", "0.900"]
    assert rows["jar"] == ["0", "-", "-", "-", "-", "-", "-", "-"]
    assert rows["mean"] == ["1", "0.700", "1.000", "0.400", "0.200", "0.000", "0.000"]


def runs(*rows):
    return [Run(name, seed, dict.fromkeys(report.COMPARED, value), []) for name, seed, value in rows]


def test_summary_is_mean_and_sample_deviation():
    summary = summarize(runs(("a", 0, 0.1), ("b", 0, 0.5), ("a", 1, 0.4), ("a", 2, 0.4)), report.COMPARED)
    assert list(summary) == ["a", "b"]
    assert summary["a"]["seeds"] == [0, 1, 2]
    assert summary["a"]["AP"]["mean"] == pytest.approx(0.3)
    assert summary["a"]["AP"]["deviation"] == pytest.approx(math.sqrt((0.04 + 0.01 + 0.01) / 2))
    assert math.isnan(summary["b"]["AP"]["deviation"])


def test_an_undefined_number_is_left_out_of_the_mean():
    rows = runs(("a", 0, 0.5), ("a", 1, 0.5), ("b", 0, 0.5))
    rows[0].numbers["rho"] = rows[2].numbers["rho"] = None
    summary = summarize(rows, report.COMPARED)
    assert summary["a"]["rho"]["mean"] == 0.5
    assert "| - |" in report.accuracy_table(summary).splitlines()[3]


def test_accuracy_table_is_markdown():
    table = report.accuracy_table(summarize(runs(("a", 0, 0.1), ("a", 1, 0.3), ("b", 0, 2.0)), report.COMPARED)).splitlines()
    assert table[0] == "| recipe | AP | AP50 | AP75 | oLRP | rho | seeds |"
    assert table[2] == "| a | " + "0.200 ± 0.141 | " * 5 + "2 |"
    assert table[3] == "| b | " + "2.000 | " * 5 + "1 |"
    assert len({line.count("|") for line in table}) == 1


def test_json_has_null_for_undefined(tmp_path):
    report.write_json(tmp_path / "a.json", {"summary": summarize(runs(("a", 0, 0.5)), report.COMPARED)})
    assert json.loads((tmp_path / "a.json").read_text())["summary"]["a"]["AP"] == {"mean": 0.5, "deviation": None}
