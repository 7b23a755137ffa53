"""What FCOS adds to the loss of a detector."""

from __future__ import annotations

import torch

from ..boxes import centerness_targets
from ..boxes._dtype import upcast
from ..losses import sigmoid_cross_entropy_loss
from ..records import Assignment, RawPredictions, Targets
from .base import Objective, Part
from .positives import find_positives, global_count


class WithCenterness(Objective):
    """Any objective, and a third part: the cross-entropy of the centerness that the detector says at the positives.

    ``L_centerness = 1/max(|P|, 1) sum over positives of CE(centerness, sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)))``. In
    distributed training ``max(|P|, 1)`` is that of all processes over their number.

    Args:
        objective: gives the other parts; any of ``lossbox.objective``.
        centerness_weight: >= 0.

    Raises:
        ValueError: a weight out of its range; in ``forward``, predictions without centerness.

    Source:
        Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, ICCV 2019, Eqs. (2) and (3).

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> from lossbox.objective import SeparateObjective
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.]])
        >>> raw = RawPredictions(torch.zeros(1, 2, 1), torch.zeros(1, 2, 4), anchors, (2,), DeltaCoder(), centerness=torch.zeros(1, 2))
        >>> box = Targets(torch.tensor([[0., 0., 10., 8.]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> WithCenterness(SeparateObjective())(raw, Assignment(torch.tensor([[0, -1]])), [box])["centerness"]
        Part(value=tensor(0.6931), weight=1.0)
    """

    tuned = ("centerness_weight",)

    def __init__(self, objective: Objective, *, centerness_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= centerness_weight < float("inf"):
            raise ValueError(f"centerness_weight: a finite number >= 0 expected, got {centerness_weight}")
        self.objective = objective
        self.centerness_weight = centerness_weight

    def forward(self, predictions: RawPredictions, assignment: Assignment, targets: list[Targets]) -> dict[str, Part]:
        """The parts of the other objective, and ``"centerness"``, a scalar in [0, inf): 0 without positives."""
        if predictions.centerness is None:
            raise ValueError("predictions.centerness: this objective needs a detector that says it, as FCOS does, got None")
        parts: dict[str, Part] = self.objective(predictions, assignment, targets)
        with torch.autocast(predictions.logits.device.type, enabled=False):
            positives = find_positives(predictions, assignment, targets)
            logits = upcast(predictions.centerness[positives.image, positives.anchor])
            centers = (positives.anchors[:, :2] + positives.anchors[:, 2:]) / 2
            count = global_count(logits, training=self.training)
            loss = sigmoid_cross_entropy_loss(logits, centerness_targets(centers, positives.boxes), normalizer=count)
        return {**parts, "centerness": Part(loss, self.centerness_weight)}

    def end_epoch(self) -> None:
        """The other objective's period ends."""
        self.objective.end_epoch()
