"""The folder of a run: what a validation leaves there, and all that a report shows of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics import DetectionColumns, GroundTruth, read_ground_truth, read_results
from .confusion import confusion_matrix
from .log import Curves, read_curves
from .tables import write_json

CONFIG = "config.yaml"
TRUTH = "ground_truth.json"
FOUND = "detections.json"


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        name: tells it from the runs beside it.
        folder: of the run.
        config: the resolved recipe; empty where there is none, as of detections of another program.
        facts: ``run.json``: minutes, epochs, the command; empty where the training did not end.
        curves: of the training, by what was logged: steps and values.
        truth: what was validated; None before the first validation.
        found: the detections in it; None with ``truth``.
        images: the folder that the file names of ``truth`` are relative to; None where it is not known.
        metrics: of these two.
        notes: what is missing, and why.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    curves: Curves
    truth: GroundTruth | None = None
    found: DetectionColumns | None = None
    images: Path | None = None
    metrics: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def write_validation(
    folder: Path, truth: GroundTruth, found: DetectionColumns, metrics: Mapping[str, Any], *, info: Mapping[str, str]
) -> None:
    """Writes what a validation found, for reports and for every program that reads COCO's formats.

    ``ground_truth.json``: the annotations of the images that were validated, in COCO's format; ``info`` stands there too.
    ``detections.json``: the detections, in COCO's results format: ``lossbox evaluate`` of the two gives ``metrics.json``.
    ``confusion_matrix.json``: which class was taken for which at IoU 0.5, each class cut at its LRP-optimal score, since the scores of
    ranking losses are not probabilities; a class without a true positive has no such score, and nothing of it is counted.

    Args:
        folder: is made where it does not exist.
        truth: the annotations.
        found: the detections.
        metrics: of these two, from :func:`lossbox.metrics.evaluate`.
        info: where the data is: ``images``, the folder; ``annotations``; ``checkpoint``.
    """
    ids, categories = truth.image_ids.tolist(), truth.category_ids.tolist()
    names = truth.file_names or [""] * len(ids)
    areas, crowd = truth.areas.tolist(), truth.crowd.astype(int).tolist()
    annotations = [
        {"id": row + 1, "image_id": ids[image], "category_id": categories[label], "bbox": box, "area": areas[row], "iscrowd": crowd[row]}
        for row, (image, label, box) in enumerate(zip(truth.image.tolist(), truth.category.tolist(), truth.boxes.tolist(), strict=True))
    ]
    document = {
        "info": dict(info),
        "images": [{"id": image_id, "file_name": name} for image_id, name in zip(ids, names, strict=True)],
        "categories": [{"id": key, "name": name} for key, name in zip(categories, truth.category_names, strict=True)],
        "annotations": annotations,
    }
    rows = zip(found.image.tolist(), found.category.tolist(), found.boxes.tolist(), found.scores.tolist(), strict=True)
    results = [{"image_id": ids[image], "category_id": categories[label], "bbox": box, "score": score} for image, label, box, score in rows]
    thresholds = [row["threshold"] for row in metrics["per_class"]]
    confusion = {
        "iou_threshold": 0.5,
        "thresholds": thresholds,
        "classes": [*truth.category_names, "background"],
        "rows": "true",
        "columns": "predicted",
        "matrix": confusion_matrix(truth, found, thresholds).tolist(),
    }
    write_json(folder / TRUTH, document, indent=None)
    write_json(folder / FOUND, results, indent=None)
    write_json(folder / "confusion_matrix.json", confusion)


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The folders of runs, each once, in the order of ``paths``.

    Args:
        paths: each the folder of a run, or a folder that holds such folders at any depth, as that of ``lossbox compare``.

    Raises:
        FileNotFoundError: a path that is neither, which is named.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        here = [path] if (path / CONFIG).is_file() else sorted(file.parent for file in path.rglob(CONFIG))
        if not here:
            what = "holds no run" if path.is_dir() else "is a file" if path.exists() else "does not exist"
            raise FileNotFoundError(f"runs: {path} {what}; the folder of a run of `lossbox fit` expected, with its {CONFIG}")
        found |= {folder.resolve(): folder for folder in here if folder.resolve() not in found}
    return list(found.values())


def read_run(folder: Path, *, name: str = "") -> Run:
    """Everything that a run left in its folder; what is not there is said in ``notes``.

    Args:
        folder: of the run.
        name: of the run; the path of the folder by default.

    Raises:
        ValueError: a file that cannot be read; it is named.
    """
    config = _read_yaml(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    notes = [] if config else [f"There is no {CONFIG}: the folder of a validation, not of a training."]
    try:
        curves = read_curves(folder)
    except FileNotFoundError:
        curves = {}
        notes.append("There is no log of the training (csv/version_*/metrics.csv): nothing was logged yet, or with another logger.")
    facts = _read(folder / "run.json") or {}
    if config and not facts:
        notes.append("The training did not end: it runs, or was interrupted (run.json is written at the end).")
    metrics = _read(folder / "metrics.json")
    run: dict[str, Any] = {"facts": facts, "curves": curves, "metrics": metrics}
    if metrics is None:
        notes.append("Nothing was validated: there is no metrics.json.")
    elif not (folder / TRUTH).is_file() or not (folder / FOUND).is_file():
        notes.append(f"{TRUTH} and {FOUND} are not there (they are not written with --artifacts false): no curves, no images.")
    else:
        truth = read_ground_truth(folder / TRUTH)
        images = json.loads((folder / TRUTH).read_text()).get("info", {}).get("images")
        run |= {"truth": truth, "found": read_results(folder / FOUND, truth), "images": Path(images) if images else None}
    return Run(name or folder.as_posix(), folder, config, **run, notes=tuple(notes))


def names_of(folders: Sequence[Path]) -> list[str]:
    """What tells the folders apart: their paths without the part that all have in common; of one, the path as it is.

    Example:
        >>> names_of([Path("runs/focal/seed-0"), Path("runs/alrp/seed-0")])
        ['focal/seed-0', 'alrp/seed-0']
        >>> names_of([Path("runs/mine")])
        ['runs/mine']
    """
    if len(folders) == 1:
        return [folders[0].as_posix()]
    resolved = [folder.resolve() for folder in folders]
    common = Path(os.path.commonpath([folder.parent for folder in resolved]))
    return [folder.relative_to(common).as_posix() for folder in resolved]


def same_truth(one: Run, other: Run) -> bool:
    """Whether two runs were validated on the same annotations, so that they can be compared image by image."""
    if one.truth is None or other.truth is None:
        return False
    names = ("image_ids", "category_ids", "image", "category", "boxes", "crowd")
    return one.truth.category_names == other.truth.category_names and all(
        np.array_equal(getattr(one.truth, name), getattr(other.truth, name)) for name in names
    )


def _read(path: Path) -> Any:
    """The content of a JSON file; None where there is none."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f"{path}: not the resolved recipe of a run: it lacks 'model'")
    return content
