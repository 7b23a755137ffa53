"""A trained detector out of the folder of its run, for the commands that use one without training it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..data.module import CocoDataModule
from ..decoding import Decoder
from ..records import Batch, Detections
from .checkpoint import read_checkpoint
from .precision import precision_in_use
from .task import DetectionTask

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Categories = list[tuple[int, str]]


@dataclass(frozen=True)
class Trained:
    """A detector as its run left it, ready to be used.

    Attributes:
        task: in evaluation mode, on ``device``.
        data: the data module of the recipe; nothing is read before it is asked for.
        categories: COCO id and name of each label.
        device: where the detector is.
        autocast: what it computes in beside float32, or None.
    """

    task: DetectionTask
    data: CocoDataModule
    categories: Categories
    device: torch.device
    autocast: torch.dtype | None

    @torch.inference_mode()
    def detect(self, batch: Batch) -> list[Detections]:
        """What is found in each image, on the CPU, boxes in pixels of the file on disk: what validation evaluates."""
        images = batch.images.to(self.device)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            found = self.task.detect(images, [target.size for target in batch.targets])
        return [one.cpu().resized(target.size, target.original_size) for one, target in zip(found, batch.targets, strict=True)]


def load_trained(
    checkpoint: Path,
    config: Path | None = None,
    *,
    device: str = "auto",
    categories: Categories | None = None,
    decoder: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> Trained:
    """Builds the detector of a recipe and loads its weights.

    Args:
        checkpoint: a file that ``lossbox fit`` wrote.
        config: the resolved recipe; by default ``config.yaml`` in the folder of the run, which holds ``checkpoints/``.
        device: a name of torch's, or ``auto``: the first GPU where there is one.
        categories: COCO id and name of each label, for a checkpoint that does not hold them; one that does must have the same.
        decoder: options of ``lossbox.decoding.Decoder`` instead of the recipe's; a value of None leaves one as it is.
        data: options of the data module instead of the recipe's.

    Returns:
        The detector in evaluation mode. Its weights are all from the checkpoint: none are downloaded.

    Raises:
        FileNotFoundError: the checkpoint or the recipe is not there.
        ValueError: they do not fit each other, or an option is out of its range.
    """
    where = _device(device)
    content = read_checkpoint(checkpoint)
    recipe = _read_recipe(checkpoint, config)
    stored = [(int(category_id), str(name)) for category_id, name in content.get("lossbox_categories", [])] or None
    if stored is not None and categories is not None and stored != categories:
        raise ValueError(f"ckpt: {checkpoint} was trained on other categories: {_first_difference(stored, categories)}")
    known = stored or categories
    if known is None:
        raise ValueError(f"ckpt: {checkpoint} does not hold the names of its classes (an older lossbox wrote it); name --annotations")
    task, images = _build(recipe, data or {}, len(known), config or _config_of(checkpoint))
    try:
        task.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"ckpt: {checkpoint} does not fit its recipe: {_one_line(error)}") from error
    options = {name: value for name, value in (decoder or {}).items() if value is not None}
    if options:
        if not isinstance(task.decoder, Decoder):
            raise ValueError(f"{next(iter(options))}: the recipe's decoder, {type(task.decoder).__name__}, takes no such option")
        task.decoder = replace(task.decoder, **options)
    mixed = precision_in_use(recipe.get("trainer", {}).get("precision"), where) == "bf16-mixed"
    autocast = torch.bfloat16 if mixed else None
    return Trained(task.eval().to(where), images, known, where, autocast)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device: no {name!r} here: {_one_line(error)}") from None
    return device


def _config_of(checkpoint: Path) -> Path:
    return checkpoint.absolute().parents[1] / "config.yaml"


def _read_recipe(checkpoint: Path, config: Path | None) -> dict[str, Any]:
    import yaml

    path = config or _config_of(checkpoint)
    if not path.is_file():
        hint = "" if config else "; --config names the resolved recipe (OUT/config.yaml) of a checkpoint that was moved"
        raise FileNotFoundError(f"config: no file {path}{hint}")
    try:
        recipe = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config: {path} is not YAML: {error}") from error
    lacking = [name for name in ("model", "data") if not isinstance(recipe, dict) or not isinstance(recipe.get(name), dict)]
    if lacking:
        raise ValueError(f"config: {path} lacks {lacking[0]!r}; the resolved recipe of a run (OUT/config.yaml) expected")
    return dict(recipe)


def _build(recipe: Mapping[str, Any], data: Mapping[str, Any], num_classes: int, path: Path) -> tuple[DetectionTask, CocoDataModule]:
    from jsonargparse import ArgumentError, ArgumentParser, Namespace

    detector = recipe["model"].get("detector") or {}
    options = {**detector.get("init_args", {}), "num_classes": num_classes}
    if isinstance(options.get("backbone"), dict):
        options["backbone"] = {**options["backbone"], "weights": None}  # the checkpoint holds all weights
    model = {**recipe["model"], "detector": {**detector, "init_args": options}}
    parser: ArgumentParser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DetectionTask, "model")
    parser.add_class_arguments(CocoDataModule, "data")
    try:
        built: Namespace = parser.instantiate_classes(parser.parse_object({"model": model, "data": {**recipe["data"], **data}}))
    except ArgumentError as error:
        raise ValueError(f"config: {path}: {_one_line(error)}") from error
    return built.model, built.data


def _first_difference(stored: Categories, given: Categories) -> str:
    only = sorted(set(stored) ^ set(given))
    return f"{len(only)} (id, name) are on one side only, the first is {only[0]}"


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...")
