"""What is watched at every step: a loss that is not finite, and how hard it pushes negatives and positives."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..records import Assignment, Targets


class LossWatch:
    """Names the first step whose loss is not finite, and reads the device only when asked to look.

    Example:
        >>> watch = LossWatch()
        >>> watch.add(3, [17, 4], {"classification": torch.tensor(0.5), "localization": torch.tensor(float("nan"))})
        >>> watch.look()
        Traceback (most recent call last):
        ValueError: the loss of step 3 is not finite: localization = nan (classification = 0.5); images of the batch: 17, 4
    """

    def __init__(self) -> None:
        self._seen: list[tuple[int, list[int], dict[str, Tensor]]] = []

    def add(self, step: int, image_ids: list[int], parts: Mapping[str, Tensor]) -> None:
        """Remembers the parts of one step; no host sync."""
        self._seen.append((step, image_ids, {name: part.detach() for name, part in parts.items()}))

    def look(self) -> None:
        """Reads everything remembered since the last look, in one transfer.

        Raises:
            ValueError: a part of some step is NaN or infinite; names the step, the part and the images.
        """
        seen, self._seen = self._seen, []
        if not seen:
            return
        values = torch.stack([part.float() for _, _, parts in seen for part in parts.values()]).tolist()
        for step, image_ids, parts in seen:
            row, values = dict(zip(parts, values, strict=False)), values[len(parts) :]
            bad = ", ".join(f"{name} = {value:g}" for name, value in row.items() if not math.isfinite(value))
            good = ", ".join(f"{name} = {value:g}" for name, value in row.items() if math.isfinite(value))
            if bad:
                raise ValueError(
                    f"the loss of step {step} is not finite: {bad}" + (f" ({good})" if good else "") + "; images of the batch: "
                    f"{', '.join(map(str, image_ids))}"
                )


def gradient_balance(gradient: Tensor, assignment: Assignment, targets: list[Targets]) -> Tensor:
    """How hard the loss pushes the negatives down, over how hard it pushes the positives up.

    ``sum over negatives of |dL/ds| / sum over positives of |dL/ds|``; 1 for the ranking losses (Theorem 2 of arXiv 2009.13592).

    Args:
        gradient: (b, a, C), the gradient at the logits.
        assignment: says which (image, anchor) is matched; its class is the positive logit, all others of the anchor are negatives.
        targets: one record per image.

    Returns:
        A scalar >= 0; NaN where the batch has no positive or its positives have no gradient.

    Example:
        >>> one = Targets(torch.zeros(1, 4), torch.tensor([1]), torch.tensor([False]), 0, (8, 8), (8, 8))
        >>> g = torch.tensor([[[0.1, -0.4], [0.2, 0.3]]])
        >>> gradient_balance(g, Assignment(torch.tensor([[0, -1]])), [one])
        tensor(1.5000)
    """
    return gradient_ratio(gradient_magnitudes(gradient, assignment, targets))


def gradient_magnitudes(gradient: Tensor, assignment: Assignment, targets: list[Targets]) -> Tensor:
    """(2,) summed magnitudes over the negatives and over the positives."""
    magnitude = gradient.detach().float().abs()
    positive = magnitude.new_zeros(())
    for of_image, matched, target in zip(magnitude, assignment.matched, targets, strict=True):
        if len(target.labels):
            labels = target.labels[matched.clamp(min=0)]
            positive = positive + (of_image.gather(1, labels[:, None])[:, 0] * (matched >= 0)).sum()
    return torch.stack([magnitude.sum() - positive, positive])


def gradient_ratio(magnitudes: Tensor) -> Tensor:
    negative, positive = magnitudes
    return torch.where(positive > 0, negative / positive, torch.nan)
