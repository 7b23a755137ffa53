"""``lossbox calibrate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

if TYPE_CHECKING:
    from ..metrics import DetectionColumns, Matches
    from ..training.load import Trained


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox calibrate``."""
    parser = argparse.ArgumentParser(
        "lossbox calibrate",
        description="Fits, for each class, a map from a detector's score to the IoU that one may expect of the box (0 where it is wrong), "
        "on the validation images of the recipe or on those that are named; writes it as numbers (JSON) for `lossbox predict "
        "--calibration`, and prints the localization-aware calibration error (LaECE, 0 is perfect) before and after. No map turns the "
        "order of scores around, so AP stays but for ties that an isotonic map makes. Fit on one split and judge on another: the "
        "error after it on the same images is too good; the cross-fitted one fits on each half of the images and judges on the other.",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="OUT/config.yaml, the resolved recipe of a run")
    parser.add_argument("--ckpt", default="last", metavar="last|best|FILE", help="which checkpoint (default: %(default)s)")
    parser.add_argument("--method", choices=("isotonic", "platt"), default="isotonic", help="(default: %(default)s)")
    parser.add_argument("--class-agnostic", action="store_true", help="one map for all classes; for few detections")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="COCO JSON to fit on (default: the recipe's validation part)")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the images of --annotations")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the map goes (default: calibration.json beside the recipe)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    options = parser.parse_args(argv)
    if (options.annotations is None) != (options.images is None):
        raise ValueError("annotations: --annotations and --images belong together, got one of them")

    if not options.config.is_file():
        raise FileNotFoundError(f"config: no file {options.config}; the resolved recipe of a run (OUT/config.yaml) expected")
    from .. import report
    from ..metrics import ANY_OVERLAP, Evaluator, fit_calibration, match_detections, optimal_lrp_per_class
    from ..training.load import load_trained

    run_folder = options.config.absolute().parent
    checkpoint = run_folder / "checkpoints" / f"{options.ckpt}.ckpt" if options.ckpt in ("last", "best") else Path(options.ckpt)
    images = {} if options.annotations is None else {"val_annotations": str(options.annotations), "val_images": str(options.images)}
    trained = load_trained(checkpoint, options.config, device=options.device, data=images)
    if trained.data.class_names != [name for _, name in trained.categories]:
        raise ValueError(f"annotations: {trained.data.val_annotations} must have the classes that {checkpoint} was trained on")
    evaluator = Evaluator(trained.data.val_ground_truth)
    _find(trained, evaluator)
    truth, results = evaluator.columns()
    matches = match_detections(truth, results, iou_threshold=ANY_OVERLAP)
    ids = truth.category_ids.tolist()

    def fit(part: Matches) -> Any:
        return fit_calibration(part, ids, method=options.method, per_class=not options.class_agnostic)

    calibration = fit(matches)
    cuts = np.array([optimum.threshold for optimum in optimal_lrp_per_class(match_detections(truth, results))])
    kept = matches.scores >= cuts[matches.category]  # nothing of a class without a cut
    errors = {
        name: _errors(replace(matches, scores=scores), kept)
        for name, scores in (
            ("before", matches.scores),
            ("after", calibration(matches.scores, matches.category)),
            ("cross_fitted", cross_fitted(matches, results, fit).scores),
        )
    }
    path = options.out or run_folder / "calibration.json"
    fitted_on = {"annotations": str(trained.data.val_annotations), "images": len(truth.image_ids), "detections": len(matches.scores)}
    report.write_json(path, {**calibration.to_dict(), "checkpoint": str(checkpoint), "fitted_on": fitted_on, "errors": errors})
    _print(errors, options.method)
    print(f"fitted on {fitted_on['detections']} detections in {fitted_on['images']} images of {fitted_on['annotations']}: {path}")


def cross_fitted(matches: Matches, results: DetectionColumns, fit: Any) -> Matches:
    """The matches with scores calibrated by what was fitted on the other half of the images: every second one, so that it is repeatable.

    Args:
        matches: of ``results``.
        results: say which image a detection is in.
        fit: from matches to a calibration.

    Returns:
        The same matches with other scores. Where a half has no detection to fit on, its other half keeps its scores.
    """
    half = results.image[matches.detection] % 2
    scores = matches.scores.copy()
    for judged in (0, 1):
        fitted_on, there = half != judged, half == judged
        if (fitted_on & ~matches.ignored).any():
            scores[there] = fit(_part(matches, fitted_on))(scores[there], matches.category[there])
    return replace(matches, scores=scores)


def _part(matches: Matches, kept: Bool[np.ndarray, " k"]) -> Matches:
    columns: dict[str, Int[np.ndarray, " k"]] = {
        field.name: getattr(matches, field.name)[kept] for field in fields(matches) if field.name != "num_ground_truth"
    }
    return replace(matches, **columns)


def _find(trained: Trained, evaluator: Any) -> None:
    """Runs the detector over the validation part, with a bar on a terminal."""
    from rich.progress import track

    for batch in track(trained.data.val_dataloader(), "images", transient=True, disable=not sys.stdout.isatty()):
        evaluator.update([target.image_id for target in batch.targets], trained.detect(batch))


def _errors(matches: Matches, kept: Bool[np.ndarray, " k"]) -> dict[str, float]:
    """Of all detections, and of those that are kept where each class is cut at its LRP-optimal score."""
    from ..metrics import localization_aware_calibration_error

    of_all, of_kept = localization_aware_calibration_error(matches), localization_aware_calibration_error(_part(matches, kept))
    return {"LaECE": of_all.laece, "LaACE": of_all.laace, "LaECE_kept": of_kept.laece, "LaACE_kept": of_kept.laace}


def _print(errors: Mapping[str, Mapping[str, float]], method: str) -> None:
    from rich.console import Console
    from rich.table import Table

    caption = "kept: the detections from the LRP-optimal score of their class on, as deployed; all: mostly those of low score"
    table = Table("", title=f"LaECE with the {method} map (lower is better)", title_justify="left", caption=caption, caption_justify="left")
    for column in ("all", "kept"):
        table.add_column(column, justify="right")
    meaning = {"before": "the detector's scores", "after": "on the images fitted on", "cross_fitted": "on images not fitted on"}
    for name, numbers in errors.items():
        table.add_row(f"{name.replace('_', '-')}: {meaning[name]}", f"{numbers['LaECE']:.3f}", f"{numbers['LaECE_kept']:.3f}")
    Console().print(table)
