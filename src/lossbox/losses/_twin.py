"""What the module twins have in common: a function, and its options as the fields of a dataclass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar

from torch import Tensor, nn


class Twin(nn.Module):
    """A loss function together with its options, which are the fields of the dataclass."""

    function: ClassVar[Callable[..., Any]]

    def __post_init__(self) -> None:
        super().__init__()

    def options(self) -> dict[str, Any]:
        """The options by name, as the function takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("option", True)}  # type: ignore[arg-type]


class ElementwiseTwin(Twin):
    """Of a loss of two tensors that is reduced by ``reduce_loss``."""

    def forward(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor | None = None, normalizer: float | Tensor | None = None
    ) -> Tensor:
        loss: Tensor = self.function(prediction, target, weight=weight, normalizer=normalizer, **self.options())
        return loss


class QualityTwin(Twin):
    """Of a loss of logits, targets and qualities that is reduced by ``reduce_loss``."""

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        quality: Tensor,
        *,
        weight: Tensor | None = None,
        normalizer: float | Tensor | None = None,
    ) -> Tensor:
        loss: Tensor = self.function(logits, targets, quality, weight=weight, normalizer=normalizer, **self.options())
        return loss


class ImageTwin(Twin):
    """Of a loss of the logits and targets of one image that has one value."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = self.function(logits, targets, **self.options())
        return loss


class RankingTwin(Twin):
    """Of a loss that ranks all logits against each other and has one value."""

    def forward(self, logits: Tensor, targets: Tensor, *, global_batch: bool = False) -> Tensor:
        loss: Tensor = self.function(logits, targets, global_batch=global_batch, **self.options())
        return loss
