"""A validation part for data that has none: seeded, by the classes of the images, images that look alike on one side."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from .alike import same_groups
from .files import FOLD
from .labels import Read
from .look import Look

VAL_SHARE = 0.2
"""Of the images, that becomes the validation part."""

NO_OBJECTS = ""
"""Stands for the class of images without a box."""


def to_split(parts: Collection[str]) -> str | None:
    """The part that ``with_val`` would split; none where the data has its own ``train`` and ``val``, or folds.

    Example:
        >>> to_split(["train", "val"]), to_split(["train", "test"]), to_split(["all"]), to_split(["fold_0", "fold_1"])
        (None, 'train', 'all', None)
    """
    if {"train", "val"} <= set(parts) or _folds(parts):
        return None
    others = [part for part in parts if part not in ("val", "test") or len(parts) == 1]
    source = next((part for part in ("train", "trainval") if part in parts), others[0] if len(others) == 1 else None)
    return None if "val" in parts and source != "val" else source


def with_val(
    parts: Mapping[str, list[Read]], *, share: float = VAL_SHARE, seed: int = 0, looks: Mapping[Path, Look] | None = None
) -> tuple[dict[str, list[Read]], str]:
    """The parts with ``train`` and ``val`` among them: the data's own where it has them, and otherwise a split of what is there.

    Of parts called fold_0, fold_1, ... the last is ``val`` and the others are ``train``.

    Args:
        parts: what was read, by part.
        looks: what was seen in the images; near-duplicates are kept together where it has their thumbs.
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
    if folds := _folds(parts):
        train = [image for fold in folds[:-1] for image in parts[fold]]
        rest = {part: images for part, images in parts.items() if part not in folds}
        return {"train": train, "val": parts[folds[-1]], **rest}, f"{folds[-1]} is val, the other folds are train"
    others = [part for part in parts if part not in ("val", "test") or len(parts) == 1]
    source = next((part for part in ("train", "trainval") if part in parts), others[0] if len(others) == 1 else None)
    if source is None:
        raise ValueError(f"a part called train expected, or one part beside val and test, got {', '.join(parts)}")
    rest = {part: images for part, images in parts.items() if part != source}
    if "val" in rest:
        return {"train": parts[source], **rest}, f"{source} is train"
    train, val = split(parts[source], share=share, seed=seed, looks=looks)
    which = f"{source} alone is there: {100 * share:g} % of it" if source == "val" else f"there is no val: {100 * share:g} % of {source}"
    said = f"{which}, by the classes of the images (seed {seed})"
    return {"train": train, "val": val, **rest}, said


def _folds(parts: Collection[str]) -> list[str]:
    """The folds of a cross validation by their numbers, where there are two or more."""
    folds = [part for part in parts if re.fullmatch(FOLD, part)]
    return sorted(folds, key=lambda fold: int(re.sub(r"\D", "", fold))) if len(folds) > 1 and "val" not in parts else []


def split(
    images: Sequence[Read], *, share: float = VAL_SHARE, seed: int = 0, looks: Mapping[Path, Look] | None = None
) -> tuple[list[Read], list[Read]]:
    """Two lists, the second with about a share of the images of each class.

    Files with the same bytes stay together, and near-duplicates do, unless these are more than the first list would hold. From the rarest
    class to the most frequent one, each image goes where more of that class is missing, or else where more images are.

    Args:
        images: what was read.
        share: of the second list.
        seed: of the order in which images of a class are dealt out.
        looks: what was seen in the images; near-duplicates are known where it has their thumbs.

    Raises:
        ValueError: fewer than two different images.

    Source:
        Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data (2011), algorithm 1.
    """
    paths = [image.image for image in images]
    groups = _dealt(images, same_groups(paths, looks or {}))
    if looks and max(map(len, groups)) > max(share, 1 - share) * len(images):
        groups = _dealt(images, same_groups(paths, {}))
    if len(groups) < 2:
        first = f" ({paths[0]})" if paths else ""
        raise ValueError(f"a split into train and val needs two different images at least, got {len(images)}{first}")
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


def _dealt(images: Sequence[Read], group: Int[np.ndarray, " n"]) -> list[list[Read]]:
    """The images of each group, in the order of their first ones."""
    groups: dict[int, list[Read]] = {}
    for image, number in zip(images, group.tolist(), strict=True):
        groups.setdefault(number, []).append(image)
    return list(groups.values())
