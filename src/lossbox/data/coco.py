"""COCO detection JSON, any user's: read into records with every rule checked, and its images as a data set.

An error names the file, the record and the rule that it breaks. Images without boxes are training data like any other.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ..records import Targets
from ._checks import BadRecord, OnBadRecord, load_json, stop
from ._sections import BOX_FINITE, BOX_INSIDE, BOX_SHAPE, BOX_SIZE, Sections, read_sections

__all__ = [
    "BOX_FINITE",
    "BOX_INSIDE",
    "BOX_SHAPE",
    "BOX_SIZE",
    "BadRecord",
    "CocoAnnotations",
    "CocoDataset",
    "CocoImage",
    "decode_image",
    "inspect_coco",
    "read_coco",
]

OnBadBox = Literal["error", "drop"]

EXIF_ORIENTATION = 0x0112

Transform = Callable[[Tensor, Targets], tuple[Tensor, Targets]]
Mosaic = Callable[[Sequence[tuple[Tensor, Targets]]], tuple[Tensor, Targets]]


@dataclass(frozen=True)
class CocoImage:
    """One image and its annotations.

    Attributes:
        id: the COCO id.
        path: of the image file.
        width: of the stored image, in pixels.
        height: of the stored image, in pixels.
        boxes: (n, 4) ``x1 y1 x2 y2`` in pixels of the stored image, inside it.
        labels: (n,) indices into ``CocoAnnotations.categories``.
        crowd: (n,) True where ``iscrowd`` is 1.
    """

    id: int
    path: Path
    width: int
    height: int
    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    crowd: Bool[Tensor, " n"]


@dataclass(frozen=True)
class CocoAnnotations:
    """What a COCO JSON file says.

    Attributes:
        path: of the JSON file.
        categories: (id, name) in the order of the ids; a label is an index into this list.
        images: in the order of the file, those without boxes too.
        dropped: ids of the annotations that ``on_bad_box="drop"`` left out.
    """

    path: Path
    categories: list[tuple[int, str]]
    images: list[CocoImage]
    dropped: frozenset[int] = frozenset()

    @property
    def category_ids(self) -> list[int]:
        """The COCO id of each label."""
        return [category_id for category_id, _ in self.categories]

    @property
    def class_names(self) -> list[str]:
        """The name of each label."""
        return [name for _, name in self.categories]


def read_coco(
    annotation_file: str | os.PathLike[str], image_root: str | os.PathLike[str], *, on_bad_box: OnBadBox = "error"
) -> CocoAnnotations:
    """Reads COCO detection JSON and checks it.

    The file is an object with the lists ``images`` (``id``, ``file_name``, ``width``, ``height``), ``categories`` (``id``, ``name``) and
    ``annotations`` (``id``, ``image_id``, ``category_id``, ``bbox`` = x, y, width, height in pixels, optional ``iscrowd``); whatever
    else it holds is not looked at. Ids are whole numbers and occur once in their list. Whether an image can be decoded, and has the
    size that the JSON states, is checked when it is loaded.

    Args:
        annotation_file: the JSON file.
        image_root: the folder that each ``file_name`` is relative to; no image may lie outside it, not by a symbolic link either.
        on_bad_box: ``"error"``, or ``"drop"``: leave such annotations out, with one warning a rule that says how many they are.
            The rules are: four numbers; finite; positive width and height; inside the image, where less than 1 px outside is clipped.

    Returns:
        The categories, and the images with their boxes.

    Raises:
        FileNotFoundError: the JSON file, the folder or an image is not there.
        ValueError: the file breaks a rule; the message names file, record and rule.

    Example:
        >>> import json, tempfile, pathlib
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (root / "cup.jpg").write_bytes(b"")
        >>> _ = (root / "cups.json").write_text(json.dumps({
        ...     "images": [{"id": 7, "file_name": "cup.jpg", "width": 60, "height": 40}],
        ...     "categories": [{"id": 3, "name": "cup"}],
        ...     "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 25]}]}))
        >>> read_coco(root / "cups.json", root).images[0].boxes
        tensor([[10., 10., 30., 35.]])
    """
    if on_bad_box not in ("error", "drop"):
        raise ValueError(f"on_bad_box: 'error' or 'drop' expected, got {on_bad_box!r}")
    bad_boxes: list[BadRecord] = []
    on_bad_box_do = bad_boxes.append if on_bad_box == "drop" else _stop_with_a_hint
    path, document, sections = _read(annotation_file, image_root, on_bad=stop, on_bad_box=on_bad_box_do)
    if missing := sections.missing:
        total = len(missing) + len(sections.images)
        raise FileNotFoundError(f"{missing[0]} ({len(missing)} of {total} images are missing from {image_root})")
    for rule in dict.fromkeys(error.rule for error in bad_boxes):
        broken = [error for error in bad_boxes if error.rule == rule]
        counted = f"{len(broken)} of {len(document['annotations'])} annotations dropped"
        warnings.warn(f"{counted}, the first is {broken[0]}", stacklevel=2)
    return _annotations(path, sections, frozenset(error.where.id for error in bad_boxes))


def inspect_coco(annotation_file: str | os.PathLike[str], image_root: str | os.PathLike[str]) -> tuple[CocoAnnotations, list[BadRecord]]:
    """Reads COCO detection JSON by the rules of ``read_coco``, and does not stop at the first record that breaks one.

    Args:
        annotation_file: the JSON file.
        image_root: the folder that each ``file_name`` is relative to.

    Returns:
        What can be used, and every record that cannot, each with the first rule that it breaks. What refers to a bad image or category
        is left out with it and is not listed.

    Raises:
        FileNotFoundError: the JSON file or the folder is not there.
        ValueError: the file as a whole breaks a rule: it is not JSON, lacks a section, or a section has no record.

    Example:
        >>> import json, tempfile, pathlib
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (root / "cup.jpg").write_bytes(b"")
        >>> _ = (root / "cups.json").write_text(json.dumps({
        ...     "images": [{"id": 7, "file_name": "cup.jpg", "width": 60, "height": 40}, {"id": 8}],
        ...     "categories": [{"id": 3, "name": "cup"}],
        ...     "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 0, 25]}]}))
        >>> annotations, bad = inspect_coco(root / "cups.json", root)
        >>> len(annotations.images), [error.rule for error in bad]
        (1, ["lacks 'width'", 'bbox must have a positive width and height'])
    """
    bad: list[BadRecord] = []
    path, _, sections = _read(annotation_file, image_root, on_bad=bad.append, on_bad_box=bad.append)
    dropped = frozenset(error.where.id for error in bad if error.where.section == "annotations" and type(error.where.id) is int)
    return _annotations(path, sections, dropped), [*bad, *sections.missing]


def decode_image(record: CocoImage, *, source: Path) -> UInt8[Tensor, "3 h w"]:
    """Reads an image file as RGB.

    Gray, palette and CMYK images are converted, an alpha channel is taken away, of several frames the first is read. An EXIF orientation
    is *not* applied: COCO boxes refer to the pixels as they are stored, and so do ``width`` and ``height``.

    Args:
        record: of the image.
        source: the JSON file that it comes from, for the message of an error.

    Returns:
        (3, height, width) in [0, 255].

    Raises:
        FileNotFoundError: the file is gone.
        ValueError: it cannot be decoded, has more than 8 bits per channel, or another size than the JSON states.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("decoding images needs Pillow: pip install 'lossbox[train]'") from error
    where = f"{source}: image id {record.id}: {record.path}"
    try:
        with Image.open(record.path) as opened:
            size, mode = opened.size, opened.mode
            if size == (record.width, record.height) and not mode.startswith(("I", "F")):
                # Straight from a palette with transparency to RGB, Pillow warns.
                rgb = (opened.convert("RGBA") if mode == "P" else opened).convert("RGB")
                return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()
            turned = opened.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except FileNotFoundError:
        raise FileNotFoundError(f"{where} does not exist") from None
    except Exception as error:  # decoders of broken files raise OSError, SyntaxError, struct.error, zlib.error and more
        raise ValueError(f"{where} is not an image that can be decoded: {error}") from error
    if size != (record.width, record.height):
        hint = ""
        if turned and size == (record.height, record.width):
            hint = (
                "; it has an EXIF orientation, which is not applied: store the image upright, or give size and boxes of the stored pixels"
            )
        raise ValueError(
            f"{where} has {size[0]} x {size[1]} pixels, the JSON states width x height = {record.width} x {record.height}{hint}"
        )
    raise ValueError(f"{where} has pixels of mode {mode}; images of 8 bits per channel expected")


@dataclass(frozen=True)
class Phase:
    """What the images of a data set go through in one phase of a training.

    Attributes:
        transforms: takes and returns an image and its targets.
        mosaic: takes and returns four of them as one, before the transforms; the other three are drawn at random.
        mosaic_probability: of each image, in [0, 1].
    """

    transforms: Transform | None = None
    mosaic: Mosaic | None = None
    mosaic_probability: float = 0.0


class CocoDataset(Dataset[tuple[Tensor, Targets]]):
    """The images of a COCO JSON file with their targets.

    An item is ``(image, targets)``: without transforms a ``tv_tensors.Image`` (3, h, w), uint8; with ``lossbox.data.transforms`` float32 in
    [0, 1]. The index is a number, or what ``lossbox.data.module.SeededSampler`` gives, (number, seed, phase): the random choices of the
    transforms then come from that seed alone, whichever process makes them, and the image goes through what that phase says.

    Args:
        annotations: what ``read_coco`` gave.
        phases: what images go through, one or more after another in the course of a training; without one they stay as they are.
        cache: keep decoded images in memory, width x height x 3 bytes each; every worker process keeps its own.
    """

    def __init__(
        self,
        annotations: CocoAnnotations,
        *phases: Phase,
        cache: bool = False,
    ) -> None:
        self.annotations = annotations
        self.phases = phases or (Phase(),)
        self._decoded: dict[int, Tensor] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.annotations.images)

    def __getitem__(self, index: int | tuple[int, int, int]) -> tuple[Tensor, Targets]:
        if not isinstance(index, tuple):
            return self._transformed(index, self.phases[0])
        number, seed, phase = index
        # Not torch.random.fork_rng: it costs 0.15 ms per image more.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            return self._transformed(number, self.phases[phase])
        finally:
            torch.set_rng_state(state)

    def _transformed(self, index: int, phase: Phase) -> tuple[Tensor, Targets]:
        image, targets = self._stored(index)
        # No number is drawn where there is no mosaic, so that the other choices stay what they were.
        if phase.mosaic is not None and phase.mosaic_probability and float(torch.rand(())) < phase.mosaic_probability:
            others = torch.randint(len(self), (3,)).tolist()
            image, targets = phase.mosaic([(image, targets), *map(self._stored, others)])
        return (image, targets) if phase.transforms is None else phase.transforms(image, targets)

    def _stored(self, index: int) -> tuple[Tensor, Targets]:
        record = self.annotations.images[index]
        size = (record.height, record.width)
        targets = Targets(record.boxes, record.labels, record.crowd, record.id, size=size, original_size=size)
        return tv_tensors.Image(self._image(index)), targets

    def _image(self, index: int) -> Tensor:
        if self._decoded is None:
            return decode_image(self.annotations.images[index], source=self.annotations.path)
        if index not in self._decoded:
            self._decoded[index] = decode_image(self.annotations.images[index], source=self.annotations.path)
        return self._decoded[index]


def _stop_with_a_hint(error: BadRecord) -> None:
    raise ValueError(f"{error}; on_bad_box='drop' leaves such boxes out")


def _read(
    annotation_file: str | os.PathLike[str], image_root: str | os.PathLike[str], *, on_bad: OnBadRecord, on_bad_box: OnBadRecord
) -> tuple[Path, dict[str, Any], Sections]:
    path, root = Path(annotation_file), Path(image_root)
    document = load_json(path)
    if not root.is_dir():
        raise FileNotFoundError(f"image_root: {root} is not a folder; it must hold the images that {path} names")
    return path, document, read_sections(path, document, root, on_bad=on_bad, on_bad_box=on_bad_box)


def _annotations(path: Path, sections: Sections, dropped: frozenset[int]) -> CocoAnnotations:
    images = []
    for place, found in zip(sections.images.values(), sections.rows.values(), strict=True):
        numbers = np.array(found, dtype=np.float64).reshape(-1, 6)
        boxes, labels, crowd = numbers[:, :4].astype(np.float32), numbers[:, 4].astype(np.int64), numbers[:, 5].astype(np.bool_)
        images.append(CocoImage(*place, torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(crowd)))
    return CocoAnnotations(path, sections.categories, images, dropped)
