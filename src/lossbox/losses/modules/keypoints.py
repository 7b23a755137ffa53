"""The modules of the losses of keypoints."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .. import keypoints
from .._reduce import Reduction
from .base import LossModule


@dataclass(kw_only=True, eq=False)
class KeypointFocalLoss(LossModule):
    """Module of ``keypoint_focal_loss``: called with logits and heat of one shape; -1 is ignored."""

    no_objective = "its targets are heat maps: CenterPointObjective draws them"
    function = staticmethod(keypoints.keypoint_focal_loss)
    family = "keypoints"
    range = "[0, inf)"
    source = "Law and Deng, CornerNet, ECCV 2018, Eq. (1)"
    tuned = ("alpha", "beta")
    alpha: float = 2.0
    beta: float = 4.0
    reduction: Reduction = "mean"

    def forward(self, logits: Tensor, heat: Tensor, *, weight: Tensor | None = None, normalizer: float | Tensor | None = None) -> Tensor:
        loss: Tensor = self.function(logits, heat, weight=weight, normalizer=normalizer, **self.options())
        return loss


@dataclass(kw_only=True, eq=False)
class PullLoss(LossModule):
    """Module of ``pull_loss``: called with (n, k) embeddings."""

    no_objective = "no detector here predicts embeddings"
    function = staticmethod(keypoints.pull_loss)
    family = "keypoints"
    range = "[0, inf)"
    source = "Law and Deng, CornerNet, ECCV 2018, Eq. (4)"

    def forward(self, embeddings: Tensor) -> Tensor:
        loss: Tensor = self.function(embeddings)
        return loss


@dataclass(kw_only=True, eq=False)
class PushLoss(LossModule):
    """Module of ``push_loss``: called with the (n, k) embeddings of one image."""

    no_objective = "no detector here predicts embeddings"
    function = staticmethod(keypoints.push_loss)
    family = "keypoints"
    range = "[0, inf)"
    source = "Law and Deng, CornerNet, ECCV 2018, Eq. (5)"
    tuned = ("margin",)
    margin: float = 1.0

    def forward(self, embeddings: Tensor) -> Tensor:
        loss: Tensor = self.function(embeddings, **self.options())
        return loss


@dataclass(kw_only=True, eq=False)
class OffsetLoss(LossModule):
    """Module of ``offset_loss``: called with (n, 2) offsets and points."""

    no_objective = "it compares offsets with keypoints: CenterPointObjective has an L1 loss of its own"
    function = staticmethod(keypoints.offset_loss)
    family = "keypoints"
    range = "[0, inf)"
    source = "Law and Deng, CornerNet, ECCV 2018, Eqs. (2) and (3)"
    tuned = ("beta",)
    stride: float = 4.0
    beta: float = 1.0
    reduction: Reduction = "mean"

    def forward(
        self, input: Tensor, keypoints: Tensor, *, weight: Tensor | None = None, normalizer: float | Tensor | None = None
    ) -> Tensor:
        loss: Tensor = self.function(input, keypoints, weight=weight, normalizer=normalizer, **self.options())
        return loss
