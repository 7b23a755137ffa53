"""What a data set holds, in numbers: classes, sizes and shapes of boxes, doubles, and how well anchors fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes import box_area, paired_iou, pairwise_intersection
from ..coco.read import CocoAnnotations, CocoImage
from .transforms import fitted_size

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)

DOUBLE = 0.9
"""IoU of two boxes of one image from which they are counted as doubles."""


def survey(annotations: CocoAnnotations) -> dict[str, Any]:
    """Counts and percentiles of a data set; crowd regions are counted and take no part in the rest.

    Returns:
        ``images``, ``without_boxes``, ``boxes``, ``crowd_regions``; ``classes``: boxes of each by name; ``side``: percentiles of
        ``sqrt(w h)`` in pixels of the stored images; ``share``: the same as a share of ``sqrt(W H)`` of the image; ``aspect``: of
        ``h / w``; ``doubles``: pairs of boxes of one image with IoU >= 0.9, of one class and of two. Percentiles are null without boxes.

    Example:
        >>> from pathlib import Path
        >>> from lossbox.coco.read import CocoImage
        >>> boxes = torch.tensor([[0., 0., 10., 10.], [0., 0., 10., 40.], [0., 1., 10., 40.]])
        >>> image = CocoImage(1, Path("a.jpg"), 100, 100, boxes, torch.tensor([0, 1, 1]), torch.zeros(3, dtype=torch.bool))
        >>> found = survey(CocoAnnotations(Path("a.json"), [(1, "cup"), (2, "pen")], [image]))
        >>> found["classes"], found["doubles"], found["side"]["0"]
        ({'cup': 1, 'pen': 2}, {'same_class': 1, 'other_class': 0}, 10.0)
    """
    images = annotations.images
    boxes = [image.boxes[~image.crowd] for image in images]
    labels = [image.labels[~image.crowd] for image in images]
    all_boxes, all_labels = torch.cat([torch.zeros(0, 4), *boxes]), torch.cat([torch.zeros(0, dtype=torch.long), *labels])
    counts = torch.bincount(all_labels, minlength=len(annotations.categories)).tolist()
    image_area = torch.tensor([float(image.width * image.height) for image in images]).repeat_interleave(
        torch.tensor([len(b) for b in boxes], dtype=torch.long)
    )
    side, size = box_area(all_boxes).sqrt(), all_boxes[:, 2:] - all_boxes[:, :2]
    pairs = list(doubles(annotations))
    same = sum(bool(image.labels[one] == image.labels[other]) for image, one, other in pairs)
    return {
        "images": len(images),
        "without_boxes": sum(len(found) == 0 for found in boxes),
        "boxes": len(all_boxes),
        "crowd_regions": sum(int(image.crowd.sum()) for image in images),
        "classes": dict(zip(annotations.class_names, counts, strict=True)),
        "side": percentiles(side),
        "share": percentiles(side / image_area.sqrt()),
        "aspect": percentiles(size[:, 1] / size[:, 0]),
        "doubles": {"same_class": same, "other_class": len(pairs) - same},
    }


def percentiles(values: Float[Tensor, " n"]) -> dict[str, float | None]:
    """The 0, 5, 25, 50, 75, 95 and 100 % percentiles, linearly interpolated; null of no values."""
    if len(values) == 0:
        return dict.fromkeys(map(str, PERCENTILES))
    # sorted by hand: torch.quantile refuses more than 16 million values
    ordered = values.double().sort().values
    at = torch.tensor(PERCENTILES, dtype=torch.float64) / 100 * (len(values) - 1)
    low, share = at.long(), at.frac()
    found = torch.lerp(ordered[low], ordered[(low + 1).clamp(max=len(values) - 1)], share)
    return dict(zip(map(str, PERCENTILES), found.tolist(), strict=True))


def doubles(annotations: CocoAnnotations) -> Iterator[tuple[CocoImage, int, int]]:
    """The pairs of boxes of one image whose IoU is at least ``DOUBLE``, as indices into its boxes; crowd regions are left out.

    Example:
        >>> from pathlib import Path
        >>> boxes = torch.tensor([[0., 0., 30., 30.], [9., 9., 20., 20.], [0., 0., 30., 29.]])
        >>> image = CocoImage(1, Path("a"), 64, 64, boxes, torch.tensor([0, 0, 0]), torch.tensor([False, True, False]))
        >>> [pair[1:] for pair in doubles(CocoAnnotations(Path("a.json"), [(1, "cup")], [image]))]
        [(0, 2)]
    """
    for image in annotations.images:
        kept = (~image.crowd).nonzero().flatten()
        for one, other in kept[near_doubles(image.boxes[kept])].tolist():
            yield image, one, other


def near_doubles(boxes: Float[Tensor, "n 4"], *, iou: float = DOUBLE) -> Tensor:
    """The pairs of boxes whose IoU is at least so high.

    Args:
        boxes: (n, 4) ``x1 y1 x2 y2``.
        iou: in (0, 1].

    Returns:
        (p, 2) indices, the lower first.

    Example:
        >>> near_doubles(torch.tensor([[0., 0., 10., 10.], [5., 0., 15., 10.], [0., 0., 10., 9.5]]))
        tensor([[0, 2]])
    """
    shared, area = pairwise_intersection(boxes, boxes), box_area(boxes)
    return (shared >= iou * (area[:, None] + area - shared)).triu(1).nonzero()


def boxes_as_seen(annotations: CocoAnnotations, *, size: tuple[int, int]) -> Float[Tensor, "n 4"]:
    """The boxes of a data set in pixels of its images as a detector sees them.

    Args:
        annotations: the data set; crowd regions are left out.
        size: (shorter, longer) as in ``lossbox.data.transforms.eval_transforms``.

    Returns:
        (n, 4) ``x1 y1 x2 y2``, image by image.

    Example:
        >>> from pathlib import Path
        >>> from lossbox.coco.read import CocoImage
        >>> image = CocoImage(1, Path("a"), 64, 32, torch.tensor([[0., 0., 8., 8.]]), torch.tensor([0]), torch.tensor([False]))
        >>> boxes_as_seen(CocoAnnotations(Path("a.json"), [(1, "cup")], [image]), size=(128, 128))
        tensor([[ 0.,  0., 16., 16.]])
    """
    boxes = [torch.zeros(0, 4)]
    for image in annotations.images:
        height, width = fitted_size(image.height, image.width, shorter=size[0], longer=size[1])
        boxes.append(image.boxes[~image.crowd] * torch.tensor([width / image.width, height / image.height]).repeat(2))
    return torch.cat(boxes)


def best_anchor_iou(boxes: Float[Tensor, "n 4"], shapes: Sequence[Float[Tensor, "k 2"]], strides: Sequence[int]) -> Float[Tensor, " n"]:
    """IoU of each box with the anchor that overlaps it most.

    Of anchors of one shape on a grid, the one with the nearest center overlaps a box most: overlap falls with the distance of the centers,
    along x and along y on its own. So each box is compared with one anchor a shape and level, that of the cell that holds its center.

    Args:
        boxes: (n, 4) ``x1 y1 x2 y2`` in pixels of the images as a detector sees them: ``boxes_as_seen``.
        shapes: for each level the (width, height) of the anchors on one place, in pixels.
        strides: of the levels, in pixels.

    Returns:
        (n,) in [0, 1].

    Example:
        >>> best_anchor_iou(torch.tensor([[0., 0., 8., 8.]]), [torch.tensor([[8., 4.]])], [8])
        tensor([0.5000])
    """
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    best = torch.zeros(len(boxes))
    for level_shapes, stride in zip(shapes, strides, strict=True):
        nearest = ((center / stride).floor() + 0.5) * stride
        for shape in level_shapes:
            best = torch.maximum(best, paired_iou(boxes, torch.cat([nearest - shape / 2, nearest + shape / 2], 1)))
    return best
