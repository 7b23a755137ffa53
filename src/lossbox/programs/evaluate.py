"""``lossbox evaluate``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox evaluate``."""
    parser = argparse.ArgumentParser(
        "lossbox evaluate",
        description="COCO AP (pycocotools' numbers) and optimal LRP of a file of detections. Optimal LRP is the smallest error over all "
        "score thresholds, made of localization, false positives and false negatives; the score that reaches it is the one to deploy "
        "a class with.",
    )
    parser.add_argument("ground_truth", type=Path, help="annotations in COCO's format (JSON)")
    parser.add_argument("results", type=Path, help="detections in COCO's results format (a JSON list)")
    parser.add_argument("--iou", type=float, default=0.5, metavar="TAU", help="IoU from which a detection is right, for LRP (default: 0.5)")
    parser.add_argument("--per-class", action="store_true", help="a line for each class, not the mean alone")
    parser.add_argument(
        "--bounds", action="store_true", help="AP if the scores of the true positives were in order of their IoU, and if in inverse order"
    )
    parser.add_argument(
        "--calibration", action="store_true", help="how far scores are from the IoU to expect: LaECE, LaACE and LaMCE (0 is perfect)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, per class too")
    parser.add_argument("--thresholds", type=Path, metavar="FILE", help="write the LRP-optimal score of each class (CSV)")
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="FOLDER",
        help="draw precision against recall, LRP against the score threshold, IoU against score, and the reliability of scores (PNG)",
    )
    options = parser.parse_args(argv)
    if not 0 < options.iou < 1:
        raise ValueError(f"--iou must be in (0, 1), got {options.iou}")

    from .. import metrics, report
    from ..decoding import write_thresholds

    with _progress(stages=4 + options.bounds + options.calibration) as stage:
        stage("reading the ground truth")
        ground_truth = metrics.read_ground_truth(options.ground_truth)
        stage("reading the detections")
        results = metrics.read_results(options.results, ground_truth)
        stage("average precision")
        ap = metrics.average_precision(ground_truth, results)
        stage("matching and optimal LRP")
        matches = metrics.match_detections(ground_truth, results, iou_threshold=options.iou)
        numbers = metrics.numbers_of(ground_truth, ap, matches, tau=options.iou)
        if options.bounds:
            stage("average precision of two other orders")
            numbers["bounds"] = metrics.score_bounds(ground_truth, results, matches=matches, ap=ap)
        if options.calibration:
            stage("calibration")
            overlapping = metrics.match_detections(ground_truth, results, iou_threshold=metrics.ANY_OVERLAP)
            error = metrics.localization_aware_calibration_error(overlapping)
            numbers |= {"LaECE": error.laece, "LaACE": error.laace, "LaMCE": error.lamce}
    report.print_metrics(numbers, per_class=options.per_class)
    if options.bounds:
        report.print_bounds(numbers["bounds"])
    if options.calibration:
        errors = ((name, numbers[name]) for name in ("LaECE", "LaACE", "LaMCE"))
        print("calibration: " + ", ".join(f"{name} {'-' if math.isnan(value) else f'{value:.3f}'}" for name, value in errors))
    if not len(ground_truth.category):
        print(f"note: {options.ground_truth} has no boxes, so that nothing is defined (-)")
    elif not len(results.scores):
        print(f"note: {options.results} has no detections")
    if options.json:
        report.write_json(options.json, numbers)
        print(f"all numbers: {options.json}")
    if options.thresholds:
        write_thresholds(options.thresholds, numbers)
        print(f"the score at which to cut each class: {options.thresholds}")
    if options.plots:
        with _progress(stages=1) as stage:
            stage("drawing")
            images = report.draw_evaluation(options.plots, ap, matches, ground_truth.category_names, tau=options.iou)
        print("images: " + ", ".join(map(str, images)))


@contextmanager
def _progress(*, stages: int) -> Iterator[Callable[[str], None]]:
    """A bar on standard error where that is a terminal; it is gone when all is done. What it yields says that the next stage begins."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=stages)

        def begin(name: str) -> None:
            running = bool(bar.tasks[0].description)
            bar.update(task, description=name, advance=int(running), refresh=True)

        yield begin
