"""The model card that ``lossbox export`` writes beside a file: what the model is, what it was trained on, how good it is."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MEASURED = ("AP", "AP50", "AP75", "oLRP", "oLRP_localization", "oLRP_false_positive", "oLRP_false_negative")
PACKAGES = ("torch", "torchvision", "onnx", "openvino")


def write_card(model: Path, content: Mapping[str, Any], config: Path, *, license: str, thresholds: Path | None) -> Path:
    """Writes the card as JSON and as Markdown, under the name of the model.

    Args:
        model: the exported file.
        content: ``checkpoint``, ``height``, ``width``, ``classes`` and ``nms``: the beginning of the card.
        config: the resolved recipe; ``metrics.json`` beside it has the numbers of the last validation.
        license: as the user says it.
        thresholds: the file whose scores are in the model.

    Returns:
        The JSON file.

    Raises:
        ValueError: ``metrics.json`` or the recipe cannot be read.
    """
    from .. import report
    from ..coco.checks import load_json
    from ..decoding import read_thresholds
    from ..training.checkpoint import read_config

    recipe = read_config(config)
    file = config.with_name("metrics.json")
    metrics = load_json(file, "the numbers of a validation") if file.is_file() else None
    cuts = read_thresholds(thresholds) if thresholds else {}
    rows = {row["id"]: row for row in metrics["per_class"]} if metrics else {}
    classes = []
    for row in content["classes"]:
        measured = rows.get(row["id"], {})
        cut = cuts.get(row["id"], math.nan) if thresholds else measured.get("threshold")
        classes.append(row | {"threshold": cut, **{name: measured.get(name) for name in ("AP", "oLRP", "num_ground_truth")}})
    data = {name: recipe["data"].get(name) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}
    card = {
        **content,
        "classes": classes,
        "thresholds": str(thresholds) if thresholds else "the LRP-optimal scores of the validation" if metrics else None,
        "license": license,
        "data": data,
        "tile": recipe["data"].get("tile") or None,
        "overlap": recipe["data"].get("overlap"),
        "metrics": {name: metrics.get(name) for name in MEASURED} if metrics else None,
        "metrics_of": f"{file}: the last validation of the run" if metrics else None,
        "recipe": {
            "config": str(config),
            "detector": (recipe["model"].get("detector") or {}).get("class_path"),
            "objective": (recipe["model"].get("objective") or {}).get("class_path"),
            "max_epochs": recipe.get("trainer", {}).get("max_epochs"),
            "minutes": recipe.get("minutes"),
        },
        "versions": _versions(),
    }
    path = model.with_suffix(".json")
    report.write_json(path, card)
    path.with_suffix(".md").write_text(_markdown(model, card), encoding="utf-8")
    return path


def _versions() -> dict[str, str]:
    from .. import __version__

    versions = {"lossbox": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _markdown(model: Path, card: Mapping[str, Any]) -> str:
    """The card to be read."""
    metrics, recipe = card["metrics"], card["recipe"]
    numbers = ", ".join(f"{name} {_number(value)}" for name, value in metrics.items()) if metrics else "not measured"
    length = f"{recipe['max_epochs']} epochs" if recipe["minutes"] is None else f"{recipe['minutes']:g} minutes"
    suppression = "in the file" if card["nms"] else "not in the file"
    lines = [
        f"# {model.name}",
        "",
        f"- **Input**: images of {card['height']} x {card['width']} pixels, RGB in [0, 1]",
        f"- **Thresholds and non-maximum suppression**: {suppression}",
        *([f"- **Tiles**: trained and measured on tiles of {card['tile']} pixels, overlap {card['overlap']:g}"] if card["tile"] else []),
        f"- **License**: {card['license']}",
        f"- **Trained on**: {card['data']['train_annotations']} (images: {card['data']['train_images']})",
        f"- **Measured on**: {card['data']['val_annotations']} (images: {card['data']['val_images']})",
        f"- **Accuracy**: {numbers}" + (f" ({card['metrics_of']})" if metrics else ""),
        f"- **Recipe**: {recipe['config']}: {recipe['detector']}, {recipe['objective']}, {length}",
        f"- **Checkpoint**: {card['checkpoint']}",
        f"- **Versions**: {', '.join(f'{name} {value}' for name, value in card['versions'].items())}",
        "",
        f"Score to cut at: {card['thresholds'] or 'not known'}; - where no score of the class was right.",
        "",
        "| label | id | class | score to cut at | AP | oLRP | boxes |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in card["classes"]:
        name = str(row["name"]).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
        cells = (_number(row["threshold"]), _number(row["AP"]), _number(row["oLRP"]), str(row["num_ground_truth"] or 0 if metrics else "-"))
        lines.append(f"| {row['label']} | {row['id']} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
