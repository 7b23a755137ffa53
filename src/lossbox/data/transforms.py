"""From stored images to what a detector is fed: torchvision.transforms.v2 between records, and one random crop of our own.

A transform here takes and returns ``(image, targets)``; boxes, labels and crowd flags stay aligned. Random choices come from torch's
default generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ..records import Targets

FILL = (124, 116, 104)
"""What is outside the image where a transform shows it: the mean color of ImageNet."""

MIN_SIZE = 1.0
"""Boxes narrower or lower than this, in pixels after all transforms, are not trained on."""

Sample = dict[str, Any]
Step = Callable[[Tensor, Sample], tuple[Tensor, Sample]]


@dataclass(frozen=True)
class Augmentation:
    """What a training image goes through; the default is the mirror alone.

    Attributes:
        horizontal_flip: probability of a mirrored image; 0 where left and right mean something, as in digits and text.
        photometric: probability of each distortion of SSD: brightness, contrast, saturation, hue, order of the channels.
        zoom_out: probability that the image is put on a larger plain canvas, as in SSD.
        zoom_out_side: smallest and largest side of that canvas, in sides of the image.
        iou_crop: the random crop of SSD: a part of the image that covers some box by 0, 0.1, ..., 0.9, or all of it.
        scale_jitter: smallest and largest factor by which the content is scaled, drawn log-uniformly; what is larger than the image is
            cut at a random place, what is smaller is put at a random place on a plain canvas. None: no jitter.
        aspect_jitter: largest factor by which width over height is changed by the jitter; 1 keeps it.
        min_visible: boxes of which the jitter or the mosaic leaves less than this share in the image are not trained on; of crowd regions
            whatever remains is kept. See also ``lossbox.data.tiles.cut_into_tiles``.
        keep_aspect: False squeezes or stretches images to the full square, as SSD and its followers do.
        mosaic: probability that parts of the image and of three others make one image, before all else; the validation sees none.
        mosaic_until: share of the training after which there are no more mosaics: the last epochs then see images as they are.
    """

    horizontal_flip: float = 0.5
    photometric: float = 0.0
    zoom_out: float = 0.0
    zoom_out_side: tuple[float, float] = (1.0, 4.0)
    iou_crop: bool = False
    scale_jitter: tuple[float, float] | None = None
    aspect_jitter: float = 1.0
    min_visible: float = 0.4
    keep_aspect: bool = True
    mosaic: float = 0.0
    mosaic_until: float = 1.0

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "photometric", "zoom_out", "min_visible", "mosaic", "mosaic_until"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: a number in [0, 1] expected, got {getattr(self, name)}")
        if not 1 <= self.zoom_out_side[0] <= self.zoom_out_side[1]:
            raise ValueError(f"zoom_out_side: 1 <= smallest <= largest expected, got {self.zoom_out_side}")
        if self.scale_jitter is not None and not 0 < self.scale_jitter[0] <= self.scale_jitter[1]:
            raise ValueError(f"scale_jitter: 0 < smallest <= largest expected, got {self.scale_jitter}")
        if self.aspect_jitter < 1:
            raise ValueError(f"aspect_jitter: a factor of 1 or more expected, got {self.aspect_jitter}")
        if self.aspect_jitter > 1 and self.scale_jitter is None:
            raise ValueError("aspect_jitter: is a part of scale_jitter, which is None; give scale_jitter=(1, 1) for the aspect alone")


MIRROR = Augmentation()
"""The default: nothing but the mirror."""


@dataclass(frozen=True)
class RecordTransform:
    """Steps on ``(image, {"boxes", "labels", "crowd"})``, as torchvision writes them, between records.

    Attributes:
        steps: in the order in which they are applied.
    """

    steps: tuple[Step, ...]

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        canvas = (image.shape[-2], image.shape[-1])
        boxes = tv_tensors.BoundingBoxes(targets.boxes, format="XYXY", canvas_size=canvas)
        sample: Sample = {"boxes": boxes, "labels": targets.labels, "crowd": targets.crowd}
        image = tv_tensors.Image(image)
        for step in self.steps:
            image, sample = step(image, sample)
        return image.as_subclass(Tensor), replace(
            targets,
            boxes=sample["boxes"].as_subclass(Tensor),
            labels=sample["labels"],
            crowd=sample["crowd"],
            size=(image.shape[-2], image.shape[-1]),
        )


def eval_transforms(*, size: int | tuple[int, int]) -> RecordTransform:
    """Scales an image, its aspect kept, and gives float32 in [0, 1].

    Args:
        size: (shorter, longer): the shorter side becomes ``shorter`` pixels long, unless the longer one would exceed ``longer``; a
            single number stands for both, so that the image just fits into that square.

    Returns:
        A transform of ``(image, targets)``; an image that has its size already is not touched, boxes are never removed.

    Example:
        >>> boxes = torch.tensor([[100.0, 50.0, 300.0, 150.0]])
        >>> targets = Targets(boxes, torch.tensor([0]), torch.tensor([False]), 1, size=(200, 400), original_size=(200, 400))
        >>> image, targets = eval_transforms(size=100)(torch.zeros(3, 200, 400, dtype=torch.uint8), targets)
        >>> image.shape, targets.boxes, targets.size, targets.original_size
        (torch.Size([3, 50, 100]), tensor([[25.0000, 12.5000, 75.0000, 37.5000]]), (50, 100), (200, 400))
    """
    return RecordTransform((partial(_fit, size=shorter_and_longer(size)), v2.ToDtype(torch.float32, scale=True)))


def train_transforms(augmentation: Augmentation = MIRROR, *, size: int | tuple[int, int]) -> RecordTransform:
    """Augments an image and its boxes, scales it and gives float32 in [0, 1].

    Args:
        augmentation: what is done; all but the mosaic, which takes four images and is up to the data set.
        size: as for ``eval_transforms``. Scale jitter leaves an image as large as it would be without.

    Returns:
        A transform of ``(image, targets)``. Boxes that are pushed out of the image, or below 1 px, go together with their
        labels and crowd flags.

    Raises:
        ValueError: ``keep_aspect`` is False and ``size`` is not a single number.

    Example:
        >>> boxes = torch.tensor([[10.0, 10.0, 30.0, 40.0]])
        >>> targets = Targets(boxes, torch.tensor([0]), torch.tensor([False]), 1, size=(64, 64), original_size=(64, 64))
        >>> mirror = train_transforms(Augmentation(horizontal_flip=1.0), size=64)
        >>> mirror(torch.zeros(3, 64, 64, dtype=torch.uint8), targets)[1].boxes
        tensor([[34., 10., 54., 40.]])
    """
    shorter_longer = shorter_and_longer(size)
    if not augmentation.keep_aspect and shorter_longer[0] != shorter_longer[1]:
        raise ValueError(f"size: a single number expected where keep_aspect is False, got {size}")
    steps: list[Step] = []
    # What changes places works on uint8, which torchvision scales fastest; colors are changed in float32, which it converts less often.
    if augmentation.zoom_out:
        steps.append(v2.RandomZoomOut(fill=FILL, side_range=augmentation.zoom_out_side, p=augmentation.zoom_out))
    if augmentation.iou_crop:
        steps.append(partial(_iou_crop, crop=v2.RandomIoUCrop()))
    if augmentation.scale_jitter is None:
        steps.append(partial(_fit, size=shorter_longer, keep_aspect=augmentation.keep_aspect))
    else:
        steps.append(partial(_jitter, augmentation=augmentation, size=shorter_longer))
    steps.append(v2.ToDtype(torch.float32, scale=True))
    if augmentation.photometric:
        steps.append(v2.RandomPhotometricDistort(p=augmentation.photometric))
    if augmentation.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(p=augmentation.horizontal_flip))
    # Scaling may leave a box 1e-5 px outside, for which the last step would remove it.
    steps += [v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=MIN_SIZE, labels_getter=_labels_and_crowd)]
    return RecordTransform(tuple(steps))


def shorter_and_longer(size: int | tuple[int, int], *, name: str = "size") -> tuple[int, int]:
    """The pair that a ``size`` stands for.

    Args:
        size: one number or the pair.
        name: begins the message of an error.

    Raises:
        ValueError: numbers that are not positive, or in another order.

    Example:
        >>> shorter_and_longer(512), shorter_and_longer((500, 833))
        ((512, 512), (500, 833))
    """
    shorter, longer = (size, size) if isinstance(size, int) else size
    if not 0 < shorter <= longer:
        raise ValueError(f"{name}: a positive number of pixels, or a pair with 0 < shorter <= longer, expected, got {size}")
    return shorter, longer


def fitted_size(height: int, width: int, *, shorter: int, longer: int) -> tuple[int, int]:
    """The size of an image whose shorter side becomes ``shorter``, unless the longer one would exceed ``longer``.

    Returns:
        (height, width) in pixels, at least 1.

    Example:
        >>> fitted_size(480, 640, shorter=500, longer=833), fitted_size(300, 900, shorter=500, longer=833)
        ((500, 667), (278, 833))
    """
    factor = min(shorter / min(height, width), longer / max(height, width))
    return max(round(height * factor), 1), max(round(width * factor), 1)


def crop_and_place(
    image: Tensor,
    boxes: Float[Tensor, "n 4"],
    *,
    window: tuple[int, int, int, int],
    place: tuple[int, int, int, int],
    canvas: tuple[int, int],
) -> tuple[Tensor, Float[Tensor, "n 4"]]:
    """Cuts a window out of an image and scales it to a place on a plain canvas.

    Args:
        image: (3, h, w) uint8.
        boxes: (n, 4) ``x1 y1 x2 y2`` in pixels of the image.
        window: left, top, width, height in the image.
        place: left, top, width, height on the canvas.
        canvas: (height, width).

    Returns:
        (3, height, width) uint8, and the boxes in pixels of the canvas, not clipped.

    Example:
        >>> _, boxes = crop_and_place(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.tensor([[2., 2., 4., 6.]]),
        ...     window=(2, 0, 4, 8), place=(0, 0, 8, 8), canvas=(8, 8))
        >>> boxes
        tensor([[0., 2., 4., 6.]])
    """
    left, top, width, height = window
    to_left, to_top, to_width, to_height = place
    part = F.resize(image[..., top : top + height, left : left + width], [to_height, to_width], antialias=True)
    if (to_height, to_width) != canvas:
        on_canvas = image.new_tensor(FILL)[:, None, None].repeat(1, *canvas)
        on_canvas[:, to_top : to_top + to_height, to_left : to_left + to_width] = part
        part = on_canvas
    factor = boxes.new_tensor([to_width / width, to_height / height]).repeat(2)
    return part, (boxes - boxes.new_tensor([left, top]).repeat(2)) * factor + boxes.new_tensor([to_left, to_top]).repeat(2)


# -- steps


def _fit(image: Tensor, sample: Sample, *, size: tuple[int, int], keep_aspect: bool = True) -> tuple[Tensor, Sample]:
    height, width = image.shape[-2:]
    target = fitted_size(height, width, shorter=size[0], longer=size[1]) if keep_aspect else size
    if target == (height, width):
        return image, sample
    boxes = F.resize(sample["boxes"], list(target))
    return F.resize(image, list(target), antialias=True), {**sample, "boxes": boxes}


def _iou_crop(image: Tensor, sample: Sample, *, crop: v2.RandomIoUCrop) -> tuple[Tensor, Sample]:
    # Without boxes torchvision would try 280 crops in the mean, and then leave the image as it is; of a side below 4 px it takes 0 px.
    if len(sample["boxes"]) == 0 or min(image.shape[-2:]) < 4:
        return image, sample
    cropped: tuple[Tensor, Sample] = crop(image, sample)
    return cropped


def _jitter(image: Tensor, sample: Sample, *, augmentation: Augmentation, size: tuple[int, int]) -> tuple[Tensor, Sample]:
    """Scales the content by a random factor, cuts what is too large, fills up what is too small, all at a random place."""
    assert augmentation.scale_jitter is not None
    height, width = image.shape[-2:]
    canvas = fitted_size(height, width, shorter=size[0], longer=size[1]) if augmentation.keep_aspect else size
    smallest, largest = augmentation.scale_jitter
    draws = torch.rand(4).tolist()
    scale = smallest * (largest / smallest) ** draws[0]
    stretch = augmentation.aspect_jitter ** (draws[1] - 0.5)
    left, to_left, cut_width, to_width = _along(width, canvas[1], scale * stretch, draws[2])
    top, to_top, cut_height, to_height = _along(height, canvas[0], scale / stretch, draws[3])
    old = sample["boxes"].as_subclass(Tensor)
    part, boxes = crop_and_place(
        image.as_subclass(Tensor),
        old,
        window=(left, top, cut_width, cut_height),
        place=(to_left, to_top, to_width, to_height),
        canvas=canvas,
    )
    limit = boxes.new_tensor([canvas[1], canvas[0]]).repeat(2)
    clipped = torch.minimum(boxes.clamp(min=0), limit)
    visible = (clipped[:, 2:] - clipped[:, :2]).prod(1) >= augmentation.min_visible * (boxes[:, 2:] - boxes[:, :2]).prod(1)
    visible |= sample["crowd"]  # what shows of it is no background
    # A box of no size is taken away by the last step.
    clipped = clipped * visible[:, None]
    wrapped = tv_tensors.BoundingBoxes(clipped, format="XYXY", canvas_size=canvas)
    return tv_tensors.Image(part), {**sample, "boxes": wrapped}


def _along(extent: int, canvas: int, scale: float, draw: float) -> tuple[int, int, int, int]:
    """Along one axis: start of the window, start of its place, length of the window, length of its place."""
    if scale >= 1:
        window = max(round(extent / scale), 1)
        return int(draw * (extent - window + 1)), 0, window, canvas
    place = max(round(canvas * scale), 1)
    return 0, int(draw * (canvas - place + 1)), extent, place


def _labels_and_crowd(inputs: tuple[Tensor, Sample]) -> tuple[Tensor, Tensor]:
    return inputs[1]["labels"], inputs[1]["crowd"]
