"""Both rules against definitions with loops, written to be read, on random problems with many ties; then every rule by hand."""

import math
from typing import Any

import pytest
import torch

from lossbox.assignment import ATSSAssigner, OverlapAssigner, SampledAssigner, assign_atss, assign_by_overlap
from lossbox.boxes import DeltaCoder
from lossbox.detectors import pyramid_anchors
from lossbox.records import BACKGROUND, IGNORE, Assignment, RawPredictions, Targets


def image(boxes: list[list[float]], crowd: list[bool] | None = None) -> Targets:
    n = len(boxes)
    return Targets(
        torch.tensor(boxes).reshape(n, 4), torch.arange(n), torch.tensor(crowd or [False] * n, dtype=torch.bool), 0, (64, 64), (64, 64)
    )


def random_images(generator: torch.Generator, counts: list[int]) -> list[Targets]:
    """Boxes on a grid of 4 pixels, so that centers, distances and overlaps are often equal; some boxes twice, some crowds."""
    images = []
    for n in counts:
        corner = torch.randint(0, 12, (n, 2), generator=generator) * 4.0
        boxes = torch.cat([corner, corner + torch.randint(1, 9, (n, 2), generator=generator) * 4.0], 1)
        if n > 3:
            boxes[n - 1] = boxes[0]
        crowd = torch.rand(n, generator=generator) < 0.2
        images.append(Targets(boxes, torch.zeros(n, dtype=torch.int64), crowd, 0, (64, 64), (64, 64)))
    return images


def overlap(a: list[float], b: list[float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def area(a: list[float]) -> float:
    return (a[2] - a[0]) * (a[3] - a[1])


def table(anchors: torch.Tensor, target: Targets) -> list[list[float]]:
    """IoU of each box with each anchor in float32, as the assigners see it; -1 in the rows of crowds."""
    rows = []
    for box, crowd in zip(target.boxes.tolist(), target.crowd.tolist(), strict=True):
        rows.append(
            [-1.0 if crowd else torch.tensor(overlap(box, a) / (area(box) + area(a) - overlap(box, a))).item() for a in anchors.tolist()]
        )
    return rows


def in_crowd(anchor: list[float], target: Targets) -> bool:
    return any(c and overlap(b, anchor) / area(anchor) >= 0.5 for b, c in zip(target.boxes.tolist(), target.crowd.tolist(), strict=True))


def naive_overlap(anchors: torch.Tensor, target: Targets, positive: float, negative: float, allow_low_quality_matches: bool) -> list[int]:
    iou = table(anchors, target)
    found = []
    for j, anchor in enumerate(anchors.tolist()):
        column = [row[j] for row in iou]
        best = max(column, default=-1.0)
        # the thresholds are compared in float32, as the overlaps are
        if best >= torch.tensor(positive).item():
            match = column.index(best)
        else:
            match = BACKGROUND if best < torch.tensor(negative).item() else IGNORE
        if allow_low_quality_matches:
            rescuers = [(-row[j], i) for i, row in enumerate(iou) if row[j] == max(row) > 0]
            if rescuers:
                match = min(rescuers)[1]
        found.append(IGNORE if match < 0 and in_crowd(anchor, target) else match)
    return found


def naive_atss(anchors: torch.Tensor, level_sizes: list[int], target: Targets, top_k: int) -> list[int]:
    iou = table(anchors, target)
    centers = [((a[0] + a[2]) / 2, (a[1] + a[3]) / 2) for a in anchors.tolist()]
    claims: dict[int, list[tuple[float, int]]] = {}
    for i, (box, crowd) in enumerate(zip(target.boxes.tolist(), target.crowd.tolist(), strict=True)):
        if crowd:
            continue
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        candidates, start = [], 0
        for size in level_sizes:
            level = range(start, start + size)
            candidates += sorted(level, key=lambda j: ((centers[j][0] - x) ** 2 + (centers[j][1] - y) ** 2, j))[:top_k]
            start += size
        values = [iou[i][j] for j in candidates]
        mean = sum(values) / len(values)
        std = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0
        for j in candidates:
            inside = box[0] < centers[j][0] < box[2] and box[1] < centers[j][1] < box[3]
            if iou[i][j] >= mean + std - 1e-6 and inside:
                claims.setdefault(j, []).append((-iou[i][j], i))
    return [
        min(claims[j])[1] if j in claims else (IGNORE if in_crowd(anchor, target) else BACKGROUND)
        for j, anchor in enumerate(anchors.tolist())
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("positive", "negative", "allow_low_quality_matches"), [(0.5, 0.4, True), (0.5, 0.4, False), (0.7, 0.3, True), (0.4, 0.4, True)]
)
def test_overlap_is_the_naive_definition(seed: int, positive: float, negative: float, allow_low_quality_matches: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = pyramid_anchors([(5, 7), (3, 4)], [8, 16], anchor_scale=1.5, scales=(1.0, 1.5), ratios=(0.25, 1.0))
    targets = random_images(generator, [0, 1, 9, 3])
    found = assign_by_overlap(
        anchors, targets, positive=positive, negative=negative, allow_low_quality_matches=allow_low_quality_matches
    ).matched
    assert found.dtype == torch.int64
    for row, target in zip(found.tolist(), targets, strict=True):
        assert row == naive_overlap(anchors, target, positive, negative, allow_low_quality_matches)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("top_k", [1, 4, 9])
def test_atss_is_the_naive_definition(seed: int, top_k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes, strides = [(7, 8), (4, 4), (2, 2)], [8, 16, 32]
    anchors = pyramid_anchors(sizes, strides, anchor_scale=1.5, scales=(1.0,), ratios=(1.0,))
    level_sizes = [h * w for h, w in sizes]
    targets = random_images(generator, [4, 0, 1, 9])
    found = assign_atss(anchors, level_sizes, targets, top_k=top_k).matched
    for row, target in zip(found.tolist(), targets, strict=True):
        assert row == naive_atss(anchors, level_sizes, target, top_k)


@pytest.mark.parametrize("counts", [[], [0], [0, 0]])
def test_no_boxes_are_all_background(counts: list[int]) -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]])
    targets = [image([]) for _ in counts]
    for found in (assign_by_overlap(anchors, targets), assign_atss(anchors, [2], targets)):
        assert found.matched.tolist() == [[BACKGROUND, BACKGROUND]] * len(counts)
        assert found.matched.shape == (len(counts), 2)


@pytest.mark.parametrize("boxes", [[], [[0.0, 0.0, 10.0, 9.0]]])
@pytest.mark.parametrize("crowd", [False, True])
def test_without_anchors_the_assignment_is_empty(boxes: list[list[float]], crowd: bool) -> None:
    no_anchors = torch.empty(0, 4)
    for targets in ([image(boxes, [crowd] * len(boxes))], [image(boxes, [crowd] * len(boxes)), image([])], []):
        own = torch.empty(len(targets), 0, 4)
        raw = RawPredictions(own[..., :1], own, no_anchors, (0,), DeltaCoder())
        for found in (
            assign_by_overlap(no_anchors, targets),
            assign_by_overlap(own, targets),
            assign_atss(no_anchors, [0], targets),
            SampledAssigner(ATSSAssigner())(raw, targets),
        ):
            assert found.matched.shape == (len(targets), 0)
            assert found.matched.dtype == torch.int64


def test_all_crowd_has_no_positive_and_ignores_the_anchors_inside() -> None:
    # wholly inside, exactly half inside, less than half inside, outside
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [16.0, 0.0, 24.0, 8.0], [17.0, 0.0, 25.0, 8.0], [40.0, 0.0, 48.0, 8.0]])
    target = image([[0.0, 0.0, 20.0, 20.0]], crowd=[True])
    expected = [[IGNORE, IGNORE, BACKGROUND, BACKGROUND]]
    assert assign_by_overlap(anchors, [target]).matched.tolist() == expected
    assert assign_atss(anchors, [4], [target]).matched.tolist() == expected


def test_an_anchor_in_a_crowd_may_be_positive_for_another_box() -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [40.0, 0.0, 48.0, 8.0]])
    target = image([[0.0, 0.0, 100.0, 100.0], [0.0, 0.0, 8.0, 7.0]], crowd=[True, False])
    assert assign_by_overlap(anchors, [target]).matched.tolist() == [[1, IGNORE]]
    assert assign_atss(anchors, [2], [target], top_k=1).matched.tolist() == [[1, IGNORE]]


def test_the_thresholds_belong_to_the_upper_side() -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    half, less = image([[0.0, 0.0, 8.0, 4.0]]), image([[0.0, 0.0, 8.0, 3.5]])
    assert assign_by_overlap(anchors, [half], allow_low_quality_matches=False).matched.item() == 0
    assert assign_by_overlap(anchors, [less], allow_low_quality_matches=False).matched.item() == IGNORE
    assert assign_by_overlap(anchors, [less], negative=0.4375, allow_low_quality_matches=False).matched.item() == IGNORE
    assert assign_by_overlap(anchors, [less], negative=0.4376, allow_low_quality_matches=False).matched.item() == BACKGROUND


def test_an_overlap_of_zero_rescues_nothing() -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]])
    assert assign_by_overlap(anchors, [image([[40.0, 40.0, 44.0, 44.0]])]).matched.tolist() == [[BACKGROUND, BACKGROUND]]


def test_a_rescue_takes_an_anchor_from_a_box_that_has_others() -> None:
    # the first anchor has IoU 0.6 with box 0 and 0.3 with box 1, which touches no other anchor
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 6.0]])
    target = image([[0.0, 0.0, 10.0, 6.0], [0.0, 7.0, 10.0, 10.0]])
    assert assign_by_overlap(anchors, [target], allow_low_quality_matches=False).matched.tolist() == [[0, 0]]
    assert assign_by_overlap(anchors, [target]).matched.tolist() == [[1, 0]]


def test_all_anchors_that_share_the_best_overlap_are_rescued() -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [4.0, 0.0, 12.0, 8.0], [8.0, 0.0, 16.0, 8.0]])
    assert assign_by_overlap(anchors, [image([[4.0, 0.0, 12.0, 2.0]])]).matched.tolist() == [[BACKGROUND, 0, BACKGROUND]]
    assert assign_by_overlap(anchors, [image([[7.0, 0.0, 9.0, 2.0]])]).matched.tolist() == [[BACKGROUND, 0, BACKGROUND]]
    assert assign_by_overlap(anchors[[0, 2]], [image([[7.0, 0.0, 9.0, 2.0]])]).matched.tolist() == [[0, 0]]


def test_atss_candidates_of_one_overlap_are_all_positive() -> None:
    # mean + std of nine equal numbers, summed in float32, may come out above each of them
    anchors = pyramid_anchors([(3, 3)], [8], anchor_scale=1.5, scales=(1.0,), ratios=(1.0,))
    found = assign_atss(anchors, [9], [image([[-100.0, -100.0, 124.0, 124.0]])]).matched
    assert found.tolist() == [[0] * 9]


def test_atss_needs_the_center_inside_and_not_on_the_border() -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    assert assign_atss(anchors, [1], [image([[3.9, 0.0, 12.0, 8.0]])]).matched.item() == 0
    assert assign_atss(anchors, [1], [image([[4.0, 0.0, 12.0, 8.0]])]).matched.item() == BACKGROUND


def test_anchors_outside_the_image_take_part() -> None:
    anchors = torch.tensor([[-4.0, -4.0, 4.0, 4.0], [-80.0, -80.0, -72.0, -72.0]])
    assert assign_by_overlap(anchors, [image([[0.0, 0.0, 4.0, 8.0]])]).matched.tolist() == [[0, BACKGROUND]]


def test_the_assigners_of_recipes_are_the_functions() -> None:
    generator = torch.Generator().manual_seed(3)
    sizes = [(6, 6), (3, 3)]
    anchors = pyramid_anchors(sizes, [8, 16], scales=(1.0,), ratios=(1.0, 2.0), anchor_scale=1.5)
    level_sizes = (72, 18)
    targets = random_images(generator, [3, 5])
    raw = RawPredictions(torch.zeros(2, 90, 1), torch.zeros(2, 90, 4), anchors, level_sizes, DeltaCoder())
    assert OverlapAssigner(0.6, 0.3, False)(raw, targets).matched.equal(
        assign_by_overlap(anchors, targets, positive=0.6, negative=0.3, allow_low_quality_matches=False).matched
    )
    assert ATSSAssigner(top_k=3)(raw, targets).matched.equal(assign_atss(anchors, level_sizes, targets, top_k=3).matched)
    assert not ATSSAssigner(top_k=3)(raw, targets).matched.equal(ATSSAssigner(top_k=9)(raw, targets).matched)


@pytest.mark.parametrize(("positive", "negative"), [(0.4, 0.5), (0.0, 0.0), (1.1, 0.4), (0.5, -0.1)])
def test_thresholds_out_of_order_are_named(positive: float, negative: float) -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    with pytest.raises(ValueError, match="positive, negative: 0 <= negative <= positive <= 1"):
        assign_by_overlap(anchors, [], positive=positive, negative=negative)
    with pytest.raises(ValueError, match="positive, negative"):
        OverlapAssigner(positive, negative)


def test_wrong_options_of_atss_are_named() -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    with pytest.raises(ValueError, match=r"level_sizes: a sum of 1 .* got \(2,\)"):
        assign_atss(anchors, [2], [])
    with pytest.raises(ValueError, match="top_k: a number >= 1 expected, got 0"):
        ATSSAssigner(top_k=0)
    with pytest.raises(ValueError, match=r"anchors: \(a, 4\) expected"):
        assign_atss(anchors[None], [1], [image([])])
    with pytest.raises(ValueError, match=r"anchors: \(a, 4\), or \(b, a, 4\) of b images, expected"):
        assign_by_overlap(torch.zeros(4), [])
    with pytest.raises(ValueError, match=r"anchors: those of 1 images .* got those of 2"):
        assign_by_overlap(torch.zeros(2, 3, 4), [image([])])


@pytest.mark.parametrize("allow_low_quality_matches", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_anchors_of_each_image_are_assigned_as_if_it_were_alone(seed: int, allow_low_quality_matches: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = random_images(generator, [5, 0, 9])
    corner = torch.rand(3, 60, 2, generator=generator) * 50
    anchors = torch.cat([corner, corner + torch.rand(3, 60, 2, generator=generator) * 30 + 1], -1)
    found = assign_by_overlap(anchors, targets, positive=0.2, negative=0.1, allow_low_quality_matches=allow_low_quality_matches).matched
    for one, own, target in zip(found, anchors, targets, strict=True):
        assert torch.equal(
            one[None],
            assign_by_overlap(own, [target], positive=0.2, negative=0.1, allow_low_quality_matches=allow_low_quality_matches).matched,
        )
    assert (found >= 0).any()


def test_anchors_without_area_are_ignored() -> None:
    anchors = torch.tensor([[[0.0, 0.0, 8.0, 8.0], [0.0] * 4], [[0.0] * 4, [0.0] * 4], [[30.0, 30.0, 38.0, 38.0], [0.0] * 4]])
    targets = [image([[0.0, 0.0, 8.0, 8.0]]), image([[0.0, 0.0, 8.0, 8.0]]), image([[0.0, 0.0, 40.0, 40.0]], [True])]
    for allow_low_quality_matches in (False, True):
        assert assign_by_overlap(anchors, targets, allow_low_quality_matches=allow_low_quality_matches).matched.tolist() == [
            [0, IGNORE],
            [IGNORE, IGNORE],
            [IGNORE, IGNORE],
        ]
        assert assign_by_overlap(anchors[:, :0], targets, allow_low_quality_matches=allow_low_quality_matches).matched.shape == (3, 0)


def test_a_sample_keeps_its_counts_and_changes_no_match() -> None:
    generator = torch.Generator().manual_seed(0)
    full = torch.randint(-2, 3, (4, 200), generator=generator)
    full[1] = torch.where(full[1] >= 0, BACKGROUND, full[1])  # no positive
    full[2, 5:] = IGNORE  # hardly anything to choose from
    torch.manual_seed(3)
    sampled = SampledAssigner(lambda predictions, targets: Assignment(full), count=40, positive_share=0.25)
    first, second = (sampled(None, []).matched for _ in range(2))  # type: ignore[arg-type]
    for matched in (first, second):
        assert torch.equal(matched[matched != IGNORE], full[matched != IGNORE])
        assert (matched >= 0).sum(1).tolist() == [10, 0, min(10, int((full[2] >= 0).sum())), 10]
        assert (matched == BACKGROUND).sum(1).tolist() == [30, 40, int((full[2] == BACKGROUND).sum()), 30]
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(sampled(None, []).matched, first)  # type: ignore[arg-type]


def test_a_sample_chooses_each_anchor_equally_often() -> None:
    full = torch.tensor([[0] * 8 + [BACKGROUND] * 16])
    torch.manual_seed(0)
    sampled = SampledAssigner(lambda predictions, targets: Assignment(full), count=8)
    kept = torch.stack([sampled(None, []).matched[0] != IGNORE for _ in range(800)]).float().mean(0)  # type: ignore[arg-type]
    torch.testing.assert_close(kept, torch.tensor([0.5] * 8 + [0.25] * 16), atol=0.08, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"count": 0}, "count: a number >= 1 expected, got 0"), ({"positive_share": 1.5}, r"positive_share: a number in \[0, 1\] expected")],
)
def test_wrong_options_of_a_sample_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampledAssigner(OverlapAssigner(), **options)
