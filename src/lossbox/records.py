"""What flows between the parts of the trainer: frozen records of tensors.

The frame of every box is ``x1 y1 x2 y2`` in pixels of the image (or padded batch) that the detector saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BACKGROUND = -1
"""In ``Assignment.matched``: this anchor is a negative of every class."""

IGNORE = -2
"""In ``Assignment.matched``: this anchor takes part in no loss."""


@runtime_checkable
class BoxCoder(Protocol):
    """How a detector writes boxes relative to its anchors."""

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor: ...

    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Targets:
    """The ground truth of one image.

    Attributes:
        boxes: (n, 4) in the frame of the image after its transforms.
        labels: (n,) int64 in [0, C): indices into the data set's list of categories, not COCO category ids.
        crowd: (n,) True where the annotation is a COCO crowd region: never a positive, its anchors are ignored.
        image_id: the COCO id of the image.
        size: (height, width) of the image after its transforms, without the padding of the batch.
        original_size: (height, width) of the file on disk, or of the tile that was cut out of it; detections are mapped back to it before
            they are evaluated.
        corner: (y, x) in the file on disk of the upper left pixel: of a tile.
    """

    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    crowd: Bool[Tensor, " n"]
    image_id: int
    size: tuple[int, int]
    original_size: tuple[int, int]
    corner: tuple[int, int] = (0, 0)

    def to(self, device: torch.device | str) -> Targets:
        return replace(self, boxes=self.boxes.to(device), labels=self.labels.to(device), crowd=self.crowd.to(device))

    def of_one_class(self) -> Targets:
        """The same boxes, all of class 0: the targets of a first stage, which finds objects of any class."""
        return replace(self, labels=torch.zeros_like(self.labels))


@dataclass(frozen=True)
class Batch:
    """Images of one size (padded at the right and the bottom) and their targets.

    Attributes:
        images: (b, 3, h, w) float32 in [0, 1], RGB, not normalized: the detector does that.
        targets: one record per image.
    """

    images: Float[Tensor, "b 3 h w"]
    targets: list[Targets]

    def to(self, device: torch.device | str) -> Batch:
        return Batch(self.images.to(device, non_blocking=True), [t.to(device) for t in self.targets])

    def split(self, images: int) -> Iterator[Batch]:
        """Parts of at most so many images, in their order."""
        for first in range(0, len(self.targets), images):
            yield Batch(self.images[first : first + images], self.targets[first : first + images])

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from where copies to a GPU run beside its work; ``DataLoader(pin_memory=True)`` calls it."""
        pinned = [replace(t, boxes=t.boxes.pin_memory(), labels=t.labels.pin_memory(), crowd=t.crowd.pin_memory()) for t in self.targets]
        return Batch(self.images.pin_memory(), pinned)


@dataclass(frozen=True)
class RawPredictions:
    """What a detector predicts for b images, before any threshold.

    Attributes:
        logits: (b, a, C), one score per class, before the sigmoid.
        regression: (b, a, 4), in the coder's units.
        anchors: (a, 4), the same for every image of the batch, or (b, a, 4), each image's own, as a second stage has them. One without
            area fills up the shorter of such lists: it is assigned to nothing and detects nothing.
        level_sizes: anchors on each pyramid level, finest first; they sum to a.
        coder: turns ``regression`` into boxes and back.
        centerness: (b, a), before the sigmoid: how central each anchor lies in its object; None where a detector does not predict it.
        distribution: (b, a, 4, bins), before the softmax: the probability of each whole distance, of which ``regression`` is the mean; None
            where a detector predicts one number for each side.
    """

    logits: Float[Tensor, "b a c"]
    regression: Float[Tensor, "b a 4"]
    anchors: Float[Tensor, "*own a 4"]
    level_sizes: tuple[int, ...]
    coder: BoxCoder
    centerness: Float[Tensor, "b a"] | None = None
    distribution: Float[Tensor, "b a 4 bins"] | None = None

    def anchors_at(self, image: int | Tensor, anchor: Tensor) -> Tensor:
        """The anchors (n, 4) of n places: the indices of their images (or one for all) and their indices in the image."""
        return self.anchors[anchor] if self.anchors.ndim == 2 else self.anchors[image, anchor]


@dataclass(frozen=True)
class Proposals:
    """What the first stage of a two-stage detector hands to the second.

    Attributes:
        features: the levels of the pyramid, finest first.
        predictions: of the first stage, about one class: any object.
        boxes: (b, p, 4) ``x1 y1 x2 y2``, best first, without a gradient; a row without area fills up an image that has fewer than p.
    """

    features: list[Tensor]
    predictions: RawPredictions
    boxes: Float[Tensor, "b p 4"]


@dataclass(frozen=True)
class Assignment:
    """Which target each anchor is trained on.

    Attributes:
        matched: (b, a) int64: the index of a box of that image's ``Targets``, or ``BACKGROUND``, or ``IGNORE``.
    """

    matched: Int[Tensor, "b a"]


@dataclass(frozen=True)
class Detections:
    """The boxes found in one image, best score first.

    Attributes:
        boxes: (n, 4).
        scores: (n,) in [0, 1].
        labels: (n,) int64 in [0, C).
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]

    def resized(self, size: tuple[int, int], to: tuple[int, int]) -> Detections:
        """The same detections in another frame: that of the image of (height, width) ``size`` when it is resized to ``to``.

        Example:
            >>> found = Detections(torch.tensor([[10.0, 10.0, 20.0, 20.0]]), torch.tensor([0.9]), torch.tensor([0]))
            >>> found.resized((50, 100), (100, 300)).boxes
            tensor([[30., 20., 60., 40.]])
        """
        factors = (to[1] / size[1], to[0] / size[0])
        return replace(self, boxes=self.boxes * self.boxes.new_tensor(factors * 2))

    def moved(self, corner: tuple[int, int]) -> Detections:
        """The same detections in the frame of the image whose pixel (y, x) is the upper left one of this image.

        Example:
            >>> Detections(torch.tensor([[1.0, 2.0, 4.0, 6.0]]), torch.tensor([0.9]), torch.tensor([0])).moved((10, 20)).boxes
            tensor([[21., 12., 24., 16.]])
        """
        y, x = corner
        return replace(self, boxes=self.boxes + self.boxes.new_tensor((x, y, x, y)))

    def mirrored(self, width: float) -> Detections:
        """The same detections in the frame of the mirror image of an image of this width.

        Example:
            >>> Detections(torch.tensor([[1.0, 2.0, 4.0, 6.0]]), torch.tensor([0.9]), torch.tensor([0])).mirrored(10).boxes
            tensor([[6., 2., 9., 6.]])
        """
        x1, y1, x2, y2 = self.boxes.unbind(-1)
        return replace(self, boxes=torch.stack([width - x2, y1, width - x1, y2], -1))

    def cpu(self) -> Detections:
        return Detections(self.boxes.cpu(), self.scores.cpu(), self.labels.cpu())
