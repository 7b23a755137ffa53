"""What ``lossbox check`` sees in image files: each is opened once."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..coco.alike import near_duplicates
from ..coco.look import Look, look_at_all
from .bars import track

if TYPE_CHECKING:
    from ..coco.read import CocoAnnotations

UPRIGHT = Look()
"""Stands for an image that was not opened."""


def absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def look_at_images(part: str, annotations: CocoAnnotations, looks: dict[Path, Look], *, skip_images: bool) -> None:
    """Decodes every image that has not been looked at."""
    paths = [path for image in annotations.images if (path := absolute(image.path)) not in looks]
    if not skip_images:
        looks.update(zip(paths, track(look_at_all(paths, "pixels"), f"decoding {part}", len(paths)), strict=True))


def broken_images(annotations: CocoAnnotations, looks: Mapping[Path, Look]) -> Iterator[dict[str, str]]:
    """The files that cannot be decoded, or are not what the JSON states."""
    from ..data.images import other_size

    for image in annotations.images:
        look = looks.get(absolute(image.path))
        if look is None:
            continue
        rule = look.fault()
        if not rule and look.size != (image.width, image.height):
            rule = other_size(image, look.size, turned=look.orientation in (5, 6, 7, 8))
        if rule:
            where = record_of(annotations, image.id)
            yield {"record": where, "rule": f"{image.path} {rule}", "message": f"{where}: {image.path} {rule}"}


def in_both_parts(read: Mapping[str, CocoAnnotations], looks: Mapping[Path, Look]) -> list[dict[str, Any]]:
    """The validation images that look like a training image, with the first such image."""
    val, train = ([image.path for image in read[part].images] for part in ("val", "train"))
    seen = [[looks.get(absolute(path), UPRIGHT) for path in paths] for paths in (val, train)]
    pairs = []
    for number, others in near_duplicates(*seen):
        same = [train[other] for other in others.tolist() if filecmp.cmp(val[number], train[other], shallow=False)]
        pairs.append({"val": str(val[number]), "train": str((same or [train[int(others[0])]])[0]), "same_file": bool(same)})
    return pairs


def record_of(annotations: CocoAnnotations, image_id: int) -> str:
    return f"{annotations.path}: image id {image_id}"
