"""A validation part for data that has none: seeded, by the classes of the images, files of the same content on one side."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from .labels import Read

VAL_SHARE = 0.2
"""Of the images, that becomes the validation part."""

NO_OBJECTS = ""
"""Stands for the class of images without a box."""


def with_val(parts: Mapping[str, list[Read]], *, share: float = VAL_SHARE, seed: int = 0) -> tuple[dict[str, list[Read]], str]:
    """The parts with ``train`` and ``val`` among them: the data's own where it has them, and otherwise a split of what is there.

    Args:
        parts: what was read, by part.
        share: of the images that becomes ``val`` where the data has none.
        seed: of that split.

    Returns:
        The parts, and what was done about them in words, empty where nothing was.

    Raises:
        ValueError: no part is one to train on, or it has too few images.

    Example:
        >>> reads = [Read(Path(f"{i}.jpg"), (4, 3), []) for i in range(10)]
        >>> parts, said = with_val({"all": reads})
        >>> {part: len(images) for part, images in parts.items()}, said
        ({'train': 8, 'val': 2}, 'there is no val: 20 % of all, by the classes of the images (seed 0)')
    """
    if not 0 < share < 1:
        raise ValueError(f"val_share: a number between 0 and 1 expected, got {share}")
    if "train" in parts and "val" in parts:
        return dict(parts), ""
    others = [part for part in parts if part not in ("val", "test") or len(parts) == 1]
    source = next((part for part in ("train", "trainval") if part in parts), others[0] if len(others) == 1 else None)
    if source is None:
        raise ValueError(f"a part called train expected, or one part beside val and test, got {', '.join(parts)}")
    rest = {part: images for part, images in parts.items() if part != source}
    if "val" in rest:
        return {"train": parts[source], **rest}, f"{source} is train"
    train, val = split(parts[source], share=share, seed=seed)
    which = f"{source} alone is there: {100 * share:g} % of it" if source == "val" else f"there is no val: {100 * share:g} % of {source}"
    said = f"{which}, by the classes of the images (seed {seed})"
    return {"train": train, "val": val, **rest}, said


def split(images: Sequence[Read], *, share: float = VAL_SHARE, seed: int = 0) -> tuple[list[Read], list[Read]]:
    """Two lists, the second with about a share of the images of each class.

    Files with the same bytes stay together. From the rarest class to the most frequent one, each image goes where more of that class is
    missing, or else where more images are.

    Args:
        images: what was read.
        share: of the second list.
        seed: of the order in which images of a class are dealt out.

    Raises:
        ValueError: fewer than two different images.

    Source:
        Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data (2011), algorithm 1.
    """
    groups = _same_content(images)
    if len(groups) < 2:
        raise ValueError(f"a split needs two different images at least, got {len(images)}")
    random.Random(seed).shuffle(groups)
    classes = [{box.name for image in group for box in image.boxes} or {NO_OBJECTS} for group in groups]
    count = Counter(name for names in classes for name in names)
    shares = (1 - share, share)
    wanted = [{name: share * number for name, number in count.items()} for share in shares]
    missing = [share * len(images) for share in shares]
    chosen: list[list[Read]] = [[], []]
    left = dict(enumerate(classes))
    while left:
        open_classes = Counter(name for names in left.values() for name in names)
        rarest = min(open_classes, key=lambda name: (open_classes[name], name))
        for index in [index for index, names in left.items() if rarest in names]:
            side = max((0, 1), key=lambda side: (wanted[side][rarest], missing[side]))
            chosen[side] += groups[index]
            missing[side] -= len(groups[index])
            for name in left.pop(index):
                wanted[side][name] -= 1
    for side in (0, 1):
        if not chosen[side]:  # few images, and a small share
            moved = set(map(id, groups[0]))
            chosen[side], chosen[1 - side] = groups[0], [image for image in chosen[1 - side] if id(image) not in moved]
    order = {id(image): place for place, image in enumerate(images)}
    train, val = (sorted(side, key=lambda image: order[id(image)]) for side in chosen)
    return train, val


def _same_content(images: Sequence[Read]) -> list[list[Read]]:
    """Images by the bytes of their files; a file that cannot be read stands alone."""
    by_size: dict[int, list[Read]] = defaultdict(list)
    for image in images:
        by_size[image.image.stat().st_size if image.image.is_file() else -1].append(image)
    groups: dict[tuple[int, bytes | Path], list[Read]] = defaultdict(list)
    for image in images:
        size = image.image.stat().st_size if image.image.is_file() else -1
        alike = size >= 0 and len(by_size[size]) > 1
        groups[size, hashlib.sha256(image.image.read_bytes()).digest() if alike else image.image].append(image)
    return list(groups.values())
