"""Boxes that a person should look at before a detector learns from them: without a size, outside of their image, double, tiny."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, Protocol

from ..boxes import box_area, paired_iou
from ..coco.read import BOX_INSIDE, BOX_SIZE, CocoAnnotations
from .survey import doubles
from .transforms import fitted_size

TINY = 8.0
"""Side ``sqrt(w h)`` in pixels of a resized image below which a box is tiny: less than one cell of the finest level of our detectors."""

KINDS = ("no size", "outside", "bad label", "double", "tiny")
"""What can be wrong with a box, the worst first."""


class Fault(NamedTuple):
    """What is wrong with a label.

    Attributes:
        image: the file.
        kind: one of ``KINDS``.
        reason: in words.
        box: ``x1 y1 x2 y2`` in pixels of the stored image; None where the label has no such box.
        badness: the larger, the worse among those of its kind.
    """

    image: Path
    kind: str
    reason: str
    box: Sequence[float] | None = None
    badness: float = 0.0


class Refused(Protocol):
    """A label that is left out: ``lossbox.coco.read.BadRecord`` or ``lossbox.coco.files.BadLabel``."""

    rule: str
    image: Path | None
    box: Sequence[float] | None


def faults_of_refused(errors: Iterable[Refused]) -> list[Fault]:
    """The faults of labels that are left out because they break a rule; those whose image is not known are not among them.

    Example:
        >>> from lossbox.coco.files import BadLabel
        >>> fault, = faults_of_refused([BadLabel("a.txt: line 1", BOX_SIZE, image=Path("a.jpg"), box=[3, 4, 0, 5])])
        >>> fault.kind, fault.box
        ('no size', (3, 4, 3, 9))
    """
    faults = []
    for error in errors:
        if error.image is None:
            continue
        rule = error.rule
        kind = "no size" if rule.startswith(BOX_SIZE) else "outside" if rule.startswith(BOX_INSIDE) else "bad label"
        if error.box is None:
            faults.append(Fault(error.image, kind, rule))
            continue
        x, y, w, h = error.box
        reason = {"no size": f"{w:.4g} x {h:.4g} px", "outside": f"{w:.4g} x {h:.4g} px at {x:.4g}, {y:.4g}"}.get(kind, rule)
        # one that begins far from the image, or is far larger, is the worst: the farthest corner from the origin
        faults.append(Fault(error.image, kind, reason, (x, y, x + w, y + h), max(-x, -y, x + w, y + h)))
    return faults


def faults_of_kept(annotations: CocoAnnotations, *, size: tuple[int, int]) -> list[Fault]:
    """The doubles (IoU of 0.9 and more) and the tiny boxes of a data set; crowd regions are left out.

    Args:
        annotations: the data set.
        size: (shorter, longer) side of the images as a detector sees them, as in ``lossbox.data.transforms.eval_transforms``.

    Example:
        >>> import torch
        >>> from lossbox.coco.read import CocoImage
        >>> boxes = torch.tensor([[0., 0., 30., 30.], [0., 0., 30., 29.], [5., 5., 8., 8.]])
        >>> image = CocoImage(1, Path("a"), 64, 64, boxes, torch.tensor([0, 0, 0]), torch.zeros(3, dtype=torch.bool))
        >>> for fault in faults_of_kept(CocoAnnotations(Path("a.json"), [(1, "cup")], [image]), size=(128, 128)):
        ...     print(fault.kind, fault.reason, sep=": ")
        double: cup twice, IoU 0.97
        tiny: cup of 6.0 px at 128 px
    """
    faults = []
    for image, one, other in doubles(annotations):
        iou = float(paired_iou(image.boxes[[one]], image.boxes[[other]]))
        first, second = (annotations.class_names[image.labels[index]] for index in (one, other))
        whose = f"{first} twice" if first == second else f"{first} and {second}"
        faults.append(Fault(image.path, "double", f"{whose}, IoU {iou:.2f}", image.boxes[one].tolist(), iou))
    at = " x ".join(map(str, dict.fromkeys(size)))
    for image in annotations.images:
        height, width = fitted_size(image.height, image.width, shorter=size[0], longer=size[1])
        sides = (box_area(image.boxes) * (height / image.height) * (width / image.width)).sqrt()
        for index in ((sides < TINY) & ~image.crowd).nonzero().flatten().tolist():
            name, side = annotations.class_names[image.labels[index]], float(sides[index])
            faults.append(Fault(image.path, "tiny", f"{name} of {side:.1f} px at {at} px", image.boxes[index].tolist(), -side))
    return faults


def worst_images(faults: Iterable[Fault], *, limit: int) -> dict[Path, list[Fault]]:
    """Some images with their faults, the kinds in turn, of each the worst first: every kind that there is has its place.

    Args:
        faults: of all images.
        limit: images at most.

    Example:
        >>> a, b, c = (Fault(Path(name), kind, "") for name, kind in (("a", "tiny"), ("b", "tiny"), ("c", "no size")))
        >>> [image.name for image in worst_images([a, b, c], limit=2)]
        ['c', 'a']
    """
    by_image: dict[Path, list[Fault]] = {}
    queues: dict[str, dict[Path, None]] = {kind: {} for kind in KINDS}
    for fault in sorted(faults, key=lambda fault: (KINDS.index(fault.kind), -fault.badness)):
        by_image.setdefault(fault.image, []).append(fault)
        queues[fault.kind].setdefault(fault.image)
    in_turn = zip_longest(*queues.values())
    chosen = dict.fromkeys(image for images in in_turn for image in images if image is not None)
    return {image: by_image[image] for image in list(chosen)[:limit]}
