"""``lossbox evaluate``."""

from __future__ import annotations

import math
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..messages import duration
from .bars import stages
from .command import File, Folder, NewFile, command
from .convert import converted

if TYPE_CHECKING:
    from ..metrics import DetectionColumns, GroundTruth, Matches


LONG = 5.0
"""Seconds from which on it is said how long something will take."""


def evaluate(
    ground_truth: File | GroundTruth,
    results: File | DetectionColumns,
    *,
    against: File | DetectionColumns | None = None,
    resamples: int = 1000,
    iou: Sequence[float] | float = (0.5,),
    iou_type: Literal["bbox", "segm", "keypoints"] = "bbox",
    category_ids: Literal["id", "from-0", "from-1"] | None = None,
    slice_by: Sequence[str] = (),
    errors: bool = False,
    fp_cost: float | None = None,
    fn_cost: float | None = None,
    localization_cost: float | None = None,
    bounds: bool = False,
    calibration: bool = False,
    json: NewFile | None = None,
    thresholds: NewFile | None = None,
    report: NewFile | None = None,
    images: Folder | None = None,
) -> dict[str, Any]:
    """COCO AP (pycocotools' numbers) and optimal LRP of detections.

    Optimal LRP is the smallest error over all score thresholds, made of localization, false positives and false negatives; the score that
    reaches it is the one to deploy a class with. Where errors have a price, --fp-cost and --fn-cost find the score that costs least.

    Args:
        ground_truth: annotations in COCO's format (JSON), or a folder (or ZIP file) of data, whose validation part is measured: that which
            `lossbox fit DATA` validates on
        results: detections in COCO's results format (a JSON list)
        against: a second file of detections; both are compared, with a paired bootstrap interval of each difference
        resamples: how many draws of the images --against takes; 1000 take minutes on a data set of COCO's size
        iou: IoU from which a detection is right, for LRP; in (0, 1). Of several, the first is what everything else is computed at
        iou_type: what is compared: boxes, masks or keypoints
        category_ids: what a category_id of the detections is: the id of a category, or the place of the class among these by ascending id,
            counted from 0 or from 1 (Ultralytics)
        slice_by: also of parts: area (small, medium, large), a field of the images such as camera, file:PATTERN such as file:night_*
        errors: what is wrong: the error of each class by kinds, and what AP would gain without each kind (TIDE)
        fp_cost: the price of a false positive; --thresholds writes the scores that cost least
        fn_cost: the price of a miss
        localization_cost: the price of a box that is just right, falling to 0 for a perfect one
        bounds: AP if the scores of the true positives were in order of their IoU, and if in inverse order
        calibration: how far scores are from the IoU to expect: LaECE, LaACE and LaMCE (0 is perfect)
        json: write all numbers, per class too
        thresholds: write the LRP-optimal score of each class (CSV)
        report: write an HTML page: precision against recall, LRP against the score threshold, classes, confusion, the worst images, scores
        images: the folder that the file names of the ground truth are relative to, for the images of the report

    Returns:
        The numbers of :func:`lossbox.metrics.evaluate`, ``num_detections``, and ``notes``: what was read in another way than COCO's. Where
        they were asked for: ``at_iou``, oLRP and its parts by IoU; ``slices``, by what it was sliced by, see
        :func:`lossbox.metrics.slice_by_images`; ``errors``, see :func:`lossbox.metrics.error_shares`, and ``tide``, see
        :func:`lossbox.metrics.tide_errors`; ``cost``, and ``cost_threshold`` in each class; ``bounds``, see
        :func:`lossbox.metrics.score_bounds`; ``LaECE``, ``LaACE`` and ``LaMCE``; ``comparison``, see
        :func:`lossbox.metrics.compare_detections`.

    Raises:
        ValueError: an option out of range, or a bad record, which is named with its file.
        ImportError: hotcoco is not installed.

    Example:
        >>> truth = {"images": [{"id": 7}], "categories": [{"id": 3, "name": "cup"}], "annotations": [
        ...     {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10]}]}
        >>> from lossbox.metrics import read_ground_truth, read_results
        >>> columns = read_ground_truth(truth)
        >>> found = read_results([{"image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 8], "score": 0.9}], columns)
        >>> round(evaluate(columns, found)["AP"], 6)
        0.7
    """
    taus = _taus(iou)
    if (fp_cost is None) != (fn_cost is None) or (localization_cost is not None and fn_cost is None):
        given = {"--fp-cost": fp_cost, "--fn-cost": fn_cost, "--localization-cost": localization_cost}
        named = ", ".join(option for option, cost in given.items() if cost is not None)
        raise ValueError(f"fp_cost: --fp-cost and --fn-cost expected together, got {named} alone")
    from .. import metrics
    from ..decoding import write_thresholds
    from ..report import write_json

    tau = taus[0]
    asked = (bool(slice_by), errors, fn_cost is not None, bounds, calibration, against is not None, bool(report))
    with _as_file(ground_truth) as (source, folder, said), stages(4 + sum(asked)) as stage:
        stage("reading the ground truth")
        truth = source if isinstance(source, metrics.GroundTruth) else metrics.read_ground_truth(source, iou_type=iou_type)
        stage("reading the detections")
        found, other = (
            one if one is None or isinstance(one, metrics.DetectionColumns) else metrics.read_results(one, truth, category_ids=category_ids)
            for one in (results, against)
        )
        assert found is not None
        stage("average precision")
        ap = metrics.average_precision(truth, found)
        stage("matching and optimal LRP")
        matches = metrics.match_detections(truth, found, iou_threshold=tau)
        numbers = metrics.numbers_of(truth, ap, matches, tau=tau) | {"num_detections": len(found.scores), "notes": [*said, *found.notes]}
        if len(taus) > 1:
            numbers["at_iou"] = {f"{at:g}": _olrp(truth, found, at) for at in taus}
        if slice_by:
            stage("parts of the data")
            numbers["slices"] = {"area": metrics.slice_by_area(truth, found, ap, tau=tau)} if "area" in slice_by else {}
            parts = _parts(truth, source, slice_by)
            numbers["slices"] |= {by: metrics.slice_by_images(truth, found, of, tau=tau) for by, of in parts.items()}
        if errors:
            stage("kinds of errors")
            numbers["errors"] = metrics.error_shares(truth, found, tau=tau, matches=matches)
            numbers["tide"] = metrics.tide_errors(truth, found)
        if fp_cost is not None and fn_cost is not None:
            stage("costs")
            _add_costs(numbers, matches, fp_cost, fn_cost, localization_cost or 0.0, tau)
        if bounds:
            stage("average precision of two other orders")
            numbers["bounds"] = metrics.score_bounds(truth, found, matches=matches, ap=ap)
        if calibration:
            stage("calibration")
            numbers |= _calibration(truth, found)
        if other is not None:
            stage(f"the comparison, {resamples:,} draws of the images")
            numbers["comparison"] = metrics.compare_detections(truth, found, other, tau=tau, resamples=resamples, announce=_announce)
        if report:
            stage("the report")
            _write_report(Path(report), ground_truth, results, truth, found, numbers, images=images or folder, tau=tau)
    if json:
        write_json(Path(json), numbers)
    if thresholds:
        cut = "threshold" if fn_cost is None else "cost_threshold"
        write_thresholds(Path(thresholds), {"per_class": [row | {"threshold": row[cut]} for row in numbers["per_class"]]})
    return numbers


def _announce(seconds: float) -> None:
    """Says how long the draws will take where that is long."""
    if seconds > LONG:
        print(f"comparing: the draws of the images take about {duration(seconds)}", file=sys.stderr, flush=True)


@contextmanager
def _as_file(data: File | GroundTruth) -> Iterator[tuple[File | GroundTruth, Path | None, list[str]]]:
    """Of a folder of data the JSON of its validation part, which lasts as long as the context, the folder of its images, and what it is."""
    if not isinstance(data, str | Path) or not (Path(data).is_dir() or Path(data).suffix.lower() == ".zip"):
        yield data, None, []
        return
    from ..coco.split import VAL_SHARE

    with tempfile.TemporaryDirectory() as out:
        try:
            done = converted(Path(data), Path(out), drop=True, val_share=VAL_SHARE)
        except ValueError as error:
            raise ValueError(str(error).partition("; --allow-empty")[0]) from error
        if "val" not in done.parts:
            raise ValueError(f"ground_truth: {data} has no validation part but {', '.join(done.parts)}; name the JSON of a part")
        written = done.as_dict()
        said = [f"{done.data}; measured is the part val: {done.parts['val']['counts']}"]
        for word in ("left_out", "notes"):
            said += [f"{word.replace('_', ' ')}: {len(messages)}, the first is {messages[0]}" for messages in written[word].values()]
        yield done.parts["val"]["annotations"], Path(done.parts["val"]["images"]), said


def _taus(iou: Sequence[float] | float) -> list[float]:
    taus = [float(iou)] if isinstance(iou, float | int) else list(iou)
    for tau in taus or [math.nan]:
        if not 0 < tau < 1:
            raise ValueError(f"iou: a number in (0, 1) expected, got {tau}")
    return taus


def _parts(truth: GroundTruth, source: Any, slice_by: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The parts of the images by field, and in ``file`` those by pattern."""
    from ..metrics import parts_by_attribute, parts_by_name

    patterns = [name.removeprefix("file:") for name in slice_by if name.startswith("file:")]
    fields = [name for name in slice_by if name != "area" and not name.startswith("file:")]
    if fields and not isinstance(source, str | Path):
        raise ValueError(f"slice_by: a field of the images ({fields[0]}) needs a ground truth file, got columns")
    parts = {field: parts_by_attribute(truth, source, field) for field in fields}
    return parts | ({"file": parts_by_name(truth, patterns)} if patterns else {})


def _olrp(truth: GroundTruth, found: DetectionColumns, tau: float) -> dict[str, float]:
    """oLRP and its parts, means over classes, matched anew at another IoU."""
    from ..metrics import match_detections, optimal_lrp_per_class
    from ..metrics._arrays import mean_of_defined

    optima = optimal_lrp_per_class(match_detections(truth, found, iou_threshold=tau), tau=tau)
    names = {"oLRP": "olrp"} | {f"oLRP_{name}": name for name in ("localization", "false_positive", "false_negative")}
    return {ours: mean_of_defined(getattr(optimum, name) for optimum in optima) for ours, name in names.items()}


def _calibration(truth: GroundTruth, found: DetectionColumns) -> dict[str, float]:
    from ..metrics import ANY_OVERLAP, localization_aware_calibration_error, match_detections

    error = localization_aware_calibration_error(match_detections(truth, found, iou_threshold=ANY_OVERLAP))
    return {"LaECE": error.laece, "LaACE": error.laace, "LaMCE": error.lamce}


def _add_costs(numbers: dict[str, Any], matches: Matches, fp_cost: float, fn_cost: float, localization_cost: float, tau: float) -> None:
    """What the errors cost, in all and in each class, at the thresholds where they cost least."""
    from ..metrics import cost_optimal_thresholds

    prices = {"fp_cost": fp_cost, "fn_cost": fn_cost, "localization_cost": localization_cost}
    optima = cost_optimal_thresholds(matches, fp_cost=fp_cost, fn_cost=fn_cost, localization_cost=localization_cost, tau=tau)
    for row, optimum in zip(numbers["per_class"], optima, strict=True):
        row |= {"cost_threshold": optimum.threshold, "cost": optimum.cost}
    counts = {name: sum(getattr(optimum, name) for optimum in optima) for name in optima[0]._fields[2:]} if optima else {}
    numbers["cost"] = {**prices, "total": math.fsum(optimum.cost for optimum in optima), **counts}


def _write_report(
    path: Path, ground_truth: Any, results: Any, truth: GroundTruth, found: DetectionColumns, numbers: Any, *, images: Any, tau: float
) -> None:
    from ..report import Run, write_page

    files = [str(file) if isinstance(file, str | Path) else name for file, name in ((ground_truth, "TRUTH"), (results, "RESULTS"))]
    options = ["--iou", f"{tau:g}"] if tau != 0.5 else []
    options += ["--report", str(path)] + (["--images", str(images)] if images else [])
    run = Run(Path(files[1]).stem, path.parent, {}, {}, {}, truth, found, Path(images) if images else None, numbers)
    write_page(path, [run], command=shlex.join(["lossbox", "evaluate", *files, *options]), tau=tau)


def show_evaluation(
    numbers: Mapping[str, Any],
    *,
    ground_truth: File,
    results: File,
    against: File | None = None,
    per_class: bool = False,
    json: NewFile | None = None,
    thresholds: NewFile | None = None,
    report: NewFile | None = None,
) -> None:
    """Prints what :func:`evaluate` returns, and which files it wrote.

    Args:
        per_class: a line for each class, not the mean alone
    """
    from ..report import evaluation_tables as tables
    from ..report import print_metrics

    for note in numbers["notes"]:
        print(f"note: {note}")
    print_metrics(numbers, per_class=per_class)
    if "at_iou" in numbers:
        tables.print_at_iou(numbers["at_iou"])
    for by, rows in numbers.get("slices", {}).items():
        tables.print_slices(by, rows)
    if "errors" in numbers:
        tables.print_errors(numbers["errors"], numbers["tide"])
    if "cost" in numbers:
        tables.print_costs(numbers)
    if "bounds" in numbers:
        tables.print_bounds(numbers["bounds"])
    if "LaECE" in numbers:
        errors = ((name, numbers[name]) for name in ("LaECE", "LaACE", "LaMCE"))
        print("calibration: " + ", ".join(f"{name} {'-' if math.isnan(value) else f'{value:.3f}'}" for name, value in errors))
    if "comparison" in numbers:
        tables.print_comparison(numbers["comparison"], str(results), str(against))
    if not sum(row["num_ground_truth"] for row in numbers["per_class"]):
        print(f"note: {ground_truth} has no boxes, so that nothing is defined (-)")
    elif not numbers["num_detections"]:
        print(f"note: {results} has no detections")
    cut = "the score at which each class costs least" if "cost" in numbers else "the score at which to cut each class"
    for what, path in (("all numbers", json), (cut, thresholds), ("the report, for a browser", report)):
        if path:
            print(f"{what}: {path}")


run = command(evaluate, show_evaluation)
