"""What ``auto`` stands for: an image size and an anchor scale that suit the boxes of a data set, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes import box_area
from ..coco.read import CocoAnnotations
from .survey import best_anchor_iou, boxes_as_seen
from .transforms import shorter_and_longer

IMAGE_SIZES = tuple(range(320, 513, 32))
"""Pixels of the longer side to choose from. The time of a step grows with the square of it."""

ANCHOR_SCALES = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Sides of the square anchor to choose from, in strides."""

DEFAULT_SCALE = 4.0

TOLERANCE = 0.03
"""What a scale nearer to 4 may lack in mean best IoU: a smaller gain is no reason to leave it."""

FINEST_STRIDE = 8

CELLS = 1.5
"""A box should be so many cells of the finest level wide: then at least one center of a cell lies in it, 2.25 in the mean."""

SMALL_SHARE = 0.1
"""Boxes that may be smaller."""


class Choice(NamedTuple):
    """A value and why it was chosen.

    Attributes:
        value: a number of pixels, or an anchor scale.
        reason: half a sentence.
    """

    value: Any
    reason: str


@dataclass(frozen=True)
class AnchorGrid:
    """The anchors of a detector at an anchor scale of 1.

    Attributes:
        shapes: for each level (k, 2), the (width, height) of the anchors on one place, in pixels.
        strides: of the levels, finest first, in pixels.
    """

    shapes: Sequence[Float[Tensor, "k 2"]]
    strides: Sequence[int]


def choose(
    annotations: CocoAnnotations, *, image_size: int | tuple[int, int] | Literal["auto"], anchors: AnchorGrid | None
) -> dict[str, Choice]:
    """What ``auto`` stands for on a data set.

    Args:
        annotations: the training part; crowd regions are left out.
        image_size: of the recipe; the anchor scale is that for boxes at this size, or for ``auto`` at the one chosen here.
        anchors: of the detector, None where it has none.

    Returns:
        ``image_size`` and, where there are anchors, ``anchor_scale``.
    """
    sizes, longer = [torch.zeros(0, 2)], [torch.zeros(0)]
    for image in annotations.images:
        boxes = image.boxes[~image.crowd]
        sizes.append(boxes[:, 2:] - boxes[:, :2])
        longer.append(torch.full((len(boxes),), float(max(image.width, image.height))))
    stride = anchors.strides[0] if anchors else FINEST_STRIDE
    chosen = {"image_size": choose_image_size(torch.cat(sizes), torch.cat(longer), stride=stride)}
    if anchors is not None:
        size = shorter_and_longer(chosen["image_size"].value if image_size == "auto" else image_size, name="image_size")
        chosen["anchor_scale"] = choose_anchor_scale(boxes_as_seen(annotations, size=size), anchors.shapes, anchors.strides)
    return chosen


def choose_image_size(sizes: Float[Tensor, "n 2"], longer: Float[Tensor, " n"], *, stride: int = FINEST_STRIDE) -> Choice:
    """The longer side of the images at which a detector can see their boxes.

    The smallest of 320, 352, ..., 512 px at which at most a tenth of the boxes has ``sqrt(w h)`` below 1.5 strides of the finest level;
    512 where none does. Not more than the median image has (a multiple of 32 below it), as enlarging shows nothing new. 320 without boxes.

    Args:
        sizes: (n, 2) width and height of the boxes, in pixels of the stored images; those without an area are left out.
        longer: (n,) longer side of the image of each, in pixels.
        stride: of the finest level, in pixels.

    Returns:
        A multiple of 32 and the reason.

    Example:
        >>> choose_image_size(torch.full((10, 2), 20.0), torch.full((10,), 600.0))
        Choice(value=384, reason='90 % of the boxes have a side of at least 13 px; 12 px are needed (1.5 cells)')
    """
    kept = (sizes > 0).all(1)
    if not kept.any():
        return Choice(IMAGE_SIZES[0], "there are no boxes to go by")
    sizes, longer, smallest = sizes[kept], longer[kept], CELLS * stride
    share = (sizes.prod(1).sqrt() / longer).sort().values[int(SMALL_SHARE * len(sizes))].item()
    large = next((size for size in IMAGE_SIZES if share * size >= smallest), IMAGE_SIZES[-1])
    stored = max(int(longer.median()) // 32 * 32, 32)
    value = min(large, stored)
    limit = "; the images are no larger" if stored < large else ""
    seen = f"{1 - SMALL_SHARE:.0%} of the boxes".replace("%", " %")
    return Choice(value, f"{seen} have a side of at least {share * value:.0f} px; {smallest:.0f} px are needed ({CELLS} cells){limit}")


def choose_anchor_scale(boxes: Float[Tensor, "n 4"], shapes: Sequence[Float[Tensor, "k 2"]], strides: Sequence[int]) -> Choice:
    """The anchor scale whose anchors overlap the boxes most.

    Of 1.5, 2, 3, 4, 6 and 8 the one with the largest mean, over the boxes, of the IoU with the anchor that overlaps a box most, where the
    cells of the levels put it; of those that lack up to 0.03 the one nearest to 4, the smaller of two. 4 without boxes.

    Args:
        boxes: (n, 4) ``x1 y1 x2 y2`` in pixels of the images as the detector sees them; those without an area are left out.
        shapes: for each level the (width, height) of the anchors on one place at an anchor scale of 1, in pixels.
        strides: of the levels, in pixels.

    Returns:
        One of the scales and the reason.

    Example:
        >>> squares = [torch.full((1, 2), float(stride)) for stride in (8, 16, 32)]
        >>> choose_anchor_scale(torch.tensor([[4.0, 4.0, 20.0, 20.0]]), squares, (8, 16, 32))
        Choice(value=2.0, reason='the median box is 16 px at this size; mean best IoU 1.00, 0.25 with 4.0')
    """
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    if len(boxes) == 0:
        return Choice(DEFAULT_SCALE, "there are no boxes to go by")
    fit = {scale: best_anchor_iou(boxes, [scale * shape for shape in shapes], strides).mean().item() for scale in ANCHOR_SCALES}
    near = [scale for scale in fit if fit[scale] >= max(fit.values()) - TOLERANCE]
    value = min(near, key=lambda scale: abs(math.log(scale / DEFAULT_SCALE)))
    other = "no scale has much more" if value == DEFAULT_SCALE else f"{fit[DEFAULT_SCALE]:.2f} with {DEFAULT_SCALE}"
    return Choice(
        value, f"the median box is {box_area(boxes).sqrt().median():.0f} px at this size; mean best IoU {fit[value]:.2f}, {other}"
    )
