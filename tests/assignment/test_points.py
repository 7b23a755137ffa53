"""Both rules for points against their definitions with loops, on random problems with many ties; then every rule by hand."""

import math
from typing import Any

import pytest
import torch

from lossbox.assignment import CenterAssigner, FoveaAssigner, assign_by_center, assign_fovea
from lossbox.boxes import PointCoder
from lossbox.detectors import pyramid_anchors
from lossbox.records import BACKGROUND, IGNORE, RawPredictions, Targets

SIZES, STRIDES = [(8, 9), (4, 5), (2, 3)], [8, 16, 32]
LEVEL_SIZES = [72, 20, 6]


def image(boxes: list[list[float]], crowd: list[bool] | None = None) -> Targets:
    n = len(boxes)
    return Targets(
        torch.tensor(boxes).reshape(n, 4), torch.arange(n), torch.tensor(crowd or [False] * n, dtype=torch.bool), 0, (64, 72), (64, 72)
    )


def random_images(generator: torch.Generator, counts: list[int], grid: float) -> list[Targets]:
    """Boxes on a grid of so many pixels, 0 for anywhere; some without width, some twice, some of one size, some crowds."""
    images = []
    for n in counts:
        corner, size = torch.rand(n, 2, generator=generator) * 48, torch.rand(n, 2, generator=generator) * 60
        if grid:
            corner, size = (corner / grid).floor() * grid, (size / grid).floor() * grid
        boxes = torch.cat([corner, corner + size], 1)
        if n > 3:
            boxes[n - 1] = boxes[0]
            boxes[1] = boxes[2] + grid
            boxes[3, 2] = boxes[3, 0]
        crowd = torch.rand(n, generator=generator) < 0.2
        images.append(Targets(boxes, torch.zeros(n, dtype=torch.int64), crowd, 0, (64, 72), (64, 72)))
    return images


def points(anchor_scale: float) -> torch.Tensor:
    return pyramid_anchors(SIZES, STRIDES, anchor_scale=anchor_scale, scales=(1.0,), ratios=(1.0,))


def in_crowd(anchor: list[float], target: Targets) -> bool:
    area = (anchor[2] - anchor[0]) * (anchor[3] - anchor[1])
    for b, crowd in zip(target.boxes.tolist(), target.crowd.tolist(), strict=True):
        width, height = min(b[2], anchor[2]) - max(b[0], anchor[0]), min(b[3], anchor[3]) - max(b[1], anchor[1])
        if crowd and width > 0 and height > 0 and width * height / area >= 0.5:
            return True
    return False


def decide(claims: dict[int, list[tuple[float, int]]], anchors: torch.Tensor, target: Targets) -> list[int]:
    """The smallest box that claims a point, of equally small ones the first."""
    return [
        min(claims[j])[1] if j in claims else (IGNORE if in_crowd(anchor, target) else BACKGROUND)
        for j, anchor in enumerate(anchors.tolist())
    ]


def naive_fovea(anchors: torch.Tensor, target: Targets, sigma: float, ranges: list[tuple[float, float]]) -> list[int]:
    claims: dict[int, list[tuple[float, int]]] = {}
    for i, (box, crowd) in enumerate(zip(target.boxes, target.crowd.tolist(), strict=True)):
        start = 0
        for (rows, columns), stride, (low, high) in zip(SIZES, STRIDES, ranges, strict=True):
            x1, y1, x2, y2 = box / stride
            size = ((box[2] - box[0]) * (box[3] - box[1])).sqrt().item()
            left = math.ceil(x1 + (1 - sigma) * ((x2 - x1) / 2) - 0.5)
            right = math.floor(x1 + (1 + sigma) * ((x2 - x1) / 2) - 0.5)
            top = math.ceil(y1 + (1 - sigma) * ((y2 - y1) / 2) - 0.5)
            bottom = math.floor(y1 + (1 + sigma) * ((y2 - y1) / 2) - 0.5)
            left, right = (min(max(i, 0), columns - 1) for i in (left, right))
            top, bottom = (min(max(i, 0), rows - 1) for i in (top, bottom))
            for row in range(rows):
                for column in range(columns):
                    if not crowd and low <= size <= high and left <= column <= right and top <= row <= bottom:
                        area = ((box[2] - box[0]) * (box[3] - box[1])).item()
                        claims.setdefault(start + row * columns + column, []).append((area, i))
            start += rows * columns
    return decide(claims, anchors, target)


def naive_center(anchors: torch.Tensor, target: Targets, radius: float, ranges: list[tuple[float, float]]) -> list[int]:
    claims: dict[int, list[tuple[float, int]]] = {}
    for i, (box, crowd) in enumerate(zip(target.boxes.tolist(), target.crowd.tolist(), strict=True)):
        x1, y1, x2, y2 = box
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        start = 0
        for (rows, columns), stride, (low, high) in zip(SIZES, STRIDES, ranges, strict=True):
            for row in range(rows):
                for column in range(columns):
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    # the sides of the central square, cut off at those of the box
                    sides = (
                        x - max(x1, cx - radius * stride),
                        y - max(y1, cy - radius * stride),
                        min(x2, cx + radius * stride) - x,
                        min(y2, cy + radius * stride) - y,
                    )
                    if not crowd and min(sides) > 0 and low <= max(x - x1, y - y1, x2 - x, y2 - y) <= high:
                        claims.setdefault(start + row * columns + column, []).append(((x2 - x1) * (y2 - y1), i))
            start += rows * columns
    return decide(claims, anchors, target)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("grid", [0.0, 2.0, 8.0])
@pytest.mark.parametrize(
    ("sigma", "ranges"),
    [(0.4, [(1.0, 16.0), (8.0, 32.0), (16.0, 64.0)]), (1.0, [(0.0, 24.0), (24.0, 40.0), (40.0, math.inf)]), (0.05, [(0.0, 99.0)] * 3)],
)
def test_fovea_is_the_naive_definition(seed: int, grid: float, sigma: float, ranges: list[tuple[float, float]]) -> None:
    anchors = points(2.0)
    targets = random_images(torch.Generator().manual_seed(seed), [6, 0, 1, 12], grid)
    found = assign_fovea(anchors, LEVEL_SIZES, targets, sigma=sigma, scale_ranges=ranges).matched
    assert found.dtype == torch.int64
    for row, target in zip(found.tolist(), targets, strict=True):
        assert row == naive_fovea(anchors, target, sigma, ranges)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("grid", [0.0, 2.0, 8.0])
@pytest.mark.parametrize(
    ("radius", "ranges"),
    [(1.5, [(0.0, 16.0), (16.0, 32.0), (32.0, math.inf)]), (0.5, [(0.0, 99.0)] * 3), (math.inf, [(0.0, 24.0), (8.0, 32.0), (16.0, 99.0)])],
)
def test_center_is_the_naive_definition(seed: int, grid: float, radius: float, ranges: list[tuple[float, float]]) -> None:
    anchors = points(1.0)
    targets = random_images(torch.Generator().manual_seed(seed), [6, 0, 1, 12], grid)
    found = assign_by_center(anchors, LEVEL_SIZES, targets, radius=radius, regress_ranges=ranges).matched
    assert found.dtype == torch.int64
    for row, target in zip(found.tolist(), targets, strict=True):
        assert row == naive_center(anchors, target, radius, ranges)


RULES: list[Any] = [assign_fovea, assign_by_center]
LEVEL: list[Any] = [{"scale_ranges": [(0.0, 64.0)]}, {"regress_ranges": [(0.0, 64.0)]}]


@pytest.mark.parametrize(("rule", "level"), list(zip(RULES, LEVEL, strict=True)))
@pytest.mark.parametrize("counts", [[], [0], [0, 0]])
def test_no_boxes_are_all_background(rule: Any, level: dict[str, Any], counts: list[int]) -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]])
    found = rule(anchors, [2], [image([]) for _ in counts], **level).matched
    assert found.shape == (len(counts), 2)
    assert (found == BACKGROUND).all()


@pytest.mark.parametrize(("rule", "level"), list(zip(RULES, LEVEL, strict=True)))
def test_crowds_match_nothing_and_their_points_are_ignored(rule: Any, level: dict[str, Any]) -> None:
    # wholly inside, exactly half inside, less than half inside, outside
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [16.0, 0.0, 24.0, 8.0], [17.0, 0.0, 25.0, 8.0], [40.0, 0.0, 48.0, 8.0]])
    crowd = [0.0, 0.0, 20.0, 20.0]
    assert rule(anchors, [4], [image([crowd], [True])], **level).matched.tolist() == [[IGNORE, IGNORE, BACKGROUND, BACKGROUND]]
    both = image([crowd, [0.0, 0.0, 8.0, 8.0]], [True, False])
    assert rule(anchors, [4], [both], **level).matched.tolist() == [[1, IGNORE, BACKGROUND, BACKGROUND]]


@pytest.mark.parametrize(("rule", "level"), list(zip(RULES, LEVEL, strict=True)))
def test_the_smaller_box_wins_and_of_equal_ones_the_first(rule: Any, level: dict[str, Any]) -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    large, small, as_small = [-20.0, -20.0, 28.0, 28.0], [0.0, 2.0, 8.0, 6.0], [2.0, 0.0, 6.0, 8.0]
    for boxes, winner in (([large, small], 1), ([small, large], 0), ([large, as_small, small], 1), ([small, as_small, large], 0)):
        assert rule(anchors, [1], [image(boxes)], **level).matched.item() == winner


def test_the_border_of_the_fovea_is_inside_and_that_of_the_central_square_is_not() -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    # the fovea with sigma 0.5 starts at 4, the center of the first cell; then just behind it
    row = torch.tensor([[8.0 * i, 0.0, 8.0 * i + 8, 8.0] for i in range(3)])
    for x1, fovea in ((0.0, 0), (0.125, BACKGROUND)):
        target = image([[x1, -12.0, 16.0, 20.0]])
        assert assign_fovea(row, [3], [target], sigma=0.5, scale_ranges=[(0.0, 64.0)]).matched.tolist() == [[fovea, 0, BACKGROUND]]
    # the center of the box is 8 = 1 stride from the point, then less
    for x2, match in ((24.0, BACKGROUND), (23.9, 0)):
        target = image([[0.0, -12.0, x2, 20.0]])
        assert assign_by_center(anchors, [1], [target], radius=1.0, regress_ranges=[(0.0, 64.0)]).matched.item() == match


def test_a_thin_box_at_the_border_has_the_outermost_cells_of_a_coarse_level() -> None:
    """As published: both ends of the range are clamped to the map, so that it is not empty there."""
    anchors = pyramid_anchors([(2, 3)], [32], anchor_scale=1.0, scales=(1.0,), ratios=(1.0,))
    options: Any = {"scale_ranges": [(1.0, 64.0)]}
    left, right, inside, top = ([0.0, 0.0, 4.0, 64.0], [90.0, 0.0, 95.0, 64.0], [50.0, 0.0, 54.0, 64.0], [0.0, 1.0, 96.0, 4.0])
    for box, cells in ((left, []), (right, []), (inside, []), (top, [1])):
        found = assign_fovea(anchors, [6], [image([box])], **options).matched[0]
        assert (found == 0).nonzero().flatten().tolist() == cells
    tall = {**options, "sigma": 1.0}
    for box, cells in ((left, [0, 3]), (right, [2, 5]), (inside, []), (top, [0, 1, 2])):
        found = assign_fovea(anchors, [6], [image([box])], **tall).matched[0]
        assert (found == 0).nonzero().flatten().tolist() == cells


@pytest.mark.parametrize("boxes", [[], [[0.0, 0.0, 10.0, 9.0]]])
def test_without_points_the_assignment_is_empty(boxes: list[list[float]]) -> None:
    for rule, level in zip(RULES, LEVEL, strict=True):
        for targets in ([image(boxes)], [image(boxes), image([])], []):
            found = rule(torch.empty(0, 4), [0], targets, **level).matched
            assert found.shape == (len(targets), 0)
            assert found.dtype == torch.int64


def test_a_box_at_the_end_of_two_ranges_belongs_to_both_levels() -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [-4.0, -4.0, 12.0, 12.0]])
    target = image([[-12.0, -12.0, 20.0, 20.0]])  # 32 x 32, its sides 16 from the points
    assert assign_fovea(anchors, [1, 1], [target], scale_ranges=[(1.0, 32.0), (32.0, 64.0)]).matched.tolist() == [[0, 0]]
    assert assign_fovea(anchors, [1, 1], [target], scale_ranges=[(1.0, 31.9), (32.0, 64.0)]).matched.tolist() == [[BACKGROUND, 0]]
    assert assign_by_center(anchors, [1, 1], [target], regress_ranges=[(0.0, 16.0), (16.0, 64.0)]).matched.tolist() == [[0, 0]]
    assert assign_by_center(anchors, [1, 1], [target], regress_ranges=[(0.0, 16.0), (16.1, 64.0)]).matched.tolist() == [[0, BACKGROUND]]


def test_the_assigners_of_recipes_are_the_functions() -> None:
    targets = random_images(torch.Generator().manual_seed(3), [5, 7], 0.0)
    raw = RawPredictions(torch.zeros(2, 98, 1), torch.zeros(2, 98, 4), points(1.0), tuple(LEVEL_SIZES), PointCoder())
    ranges = ((0.0, 24.0), (16.0, 48.0), (32.0, 128.0))
    fovea = FoveaAssigner(0.7, ranges)(raw, targets).matched
    assert fovea.equal(assign_fovea(raw.anchors, LEVEL_SIZES, targets, sigma=0.7, scale_ranges=ranges).matched)
    assert not fovea.equal(FoveaAssigner(0.4, ranges)(raw, targets).matched)
    center = CenterAssigner(1.0, ranges)(raw, targets).matched
    assert center.equal(assign_by_center(raw.anchors, LEVEL_SIZES, targets, radius=1.0, regress_ranges=ranges).matched)
    assert not center.equal(CenterAssigner(2.0, ranges)(raw, targets).matched)


def test_wrong_options_are_named() -> None:
    for sigma in (0.0, 1.1):
        with pytest.raises(ValueError, match=r"sigma: a number in \(0, 1\] expected, got"):
            FoveaAssigner(sigma)
    with pytest.raises(ValueError, match="radius: a number > 0 expected, got 0"):
        CenterAssigner(0)
    with pytest.raises(ValueError, match=r"scale_ranges: pairs \(low, high\) with 0 <= low <= high expected, got \(64, 1\)"):
        FoveaAssigner(scale_ranges=((64, 1),))
    with pytest.raises(ValueError, match=r"regress_ranges: one \(low, high\) a level expected, got none"):
        CenterAssigner(regress_ranges=())
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    with pytest.raises(ValueError, match=r"scale_ranges: one \(low, high\) for each of the 1 levels expected, got 5"):
        assign_fovea(anchors, [1], [])
    with pytest.raises(ValueError, match=r"level_sizes: a sum of 1 .* got \(2, 0, 0, 0, 0\)"):
        assign_by_center(anchors, [2, 0, 0, 0, 0], [])
    with pytest.raises(ValueError, match=r"anchors: \(a, 4\) expected"):
        assign_by_center(anchors[None], [1, 0, 0, 0, 0], [])
