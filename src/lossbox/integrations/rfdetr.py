"""A loss of class scores in the training of RF-DETR (Roboflow's package ``rfdetr``)."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import Tensor, nn

from ._queries import query_loss
from ._scores import find_loss, warn_of_version

TESTED = ("1.11.2",)
"""The versions of rfdetr that the tests ran with."""


def use(model: nn.Module, loss: str | Callable[..., Any] | nn.Module, *, global_batch: bool = False) -> nn.Module:
    """Train the class scores of RF-DETR with a loss of ours; matching and boxes keep theirs, and ``cls_loss_coef`` multiplies it.

    Every decoder layer and the encoder's proposals get the loss each by itself, and of the groups of queries (Group DETR) each is a
    ranking of its own; the result is the mean over the groups. Matched queries are positive, and the IoU of predicted and true box is their
    quality.

    Args:
        model: an ``RFDETRModelModule``, or its ``criterion``.
        loss: "rank_sort", "alrp", "ap" or another name of the catalog; a function of ``lossbox.losses``; or a module, for other options.
        global_batch: a ranking loss ranks the images of all processes as one.

    Returns:
        The same model, which is changed.

    Raises:
        ValueError: a loss that does not fit; anything that has no ``SetCriterion`` of rfdetr.

    Example:
        >>> from rfdetr.training import RFDETRModelModule  # doctest: +SKIP
        >>> module = RFDETRModelModule(model_config, train_config)  # doctest: +SKIP
        >>> module = use(module, "rank_sort")  # doctest: +SKIP
    """
    from rfdetr.models.criterion import SetCriterion

    module = find_loss(loss)
    criterion: Any = getattr(model, "criterion", model)
    if type(criterion) is not SetCriterion:
        raise ValueError(f"model: an RFDETRModelModule or its SetCriterion expected, got {type(criterion).__name__}")
    warn_of_version("rfdetr", TESTED)

    def loss_labels(
        self: Any, outputs: dict[str, Any], targets: Any, indices: Any, num_boxes: Any, log: bool = True, matched_targets: Any = None
    ) -> dict[str, Tensor]:
        matched = self._get_matched_targets(targets, indices) if matched_targets is None else matched_targets
        (image, query), classes, boxes = matched.source_indices, matched.labels, matched.boxes
        valid = self._matched_valid_mask(targets, indices)
        if valid is not None:  # targets that fill up a batch of one size
            image, query, classes, boxes = (each[valid > 0] for each in (image, query, classes, boxes))
        logits = outputs["pred_logits"]
        groups = self.group_detr if self.training else 1
        places = outputs["pred_boxes"], (image, query), classes, boxes
        value = query_loss(module, logits, *places, num_boxes=num_boxes, groups=groups, global_batch=global_batch)
        if not log:
            return {"loss_ce": value}
        right = (logits[image, query].argmax(-1) == classes).float()
        return {"loss_ce": value, "class_error": 100 - 100 * right.sum() / max(len(right), 1)}

    def _can_batch_detection_losses(self: Any, *_: Any) -> bool:
        return False  # that path has its own copy of the class loss

    for function in (loss_labels, _can_batch_detection_losses):
        setattr(criterion, function.__name__, MethodType(function, criterion))
    return model
