"""Images that look alike: copies of other sizes and formats, neighboring frames of a fixed camera."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from .look import THUMB, Look

ALIKE = 0.99
"""Correlation of two coarse gray images from which two images are near-duplicates."""

FLAT = 2.0
"""Standard deviation of gray levels below which a coarse image has nothing to compare."""

BLOCK = 2048


def near_duplicates(
    left: Sequence[Look], right: Sequence[Look] | None = None, *, alike: float = ALIKE
) -> Iterator[tuple[int, Int[np.ndarray, " k"]]]:
    """Of each image the others that look like it.

    Images are alike where the correlation of their gray images of 16 x 16 pixels is at least so high: brightness, contrast, size and
    compression do not matter. Every pair is compared, which takes time in n^2: seconds for 10,000 images.

    Args:
        left: what was seen in the images, with ``thumb``.
        right: in the images to compare them with; by default those that come later in the same list.
        alike: in (0, 1].

    Yields:
        The index of an image, and the indices of those like it, where there are some.

    Example:
        >>> ramp = bytes(range(256))
        >>> [(i, others.tolist()) for i, others in near_duplicates([Look(thumb=ramp), Look(thumb=ramp[::-1]), Look(thumb=ramp)])]
        [(0, [2])]
    """
    rows = _standardized(left)
    columns = rows if right is None else _standardized(right)
    for start in range(0, len(rows), BLOCK):
        first = start if right is None else 0
        close = rows[start : start + BLOCK] @ columns[first:].T >= alike
        if right is None:
            close = np.triu(close, 1)
        for row in np.flatnonzero(close.any(axis=1)).tolist():
            yield start + row, first + np.flatnonzero(close[row])


def _standardized(looks: Sequence[Look]) -> Float[np.ndarray, "n 256"]:
    """Coarse images of mean 0 and length 1; zeros for those without contrast."""
    side = THUMB * THUMB
    pixels = np.frombuffer(b"".join(look.thumb or bytes(side) for look in looks), np.uint8).reshape(-1, side).astype(np.float32)
    pixels -= pixels.mean(axis=1, keepdims=True)
    length = np.linalg.norm(pixels, axis=1, keepdims=True)
    scaled: Float[np.ndarray, "n 256"] = np.where(length > FLAT * THUMB, pixels / np.maximum(length, 1e-6), 0.0)
    return scaled


def same_groups(images: Sequence[Path], looks: Mapping[Path, Look]) -> Int[np.ndarray, " n"]:
    """A number for each image, the same for images that belong on one side of a split.

    These are files of the same bytes, near-duplicates, and the copies that Roboflow makes of an image (``NAME.rf.HASH.jpg``). A file that
    cannot be read stands alone.

    Args:
        images: the files.
        looks: what was seen in them, with ``thumb``; without it near-duplicates are not looked for.
    """
    group = np.arange(len(images))

    def join(members: Sequence[int]) -> None:
        old = np.unique(group[members])
        if len(old) > 1:
            group[np.isin(group, old)] = old[0]

    by_origin: dict[tuple[Path, str], list[int]] = defaultdict(list)
    for number, image in enumerate(images):
        origin, augmented, _ = image.name.rpartition(".rf.")
        if augmented:
            by_origin[image.parent, origin].append(number)
    for members in [*by_origin.values(), *_same_bytes(images)]:
        join(members)
    seen = [number for number, image in enumerate(images) if image in looks and looks[image].thumb]
    for number, others in near_duplicates([looks[images[number]] for number in seen]):
        join([seen[number], *(seen[other] for other in others.tolist())])
    return group


def _same_bytes(images: Sequence[Path]) -> list[list[int]]:
    by_size: dict[int, list[int]] = defaultdict(list)
    for number, image in enumerate(images):
        if image.is_file():
            by_size[image.stat().st_size].append(number)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for members in by_size.values():
        for number in members if len(members) > 1 else ():
            groups[hashlib.sha256(images[number].read_bytes()).digest()].append(number)
    return list(groups.values())
