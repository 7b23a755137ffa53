"""A data set whose files have been found, and what the labels of its parts say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from .checks import NO_LABEL_LEFT
from .files import BadLabel, Labelled, OnBad, in_place_of_images, stop
from .labels import Read
from .look import Depth, Look, Track, look_at_all


@dataclass(frozen=True)
class Layout:
    """A data set whose files have been found and not yet read.

    Attributes:
        kind: what it is called.
        parts: the images of each part.
        read: reads the labels of one image; the second argument takes the labels that break a rule.
        names: of the classes, in their order; None where only the labels say.
        notes: what was left out for a reason.
        ids: of the categories by name, where the data has some.
    """

    kind: str
    parts: dict[str, list[Labelled]]
    read: Callable[[Labelled, OnBad], Read]
    names: list[str] | None = None
    notes: list[BadLabel] = field(default_factory=list)
    ids: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        for one, other in combinations(self.parts, 2):
            shared = {item.image for item in self.parts[one]} & {item.image for item in self.parts[other]}
            if "trainval" not in (one, other):
                self.notes.extend(BadLabel(str(image), f"is in the parts {one} and {other}") for image in sorted(shared))


def read_part(
    layout: Layout, part: str, on_bad: OnBad = stop, *, items: Iterable[Labelled] | None = None, allow_empty: bool = False
) -> list[Read]:
    """What the labels of one part say. An image that has labels, none of which can be used, breaks a rule.

    Args:
        layout: the data set.
        part: one of its parts.
        on_bad: takes every label and image that breaks a rule; raise, or return to leave it out.
        items: the images of the part, for instance with a progress bar around them.
        allow_empty: accept a part without a label file.

    Raises:
        ValueError: no image has labels, or none is left.
    """
    of_part = layout.parts[part]
    if of_part and not allow_empty and all(item.labels is None for item in of_part):
        image = of_part[0].image
        places = dict.fromkeys(str(path.with_suffix("")) for path in (in_place_of_images(image), image))
        raise ValueError(
            f"{part}: none of its {len(of_part)} images has a file of labels; looked for {' and '.join(places)}.* and likewise for the "
            "others; --allow-empty takes them as images without objects"
        )
    if not of_part:
        raise ValueError(f"{part}: no image is left; its labels name none, or none that exists")
    read, first = [], ""
    refused: list[BadLabel] = []  # of one image

    def refuse(error: BadLabel) -> None:
        refused.append(error)
        on_bad(error)

    for item in of_part if items is None else items:
        refused.clear()
        try:
            found = layout.read(item, refuse)
            if (refused or found.refused) and not found.boxes:
                raise BadLabel(str(item.image), NO_LABEL_LEFT)
            read.append(_checked(item, found, layout.notes.append))
        except BadLabel as error:
            first = first or str(error)
            on_bad(error)
    if not read:
        raise ValueError(f"{part}: no image is left of {len(of_part)}; the first: {first}")
    return read


def _checked(item: Labelled, read: Read, note: OnBad) -> Read:
    """What was read, where the image file agrees with it."""
    look = item.look
    if look is None:
        return read
    if rule := look.fault():
        raise BadLabel(str(item.image), rule)
    if look.size != read.size:
        stated = f"{read.size[0]} x {read.size[1]}"
        raise BadLabel(str(item.image), "has another size than its labels state", f"{look.size[0]} x {look.size[1]}, not {stated}")
    if look.orientation != 1:
        note(BadLabel(str(item.image), "has an EXIF orientation, which is not applied: its boxes must be for the stored pixels"))
    if look.frames > 1:
        note(BadLabel(str(item.image), "has several frames, of which the first is used", look.frames))
    return read


def look_at_parts(layout: Layout, depth: Depth, track: Track) -> dict[Path, Look]:
    """Opens every image of a layout, once; what is seen stands in its items from then on."""
    images = list(dict.fromkeys(item.image for items in layout.parts.values() for item in items))
    looks = dict(zip(images, track(look_at_all(images, depth), "opening images", len(images)), strict=True))
    for items in layout.parts.values():
        items[:] = [replace(item, look=looks[item.image]) for item in items]
    return looks
