"""The Lightning data module for COCO-format data: the digits and a user's own take the same path.

Every random choice about the data, the order and the augmentation, is a function of (seed, epoch, image). Neither the number of workers
nor what else draws random numbers changes it, and a run that goes on from the checkpoint of an epoch sees what it would have seen.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

try:
    from lightning.pytorch import LightningDataModule
except ImportError as error:
    raise ImportError("lossbox.data.module needs Lightning: pip install 'lossbox[train]'") from error

from ..boxes import check_tiling
from ..coco.columns import GroundTruth
from ..coco.read import CocoAnnotations, OnBadBox, read_coco
from ..records import Batch, Targets
from .images import CocoDataset, Phase, TiledImages
from .mosaic import mosaic_of_four
from .tiles import cut_into_tiles
from .transforms import MIRROR, Augmentation, eval_transforms, shorter_and_longer, train_transforms

PAD_MULTIPLE = 32
"""Batches are padded to a multiple of the coarsest stride of a backbone."""

GROWTH = 2 / 3
"""Share of the epochs after which images have their full size, where they start smaller."""

PIECES = 100
"""Of so many parts of a run that is limited by time sizes and mosaics are decided."""

CACHE_LIMIT = 2 * 2**30
"""Bytes of decoded images up to which ``cache=True`` keeps a part in memory: 40,000 images of 128 px, 2,300 of 640 x 480."""


def collate(samples: Sequence[tuple[Tensor, Targets]], *, multiple: int = PAD_MULTIPLE) -> Batch:
    """Pads images at the right and the bottom with zeros to one size and stacks them.

    Args:
        samples: (3, h, w) float32 images, each with its targets.
        multiple: height and width of the batch are multiples of it.

    Returns:
        A batch whose boxes are where they were; ``Targets.size`` says how much of each image is not padding.

    Example:
        >>> import torch
        >>> targets = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool), 1, (30, 40), (30, 40))
        >>> collate([(torch.ones(3, 30, 40), targets)]).images.shape
        torch.Size([1, 3, 32, 64])
    """
    height, width = (-(-max(image.shape[axis] for image, _ in samples) // multiple) * multiple for axis in (-2, -1))
    images = samples[0][0].new_zeros((len(samples), 3, height, width))
    for row, (image, _) in zip(images, samples, strict=True):
        row[:, : image.shape[-2], : image.shape[-1]] = image
    return Batch(images, [targets for _, targets in samples])


def collate_tiles(images: Sequence[Sequence[tuple[Tensor, Targets]]]) -> Batch:
    """``collate`` of the tiles of all images, those of an image after each other."""
    return collate([tile for tiles in images for tile in tiles])


def read_part(part: Literal["train", "val"], annotations: Path, images: Path, *, on_bad_box: OnBadBox) -> CocoAnnotations:
    """``read_coco``, with the options that name the file where it is missing."""
    if not annotations.is_file():
        raise FileNotFoundError(
            f"{part}_annotations: {annotations} does not exist. `lossbox demo` writes the digits; for your own data give "
            f"a COCO JSON file as --data.{part}_annotations and the folder of its images as --data.{part}_images"
        )
    if not images.is_dir():
        raise FileNotFoundError(f"{part}_images: {images} is not a folder; it must hold the images that {annotations} names")
    return read_coco(annotations, images, on_bad_box=on_bad_box)


class SeededSampler(DistributedSampler[Any]):
    """(number of an image, seed of its random choices, phase), every process of a distributed run its share, a new order each epoch.

    All come from (seed, epoch) alone; Lightning calls ``set_epoch``. The tail that does not divide among the processes is left out.
    ``phases`` has the number of the phase for each epoch; the last one holds on. In a run that is limited by time it is spread over the
    time: an epoch has the phase of the share of the run that ``progress`` says at its beginning.
    """

    phases: Sequence[int] = (0,)
    progress: Callable[[], float] | None = None

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        place = self.epoch if self.progress is None else int(self.progress() * len(self.phases))
        phase = self.phases[min(place, len(self.phases) - 1)]
        for index in super().__iter__():
            state = np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(1, np.uint64)
            yield index, int(state[0] >> np.uint64(1)), phase


class CocoDataModule(LightningDataModule):
    """Training and validation images from COCO detection JSON.

    Args:
        train_annotations: COCO JSON of the training part.
        train_images: folder that its file names are relative to.
        val_annotations: COCO JSON of the validation part, with the same categories.
        val_images: folder that its file names are relative to.
        image_size: pixels of the shorter side unless the longer one would exceed the second number; one number stands for both;
            in a recipe ``auto`` has it decided by the training boxes.
        start_scale: the first epochs see images of this share of ``image_size``, in (0, 1]; it grows to 1 over the first two thirds of
            the epochs, in steps of 32 pixels. Small images take less time.
        eval_size: the same for validation; that of the training by default.
        tile: cut images into squares of so many pixels, 32 or more: each is an image of its own for the training (see ``cut_into_tiles``),
            and what is found in the tiles of an image is merged in the validation; None or 0: images are not cut.
        overlap: fraction of its side that a tile shares with the next, in [0, 0.75].
        batch_size: images, or tiles, per step in each process; in a recipe ``auto`` has it decided by the memory of the GPU.
        num_workers: processes that prepare images beside the training; 0 prepares them in between.
        augmentation: what training images go through.
        allow_empty: accept a part without a single box.
        on_bad_box: stop at a box that breaks a rule ("error"), or leave it out, with an image that has no other, and warn with their
            number ("drop").
        cache: keep the decoded images of a part in memory if they take at most 2 GiB; every worker keeps its own.
        seed: of the order and the augmentation; none takes that of seed_everything, or 0 without one.
    """

    def __init__(
        self,
        train_annotations: str | os.PathLike[str],
        train_images: str | os.PathLike[str],
        val_annotations: str | os.PathLike[str],
        val_images: str | os.PathLike[str],
        *,
        image_size: int | tuple[int, int] | Literal["auto"] = 512,
        start_scale: float = 1.0,
        eval_size: int | tuple[int, int] | None = None,
        tile: int | None = None,
        overlap: float = 0.2,
        batch_size: int | Literal["auto"] = 16,
        num_workers: int = 0,
        augmentation: Augmentation = MIRROR,
        on_bad_box: OnBadBox = "error",
        allow_empty: bool = False,
        cache: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if image_size == "auto":
            raise ValueError(
                "image_size: a number of pixels or a pair expected, got 'auto', which `lossbox fit` decides by the training boxes; "
                "the number stands in the config.yaml of the run, and `lossbox check` prints it"
            )
        if batch_size == "auto":
            raise ValueError("batch_size: a number expected, got 'auto', which `lossbox fit` decides by the memory of the GPU")
        if batch_size < 1:
            raise ValueError(f"batch_size: at least 1 expected, got {batch_size}")
        if num_workers < 0:
            raise ValueError(f"num_workers: 0 or more expected, got {num_workers}")
        self.train_annotations, self.train_images = Path(train_annotations), Path(train_images)
        self.val_annotations, self.val_images = Path(val_annotations), Path(val_images)
        self.batch_size, self.num_workers, self.cache, self.seed = batch_size, num_workers, cache, seed
        self.on_bad_box, self.allow_empty = on_bad_box, allow_empty
        check_tiling(tile or None, overlap)
        self.tile, self.overlap = tile or None, overlap
        if not 0 < start_scale <= 1:
            raise ValueError(f"start_scale: a number in (0, 1] expected, got {start_scale}")
        self.image_size = shorter_and_longer(image_size, name="image_size")
        self.start_scale, self.augmentation = start_scale, augmentation
        self.eval_size = image_size if eval_size is None else shorter_and_longer(eval_size, name="eval_size")
        self.eval_transforms = eval_transforms(size=self.eval_size)
        self.progress: Callable[[], float] | None = None  # the share of a run that is limited by time
        self.train_as_read: CocoAnnotations | None = None
        self._train: CocoAnnotations | None = None
        self._val: CocoAnnotations | None = None

    def setup(self, stage: str | None = None) -> None:
        """Reads the validation part, and for ``stage="fit"`` (or None) the training part; once each.

        Raises:
            FileNotFoundError: a file is not there.
            ValueError: a file breaks a rule, or the categories of the two parts differ.
        """
        if self._val is None:
            self._val = self._read("val", self.val_annotations, self.val_images)
        if stage in ("fit", None) and self._train is None:
            train = self._read("train", self.train_annotations, self.train_images)
            if train.categories != self._val.categories:
                only = sorted(set(train.categories) ^ set(self._val.categories))
                raise ValueError(
                    f"val_annotations: {self.val_annotations} must have the categories of {self.train_annotations}; "
                    f"{len(only)} (id, name) are in one file only, the first is {only[0]}"
                )
            self._train = self._cut(train)

    def _read(self, part: Literal["train", "val"], annotations: Path, images: Path) -> CocoAnnotations:
        ahead = self.train_as_read if part == "train" else None
        read = ahead or read_part(part, annotations, images, on_bad_box=self.on_bad_box)
        if not self.allow_empty and not any(len(image.boxes) for image in read.images):
            raise ValueError(
                f"{part}_annotations: {annotations} has {len(read.images)} images and not one box; --data.allow_empty true accepts that"
            )
        return read

    def _cut(self, annotations: CocoAnnotations) -> CocoAnnotations:
        if self.tile is None:
            return annotations
        return cut_into_tiles(annotations, tile=self.tile, overlap=self.overlap, min_visible=self.augmentation.min_visible)

    @property
    def num_classes(self) -> int:
        """Categories of the data; reads the validation part where ``setup`` has not yet."""
        return len(self._categories().categories)

    @property
    def class_names(self) -> list[str]:
        """The name of each label."""
        return self._categories().class_names

    @property
    def category_ids(self) -> list[int]:
        """The COCO id of each label."""
        return self._categories().category_ids

    @property
    def val_ground_truth(self) -> GroundTruth:
        """What an evaluator compares with: the annotations of the validation part, without those that ``on_bad_box`` dropped."""
        truth = self._categories().ground_truth
        assert truth is not None
        return truth

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Targets]]:
        """Full batches in the order of this epoch.

        Raises:
            ValueError: there are fewer images than a batch holds.
        """
        self.setup("fit")
        assert self._train is not None
        course = self.course()
        different = list(dict.fromkeys(course))
        dataset = self._dataset(self._train, *(self._phase(*one) for one in different))
        processes = (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed
        sampler = SeededSampler(dataset, num_replicas=processes[0], rank=processes[1], shuffle=True, seed=seed, drop_last=True)
        sampler.phases, sampler.progress = [different.index(one) for one in course], self.progress
        if len(sampler) < self.batch_size:
            what = "images" if self.tile is None else "tiles"
            each = what if processes[0] == 1 else f"{what} that each of {processes[0]} processes gets"
            fits = f"--data.batch_size {len(sampler)} works" if len(sampler) else f"train on at most {len(dataset)} processes"
            raise ValueError(
                f"batch_size: {self.batch_size} is more than the {len(sampler)} {each} from {self.train_annotations}, and incomplete "
                f"batches are not trained on; {fits}"
            )
        return self._loader(dataset, self.batch_size, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """All images in the order of the file, or the tiles of each: of so many images as have ``batch_size`` tiles, or of one."""
        if self.tile is None:
            return self._loader(self.val_dataset, self.batch_size)
        tiles = TiledImages(self._dataset(self._cut(self._categories()), Phase(self.eval_transforms)))
        return self._loader(tiles, max(1, self.batch_size // tiles.most), collate_fn=collate_tiles)

    @property
    def val_dataset(self) -> CocoDataset:
        """The validation images, whole, as a detector sees them without tiles."""
        return self._dataset(self._categories(), Phase(self.eval_transforms))

    def describe_tiles(self, stage: Literal["fit", "validate"]) -> str | None:
        """How many tiles the images are cut into, and the memory that takes where it is much, in one line; None where they are not cut."""
        if self.tile is None:
            return None
        self.setup(stage)
        parts = {"training": self._train} if self._train is not None and stage == "fit" else {}
        parts |= {"validation": self._cut(self._categories())}
        counts = []
        for name, part in parts.items():
            images, empty = len({record.id for record in part.images}), sum(not len(record.boxes) for record in part.images)
            counts.append(f"{name} {images} images, {len(part.images)} tiles ({empty} without boxes)")
        if not any(record.whole for part in parts.values() for record in part.images):
            counts.append("no image is larger than a tile")
        most = max(Counter(record.id for record in parts["validation"].images).values())
        held = most * 12 * shorter_and_longer(self.eval_size)[0] ** 2 / 2**30  # three channels of float32
        if held >= 1:
            counts.append(f"the validation holds the {most} tiles of an image at once, some {held:.0f} GiB")
        return f"tiles of {self.tile} px, overlap {self.overlap:g}: {'; '.join(counts)}"

    @property
    def train_count(self) -> int:
        """Images, or tiles, of the training part."""
        self.setup("fit")
        assert self._train is not None
        return len(self._train.images)

    def full_size_batch(self, images: int) -> Batch:
        """The first training images as the last epochs see them, over again where there are fewer; for a look at memory."""
        self.setup("fit")
        assert self._train is not None
        dataset = self._dataset(self._train, self._phase(self.image_size, 0.0))
        return collate([dataset[index % len(dataset), index, 0] for index in range(images)])

    def course(self) -> list[tuple[tuple[int, int], float]]:
        """Of each epoch: shorter and longer side of the training images, and the probability of a mosaic.

        In a run that is limited by time of each of ``PIECES`` parts of it, in place of epochs.
        """
        epochs = 1.0
        if self.progress is not None:
            epochs = float(PIECES)
        elif self.trainer is not None:
            if (self.trainer.max_epochs or 0) > 0:
                epochs = float(self.trainer.max_epochs or 0)
            elif self.trainer.max_steps > 0 and self._train is not None:
                epochs = self.trainer.max_steps * self.batch_size * self.trainer.world_size / len(self._train.images)
        return [(self._size(epoch / epochs), self._mosaic(epoch / epochs)) for epoch in range(math.ceil(epochs))]

    def _size(self, progress: float) -> tuple[int, int]:
        scale = self.start_scale + (1 - self.start_scale) * min(progress / GROWTH, 1.0)
        shorter, longer = (min(side, max(round(scale * side / PAD_MULTIPLE), 1) * PAD_MULTIPLE) for side in self.image_size)
        return self.image_size if scale == 1 else (shorter, longer)

    def _mosaic(self, progress: float) -> float:
        return self.augmentation.mosaic if progress < self.augmentation.mosaic_until else 0.0

    def _phase(self, size: tuple[int, int], mosaic: float) -> Phase:
        look = self.augmentation
        four = partial(mosaic_of_four, size=size, keep_aspect=look.keep_aspect, min_visible=look.min_visible)
        return Phase(train_transforms(look, size=size), four, mosaic)

    def _categories(self) -> CocoAnnotations:
        self.setup("validate")
        assert self._val is not None
        return self._val

    def _dataset(self, annotations: CocoAnnotations, *phases: Phase) -> CocoDataset:
        stored = {record.id: record.stored for record in annotations.images}.values()
        fits = sum(3 * image.width * image.height for image in stored) <= CACHE_LIMIT
        return CocoDataset(annotations, *phases, cache=self.cache and fits)

    def _loader(self, dataset: Dataset[Any], batch_size: int, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            **{"collate_fn": collate} | options,
        )
