"""The toy example: three detectors with the same scores, and boxes that are the same but for which of them comes first.

Ten detections with the scores 1.0, 0.9, ..., 0.1; those at ranks 1, 3, 6 and 10 are on an object, of five; the four IoUs are dealt to them
in three ways. Cross-entropy, AP loss and IoU loss see no difference between the three; aLRP and AP do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..losses import alrp_loss, ap_loss, iou_loss, sigmoid_cross_entropy_loss
from ..metrics import DetectionColumns, GroundTruth, interpolated_precision, match_detections, optimal_lrp, pearson

TOY_DETECTORS = {
    "C & R1": (0.95, 0.80, 0.65, 0.50),
    "C & R2": (0.80, 0.65, 0.50, 0.95),
    "C & R3": (0.50, 0.65, 0.80, 0.95),
}
"""IoU of the detection at rank 1, 3, 6 and 10: one classification C with three regressions."""

TOY_IOUS = (0.50, 0.65, 0.80, 0.95)
"""Where AP is read; the mean over them is the example's AP."""

_SCORES = tuple(tenths / 10 for tenths in range(10, 0, -1))
_POSITIVE_RANKS = (1, 3, 6, 10)
_OBJECTS = 5
_RECALLS = tuple(tenths / 10 for tenths in range(1, 11))
_TAU = 0.5
_SIDE = 100.0  # of an object in pixels: an IoU of two digits is then a width in whole pixels, and no rounding moves it over a threshold
_ONE = 1 - 1e-12  # the score of 1 has no finite logit


def toy_detector(ious: Sequence[float]) -> dict[str, Any]:
    """One detector of the toy example of aLRP's Figure 1, computed by the losses and metrics of this package from boxes and scores.

    ``AP at one IoU = mean over recalls 0.1, 0.2, ..., 1.0 of the best precision at that recall or above``; a recall that is not reached
    counts 0, and so does the fifth object, which nobody finds.

    Losses are means over what contributes to them. Cross-entropy: over all ten detections, ``-log p`` for the four positives and ``-log(1 -
    p)`` for the six negatives, where p is the score itself (the paper takes the scores as outputs of a sigmoid; here they become logits,
    that of the score 1 at p = 1 - 1e-12). AP loss: 1 - the precision at each positive, not interpolated, over the four positives. IoU loss:
    1 - IoU over the four. aLRP: ``(N_FP(i) + sum of (1 - IoU(k)) / (1 - tau) over the positives k down to i) / rank(i)`` over the four, tau
    = 0.5 and the hard step (delta = 0). The paper's L1 loss needs the corners of its Figure A.5, which are not given, and is left out.

    Args:
        ious: of the detections at the ranks 1, 3, 6 and 10, with two digits; ``TOY_DETECTORS`` has those of the paper.

    Returns:
        ``precision_50``, ``precision_65``, ``precision_80``, ``precision_95`` (by IoU, ten numbers, Table A.9), ``AP50``, ``AP65``,
        ``AP80``, ``AP95``, ``AP`` (their mean), ``cross_entropy``, ``ap_loss``, ``iou_loss``, ``alrp_loss`` with its two parts
        ``alrp_classification`` and ``alrp_localization``; not in the paper ``oLRP`` (over five objects) and ``rho``, that of score and IoU.
        ``rows``: the precision by ``recall``.

    Raises:
        ValueError: not four IoUs in [0.5, 1].

    Source:
        Oksuz et al., A Ranking-based, Balanced Loss Function, NeurIPS 2020, Figure 1, App. A, Tables A.9 and A.10.

    Example:
        >>> [round(toy_detector(ious)["alrp_loss"], 2) for ious in TOY_DETECTORS.values()]
        [0.53, 0.69, 0.89]
        >>> {round(toy_detector(ious)["ap_loss"], 2) for ious in TOY_DETECTORS.values()}
        {0.36}
    """
    if len(ious) != len(_POSITIVE_RANKS) or not all(_TAU <= iou <= 1 for iou in ious):
        raise ValueError(f"ious: {len(_POSITIVE_RANKS)} numbers in [{_TAU}, 1] expected, got {list(ious)}")
    is_positive = [rank in _POSITIVE_RANKS for rank in range(1, len(_SCORES) + 1)]
    numbers = _metrics(ious) | _losses(ious, is_positive)
    precisions = {name: values for name, values in numbers.items() if name.startswith("precision")}
    rows = [{"recall": recall} | {name: values[place] for name, values in precisions.items()} for place, recall in enumerate(_RECALLS)]
    return numbers | {"rows": rows}


def _metrics(ious: Sequence[float]) -> dict[str, Any]:
    truth, results = _boxes(ious)
    precision, ap = {}, {}
    for threshold in TOY_IOUS:
        matches = match_detections(truth, results, iou_threshold=threshold)
        found = interpolated_precision(matches.is_tp, _OBJECTS, _RECALLS).tolist()
        precision[f"precision_{threshold * 100:.0f}"] = found
        ap[f"AP{threshold * 100:.0f}"] = float(np.mean(found))
    scores, found_ious, is_tp = match_detections(truth, results, iou_threshold=_TAU).of_class(0)
    return {
        **precision,
        **ap,
        "AP": float(np.mean(list(ap.values()))),
        "oLRP": optimal_lrp(scores, found_ious, is_tp, _OBJECTS, tau=_TAU).olrp,
        "rho": pearson(scores[is_tp], found_ious[is_tp]),
    }


def _losses(ious: Sequence[float], is_positive: list[bool]) -> dict[str, float]:
    truth, results = _boxes(ious)
    logits = torch.logit(torch.tensor(_SCORES, dtype=torch.float64).clamp(max=_ONE))
    targets = torch.tensor(is_positive).long()
    found, true = (torch.from_numpy(boxes.copy()) for boxes in (results.boxes[is_positive], truth.boxes[: len(ious)]))
    for boxes in (found, true):
        boxes[:, 2:] += boxes[:, :2]  # x y width height to x1 y1 x2 y2
    loose = iou_loss(found, true, reduction="none")
    alrp = alrp_loss(logits, targets, loose / (1 - _TAU), delta=0)
    return {
        "cross_entropy": sigmoid_cross_entropy_loss(logits, targets).item(),
        "ap_loss": ap_loss(logits, targets, delta=0).item(),
        "iou_loss": loose.mean().item(),
        "alrp_loss": (alrp.classification + alrp.localization).item(),
        "alrp_classification": alrp.classification.item(),
        "alrp_localization": alrp.localization.item(),
    }


def _boxes(ious: Sequence[float]) -> tuple[GroundTruth, DetectionColumns]:
    """Five square objects side by side; each positive lies on one of them and is narrower, each negative lies below them all."""
    left = np.arange(_OBJECTS) * 2 * _SIDE
    objects = np.stack([left, np.zeros(_OBJECTS), np.full(_OBJECTS, _SIDE), np.full(_OBJECTS, _SIDE)], 1)
    found = np.tile([0.0, 5 * _SIDE, _SIDE, _SIDE], (len(_SCORES), 1))
    at = np.array(_POSITIVE_RANKS) - 1
    found[at] = objects[: len(ious)]
    found[at, 2] = np.round(np.array(ious) * _SIDE)
    one = np.array([1])
    truth = GroundTruth(
        image_ids=one,
        category_ids=one,
        category_names=("object",),
        image=np.zeros(_OBJECTS, dtype=np.int64),
        category=np.zeros(_OBJECTS, dtype=np.int64),
        boxes=objects,
        areas=objects[:, 2] * objects[:, 3],
        crowd=np.zeros(_OBJECTS, dtype=bool),
    )
    only_one = np.zeros(len(_SCORES), dtype=np.int64)
    return truth, DetectionColumns(image=only_one, category=only_one, boxes=found, scores=np.array(_SCORES))
