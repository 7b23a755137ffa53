"""The modules of the losses that rank the scores of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .. import pairwise, ranking
from .base import BatchLoss, GroupedLoss, RankingLoss


@dataclass(kw_only=True, eq=False)
class APLoss(RankingLoss):
    """Module of ``ap_loss``: called with logits and targets of one shape; -1 is ignored."""

    function = staticmethod(ranking.ap_loss)
    family = "ranking"
    range = "[0, 1]"
    source = "Chen et al., AP-Loss, TPAMI 2020 (CVPR 2019), Eqs. (4)-(7)"
    tuned = ("delta",)
    delta: float = 1.0
    interpolated: bool = False


@dataclass(kw_only=True, eq=False)
class NDCGLoss(RankingLoss):
    """Module of ``ndcg_loss``: called with logits and targets of one shape; -1 is ignored."""

    function = staticmethod(ranking.ndcg_loss)
    family = "ranking"
    range = "[0, 1]"
    source = "Oksuz et al., A Ranking-based, Balanced Loss Function, NeurIPS 2020, Appendix D"
    tuned = ("delta",)
    delta: float = 1.0


@dataclass(kw_only=True, eq=False)
class ALRPLoss(GroupedLoss):
    """Module of ``alrp_loss``: called with logits and targets of one shape and the positives' (p,) localization errors; -1 is ignored."""

    no_objective = "it ranks scores and boxes at once: take ALRPObjective"
    function = staticmethod(ranking.alrp_loss)
    family = "ranking"
    range = "[0, 1] where the localization errors are"
    source = "Oksuz et al., A Ranking-based, Balanced Loss Function, NeurIPS 2020, Eqs. (9)-(13)"
    tuned = ("delta",)
    delta: float = 1.0
    smooth_localization: bool = False

    def forward(
        self, logits: Tensor, targets: Tensor, localization_error: Tensor, *, global_batch: bool = False, groups: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        loss: tuple[Tensor, Tensor] = self.ranked(logits, targets, localization_error, groups=groups, global_batch=global_batch)
        return loss


@dataclass(kw_only=True, eq=False)
class RankSortLoss(GroupedLoss):
    """Module of ``rank_sort_loss``: called with logits and targets of one shape and the (p,) qualities of the positives; -1 is ignored."""

    no_objective = "it has two parts: take RankSortObjective"
    function = staticmethod(ranking.rank_sort_loss)
    family = "ranking"
    range = "[0, 1] each part"
    source = "Oksuz et al., Rank & Sort Loss, ICCV 2021, Eqs. (3)-(11)"
    tuned = ("delta",)
    delta: float = 0.5

    def forward(
        self, logits: Tensor, targets: Tensor, quality: Tensor, *, global_batch: bool = False, groups: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        loss: tuple[Tensor, Tensor] = self.ranked(logits, targets, quality, groups=groups, global_batch=global_batch)
        return loss


@dataclass(kw_only=True, eq=False)
class APELoss(GroupedLoss, BatchLoss):
    """Module of ``ape_loss``: called with logits and targets of one shape and the (p,) qualities of the positives; -1 is ignored."""

    targets = ("labels", "positive ious")
    no_derivative = "the rank takes no gradient"
    function = staticmethod(pairwise.ape_loss)
    family = "ranking"
    range = "[0, inf)"
    source = "Xu et al., Revisiting AP Loss, CVPR 2022 (arXiv:2207.12042), as in the authors' code"
    tuned = ("sharpness",)
    sharpness: float = 4.0
    cutoff: float = 4.0

    def forward(self, logits: Tensor, *targets: Tensor, groups: Tensor | None = None) -> Tensor:
        loss: Tensor = self.ranked(logits, *targets, groups=groups)
        return loss
