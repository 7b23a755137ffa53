"""COCO's average precision and recall, computed by hotcoco; and interpolated precision as a definition to read.

hotcoco (Rust) is not part of the bare install; it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from ..coco.columns import DetectionColumns, GroundTruth
from ._arrays import Values, as_array, mean_of_defined
from .overlaps import sigmas

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's: 0.50, 0.55, ..., 0.95."""

RECALLS = np.linspace(0.0, 1.0, 101)
"""COCO's: precision is read at recall 0.00, 0.01, ..., 1.00."""

# What each number is read from. Precision is indexed [IoU, recall, class, area, max detections], recall [IoU, class, area, max detections];
# areas are all, small, medium, large; max detections 1, 10, 100. This is the order of COCO's own twelve numbers, with AP90 after AP75.
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_EVERY = slice(None)
_PRECISION_AT = {
    "AP": (_EVERY, _ALL),
    "AP50": (slice(0, 1), _ALL),
    "AP75": (slice(5, 6), _ALL),
    "AP90": (slice(8, 9), _ALL),
    "APs": (_EVERY, _SMALL),
    "APm": (_EVERY, _MEDIUM),
    "APl": (_EVERY, _LARGE),
}
_RECALL_AT = {"AR1": (_ALL, 0), "AR10": (_ALL, 1), "AR100": (_ALL, 2), "ARs": (_SMALL, 2), "ARm": (_MEDIUM, 2), "ARl": (_LARGE, 2)}


class AveragePrecision(NamedTuple):
    """COCO's AP block; NaN where pycocotools says -1 (no ground truth).

    Attributes:
        numbers: AP, AP50, AP75, AP90, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, each in [0, 1]. Of keypoints, COCO looks at 20
            detections of an image, and not at small objects: AR100 is AR20 then, and APs, ARs, AR1 and AR10 are NaN.
        per_class: the same names, (C,) each.
        precision: (10, 101, C) interpolated precision at each of ``IOU_THRESHOLDS`` and ``RECALLS``: the precision-recall curves.
    """

    numbers: dict[str, float]
    per_class: dict[str, Float[np.ndarray, " c"]]
    precision: Float[np.ndarray, "10 101 c"]


def average_precision(ground_truth: GroundTruth, results: DetectionColumns) -> AveragePrecision:
    """COCO's average precision and average recall of a data set, over all classes and for each.

    ``AP = mean over IoU 0.50:0.05:0.95, 101 recalls and classes of max precision at that recall or above``

    Args:
        ground_truth: the annotations.
        results: the detections; there may be none.

    Returns:
        The twelve numbers of pycocotools to the last digits, AP90, and all of them by class.

    Raises:
        ImportError: hotcoco is not installed.

    Source:
        Lin et al., Microsoft COCO, ECCV 2014, and its published evaluation; equal to pycocotools' COCOeval, except that an annotation with
        the id 0 counts like any other.

    Example:
        >>> truth = GroundTruth(np.array([1]), np.array([1]), ("cup",), np.array([0]), np.array([0]),
        ...                     np.array([[0., 0., 10., 10.]]), np.array([100.]), np.array([False]))
        >>> found = DetectionColumns(np.array([0]), np.array([0]), np.array([[0., 0., 10., 8.]]), np.array([0.9]))
        >>> numbers = average_precision(truth, found).numbers
        >>> round(numbers["AP"], 6), round(numbers["AP75"], 6), numbers["AP90"], numbers["APl"]
        (0.7, 1.0, 0.0, nan)
    """
    evaluation = hotcoco_evaluation(ground_truth, results)
    evaluation.accumulate()
    curves = evaluation.eval
    assert curves is not None  # it is, after accumulate()
    precision, recall = _undefined_as_nan(curves["precision"]), _undefined_as_nan(curves["recall"])
    if ground_truth.iou_type == "keypoints":  # all, medium, large; 20 detections
        precision, recall = (np.insert(values[..., [0] * 3], _SMALL, np.nan, axis=-2) for values in (precision, recall))
        recall[..., :2] = np.nan

    per_class = {name: precision[ious, :, :, area, 2].mean(axis=(0, 1)) for name, (ious, area) in _PRECISION_AT.items()}
    per_class |= {name: recall[:, :, area, most].mean(axis=0) for name, (area, most) in _RECALL_AT.items()}
    numbers = {name: mean_of_defined(values) for name, values in per_class.items()}
    return AveragePrecision(numbers, per_class, precision[:, :, :, _ALL, 2])


def hotcoco_evaluation(ground_truth: GroundTruth, results: DetectionColumns) -> Any:
    """hotcoco's ``COCOeval`` of these, after ``evaluate()``: for what it offers beside average precision.

    Raises:
        ImportError: hotcoco is not installed.
    """
    try:
        from hotcoco import COCO, COCOeval
    except ImportError as error:
        raise ImportError("COCO's average precision needs hotcoco: pip install 'lossbox[eval]'") from error

    # Places in our sorted lists, from 1, stand for the ids of images, categories and annotations: order decides ties, ids do not.
    images: list[dict[str, Any]] = [{"id": number} for number in range(1, len(ground_truth.image_ids) + 1)]
    categories: list[dict[str, Any]] = [{"id": number, "name": str(number)} for number in range(1, len(ground_truth.category_ids) + 1)]
    if ground_truth.iou_type == "bbox":
        truth = COCO.from_arrays(
            images,
            categories,
            ground_truth.image + 1,
            ground_truth.category + 1,
            ground_truth.boxes,
            area=ground_truth.areas,
            iscrowd=ground_truth.crowd,
        )
        found = truth.load_res(np.column_stack([results.image + 1, results.boxes, results.scores, results.category + 1]))
    else:
        # load_res would take the area of a detection from its box
        lists = {"images": images, "categories": categories}
        truth = COCO(lists | {"annotations": _records(ground_truth, iscrowd=ground_truth.crowd.astype(int).tolist())})
        found = COCO(lists | {"annotations": _records(results, score=results.scores.tolist())})
    evaluation = COCOeval(truth, found, ground_truth.iou_type)
    if ground_truth.iou_type == "keypoints" and ground_truth.shapes:
        evaluation.params.kpt_oks_sigmas = sigmas(len(ground_truth.shapes[0])).tolist()
    evaluation.evaluate()
    return evaluation


def tide_errors(ground_truth: GroundTruth, results: DetectionColumns, *, tau: float = 0.5, background: float = 0.1) -> dict[str, Any]:
    """What AP would gain if errors of one kind were gone: TIDE, by hotcoco. All scores count, also those that nobody would deploy.

    Args:
        ground_truth: the annotations.
        results: the detections.
        tau: IoU from which a detection is right; one of 0.50, 0.55 ... 0.95.
        background: IoU below which a box has nothing to do with an annotation, in (0, tau].

    Returns:
        ``gain``: by kind, the rise of AP at ``tau``: ``Cls``, ``Loc``, ``Both``, ``Dupe``, ``Bkg``, ``Miss``, and ``FP`` and ``FN``, all of
        each; NaN where there is no annotation or no detection. ``counts`` of the six kinds; ``AP``, at ``tau``. The kinds are those of
        :func:`lossbox.metrics.error_shares`.

    Raises:
        ValueError: ``tau`` that is not one of these; ``background`` out of range.
        ImportError: hotcoco is not installed.

    Source:
        Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020.

    Example:
        >>> truth = GroundTruth(np.array([1]), np.array([1]), ("cup",), np.array([0]), np.array([0]),
        ...                     np.array([[0., 0., 10., 10.]]), np.array([100.]), np.array([False]))
        >>> found = DetectionColumns(np.array([0]), np.array([0]), np.array([[0., 0., 10., 3.]]), np.array([0.9]))
        >>> errors = tide_errors(truth, found)
        >>> round(errors["gain"]["Loc"], 6), errors["counts"]["Loc"]
        (1.0, 1)
    """
    if np.abs(IOU_THRESHOLDS - tau).min() > 1e-9:
        raise ValueError(f"tau: one of 0.50, 0.55 ... 0.95 expected, got {tau}")
    if not 0 < background <= tau:
        raise ValueError(f"background must be in (0, tau] = (0, {tau}], got {background}")
    errors = hotcoco_evaluation(ground_truth, results).tide_errors(pos_thr=tau, bg_thr=background)
    defined = bool((~ground_truth.crowd).any()) and len(results.scores) > 0
    gain = errors["delta_ap"] if defined else dict.fromkeys(errors["delta_ap"], np.nan)
    ap = errors["ap_base"] if (~ground_truth.crowd).any() else np.nan
    return {"AP": ap, "gain": gain, "counts": errors["counts"], "tau": tau, "background": background}


def _records(rows: GroundTruth | DetectionColumns, **more: Iterable[Any]) -> list[dict[str, Any]]:
    """Masks or keypoints as COCO's records."""
    areas = rows.boxes[:, 2] * rows.boxes[:, 3] if rows.areas is None else rows.areas
    columns = {
        "id": range(1, len(rows.boxes) + 1),
        "image_id": (rows.image + 1).tolist(),
        "category_id": (rows.category + 1).tolist(),
        "bbox": rows.boxes.tolist(),
        "area": areas.tolist(),
        **more,
    }
    records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for record, shape in zip(records, rows.shapes, strict=True):
        if isinstance(shape, dict):
            record["segmentation"] = shape
        else:
            record |= {"keypoints": shape.flatten().tolist(), "num_keypoints": int((shape[:, 2] > 0).sum())}
    return records


def _undefined_as_nan(values: Any) -> NDArray[np.float64]:
    """A copy with NaN for COCO's -1, which is set for a whole class at once: a mean over IoUs and recalls is all defined or all NaN."""
    array = np.array(values, dtype=np.float64)
    array[array == -1] = np.nan
    return array


def interpolated_precision(is_tp: Values, num_ground_truth: int, recalls: Values) -> Float[np.ndarray, " r"]:
    """Precision of a ranking of detections at given recalls, interpolated: the best precision at that recall or above.

    ``p(r) = max over k with recall_k >= r of precision_k``, 0 where the recall is never reached; its mean over the recalls is AP.

    Args:
        is_tp: (d,) bool, highest score first.
        num_ground_truth: annotations of the class, at least 1.
        recalls: (r,) in [0, 1].

    Returns:
        (r,) in [0, 1].

    Raises:
        ValueError: ``is_tp`` is not a boolean vector, or ``num_ground_truth`` below 1 or below the number of true positives.

    Source:
        Oksuz et al., A Ranking-based, Balanced Loss Function, NeurIPS 2020, App. A, Table A.9 (recalls 0.1, 0.2, ..., 1.0).

    Example:
        >>> interpolated_precision([True, False, True], 3, [0.2, 0.5, 0.9])
        array([1.        , 0.66666667, 0.        ])
    """
    right, at_recall = as_array(is_tp), as_array(recalls).astype(np.float64)
    if right.ndim != 1 or (len(right) and right.dtype != bool):
        raise ValueError(f"is_tp must be a boolean vector, got {right.dtype} of shape {right.shape}")
    if num_ground_truth < max(1, right.sum()):
        raise ValueError(f"num_ground_truth must be at least 1 and the number of true positives, {right.sum():.0f}; got {num_ground_truth}")
    found = np.cumsum(right.astype(bool))
    precision = found / np.arange(1, len(found) + 1)
    best_from_here = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    # A recall of 0.6 is 3 of 5: compare with a margin below any difference of two recalls.
    return best_from_here[np.searchsorted(found / num_ground_truth, at_recall - 1e-9, side="left")]
