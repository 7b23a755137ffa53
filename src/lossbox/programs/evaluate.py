"""``lossbox evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, per class too")
    parser.add_argument("--thresholds", type=Path, metavar="FILE", help="write the LRP-optimal score of each class (CSV)")
    options = parser.parse_args(argv)

    from .. import metrics, report

    ground_truth = metrics.read_ground_truth(options.ground_truth)
    numbers = metrics.evaluate(ground_truth, metrics.read_results(options.results, ground_truth), tau=options.iou)
    report.print_metrics(numbers, per_class=options.per_class)
    if options.json:
        report.write_json(options.json, numbers)
        print(f"all numbers: {options.json}")
    if options.thresholds:
        report.write_thresholds(options.thresholds, numbers)
        print(f"the score at which to cut each class: {options.thresholds}")
