"""The images of a report: the worst and the best of a validation, small, with true and predicted boxes."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..metrics import DetectionColumns, GroundTruth, Matches
from .curves import rounded

WORST, BEST, MOST = 16, 8, 48
"""So many images of the largest error, so many of the smallest, and with the worst of each class so many in all."""

SIDE = 400
"""The longer side of an inlined image, in pixels."""

MOST_BOXES = 100
"""Detections of an image, those of the highest scores."""


class ImageErrors(NamedTuple):
    """What went wrong in each image, its detections cut at the threshold of their class.

    Attributes:
        lrp: (images,) LRP of all boxes of the image; NaN where there is neither an annotation nor a detection.
        mistakes: (images,) false positives and misses.
        right: (images,) true positives.
    """

    lrp: Float[np.ndarray, " images"]
    mistakes: Float[np.ndarray, " images"]
    right: Float[np.ndarray, " images"]


def image_errors(
    truth: GroundTruth,
    found: DetectionColumns,
    matches: Matches,
    thresholds: Float[np.ndarray, " c"],
    *,
    tau: float,
    category: int | None = None,
) -> ImageErrors:
    """LRP of each image.

    Args:
        truth: the annotations.
        found: the detections.
        matches: of these two at IoU ``tau``.
        thresholds: of each class; NaN keeps nothing.
        tau: IoU from which a detection is right.
        category: look at this class alone.
    """
    images = len(truth.image_ids)
    image = found.image[matches.detection]
    kept = matches.scores >= thresholds[matches.category]
    missed = ~truth.crowd
    missed[matches.annotation[kept & matches.is_tp]] = False
    if category is not None:
        kept, missed = kept & (matches.category == category), missed & (truth.category == category)

    def count(places: Int[np.ndarray, " n"], weight: Float[np.ndarray, " n"] | None = None) -> Float[np.ndarray, " images"]:
        return np.bincount(places, weight, minlength=images).astype(np.float64)

    tp = kept & matches.is_tp
    right = count(image[tp])
    mistakes = count(image[kept & ~matches.is_tp & ~matches.ignored]) + count(truth.image[missed])
    loose = count(image[tp], (1 - matches.ious[tp]) / (1 - tau))
    total = right + mistakes
    return ImageErrors(np.divide(loose + mistakes, total, out=np.full(images, np.nan), where=total > 0), mistakes, right)


def choose_images(errors: Sequence[ImageErrors], by_class: Sequence[ImageErrors]) -> tuple[list[int], list[int]]:
    """The images to show, as indices: the worst, by their mean LRP over several runs, then by mistakes; and the best, best first.

    Args:
        errors: of each run.
        by_class: of single classes: the worst image of each is among the worst, as long as there is room.
    """
    lrp, mistakes, right = (np.mean([np.nan_to_num(getattr(error, name)) for error in errors], axis=0) for name in ImageErrors._fields)
    order = np.lexsort((-mistakes, -lrp))
    worst = [int(index) for index in order if lrp[index] > 0][:WORST]
    best = [int(index) for index in order[::-1] if right[index] > 0 and index not in worst][:BEST]
    for error in by_class:
        of_class = np.nan_to_num(error.lrp)
        index = int(np.lexsort((-error.mistakes, -of_class))[0]) if len(of_class) else -1
        if index >= 0 and of_class[index] > 0 and len(worst) + len(best) < MOST and index not in (*worst, *best):
            worst.append(index)
    return sorted(worst, key=lambda index: (-lrp[index], -mistakes[index])), best


def image_content(truth: GroundTruth, index: int, root: Path | None) -> dict[str, Any]:
    """One image: its name, its size, itself as a small WebP in a data URL (None where it cannot be opened) and its true boxes."""
    rows = np.flatnonzero(truth.image == index)
    boxes = [[*box, label, crowd] for box, label, crowd in zip(rounded(truth.boxes[rows], 1), *_lists(truth, rows), strict=True)]
    name = truth.file_names[index] if truth.file_names else ""
    source, size = thumbnail(root / name) if root is not None and name else (None, None)
    if size is None:  # the boxes alone, on as much paper as they need
        side = math.ceil((truth.boxes[rows, :2] + truth.boxes[rows, 2:]).max(initial=1.0))
        size = (side, side)
    return {"id": int(truth.image_ids[index]), "name": name, "size": size, "source": source, "truth": boxes}


def _lists(truth: GroundTruth, rows: Int[np.ndarray, " n"]) -> tuple[list[int], list[int]]:
    return truth.category[rows].tolist(), truth.crowd[rows].astype(int).tolist()


def thumbnail(path: Path, *, side: int = SIDE) -> tuple[str | None, tuple[int, int] | None]:
    """A small copy of an image file as a data URL, and the size of the original; None twice where it cannot be opened."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            size = opened.size
            opened.draft("RGB", (side, side))  # a JPEG is decoded at about this size
            small = opened.convert("RGBA").convert("RGB")  # of a palette with transparency Pillow wants the first
        small.thumbnail((side, side))
        written = io.BytesIO()
        small.save(written, "WEBP", quality=70)
    except Exception:  # decoders of broken files raise OSError, SyntaxError, struct.error, zlib.error and more
        return None, None
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode(), size


def found_content(truth: GroundTruth, found: DetectionColumns, matches: Matches, chosen: Sequence[int]) -> list[list[list[float]]]:
    """The detections of the chosen images, best first: ``x y width height label score kind annotation``.

    ``kind`` is 1 for a true positive, 0 for a false positive, -1 for one that is ignored. A detection takes an annotation before those of
    lower scores do, so that it stays what it is at any score threshold. ``annotation`` is its place among those of the image, or -1.
    """
    kind, taken = np.zeros(len(found.scores), dtype=np.int64), np.full(len(found.scores), -1)
    kind[matches.detection] = np.where(matches.ignored, -1, matches.is_tp)
    taken[matches.detection] = _place_in_image(truth)[matches.annotation]
    of_images = []
    for index in chosen:
        rows = np.flatnonzero(found.image == index)
        rows = rows[np.argsort(-found.scores[rows], kind="stable")][:MOST_BOXES]
        columns = (found.category[rows], [float(f"{score:.6g}") for score in found.scores[rows]], kind[rows], taken[rows])
        numbers = zip(*(np.asarray(column).tolist() for column in columns), strict=True)
        of_images.append([[*box, *row] for box, row in zip(rounded(found.boxes[rows], 1), numbers, strict=True)])
    return of_images


def _place_in_image(truth: GroundTruth) -> Int[np.ndarray, " n"]:
    """The place of each annotation among those of its image; an appended -1 serves ``annotation == -1``."""
    order = np.argsort(truth.image, kind="stable")
    first = np.searchsorted(truth.image[order], truth.image[order], side="left")
    place = np.full(len(order) + 1, -1)
    place[order] = np.arange(len(order)) - first
    return place
