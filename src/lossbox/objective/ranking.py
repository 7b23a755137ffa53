"""Objectives that rank all scores of a batch at once: aLRP, and Rank & Sort.

In distributed training the batch is that of all ranks: every rank returns the same values, those of one loss of the concatenated batch, and
the averaged gradient is that loss's. In evaluation mode each rank ranks its own batch, since a validation may give ranks unequal numbers of
batches, and the one with more would wait forever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ..boxes import paired_iou
from ..losses import (
    SelfBalance,
    alpha_iou_loss,
    alrp_loss,
    ciou_loss,
    diou_loss,
    eiou_loss,
    giou_loss,
    iou_loss,
    rank_sort_loss,
)
from ..records import Assignment, RawPredictions, Targets
from .positives import (
    FRAMES,
    at_least_float32,
    class_targets,
    decoded_boxes,
    find_positives,
    mean_over_processes,
    num_processes,
    step_of_balance,
    sum_over_processes,
)


class ALRPObjective(nn.Module):
    """aLRP loss of a detector: one ranking of all (anchor, class) scores of the batch, with the error of the decoded boxes inside.

    ``E = loss / largest / (1 - tau)``, where ``largest`` is the greatest value of the box loss: ``(1 - IoU) / (1 - tau)``,
    ``(1 - GIoU) / 2 / (1 - tau)``; ``total = classification + weight * localization``.

    In training mode each step enters the means of the self-balance; in evaluation mode none does.

    Args:
        localization: the error of a box: ``"giou"``, or any other of the IoU family by name: ``"iou"``, ``"diou"``, ``"ciou"``, ``"eiou"``,
            ``"alpha_iou"``.
        delta: half the width of the smoothed step of the ranking, in units of the logits, >= 0.
        tau: IoU from which a detection counts, in [0, 1); by rule that from which the assignment is positive.
        self_balance: ``weight`` follows the previous epoch's ``mean(L_cls + L_loc) / mean(L_loc)``; otherwise it is 1.
        initial_weight: of the first epoch.
        global_batch: in training under torch.distributed the batches of all ranks are ranked as one; otherwise each by itself.

    Raises:
        ValueError: an option out of its range.

    Source:
        Oksuz et al., A Ranking-based, Balanced Loss Function Unifying Classification and Localisation in Object Detection, NeurIPS 2020,
        Eqs. (9)-(13) and Sec. 4.2.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.]])
        >>> raw = RawPredictions(torch.tensor([[[0.0], [3.0]]]), torch.zeros(1, 2, 4), anchors, (2,), DeltaCoder())
        >>> box = Targets(torch.tensor([[0., 0., 10., 8.]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> objective = ALRPObjective()
        >>> objective(raw, Assignment(torch.tensor([[0, -1]])), [box])
        {'classification': tensor(0.5000), 'localization': tensor(0.1000)}
        >>> objective.weights()
        {'classification': 1.0, 'localization': tensor(50.)}
    """

    def __init__(
        self,
        *,
        localization: str = "giou",
        delta: float = 1.0,
        tau: float = 0.5,
        self_balance: bool = True,
        initial_weight: float = 50.0,
        global_batch: bool = True,
    ) -> None:
        super().__init__()
        if localization not in BOX_ERRORS:
            raise ValueError(f"localization: one of {', '.join(map(repr, BOX_ERRORS))} expected, got {localization!r}")
        if not 0 <= delta < float("inf"):
            raise ValueError(f"delta: a finite number >= 0 expected, got {delta}")
        if not 0 <= tau < 1:
            raise ValueError(f"tau: a number in [0, 1) expected, got {tau}")
        self.localization = localization
        self.delta = delta
        self.tau = tau
        self.balance = SelfBalance(initial_weight) if self_balance else None
        self.global_batch = global_batch

    def forward(self, predictions: RawPredictions, assignment: Assignment, targets: list[Targets]) -> dict[str, Tensor]:
        """The two parts of the loss of one batch.

        Args:
            predictions: of b images.
            assignment: of their anchors.
            targets: their boxes, one record per image.

        Returns:
            ``{"classification": ..., "localization": ...}``, unweighted scalars; both 0 without positives.

        Raises:
            ValueError: an assignment or targets of another batch.
        """
        with torch.autocast(predictions.logits.device.type, enabled=False):
            positives = find_positives(predictions, assignment, targets)
            wanted = class_targets(assignment, positives, predictions.logits.shape[-1])
            box_loss, largest = BOX_ERRORS[self.localization]
            error = box_loss(decoded_boxes(predictions, positives), positives.boxes, reduction="none") / (largest * (1 - self.tau))
            loss = alrp_loss(predictions.logits, wanted, error, delta=self.delta, global_batch=self.global_batch and self.training)
        if self.balance is not None:
            step_of_balance(self.balance, *loss, len(error), training=self.training)
        return {"classification": loss.classification, "localization": loss.localization}

    def weights(self) -> dict[str, Tensor | float]:
        """What each part is multiplied with in training."""
        return {"classification": 1.0, "localization": 1.0 if self.balance is None else self.balance.weight}

    def end_epoch(self) -> None:
        """Puts the weight in force that follows from the steps since the last call."""
        if self.balance is not None:
            self.balance.end_period()


class RankSortObjective(nn.Module):
    """Rank & Sort of a detector: positives above negatives, better boxes above worse, plus a box loss that a score weights.

    ``L = ranking + sorting + weight * localization`` with ``localization = sum_i p_i l_i / sum_i p_i`` over the positives, p the score of
    the true class without gradient, and ``weight = (ranking + sorting) / localization`` of the same step: the box loss always counts as
    much as the rest, and nothing is left to tune.

    Args:
        localization: ``loss(input, target, *, weight, normalizer)`` over the positives, (P, 4) each.
        frame: ``"boxes"``: decoded boxes in pixels (the IoU family); ``"deltas"``: offsets in the coder's units (the L1 family).
        delta: half the width of the smoothed step of the ranking, in units of the logits, >= 0.
        localization_weight: a constant in the place of the balance of each step.
        global_batch: in training under torch.distributed the batches of all ranks are ranked and sorted as one, and the sums over the
            positives are over those of all ranks; otherwise each batch stands by itself, its weight too.

    Raises:
        ValueError: an option out of its range.

    Source:
        Oksuz et al., Rank & Sort Loss for Object Detection and Instance Segmentation, ICCV 2021, Sec. 5; the weighting of the box loss by
        the score is that of the authors' code.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.]])
        >>> raw = RawPredictions(torch.tensor([[[0.0], [3.0]]]), torch.zeros(1, 2, 4), anchors, (2,), DeltaCoder())
        >>> box = Targets(torch.tensor([[0., 0., 10., 8.]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> objective = RankSortObjective()
        >>> objective(raw, Assignment(torch.tensor([[0, -1]])), [box])
        {'ranking': tensor(0.6667), 'sorting': tensor(0.), 'localization': tensor(0.2000)}
        >>> objective.weights()["localization"]
        tensor(3.3333)
    """

    def __init__(
        self,
        localization: nn.Module | Callable[..., Tensor] = giou_loss,
        *,
        frame: Literal["boxes", "deltas"] = "boxes",
        delta: float = 0.5,
        localization_weight: float | None = None,
        global_batch: bool = True,
    ) -> None:
        super().__init__()
        if frame not in FRAMES:
            raise ValueError(f"frame: one of {', '.join(map(repr, FRAMES))} expected, got {frame!r}")
        if not 0 <= delta < float("inf"):
            raise ValueError(f"delta: a finite number >= 0 expected, got {delta}")
        if localization_weight is not None and not 0 <= localization_weight < float("inf"):
            raise ValueError(f"localization_weight: a finite number >= 0 expected, got {localization_weight}")
        self.localization = localization
        self.frame = frame
        self.delta = delta
        self.localization_weight = localization_weight
        self.global_batch = global_batch
        self._balance: Tensor | float = 1.0

    def forward(self, predictions: RawPredictions, assignment: Assignment, targets: list[Targets]) -> dict[str, Tensor]:
        """The three parts of the loss of one batch.

        Args:
            predictions: of b images.
            assignment: of their anchors.
            targets: their boxes, one record per image.

        Returns:
            ``{"ranking": ..., "sorting": ..., "localization": ...}``, unweighted scalars; all 0 without positives.

        Raises:
            ValueError: an assignment or targets of another batch.
        """
        together = self.global_batch and self.training
        with torch.autocast(predictions.logits.device.type, enabled=False):
            positives = find_positives(predictions, assignment, targets)
            wanted = class_targets(assignment, positives, predictions.logits.shape[-1])
            quality = paired_iou(decoded_boxes(predictions, positives).detach(), positives.boxes)
            ranking, sorting = rank_sort_loss(predictions.logits, wanted, quality, delta=self.delta, global_batch=together)
            score = at_least_float32(predictions.logits[positives.image, positives.anchor, positives.labels]).detach().sigmoid()
            given, target = FRAMES[self.frame](predictions, positives)
            least = torch.finfo(score.dtype).tiny  # no positives: 0 / least
            per_box = score[:, None] if self.frame == "deltas" else score
            # The mean over the ranks, of values and of gradients, is then sum_i p_i l_i / sum_i p_i over the positives of all.
            normalizer = (sum_over_processes(score.sum(), training=together) / num_processes(training=together)).clamp(min=least)
            localization = mean_over_processes(self.localization(given, target, weight=per_box, normalizer=normalizer), training=together)
        known = localization.detach() > 0
        self._balance = torch.where(known, (ranking + sorting).detach() / torch.where(known, localization.detach(), 1.0), 1.0)
        return {"ranking": ranking, "sorting": sorting, "localization": localization}

    def weights(self) -> dict[str, Tensor | float]:
        """What each part is multiplied with in training; that of the localization belongs to the batch that was given last."""
        weight = self._balance if self.localization_weight is None else self.localization_weight
        return {"ranking": 1.0, "sorting": 1.0, "localization": weight}

    def end_epoch(self) -> None:
        """Nothing is remembered over an epoch."""


BOX_ERRORS: Mapping[str, tuple[Callable[..., Tensor], float]] = {
    "iou": (iou_loss, 1.0),
    "giou": (giou_loss, 2.0),
    "diou": (diou_loss, 2.0),
    "ciou": (ciou_loss, 3.0),
    "eiou": (eiou_loss, 4.0),
    "alpha_iou": (alpha_iou_loss, 1.0),
}
"""Each loss of a box with its greatest value, by which it is divided to be an error in [0, 1]."""
