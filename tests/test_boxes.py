"""The pairwise areas and the coder; the overlaps of the paired family are in tests of the losses as well."""

import math

import pytest
import torch
from torchvision.ops import box_iou, generalized_box_iou

from lossbox.boxes import (
    MAX_LOG_SCALE,
    DeltaCoder,
    PointCoder,
    box_area,
    centerness_targets,
    paired_ciou,
    paired_diou,
    paired_eiou,
    paired_giou,
    paired_iou,
    pairwise_intersection,
)


def random_boxes(n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    corner = torch.rand(n, 2, generator=generator, dtype=dtype) * 40
    return torch.cat([corner, corner + torch.rand(n, 2, generator=generator, dtype=dtype) * 30 + 0.1], 1)


@pytest.mark.parametrize("n", [0, 1, 17])
def test_paired_overlaps_are_the_diagonal_of_torchvisions(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    boxes, others = random_boxes(n, generator), random_boxes(n, generator)
    torch.testing.assert_close(paired_iou(boxes, others), box_iou(boxes, others).diagonal())
    torch.testing.assert_close(paired_giou(boxes, others), generalized_box_iou(boxes, others).diagonal())


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (5, 7)])
def test_pairwise_intersection_is_that_of_each_pair(n: int, m: int) -> None:
    generator = torch.Generator().manual_seed(n)
    boxes, others = random_boxes(n, generator), random_boxes(m, generator)
    found = pairwise_intersection(boxes, others)
    assert found.shape == (n, m)
    for i, a in enumerate(boxes.tolist()):
        for j, b in enumerate(others.tolist()):
            width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
            height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            assert math.isclose(found[i, j], width * height, rel_tol=1e-12)
    union = box_area(boxes)[:, None] + box_area(others) - found
    torch.testing.assert_close(found / union, box_iou(boxes, others))


def test_boxes_disjoint_in_both_directions_share_nothing() -> None:
    # both sides of the intersection are negative here, and their product is not
    assert pairwise_intersection(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[5.0, 5.0, 6.0, 6.0]])).item() == 0


def test_boxes_with_sides_of_nearly_1e19_are_finite_in_float32() -> None:
    """The stated limit: the square of a longer side is no float32."""
    side = 9e18
    boxes = torch.tensor([[0, 0, side, side], [0, 0, side / 2, side / 2]], requires_grad=True)
    others = torch.tensor([[0, 0, side / 2, side], [side / 2, side / 2, side, side]])
    for overlap, expected in ((paired_iou, [0.5, 0]), (paired_giou, [0.5, -0.5]), (paired_diou, [0.5 - 1 / 32, -0.25])):
        assert overlap(boxes, others).tolist() == pytest.approx(expected)
    for overlap in (paired_iou, paired_giou, paired_diou, paired_ciou, paired_eiou):
        (gradient,) = torch.autograd.grad(overlap(boxes, others).sum(), boxes)
        assert gradient.isfinite().all()


def test_pairwise_intersection_names_the_wrong_argument() -> None:
    with pytest.raises(ValueError, match=r"others: a \(k, 4\) tensor expected, got \(4,\)"):
        pairwise_intersection(torch.zeros(1, 4), torch.zeros(4))


@pytest.mark.parametrize("shape", [(0,), (9,), (3, 5)])
@pytest.mark.parametrize("std", [(0.1, 0.1, 0.2, 0.2), (1.0, 0.5, 2.0, 0.25)])
def test_decode_undoes_encode(shape: tuple[int, ...], std: tuple[float, float, float, float]) -> None:
    generator = torch.Generator().manual_seed(1)
    n = math.prod(shape)
    boxes, anchors = random_boxes(n, generator).reshape(*shape, 4), random_boxes(n, generator).reshape(*shape, 4)
    coder = DeltaCoder(std)
    torch.testing.assert_close(coder.decode(coder.encode(boxes, anchors), anchors), boxes)


def test_the_four_offsets_are_those_of_the_formula() -> None:
    anchor = torch.tensor([10.0, 20.0, 30.0, 60.0], dtype=torch.float64)
    box = torch.tensor([12.0, 20.0, 22.0, 100.0], dtype=torch.float64)
    expected = [(17 - 20) / 20 / 0.1, (60 - 40) / 40 / 0.1, math.log(10 / 20) / 0.2, math.log(80 / 40) / 0.2]
    torch.testing.assert_close(DeltaCoder().encode(box, anchor), torch.tensor(expected, dtype=torch.float64))


def test_decode_is_differentiable() -> None:
    generator = torch.Generator().manual_seed(2)
    anchors = random_boxes(4, generator)
    regression = torch.randn(4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: DeltaCoder().decode(r, anchors), (regression,))


def test_a_wild_size_is_held_and_stays_finite() -> None:
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    box = DeltaCoder().decode(torch.tensor([[0.0, 0.0, 1e30, -1e30]]), anchor)
    width, height = (box[:, 2:] - box[:, :2])[0].tolist()
    assert math.isclose(width, 16 * math.exp(MAX_LOG_SCALE), rel_tol=1e-5)
    assert math.isclose(height, 16 / math.exp(MAX_LOG_SCALE), rel_tol=1e-2)
    assert width <= 1000.001


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_offsets_are_decoded_in_float32(dtype: torch.dtype) -> None:
    anchors = torch.tensor([[512.0, 512.0, 612.0, 640.0]])
    offsets = torch.tensor([[0.25, -0.5, 0.125, 1.0]])
    found = DeltaCoder().decode(offsets.to(dtype), anchors)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, DeltaCoder().decode(offsets, anchors), rtol=0, atol=0)


@pytest.mark.parametrize("std", [(0.1, 0.1, 0.2), (0.1, 0.1, 0.2, 0.0), (0.1, -0.1, 0.2, 0.2)])
def test_a_wrong_std_is_named(std: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="std: four numbers > 0 expected"):
        DeltaCoder(std)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(0,), (9,), (3, 5)])
@pytest.mark.parametrize("side", [8.0, 0.5])
def test_decode_undoes_encode_around_a_point(shape: tuple[int, ...], side: float) -> None:
    generator = torch.Generator().manual_seed(1)
    point = torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 40
    near, far = (torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 15 * side + side for _ in range(2))
    boxes = torch.cat([point - near, point + far], -1)
    coder = PointCoder()
    anchors = torch.cat([point - side / 2, point + side / 2], -1)
    torch.testing.assert_close(coder.decode(coder.encode(boxes, anchors), anchors), boxes)


def test_the_four_distances_are_those_of_the_formula() -> None:
    cell = torch.tensor([16.0, 32.0, 24.0, 40.0], dtype=torch.float64)
    box = torch.tensor([10.0, 20.0, 30.0, 46.0], dtype=torch.float64)
    expected = [math.log(10 / 8), math.log(16 / 8), math.log(10 / 8), math.log(10 / 8)]
    torch.testing.assert_close(PointCoder().encode(box, cell), torch.tensor(expected, dtype=torch.float64))


def test_distances_out_of_the_limit_are_encoded_as_it() -> None:
    cell = torch.tensor([-4.0, -4.0, 4.0, 4.0])
    # left: 1000 units away; top: on the side; right: beyond it; bottom: a thousandth of a unit
    found = PointCoder(16.0).encode(torch.tensor([-8000.0, 0.0, -1.0, 0.008]), cell)
    torch.testing.assert_close(found, math.log(16) * torch.tensor([1.0, -1.0, -1.0, -1.0]))
    assert PointCoder(50.0).encode(torch.tensor([-240.0, -8.0, 8.0, 8.0]), cell)[0].item() == pytest.approx(math.log(30))


def test_a_wild_distance_is_held_and_stays_finite() -> None:
    box = PointCoder().decode(torch.tensor([[1e30, -1e30, 0.0, 4.0]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]]))
    torch.testing.assert_close(box, torch.tensor([[8 - 1000.0, 8 - 0.256, 24.0, 8 + 16 * math.exp(4)]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_distances_are_decoded_in_float32(dtype: torch.dtype) -> None:
    cell = torch.tensor([[512.0, 512.0, 520.0, 520.0]])
    distances = torch.tensor([[0.25, -0.5, 0.125, 1.0]])
    found = PointCoder().decode(distances.to(dtype), cell)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, PointCoder().decode(distances, cell), rtol=0, atol=0)


def test_point_decode_is_differentiable() -> None:
    generator = torch.Generator().manual_seed(2)
    cells = torch.tensor([[0.0, 0.0, 8.0, 8.0]], dtype=torch.float64)
    regression = torch.randn(4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: PointCoder().decode(r, cells), (regression,))


@pytest.mark.parametrize("limit", [1.0, 0.5, -3.0, math.nan])
def test_a_wrong_limit_is_named(limit: float) -> None:
    with pytest.raises(ValueError, match="limit: a number > 1 expected"):
        PointCoder(limit)


def test_centerness_is_the_formula_inside_and_0_elsewhere() -> None:
    generator = torch.Generator().manual_seed(3)
    corner = torch.randint(0, 8, (60, 2), generator=generator).double()
    # sizes of 0 too: lines and points
    boxes = torch.cat([corner, corner + torch.randint(0, 8, (60, 2), generator=generator)], 1)
    points = torch.randint(-1, 17, (60, 2), generator=generator).double()
    points[:20] = corner[:20] + 1
    points[20:24] = (boxes[20:24, :2] + boxes[20:24, 2:]) / 2
    expected = []
    for (x, y), (x1, y1, x2, y2) in zip(points.tolist(), boxes.tolist(), strict=True):
        left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
        if min(left, top, right, bottom) <= 0:
            expected.append(0.0)
        else:
            expected.append(math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)))
    found = centerness_targets(points, boxes)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert 5 < (found > 0).sum() < 50
