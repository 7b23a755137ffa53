"""Any classification loss plus any box loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..boxes._dtype import upcast
from ..losses import FocalLoss, SelfBalance, SmoothL1Loss
from ..records import Assignment, RawPredictions, Targets
from .base import Objective, Part, check_box_loss, check_classification_loss
from .positives import (
    class_targets,
    compared_boxes,
    find_positives,
    global_count,
    iou_targets,
    positive_ious,
)
from .weighing import make_weighing, weighed


class SeparateObjective(Objective):
    """Any classification loss plus ``localization_weight`` times any box loss, the parts "classification" and "localization".

    What a loss compares, which targets it takes and what its sum is divided by is known to its module. Most are sums over the number of
    positives: ``L_cls = 1/max(|P|, 1) sum over (anchor, class) not ignored``, ``L_loc = 1/max(|P|, 1) sum over positives``. In distributed
    training ``max(|P|, 1)`` is that of all processes over their number, so that the averaged gradient is that of one large batch. Without
    positives the localization is 0.

    Args:
        classification: a ``lossbox.losses.ClassificationLoss``; None is ``FocalLoss()``.
        localization: a ``lossbox.losses.BoxLoss``; None is ``SmoothL1Loss()``.
        localization_weight: >= 0; with ``self_balance`` that of the first epoch, with ``uncertainty_weights`` that of the first step.
        self_balance: the weight follows the previous epoch's ``mean(L_cls + L_loc) / mean(L_loc)``.
        uncertainty_weights: both weights are learned, see ``lossbox.losses.UncertaintyWeights``; not beside self-balance.
        box_weights: ``L_loc = sum_i w_i l_i`` in the place of the mean over the positives: ``lossbox.losses.CARLWeights()``,
            ``RankingWeights()``, or a function called as they are, with ``l_i`` summed over the coordinates of a box.
        global_batch: in training under torch.distributed a ranking loss (AP, NDCG) ranks the batches of all processes as one; otherwise
            each process ranks its own.

    Raises:
        ValueError: a loss that does not fit, with the reason; an option out of its range.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Sec. 4.1: the defaults are focal loss and smooth L1. AP loss with a
        box loss, with and without self-balance: Oksuz et al., NeurIPS 2020, Table A.12.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> from lossbox.losses import APLoss, GIoULoss
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.]])
        >>> raw = RawPredictions(torch.tensor([[[0.0], [-9.0]]]), torch.zeros(1, 2, 4), anchors, (2,), DeltaCoder())
        >>> box = Targets(torch.tensor([[0., 0., 10., 8.]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> SeparateObjective(localization=GIoULoss())(raw, Assignment(torch.tensor([[0, -1]])), [box])["localization"]
        Part(value=tensor(0.2000), weight=1.0)
        >>> objective = SeparateObjective(APLoss(), self_balance=True)
        >>> objective(raw, Assignment(torch.tensor([[0, -1]])), [box])["classification"]
        Part(value=tensor(0.), weight=1.0)
    """

    tuned = ("localization_weight",)

    # Wider types than are taken: jsonargparse then hands on what a recipe names, and the reason of the refusal is ours.
    def __init__(
        self,
        classification: nn.Module | Callable[..., Any] | None = None,
        localization: nn.Module | Callable[..., Any] | None = None,
        *,
        localization_weight: float = 1.0,
        self_balance: bool = False,
        uncertainty_weights: bool = False,
        box_weights: Callable[..., Any] | None = None,
        global_batch: bool = True,
    ) -> None:
        super().__init__()
        self.classification = check_classification_loss(FocalLoss() if classification is None else classification)
        self.localization = check_box_loss(SmoothL1Loss() if localization is None else localization)
        self.balance = make_weighing(localization_weight, self_balance=self_balance, uncertainty_weights=uncertainty_weights)
        self.box_weights = box_weights
        self.global_batch = global_batch

    def forward(self, predictions: RawPredictions, assignment: Assignment, targets: list[Targets]) -> dict[str, Part]:
        with torch.autocast(predictions.logits.device.type, enabled=False):
            positives = find_positives(predictions, assignment, targets)
            logits = upcast(predictions.logits)
            num_positives = global_count(positives.boxes.to(logits.dtype), training=self.training)
            labels = class_targets(assignment, positives, logits.shape[-1]).to(logits.dtype)
            class_target: Mapping[str, Callable[[], Tensor]] = {
                "labels": lambda: labels,
                "ious": lambda: iou_targets(predictions, positives, labels),
                "positive ious": lambda: positive_ious(predictions, positives),
            }
            classification = self.classification.of_batch(
                logits,
                *(class_target[name]() for name in self.classification.targets),
                num_positives=num_positives,
                global_batch=self.global_batch and self.training,
            )
            boxes = compared_boxes(predictions, positives, self.localization.compares)
            if self.box_weights is None:
                localization = self.localization.of_positives(*boxes, num_positives=num_positives)
            else:
                of_each = self.localization.elementwise(*boxes)
                of_each = of_each.sum(1) if of_each.ndim > 1 else of_each
                localization = self.box_weights(logits, labels, of_each, global_batch=self.global_batch and self.training)
        return weighed(self.balance, classification, localization, len(positives.boxes), training=self.training)

    def end_epoch(self) -> None:
        """Puts the weight in force that follows from the steps since the last call."""
        if isinstance(self.balance, SelfBalance):
            self.balance.end_period()
