"""A loss of class scores in the training of Ultralytics' YOLO detectors (YOLOv8 to YOLO26).

Ultralytics is licensed under AGPL-3.0. This module does not import it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..losses import LossModule
from ._scores import find_loss, score_loss, warn_of_version

TESTED = ("8.4.190",)
"""The versions of Ultralytics that the tests ran with."""


def use(model: Any, loss: str | Callable[..., Any] | nn.Module, *, global_batch: bool = False) -> Any:
    """Train the class scores of a YOLO detector with a loss of ours; the boxes keep theirs.

    Positives are the (anchor, class) pairs to which the task-aligned assigner gives a target above 0, and that target, an IoU weighted by
    how well the pair is aligned, is their quality: Rank & Sort sorts by it, aLRP takes ``(1 - quality) / (1 - 0.5)`` as the localization
    error and gives the part of the loss that the scores get. The loss takes the place of binary cross-entropy when the training starts; the
    gain ``cls`` multiplies it and wants another value. YOLO26 has two heads, which are ranked each by itself.

    Validation shows Ultralytics' own loss, and their checkpoints hold nothing of ours. The call has to be repeated for a training that is
    resumed in a new process.

    Args:
        model: an ``ultralytics.YOLO`` or a trainer of the task "detect", before ``train``.
        loss: "rank_sort", "alrp", "ap" or another name of the catalog; a function of ``lossbox.losses``; or a module, for other options.
        global_batch: a ranking loss ranks the batches of all processes as one.

    Returns:
        The same model, which is changed.

    Raises:
        ValueError: a loss that does not fit; another task; when the training starts, a model or an option (``cls_pw``) that the adapter
            does not know.

    Example:
        >>> from ultralytics import YOLO  # doctest: +SKIP
        >>> model = YOLO("yolo11n.yaml")  # doctest: +SKIP
        >>> model = use(model, "rank_sort")  # doctest: +SKIP
        >>> model.train(data="data.yaml", cls=1.0)  # doctest: +SKIP
    """
    module = find_loss(loss)
    if not hasattr(model, "add_callback"):
        raise ValueError(f"model: an ultralytics.YOLO or a trainer of Ultralytics expected, got {type(model).__name__}")
    task = getattr(model, "task", None) or getattr(getattr(model, "args", None), "task", "detect")
    if task != "detect":
        raise ValueError(f"model: the task 'detect' expected, got {task!r}")
    warn_of_version("ultralytics", TESTED)
    model.add_callback("on_train_start", _Attach(module, global_batch))
    return model


class _Attach:
    """The callback; Ultralytics pickles it for the processes of a distributed job."""

    def __init__(self, loss: LossModule, global_batch: bool) -> None:
        self.loss = loss
        self.global_batch = global_batch

    def __call__(self, trainer: Any) -> None:
        model = trainer.model.module if hasattr(trainer.model, "module") else trainer.model
        if getattr(model, "criterion", None) is None:  # a resumed YOLO26 has one, with its schedule
            model.criterion = model.init_criterion()
        for name, criterion in _detection_criteria(model.criterion).items():
            if getattr(criterion, "class_weights", None) is not None:
                raise ValueError(f"cls_pw: weights of classes have no place in {type(self.loss).__name__}; set it to 0")
            if type(getattr(criterion, "bce", None)) not in (nn.BCEWithLogitsLoss, _InPlaceOfBCE):
                raise ValueError(f"model: {name}.bce of {type(model).__name__} is {criterion.bce!r}, nn.BCEWithLogitsLoss expected")
            criterion.bce = _InPlaceOfBCE(self.loss, self.global_batch)


def _detection_criteria(criterion: Any) -> dict[str, Any]:
    """The parts of a criterion that compare class scores, by name."""
    parts = {"criterion": criterion}
    if type(criterion).__name__ in ("E2ELoss", "E2EDetectLoss"):
        parts = {f"criterion.{name}": getattr(criterion, name) for name in ("one2many", "one2one")}
    for name, part in parts.items():
        if type(part).__name__ != "v8DetectionLoss":
            raise ValueError(f"model: {name} is a {type(part).__name__}; known are v8DetectionLoss, alone or as the two parts of E2ELoss")
    return parts


class _InPlaceOfBCE:
    """Called with (b, a, C) logits and soft targets; the caller divides the sum of what comes by ``max(targets.sum(), 1)``."""

    def __init__(self, loss: LossModule, global_batch: bool) -> None:
        self.loss = loss
        self.global_batch = global_batch

    def __call__(self, logits: Tensor, soft_targets: Tensor) -> Tensor:
        positive = soft_targets > 0
        quality, count = soft_targets[positive].clamp(max=1), soft_targets.float().sum().clamp(min=1)
        value = score_loss(self.loss, logits, positive.to(soft_targets.dtype), quality, num_positives=count, global_batch=self.global_batch)
        return value * count.to(value.dtype)
