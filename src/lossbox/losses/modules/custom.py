"""Functions of your own, or of another library, as losses that an objective takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from .._checks import check_finite
from .._reduce import find_ignored, reduce_loss, set_aside
from .base import BoxLoss, ClassificationLoss


class CustomClassificationLoss(ClassificationLoss):
    """Any function with one value per score as a classification loss: the sum of the values, divided by the number of positives.

    Args:
        function: ``function(logits, *targets)``, without reduction: a tensor of the shape of ``logits``. A function or an ``nn.Module``.
        targets: what it takes after the logits: ``"labels"`` (1 for the class of a positive, else 0), ``"ious"`` (the IoU of the predicted
            box in the place of each 1), or both, in this order of yours. Ignored anchors are left out here and never reach the function.

    Raises:
        ValueError: targets other than these; in the call, a result of another shape than the logits.

    Example:
        >>> import torch, torchvision
        >>> loss = CustomClassificationLoss(torchvision.ops.sigmoid_focal_loss)
        >>> loss(torch.tensor([0.0, 2.0, 9.0]), torch.tensor([1.0, 0.0, -1.0]), normalizer=1)
        tensor(1.2809)
    """

    def __init__(self, function: Callable[..., Any], *, targets: tuple[Literal["labels", "ious"], ...] = ("labels",)) -> None:
        nn.Module.__init__(self)
        if not targets or not set(targets) <= {"labels", "ious"}:
            raise ValueError(f"targets: 'labels', 'ious' or both expected, got {targets}")
        self.values = function
        self.targets = tuple(targets)

    def forward(self, logits: Tensor, *targets: Tensor, weight: Tensor | None = None, normalizer: float | Tensor | None = None) -> Tensor:
        ignored = find_ignored(targets[0], soft=self.targets[0] == "ious")
        check_finite(ignored, logits=logits)
        values = self.values(*(set_aside(tensor, ignored) for tensor in (logits, *targets)))
        _check_shape(values, logits.shape, "score")
        return reduce_loss(set_aside(values, ignored), weight=weight, normalizer=normalizer, ignored=ignored)

    def of_batch(self, logits: Tensor, *targets: Tensor, num_positives: Tensor, global_batch: bool) -> Tensor:
        loss: Tensor = self(logits, *targets, normalizer=num_positives)
        return loss


class CustomBoxLoss(BoxLoss):
    """Any function of two boxes or offsets as a box loss: the sum of its values, divided by the number of positives.

    Args:
        function: ``function(input, target)`` of (P, 4) tensors, without reduction: (P, 4) values where it compares deltas, (P,) where it
            compares boxes. A function or an ``nn.Module``.
        compares: ``"deltas"``: offsets in the units of the box coder. ``"boxes"``: decoded boxes ``x1 y1 x2 y2`` in pixels.
        largest: the greatest value that a box can have, where there is one; ``ALRPObjective`` needs it.

    Raises:
        ValueError: an option out of its range; in the call, a result of another shape.

    Example:
        >>> import torch, torchvision
        >>> loss = CustomBoxLoss(torchvision.ops.complete_box_iou_loss, compares="boxes", largest=3.0)
        >>> loss(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 8.0]]), normalizer=1)
        tensor(0.2051)
    """

    def __init__(self, function: Callable[..., Any], *, compares: Literal["deltas", "boxes"], largest: float = float("inf")) -> None:
        nn.Module.__init__(self)
        if compares not in ("deltas", "boxes"):
            raise ValueError(f"compares: 'deltas' or 'boxes' expected, got {compares!r}")
        if not largest > 0:
            raise ValueError(f"largest: a number > 0 expected, got {largest}")
        self.values = function
        self.compares = compares
        self._largest = largest

    @property
    def largest(self) -> float:
        return self._largest

    def forward(self, input: Tensor, target: Tensor, *, weight: Tensor | None = None, normalizer: float | Tensor | None = None) -> Tensor:
        return reduce_loss(self.elementwise(input, target), weight=weight, normalizer=normalizer)

    def elementwise(self, input: Tensor, target: Tensor) -> Tensor:
        check_finite(input=input, target=target)
        values: Tensor = self.values(input, target)
        _check_shape(values, input.shape if self.compares == "deltas" else input.shape[:1], self.compares)
        return values


def _check_shape(values: Tensor, shape: tuple[int, ...], what: str) -> None:
    if values.shape != shape:
        raise ValueError(f"function: a value per {what}, of shape {tuple(shape)}, without reduction expected, got {tuple(values.shape)}")
