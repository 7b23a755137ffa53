"""From raw predictions to detections: thresholds, best of each level, boxes, non-maximum suppression."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import batched_nms

from .records import Detections, RawPredictions


@torch.no_grad()
def decode(
    predictions: RawPredictions,
    sizes: Sequence[tuple[int, int]],
    *,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    top_k_per_level: int = 1000,
    max_detections: int = 100,
    class_thresholds: Sequence[float] | Mapping[int, float] | None = None,
) -> list[Detections]:
    """The detections of each image.

    Every (anchor, class) is a candidate of score ``sigmoid(logit)``, or of ``sqrt(sigmoid(logit) sigmoid(centerness))`` where the detector
    says the centerness. On each level the ``top_k_per_level`` best of those above the threshold are kept; their boxes are decoded and cut
    at the border of the image; boxes with nothing left are dropped; then in each class a box falls that has ``IoU > nms_threshold`` with
    a better one; the best ``max_detections`` of all classes remain.

    Args:
        predictions: of b images.
        sizes: (height, width) of each image without the padding of the batch, in the frame of the anchors.
        score_threshold: only scores above it count, in [0, 1).
        nms_threshold: IoU, in [0, 1]; 1 keeps all.
        top_k_per_level: candidates per level, >= 1.
        max_detections: of one image, >= 1.
        class_thresholds: what a score of each class must reach (``>=``, beside being above ``score_threshold``), in [0, 1]: C numbers in
            the order of the labels, NaN where nothing of a class is wanted; or by label, and then nothing of a label it lacks is returned.

    Returns:
        One record per image, best score first; boxes in the frame of the anchors, scores float32.

    Raises:
        ValueError: a NaN in the predictions (names the image of the batch: no NaN becomes a detection, and none is passed over in
            silence), an option out of range, another number of sizes than images, or of class thresholds than classes.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [1., 0., 11., 10.], [30., 30., 50., 50.]])
        >>> logits = torch.tensor([[[2.0, -9.0], [1.0, -9.0], [-9.0, 0.0]]])
        >>> raw = RawPredictions(logits, torch.zeros(1, 3, 4), anchors, (3,), DeltaCoder())
        >>> decode(raw, [(40, 40)])[0]
        Detections(boxes=tensor([[ 0.,  0., 10., 10.],
                [30., 30., 40., 40.]]), scores=tensor([0.8808, 0.5000]), labels=tensor([0, 1]))
    """
    _check_options(score_threshold, nms_threshold, top_k_per_level, max_detections)
    if len(sizes) != len(predictions.logits):
        raise ValueError(f"sizes: one (height, width) for each of the {len(predictions.logits)} images expected, got {len(sizes)}")
    _check_numbers("logits", predictions.logits)
    _check_numbers("regression", predictions.regression)
    if predictions.centerness is not None:
        _check_numbers("centerness", predictions.centerness)
    cuts = None if class_thresholds is None else _cuts(class_thresholds, predictions.logits)
    found = []
    for i, (height, width) in enumerate(sizes):
        centerness = None if predictions.centerness is None else predictions.centerness[i]
        of_image = class_scores(predictions.logits[i], centerness)
        scores, anchor, label = _candidates(of_image, predictions.level_sizes, score_threshold, cuts, top_k_per_level)
        boxes = predictions.coder.decode(predictions.regression[i, anchor], predictions.anchors_at(i, anchor))
        x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
        boxes = torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)
        # written so that a NaN, which an infinite regression can give, is dropped too
        real = ((x[:, 1] > x[:, 0]) & (y[:, 1] > y[:, 0])).nonzero()[:, 0]
        kept = real[batched_nms(boxes[real], scores[real], label[real], nms_threshold)[:max_detections]]
        found.append(Detections(boxes[kept], scores[kept], label[kept]))
    return found


@dataclass(frozen=True)
class Decoder:
    """``decode`` with its options, for a recipe.

    Attributes:
        score_threshold: only scores above it count.
        nms_threshold: IoU with a better box of its class above which a box falls.
        top_k_per_level: candidates per level.
        max_detections: of one image.
        thresholds: a CSV file of ``lossbox evaluate --thresholds`` or ``lossbox validate``: each class is cut at its own score, see
            ``read_thresholds``; the rows by ascending category id are the labels.

    Raises:
        ValueError: an option out of range; a file that breaks a rule, or, when called, has another number of classes than the detector.
    """

    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    top_k_per_level: int = 1000
    max_detections: int = 100
    thresholds: str | os.PathLike[str] | None = None
    _class_thresholds: tuple[float, ...] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        _check_options(self.score_threshold, self.nms_threshold, self.top_k_per_level, self.max_detections)
        if self.thresholds is not None:
            object.__setattr__(self, "_class_thresholds", tuple(read_thresholds(self.thresholds).values()))

    def __call__(self, predictions: RawPredictions, sizes: list[tuple[int, int]]) -> list[Detections]:
        classes = predictions.logits.shape[2]
        if self._class_thresholds is not None and len(self._class_thresholds) != classes:
            raise ValueError(f"thresholds: {self.thresholds} has {len(self._class_thresholds)} classes, the detector {classes}")
        return decode(
            predictions,
            sizes,
            score_threshold=self.score_threshold,
            nms_threshold=self.nms_threshold,
            top_k_per_level=self.top_k_per_level,
            max_detections=self.max_detections,
            class_thresholds=self._class_thresholds,
        )


def read_thresholds(path: str | os.PathLike[str]) -> dict[int, float]:
    """The score at which to cut each class, from a CSV file with the columns ``category_id`` and ``threshold`` (others are not looked at).

    Args:
        path: what ``lossbox evaluate --thresholds`` or ``lossbox validate`` wrote.

    Returns:
        By category id, ascending as labels are; NaN where the file has none: no score of such a class was ever right, and ``decode``
        returns nothing of it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, an id is no whole number or occurs twice, or a threshold is no number in [0, 1]; names the line.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "thresholds.csv"
        >>> _ = path.write_text("category_id,name,threshold\\n3,cup,0.6\\n1,spoon,\\n")
        >>> read_thresholds(path)
        {1: nan, 3: 0.6}
    """
    found: dict[int, float] = {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        try:
            missing = [name for name in ("category_id", "threshold") if name not in (rows.fieldnames or ())]
            if missing:
                raise ValueError(f"{path}: line 1: a column {missing[0]!r} expected, got {rows.fieldnames or 'an empty file'}")
            for row in rows:
                where = f"{path}: line {rows.line_num}"
                category_id, threshold = _whole(row["category_id"], where), _threshold(row["threshold"], where)
                if category_id in found:
                    raise ValueError(f"{where}: category_id {category_id} occurs twice")
                found[category_id] = threshold
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: is not CSV: {error}") from error
    return dict(sorted(found.items()))


def _whole(cell: str | None, where: str) -> int:
    try:
        return int(cell or "")
    except ValueError:
        raise ValueError(f"{where}: category_id must be a whole number, got {cell!r}") from None


def _threshold(cell: str | None, where: str) -> float:
    if cell is not None and not cell.strip():
        return math.nan
    try:
        value = float(cell or "")
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(f"{where}: threshold must be a number in [0, 1], or empty to return nothing of this class, got {cell!r}")
    return value


def _cuts(class_thresholds: Sequence[float] | Mapping[int, float], logits: Tensor) -> Tensor:
    """(C,) what a score must reach; infinite for a class of which nothing is wanted."""
    classes = logits.shape[2]
    if isinstance(class_thresholds, Mapping):
        unknown = [label for label in class_thresholds if not 0 <= label < classes]
        if unknown:
            raise ValueError(f"class_thresholds: labels in [0, {classes}) expected, got {unknown[0]}")
        class_thresholds = [class_thresholds.get(label, math.nan) for label in range(classes)]
    if len(class_thresholds) != classes:
        raise ValueError(f"class_thresholds: one for each of the {classes} classes expected, got {len(class_thresholds)}")
    for label, threshold in enumerate(class_thresholds):
        if not (0 <= threshold <= 1 or math.isnan(threshold)):
            raise ValueError(f"class_thresholds: numbers in [0, 1], or NaN, expected, got {threshold} for label {label}")
    return logits.new_tensor([math.inf if math.isnan(t) else t for t in class_thresholds], dtype=torch.float32)


def class_scores(logits: Float[Tensor, "*b a c"], centerness: Float[Tensor, "*b a"] | None = None) -> Float[Tensor, "*b a c"]:
    """The score of each (anchor, class): ``sigmoid(logit)``, or ``sqrt(sigmoid(logit) sigmoid(centerness))``; float32, in [0, 1].

    Args:
        logits: (..., a, C), before the sigmoid.
        centerness: (..., a), before the sigmoid, where a detector says it.

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
        wanted = level > threshold if cuts is None else (level > threshold) & (level >= cuts)
        above = wanted.reshape(-1).nonzero()[:, 0]
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


def _check_options(score_threshold: float, nms_threshold: float, top_k_per_level: int, max_detections: int) -> None:
    if not 0 <= score_threshold < 1:
        raise ValueError(f"score_threshold: a number in [0, 1) expected, got {score_threshold}")
    if not 0 <= nms_threshold <= 1:
        raise ValueError(f"nms_threshold: a number in [0, 1] expected, got {nms_threshold}")
    for name, value in (("top_k_per_level", top_k_per_level), ("max_detections", max_detections)):
        if value < 1:
            raise ValueError(f"{name}: a number >= 1 expected, got {value}")


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
