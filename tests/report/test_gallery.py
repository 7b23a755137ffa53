"""The images of a report against their definitions."""

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from lossbox.metrics import lrp, match_detections, optimal_lrp_per_class
from lossbox.report import gallery
from lossbox.report.gallery import ImageErrors


@pytest.mark.parametrize("seed", range(4))
def test_the_error_of_an_image_is_lrp_of_its_boxes(seed, random_data):
    truth, found = random_data(seed)
    matches = match_detections(truth, found)
    thresholds = np.array([optimum.threshold for optimum in optimal_lrp_per_class(matches)])
    errors = gallery.image_errors(truth, found, matches, thresholds, tau=0.5)
    of_class = gallery.image_errors(truth, found, matches, thresholds, tau=0.5, category=1)
    kept = (matches.scores >= thresholds[matches.category]) & ~matches.ignored
    for result, wanted in ((errors, slice(None)), (of_class, 1)):
        categories = np.arange(3)[wanted]
        for image in range(len(truth.image_ids)):
            rows = kept & (found.image[matches.detection] == image) & np.isin(matches.category, categories)
            objects = int(((truth.image == image) & ~truth.crowd & np.isin(truth.category, categories)).sum())
            right = matches.is_tp[rows]
            if not objects:
                assert (math.isnan(result.lrp[image]) and not rows.any()) or result.lrp[image] == 1
                continue
            expected = lrp(matches.scores[rows], matches.ious[rows], right, objects, threshold=-1.0)
            assert result.lrp[image] == pytest.approx(expected.lrp)
            assert result.mistakes[image] == (~right).sum() + objects - right.sum()
            assert result.right[image] == right.sum()


def errors(lrp, mistakes, right):
    return ImageErrors(*(np.array(values, dtype=float) for values in (lrp, mistakes, right)))


def test_the_worst_and_the_best_images_of_several_runs(monkeypatch):
    monkeypatch.setattr(gallery, "WORST", 2)
    monkeypatch.setattr(gallery, "BEST", 1)
    one = errors([1, 1, 0.2, 0.1, math.nan, 0.5], [1, 4, 0, 0, 0, 1], [0, 0, 2, 2, 0, 1])
    two = errors([1, 1, 0.2, 0.3, math.nan, 0.5], [1, 4, 0, 0, 0, 1], [0, 0, 2, 2, 0, 1])
    # of equal LRP the one with more mistakes first; of equally good ones the later; an image of nothing is neither
    assert gallery.choose_images([one, two], []) == ([1, 0], [3])
    of_class = errors([0, 0, 0, 0, 0, 0.5], [0, 0, 0, 0, 0, 1], [0] * 6)
    assert gallery.choose_images([one], [of_class]) == ([1, 0, 5], [3])
    monkeypatch.setattr(gallery, "MOST", 3)
    assert gallery.choose_images([one], [of_class]) == ([1, 0], [3])
    perfect = errors([0, 0], [0, 0], [1, 1])
    assert gallery.choose_images([perfect], []) == ([], [1])
    assert gallery.choose_images([errors([], [], [])], [errors([], [], [])]) == ([], [])


def test_detections_keep_their_annotation(random_data):
    truth, found = random_data(2)
    matches = match_detections(truth, found)
    rows = gallery.found_content(truth, found, matches, [3])[0]
    boxes = [box for box, image in zip(truth.boxes.tolist(), truth.image.tolist(), strict=True) if image == 3]
    assert [row[5] for row in rows] == sorted((row[5] for row in rows), reverse=True)
    assert len(rows) == (found.image == 3).sum()
    assert sum(row[6] == 1 for row in rows) == (matches.is_tp & (found.image[matches.detection] == 3)).sum()
    for x, y, w, h, _, _, kind, place in rows:
        assert (place >= 0) == (kind == 1) or kind == -1
        if kind == 1:
            u, v, a, b = boxes[place]
            inner = (min(x + w, u + a) - max(x, u)) * (min(y + h, v + b) - max(y, v))
            assert inner / (w * h + a * b - inner) >= 0.49


def test_an_image_is_small_and_one_that_cannot_be_opened_is_left_out(tmp_path, random_data):
    Image.new("RGBA", (1000, 500), (200, 0, 0, 128)).save(tmp_path / "a.png")
    source, size = gallery.thumbnail(tmp_path / "a.png")
    assert size == (1000, 500)
    small = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/webp;base64,"))))
    assert (small.size, small.mode) == ((400, 200), "RGB")
    (tmp_path / "b.png").write_bytes(b"no image")
    assert gallery.thumbnail(tmp_path / "b.png") == gallery.thumbnail(tmp_path / "c.png") == (None, None)
    truth, _ = random_data(0)
    content = gallery.image_content(truth, 0, tmp_path)
    corner = (truth.boxes[truth.image == 0, :2] + truth.boxes[truth.image == 0, 2:]).max()
    assert (content["source"], content["size"], content["id"]) == (None, (corner, corner), 10)
