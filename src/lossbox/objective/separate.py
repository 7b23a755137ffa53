"""Any classification loss plus any box loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..losses import SelfBalance, focal_loss, smooth_l1_loss
from ..records import Assignment, RawPredictions, Targets
from .positives import FRAMES, at_least_float32, class_targets, find_positives, global_count, iou_targets, step_of_balance


class SeparateObjective(nn.Module):
    """Any classification loss plus ``localization_weight`` times any box loss.

    By default both are summed and divided by the positives of the batch: ``L_cls = 1/max(|P|, 1) sum over (anchor, class) not ignored``,
    ``L_loc = 1/max(|P|, 1) sum over positives``. In distributed training ``max(|P|, 1)`` is that of all ranks over their number, so that
    the averaged gradient is that of one large batch.

    Args:
        classification: a loss of ``lossbox.losses``, a module twin or one of your own, called as ``classification_per`` says.
        localization: ``loss(input, target, *, normalizer)`` over the positives, (P, 4) each.
        localization_weight: > 0; with ``self_balance`` that of the first epoch.
        self_balance: the weight follows the previous epoch's ``mean(L_cls + L_loc) / mean(L_loc)``.
        frame: ``"deltas"``: input and target are offsets in the coder's units (the L1 family); ``"boxes"``: decoded boxes in pixels (the
            IoU family).
        target: ``"label"``: 1 for the class of a positive, 0 otherwise; ``"iou"``: the IoU of the predicted box in the place of the 1
            (quality focal and varifocal loss); ``"label and iou"``: both, one after the other (matchability-aware loss, IA-BCE).
        classification_per: ``"positive"``: ``loss(logits, target, *, weight, normalizer)``, weight 0 for ignored anchors, normalizer |P|;
            ``"element"``: without the normalizer, for a loss that takes a mean of its own (GHM); ``"batch"``: ``loss(logits, target)``, one
            value of all scores, the targets of ignored anchors are -1 (AP, NDCG); ``"image"``: the mean over the images of that (DR).
        localization_per: ``"positive"``: normalizer |P|; ``"element"``: the loss's own mean (GHM-R).
        global_batch: a loss of the whole batch that takes ``global_batch`` (AP, NDCG, their module twins) ranks the batches of all
            ranks as one in training under torch.distributed; otherwise each ranks its own.

    Raises:
        ValueError: an option out of its range.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Sec. 4.1: the defaults are focal loss and smooth L1. AP loss with a
        box loss, with and without self-balance: Oksuz et al., NeurIPS 2020, Table A.12.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> from lossbox.losses import ap_loss, giou_loss
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.]])
        >>> raw = RawPredictions(torch.tensor([[[0.0], [-9.0]]]), torch.zeros(1, 2, 4), anchors, (2,), DeltaCoder())
        >>> box = Targets(torch.tensor([[0., 0., 10., 8.]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> SeparateObjective(localization=giou_loss, frame="boxes")(raw, Assignment(torch.tensor([[0, -1]])), [box])
        {'classification': tensor(0.0433), 'localization': tensor(0.2000)}
        >>> objective = SeparateObjective(ap_loss, classification_per="batch", self_balance=True)
        >>> objective(raw, Assignment(torch.tensor([[0, -1]])), [box])["classification"]
        tensor(0.)
    """

    def __init__(
        self,
        classification: nn.Module | Callable[..., Any] = focal_loss,  # Any: jsonargparse knows no Float[Tensor, ""]
        localization: nn.Module | Callable[..., Tensor] = smooth_l1_loss,
        *,
        localization_weight: float = 1.0,
        self_balance: bool = False,
        frame: Literal["deltas", "boxes"] = "deltas",
        target: Literal["label", "iou", "label and iou"] = "label",
        classification_per: Literal["positive", "element", "batch", "image"] = "positive",
        localization_per: Literal["positive", "element"] = "positive",
        global_batch: bool = True,
    ) -> None:
        super().__init__()
        options = (("frame", frame, FRAMES), ("target", target, TARGETS), ("classification_per", classification_per, CLASSIFICATION_PER))
        for name, value, known in (*options, ("localization_per", localization_per, LOCALIZATION_PER)):
            if value not in known:
                raise ValueError(f"{name}: one of {', '.join(map(repr, known))} expected, got {value!r}")
        if not 0 <= localization_weight < float("inf"):
            raise ValueError(f"localization_weight: a finite number >= 0 expected, got {localization_weight}")
        self.classification = classification
        self.localization = localization
        self.localization_weight = localization_weight
        self.balance = SelfBalance(localization_weight) if self_balance else None
        self.frame = frame
        self.target = target
        self.classification_per = classification_per
        self.localization_per = localization_per
        self.global_batch = global_batch
        self._ranks_together = global_batch and classification_per == "batch" and _takes_global_batch(classification)

    def forward(self, predictions: RawPredictions, assignment: Assignment, targets: list[Targets]) -> dict[str, Tensor]:
        """The two parts of the loss of one batch.

        Args:
            predictions: of b images.
            assignment: of their anchors.
            targets: their boxes, one record per image.

        Returns:
            ``{"classification": ..., "localization": ...}``, unweighted scalars; the localization is 0 without positives.

        Raises:
            ValueError: an assignment or targets of another batch.
        """
        with torch.autocast(predictions.logits.device.type, enabled=False):
            positives = find_positives(predictions, assignment, targets)
            logits = at_least_float32(predictions.logits)
            wanted = class_targets(assignment, positives, logits.shape[-1])
            count = global_count(positives.boxes.to(logits.dtype), training=self.training)
            labels = wanted.clamp(min=0).to(logits.dtype)
            told = TARGETS[self.target](labels, lambda: iou_targets(predictions, positives, labels))
            loss = partial(self.classification, global_batch=True) if self._ranks_together and self.training else self.classification
            classification = CLASSIFICATION_PER[self.classification_per](loss, logits, told, wanted < 0, count)
            given, target = FRAMES[self.frame](predictions, positives)
            localization = LOCALIZATION_PER[self.localization_per](self.localization, given, target, count)
        if self.balance is not None:
            step_of_balance(self.balance, classification, localization, len(given), training=self.training)
        return {"classification": classification, "localization": localization}

    def weights(self) -> dict[str, Tensor | float]:
        """What each part is multiplied with in training."""
        return {"classification": 1.0, "localization": self.localization_weight if self.balance is None else self.balance.weight}

    def end_epoch(self) -> None:
        """Puts the weight in force that follows from the steps since the last call."""
        if self.balance is not None:
            self.balance.end_period()


TARGETS: Mapping[str, Callable[[Tensor, Callable[[], Tensor]], tuple[Tensor, ...]]] = {
    "label": lambda labels, quality: (labels,),
    "iou": lambda labels, quality: (quality(),),
    "label and iou": lambda labels, quality: (labels, quality()),
}
"""What a classification loss is told beside the logits."""


def _takes_global_batch(loss: Callable[..., Any]) -> bool:
    try:
        return "global_batch" in inspect.signature(getattr(loss, "forward", loss)).parameters
    except ValueError:  # a builtin without a signature
        return False


def _per_positive(loss: Callable[..., Tensor], logits: Tensor, told: Sequence[Tensor], ignored: Tensor, count: Tensor) -> Tensor:
    return loss(logits, *told, weight=(~ignored).to(logits.dtype), normalizer=count)


def _per_element(loss: Callable[..., Tensor], logits: Tensor, told: Sequence[Tensor], ignored: Tensor, count: Tensor) -> Tensor:
    return loss(logits, *told, weight=(~ignored).to(logits.dtype))


def _per_batch(loss: Callable[..., Tensor], logits: Tensor, told: Sequence[Tensor], ignored: Tensor, count: Tensor) -> Tensor:
    first, *others = told
    return loss(logits, first.masked_fill(ignored, -1), *others)


def _per_image(loss: Callable[..., Tensor], logits: Tensor, told: Sequence[Tensor], ignored: Tensor, count: Tensor) -> Tensor:
    images = zip(logits, *told, strict=True)
    values = [_per_batch(loss, one, rest, out, count) for (one, *rest), out in zip(images, ignored, strict=True)]
    return torch.stack(values).mean()


CLASSIFICATION_PER: Mapping[str, Callable[..., Tensor]] = {
    "positive": _per_positive,
    "element": _per_element,
    "batch": _per_batch,
    "image": _per_image,
}
"""How a classification loss is called: (loss, logits, what it is told, which are ignored, |P|) -> a scalar."""

LOCALIZATION_PER: Mapping[str, Callable[..., Tensor]] = {
    "positive": lambda loss, given, target, count: loss(given, target, normalizer=count),
    "element": lambda loss, given, target, count: loss(given, target),
}
"""How a box loss is called: (loss, input, target, |P|) -> a scalar."""
