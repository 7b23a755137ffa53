"""The scores of one set of DETR's queries, matched one to one."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..boxes import paired_iou
from ..boxes._dtype import upcast
from ..losses import LossModule
from ._scores import score_loss


def query_loss(
    loss: LossModule,
    logits: Float[Tensor, "b q c"],
    boxes: Float[Tensor, "b q 4"],
    matched: tuple[Int[Tensor, " p"], Int[Tensor, " p"]],
    classes: Int[Tensor, " p"],
    target_boxes: Float[Tensor, "p 4"],
    *,
    num_boxes: Tensor | float,
    groups: int = 1,
    global_batch: bool = False,
) -> Float[Tensor, ""]:
    """The loss of one layer: the matched scores are positive, the IoU of predicted and true box is their quality, all others are negative.

    Args:
        loss: of ``find_loss``.
        logits: scores before the sigmoid.
        boxes: center x and y, width, height, in any unit.
        matched: image and query of each match; no pair twice.
        classes: its class.
        target_boxes: its box, as ``boxes``.
        num_boxes: what an elementwise loss divides its sum by.
        groups: sets of queries, one after the other, that are matched each by itself (Group DETR): each is a ranking of its own, and the
            result is the mean over them.
        global_batch: of ``score_loss``.
    """
    image, query = matched
    labels = torch.zeros(logits.shape, dtype=torch.int8, device=logits.device)
    labels[image, query, classes] = 1
    quality = torch.zeros(logits.shape[:2], dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        iou = paired_iou(_corners(boxes[image, query]), _corners(target_boxes.to(boxes.device)))
    quality[image, query] = iou.to(quality.dtype).clamp(0, 1)
    of_groups = []
    for x, y, q in zip(logits.chunk(groups, 1), labels.chunk(groups, 1), quality.chunk(groups, 1), strict=True):
        positive = (y == 1).any(-1)
        of_groups.append(score_loss(loss, x, y, q[positive], num_positives=num_boxes / groups, global_batch=global_batch))
    return torch.stack(of_groups).mean()


def _corners(boxes: Tensor) -> Tensor:
    boxes = upcast(boxes)
    center, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([center - size / 2, center + size / 2], -1)
