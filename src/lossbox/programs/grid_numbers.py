"""The numbers that a training will have, before it: what a study names is compared with them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ..analysis import Numbers, Run, with_step_numbers
from ..analysis.summary import THIRDS

if TYPE_CHECKING:
    from ..training.task import DetectionTask

OF_TRAINING = ("minutes", "cpu_minutes", "epochs", "steps")
"""Of run.json."""


@functools.cache
def of_validation() -> frozenset[str]:
    """What a validation measures, and the bounds of re-scoring, by measuring nothing."""
    import numpy as np

    from ..metrics import DetectionColumns, average_precision, match_detections, numbers_of, read_ground_truth, score_bounds

    truth = read_ground_truth({"images": [{"id": 1}], "categories": [{"id": 1, "name": "none"}], "annotations": []})
    found = DetectionColumns(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
    ap, matches = average_precision(truth, found), match_detections(truth, found)
    bounds = score_bounds(truth, found, matches=matches, ap=ap)
    sides = ("upper", "lower")
    return frozenset(
        {name for name, value in numbers_of(truth, ap, matches, tau=0.5).items() if isinstance(value, float)}
        | {*sides, *(f"{side}_{name}" for side in sides for name in bounds[side])}
    )


def of_training(task: DetectionTask) -> Numbers:
    """What a training of this task will have; what its objective remembers and its gradients are not as before."""
    from ..training.steps import columns_of

    columns = columns_of(task)
    of_steps = with_step_numbers(Run("", None, {}, [dict.fromkeys(columns, 0.0)])).numbers
    return Numbers({*OF_TRAINING, *of_validation(), *THIRDS, *of_steps}, columns)
