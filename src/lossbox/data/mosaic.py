"""Four images as one: parts of them around a point, with the boxes of which enough is left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..records import Targets
from .transforms import FILL, MIN_SIZE, crop_and_place, fitted_size, shorter_and_longer

CENTER = (0.25, 0.75)
"""Where the four parts meet, along each side of the mosaic."""

SCALE = (0.5, 1.0)
"""Size of the content of a part, where 1 is the size that its image has without a mosaic."""


def mosaic_of_four(
    samples: Sequence[tuple[Tensor, Targets]], *, size: int | tuple[int, int], keep_aspect: bool = True, min_visible: float = 0.4
) -> tuple[Tensor, Targets]:
    """Puts parts of four images around a random point of a plain canvas, which is as large as the first of the four would become alone.

    The point lies in the middle half of both sides. Each image, its aspect kept, has a random share of the size at which it would just
    fit into the canvas, log-uniform in [0.5, 1]; of what is larger than its corner a random part is shown, what is smaller touches the
    point. Random choices come from torch's default generator.

    Args:
        samples: four images (3, h, w), uint8, each with its targets; in the order top left, top right, bottom left, bottom right.
        size: (shorter, longer) in pixels or one number for both, as for ``lossbox.data.transforms.train_transforms``; 4 or more.
        keep_aspect: False makes the canvas ``size`` as (height, width).
        min_visible: boxes of which a smaller share of the area remains are left out, as are those below 1 px; of a crowd region whatever
            remains is kept, since what lies in it is no background.

    Returns:
        (3, height, width) uint8, and the boxes of all four, clipped to their parts, with their labels and crowd flags; ``image_id`` and
        ``original_size`` are those of the first.

    Raises:
        ValueError: not four images, or an option out of its range.

    Source:
        Bochkovskiy et al., YOLOv4, arXiv:2004.10934, Sec. 3.3.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0]])
        >>> targets = Targets(boxes, torch.tensor([5]), torch.tensor([False]), 1, (32, 32), (32, 32))
        >>> image, targets = mosaic_of_four([(torch.ones(3, 32, 32, dtype=torch.uint8), targets)] * 4, size=64, min_visible=0.0)
        >>> tuple(image.shape), targets.labels, targets.size
        ((3, 64, 64), tensor([5, 5, 5, 5]), (64, 64))
    """
    if len(samples) != 4:
        raise ValueError(f"samples: four images expected, got {len(samples)}")
    shorter, longer = shorter_and_longer(size)
    if shorter < 4:
        raise ValueError(f"size: 4 pixels or more expected, got {size}")
    if not 0 <= min_visible <= 1:
        raise ValueError(f"min_visible: a number in [0, 1] expected, got {min_visible}")
    first = samples[0][1]
    full = fitted_size(*samples[0][0].shape[-2:], shorter=shorter, longer=longer) if keep_aspect else (shorter, longer)
    height, width = canvas = (max(full[0], 4), max(full[1], 4))  # a very long image becomes only a pixel wide
    draws = torch.rand(14).tolist()
    center_x = round(width * (CENTER[0] + (CENTER[1] - CENTER[0]) * draws[0]))
    center_y = round(height * (CENTER[0] + (CENTER[1] - CENTER[0]) * draws[1]))
    canvas_image = torch.tensor(FILL, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
    boxes, labels, crowd = [], [], []
    for corner, (image, targets) in enumerate(samples):
        scale, at_x, at_y = draws[2 + 3 * corner : 5 + 3 * corner]
        gain = SCALE[0] * (SCALE[1] / SCALE[0]) ** scale
        full = fitted_size(image.shape[-2], image.shape[-1], shorter=min(canvas), longer=max(canvas))
        left, to_left, cut_width, to_width = _part(image.shape[-1], gain * full[1], center_x, width, at_x, low=corner % 2 == 0)
        top, to_top, cut_height, to_height = _part(image.shape[-2], gain * full[0], center_y, height, at_y, low=corner < 2)
        part, moved = crop_and_place(
            image,
            targets.boxes,
            window=(left, top, cut_width, cut_height),
            place=(0, 0, to_width, to_height),
            canvas=(to_height, to_width),
        )
        canvas_image[:, to_top : to_top + to_height, to_left : to_left + to_width] = part
        clipped = torch.minimum(moved.clamp(min=0), moved.new_tensor([to_width, to_height]).repeat(2))
        kept = _visible(clipped, moved, targets.crowd, min_visible)
        boxes.append(clipped[kept] + moved.new_tensor([to_left, to_top]).repeat(2))
        labels.append(targets.labels[kept])
        crowd.append(targets.crowd[kept])
    return canvas_image, Targets(torch.cat(boxes), torch.cat(labels), torch.cat(crowd), first.image_id, canvas, first.original_size)


def _visible(clipped: Tensor, whole: Tensor, crowd: Tensor, least: float) -> Tensor:
    sides = clipped[:, 2:] - clipped[:, :2]
    enough = sides.prod(1) >= least * (whole[:, 2:] - whole[:, :2]).prod(1)
    return (enough | crowd) & (sides >= MIN_SIZE).all(1)


def _part(extent: int, scaled: float, center: int, side: int, draw: float, *, low: bool) -> tuple[int, int, int, int]:
    """Along one axis: start of the window, start of its place, length of the window, length of its place."""
    room = center if low else side - center
    place = min(max(round(scaled), 1), room)
    window = min(max(round(place * extent / scaled), 1), extent)
    return int(draw * (extent - window + 1)), center - place if low else center, window, place
