"""Which box each anchor is trained on, by what the detector predicts: task-aligned assignment, and one-to-one matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes import box_area, paired_giou
from ..boxes._dtype import upcast
from ..records import BACKGROUND, Assignment, RawPredictions, Targets
from ._boxes import PaddedBoxes, ignoring
from .anchors import _best_claim


@torch.no_grad()
def assign_task_aligned(
    predictions: RawPredictions, targets: Sequence[Targets], *, top_k: int = 13, alpha: float = 1.0, beta: float = 6.0
) -> Assignment:
    """Matches to each box the anchors that already classify and localize it best: task-aligned assignment.

    The candidates of a box are the anchors whose centers lie inside of it (not on its border). Of these the ``top_k`` of largest
    ``t = s^alpha u^beta`` above 0 are positive, s the score of the anchor for the class of the box and u the IoU of its predicted box. All
    other anchors are background. An anchor that several boxes claim goes to the one of highest IoU, then to the first. At the very start
    no predicted box may overlap: then nothing is positive.

    Args:
        predictions: of b images, with the anchors of a pyramid.
        targets: one record per image.
        top_k: positives of a box, >= 1.
        alpha: how much the score counts, >= 0.
        beta: how much the IoU counts, >= 0.

    Returns:
        For each image and anchor the index of a box, ``BACKGROUND`` or, for anchors in crowds, ``IGNORE``.

    Raises:
        ValueError: an option out of its range, another number of targets than images; on a CPU, a label of no class.

    Source:
        Feng et al., TOOD: Task-aligned One-stage Object Detection, ICCV 2021, Eq. (4) and Sec. 3.2.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> anchors = torch.tensor([[0., 0., 8., 8.], [1., 0., 9., 8.], [20., 0., 28., 8.]])
        >>> raw = RawPredictions(torch.tensor([[[0.0], [9.0], [9.0]]]), torch.zeros(1, 3, 4), anchors, (3,), DeltaCoder())
        >>> box = Targets(torch.tensor([[0., 0., 8., 8.]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> assign_task_aligned(raw, [box], top_k=1).matched
        tensor([[ 0, -1, -1]])
    """
    _check_aligned(top_k, alpha, beta)
    _check_targets(predictions, targets)
    anchors = predictions.anchors
    padded = PaddedBoxes(anchors, targets)
    count = anchors.shape[-2]
    if not count:
        return Assignment(torch.empty(len(targets), 0, dtype=torch.int64, device=anchors.device))
    overlap = _iou_with_predicted(padded, predictions)
    labels = torch.nn.utils.rnn.pad_sequence([anchors.new_zeros(1).long(), *(t.labels for t in targets)], batch_first=True)[1:]
    scores = upcast(predictions.logits).sigmoid().transpose(1, 2).gather(1, labels[..., None].expand(-1, -1, count))
    x, y = ((anchors[..., :2] + anchors[..., 2:]) / 2).unsqueeze(-3).unbind(-1)
    x1, y1, x2, y2 = padded.boxes[:, :, None].unbind(-1)
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2) & padded.matchable[..., None]
    aligned = torch.where(inside, scores**alpha * overlap**beta, 0.0)
    best = aligned.topk(min(top_k, count), 2)
    claim = torch.where(best.values > 0, overlap.gather(2, best.indices), -1.0)
    return ignoring(_best_claim(best.indices, claim, count), padded.in_crowd(anchors))


@torch.no_grad()
def match_one_to_one(
    predictions: RawPredictions,
    targets: Sequence[Targets],
    *,
    class_weight: float = 2.0,
    l1_weight: float = 5.0,
    giou_weight: float = 2.0,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Assignment:
    """Matches each box to one prediction of its own so that the sum of the costs is the smallest: Hungarian matching.

    ``cost = class_weight C + l1_weight |b - b*|_1 - giou_weight GIoU`` with b the predicted box as center and size in units of the image,
    and ``C = alpha (1 - p)^gamma (-log p) - (1 - alpha) p^gamma (-log(1 - p))`` of the score p for the class of the box. Costs that are not
    finite count as the largest number that there is. With fewer predictions than boxes, some boxes have none.

    It runs on the CPU, image by image, and waits for the device.

    Args:
        predictions: of b images.
        targets: one record per image.
        class_weight: >= 0.
        l1_weight: >= 0.
        giou_weight: >= 0.
        alpha: of the focal cost, in [0, 1].
        gamma: of the focal cost, >= 0.

    Returns:
        For each image and prediction the index of a box or ``BACKGROUND``; in crowds ``IGNORE``.

    Raises:
        ValueError: a negative weight, an alpha outside of [0, 1], another number of targets than images; on a CPU, a label of no class.
        ImportError: scipy is missing.

    Source:
        Carion et al., End-to-End Object Detection with Transformers, ECCV 2020, Eqs. (1) and (2); the focal cost and the weights: Zhu et
        al., Deformable DETR, ICLR 2021.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> anchors = torch.tensor([[0., 0., 8., 8.], [1., 0., 9., 8.], [20., 0., 28., 8.]])
        >>> raw = RawPredictions(torch.zeros(1, 3, 1), torch.zeros(1, 3, 4), anchors, (3,), DeltaCoder())
        >>> box = Targets(torch.tensor([[0., 0., 8., 8.]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> match_one_to_one(raw, [box]).matched
        tensor([[ 0, -1, -1]])
    """
    _check_costs(class_weight=class_weight, l1_weight=l1_weight, giou_weight=giou_weight, gamma=gamma)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: a number in [0, 1] expected, got {alpha}")
    _check_targets(predictions, targets)
    solve = _solver()
    anchors = predictions.anchors
    matched = torch.full(predictions.logits.shape[:2], BACKGROUND, device=anchors.device)
    for i, target in enumerate(targets):
        own = anchors if anchors.ndim == 2 else anchors[i]
        kept = (~target.crowd).nonzero()[:, 0]
        if not len(kept) or not len(own):
            continue
        boxes = upcast(target.boxes[kept])
        predicted = upcast(predictions.coder.decode(predictions.regression[i], own)).to(boxes.dtype)
        logits = upcast(predictions.logits[i])[:, target.labels[kept]]
        p, sure, unsure = logits.sigmoid(), torch.nn.functional.softplus(-logits), torch.nn.functional.softplus(logits)
        cost = class_weight * (alpha * (1 - p) ** gamma * sure - (1 - alpha) * p**gamma * unsure)
        scale = boxes.new_tensor([target.size[1], target.size[0]] * 2)
        cost = cost + l1_weight * torch.cdist(_center_and_size(predicted) / scale, _center_and_size(boxes) / scale, p=1)
        giou = paired_giou(predicted.repeat_interleave(len(boxes), 0), boxes.repeat(len(own), 1))
        cost = cost - giou_weight * giou.view(len(own), len(boxes))
        rows, columns = solve(torch.nan_to_num(cost, nan=1e30, posinf=1e30, neginf=-1e30).clamp(-1e30, 1e30).cpu().double().numpy())
        index = torch.as_tensor(rows, device=anchors.device)
        matched[i, index] = kept[torch.as_tensor(columns, device=anchors.device)]
    return ignoring(matched, PaddedBoxes(anchors, targets).in_crowd(anchors))


@dataclass(frozen=True)
class TaskAlignedAssigner:
    """``assign_task_aligned`` with its options, for a recipe.

    Attributes:
        top_k: positives of a box.
        alpha: how much the score counts.
        beta: how much the IoU counts.
    """

    top_k: int = 13
    alpha: float = 1.0
    beta: float = 6.0

    def __post_init__(self) -> None:
        _check_aligned(self.top_k, self.alpha, self.beta)

    def __call__(self, predictions: RawPredictions, targets: list[Targets]) -> Assignment:
        return assign_task_aligned(predictions, targets, top_k=self.top_k, alpha=self.alpha, beta=self.beta)


@dataclass(frozen=True)
class HungarianAssigner:
    """``match_one_to_one`` with its options, for a recipe.

    Attributes:
        class_weight: of the focal cost.
        l1_weight: of the distance of the boxes.
        giou_weight: of their GIoU.
    """

    class_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0

    def __post_init__(self) -> None:
        _check_costs(class_weight=self.class_weight, l1_weight=self.l1_weight, giou_weight=self.giou_weight)

    def __call__(self, predictions: RawPredictions, targets: list[Targets]) -> Assignment:
        weights = {"class_weight": self.class_weight, "l1_weight": self.l1_weight, "giou_weight": self.giou_weight}
        return match_one_to_one(predictions, targets, **weights)


def _iou_with_predicted(padded: PaddedBoxes, predictions: RawPredictions) -> Float[Tensor, "b m a"]:
    predicted = upcast(predictions.coder.decode(predictions.regression, predictions.anchors))
    shared = padded.shared_area(predicted)
    union = box_area(padded.boxes)[..., None] + box_area(predicted).clamp(min=0)[:, None] - shared
    return torch.where(union > 0, shared / torch.where(union > 0, union, 1.0), 0.0)


def _center_and_size(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def _solver() -> Any:
    try:
        from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("one-to-one matching needs scipy: pip install scipy") from error
    return linear_sum_assignment


def _check_targets(predictions: RawPredictions, targets: Sequence[Targets]) -> None:
    if len(targets) != len(predictions.logits):
        raise ValueError(f"targets: one record for each of {len(predictions.logits)} images expected, got {len(targets)}")
    classes = predictions.logits.shape[-1]
    for i, labels in enumerate(target.labels for target in targets):
        if labels.device.type == "cpu" and len(wrong := labels[(labels < 0) | (labels >= classes)]):
            rule = f"classes from 0 to {classes - 1} expected, as the predictions have {classes}"
            raise ValueError(f"targets[{i}].labels: {rule}, got {int(wrong[0])}")


def _check_aligned(top_k: int, alpha: float, beta: float) -> None:
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise ValueError(f"top_k: a whole number >= 1 expected, got {top_k}")
    _check_costs(alpha=alpha, beta=beta)


def _check_costs(**weights: float) -> None:
    for name, value in weights.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name}: a finite number >= 0 expected, got {value}")
