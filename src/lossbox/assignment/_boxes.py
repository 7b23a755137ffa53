"""All boxes of a batch at once, as the assigners see them: padded to one number per image, so that no rule loops over boxes or images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..boxes import box_area
from ..records import BACKGROUND, IGNORE, Assignment, Targets

CROWD_SHARE = 0.5
"""An anchor with at least this share of its area in a crowd region is no negative."""


class PaddedBoxes:
    """The boxes of a batch; m is the largest number of boxes of an image, at least 1.

    Attributes:
        boxes: (b, m, 4); zeros fill up the images that have fewer.
        matchable: (b, m), False for crowds and for what fills up.
        crowd: (b, m).
    """

    boxes: Float[Tensor, "b m 4"]
    matchable: Bool[Tensor, "b m"]
    crowd: Bool[Tensor, "b m"]

    def __init__(self, anchors: Tensor, targets: Sequence[Targets]) -> None:
        if anchors.ndim not in (2, 3) or anchors.shape[-1] != 4:
            raise ValueError(f"anchors: (a, 4), or (b, a, 4) of b images, expected, got {tuple(anchors.shape)}")
        if anchors.ndim == 3 and len(anchors) != len(targets):
            raise ValueError(f"anchors: those of {len(targets)} images (as many as targets) expected, got those of {len(anchors)}")
        # A first image with one box, which is cut off again: m is 1 where no image has a box, and there may be no image.
        no, one = anchors.new_zeros(1, dtype=torch.bool), anchors.new_zeros(1, 4)
        self.boxes = pad_sequence([one, *(t.boxes for t in targets)], batch_first=True)[1:]
        self.crowd = pad_sequence([no, *(t.crowd for t in targets)], batch_first=True)[1:]
        self.matchable = pad_sequence([no, *(~t.crowd for t in targets)], batch_first=True)[1:]

    def shared_area(self, anchors: Float[Tensor, "*own a 4"]) -> Float[Tensor, "b m a"]:
        """The area that each box shares with each anchor."""
        x1, y1, x2, y2 = self.boxes[:, :, None].unbind(-1)
        # (1, a) or (b, 1, a), and each coordinate by itself in memory: the rows below are read by all boxes
        own = anchors.unsqueeze(-3).movedim(-1, 0).contiguous()
        # in place: a fresh (b, m, a) costs the CPU more than what is computed in it
        width = torch.minimum(x2, own[2]).sub_(torch.maximum(x1, own[0])).clamp_(min=0)
        return torch.minimum(y2, own[3]).sub_(torch.maximum(y1, own[1])).clamp_(min=0).mul_(width)

    def in_crowd(self, anchors: Float[Tensor, "*own a 4"], shared_area: Float[Tensor, "b m a"] | None = None) -> Bool[Tensor, "b a"]:
        """Anchors with ``CROWD_SHARE`` of their area or more in one crowd of the image."""
        if self.crowd.device.type == "cpu" and not self.crowd.any():
            # crowds are rare, and on the CPU it costs nothing to look
            return self.crowd.new_zeros(len(self.crowd), anchors.shape[-2])
        shared = self.shared_area(anchors) if shared_area is None else shared_area
        most = torch.where(self.crowd[..., None], shared, 0.0).amax(1)
        return most / box_area(anchors) >= CROWD_SHARE


def smallest_claim(claims: Bool[Tensor, "b m a"], boxes: PaddedBoxes) -> Int[Tensor, "b a"]:
    """For each anchor the smallest of the boxes that claim it, of equally small ones the first; ``BACKGROUND`` where none does."""
    # of equal values min() names the first
    area, index = torch.where(claims, box_area(boxes.boxes)[..., None], torch.inf).min(1)
    return torch.where(area < torch.inf, index, BACKGROUND)


def ignoring(matched: Int[Tensor, "b a"], ignored: Bool[Tensor, "*b a"]) -> Assignment:
    """The assignment where what is ignored and matched to no box takes part in no loss."""
    return Assignment(torch.where((matched < 0) & ignored, IGNORE, matched))
