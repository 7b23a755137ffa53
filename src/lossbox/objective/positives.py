"""The positive anchors of a batch, their boxes and classes, and what the losses compare there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from ..boxes import paired_iou
from ..boxes._dtype import upcast
from ..records import IGNORE, Assignment, RawPredictions, Targets


class Positives(NamedTuple):
    """The positive anchors of a batch, in the order of the logits: image by image, anchor by anchor.

    Attributes:
        image: (P,) which image of the batch.
        anchor: (P,) which anchor.
        anchors: (P, 4) the anchors.
        boxes: (P, 4) the boxes they are matched to.
        labels: (P,) their classes.
    """

    image: Int[Tensor, " p"]
    anchor: Int[Tensor, " p"]
    anchors: Float[Tensor, "p 4"]
    boxes: Float[Tensor, "p 4"]
    labels: Int[Tensor, " p"]


def find_positives(predictions: RawPredictions, assignment: Assignment, targets: Sequence[Targets]) -> Positives:
    """The positive anchors of a batch with their boxes and classes; the one place of a step that waits for the device.

    Args:
        predictions: of b images.
        assignment: of their anchors.
        targets: their boxes, one record per image.

    Returns:
        P anchors, as many as ``assignment.matched >= 0`` has.

    Raises:
        ValueError: shapes that do not fit each other.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> raw = RawPredictions(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4), torch.zeros(2, 4), (2,), DeltaCoder())
        >>> box = Targets(torch.tensor([[0., 0., 10., 8.]]), torch.tensor([2]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> found = find_positives(raw, Assignment(torch.tensor([[-1, 0]])), [box])
        >>> found.anchor, found.labels
        (tensor([1]), tensor([2]))
    """
    matched = assignment.matched
    if matched.shape != predictions.logits.shape[:2] or len(targets) != len(matched):
        raise ValueError(
            f"assignment, targets: {tuple(predictions.logits.shape[:2])} (images, anchors) as in predictions.logits expected, "
            f"got {tuple(matched.shape)} and {len(targets)} targets"
        )
    image, anchor = (matched >= 0).nonzero(as_tuple=True)
    firsts, first = [], 0
    for target in targets:
        firsts.append(matched.new_full((1,), first))
        first += len(target.boxes)
    anchors = predictions.anchors_at(image, anchor)
    if not first:
        return Positives(image, anchor, anchors, anchors, anchor)
    row = matched[image, anchor] + torch.cat(firsts)[image]
    boxes = torch.cat([target.boxes for target in targets])[row]
    return Positives(image, anchor, anchors, boxes, torch.cat([target.labels for target in targets])[row])


def class_targets(assignment: Assignment, positives: Positives, num_classes: int) -> Int[Tensor, "b a c"]:
    """What each logit should say: 1 for the class of a positive anchor, -1 for all classes of an ignored one, else 0.

    Args:
        assignment: of the anchors.
        positives: its positives.
        num_classes: C.

    Returns:
        (b, a, C) int8 of 1, 0, -1; its ones are in the order of ``positives``.

    Example:
        >>> found = Positives(torch.tensor([0]), torch.tensor([1]), torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor([2]))
        >>> class_targets(Assignment(torch.tensor([[-1, 0, -2]])), found, 3)
        tensor([[[ 0,  0,  0],
                 [ 0,  0,  1],
                 [-1, -1, -1]]], dtype=torch.int8)
    """
    labels = torch.where(assignment.matched == IGNORE, -1, 0).to(torch.int8)[..., None].repeat(1, 1, num_classes)
    labels[positives.image, positives.anchor, positives.labels] = 1
    return labels


def decoded_boxes(predictions: RawPredictions, positives: Positives) -> Float[Tensor, "p 4"]:
    """The predicted boxes of the positives, ``x1 y1 x2 y2`` in pixels, in float32 or better."""
    return predictions.coder.decode(offsets_of(predictions, positives), positives.anchors)


def offsets_of(predictions: RawPredictions, positives: Positives) -> Float[Tensor, "p 4"]:
    """What the network says about the boxes of the positives, in the coder's units, in float32 or better."""
    return upcast(predictions.regression[positives.image, positives.anchor])


def compared_boxes(predictions: RawPredictions, positives: Positives, compares: Literal["deltas", "boxes"]) -> tuple[Tensor, Tensor]:
    """What a box loss compares at the positives, (P, 4) each: offsets in the coder's units, or decoded boxes in pixels."""
    if compares == "boxes":
        return decoded_boxes(predictions, positives), positives.boxes
    return offsets_of(predictions, positives), predictions.coder.encode(positives.boxes, positives.anchors)


def positive_ious(predictions: RawPredictions, positives: Positives) -> Float[Tensor, " p"]:
    """The IoU of the predicted with the true box of each positive; no gradient flows through it."""
    return paired_iou(decoded_boxes(predictions, positives).detach(), positives.boxes)


def iou_targets(predictions: RawPredictions, positives: Positives, labels: Float[Tensor, "b a c"]) -> Float[Tensor, "b a c"]:
    """The labels with the IoU of the predicted box in the place of each 1."""
    ious = labels.clone()
    ious[positives.image, positives.anchor, positives.labels] = positive_ious(predictions, positives).to(ious.dtype)
    return ious


def global_count(of_positives: Float[Tensor, "p ..."], *, training: bool) -> Float[Tensor, ""]:
    """The number of positives, at least 1; in distributed training that of all processes over their number, so that the
    averaged gradient is that of one large batch. A validation may run in one process alone and does not wait for the others."""
    total = sum_over_processes(of_positives.new_full((), len(of_positives)), training=training)
    return total.clamp(min=1) / num_processes(training=training)


def num_processes(*, training: bool) -> int:
    """In distributed training the number of processes, else 1."""
    return dist.get_world_size() if training and dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(x: Tensor, *, training: bool) -> Tensor:
    """In distributed training the sum over the processes, else ``x`` itself; without gradient."""
    x = x.detach()
    if num_processes(training=training) > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def mean_over_processes(loss: Tensor, *, training: bool) -> Tensor:
    """In distributed training the mean of the losses of all processes, else ``loss`` itself. The gradient is that of this process, which
    is averaged later."""
    processes = num_processes(training=training)
    return loss if processes == 1 else sum_over_processes(loss, training=training) / processes + (loss - loss.detach())
