"""Options of a recipe that say ``auto`` and are decided by the training boxes, before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_only

from ..coco.read import CocoAnnotations
from ..data.fit_to_boxes import AnchorGrid, Choice, choose
from ..data.module import read_part
from ..data.tiles import cut_into_tiles
from ..detectors.anchors import anchor_shapes
from .batch_size import ON_CPU
from .checkpoint import config_of, read_config

IMAGE_SIZE, ANCHOR_SCALE = "data.image_size", "model.detector.init_args.anchor_scale"
BATCH_SIZE, LEARNING_RATE = "data.batch_size", "model.optimizer.init_args.learning_rate"


def settle_auto(section: Namespace) -> CocoAnnotations | None:
    """Puts numbers in the place of ``auto``, in place, and prints each with its reason; reads nothing where nothing says ``auto``.

    A run that goes on from a checkpoint, or is validated, keeps the numbers of the config.yaml beside it.

    Args:
        section: the parsed options of ``fit`` or ``validate``.

    Returns:
        The training annotations, where they were read for it.

    Raises:
        FileNotFoundError: the training annotations are not there.
        ValueError: they break a rule.
    """
    asked = [name for name in (IMAGE_SIZE, ANCHOR_SCALE) if section.get(name) == "auto"]
    found = _of_the_run(section.get("ckpt_path")) if asked else {}
    train = None
    if not all(name in found for name in asked):
        data = section.data
        train = read_part("train", Path(data.train_annotations), Path(data.train_images), on_bad_box=data.on_bad_box)
        found = _of_the_boxes(section, train) | found
    for name in asked:
        value, reason = found[name]
        section[name] = value
        _say(f"{name.rpartition('.')[2]}: {value} (auto: {reason})")
    return train


def settle_tried(section: Namespace) -> dict[str, bool]:
    """Of the options that say ``auto`` and are decided by a trial: puts numbers in their place where they are known without one, in place.

    Args:
        section: the parsed options of ``fit`` or ``validate``.

    Returns:
        Of each such option, whether it is known: as a run has it that goes on or is validated. Of a batch size that is not known some
        number stands there.
    """
    path = config_of(section.ckpt_path) if section.ckpt_path is not None else None
    began = read_config(path) if path is not None and path.is_file() else None
    known = {}
    for name in (BATCH_SIZE, LEARNING_RATE):
        if section.get(name) != "auto":
            continue
        found: Any = began
        for part in name.split("."):
            found = (found or {}).get(part)
        known[name] = found not in (None, "auto")
        if known[name] or name == BATCH_SIZE:
            section[name] = found if known[name] else ON_CPU
    return known


@rank_zero_only
def _say(line: str) -> None:
    print(line, flush=True)


def _of_the_run(checkpoint: str | None) -> dict[str, Choice]:
    """The numbers with which the run of a checkpoint began; none where its config.yaml is not beside it."""
    path = config_of(checkpoint) if checkpoint else None
    if path is None or not path.is_file():
        return {}
    began = read_config(path)
    size = began["data"]["image_size"]
    numbers = {
        IMAGE_SIZE: tuple(size) if isinstance(size, list) else size,
        ANCHOR_SCALE: began["model"]["detector"].get("init_args", {}).get("anchor_scale"),
    }
    return {name: Choice(value, f"as in {path}") for name, value in numbers.items() if value not in (None, "auto")}


def _of_the_boxes(section: Namespace, train: CocoAnnotations) -> dict[str, Choice]:
    options, grid, data = section.model.detector.get("init_args"), None, section.data
    if data.tile:
        train = cut_into_tiles(train, tile=data.tile, overlap=data.overlap, min_visible=data.augmentation.min_visible)
    if options is not None and "anchor_scale" in options:
        strides = options.backbone.strides
        grid = AnchorGrid(anchor_shapes(strides, anchor_scale=1.0, scales=options.scales, ratios=options.ratios), strides)
    chosen = choose(train, image_size=data.image_size, anchors=grid)
    names = {"image_size": IMAGE_SIZE, "anchor_scale": ANCHOR_SCALE}
    return {names[name]: choice for name, choice in chosen.items()}
