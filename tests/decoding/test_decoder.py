"""Decoding against a loop written to be read, then each rule by hand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lossbox.boxes import DeltaCoder
from lossbox.decoding import Decoder, read_thresholds, write_thresholds
from lossbox.detectors import pyramid_anchors
from lossbox.records import Detections, RawPredictions


def decode(predictions: RawPredictions, sizes: list[tuple[int, int]], **options: Any) -> list[Detections]:
    return Decoder(**options)(predictions, sizes)


def raw(logits: torch.Tensor, regression: torch.Tensor, anchors: torch.Tensor, level_sizes: tuple[int, ...]) -> RawPredictions:
    return RawPredictions(logits, regression, anchors, level_sizes, DeltaCoder())


def one_anchor(logit: float, offsets: list[float] | None = None) -> RawPredictions:
    """One image, one class, the anchor (10, 10, 30, 30)."""
    anchors = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
    return raw(torch.full((1, 1, 1), logit), torch.tensor(offsets or [0.0] * 4).reshape(1, 1, 4), anchors, (1,))


def random_predictions(seed: int, *, classes: int = 3, images: int = 2, dtype: torch.dtype = torch.float32) -> RawPredictions:
    generator = torch.Generator().manual_seed(seed)
    sizes = [(5, 7), (3, 4), (1, 1)]
    anchors = pyramid_anchors(sizes, [8, 16, 32], scales=(1.0,), ratios=(0.5, 1.0), anchor_scale=2.0)
    logits = torch.randn(images, len(anchors), classes, generator=generator) * 2 - 1
    regression = torch.randn(images, len(anchors), 4, generator=generator)
    return raw(logits.to(dtype), regression.to(dtype), anchors, tuple(2 * h * w for h, w in sizes))


def iou(a: list[float], b: list[float]) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def naive(
    predictions: RawPredictions, i: int, size: tuple[int, int], threshold: float, nms: float, top_k: int, most: int
) -> list[tuple[float, int, list[float]]]:
    height, width = size
    boxes = DeltaCoder().decode(predictions.regression[i].float(), predictions.anchors).tolist()
    scores = predictions.logits[i].float().sigmoid().tolist()
    found, start = [], 0
    for count in predictions.level_sizes:
        level = [(s, j, c) for j in range(start, start + count) for c, s in enumerate(scores[j]) if s > threshold]
        for score, j, label in sorted(level, reverse=True)[:top_k]:
            x1, y1, x2, y2 = boxes[j]
            box = [min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)]
            if box[2] > box[0] and box[3] > box[1]:
                found.append((score, label, box))
        start += count
    kept: list[tuple[float, int, list[float]]] = []
    for score, label, box in sorted(found, reverse=True):
        if not any(label == other and iou(box, better) > nms for _, other, better in kept):
            kept.append((score, label, box))
    return kept[:most]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("threshold", "nms", "top_k", "most"), [(0.05, 0.5, 1000, 100), (0.3, 0.3, 7, 9), (0.0, 1.0, 20, 1000)])
def test_decode_is_the_naive_definition(seed: int, threshold: float, nms: float, top_k: int, most: int) -> None:
    predictions = random_predictions(seed)
    sizes = [(33, 50), (40, 56)]
    found = decode(predictions, sizes, score_threshold=threshold, nms_threshold=nms, top_k_per_level=top_k, max_detections=most)
    for i, (detections, size) in enumerate(zip(found, sizes, strict=True)):
        expected = naive(predictions, i, size, threshold, nms, top_k, most)
        assert len(detections.scores) == len(expected) > 5
        assert detections.scores.dtype == detections.boxes.dtype == torch.float32
        torch.testing.assert_close(detections.scores, torch.tensor([score for score, _, _ in expected]))
        assert detections.labels.tolist() == [label for _, label, _ in expected]
        torch.testing.assert_close(detections.boxes, torch.tensor([box for _, _, box in expected]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_decoded_in_float32(dtype: torch.dtype) -> None:
    half = random_predictions(0, dtype=dtype)
    full = raw(half.logits.float(), half.regression.float(), half.anchors, half.level_sizes)
    for a, b in zip(decode(half, [(40, 56)] * 2), decode(full, [(40, 56)] * 2), strict=True):
        assert len(a.scores) > 20
        assert a.scores.equal(b.scores)
        assert a.boxes.equal(b.boxes)


def test_nothing_above_the_threshold_is_an_empty_record() -> None:
    predictions = random_predictions(0)
    found = decode(predictions, [(40, 56)] * 2, score_threshold=0.999999)
    for detections in found:
        assert detections.boxes.shape == (0, 4)
        assert detections.scores.shape == detections.labels.shape == (0,)
        assert detections.labels.dtype == torch.int64


def test_a_score_at_the_threshold_does_not_count() -> None:
    assert len(decode(one_anchor(0.0), [(40, 40)], score_threshold=0.5)[0].scores) == 0
    assert len(decode(one_anchor(0.0), [(40, 40)], score_threshold=0.499)[0].scores) == 1


def test_boxes_are_cut_at_the_unpadded_image() -> None:
    assert decode(one_anchor(1.0), [(25, 20)])[0].boxes.tolist() == [[10.0, 10.0, 20.0, 25.0]]


def test_a_box_in_the_padding_is_dropped() -> None:
    assert len(decode(one_anchor(1.0), [(40, 10)])[0].boxes) == 0


def test_nms_leaves_other_classes_alone() -> None:
    anchors = torch.tensor([[10.0, 10.0, 30.0, 30.0], [10.0, 10.0, 30.0, 31.0]])
    logits = torch.tensor([[[2.0, 1.5], [1.0, 3.0]]])
    found = decode(raw(logits, torch.zeros(1, 2, 4), anchors, (2,)), [(40, 40)])[0]
    assert found.labels.tolist() == [1, 0]
    assert found.boxes.tolist() == [anchors[1].tolist(), anchors[0].tolist()]


@pytest.mark.parametrize("wild", [1e4, -1e30, 3e38, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(4))
def test_wild_regressions_stay_inside_the_image_or_vanish(wild: float, place: int) -> None:
    offsets = [0.0] * 4
    offsets[place] = wild
    for box in decode(one_anchor(1.0, offsets), [(40, 50)])[0].boxes.tolist():
        assert 0 <= box[0] < box[2] <= 50
        assert 0 <= box[1] < box[3] <= 40


def test_infinite_logits_are_scores_of_0_and_1() -> None:
    assert decode(one_anchor(math.inf), [(40, 40)])[0].scores.tolist() == [1.0]
    assert len(decode(one_anchor(-math.inf), [(40, 40)], score_threshold=0.0)[0].scores) == 0


@pytest.mark.parametrize("part", ["logits", "regression"])
def test_a_nan_names_its_image(part: str) -> None:
    predictions = random_predictions(1)
    getattr(predictions, part)[1, 5, 2] = math.nan
    with pytest.raises(ValueError, match=rf"predictions\.{part}: no NaN expected, got 1 in image 1 of the batch of 2"):
        decode(predictions, [(40, 56)] * 2)


def test_another_number_of_sizes_is_named() -> None:
    with pytest.raises(ValueError, match=r"sizes: one \(height, width\) for each of the 2 images expected, got 1"):
        decode(random_predictions(0), [(40, 40)])


@pytest.mark.parametrize(
    "option",
    [{"score_threshold": 1.0}, {"score_threshold": -0.1}, {"nms_threshold": 1.5}, {"top_k_per_level": 0}, {"max_detections": 0}],
)
def test_an_option_out_of_range_is_named(option: dict[str, float]) -> None:
    (name,) = option
    with pytest.raises(ValueError, match=f"{name}: a number"):
        Decoder(**option)  # type: ignore[arg-type]


def test_detections_take_no_gradient() -> None:
    predictions = random_predictions(0)
    predictions.logits.requires_grad_()
    assert not decode(predictions, [(40, 56)] * 2)[0].scores.requires_grad


def test_each_image_may_have_its_own_anchors_and_those_without_area_detect_nothing() -> None:
    shared = random_predictions(0)
    own = replace(shared, anchors=torch.stack([shared.anchors, shared.anchors + 3]))
    for i, (found, anchors) in enumerate(zip(decode(own, [(64, 64)] * 2), own.anchors, strict=True)):
        alone = replace(shared, logits=shared.logits[i : i + 1], regression=shared.regression[i : i + 1], anchors=anchors)
        expected = decode(alone, [(64, 64)])[0]
        assert len(expected.scores) > 0
        assert torch.equal(found.boxes, expected.boxes)
        assert torch.equal(found.scores, expected.scores)
    nothing = decode(replace(own, anchors=torch.zeros_like(own.anchors)), [(64, 64)] * 2, score_threshold=0.0)
    assert [len(found.scores) for found in nothing] == [0, 0]


# -- a threshold for each class


def write_csv(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(("category_id,name,threshold", *rows)) + "\n")
    return path


@pytest.mark.parametrize("thresholds", [(0.3, 0.7, math.nan), {0: 0.3, 1: 0.7}])
def test_class_thresholds_cut_each_class_at_its_own_score(thresholds: Sequence[float] | Mapping[int, float]) -> None:
    predictions, sizes = random_predictions(3), [(40, 56)] * 2
    everything = decode(predictions, sizes, max_detections=10_000)
    cut = decode(predictions, sizes, max_detections=10_000, thresholds=thresholds)
    for a, b in zip(everything, cut, strict=True):
        # cutting before the suppression is cutting after it: only a better box of the same class makes a box fall
        kept = (a.labels == 0) & (a.scores >= 0.3) | (a.labels == 1) & (a.scores >= 0.7)
        assert 5 < int(kept.sum()) < len(kept)
        assert (a.labels == 2).any()
        assert b.scores.equal(a.scores[kept])
        assert b.labels.equal(a.labels[kept])


def test_a_score_at_its_class_threshold_counts_as_lrp_counts_it() -> None:
    score = decode(one_anchor(0.7), [(40, 40)])[0].scores.item()
    assert len(decode(one_anchor(0.7), [(40, 40)], thresholds=[score])[0].scores) == 1
    assert len(decode(one_anchor(0.7), [(40, 40)], thresholds=[score + 1e-6])[0].scores) == 0
    # both thresholds hold
    assert len(decode(one_anchor(0.7), [(40, 40)], thresholds=[0.0], score_threshold=0.9)[0].scores) == 0


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ([0.5, 0.5], "there are 2 classes, the detector 3"),
        ({3: 0.5}, r"labels in \[0, 3\) expected, got 3"),
        ([0.5, 1.5, 0.5], "got 1.5 for label 1"),
    ],
)
def test_class_thresholds_that_do_not_fit_are_named(thresholds: Sequence[float] | Mapping[int, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"thresholds: .*{message}"):
        decode(random_predictions(0), [(40, 56)] * 2, thresholds=thresholds)


def test_the_decoder_reads_thresholds_in_the_order_of_the_labels(tmp_path: Path) -> None:
    # labels go by ascending category id, whatever the order of the rows
    path = write_csv(tmp_path / "t.csv", "9,last,0.6", "2,first,", '5,"mid, dle",0.2')
    assert list(read_thresholds(path)) == [2, 5, 9]
    predictions, sizes = random_predictions(2), [(40, 56)] * 2
    found = Decoder(thresholds=path)(predictions, sizes)
    expected = decode(predictions, sizes, thresholds=[math.nan, 0.2, 0.6])
    for a, b in zip(found, expected, strict=True):
        assert a.scores.equal(b.scores)
        assert a.labels.equal(b.labels)
        assert set(a.labels.tolist()) == {1, 2}


def test_thresholds_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [(3, 'mid, "dle"', 0.1 + 0.2), (5, "none", None), (9, "later", math.nan)]
    write_thresholds(tmp_path / "t.csv", {"per_class": [dict(zip(("id", "name", "threshold"), row, strict=True)) for row in rows]})
    found = read_thresholds(tmp_path / "t.csv")
    assert list(found) == [3, 5, 9]
    assert found[3] == 0.1 + 0.2
    assert math.isnan(found[5])
    assert math.isnan(found[9])


def test_a_thresholds_file_of_other_classes_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", "1,a,0.5", "2,b,0.5")
    with pytest.raises(ValueError, match=r"thresholds: .*t\.csv has 2 classes, the detector 3"):
        Decoder(thresholds=path)(random_predictions(0), [(40, 56)] * 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: a column 'category_id' expected, got an empty file"),
        ("category_id,name\n1,a\n", "line 1: a column 'threshold' expected"),
        ("category_id,name,threshold\n1,a,0.5\n2,b,high\n", r"line 3: threshold must be a number in \[0, 1\].*got 'high'"),
        ("category_id,name,threshold\n1,a,nan\n", "line 2: threshold must be a number"),
        ("category_id,name,threshold\n1,a\n", "line 2: threshold must be a number.*got None"),
        ("category_id,name,threshold\n1,a,1.5\n", "line 2: threshold must be a number.*got '1.5'"),
        ("category_id,name,threshold\none,a,0.5\n", "line 2: category_id must be a whole number, got 'one'"),
        ("category_id,name,threshold\n1,a,0.5\n1,b,0.5\n", "line 3: category_id 1 occurs twice"),
    ],
)
def test_a_broken_thresholds_file_is_named_with_line_and_rule(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"t\.csv: {message}"):
        Decoder(thresholds=path)


def test_a_score_with_centerness_is_the_geometric_mean_of_the_two() -> None:
    generator = torch.Generator().manual_seed(0)
    anchors = torch.tensor([[30.0 * i, 0.0, 30.0 * i + 20.0, 20.0] for i in range(8)])
    logits = torch.randn(2, 8, 3, generator=generator)
    plain = RawPredictions(logits, torch.zeros(2, 8, 4), anchors, (5, 3), DeltaCoder())
    raw = replace(plain, centerness=torch.randn(2, 8, generator=generator))
    scores = (logits.sigmoid() * raw.centerness.sigmoid()[..., None]).sqrt()
    for found, expected, without in zip(
        decode(raw, [(40, 250)] * 2, score_threshold=0.4), scores, decode(plain, [(40, 250)] * 2), strict=True
    ):
        torch.testing.assert_close(found.scores, expected[expected > 0.4].sort(descending=True).values)
        assert 3 < len(found.scores) < len(without.scores)
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
            assert score == pytest.approx(expected[int(box[0]) // 30, label].item())


def test_a_nan_in_the_centerness_is_named() -> None:
    centerness = torch.tensor([[0.0], [math.nan]])
    raw = RawPredictions(torch.zeros(2, 1, 1), torch.zeros(2, 1, 4), torch.tensor([[0.0, 0.0, 8.0, 8.0]]), (1,), DeltaCoder(), centerness)
    with pytest.raises(ValueError, match=r"predictions\.centerness: no NaN expected, got 1 in image 1 of the batch of 2"):
        decode(raw, [(8, 8)] * 2)
