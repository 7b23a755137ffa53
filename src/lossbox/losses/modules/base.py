"""What a loss says about itself: its options, its place in the catalog, and how an objective of a detector calls it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .._groups import GroupReduction, GroupWord
from ..memory import with_memory

ClassTarget = Literal["labels", "ious", "positive ious"]


class LossModule(nn.Module):
    """A loss function together with its options, which are the fields of a dataclass: options in the constructor, tensors in the call.

    Attributes:
        function: of tensors; the options of the module are its own, with the same defaults.
        family: "classification", "class-balanced", "gradient density", "quality", "ranking", "box distance", "overlap",
            "distribution", "long tail" or "keypoints".
        range: of the mean or scalar value.
        source: the paper, and the equation where its number is known.
        tuned: the options that a user has to tune, in the sense of Table A.11 of Oksuz et al., NeurIPS 2020; those that only select a form
            are not among them.
        no_objective: where no objective takes the loss, the reason and what to use instead.
        no_derivative: where the gradient is not the derivative of the value, what it is.
    """

    function: ClassVar[Callable[..., Any]]
    family: ClassVar[str]
    range: ClassVar[str]
    source: ClassVar[str]
    tuned: ClassVar[tuple[str, ...]] = ()
    no_objective: ClassVar[str] = ""
    no_derivative: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__init__()
        # named here and not in `options`, where the compiler of torch 2.4 would have to look into `metadata`
        self._options = tuple(f.name for f in fields(self) if f.metadata.get("option", True))  # type: ignore[arg-type]

    @classmethod
    def hyperparameters(cls) -> dict[str, int | float]:
        """The options in ``tuned`` with the paper's defaults."""
        return {f.name: f.default for f in fields(cls) if f.name in cls.tuned}  # type: ignore[arg-type, misc]

    def options(self) -> dict[str, Any]:
        """The options by name, as the function takes them."""
        return {name: getattr(self, name) for name in self._options}


class ClassificationLoss(LossModule, ABC):
    """A loss that compares class scores with labels or IoUs. Subclass it for a loss of your own, or see ``CustomClassificationLoss``.

    Attributes:
        targets: what the loss takes after the logits, in order. ``"labels"``: 1 for the class of a positive, else 0. ``"ious"``: the IoU
            of the predicted box in the place of each 1. ``"positive ious"``: (P,), the IoUs of the positives alone, in the order of
            ``logits[labels == 1]``. Where an anchor is ignored, the first of them is -1.
    """

    targets: tuple[ClassTarget, ...] = ("labels",)

    @abstractmethod
    def of_batch(self, logits: Tensor, *targets: Tensor, num_positives: Tensor, global_batch: bool) -> Tensor:
        """One scalar for a batch of images.

        Args:
            logits: (images, anchors, classes) scores before the sigmoid, in float32 or better.
            targets: one tensor for each of the attribute ``targets``.
            num_positives: a scalar >= 1/number of processes, what a sum over the scores is divided by.
            global_batch: in distributed training a ranking takes in the batches of all processes.
        """


class ElementwiseLoss(ClassificationLoss):
    """One value per score; their sum is divided by the number of positives."""

    def forward(self, logits: Tensor, *targets: Tensor, weight: Tensor | None = None, normalizer: float | Tensor | None = None) -> Tensor:
        loss: Tensor = self.function(logits, *targets, weight=weight, normalizer=normalizer, **self.options())
        return loss

    def of_batch(self, logits: Tensor, *targets: Tensor, num_positives: Tensor, global_batch: bool) -> Tensor:
        loss: Tensor = self(logits, *targets, normalizer=num_positives)
        return loss


class BatchLoss(ClassificationLoss):
    """One value of all scores of a process; it knows no global batch."""

    def forward(self, logits: Tensor, *targets: Tensor) -> Tensor:
        loss: Tensor = self.function(logits, *targets, **self.options())
        return loss

    def of_batch(self, logits: Tensor, *targets: Tensor, num_positives: Tensor, global_batch: bool) -> Tensor:
        loss: Tensor = self(logits, *targets)
        return loss


class ImageLoss(ClassificationLoss):
    """One value per image; the loss is their mean."""

    def forward(self, logits: Tensor, *targets: Tensor) -> Tensor:
        loss: Tensor = self.function(logits, *targets, **self.options())
        return loss

    def of_batch(self, logits: Tensor, *targets: Tensor, num_positives: Tensor, global_batch: bool) -> Tensor:
        return torch.stack([self(*of_image) for of_image in zip(logits, *targets, strict=True)]).mean()


@dataclass(kw_only=True, eq=False)
class GroupedLoss(LossModule):
    """A loss that ranks all scores against each other, or each group of them by itself.

    The option ``groups`` is a word; groups of any other kind are keys, which go into the call. With ``memory`` the scores of so many of the
    last steps are ranked together with those of the call, see ``ScoreMemory``.
    """

    no_derivative = "the gradient is defined by the error-driven update"
    groups: GroupWord | None = None
    group_reduction: GroupReduction = "mean"
    memory: int = field(default=0, metadata={"option": False})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._rank = with_memory(self.function, self.memory, self.groups)

    def ranked(self, *tensors: Tensor, groups: Tensor | None, **over: Any) -> Any:
        """What the function returns, with the keys of a call in the place of the word.

        Raises:
            ValueError: there are both.
        """
        if groups is not None and self.groups is not None:
            raise ValueError(f"groups: the option {self.groups!r} or keys in the call expected, got both")
        return self._rank(*tensors, **self.options() | over | ({} if groups is None else {"groups": groups}))


class RankingLoss(GroupedLoss, ClassificationLoss):
    """One value of all scores."""

    def forward(self, logits: Tensor, *targets: Tensor, global_batch: bool = False, groups: Tensor | None = None) -> Tensor:
        loss: Tensor = self.ranked(logits, *targets, groups=groups, global_batch=global_batch)
        return loss

    def of_batch(self, logits: Tensor, *targets: Tensor, num_positives: Tensor, global_batch: bool) -> Tensor:
        loss: Tensor = self(logits, *targets, global_batch=global_batch)
        return loss


class BoxLoss(LossModule):
    """A loss that compares the predicted boxes of the positives with their targets. See ``CustomBoxLoss`` for a loss of your own.

    Attributes:
        compares: ``"deltas"``: offsets in the units of the box coder, (P, 4), one value per coordinate. ``"boxes"``: decoded boxes
            ``x1 y1 x2 y2`` in pixels, (P, 4), one value per box.
    """

    compares: Literal["deltas", "boxes"] = "deltas"

    @property
    def largest(self) -> float:
        """The greatest value that a box or coordinate can have; infinite for most."""
        return float(self.range.strip("[]()").split(",")[1])

    def forward(self, input: Tensor, target: Tensor, *, weight: Tensor | None = None, normalizer: float | Tensor | None = None) -> Tensor:
        loss: Tensor = self.function(input, target, weight=weight, normalizer=normalizer, **self.options())
        return loss

    def of_positives(self, input: Tensor, target: Tensor, *, num_positives: Tensor) -> Tensor:
        """One scalar for the positives of a batch: the sum, divided by their number."""
        loss: Tensor = self(input, target, normalizer=num_positives)
        return loss

    def elementwise(self, input: Tensor, target: Tensor) -> Tensor:
        """Without reduction: a value per coordinate or per box."""
        loss: Tensor = self.function(input, target, **{**self.options(), "reduction": "none"})
        return loss
