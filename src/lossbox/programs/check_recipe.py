"""What ``lossbox check`` takes from a recipe, and where it writes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .command import File, Folder
from .fit import name_of

FALLBACK = "own_data"
"""The recipe whose anchors are looked at where none is named."""


def out_of(data: File | None, images: Folder | None, config: str | None) -> Path:
    """Where the images of a check go: one folder for each data set.

    Example:
        >>> out_of("digits/train.json", "digits/train", None).name, out_of(None, None, "my.yaml").name
        ('digits_train', 'my')
    """
    if data is None:
        return Path("runs/check", Path(config or FALLBACK).stem)
    names = [name_of(Path(data))] if images is None else [Path(data).parent.name, Path(data).stem]
    return Path("runs/check", "_".join(filter(None, names)))


def parts_of(recipe: Mapping[str, Any]) -> dict[str, tuple[Path, Path]]:
    """The annotations and the images of both parts."""
    if not recipe:
        raise ValueError("data: a folder of data, a COCO JSON and the folder of its images, or --config RECIPE expected")
    data = recipe.get("data") or {}
    missing = [f"data.{part}_{kind}" for part in ("train", "val") for kind in ("annotations", "images") if not data.get(f"{part}_{kind}")]
    if missing:
        raise ValueError(f"config: the recipe does not say {', '.join(missing)}; give the annotations and the images before --config")
    return {part: (Path(data[f"{part}_annotations"]), Path(data[f"{part}_images"])) for part in ("train", "val")}


def image_size_of(recipe: Mapping[str, Any]) -> int | tuple[int, int] | Literal["auto"]:
    """That of the data, the default included."""
    size = _of_data(recipe, "image_size")
    return tuple(size) if isinstance(size, list) else size


def batch_size_for(recipe: Mapping[str, Any], images: int) -> int | None:
    """The batch size that works where the training images are fewer than a batch of the recipe; None where they are not."""
    size = _of_data(recipe, "batch_size")
    return images if isinstance(size, int) and 0 < images < size and not _of_data(recipe, "tile") else None


def _of_data(recipe: Mapping[str, Any], name: str) -> Any:
    """An option of the data, or its default."""
    found = (recipe.get("data") or {}).get(name)
    if found is None:
        from ..data.module import CocoDataModule

        found = inspect.signature(CocoDataModule).parameters[name].default
    return found


def anchor_options_of(recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """Strides, anchor_scale, scales and ratios, defaults included; None where the detector has no anchors."""
    detector = (recipe.get("model") or {}).get("detector")
    if isinstance(detector, str):
        detector = {"class_path": detector}
    if not detector or "class_path" not in detector:
        return None
    module, _, name = detector["class_path"].rpartition(".")
    try:
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"config: model.detector.class_path: {detector['class_path']} cannot be imported: {error}") from error
    names = ("anchor_scale", "scales", "ratios")
    if not all(option in parameters for option in ("backbone", *names)):
        return None
    options = detector.get("init_args") or {}
    strides = (options.get("backbone") or {}).get("strides", parameters["backbone"].default.strides)
    return {"strides": strides} | {option: options.get(option, parameters[option].default) for option in names}
