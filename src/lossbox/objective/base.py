"""What an objective is: the contract that training relies on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..losses import CATALOG, BoxLoss, ClassificationLoss, LossModule
from ..records import Assignment, RawPredictions, Targets

Loss = TypeVar("Loss", bound=LossModule)


class Part(NamedTuple):
    """One part of a loss.

    Attributes:
        value: a scalar, unweighted.
        weight: what training multiplies it with, without gradient unless the weight is learned.
    """

    value: Tensor
    weight: Tensor | float = 1.0


class Objective(nn.Module, ABC):
    """Turns raw predictions and their assignment into the named parts of a loss.

    Training calls it once per step, backpropagates ``weighted_sum`` of what it returns, and calls ``end_epoch`` after each epoch. What an
    objective remembers is in its buffers and what it learns in its parameters, so that both are saved with a checkpoint.

    Attributes:
        tuned: its own options that a user has to tune, beside those of its losses, in the sense of Table 1 of Oksuz et al., NeurIPS 2020.
    """

    tuned: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, predictions: RawPredictions, assignment: Assignment, targets: list[Targets]) -> dict[str, Part]:
        """The parts of the loss of one batch by name.

        They are computed in float32 or better, also under autocast. The names are the same for every batch; without positives the parts
        that need some are 0 with a live graph. In evaluation mode nothing is remembered and no other process is waited for.

        Args:
            predictions: of b images.
            assignment: of their anchors.
            targets: their boxes, one record per image.

        Raises:
            ValueError: an assignment or targets of another batch.
        """

    def end_epoch(self) -> None:
        """Called after each epoch; does nothing unless a weight follows from the epoch."""


def weighted_sum(parts: Mapping[str, Part]) -> Tensor:
    """What training minimizes.

    Example:
        >>> weighted_sum({"classification": Part(torch.tensor(0.5)), "localization": Part(torch.tensor(0.1), 20.0)})
        tensor(2.5000)
    """
    return torch.stack([part.weight * part.value for part in parts.values()]).sum()


def check_classification_loss(loss: Any) -> ClassificationLoss:
    """The loss itself; ValueError with the reason where it is none of class scores."""
    if isinstance(loss, BoxLoss):
        raise ValueError(f"classification: {type(loss).__name__} compares {loss.compares}; it is a loss for localization")
    if not isinstance(loss, ClassificationLoss):
        raise ValueError(f"classification: {_why_not(loss, 'ClassificationLoss')}")
    return _check_reduction("classification", loss)


def check_box_loss(loss: Any) -> BoxLoss:
    """The loss itself; ValueError with the reason where it is none of boxes."""
    if isinstance(loss, ClassificationLoss):
        raise ValueError(f"localization: {type(loss).__name__} compares class scores; it is a loss for classification")
    if not isinstance(loss, BoxLoss):
        raise ValueError(f"localization: {_why_not(loss, 'BoxLoss')}")
    return _check_reduction("localization", loss)


def _why_not(loss: Any, expected: str) -> str:
    name = getattr(loss, "__name__", type(loss).__name__)
    if isinstance(loss, LossModule):
        return f"no objective takes {name}: {loss.no_objective}"
    if isinstance(loss, type) and issubclass(loss, LossModule):
        return f"a loss expected, got its class: {name}()"
    for module in CATALOG.values():
        if loss is module.function:
            return f"a module expected, got the function {name}: lossbox.losses.{module.__name__}() is its module"
    return f"a lossbox.losses.{expected} expected, got {name}; lossbox.losses.Custom{expected} makes one of a function of yours"


def _check_reduction(argument: str, loss: Loss) -> Loss:
    reduction = getattr(loss, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(f"{argument}: reduction 'mean' expected, since the objective decides what is summed, got {reduction!r}")
    return loss
