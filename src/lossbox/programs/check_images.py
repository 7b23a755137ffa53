"""What ``lossbox check`` sees in image files: each is opened once."""

from __future__ import annotations

import filecmp
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..coco.alike import near_duplicates
from ..coco.look import Look, look_at_all
from .bars import track
from .convert import shown

if TYPE_CHECKING:
    from torch import Tensor

    from ..coco.read import CocoAnnotations
    from ..data.faults import Fault, Refused

IMAGES, SIDE = 16, 500
"""Images on the sheet of the worst, and pixels of their longer side."""

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


def worst_of(
    read: Mapping[str, CocoAnnotations], refused: Iterable[Refused], found: Mapping[str, Any], sheet: Path | None, out: Path
) -> dict[str, Any]:
    """The labels to look at, as a sheet of the worst images; ready for JSON.

    Args:
        read: what is used, by part.
        refused: what is left out.
        found: what is known about each part, with the size at which its images are seen: that of the training part where there is one.
        sheet: where the user wants the sheet.
        out: where it goes otherwise; the one of an earlier check is removed.
    """
    from ..data.faults import KINDS, faults_of_kept, faults_of_refused

    faults = faults_of_refused(refused)
    for part in read.values():
        size = found["train" if "train" in found else next(iter(found))]["image_size"]
        faults += faults_of_kept(part, size=(size[0], size[1]))
    faults = [fault._replace(image=shown(absolute(fault.image))) for fault in faults]  # one spelling of each file
    if sheet is None:
        sheet = out / "worst.png"
        sheet.unlink(missing_ok=True)
    counts = Counter(fault.kind for fault in faults)
    rows = [{"image": str(fault.image), "kind": fault.kind, "reason": fault.reason, "box": fault.box} for fault in faults]
    return {"counts": {kind: counts[kind] for kind in KINDS if counts[kind]}, **_drawn(faults, sheet), "boxes": rows}


def _drawn(faults: Sequence[Fault], path: Path) -> dict[str, Any]:
    """Draws the worst images that can be decoded: the file of the sheet, None where there is no such image, and the images on it."""
    from ..data.faults import KINDS, worst_images
    from ..report.faults import draw_faults

    panels, names = [], []
    for image, own in worst_images(faults, limit=IMAGES).items():
        if (decoded := _decoded(image)) is not None:
            pixels, scale = decoded
            boxes = [None if fault.box is None else [side * scale for side in fault.box] for fault in own]
            panels.append((image.name, pixels, [fault._replace(box=box) for fault, box in zip(own, boxes, strict=True)]))
            names.append(str(image))
    counts, total = Counter(fault.kind for fault in faults), len({fault.image for fault in faults})
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    heading = f"{len(panels)} of {total} images with labels to look at; of all: {kinds}"
    return {"sheet": str(draw_faults(panels, heading, path)) if panels else None, "shown": names}


def _decoded(path: Path) -> tuple[Tensor, float] | None:
    """An image in [0, 1], and its size as a share of the stored one."""
    from PIL import Image

    from ..data.images import rgb_pixels

    try:
        with Image.open(path) as opened:
            image = Image.fromarray(rgb_pixels(opened).permute(1, 2, 0).numpy())
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    scale = min(1.0, SIDE / max(image.size))
    return rgb_pixels(image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))))).float() / 255, scale


def show_worst(worst: Mapping[str, Any]) -> None:
    """Prints how many labels there are to look at, and where they are drawn."""
    if not worst["boxes"]:
        print("no label is without a size, outside of its image, double or tiny: no sheet of the worst images")
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in worst["counts"].items())
    where = worst["sheet"] or "none of their images can be decoded"
    print(f"labels to look at: {kinds}; the worst images: {where}")


def record_of(annotations: CocoAnnotations, image_id: int) -> str:
    return f"{annotations.path}: image id {image_id}"
