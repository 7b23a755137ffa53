"""``lossbox evaluate``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bars import stages
from .command import File, Folder, command

if TYPE_CHECKING:
    from ..metrics import DetectionColumns, GroundTruth


def evaluate(
    ground_truth: File | GroundTruth,
    results: File | DetectionColumns,
    *,
    iou: float = 0.5,
    bounds: bool = False,
    calibration: bool = False,
    json: File | None = None,
    thresholds: File | None = None,
    plots: Folder | None = None,
) -> dict[str, Any]:
    """COCO AP (pycocotools' numbers) and optimal LRP of detections.

    Optimal LRP is the smallest error over all score thresholds, made of localization, false positives and false negatives; the score that
    reaches it is the one to deploy a class with.

    Args:
        ground_truth: annotations in COCO's format (JSON)
        results: detections in COCO's results format (a JSON list)
        iou: IoU from which a detection is right, for LRP; in (0, 1)
        bounds: AP if the scores of the true positives were in order of their IoU, and if in inverse order
        calibration: how far scores are from the IoU to expect: LaECE, LaACE and LaMCE (0 is perfect)
        json: write all numbers, per class too
        thresholds: write the LRP-optimal score of each class (CSV)
        plots: draw precision against recall, LRP against the score threshold, IoU against score, and the reliability of scores (PNG)

    Returns:
        The numbers of :func:`lossbox.metrics.evaluate`, and how many detections there are (``num_detections``). With ``bounds`` also
        ``bounds``, see :func:`lossbox.metrics.score_bounds`; with ``calibration`` also ``LaECE``, ``LaACE`` and ``LaMCE``.

    Raises:
        ValueError: ``iou`` out of (0, 1), or a bad record, which is named with its file.

    Example:
        >>> truth = {"images": [{"id": 7}], "categories": [{"id": 3, "name": "cup"}], "annotations": [
        ...     {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10]}]}
        >>> from lossbox.metrics import read_ground_truth, read_results
        >>> columns = read_ground_truth(truth)
        >>> found = read_results([{"image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 8], "score": 0.9}], columns)
        >>> round(evaluate(columns, found)["AP"], 6)
        0.7
    """
    if not 0 < iou < 1:
        raise ValueError(f"iou: a number in (0, 1) expected, got {iou}")
    from .. import metrics, report
    from ..decoding import write_thresholds

    with stages(4 + bounds + calibration + bool(plots)) as stage:
        stage("reading the ground truth")
        truth = ground_truth if isinstance(ground_truth, metrics.GroundTruth) else metrics.read_ground_truth(ground_truth)
        stage("reading the detections")
        found = results if isinstance(results, metrics.DetectionColumns) else metrics.read_results(results, truth)
        stage("average precision")
        ap = metrics.average_precision(truth, found)
        stage("matching and optimal LRP")
        matches = metrics.match_detections(truth, found, iou_threshold=iou)
        numbers = metrics.numbers_of(truth, ap, matches, tau=iou) | {"num_detections": len(found.scores)}
        if bounds:
            stage("average precision of two other orders")
            numbers["bounds"] = metrics.score_bounds(truth, found, matches=matches, ap=ap)
        if calibration:
            stage("calibration")
            overlapping = metrics.match_detections(truth, found, iou_threshold=metrics.ANY_OVERLAP)
            error = metrics.localization_aware_calibration_error(overlapping)
            numbers |= {"LaECE": error.laece, "LaACE": error.laace, "LaMCE": error.lamce}
        if plots:
            stage("drawing")
            report.draw_evaluation(Path(plots), ap, matches, truth.category_names, tau=iou)
    if json:
        report.write_json(Path(json), numbers)
    if thresholds:
        write_thresholds(Path(thresholds), numbers)
    return numbers


def show_evaluation(
    numbers: Mapping[str, Any],
    *,
    ground_truth: File,
    results: File,
    per_class: bool = False,
    json: File | None = None,
    thresholds: File | None = None,
    plots: Folder | None = None,
) -> None:
    """Prints what :func:`evaluate` returns, and which files it wrote.

    Args:
        per_class: a line for each class, not the mean alone
    """
    from .. import report

    report.print_metrics(numbers, per_class=per_class)
    if "bounds" in numbers:
        report.print_bounds(numbers["bounds"])
    if "LaECE" in numbers:
        errors = ((name, numbers[name]) for name in ("LaECE", "LaACE", "LaMCE"))
        print("calibration: " + ", ".join(f"{name} {'-' if math.isnan(value) else f'{value:.3f}'}" for name, value in errors))
    if not sum(row["num_ground_truth"] for row in numbers["per_class"]):
        print(f"note: {ground_truth} has no boxes, so that nothing is defined (-)")
    elif not numbers["num_detections"]:
        print(f"note: {results} has no detections")
    drawn = ", ".join(map(str, sorted(Path(plots).glob("*.png")))) if plots else None
    for what, path in (("all numbers", json), ("the score at which to cut each class", thresholds), ("images", drawn)):
        if path:
            print(f"{what}: {path}")


run = command(evaluate, show_evaluation)
