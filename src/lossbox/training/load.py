"""A trained detector out of the folder of its run: ``lossbox.load(checkpoint).predict(images)``."""

from __future__ import annotations

import copy
import itertools
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..boxes import check_tiling
from ..data.module import CocoDataModule, collate
from ..data.transforms import shorter_and_longer
from ..decoding import Decoder, Tile, merge_tiles, tiles_of
from ..records import Batch, Detections, Targets
from .checkpoint import checkpoint_of, config_of, read_checkpoint, read_config
from .images import OneImage, named_images
from .precision import precision_in_use
from .task import DetectionTask

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Categories = list[tuple[int, str]]


@dataclass(frozen=True)
class Prediction:
    """What was found in one image, best score first.

    Attributes:
        boxes: (n, 4) ``x1 y1 x2 y2`` in pixels of the image.
        scores: (n,) comparable within the detector; of one that was trained with a ranking loss they are no probabilities.
        labels: (n,) int64: indices into the classes of the detector.
        class_names: n, the name of each label.
        path: of the image, where it is a file.

    Example:
        >>> Prediction(torch.tensor([[0., 0., 9., 9.]]), torch.tensor([0.5]), torch.tensor([1]), ["cup"]).to_supervision().xyxy
        array([[0., 0., 9., 9.]], dtype=float32)
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    class_names: list[str]
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.class_names)

    def to_supervision(self) -> Any:
        """The same as ``supervision.Detections``, the class names as ``data["class_name"]``.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision needs supervision: pip install supervision") from error
        names: dict[str, Any] = {"class_name": np.array(self.class_names, dtype=str)}
        return supervision.Detections(self.boxes.numpy(), confidence=self.scores.numpy(), class_id=self.labels.numpy(), data=names)


@dataclass(frozen=True, repr=False)
class Trained:
    """A detector as its run left it, ready to be used; see :func:`load_trained`.

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

    def __repr__(self) -> str:
        names = [name for _, name in self.categories]
        shown = ", ".join(names[:5]) + (f", ... {len(names) - 5} more" if len(names) > 5 else "")
        size = sum(parameter.numel() for parameter in self.task.detector.parameters()) / 1e6
        shorter, longer = shorter_and_longer(self.data.eval_size)
        pixels = f"{longer}" if shorter == longer else f"{shorter} to {longer}"
        seen = f"images of {pixels} px" if self.data.tile is None else f"tiles of {self.data.tile} px at {pixels} px"
        what = f"{type(self.task.detector).__name__}, {size:.1f} million parameters, {seen}, on {self.device}"
        return f"<Trained: {what}; classes: {shown}; .predict(images) finds objects>"

    def detect(self, batch: Batch) -> dict[int, Detections]:
        """What is found in each image, by its id, boxes in pixels of the file on disk: what validation evaluates."""
        found = [one for some in batch.split(self.data.batch_size) for one in self._found(some)]
        return self.task.in_images(found, batch.targets)

    @torch.inference_mode()
    def _found(self, batch: Batch) -> list[Detections]:
        """On the CPU, in the frame of the batch."""
        images = batch.images.to(self.device)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            return [one.cpu() for one in self.task.detect(images, [target.size for target in batch.targets])]

    def detect_images(self, images: Sequence[Tensor]) -> list[Detections]:
        """What is found in images of any sizes, each (3, h, w), uint8 or in [0, 1], in its pixels; all go through as one batch."""
        none = torch.zeros(0, dtype=torch.long)
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        empty = [Targets(torch.zeros(0, 4), none, none.bool(), number, size, size) for number, size in enumerate(sizes)]
        batch = collate([self.data.eval_transforms(*sample) for sample in zip(images, empty, strict=True)])
        return list(self.task.in_images(self._found(batch), batch.targets).values())

    def detect_tiles(self, tiles: Iterable[Tile], batch_size: int) -> Iterator[tuple[Any, Tensor, Detections]]:
        """Key, pixels and detections of each image, once its last tile went through the detector; a batch has tiles of several images."""
        rest, parts = iter(tiles), []
        while batch := list(itertools.islice(rest, batch_size)):
            for tile, found in zip(batch, self.detect_images([tile.pixels for tile in batch]), strict=True):
                parts.append(tile.in_image(found))
                if tile.last:
                    yield tile.key, tile.image, merge_tiles(parts, self.task.decoder)
                    parts = []

    def tiling(self, tile: int | None, overlap: float | None) -> tuple[int | None, float]:
        """How images are cut: as asked for, and as in the training where nothing is asked for; a tile of 0 stands for whole images.

        Raises:
            ValueError: an option out of its range.
        """
        tile, overlap = self.data.tile if tile is None else tile or None, self.data.overlap if overlap is None else overlap
        check_tiling(tile, overlap)
        return tile, overlap

    def predict(
        self,
        images: OneImage | Iterable[OneImage],
        *,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        batch_size: int | None = None,
        tile: int | None = None,
        overlap: float | None = None,
    ) -> list[Prediction]:
        """Finds objects in images, as ``lossbox predict`` does.

        Args:
            images: one image or several; a folder stands for all images below it, sorted. An image is a file (an EXIF orientation is not
                applied, as in training), an image of Pillow's, an array (height, width) or (height, width, channels), or a tensor (height,
                width) or (channels, height, width); with 1, 3 (RGB) or 4 channels (the alpha channel is taken away), of uint8, or floating
                point in [0, 1].
            score_threshold: only scores above it, in [0, 1); as the detector was loaded by default.
            max_detections: per image, >= 1; as the detector was loaded by default.
            batch_size: images at a time, or tiles, >= 1; as the recipe says by default.
            tile: side in pixels of the tiles into which large images are cut, >= 32, each an image of its own for the detector; 0 stands
                for whole images. By default as in the training. See ``lossbox.boxes.tile_corners``.
            overlap: fraction of its side that a tile shares with the next, in [0, 0.75]; by default as in the training.

        Returns:
            One record per image, of a single image too.

        Raises:
            FileNotFoundError: a file is not there, or a folder has no image.
            ValueError: something that is no image, or one of another shape, type or range (it says which one of several); an option out of
                its range.
        """
        size = self.data.batch_size if batch_size is None else batch_size
        if size < 1:
            raise ValueError(f"batch_size: a number >= 1 expected, got {size}")
        tile, overlap = self.tiling(tile, overlap)
        options = {"score_threshold": score_threshold, "max_detections": max_detections}
        other, names = replace(self, task=_decoding(self.task, options)), [name for _, name in self.categories]
        tiles = (part for path, image in named_images(images) for part in tiles_of(path, image, tile, overlap))
        return [
            Prediction(found.boxes, found.scores, found.labels, [names[label] for label in found.labels.tolist()], path)
            for path, _, found in other.detect_tiles(tiles, size)
        ]


def load_trained(
    checkpoint: str | Path,
    config: str | Path | None = None,
    *,
    device: str = "auto",
    categories: Categories | None = None,
    decoder: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> Trained:
    """Loads a trained detector: builds that of the recipe and gives it the weights of a checkpoint. Also ``lossbox.load``.

    ``lossbox.load("runs/mine").predict("image.jpg")`` finds objects, see :meth:`Trained.predict`.

    Args:
        checkpoint: a file that ``lossbox fit`` wrote, or the folder of its run, for the best one (the last where there is no best).
        config: the resolved recipe; by default ``config.yaml`` in the folder of the run, which holds ``checkpoints/``.
        device: a name of torch's, or ``auto``: the first GPU where there is one.
        categories: COCO id and name of each label, for a checkpoint that does not hold them; one that does must have the same.
        decoder: options of ``lossbox.decoding.Decoder`` instead of the recipe's, such as ``{"score_threshold": 0.3}``; a value of None
            leaves one as it is.
        data: options of the data module instead of the recipe's.

    Returns:
        The detector in evaluation mode. Its weights are all from the checkpoint: none are downloaded.

    Raises:
        FileNotFoundError: the checkpoint or the recipe is not there.
        ValueError: they do not fit each other, or an option is out of its range.
    """
    where = _device(device)
    checkpoint = checkpoint_of(Path(), checkpoint)
    content = read_checkpoint(Path(checkpoint))
    path = Path(config) if config else config_of(checkpoint)
    recipe = read_config(path)
    stored = [(int(category_id), str(name)) for category_id, name in content.get("lossbox_categories", [])] or None
    if stored is not None and categories is not None and stored != categories:
        raise ValueError(f"ckpt: {checkpoint} was trained on other categories: {_first_difference(stored, categories)}")
    known = stored or categories
    if known is None:
        raise ValueError(f"ckpt: {checkpoint} does not hold the names of its classes (an older lossbox wrote it); name --annotations")
    task, images = _build(recipe, data or {}, len(known), path)
    try:
        task.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"ckpt: {checkpoint} does not fit its recipe: {_one_line(error)}") from error
    task = _decoding(task, decoder or {})
    mixed = precision_in_use(recipe.get("trainer", {}).get("precision"), where) == "bf16-mixed"
    autocast = torch.bfloat16 if mixed else None
    return Trained(task.eval().to(where), images, known, where, autocast)


def _decoding(task: DetectionTask, options: Mapping[str, Any]) -> DetectionTask:
    """The same detector with other options of its decoder; those that are None stay as they are."""
    options = {name: value for name, value in options.items() if value is not None}
    if not options:
        return task
    if not isinstance(task.decoder, Decoder):
        raise ValueError(f"{next(iter(options))}: the recipe's decoder, {type(task.decoder).__name__}, takes no such option")
    other = copy.copy(task)
    other.decoder = replace(task.decoder, **options)
    return other


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device: no {name!r} here: {_one_line(error)}") from None
    return device


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


def _first_difference(stored: Categories, expected: Categories) -> str:
    only = sorted(set(stored) ^ set(expected))
    return f"{len(only)} (id, name) are on one side only, the first is {only[0]}"


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...")
