"""What a detector that predicts boxes as distributions adds to its loss."""

from __future__ import annotations

import torch

from ..boxes._dtype import upcast
from ..losses import distribution_focal_loss
from ..records import Assignment, RawPredictions, Targets
from .base import Objective, Part
from .positives import find_positives, global_count


class WithDistribution(Objective):
    """Any objective, and a further part: distribution focal loss of the four sides of each positive.

    ``L_distribution = 1/max(|P|, 1) sum over positives of the mean of DFL over the four sides``, with the distances that the coder encodes.
    In distributed training ``max(|P|, 1)`` is that of all processes over their number. The published code also weighs each positive by its
    score; here all weigh the same.

    Args:
        objective: gives the other parts; any of ``lossbox.objective``. Its box loss sees the mean of each distribution.
        distribution_weight: >= 0.

    Raises:
        ValueError: a weight out of its range; in ``forward``, predictions without distributions.

    Source:
        Li et al., Generalized Focal Loss, NeurIPS 2020, Eqs. (6) and (8); the weight 1/4 is that of Sec. 3.

    Example:
        >>> from lossbox.boxes import DistanceCoder
        >>> from lossbox.objective import SeparateObjective
        >>> cells = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.]])
        >>> bins = torch.zeros(1, 2, 4, 3)
        >>> raw = RawPredictions(torch.zeros(1, 2, 1), bins.mean(-1), cells, (2,), DistanceCoder(2), distribution=bins)
        >>> box = Targets(torch.tensor([[0., 0., 10., 8.]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> WithDistribution(SeparateObjective())(raw, Assignment(torch.tensor([[0, -1]])), [box])["distribution"]
        Part(value=tensor(1.0986), weight=0.25)
    """

    tuned = ("distribution_weight",)

    def __init__(self, objective: Objective, *, distribution_weight: float = 0.25) -> None:
        super().__init__()
        if not 0 <= distribution_weight < float("inf"):
            raise ValueError(f"distribution_weight: a finite number >= 0 expected, got {distribution_weight}")
        self.objective = objective
        self.distribution_weight = distribution_weight

    def forward(self, predictions: RawPredictions, assignment: Assignment, targets: list[Targets]) -> dict[str, Part]:
        """The parts of the other objective, and ``"distribution"``, a scalar in [0, inf): 0 without positives."""
        if predictions.distribution is None:
            raise ValueError("predictions.distribution: this objective needs a detector that predicts it, as FCOS(bins=17) does, got None")
        parts: dict[str, Part] = self.objective(predictions, assignment, targets)
        with torch.autocast(predictions.logits.device.type, enabled=False):
            positives = find_positives(predictions, assignment, targets)
            logits = upcast(predictions.distribution[positives.image, positives.anchor])
            distances = predictions.coder.encode(positives.boxes, positives.anchors).to(logits.dtype)
            count = 4 * global_count(logits, training=self.training)
            loss = distribution_focal_loss(logits.flatten(0, 1), distances.flatten(), normalizer=count)
        return {**parts, "distribution": Part(loss, self.distribution_weight)}

    def end_epoch(self) -> None:
        """The other objective's period ends."""
        self.objective.end_epoch()
