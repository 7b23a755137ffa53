"""From raw predictions and their assignment to the named parts of a loss.

An objective is an ``nn.Module``: ``forward`` returns the parts *unweighted*, ``weights()`` what training multiplies them with (the same
keys), ``end_epoch()`` closes the period of whatever it remembers. It computes in float32 or better, also under autocast, and gives 0 with a
live graph and the same keys where a batch has no positive.
"""

from .centerness import WithCenterness
from .positives import Positives, class_targets, find_positives
from .ranking import ALRPObjective, RankSortObjective
from .separate import SeparateObjective

__all__ = ["ALRPObjective", "Positives", "RankSortObjective", "SeparateObjective", "WithCenterness", "class_targets", "find_positives"]
