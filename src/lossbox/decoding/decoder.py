"""From raw predictions to detections: thresholds, the best of each level, boxes, non-maximum suppression."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import batched_nms

from ..records import Detections, RawPredictions
from .peaks import only_peaks
from .thresholds import read_thresholds


@dataclass(frozen=True)
class Decoder:
    """Turns raw predictions into the detections of each image.

    Every (anchor, class) is a candidate of score ``sigmoid(logit)``, or of ``sqrt(sigmoid(logit) sigmoid(centerness))`` where the detector
    predicts centerness. On each level the ``top_k_per_level`` best of those above the threshold are kept; their boxes are decoded and cut
    at the border of the image; boxes with nothing left are dropped; then in each class a box falls that has ``IoU > nms_threshold`` with
    a better one; the best ``max_detections`` of all classes remain.

    Attributes:
        score_threshold: only scores above it count, in [0, 1).
        nms_threshold: IoU with a better box of its class above which a box falls, in [0, 1]; 1 keeps all.
        top_k_per_level: candidates per level, >= 1.
        max_detections: of one image, >= 1.
        peak_window: odd; above 1 a cell is a candidate of a class only where no other of the ``peak_window x peak_window`` cells around it
            has a higher score for it. For detectors of one anchor per cell, and in the place of non-maximum suppression
            (``nms_threshold: 1.0``) for those that predict heat maps.
        thresholds: what a score of each class must reach (``>=``, beside being above ``score_threshold``), in [0, 1]: C numbers in the
            order of the labels, NaN for a class of which nothing is returned; or by label, and nothing is returned of a label that is
            missing; or the file of ``lossbox evaluate --thresholds`` or ``lossbox validate`` (see ``read_thresholds``), whose rows by
            ascending category id are the labels.

    Raises:
        ValueError: an option out of range, or a file that breaks a rule.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [1., 0., 11., 10.], [30., 30., 50., 50.]])
        >>> logits = torch.tensor([[[2.0, -9.0], [1.0, -9.0], [-9.0, 0.0]]])
        >>> raw = RawPredictions(logits, torch.zeros(1, 3, 4), anchors, (3,), DeltaCoder())
        >>> Decoder()(raw, [(40, 40)])[0]
        Detections(boxes=tensor([[ 0.,  0., 10., 10.],
                [30., 30., 40., 40.]]), scores=tensor([0.8808, 0.5000]), labels=tensor([0, 1]))
    """

    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    top_k_per_level: int = 1000
    max_detections: int = 100
    peak_window: int = 1
    thresholds: Sequence[float] | Mapping[int, float] | str | os.PathLike[str] | None = None
    _by_label: Mapping[int, float] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold < 1:
            raise ValueError(f"score_threshold: a number in [0, 1) expected, got {self.score_threshold}")
        check_suppression(self.nms_threshold, self.max_detections)
        if self.top_k_per_level < 1:
            raise ValueError(f"top_k_per_level: a number >= 1 expected, got {self.top_k_per_level}")
        if self.peak_window < 1 or self.peak_window % 2 == 0:
            raise ValueError(f"peak_window: an odd number >= 1 expected, got {self.peak_window}")
        if self.thresholds is not None:
            object.__setattr__(self, "_by_label", _by_label(self.thresholds))

    @torch.no_grad()
    def __call__(self, predictions: RawPredictions, sizes: list[tuple[int, int]]) -> list[Detections]:
        """The detections of each image.

        Args:
            predictions: of b images.
            sizes: (height, width) of each image without the padding of the batch, in the frame of the anchors.

        Returns:
            One record per image, best score first; boxes in the frame of the anchors, scores float32.

        Raises:
            ValueError: a NaN in the predictions (names the image of the batch), another number of sizes than images, or of thresholds
                than classes; a ``peak_window`` above 1 where there is not one anchor per cell.
        """
        if len(sizes) != len(predictions.logits):
            raise ValueError(f"sizes: one (height, width) for each of the {len(predictions.logits)} images expected, got {len(sizes)}")
        _check_numbers("logits", predictions.logits)
        _check_numbers("regression", predictions.regression)
        if predictions.centerness is not None:
            _check_numbers("centerness", predictions.centerness)
        cuts = self.cuts(predictions.logits)
        found = []
        for i, (height, width) in enumerate(sizes):
            centerness = None if predictions.centerness is None else predictions.centerness[i]
            of_image = class_scores(predictions.logits[i], centerness)
            if self.peak_window > 1:
                of_image = only_peaks(of_image, predictions, self.peak_window)
            scores, anchor, label = _candidates(of_image, predictions.level_sizes, self.score_threshold, cuts, self.top_k_per_level)
            boxes = predictions.coder.decode(predictions.regression[i, anchor], predictions.anchors_at(i, anchor))
            x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
            boxes = torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)
            # written so that a NaN, which an infinite regression can give, is dropped too
            real = ((x[:, 1] > x[:, 0]) & (y[:, 1] > y[:, 0])).nonzero()[:, 0]
            kept = real[batched_nms(boxes[real], scores[real], label[real], self.nms_threshold)[: self.max_detections]]
            found.append(Detections(boxes[kept], scores[kept], label[kept]))
        return found

    def cuts(self, logits: Tensor) -> Tensor | None:
        """(C,) what a score must reach; infinite for a class of which nothing is returned."""
        if self._by_label is None:
            return None
        classes = logits.shape[2]
        if not isinstance(self.thresholds, Mapping) and len(self._by_label) != classes:
            source = f"{self.thresholds} has" if isinstance(self.thresholds, str | os.PathLike) else "there are"
            raise ValueError(f"thresholds: {source} {len(self._by_label)} classes, the detector {classes}")
        unknown = [label for label in self._by_label if not 0 <= label < classes]
        if unknown:
            raise ValueError(f"thresholds: labels in [0, {classes}) expected, got {unknown[0]}")
        cuts = [self._by_label.get(label, math.nan) for label in range(classes)]
        return logits.new_tensor([math.inf if math.isnan(cut) else cut for cut in cuts], dtype=torch.float32)


def check_suppression(nms_threshold: float, max_detections: int) -> None:
    """Raises ValueError where an option of non-maximum suppression is out of range."""
    if not 0 <= nms_threshold <= 1:
        raise ValueError(f"nms_threshold: a number in [0, 1] expected, got {nms_threshold}")
    if max_detections < 1:
        raise ValueError(f"max_detections: a number >= 1 expected, got {max_detections}")


def _by_label(thresholds: Sequence[float] | Mapping[int, float] | str | os.PathLike[str]) -> dict[int, float]:
    if isinstance(thresholds, str | os.PathLike):
        thresholds = list(read_thresholds(thresholds).values())
    by_label = dict(thresholds) if isinstance(thresholds, Mapping) else dict(enumerate(thresholds))
    for label, threshold in by_label.items():
        if not (0 <= threshold <= 1 or math.isnan(threshold)):
            raise ValueError(f"thresholds: numbers in [0, 1], or NaN, expected, got {threshold} for label {label}")
    return by_label


def class_scores(logits: Float[Tensor, "*b a c"], centerness: Float[Tensor, "*b a"] | None = None) -> Float[Tensor, "*b a c"]:
    """The score of each (anchor, class): ``sigmoid(logit)``, or ``sqrt(sigmoid(logit) sigmoid(centerness))``; float32, in [0, 1].

    Args:
        logits: (..., a, C), before the sigmoid.
        centerness: (..., a), before the sigmoid, where a detector predicts it.

    Source:
        The square root: the authors' code of FCOS (Tian et al., ICCV 2019, whose text has the product).

    Example:
        >>> class_scores(torch.tensor([[0.0, 2.0]]), torch.tensor([0.0]))
        tensor([[0.5000, 0.6636]])
    """
    scores = logits.float().sigmoid()
    return scores if centerness is None else (scores * centerness[..., None].float().sigmoid()).sqrt()


def _candidates(
    of_image: Tensor, level_sizes: Sequence[int], threshold: float, cuts: Tensor | None, top_k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, anchors and classes of the best of each level of one image, (k,) each; from its scores (a, C)."""
    classes = of_image.shape[1]
    scores, places, start = [], [], 0
    for level in torch.split(of_image, list(level_sizes)):
        flat = level.reshape(-1)
        enough = level > threshold if cuts is None else (level > threshold) & (level >= cuts)
        above = enough.reshape(-1).nonzero()[:, 0]
        best, order = flat[above].topk(min(top_k, len(above)))
        scores.append(best)
        places.append(above[order] + start)
        start += len(flat)
    place = torch.cat(places)
    return torch.cat(scores), place // classes, place % classes


def _check_numbers(name: str, values: Tensor) -> None:
    """Raises ValueError where an image has a NaN. It waits for the device, as evaluation does anyway."""
    broken = values.isnan().flatten(1).sum(1).tolist()
    for i, count in enumerate(broken):
        if count:
            raise ValueError(f"predictions.{name}: no NaN expected, got {count} in image {i} of the batch of {len(broken)}")


class ScoresAndBoxes(nn.Module):
    """A detector that gives scores and boxes as two plain tensors, before any threshold.

    Args:
        detector: images -> RawPredictions.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b a c"], Float[Tensor, "b a 4"]]:
        predictions: RawPredictions = self.detector(images)
        boxes = predictions.coder.decode(predictions.regression, predictions.anchors)
        return class_scores(predictions.logits, predictions.centerness), boxes
