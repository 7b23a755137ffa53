"""``lossbox calibrate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .bars import track
from .command import File, Folder, NewFile, command

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool

    from ..metrics import Calibration, DetectionColumns, Matches


def calibrate(
    *,
    config: File,
    ckpt: File = "last",
    method: Literal["isotonic", "platt"] = "isotonic",
    class_agnostic: bool = False,
    annotations: File | None = None,
    images: Folder | None = None,
    out: NewFile | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Fits, for each class, a map from a detector's score to the IoU that one may expect of the box (0 where it is wrong).

    It is fitted on the validation images of the recipe, or on those that are named, and written as numbers (JSON) for `lossbox predict
    --calibration`; the localization-aware calibration error (LaECE, 0 is perfect) is printed before and after. No map turns the order of
    scores around, so AP stays but for ties that an isotonic map makes. Fit on one split and judge on another: the error after it on the
    same images is too good; the cross-fitted one fits on each half of the images and judges on the other.

    Args:
        config: OUT/config.yaml, the resolved recipe of a run
        ckpt: which checkpoint: last, best or a file
        method: the form of the map
        class_agnostic: one map for all classes; for few detections
        annotations: COCO JSON to fit on (default: the recipe's validation part)
        images: the images of --annotations
        out: where the map goes (default: calibration.json beside the recipe)
        device: cpu, cuda, cuda:1, ...; auto: a GPU where there is one

    Returns:
        What was written: the map (see :meth:`lossbox.metrics.Calibration.to_dict`), ``checkpoint``, ``fitted_on`` and ``errors``; beside it
        ``file``, where.

    Raises:
        ValueError: files that do not belong to each other; too few detections.
        FileNotFoundError: a file is not there.
    """
    if (annotations is None) != (images is None):
        raise ValueError("annotations: --annotations and --images belong together, got one of them")
    config = Path(config)
    if not config.is_file():
        raise FileNotFoundError(f"config: no file {config}; the resolved recipe of a run (OUT/config.yaml) expected")
    import numpy as np

    from .. import report
    from ..metrics import ANY_OVERLAP, Evaluator, fit_calibration, match_detections, optimal_lrp_per_class
    from ..training.checkpoint import checkpoint_of
    from ..training.load import load_trained

    run_folder = config.absolute().parent
    checkpoint = Path(checkpoint_of(run_folder, ckpt))
    named = {} if annotations is None else {"val_annotations": str(annotations), "val_images": str(images)}
    trained = load_trained(checkpoint, config, device=device, data=named)
    if trained.data.class_names != [name for _, name in trained.categories]:
        raise ValueError(f"annotations: {trained.data.val_annotations} must have the classes that {checkpoint} was trained on")
    evaluator = Evaluator(trained.data.val_ground_truth)
    batches = trained.data.val_dataloader()
    for batch in track(batches, "batches", len(batches)):
        found = trained.detect(batch)
        evaluator.update(list(found), list(found.values()))
    truth, results = evaluator.columns()
    matches = match_detections(truth, results, iou_threshold=ANY_OVERLAP)
    ids = truth.category_ids.tolist()

    def fit(part: Matches) -> Calibration:
        return fit_calibration(part, ids, method=method, per_class=not class_agnostic)

    calibration = fit(matches)
    cuts = np.array([optimum.threshold for optimum in optimal_lrp_per_class(match_detections(truth, results))])
    kept = matches.scores >= cuts[matches.category]  # nothing of a class without a cut
    scores = {
        "before": matches.scores,
        "after": calibration(matches.scores, matches.category),
        "cross_fitted": cross_fitted(matches, results, fit).scores,
    }
    path = Path(out) if out else run_folder / "calibration.json"
    written = {
        **calibration.to_dict(),
        "checkpoint": str(checkpoint),
        "fitted_on": {
            "annotations": str(trained.data.val_annotations),
            "images": len(truth.image_ids),
            "detections": len(matches.scores),
        },
        "errors": {name: _errors(replace(matches, scores=of_them), kept) for name, of_them in scores.items()},
    }
    report.write_json(path, written)
    return written | {"file": path}


def show_calibration(written: Mapping[str, Any]) -> None:
    """Prints the calibration error before and after."""
    from rich.console import Console
    from rich.table import Table

    caption = "kept: the detections from the LRP-optimal score of their class on, as deployed; all: mostly those of low score"
    title = f"LaECE with the {written['method']} map (lower is better)"
    table = Table("", title=title, title_justify="left", caption=caption, caption_justify="left")
    for column in ("all", "kept"):
        table.add_column(column, justify="right")
    meaning = {"before": "the detector's scores", "after": "on the images fitted on", "cross_fitted": "on images not fitted on"}
    for name, numbers in written["errors"].items():
        table.add_row(f"{name.replace('_', '-')}: {meaning[name]}", f"{numbers['LaECE']:.3f}", f"{numbers['LaECE_kept']:.3f}")
    Console().print(table)
    count = "fitted on {detections} detections in {images} images of {annotations}".format(**written["fitted_on"])
    print(f"{count}: {written['file']}")


def cross_fitted(matches: Matches, results: DetectionColumns, fit: Callable[[Matches], Calibration]) -> Matches:
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
    columns = {field.name: getattr(matches, field.name)[kept] for field in fields(matches) if field.name != "num_ground_truth"}
    return replace(matches, **columns)


def _errors(matches: Matches, kept: Bool[np.ndarray, " k"]) -> dict[str, float]:
    """Of all detections, and of those that are kept where each class is cut at its LRP-optimal score."""
    from ..metrics import localization_aware_calibration_error

    of_all, of_kept = localization_aware_calibration_error(matches), localization_aware_calibration_error(_part(matches, kept))
    return {"LaECE": of_all.laece, "LaACE": of_all.laace, "LaECE_kept": of_kept.laece, "LaACE_kept": of_kept.laace}


run = command(calibrate, show_calibration)
