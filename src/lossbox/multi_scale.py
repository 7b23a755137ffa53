"""Testing at several scales, mirrored too: one image is looked at several times, and what was found is merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from .records import Detections

Detect = Callable[[Tensor, list[tuple[int, int]]], list[Detections]]
"""From a padded batch (b, 3, h, w) and the (height, width) of each image in it to what is found, in the frame of the batch."""


@torch.no_grad()
def detect_multi_scale(
    images: Float[Tensor, "b 3 h w"],
    sizes: Sequence[tuple[int, int]],
    detect: Detect,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = True,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
    multiple: int = 32,
) -> list[Detections]:
    """What a detector finds in images at every scale, and in their mirror images.

    For each scale s every image is resized to ``(round(s height), round(s width))`` (bilinear, antialiased) and looked at, then once more
    mirrored; boxes are brought back to the frame of the given batch, and the lists are merged by ``merge_detections``. An enlarged image
    holds no more than the given one: load the images at the largest size wanted, and let the scales be at most 1.

    Args:
        images: (b, 3, h, w) images in [0, 1], padded at the right and the bottom.
        sizes: (height, width) of each without the padding.
        detect: the detector with its decoder; ``lambda images, sizes: decoder(detector(images), sizes)``.
        scales: factors > 0, one or more.
        flip: look at the mirror images too.
        nms_threshold: IoU with a better box of its class above which a box falls, in [0, 1].
        max_detections: of one image, >= 1.
        multiple: height and width of the resized batches are padded to multiples of it.

    Returns:
        One record per image, best score first, boxes in the frame of ``images``.

    Raises:
        ValueError: an option out of its range, or another number of sizes than images.

    Source:
        Oksuz et al., aLRP Loss, NeurIPS 2020, Sec. 5.3: the multi-scale results on test-dev.

    Example:
        A detector that finds the bright column of an image:

        >>> def detect(images, sizes):
        ...     columns = [image[0, 0].nonzero()[:, 0] for image in images]
        ...     boxes = [torch.tensor([[c.min(), 0, c.max() + 1, size[0]]]).float() for c, size in zip(columns, sizes)]
        ...     return [Detections(box, torch.ones(1), torch.zeros(1).long()) for box in boxes]
        >>> images = torch.zeros(1, 3, 4, 8)
        >>> images[..., 1:3] = 1
        >>> detect_multi_scale(images, [(4, 6)], detect, scales=(1.0, 2.0), multiple=1)[0].boxes
        tensor([[1., 0., 3., 4.]])
    """
    if not scales or not all(scale > 0 for scale in scales):
        raise ValueError(f"scales: one or more numbers > 0 expected, got {tuple(scales)}")
    if len(sizes) != len(images):
        raise ValueError(f"sizes: one (height, width) for each of the {len(images)} images expected, got {len(sizes)}")
    _check_options(nms_threshold, max_detections)
    found: list[list[Detections]] = [[] for _ in sizes]
    for scale in scales:
        scaled_sizes = [(max(round(scale * height), 1), max(round(scale * width), 1)) for height, width in sizes]
        resized = [_resized(image[:, : size[0], : size[1]], to) for image, size, to in zip(images, sizes, scaled_sizes, strict=True)]
        for mirrored in (False, True) if flip else (False,):
            batch = _padded([image.flip(-1) for image in resized] if mirrored else resized, multiple)
            for parts, part, (height, width), to in zip(found, detect(batch, scaled_sizes), sizes, scaled_sizes, strict=True):
                x1, y1, x2, y2 = part.boxes.unbind(-1)
                if mirrored:
                    x1, x2 = to[1] - x2, to[1] - x1
                back_x, back_y = width / to[1], height / to[0]
                parts.append(Detections(torch.stack([x1 * back_x, y1 * back_y, x2 * back_x, y2 * back_y], -1), part.scores, part.labels))
    return [merge_detections(parts, nms_threshold=nms_threshold, max_detections=max_detections) for parts in found]


@dataclass(frozen=True)
class MultiScale:
    """``detect_multi_scale`` with its options, for a recipe.

    Attributes:
        scales: factors > 0; let the largest be 1 and ``data.eval_size`` the largest size wanted.
        flip: look at the mirror images too.
        nms_threshold: IoU with a better box of its class above which a box falls.
        max_detections: of one image.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    nms_threshold: float = 0.5
    max_detections: int = 100

    def __call__(self, images: Tensor, sizes: Sequence[tuple[int, int]], detect: Detect) -> list[Detections]:
        return detect_multi_scale(
            images,
            sizes,
            detect,
            scales=self.scales,
            flip=self.flip,
            nms_threshold=self.nms_threshold,
            max_detections=self.max_detections,
        )


def merge_detections(parts: Sequence[Detections], *, nms_threshold: float = 0.5, max_detections: int = 100) -> Detections:
    """Several lists of detections of one image as one: in each class a box falls that overlaps a better one of any list.

    Args:
        parts: one or more lists in one frame.
        nms_threshold: IoU with a better box of its class above which a box falls, in [0, 1].
        max_detections: so many of the best remain, >= 1.

    Returns:
        The remaining ones, best score first.

    Raises:
        ValueError: no list, or an option out of its range.

    Example:
        >>> one = Detections(torch.tensor([[0., 0., 10., 10.]]), torch.tensor([0.5]), torch.tensor([0]))
        >>> other = Detections(torch.tensor([[1., 0., 11., 10.], [30., 0., 40., 10.]]), torch.tensor([0.75, 0.25]), torch.tensor([0, 0]))
        >>> merge_detections([one, other]).scores
        tensor([0.7500, 0.2500])
    """
    _check_options(nms_threshold, max_detections)
    if not parts:
        raise ValueError("parts: one list of detections or more expected, got none")
    boxes, scores, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "labels"))
    kept = batched_nms(boxes, scores, labels, nms_threshold)[:max_detections]
    return Detections(boxes[kept], scores[kept], labels[kept])


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def _padded(images: Sequence[Tensor], multiple: int) -> Tensor:
    height, width = (-(-max(image.shape[axis] for image in images) // multiple) * multiple for axis in (-2, -1))
    batch = images[0].new_zeros((len(images), 3, height, width))
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[-2], : image.shape[-1]] = image
    return batch


def _check_options(nms_threshold: float, max_detections: int) -> None:
    if not 0 <= nms_threshold <= 1:
        raise ValueError(f"nms_threshold: a number in [0, 1] expected, got {nms_threshold}")
    if max_detections < 1:
        raise ValueError(f"max_detections: a number >= 1 expected, got {max_detections}")
