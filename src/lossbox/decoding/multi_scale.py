"""Testing at several scales and in mirror images: an image goes through the detector several times, and the detections are merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from ..records import Detections
from .decoder import check_suppression

Detect = Callable[[Tensor, list[tuple[int, int]]], list[Detections]]
"""From a padded batch (b, 3, h, w) and the (height, width) of each image in it to the detections, in the frame of the batch."""


@dataclass(frozen=True)
class MultiScale:
    """Detects at every scale, and in the mirror images.

    For each scale s every image is resized to ``(round(s height), round(s width))`` (bilinear, antialiased) and run through the detector,
    then once more mirrored; boxes are brought back to the frame of the batch, and the lists are merged by ``merge_detections``. An
    enlarged image holds no more than the original: load the images at the largest size (``data.eval_size``), and let the scales be at
    most 1.

    Attributes:
        scales: factors > 0, one or more.
        flip: detect in the mirror images too.
        nms_threshold: IoU with a better box of its class above which a box falls, in [0, 1].
        max_detections: of one image, >= 1.
        multiple: height and width of the resized batches are padded to multiples of it.

    Raises:
        ValueError: an option out of its range.

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
        >>> MultiScale(scales=(1.0, 2.0), multiple=1)(images, [(4, 6)], detect)[0].boxes
        tensor([[1., 0., 3., 4.]])
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    nms_threshold: float = 0.5
    max_detections: int = 100
    multiple: int = 32

    def __post_init__(self) -> None:
        if not self.scales or not all(scale > 0 for scale in self.scales):
            raise ValueError(f"scales: one or more numbers > 0 expected, got {tuple(self.scales)}")
        check_suppression(self.nms_threshold, self.max_detections)
        if self.multiple < 1:
            raise ValueError(f"multiple: a number >= 1 expected, got {self.multiple}")

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b 3 h w"], sizes: Sequence[tuple[int, int]], detect: Detect) -> list[Detections]:
        """The detections of each image.

        Args:
            images: (b, 3, h, w) images in [0, 1], padded at the right and the bottom.
            sizes: (height, width) of each without the padding.
            detect: the detector with its decoder; ``lambda images, sizes: decoder(detector(images), sizes)``.

        Returns:
            One record per image, best score first, boxes in the frame of ``images``.

        Raises:
            ValueError: another number of sizes than images.
        """
        if len(sizes) != len(images):
            raise ValueError(f"sizes: one (height, width) for each of the {len(images)} images expected, got {len(sizes)}")
        found: list[list[Detections]] = [[] for _ in sizes]
        for scale in self.scales:
            scaled = [(max(round(scale * height), 1), max(round(scale * width), 1)) for height, width in sizes]
            resized = [_resized(image[:, : size[0], : size[1]], to) for image, size, to in zip(images, sizes, scaled, strict=True)]
            for mirrored in (False, True) if self.flip else (False,):
                batch = _padded([image.flip(-1) for image in resized] if mirrored else resized, self.multiple)
                for parts, part, size, seen in zip(found, detect(batch, scaled), sizes, scaled, strict=True):
                    parts.append((part.mirrored(seen[1]) if mirrored else part).resized(seen, size))
        return [merge_detections(parts, nms_threshold=self.nms_threshold, max_detections=self.max_detections) for parts in found]


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
    check_suppression(nms_threshold, max_detections)
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
