"""Which box each anchor is trained on: by overlap, ATSS, and a random sample of either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..boxes import box_area, paired_iou
from ..records import BACKGROUND, IGNORE, Assignment, RawPredictions, Targets
from ._boxes import PaddedBoxes, ignoring


@torch.no_grad()
def assign_by_overlap(
    anchors: Float[Tensor, "*own a 4"],
    targets: Sequence[Targets],
    *,
    positive: float = 0.5,
    negative: float = 0.4,
    allow_low_quality_matches: bool = True,
) -> Assignment:
    """Matches anchors to boxes by their IoU.

    With ``IoU*`` the largest IoU of an anchor with a box of its image:
    ``IoU* >= positive -> that box, IoU* < negative -> background, between -> ignored``.
    With ``allow_low_quality_matches`` each box also gets the anchor of its own largest IoU, however small, even if that anchor would prefer
    another box.

    Ties: of boxes with equal IoU the first one gets the anchor. All anchors with the largest IoU of a box are given to it; one claimed
    by several boxes goes to the one of highest IoU, then to the first. An IoU of 0 gives nothing.

    Args:
        anchors: (a, 4) ``x1 y1 x2 y2`` in the frame of the boxes, or (b, a, 4), each image's own; those outside the image take part
            as any other, those without area are ignored.
        targets: one record per image.
        positive: IoU from which an anchor is positive, in (0, 1].
        negative: IoU below which it is background, in [0, positive].
        allow_low_quality_matches: every box that touches an anchor has a positive.

    Returns:
        For each image and anchor the index of a box, ``BACKGROUND`` or ``IGNORE``.

    Raises:
        ValueError: thresholds out of order.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Sec. 4; low-quality matches: Ren et al., Faster R-CNN, NeurIPS 2015,
        Sec. 3.1.2.

    Example:
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.], [22., 0., 32., 10.]])
        >>> boxes = torch.tensor([[0., 0., 10., 9.], [24., 0., 44., 10.]])
        >>> image = Targets(boxes, torch.tensor([3, 1]), torch.tensor([False, False]), 7, (40, 50), (40, 50))
        >>> assign_by_overlap(anchors, [image]).matched
        tensor([[ 0, -1,  1]])
    """
    _check_thresholds(positive, negative)
    padded = PaddedBoxes(anchors, targets)
    shared = padded.shared_area(anchors)
    area = box_area(anchors)
    # of anchors without area nothing is asked: any positive number keeps the quotient finite
    union = box_area(padded.boxes)[..., None] + torch.where(area > 0, area, 1.0).unsqueeze(-2) - shared
    iou = torch.where(padded.matchable[..., None], shared / union, -1.0)
    # of equal values max() names the first
    best, index = iou.max(1)
    matched = torch.where(best >= positive, index, torch.where(best < negative, BACKGROUND, IGNORE))
    if allow_low_quality_matches and iou.shape[2]:
        best_of_box = iou.amax(2, keepdim=True)
        best, index = torch.where(iou == best_of_box, iou, -1.0).max(1)
        matched = torch.where(best > 0, index, matched)
    return ignoring(matched, padded.in_crowd(anchors, shared) | (area <= 0))


@torch.no_grad()
def assign_atss(anchors: Float[Tensor, "a 4"], level_sizes: Sequence[int], targets: Sequence[Targets], *, top_k: int = 9) -> Assignment:
    """Matches anchors to boxes by a threshold that each box sets itself: adaptive training sample selection.

    The candidates of a box are, on each level, the ``top_k`` anchors whose centers are nearest to its center. A candidate is positive where
    ``IoU >= mean + std`` over the candidates of all levels and its center lies inside the box (not on its border). All other anchors are
    background. A box without such a candidate has no positive; there is no allow_low_quality_matches.

    Ties: of anchors at equal distance the first ones are candidates; an anchor that several boxes claim goes to the one of highest IoU,
    then to the first. ``std`` is the square root of the unbiased variance, as in the published code, and 0 of one candidate.

    Args:
        anchors: (a, 4) ``x1 y1 x2 y2`` in the frame of the boxes, of positive area, level by level.
        level_sizes: anchors on each level; they sum to a.
        targets: one record per image.
        top_k: candidates per level, >= 1; a level with fewer anchors gives all.

    Returns:
        For each image and anchor the index of a box, ``BACKGROUND`` or, for anchors in crowds, ``IGNORE``.

    Raises:
        ValueError: top_k < 1, or level sizes that do not sum to the number of anchors.

    Source:
        Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample Selection, CVPR 2020,
        Algorithm 1.

    Example:
        >>> anchors = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [16., 0., 24., 8.]])
        >>> image = Targets(torch.tensor([[9., 0., 16., 8.]]), torch.tensor([3]), torch.tensor([False]), 7, (40, 50), (40, 50))
        >>> assign_atss(anchors, [3], [image]).matched
        tensor([[-1,  0, -1]])
    """
    _check_top_k(top_k)
    if anchors.ndim != 2:
        raise ValueError(f"anchors: (a, 4) expected, the anchors of a pyramid, got {tuple(anchors.shape)}")
    if sum(level_sizes) != len(anchors):
        raise ValueError(f"level_sizes: a sum of {len(anchors)} (the number of anchors) expected, got {tuple(level_sizes)}")
    padded = PaddedBoxes(anchors, targets)
    if not len(anchors):
        return Assignment(torch.empty(len(targets), 0, dtype=torch.int64, device=anchors.device))
    x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).T.contiguous()
    x1, y1, x2, y2 = padded.boxes[:, :, None].unbind(-1)
    center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
    candidates, start = [], 0
    for level_x, level_y in zip(x.split(list(level_sizes)), y.split(list(level_sizes)), strict=True):
        # in place: a fresh (b, m, a) costs the CPU more than what is computed in it
        distance = (level_x - center_x).square_().add_((level_y - center_y).square_())
        candidates.append(_smallest(distance, top_k) + start)
        start += len(level_x)
    # from here on k candidates per box, and no more (b, m, a)
    candidate = torch.cat(candidates, 2)
    pairs = anchors[candidate]
    overlap = paired_iou(padded.boxes[:, :, None].expand_as(pairs).reshape(-1, 4), pairs.reshape(-1, 4)).reshape(candidate.shape)
    # measured from the largest, so that the mean of equal numbers is exactly that number
    iou = overlap - overlap.amax(2, keepdim=True)
    mean = iou.mean(2, keepdim=True)
    std = ((iou - mean).square().sum(2, keepdim=True) / max(iou.shape[2] - 1, 1)).sqrt()
    inside = (x[candidate] > x1) & (x[candidate] < x2) & (y[candidate] > y1) & (y[candidate] < y2)
    claim = torch.where((iou >= mean + std) & inside & padded.matchable[..., None], overlap, -1.0)
    return ignoring(_best_claim(candidate, claim, len(anchors)), padded.in_crowd(anchors))


@dataclass(frozen=True)
class OverlapAssigner:
    """``assign_by_overlap`` with its options, for a recipe.

    Attributes:
        positive: IoU from which an anchor is positive.
        negative: IoU below which it is background.
        allow_low_quality_matches: every box that touches an anchor has a positive.
    """

    positive: float = 0.5
    negative: float = 0.4
    allow_low_quality_matches: bool = True

    def __post_init__(self) -> None:
        _check_thresholds(self.positive, self.negative)

    def __call__(self, predictions: RawPredictions, targets: list[Targets]) -> Assignment:
        return assign_by_overlap(
            predictions.anchors,
            targets,
            positive=self.positive,
            negative=self.negative,
            allow_low_quality_matches=self.allow_low_quality_matches,
        )


@dataclass(frozen=True)
class ATSSAssigner:
    """``assign_atss`` with its options, for a recipe.

    Attributes:
        top_k: candidates per box and level.
    """

    top_k: int = 9

    def __post_init__(self) -> None:
        _check_top_k(self.top_k)

    def __call__(self, predictions: RawPredictions, targets: list[Targets]) -> Assignment:
        return assign_atss(predictions.anchors, predictions.level_sizes, targets, top_k=self.top_k)


@dataclass(frozen=True)
class SampledAssigner:
    """Another assigner, of whose anchors a random few of each image are kept; the others are ignored.

    An image keeps ``positive_share * count`` of its positives (all if it has fewer) and fills up to ``count`` with negatives. What the
    ranking losses do without; cross-entropy needs it where nothing else holds back the many negatives.

    One number of torch's generator for the CPU is drawn a call, whatever the device: the state of that generator is all there is to keep.

    Attributes:
        assigner: decides what is positive, negative and ignored.
        count: anchors kept of an image, >= 1.
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

    tuned: ClassVar[tuple[str, ...]] = ("count", "positive_share")
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


def _smallest(values: Float[Tensor, "b m n"], count: int) -> Int[Tensor, "b m k"]:
    """The columns of the ``count`` smallest values (>= 0) of each row, of all if there are fewer; of equal values the first ones."""
    # topk() picks any of equal values, and distances on a grid are often equal. The bits of floats >= 0 are ordered as the floats are;
    # with the column in the lower half no two keys are equal.
    column = torch.arange(values.shape[2], device=values.device)
    keys = values.float().view(torch.int32).long().bitwise_left_shift_(32).bitwise_or_(column)
    return keys.topk(min(count, values.shape[2]), 2, largest=False).values & 0xFFFFFFFF


def _best_claim(anchor: Int[Tensor, "b m k"], claim: Float[Tensor, "b m k"], anchors: int) -> Int[Tensor, "b a"]:
    """For each anchor the box of the highest claim (>= 0) to it, of equal ones the first; ``BACKGROUND`` where none has one."""
    boxes = claim.shape[1]
    box = torch.arange(boxes, device=claim.device)[:, None].expand_as(claim).flatten(1)
    anchor, claim = anchor.flatten(1), claim.flatten(1)
    best = claim.new_full((len(claim), anchors), -1.0).scatter_reduce_(1, anchor, claim, "amax")
    rival = torch.where(claim == best.gather(1, anchor), box, boxes)
    index = rival.new_full((len(claim), anchors), boxes).scatter_reduce_(1, anchor, rival, "amin")
    return torch.where(best >= 0, index, BACKGROUND)


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
