"""Which box each point is trained on, for detectors without anchors: FoveaBox's central cells, FCOS' center sampling, CenterPoint's cell.

A point is the center of its square anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..records import Assignment, RawPredictions, Targets
from ._boxes import PaddedBoxes, ignoring, smallest_claim

FOVEA_RANGES = ((1.0, 64.0), (32.0, 128.0), (64.0, 256.0), (128.0, 512.0), (256.0, 2048.0))
"""Sizes of the boxes of each level of FoveaBox, strides 8 to 128, in pixels; neighbors share some."""

CENTER_RANGES = ((0.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, float("inf")))
"""Distances to the farthest side that each level of FCOS regresses, strides 8 to 128, in pixels."""

Ranges = Sequence[tuple[float, float]]


@torch.no_grad()
def assign_fovea(
    anchors: Float[Tensor, "a 4"],
    level_sizes: Sequence[int],
    targets: Sequence[Targets],
    *,
    sigma: float = 0.4,
    scale_ranges: Ranges = FOVEA_RANGES,
) -> Assignment:
    """Matches to each box the cells in its middle, on every level that is there for its size.

    A box belongs to a level with range (low, high) where ``low <= sqrt(w h) <= high``. There the cells from
    ``ceil(x1 + (1 - sigma) w / 2 - 0.5)`` to ``floor(x1 + (1 + sigma) w / 2 - 0.5)`` in units of the stride, likewise in y, are positive:
    those whose centers lie in the box shrunk to ``sigma`` of its sides, border included. All others are background. Both ends are clamped
    to the cells that there are: a thin box at the border of the map has the outermost cells. A small box elsewhere whose shrunk area holds
    no center has no positive.

    A cell that several boxes claim goes to the smallest one, of equally small ones to the first.

    Args:
        anchors: (a, 4) ``x1 y1 x2 y2`` in the frame of the boxes, centered on the cells, level by level.
        level_sizes: anchors on each level; they sum to a.
        targets: one record per image.
        sigma: share of the sides of a box that is positive, in (0, 1].
        scale_ranges: (low, high) of each level, pixels.

    Returns:
        For each image and anchor the index of a box, ``BACKGROUND`` or, for anchors in crowds, ``IGNORE``.

    Raises:
        ValueError: an option out of its range, another number of ranges than levels, or level sizes that do not sum to a.

    Source:
        Kong et al., FoveaBox, IEEE TIP 2020 (arXiv:1904.03797), scale assignment and object fovea; the ranges and the rounding are those of
        its published code.

    Example:
        >>> anchors = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [16., 0., 24., 8.]])
        >>> image = Targets(torch.tensor([[0., 0., 24., 8.]]), torch.tensor([3]), torch.tensor([False]), 7, (40, 50), (40, 50))
        >>> assign_fovea(anchors, [3], [image], scale_ranges=[(1, 64)]).matched
        tensor([[-1,  0, -1]])
    """
    _check_sigma(sigma)
    _check_ranges("scale_ranges", scale_ranges)
    low, high = _of_levels("scale_ranges", scale_ranges, anchors, level_sizes)
    padded = PaddedBoxes(anchors, targets)
    x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).T.contiguous()
    x1, y1, x2, y2 = padded.boxes[:, :, None].unbind(-1)
    in_fovea = _between(x, *_shrunk(x1, x2, sigma), level_sizes) & _between(y, *_shrunk(y1, y2, sigma), level_sizes)
    size = ((x2 - x1) * (y2 - y1)).sqrt()
    claims = in_fovea & (size >= low) & (size <= high) & padded.matchable[..., None]
    return ignoring(smallest_claim(claims, padded), padded.in_crowd(anchors))


@torch.no_grad()
def assign_by_center(
    anchors: Float[Tensor, "a 4"],
    level_sizes: Sequence[int],
    targets: Sequence[Targets],
    *,
    radius: float = 1.5,
    regress_ranges: Ranges = CENTER_RANGES,
) -> Assignment:
    """Matches to each box the points near its center, on the level that is there for the distances of its sides.

    A point is positive for a box where it lies inside of the box and less than ``radius`` strides from its center in x and in y (not on
    either border), and where ``low <= max(l, t, r, b) <= high``, the distance to the farthest side of the box, with the range of the level.
    All others are background.

    A point that several boxes claim goes to the smallest one, of equally small ones to the first.

    Args:
        anchors: (a, 4) squares ``x1 y1 x2 y2`` in the frame of the boxes, level by level: the points are their centers, the strides their
            sides.
        level_sizes: anchors on each level; they sum to a.
        targets: one record per image.
        radius: of the central square, in strides, > 0; infinity for the whole box.
        regress_ranges: (low, high) of each level, pixels.

    Returns:
        For each image and anchor the index of a box, ``BACKGROUND`` or, for anchors in crowds, ``IGNORE``.

    Raises:
        ValueError: an option out of its range, another number of ranges than levels, or level sizes that do not sum to a.

    Source:
        Tian et al., FCOS, ICCV 2019, Sec. 3.2; the center sampling: Tian et al., FCOS: A Simple and Strong Anchor-free Object Detector,
        TPAMI 2020.

    Example:
        >>> anchors = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [16., 0., 24., 8.], [24., 0., 32., 8.]])
        >>> image = Targets(torch.tensor([[0., 0., 26., 8.]]), torch.tensor([3]), torch.tensor([False]), 7, (40, 50), (40, 50))
        >>> assign_by_center(anchors, [4], [image], radius=1.0, regress_ranges=[(0, 64)]).matched
        tensor([[-1,  0,  0, -1]])
    """
    _check_radius(radius)
    _check_ranges("regress_ranges", regress_ranges)
    low, high = _of_levels("regress_ranges", regress_ranges, anchors, level_sizes)
    padded = PaddedBoxes(anchors, targets)
    x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).T.contiguous()
    reach = (anchors[:, 2] - anchors[:, 0]) * radius
    x1, y1, x2, y2 = padded.boxes[:, :, None].unbind(-1)
    center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
    claims = (x > x1) & (x < x2) & (y > y1) & (y < y2) & padded.matchable[..., None]
    claims &= ((x - center_x).abs_() < reach) & ((y - center_y).abs_() < reach)
    farthest = x - x1
    for distance in (x2 - x, y - y1, y2 - y):
        # in place: a fresh (b, m, a) costs the CPU more than what is computed in it
        torch.maximum(farthest, distance, out=farthest)
    claims &= (farthest >= low) & (farthest <= high)
    return ignoring(smallest_claim(claims, padded), padded.in_crowd(anchors))


@torch.no_grad()
def assign_to_cell(anchors: Float[Tensor, "a 4"], targets: Sequence[Targets]) -> Assignment:
    """Matches to each box the one cell that holds its center; all others are background.

    A cell holds its left and its upper border. A cell that several boxes claim goes to the smallest one, of equally small ones to the
    first. A box whose center lies outside of all cells has none.

    Args:
        anchors: (a, 4) the cells, ``x1 y1 x2 y2`` in the frame of the boxes.
        targets: one record per image.

    Returns:
        For each image and anchor the index of a box, ``BACKGROUND`` or, for cells in crowds, ``IGNORE``.

    Raises:
        ValueError: anchors that are not (a, 4).

    Source:
        Zhou et al., Objects as Points, arXiv:1904.07850, Sec. 3: the low-resolution equivalent of a center.

    Example:
        >>> cells = torch.tensor([[0., 0., 4., 4.], [4., 0., 8., 4.]])
        >>> image = Targets(torch.tensor([[2., 0., 6., 6.]]), torch.tensor([3]), torch.tensor([False]), 7, (4, 8), (4, 8))
        >>> assign_to_cell(cells, [image]).matched
        tensor([[-1,  0]])
    """
    padded = PaddedBoxes(anchors, targets)
    left, top, right, bottom = anchors.unbind(-1)
    x1, y1, x2, y2 = padded.boxes[:, :, None].unbind(-1)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    claims = (x >= left) & (x < right) & (y >= top) & (y < bottom) & padded.matchable[..., None]
    return ignoring(smallest_claim(claims, padded), padded.in_crowd(anchors))


@dataclass(frozen=True)
class FoveaAssigner:
    """``assign_fovea`` with its options, for a recipe.

    Attributes:
        sigma: share of the sides of a box that is positive.
        scale_ranges: (low, high) of each level: the square root of the area of a box, pixels.
    """

    sigma: float = 0.4
    scale_ranges: tuple[tuple[float, float], ...] = FOVEA_RANGES

    def __post_init__(self) -> None:
        _check_sigma(self.sigma)
        _check_ranges("scale_ranges", self.scale_ranges)

    def __call__(self, predictions: RawPredictions, targets: list[Targets]) -> Assignment:
        return assign_fovea(predictions.anchors, predictions.level_sizes, targets, sigma=self.sigma, scale_ranges=self.scale_ranges)


@dataclass(frozen=True)
class CenterAssigner:
    """``assign_by_center`` with its options, for a recipe.

    Attributes:
        radius: of the central square of a box, in strides.
        regress_ranges: (low, high) of each level: the distance to the farthest side of a box, pixels.
    """

    radius: float = 1.5
    regress_ranges: tuple[tuple[float, float], ...] = CENTER_RANGES

    def __post_init__(self) -> None:
        _check_radius(self.radius)
        _check_ranges("regress_ranges", self.regress_ranges)

    def __call__(self, predictions: RawPredictions, targets: list[Targets]) -> Assignment:
        return assign_by_center(
            predictions.anchors, predictions.level_sizes, targets, radius=self.radius, regress_ranges=self.regress_ranges
        )


@dataclass(frozen=True)
class CellAssigner:
    """``assign_to_cell``, for a recipe."""

    def __call__(self, predictions: RawPredictions, targets: list[Targets]) -> Assignment:
        return assign_to_cell(predictions.anchors, targets)


def _shrunk(start: Tensor, end: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The ends of the middle ``sigma`` of an interval."""
    half = (end - start) / 2
    return start + (1 - sigma) * half, start + (1 + sigma) * half


def _between(centers: Float[Tensor, " a"], start: Tensor, end: Tensor, level_sizes: Sequence[int]) -> Bool[Tensor, "b m a"]:
    """Cells from ``start`` to ``end`` (b, m, 1), both clamped to the first and the last center of the level.

    An index i is at least ceil(v - 0.5) where the center i + 0.5 is at least v: the stride cancels out, and so does the rounding.
    """
    parts = []
    for part in torch.split(centers, list(level_sizes)):
        first, last = (part.amin(), part.amax()) if len(part) else (None, None)
        parts.append((part >= start.clamp(first, last)) & (part <= end.clamp(first, last)) if len(part) else part >= start)
    return torch.cat(parts, 2)


def _of_levels(name: str, ranges: Ranges, anchors: Tensor, level_sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Low and high end of the range of the level of each anchor, (a,) each."""
    if anchors.ndim != 2:
        raise ValueError(f"anchors: (a, 4) expected, the anchors of a pyramid, got {tuple(anchors.shape)}")
    if sum(level_sizes) != len(anchors):
        raise ValueError(f"level_sizes: a sum of {len(anchors)} (the number of anchors) expected, got {tuple(level_sizes)}")
    if len(ranges) != len(level_sizes):
        raise ValueError(f"{name}: one (low, high) for each of the {len(level_sizes)} levels expected, got {len(ranges)}")
    # filled level by level: a tensor of the numbers would be copied to the accelerator, which waits for it
    low, high = (
        torch.cat([anchors.new_full((count,), ends[i]) for count, ends in zip(level_sizes, ranges, strict=True)]) for i in range(2)
    )
    return low, high


def _check_ranges(name: str, ranges: Ranges) -> None:
    for ends in ranges:
        if len(ends) != 2 or not 0 <= ends[0] <= ends[1]:
            raise ValueError(f"{name}: pairs (low, high) with 0 <= low <= high expected, got {ends}")
    if not ranges:
        raise ValueError(f"{name}: one (low, high) a level expected, got none")


def _check_sigma(sigma: float) -> None:
    if not 0 < sigma <= 1:
        raise ValueError(f"sigma: a number in (0, 1] expected, got {sigma}")


def _check_radius(radius: float) -> None:
    if not radius > 0:
        raise ValueError(f"radius: a number > 0 expected, got {radius}")
