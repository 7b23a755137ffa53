"""What there is to choose from: the module of every loss by the name of its function.

A module says what there is to know about its loss: the function, its family, range and source, and what has to be tuned.
"""

from __future__ import annotations

from collections.abc import Sequence

from .modules import boxes, classification, density, distributions, iou_variants, keypoints, long_tail, ranking
from .modules.base import LossModule

CATALOG: dict[str, type[LossModule]] = {
    loss.function.__name__: loss
    for file in (classification, long_tail, density, ranking, boxes, iou_variants, distributions, keypoints)
    for loss in vars(file).values()
    if isinstance(loss, type) and issubclass(loss, LossModule) and "function" in vars(loss)
}
"""Every loss, family by family."""


def count_hyperparameters(*terms: str | Sequence[str]) -> int:
    """How many numbers a sum of losses asks to be tuned: those of each loss, and a weight for each term but the first.

    Args:
        terms: keys of ``CATALOG``, or a sequence of keys where several losses share a weight.

    Raises:
        ValueError: a loss that is not in the catalog.

    Source:
        Oksuz et al., NeurIPS 2020, Tables 1 and A.11.

    Example:
        >>> count_hyperparameters("alrp_loss"), count_hyperparameters("focal_loss", "smooth_l1_loss")
        (1, 4)
        >>> count_hyperparameters(("offset_loss", "offset_loss"), "push_loss")
        4
    """
    losses = [name for term in terms for name in ((term,) if isinstance(term, str) else term)]
    for name in losses:
        if name not in CATALOG:
            raise ValueError(f"losses: names of the catalog expected, got {name!r}")
    return sum(len(CATALOG[name].hyperparameters()) for name in losses) + max(len(terms) - 1, 0)
