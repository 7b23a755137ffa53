"""Which box each anchor is trained on: by overlap, and ATSS.

Both work on all boxes of the batch at once: one row a box, one column an anchor, no loop over boxes. A row then only competes with the rows
of its own picture. Nothing here takes a gradient or reads a value back from the device.

Crowd regions are treated alike by all rules: a crowd is never matched, and an anchor that lies in it with at least half of its area and is
matched to no other box is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .boxes import box_area, pairwise_intersection
from .records import BACKGROUND, IGNORE, Assignment, RawPredictions, Targets

CROWD_SHARE = 0.5
"""An anchor with at least this share of its area in a crowd region is no negative."""


@torch.no_grad()
def assign_by_overlap(
    anchors: Float[Tensor, "*own a 4"], targets: Sequence[Targets], *, positive: float = 0.5, negative: float = 0.4, rescue: bool = True
) -> Assignment:
    """Matches anchors to boxes by their IoU.

    With ``IoU*`` the largest IoU of an anchor with a box of its picture:
    ``IoU* >= positive -> that box, IoU* < negative -> background, between -> ignored``.
    With ``rescue`` each box also gets the anchor of its own largest IoU, however small, even if that anchor would prefer another box.

    Ties: of boxes with equal IoU the first one gets the anchor. All anchors with the largest IoU of a box are rescued; one rescued
    by several boxes goes to the one of highest IoU, then to the first. An IoU of 0 rescues nothing.

    Args:
        anchors: (a, 4) ``x1 y1 x2 y2`` in the frame of the boxes, or (b, a, 4), each picture's own; those outside the picture take part
            as any other, those without area are ignored.
        targets: one record a picture.
        positive: IoU from which an anchor is positive, in (0, 1].
        negative: IoU below which it is background, in [0, positive].
        rescue: every box that touches an anchor has a positive.

    Returns:
        For each picture and anchor the index of a box, ``BACKGROUND`` or ``IGNORE``.

    Raises:
        ValueError: thresholds out of order.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Sec. 4; the rescue: Ren et al., Faster R-CNN, NeurIPS 2015,
        Sec. 3.1.2.

    Example:
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.], [22., 0., 32., 10.]])
        >>> boxes = torch.tensor([[0., 0., 10., 9.], [24., 0., 44., 10.]])
        >>> picture = Targets(boxes, torch.tensor([3, 1]), torch.tensor([False, False]), 7, (40, 50), (40, 50))
        >>> assign_by_overlap(anchors, [picture]).matched
        tensor([[ 0, -1,  1]])
    """
    _check_thresholds(positive, negative)
    rows = _Rows(anchors, targets)
    best, index = rows.best_of_picture(rows.iou)
    matched = torch.where(best >= positive, index, torch.where(best < negative, BACKGROUND, IGNORE))
    if rescue and rows.iou.numel():
        best_of_box = rows.iou.amax(1, keepdim=True)
        best, index = rows.best_of_picture(torch.where(rows.iou == best_of_box, rows.iou, -1.0))
        matched = torch.where(best > 0, index, matched)
    return Assignment(torch.where((matched < 0) & (rows.in_crowd | (box_area(anchors) <= 0)), IGNORE, matched))


@torch.no_grad()
def assign_atss(anchors: Float[Tensor, "a 4"], level_sizes: Sequence[int], targets: Sequence[Targets], *, top_k: int = 9) -> Assignment:
    """Matches anchors to boxes by a threshold that each box sets itself: adaptive training sample selection.

    The candidates of a box are, on each level, the ``top_k`` anchors whose centers are nearest to its center. A candidate is positive where
    ``IoU >= mean + std`` over the candidates of all levels and its center lies inside the box (not on its border). All other anchors are
    background. A box without such a candidate has no positive; there is no rescue.

    Ties: of anchors at equal distance the first ones are candidates; an anchor that several boxes claim goes to the one of highest IoU,
    then to the first. ``std`` is the square root of the unbiased variance, as in the published code, and 0 of one candidate.

    Args:
        anchors: (a, 4) ``x1 y1 x2 y2`` in the frame of the boxes, of positive area, level by level.
        level_sizes: anchors on each level; they sum to a.
        targets: one record a picture.
        top_k: candidates a level, >= 1; a level with fewer anchors gives all.

    Returns:
        For each picture and anchor the index of a box, ``BACKGROUND`` or, for anchors in crowds, ``IGNORE``.

    Raises:
        ValueError: top_k < 1, or level sizes that do not sum to the number of anchors.

    Source:
        Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample Selection, CVPR 2020,
        Algorithm 1.

    Example:
        >>> anchors = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [16., 0., 24., 8.]])
        >>> picture = Targets(torch.tensor([[9., 0., 16., 8.]]), torch.tensor([3]), torch.tensor([False]), 7, (40, 50), (40, 50))
        >>> assign_atss(anchors, [3], [picture]).matched
        tensor([[-1,  0, -1]])
    """
    _check_top_k(top_k)
    if anchors.ndim != 2:
        raise ValueError(f"anchors: (a, 4) expected, the anchors of a pyramid, got {tuple(anchors.shape)}")
    if sum(level_sizes) != len(anchors):
        raise ValueError(f"level_sizes: a sum of {len(anchors)} (the number of anchors) expected, got {tuple(level_sizes)}")
    rows = _Rows(anchors, targets)
    anchor_x, anchor_y = ((anchors[:, :2] + anchors[:, 2:]) / 2).unbind(-1)
    x1, y1, x2, y2 = rows.boxes.unsqueeze(1).unbind(-1)
    distance = (anchor_x - (x1 + x2) / 2).square() + (anchor_y - (y1 + y2) / 2).square()
    candidates, start = [], 0
    for nearest in torch.split(distance, list(level_sizes), 1):
        candidates.append(_smallest(nearest, top_k) + start)
        start += nearest.shape[1]
    candidate = torch.cat(candidates, 1)
    iou = rows.iou.gather(1, candidate)
    # measured from the largest, so that the mean of equal numbers is exactly that number
    iou = iou - iou.amax(1, keepdim=True)
    mean = iou.mean(1, keepdim=True)
    std = ((iou - mean).square().sum(1, keepdim=True) / max(iou.shape[1] - 1, 1)).sqrt()
    chosen = torch.zeros_like(rows.iou, dtype=torch.bool).scatter_(1, candidate, iou >= mean + std)
    inside = (anchor_x > x1) & (anchor_x < x2) & (anchor_y > y1) & (anchor_y < y2)
    best, index = rows.best_of_picture(torch.where(chosen & inside, rows.iou, -1.0))
    return Assignment(torch.where(best >= 0, index, torch.where(rows.in_crowd, IGNORE, BACKGROUND)))


@dataclass(frozen=True)
class OverlapAssigner:
    """``assign_by_overlap`` with its options, for a recipe.

    Attributes:
        positive: IoU from which an anchor is positive.
        negative: IoU below which it is background.
        rescue: every box that touches an anchor has a positive.
    """

    positive: float = 0.5
    negative: float = 0.4
    rescue: bool = True

    def __post_init__(self) -> None:
        _check_thresholds(self.positive, self.negative)

    def __call__(self, predictions: RawPredictions, targets: list[Targets]) -> Assignment:
        return assign_by_overlap(predictions.anchors, targets, positive=self.positive, negative=self.negative, rescue=self.rescue)


@dataclass(frozen=True)
class ATSSAssigner:
    """``assign_atss`` with its options, for a recipe.

    Attributes:
        top_k: candidates a box and level.
    """

    top_k: int = 9

    def __post_init__(self) -> None:
        _check_top_k(self.top_k)

    def __call__(self, predictions: RawPredictions, targets: list[Targets]) -> Assignment:
        return assign_atss(predictions.anchors, predictions.level_sizes, targets, top_k=self.top_k)


@dataclass(frozen=True)
class SampledAssigner:
    """Another assigner, of whose anchors a random few of each picture are kept; the others are ignored.

    A picture keeps ``positive_share * count`` of its positives (all if it has fewer) and fills up to ``count`` with negatives. What the
    ranking losses do without; cross-entropy needs it where nothing else holds back the many negatives.

    One number of torch's generator for the CPU is drawn a call, whatever the device: the state of that generator is all there is to keep.

    Attributes:
        assigner: decides what is positive, negative and ignored.
        count: anchors kept of a picture, >= 1.
        positive_share: at most this share of them is positive, in [0, 1].

    Raises:
        ValueError: an option out of its range.

    Source:
        Ren et al., Faster R-CNN, NeurIPS 2015, Sec. 3.1.3 (256, half of them positive); Girshick, Fast R-CNN, ICCV 2015, Sec. 2.3 (a
        quarter).

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> anchors = torch.tensor([[0., 0., 8., 8.]] * 4 + [[20., 0., 28., 8.]] * 4)
        >>> raw = RawPredictions(torch.zeros(1, 8, 1), torch.zeros(1, 8, 4), anchors, (8,), DeltaCoder())
        >>> box = Targets(torch.tensor([[0., 0., 8., 8.]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> SampledAssigner(OverlapAssigner(), count=4, positive_share=0.25)(raw, [box]).matched.sort().values
        tensor([[-2, -2, -2, -2, -1, -1, -1,  0]])
    """

    assigner: Callable[[RawPredictions, list[Targets]], Assignment]
    count: int = 256
    positive_share: float = 0.5

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count: a number >= 1 expected, got {self.count}")
        if not 0 <= self.positive_share <= 1:
            raise ValueError(f"positive_share: a number in [0, 1] expected, got {self.positive_share}")

    @torch.no_grad()
    def __call__(self, predictions: RawPredictions, targets: list[Targets]) -> Assignment:
        matched = self.assigner(predictions, targets).matched
        generator = torch.Generator(matched.device).manual_seed(int(torch.randint(2**62, ())))
        order = torch.rand(matched.shape, generator=generator, device=matched.device)
        most = int(self.count * self.positive_share)
        positive = _first(matched >= 0, order, matched.new_full((len(matched), 1), most))
        negative = _first(matched == BACKGROUND, order, self.count - positive.sum(1, keepdim=True))
        return Assignment(torch.where(positive | negative, matched, IGNORE))


class _Rows:
    """All boxes of a batch against all anchors.

    Attributes:
        boxes: (m, 4) of all pictures, one after the other.
        iou: (m, a), -1 in the rows of crowds: they match nothing.
        in_crowd: (b, a), anchors with ``CROWD_SHARE`` of their area or more in one crowd of the picture.
    """

    boxes: Float[Tensor, "m 4"]
    iou: Float[Tensor, "m a"]
    in_crowd: Bool[Tensor, "b a"]

    def __init__(self, anchors: Tensor, targets: Sequence[Targets]) -> None:
        if anchors.ndim not in (2, 3) or anchors.shape[-1] != 4:
            raise ValueError(f"anchors: (a, 4), or (b, a, 4) of b pictures, expected, got {tuple(anchors.shape)}")
        if anchors.ndim == 3 and len(anchors) != len(targets):
            raise ValueError(f"anchors: those of {len(targets)} pictures (as many as targets) expected, got those of {len(anchors)}")
        self._counts = [len(t.boxes) for t in targets]
        self.boxes = torch.cat([anchors.new_zeros(0, 4), *(t.boxes for t in targets)])
        crowd = torch.cat([torch.zeros(0, dtype=torch.bool, device=anchors.device), *(t.crowd for t in targets)])[:, None]
        anchor_area = box_area(anchors)
        if anchors.ndim == 2:
            intersection = pairwise_intersection(self.boxes, anchors)
        else:
            empty = anchors.new_zeros(0, anchors.shape[1])
            intersection = torch.cat([empty, *(pairwise_intersection(t.boxes, own) for t, own in zip(targets, anchors, strict=True))])
            anchor_area = torch.cat([empty, *(area.expand(n, -1) for area, n in zip(anchor_area, self._counts, strict=True))])
        iou = intersection / (box_area(self.boxes)[:, None] + anchor_area - intersection)
        self.iou = torch.where(crowd, -1.0, iou)
        share, _ = self.best_of_picture(torch.where(crowd, intersection / anchor_area, -1.0))
        self.in_crowd = share >= CROWD_SHARE

    def best_of_picture(self, values: Float[Tensor, "m a"]) -> tuple[Float[Tensor, "b a"], Int[Tensor, "b a"]]:
        """The largest value of each anchor over the boxes of each picture, and the first box that has it; -1 and 0 without boxes."""
        empty = values.new_full((1, values.shape[1]), -1.0)
        # of equal values max() names the first
        best = [(rows if len(rows) else empty).max(0) for rows in torch.split(values, self._counts)]
        if not best:
            return values[:0], values[:0].long()
        return torch.stack([one.values for one in best]), torch.stack([one.indices for one in best])


def _smallest(values: Float[Tensor, "m n"], count: int) -> Int[Tensor, "m k"]:
    """The columns of the ``count`` smallest values (>= 0) of each row, of all if there are fewer; of equal values the first ones."""
    # topk() picks any of equal values, and distances on a grid are often equal. The bits of floats >= 0 are ordered as the floats are;
    # with the column in the lower half no two keys are equal.
    column = torch.arange(values.shape[1], device=values.device)
    keys = (values.float().view(torch.int32).long() << 32) | column
    return keys.topk(min(count, values.shape[1]), 1, largest=False).values & 0xFFFFFFFF


def _first(among: Bool[Tensor, "b a"], order: Float[Tensor, "b a"], count: Int[Tensor, "b 1"]) -> Bool[Tensor, "b a"]:
    """Those of ``among`` that are the first ``count`` of their row in the given order (numbers < 1)."""
    place = torch.where(among, order, 1.0).argsort(1).argsort(1)
    return among & (place < count)


def _check_thresholds(positive: float, negative: float) -> None:
    if not 0 <= negative <= positive <= 1 or positive == 0:
        raise ValueError(f"positive, negative: 0 <= negative <= positive <= 1 with positive > 0 expected, got {positive} and {negative}")


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise ValueError(f"top_k: a number >= 1 expected, got {top_k}")
