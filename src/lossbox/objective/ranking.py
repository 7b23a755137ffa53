"""Objectives that rank all scores of a batch at once: aLRP, and Rank & Sort.

In distributed training the batch is that of all processes: every process returns the same values, those of one loss of the concatenated
batch, and the averaged gradient is that loss's. In evaluation mode each process ranks its own batch, since a validation may give processes
unequal numbers of batches, and the one with more would wait forever.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from ..boxes._dtype import upcast
from ..losses import ALRPTerms, GIoULoss, SelfBalance, alrp_loss, rank_sort_loss
from ..losses._checks import check_delta
from ..losses.memory import with_memory
from ..records import Assignment, RawPredictions, Targets
from .base import Objective, Part, check_box_loss
from .positives import (
    class_targets,
    compared_boxes,
    decoded_boxes,
    find_positives,
    mean_over_processes,
    num_processes,
    positive_ious,
    sum_over_processes,
)
from .weighing import make_weighing, weighed


class ALRPObjective(Objective):
    """aLRP loss of a detector: one ranking of all (anchor, class) scores of the batch, with the error of the decoded boxes inside.

    ``E = loss / largest / (1 - tau)``, where ``largest`` is the greatest value of the box loss: ``(1 - IoU) / (1 - tau)``,
    ``(1 - GIoU) / 2 / (1 - tau)``; ``total = classification + weight * localization``.

    In training mode each step enters the means of the self-balance; in evaluation mode none does.

    Args:
        localization: a ``lossbox.losses.BoxLoss`` of decoded boxes that has a greatest value, as all of the IoU family but the logarithmic
            ``IoULoss`` have; None is ``GIoULoss()``.
        delta: half the width of the smoothed step of the ranking, in units of the logits, >= 1e-6; 0 is the hard step.
        tau: IoU from which a detection counts, in [0, 1); by rule that from which the assignment is positive.
        self_balance: ``weight`` follows the previous epoch's ``mean(L_cls + L_loc) / mean(L_loc)``; otherwise it stays as it is.
        localization_weight: ``weight``, >= 0; by default 50 with self-balance, where it is that of the first epoch, else 1.
        uncertainty_weights: both weights are learned, see ``lossbox.losses.UncertaintyWeights``; not beside self-balance.
        loss: what ranks: a function called as ``alrp_loss`` is, with its options ``delta`` and ``global_batch``, and
            ``groups`` where there are groups.
        global_batch: in training under torch.distributed the batches of all processes are ranked as one; otherwise each by itself.
        groups: "image" or "class": each image or class is ranked by itself, and the loss is the mean of those with a positive; None ranks
            all scores against each other.
        memory: the scores of so many of the last steps are ranked together with those of each step, see ``lossbox.losses.ScoreMemory``;
            for batches of few images. Not beside groups.

    Raises:
        ValueError: a box loss that does not fit, with the reason; an option out of its range.

    Source:
        Oksuz et al., A Ranking-based, Balanced Loss Function Unifying Classification and Localisation in Object Detection, NeurIPS 2020,
        Eqs. (9)-(13) and Sec. 4.2.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.]])
        >>> raw = RawPredictions(torch.tensor([[[0.0], [3.0]]]), torch.zeros(1, 2, 4), anchors, (2,), DeltaCoder())
        >>> box = Targets(torch.tensor([[0., 0., 10., 8.]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> parts = ALRPObjective()(raw, Assignment(torch.tensor([[0, -1]])), [box])
        >>> parts["classification"]
        Part(value=tensor(0.5000), weight=1.0)
        >>> parts["localization"]
        Part(value=tensor(0.1000), weight=tensor(50.))
    """

    tuned = ("delta",)

    def __init__(
        self,
        localization: nn.Module | Callable[..., Any] | None = None,
        *,
        delta: float = 1.0,
        tau: float = 0.5,
        self_balance: bool = True,
        localization_weight: float | None = None,
        uncertainty_weights: bool = False,
        loss: Callable[..., ALRPTerms] = alrp_loss,
        global_batch: bool = True,
        groups: Literal["image", "class"] | None = None,
        memory: int = 0,
    ) -> None:
        super().__init__()
        box_loss = check_box_loss(GIoULoss() if localization is None else localization)
        if box_loss.compares != "boxes" or not box_loss.largest < math.inf:
            what = f"that compares {box_loss.compares} and has no greatest value" if box_loss.largest == math.inf else "of deltas"
            raise ValueError(
                f"localization: a loss of boxes with a greatest value expected, as GIoULoss, got {type(box_loss).__name__} {what}"
            )
        check_delta(delta)
        if not 0 <= tau < 1:
            raise ValueError(f"tau: a number in [0, 1) expected, got {tau}")
        self.localization = box_loss
        self.delta = delta
        self.tau = tau
        first = localization_weight if localization_weight is not None else 50.0 if self_balance else 1.0
        self.balance = make_weighing(first, self_balance=self_balance, uncertainty_weights=uncertainty_weights)
        self.global_batch = global_batch
        self.groups = _check_groups(groups)
        self.loss: Callable[..., ALRPTerms] = with_memory(loss, memory, groups)

    def forward(self, predictions: RawPredictions, assignment: Assignment, targets: list[Targets]) -> dict[str, Part]:
        with torch.autocast(predictions.logits.device.type, enabled=False):
            positives = find_positives(predictions, assignment, targets)
            labels = class_targets(assignment, positives, predictions.logits.shape[-1])
            box_loss = self.localization.elementwise(decoded_boxes(predictions, positives), positives.boxes)
            error = box_loss / (self.localization.largest * (1 - self.tau))
            together = self.global_batch and self.training
            groups = {} if self.groups is None else {"groups": self.groups}
            loss = self.loss(predictions.logits, labels, error, delta=self.delta, global_batch=together, **groups)
        return weighed(self.balance, *loss, len(error), training=self.training)

    def end_epoch(self) -> None:
        """Puts the weight in force that follows from the steps since the last call."""
        if isinstance(self.balance, SelfBalance):
            self.balance.end_period()


class RankSortObjective(Objective):
    """Rank & Sort of a detector: positives above negatives, better boxes above worse, plus a box loss that a score weights.

    ``L = ranking + sorting + weight * localization`` with ``localization = sum_i p_i l_i / sum_i p_i`` over the positives, p the score of
    the true class without gradient, and ``weight = (ranking + sorting) / localization`` of the same step: the box loss always counts as
    much as the rest, and nothing is left to tune.

    Args:
        localization: a ``lossbox.losses.BoxLoss``; None is ``GIoULoss()``.
        delta: half the width of the smoothed step of the ranking, in units of the logits, >= 1e-6; 0 is the hard step.
        localization_weight: a constant in the place of the balance of each step.
        global_batch: in training under torch.distributed the batches of all processes are ranked and sorted as one, and the sums over the
            positives are over those of all processes; otherwise each batch stands by itself, its weight too.
        groups: "image" or "class": each image or class is ranked and sorted by itself, and both parts are the mean of those with a
            positive; None ranks all scores against each other.
        memory: as in ``ALRPObjective``.

    Raises:
        ValueError: a box loss that does not fit, with the reason; an option out of its range.

    Source:
        Oksuz et al., Rank & Sort Loss for Object Detection and Instance Segmentation, ICCV 2021, Sec. 5; the weighting of the box loss by
        the score is that of the authors' code.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.]])
        >>> raw = RawPredictions(torch.tensor([[[0.0], [3.0]]]), torch.zeros(1, 2, 4), anchors, (2,), DeltaCoder())
        >>> box = Targets(torch.tensor([[0., 0., 10., 8.]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> parts = RankSortObjective()(raw, Assignment(torch.tensor([[0, -1]])), [box])
        >>> {name: part.value for name, part in parts.items()}
        {'ranking': tensor(0.6667), 'sorting': tensor(0.), 'localization': tensor(0.2000)}
        >>> parts["localization"].weight
        tensor(3.3333)
    """

    tuned = ("delta",)

    def __init__(
        self,
        localization: nn.Module | Callable[..., Any] | None = None,
        *,
        delta: float = 0.5,
        localization_weight: float | None = None,
        global_batch: bool = True,
        groups: Literal["image", "class"] | None = None,
        memory: int = 0,
    ) -> None:
        super().__init__()
        check_delta(delta)
        if localization_weight is not None and not 0 <= localization_weight < float("inf"):
            raise ValueError(f"localization_weight: a finite number >= 0 expected, got {localization_weight}")
        self.localization = check_box_loss(GIoULoss() if localization is None else localization)
        self.delta = delta
        self.localization_weight = localization_weight
        self.global_batch = global_batch
        self.groups = _check_groups(groups)
        self.loss = with_memory(rank_sort_loss, memory, groups)

    def forward(self, predictions: RawPredictions, assignment: Assignment, targets: list[Targets]) -> dict[str, Part]:
        together = self.global_batch and self.training
        with torch.autocast(predictions.logits.device.type, enabled=False):
            positives = find_positives(predictions, assignment, targets)
            labels = class_targets(assignment, positives, predictions.logits.shape[-1])
            quality = positive_ious(predictions, positives)
            ranking, sorting = self.loss(predictions.logits, labels, quality, delta=self.delta, global_batch=together, groups=self.groups)
            score = upcast(predictions.logits[positives.image, positives.anchor, positives.labels]).detach().sigmoid()
            least = torch.finfo(score.dtype).tiny  # no positives: 0 / least
            # The mean over the processes, of values and of gradients, is then sum_i p_i l_i / sum_i p_i over the positives of all.
            normalizer = (sum_over_processes(score.sum(), training=together) / num_processes(training=together)).clamp(min=least)
            weight = score[:, None] if self.localization.compares == "deltas" else score  # a value per coordinate, or per box
            boxes = compared_boxes(predictions, positives, self.localization.compares)
            localization = mean_over_processes(self.localization(*boxes, weight=weight, normalizer=normalizer), training=together)
        if self.localization_weight is None:
            balanced = localization.detach() > 0
            ratio = (ranking + sorting).detach() / torch.where(balanced, localization.detach(), 1.0)
            return {
                "ranking": Part(ranking),
                "sorting": Part(sorting),
                "localization": Part(localization, torch.where(balanced, ratio, 1.0)),
            }
        return {"ranking": Part(ranking), "sorting": Part(sorting), "localization": Part(localization, self.localization_weight)}


def _check_groups(groups: Literal["image", "class"] | None) -> Literal["image", "class"] | None:
    if groups not in (None, "image", "class"):
        raise ValueError(f"groups: 'image', 'class' or None expected, got {groups!r}")
    return groups
