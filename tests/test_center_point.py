"""CenterPoint from end to end: coder, assignment, heat maps, loss, peaks, and two boxes learned by heart."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lossbox.assignment import CellAssigner, assign_to_cell
from lossbox.boxes import CellCoder, paired_iou
from lossbox.decoding import Decoder
from lossbox.detectors import Backbone, CenterPoint, pyramid_anchors
from lossbox.objective import CenterPointObjective, weighted_sum
from lossbox.objective.center_point import gaussian_radius, heat_maps
from lossbox.records import BACKGROUND, IGNORE, RawPredictions, Targets

ROWS, COLUMNS, STRIDE, CLASSES = 6, 8, 4, 3
CELLS = pyramid_anchors([(ROWS, COLUMNS)], [STRIDE], anchor_scale=1.0, scales=(1.0,), ratios=(1.0,))


def image(boxes: Tensor, labels: list[int], crowd: list[bool] | None = None) -> Targets:
    return Targets(
        boxes, torch.tensor(labels, dtype=torch.int64), torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool), 0, (24, 32), (24, 32)
    )


def random_images(seed: int, counts: tuple[int, ...]) -> list[Targets]:
    g = torch.Generator().manual_seed(seed)
    images = []
    for n in counts:
        corner = (8 * torch.rand(n, 2, generator=g)).floor() * 3
        boxes = torch.cat([corner, corner + 2 + (10 * torch.rand(n, 2, generator=g)).floor()], 1)
        images.append(image(boxes, torch.randint(CLASSES, (n,), generator=g).tolist(), [i == 3 for i in range(n)]))
    return images


def test_the_coder_goes_back_and_forth() -> None:
    boxes = torch.tensor([[1.0, 2, 11, 9], [-4, 0, 8, 4]], dtype=torch.float64)
    cells = CELLS[[9, 0]].double()
    code = CellCoder().encode(boxes, cells)
    torch.testing.assert_close(code[0], torch.tensor([0.5, 0.375, 2.5, 1.75], dtype=torch.float64))
    torch.testing.assert_close(CellCoder().decode(code, cells), boxes)
    assert CellCoder().decode(code.bfloat16(), cells.float()).dtype == torch.float32


@pytest.mark.parametrize("seed", range(4))
def test_a_box_has_the_cell_of_its_center(seed: int) -> None:
    images = random_images(seed, (6, 0, 9, 1))
    found = assign_to_cell(CELLS, images).matched
    for of_image, target in zip(found, images, strict=True):
        expected = [BACKGROUND] * len(CELLS)
        area = [float((b[2] - b[0]) * (b[3] - b[1])) for b in target.boxes]
        for box in sorted(range(len(target.boxes)), key=lambda i: (-area[i], -i)):  # the last one stays
            x, y = (float((target.boxes[box, k] + target.boxes[box, k + 2]) / 2 // STRIDE) for k in (0, 1))
            if not target.crowd[box] and 0 <= x < COLUMNS and 0 <= y < ROWS:
                expected[int(y * COLUMNS + x)] = box
        assert [m for m in of_image.tolist() if m >= 0] == [e for e in expected if e >= 0]
        assert all(m == e or (m == IGNORE and e == BACKGROUND) for m, e in zip(of_image.tolist(), expected, strict=True))


def test_a_cell_in_a_crowd_is_ignored_and_a_center_outside_has_no_cell() -> None:
    found = assign_to_cell(CELLS, [image(torch.tensor([[0.0, 0, 8, 4], [30.0, 0, 40, 4]]), [0, 1], [True, False])]).matched
    assert found[0].tolist() == [IGNORE, IGNORE] + [BACKGROUND] * (len(CELLS) - 2)


@pytest.mark.parametrize("overlap", [0.3, 0.7, 0.95])
def test_a_box_moved_by_the_radius_keeps_the_overlap(overlap: float) -> None:
    size = torch.tensor([[10.0, 10], [3, 40], [0.1, 0.2]], dtype=torch.float64)
    radius = gaussian_radius(size, overlap)[:, None]
    box = torch.cat([0 * size, size], 1)
    worst = torch.stack(
        [
            paired_iou(box, box + torch.cat([low * radius, low * radius, high * radius, high * radius], 1))
            for low, high in ((1, -1), (-1, 1), (1, 1))
        ]
    ).amin(0)
    torch.testing.assert_close(worst, torch.full((3,), overlap, dtype=torch.float64))
    assert gaussian_radius(torch.zeros(1, 2), overlap) == 0


@pytest.mark.parametrize("seed", range(3))
def test_heat_is_the_largest_gaussian_of_a_class(seed: int) -> None:
    (target,) = random_images(seed, (7,))
    target = replace(target, boxes=target.boxes.double() + torch.tensor([-12.0, -12.0, 12.0, 12.0]))
    found = heat_maps(CELLS.double(), target, CLASSES)
    for row in range(ROWS):
        for column in range(COLUMNS):
            for c in range(CLASSES):
                heat = 0.0
                for box, label, crowd in zip(target.boxes.tolist(), target.labels.tolist(), target.crowd.tolist(), strict=True):
                    if label == c and not crowd:
                        x, y = math.floor((box[0] + box[2]) / 2 / 4), math.floor((box[1] + box[3]) / 2 / 4)
                        size = torch.tensor([[(box[2] - box[0]) / 4, (box[3] - box[1]) / 4]], dtype=torch.float64)
                        s = (2 * math.floor(gaussian_radius(size, 0.7)) + 1) / 6
                        heat = max(heat, math.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * s * s)))
                assert found[row * COLUMNS + column, c].item() == pytest.approx(heat, rel=1e-9, abs=2e-7)
    assert 0 < (found == 1).sum() <= 7


@pytest.mark.parametrize("counts", [(5, 0, 2), (0,), (0, 0)])
def test_the_objective_is_its_three_terms(counts: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(1)
    images = [replace(t, boxes=t.boxes.double()) for t in random_images(2, counts)]
    logits = torch.randn(len(counts), len(CELLS), CLASSES, generator=g, dtype=torch.float64).requires_grad_()
    regression = torch.randn(len(counts), len(CELLS), 4, generator=g, dtype=torch.float64).requires_grad_()
    raw = RawPredictions(logits, regression, CELLS.double(), (len(CELLS),), CellCoder())
    matched = assign_to_cell(raw.anchors, images)
    parts = CenterPointObjective()(raw, matched, images)
    heat_map = offset = size = 0 * logits.sum() + 0 * regression.sum()
    for i, target in enumerate(images):
        heat, p = heat_maps(raw.anchors, target, CLASSES), logits[i].sigmoid()
        kept = matched.matched[i] != IGNORE
        each = torch.where(heat == 1, -((1 - p) ** 2) * p.log(), -((1 - heat) ** 4) * p**2 * (1 - p).log())
        heat_map = heat_map + each[kept].sum()
        for cell, box in enumerate(matched.matched[i].tolist()):
            if box >= 0:
                off = (regression[i, cell] - CellCoder().encode(target.boxes[box], raw.anchors[cell])).abs()
                offset, size = offset + off[:2].sum(), size + off[2:].sum()
    count = max(int((matched.matched >= 0).sum()), 1)
    inputs = [logits, regression]
    for name, value in {"heat_map": heat_map, "offset": offset, "size": size}.items():
        torch.testing.assert_close(parts[name].value, value / count)
        ours, theirs = (
            torch.autograd.grad(-1.7 * x, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)
            for x in (parts[name].value, value / count)
        )
        torch.testing.assert_close(ours, theirs)
    assert [part.weight for part in parts.values()] == [1.0, 1.0, 0.1]
    assert list(parts) == ["heat_map", "offset", "size"]


def test_only_the_peaks_of_a_heat_map_are_detected() -> None:
    logits = torch.full((1, len(CELLS), 2), -9.0)
    logits[0, [9, 10, 18], 0] = torch.tensor([1.0, 2.0, 1.5])  # neighbors: one peak
    logits[0, 9, 1] = 0.5  # another class
    logits[0, 31, 0] = 0.0  # the last column of a row; 32 is the first of the next, far away
    logits[0, 32, 0] = 1.0
    regression = torch.tensor([0.5, 0.5, 2.0, 2.0]).expand(1, len(CELLS), 4)
    raw = RawPredictions(logits, regression, CELLS, (len(CELLS),), CellCoder())
    (found,) = Decoder(peak_window=3, nms_threshold=1.0)(raw, [(24, 32)])
    assert found.scores.tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in (2.0, 1.0, 0.5, 0.0)])
    assert found.labels.tolist() == [0, 0, 1, 0]
    assert found.boxes[0].tolist() == [6.0, 2.0, 14.0, 10.0]
    (all_of_them,) = Decoder(nms_threshold=1.0)(raw, [(24, 32)])
    assert len(all_of_them.scores) == 6
    with pytest.raises(ValueError, match="peak_window: an odd number >= 1 expected, got 2"):
        Decoder(peak_window=2)
    twice = replace(raw, logits=logits.repeat(1, 2, 1), anchors=CELLS.repeat_interleave(2, 0), level_sizes=(2 * len(CELLS),))
    with pytest.raises(ValueError, match="peak_window: a detector of one anchor per cell expected"):
        Decoder(peak_window=3)(replace(twice, regression=regression.repeat(1, 2, 1)), [(24, 32)])
    empty = RawPredictions(logits[:, :0], regression[:, :0], CELLS[:0], (0,), CellCoder())
    assert len(Decoder(peak_window=3)(empty, [(24, 32)])[0].scores) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_overlap": 1.0}, r"min_overlap: a number in \(0, 1\)"),
        ({"size_weight": -1.0}, "size_weight: a finite number >= 0"),
        ({"offset_weight": math.nan}, "offset_weight: a finite number >= 0"),
    ],
)
def test_mistakes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CenterPointObjective(**options)


def test_two_boxes_are_learned_by_heart() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = CenterPoint(2, backbone=Backbone(stages=2, strides=(4, 8), channels=16))
    images = torch.rand(2, 3, 42, 50) * 0.1
    boxes = torch.tensor([[4.0, 6.0, 20.0, 30.0], [15.0, 10.0, 45.0, 38.0]])
    for picture, (x1, y1, x2, y2) in zip(images, boxes.int().tolist(), strict=True):
        picture[:, y1:y2, x1:x2] += 0.8
    targets = [image(boxes[i : i + 1], [i]) for i in range(2)]
    optimizer = torch.optim.AdamW(net.parameters(), 4e-3)
    values = []
    for _ in range(40):
        raw = net(images)
        parts = CenterPointObjective()(raw, CellAssigner()(raw, targets), targets)
        optimizer.zero_grad()
        weighted_sum(parts).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
        values.append(float(weighted_sum(parts).detach()))
    assert raw.level_sizes == (11 * 13,)
    assert values[-1] < 0.2 * values[0], values
    found = Decoder(peak_window=3, nms_threshold=1.0, score_threshold=0.3)(net(images), [(42, 50)] * 2)
    for i, one in enumerate(found):
        assert one.labels.tolist() == [i]
        assert paired_iou(one.boxes, boxes[i : i + 1]).item() > 0.7
    torch.set_num_threads(threads)
