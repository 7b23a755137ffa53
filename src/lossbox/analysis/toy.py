"""The toy example: three detectors with the same scores, and boxes that are the same but for which of them comes first.

Ten detections with the scores 1.0, 0.9, ..., 0.1; those at ranks 1, 3, 6 and 10 are on an object, of five; the four IoUs are dealt to them
in three ways. Cross-entropy, AP loss and IoU loss see no difference between the three; aLRP and AP do.
"""

from __future__ import annotations

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


def toy_study() -> dict[str, Any]:
    """The toy example of aLRP's Figure 1, computed by the losses and metrics of this package from boxes and scores.

    ``AP at one IoU = mean over recalls 0.1, 0.2, ..., 1.0 of the best precision at that recall or above``; a recall that is not reached
    counts 0, and so does the fifth object, which nobody finds.

    Losses are means over what contributes to them. Cross-entropy: over all ten detections, ``-log p`` for the four positives and ``-log(1 -
    p)`` for the six negatives, where p is the score itself (the paper takes the scores as outputs of a sigmoid; here they become logits,
    that of the score 1 at p = 1 - 1e-12). AP loss: 1 - the precision at each positive, not interpolated, over the four positives. IoU loss:
    1 - IoU over the four. aLRP: ``(N_FP(i) + sum of (1 - IoU(k)) / (1 - tau) over the positives k down to i) / rank(i)`` over the four, tau
    = 0.5 and the hard step (delta = 0). The paper's L1 loss needs the corners of its Figure A.5, which are not given, and is left out.

    Returns:
        ``scores`` and ``is_positive``: of the ten detections by rank. ``detectors``: by name a dict of ``ious`` (at the four positives),
        ``precision`` (by IoU threshold as text, ten numbers, Table A.9), ``AP50``, ``AP65``, ``AP80``, ``AP95``, ``AP`` (their mean),
        ``cross_entropy``, ``ap_loss``, ``iou_loss``, ``alrp_loss`` with its two parts ``alrp_classification`` and ``alrp_localization``,
        and, not in the paper, ``oLRP`` (over five objects) and ``rho``, the correlation of score and IoU.

    Source:
        Oksuz et al., A Ranking-based, Balanced Loss Function, NeurIPS 2020, Figure 1, App. A, Tables A.9 and A.10.

    Example:
        >>> study = toy_study()
        >>> [round(detector["alrp_loss"], 2) for detector in study["detectors"].values()]
        [0.53, 0.69, 0.89]
        >>> {round(detector["ap_loss"], 2) for detector in study["detectors"].values()}
        {0.36}
    """
    is_positive = [rank in _POSITIVE_RANKS for rank in range(1, len(_SCORES) + 1)]
    return {
        "scores": list(_SCORES),
        "is_positive": is_positive,
        "detectors": {name: {"ious": list(ious)} | _metrics(ious) | _losses(ious, is_positive) for name, ious in TOY_DETECTORS.items()},
    }


def _metrics(ious: tuple[float, ...]) -> dict[str, Any]:
    truth, results = _boxes(ious)
    precision, ap = {}, {}
    for threshold in TOY_IOUS:
        matches = match_detections(truth, results, iou_threshold=threshold)
        precision[f"{threshold:.2f}"] = interpolated_precision(matches.is_tp, _OBJECTS, _RECALLS).tolist()
        ap[f"AP{threshold * 100:.0f}"] = float(np.mean(precision[f"{threshold:.2f}"]))
    scores, found_ious, is_tp = match_detections(truth, results, iou_threshold=_TAU).of_class(0)
    return {
        "precision": precision,
        **ap,
        "AP": float(np.mean(list(ap.values()))),
        "oLRP": optimal_lrp(scores, found_ious, is_tp, _OBJECTS, tau=_TAU).olrp,
        "rho": pearson(scores[is_tp], found_ious[is_tp]),
    }


def _losses(ious: tuple[float, ...], is_positive: list[bool]) -> dict[str, float]:
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


def _boxes(ious: tuple[float, ...]) -> tuple[GroundTruth, DetectionColumns]:
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
