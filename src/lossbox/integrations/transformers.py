"""A loss of class scores in the training of Transformers' detectors: RT-DETR, D-FINE, DEIMv2, DETR, LW-DETR, RF-DETR."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..losses import LossModule
from ._queries import query_loss
from ._scores import find_loss, log_odds, warn_of_version

TESTED = ("5.24.0",)
"""The versions of Transformers that the tests ran with."""


class _Place(NamedTuple):
    """Where a loss function computes its class loss: the criterion that it builds, the criterion's method, the name of the result."""

    criterion: str
    method: str
    result: str
    softmax: bool = False


PLACES = {
    "RTDetrForObjectDetectionLoss": _Place("RTDetrLoss", "loss_labels_vfl", "loss_vfl"),
    "DFineForObjectDetectionLoss": _Place("DFineLoss", "loss_labels_vfl", "loss_vfl"),
    "Deimv2ForObjectDetectionLoss": _Place("Deimv2Loss", "loss_labels_mal", "loss_mal"),
    "LwDetrForObjectDetectionLoss": _Place("LwDetrImageLoss", "loss_labels", "loss_ce"),
    "ForObjectDetectionLoss": _Place("ImageLoss", "loss_labels", "loss_ce", softmax=True),
}
"""By the name of the model's loss function."""


def use(model: nn.Module, loss: str | Callable[..., Any] | nn.Module, *, global_batch: bool = False) -> nn.Module:
    """Train the class scores of a detector of Transformers with a loss of ours; matching, boxes and the weights of the parts stay theirs.

    Every decoder layer, every layer of the denoising queries and the encoder's proposals get the loss each by itself: each is a ranking of
    its own. Matched queries are positive, and the IoU of predicted and true box is their quality: Rank & Sort sorts by it, aLRP takes ``(1
    - IoU) / (1 - 0.5)`` as the localization error and gives the part of the loss that the scores get. The weight is where it was:
    ``config.weight_loss_vfl`` (``weight_loss_mal`` for DEIMv2).

    DETR ends in a softmax with a class for no object. There the loss gets the log-odds ``log(p / (1 - p))`` of every other class, which
    are in the order of the scores at inference. Of LW-DETR and RF-DETR each group of queries is a ranking of its own.

    ``Trainer`` needs no option; its ``compute_loss_func`` is another door, which switches the denoising queries off. What
    ``save_pretrained`` writes holds nothing of ours.

    Args:
        model: with the object detection head of RT-DETR, RT-DETRv2, D-FINE, DEIMv2, DETR, LW-DETR or RF-DETR.
        loss: "rank_sort", "alrp", "ap" or another name of the catalog; a function of ``lossbox.losses``; or a module, for other options.
        global_batch: a ranking loss ranks the images of all processes as one, but for the denoising queries, which a process without boxes
            does not have.

    Returns:
        The same model, which is changed.

    Raises:
        ValueError: a loss that does not fit; a model whose loss the adapter does not know.

    Example:
        >>> from transformers import AutoModelForObjectDetection  # doctest: +SKIP
        >>> model = AutoModelForObjectDetection.from_pretrained("PekingU/rtdetr_v2_r18vd")  # doctest: +SKIP
        >>> model = use(model, "rank_sort")  # doctest: +SKIP
    """
    from transformers.loss.loss_utils import LOSS_MAPPING

    module = find_loss(loss)
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    function = LOSS_MAPPING.get(getattr(inner, "loss_type", None))
    place = PLACES.get(getattr(function, "__name__", ""))
    if place is None or not isinstance(function, FunctionType):
        known = "RT-DETR, RT-DETRv2, D-FINE, DEIMv2, DETR, LW-DETR or RF-DETR for object detection"
        raise ValueError(f"model: {known} expected, got {type(inner).__name__}")
    criterion = function.__globals__.get(place.criterion)
    if place.criterion not in function.__code__.co_names or not hasattr(criterion, place.method):
        raise ValueError(f"model: {function.__name__} of this version of transformers builds no {place.criterion}.{place.method}")
    warn_of_version("transformers", TESTED)
    inner.loss_function = _LossFunction(function, {place.criterion: _with_our_loss(criterion, place, module, global_batch)})
    return model


class _LossFunction:
    """A loss function of Transformers that finds another criterion under the name of its own. It is pickled as their function."""

    def __init__(self, function: FunctionType, replaced: dict[str, type]) -> None:
        self.theirs = function
        scope = {**function.__globals__, **replaced}
        self.ours = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.ours(*args, **kwargs)

    def __reduce__(self) -> Any:
        return copy.copy, (self.theirs,)

    def __deepcopy__(self, memo: Any) -> _LossFunction:
        return self


def _with_our_loss(criterion: Any, place: _Place, loss: LossModule, global_batch: bool) -> type:
    """The criterion with another class loss."""

    def loss_labels(self: Any, outputs: dict[str, Tensor], targets: Any, indices: Any, num_boxes: Any, **_: Any) -> dict[str, Tensor]:
        logits = outputs["logits"]
        value = query_loss(
            loss,
            log_odds(logits)[..., :-1] if place.softmax else logits,
            outputs["pred_boxes"],
            self._get_source_permutation_idx(indices),
            torch.cat([target["class_labels"][j] for target, (_, j) in zip(targets, indices, strict=True)]),
            torch.cat([target["boxes"][j] for target, (_, j) in zip(targets, indices, strict=True)]),
            num_boxes=num_boxes,
            groups=getattr(self, "group_detr", 1) if self.training else 1,
            global_batch=global_batch and not getattr(self, "denoising", False),
        )
        return {place.result: value}

    def get_cdn_matched_indices(self: Any, *args: Any) -> Any:
        self.denoising = True  # they come last, and each step has a criterion of its own
        return criterion.get_cdn_matched_indices(*args)

    return type(
        f"{place.criterion}WithOurLoss", (criterion,), {place.method: loss_labels, "get_cdn_matched_indices": get_cdn_matched_indices}
    )
