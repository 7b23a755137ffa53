"""The lines that end a training: the shares of a class's error are those of its LRP."""

import numpy as np
import pytest

from lossbox.metrics import DetectionColumns, evaluate, read_ground_truth
from lossbox.training.summary import reason, summary


def found_of(rows, count):
    """Numbers of ``count`` objects of 10 px and a class without any; a row is (image, shift in px, score)."""
    truth = {"images": [{"id": i} for i in range(count)], "categories": [{"id": 3, "name": "cup"}, {"id": 4, "name": "none"}]}
    truth["annotations"] = [{"id": i + 1, "image_id": i, "category_id": 3, "bbox": [0, 0, 10, 10]} for i in range(count)]
    image, shift, score = (np.array(column) for column in zip(*rows, strict=True))
    boxes = np.stack([shift, 0 * shift, 0 * shift + 10, 0 * shift + 10], 1).astype(float)
    return evaluate(read_ground_truth(truth), DetectionColumns(image, 0 * image, boxes, score.astype(float)))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(i, 0, 0.9) for i in range(2)], "mostly misses (100 % of the error): 50 % of the objects are not found"),
        ([(i, 2, 0.9) for i in range(4)], "mostly localization (100 % of the error): the mean IoU is 0.67"),
        ([*((i, 0, 0.5) for i in range(4)), *((i, 60, 0.9) for i in range(2))], "mostly false positives (100 % of the error): 33 % of"),
        ([(i, 0, 0.9) for i in range(4)], "without an error"),
        ([(0, 60, 0.9)], "never found: none of 4 objects"),
    ],
)
def test_the_largest_part_of_the_error_is_named(rows, said):
    assert reason(found_of(rows, 4)["per_class"][0]).startswith(said)


def test_the_summary_names_files_that_are_there_and_the_next_command(tmp_path):
    (tmp_path / "metrics.json").touch()
    (tmp_path / "thresholds.csv").touch()
    text = summary(found_of([(0, 0, 0.9)], 4), tmp_path)
    assert "cup: oLRP 0.750, mostly misses" in text
    assert "none:" not in text
    assert "report.html" not in text
    assert f"{tmp_path / 'metrics.json'}  all numbers" in text
    assert text.endswith(
        f"next: lossbox predict IMAGES --ckpt {tmp_path}/checkpoints/last.ckpt --thresholds {tmp_path / 'thresholds.csv'} --out found"
    )
