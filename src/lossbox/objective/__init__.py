"""From raw predictions and their assignment to the named parts of a loss, each with its weight. ``Objective`` is the contract."""

from .base import Objective, Part, weighted_sum
from .center_point import CenterPointObjective
from .centerness import WithCenterness
from .distribution import WithDistribution
from .free_anchor import FreeAnchorObjective
from .positives import Positives, class_targets, find_positives
from .ranking import ALRPObjective, RankSortObjective
from .separate import SeparateObjective

__all__ = [
    "ALRPObjective",
    "CenterPointObjective",
    "FreeAnchorObjective",
    "Objective",
    "Part",
    "Positives",
    "RankSortObjective",
    "SeparateObjective",
    "WithCenterness",
    "WithDistribution",
    "class_targets",
    "find_positives",
    "weighted_sum",
]
