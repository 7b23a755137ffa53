"""AP, optimal LRP and score-IoU correlation of a data set: one call on columns, or image by image while a detector runs."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch.distributed as dist
from jaxtyping import Float, Int

from ..coco.columns import DetectionColumns, GroundTruth, read_ground_truth
from ._arrays import Values, as_array, mean_of_defined
from .average_precision import AveragePrecision, average_precision
from .correlation import score_iou_correlation
from .lrp import optimal_lrp_per_class
from .matching import Matches, match_detections


def evaluate(ground_truth: GroundTruth, results: DetectionColumns, *, tau: float = 0.5) -> dict[str, Any]:
    """All numbers of a data set's detections.

    ``AP`` as COCO; ``oLRP`` and its parts are means over classes, each over the classes where it is defined (so the mean oLRP does not
    follow from the mean parts); ``rho`` is Pearson's correlation of score and IoU of true positives.

    Args:
        ground_truth: the annotations, e.g. from :func:`lossbox.metrics.read_ground_truth`.
        results: the detections, e.g. from :func:`lossbox.metrics.read_results`; there may be none.
        tau: IoU from which a detection is right, for oLRP and rho, in (0, 1).

    Returns:
        ``AP``, ``AP50``, ``AP75``, ``AP90``, ``APs``, ``APm``, ``APl``, ``AR1``, ``AR10``, ``AR100``, ``ARs``, ``ARm``, ``ARl``, ``oLRP``,
        ``oLRP_localization``, ``oLRP_false_positive``, ``oLRP_false_negative``, ``rho``: numbers, NaN where undefined. ``per_class``: for
        each category a dict of ``id``, ``name``, ``AP``, ``AP50``, ``oLRP``, ``localization``, ``false_positive``, ``false_negative``,
        ``threshold`` (the score at which to cut this class) and ``num_ground_truth``.

    Raises:
        ValueError: ``tau`` out of (0, 1).
        ImportError: hotcoco is not installed.

    Source:
        Lin et al., Microsoft COCO, ECCV 2014; Oksuz et al., Localization Recall Precision, ECCV 2018.

    Example:
        >>> truth = read_ground_truth({"images": [{"id": 7}], "categories": [{"id": 3, "name": "cup"}], "annotations": [
        ...     {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10]}]})
        >>> found = DetectionColumns(np.array([0]), np.array([0]), np.array([[0., 0., 10., 8.]]), np.array([0.9]))
        >>> numbers = evaluate(truth, found)
        >>> round(numbers["AP"], 6), round(numbers["oLRP"], 6), numbers["per_class"][0]["threshold"]
        (0.7, 0.4, 0.9)
    """
    if not 0 < tau < 1:
        raise ValueError(f"tau must be in (0, 1), got {tau}")
    ap = average_precision(ground_truth, results)
    matches = match_detections(ground_truth, results, iou_threshold=tau)
    return numbers_of(ground_truth, ap, matches, tau=tau)


def numbers_of(ground_truth: GroundTruth, ap: AveragePrecision, matches: Matches, *, tau: float) -> dict[str, Any]:
    """What :func:`evaluate` returns, from parts that are there already: for those who draw or print them too.

    Args:
        ground_truth: the annotations.
        ap: from :func:`lossbox.metrics.average_precision`.
        matches: from :func:`lossbox.metrics.match_detections` with ``iou_threshold=tau``.
        tau: IoU from which a detection is right, in (0, 1).

    Returns:
        See :func:`evaluate`.

    Raises:
        ValueError: ``tau`` is above the IoU that was matched at.

    Source:
        See :func:`evaluate`.

    Example:
        >>> truth = read_ground_truth({"images": [{"id": 7}], "categories": [{"id": 3, "name": "cup"}], "annotations": [
        ...     {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10]}]})
        >>> found = DetectionColumns(np.array([0]), np.array([0]), np.array([[0., 0., 10., 8.]]), np.array([0.9]))
        >>> matches = match_detections(truth, found, iou_threshold=0.75)
        >>> round(numbers_of(truth, average_precision(truth, found), matches, tau=0.75)["oLRP"], 6)
        0.8
    """
    optima = optimal_lrp_per_class(matches, tau=tau)
    per_class = [
        {
            "id": int(ground_truth.category_ids[index]),
            "name": ground_truth.category_names[index],
            "AP": float(ap.per_class["AP"][index]),
            "AP50": float(ap.per_class["AP50"][index]),
            "oLRP": optimum.olrp,
            "localization": optimum.localization,
            "false_positive": optimum.false_positive,
            "false_negative": optimum.false_negative,
            "threshold": optimum.threshold,
            "num_ground_truth": int(matches.num_ground_truth[index]),
        }
        for index, optimum in enumerate(optima)
    ]
    return ap.numbers | {
        "oLRP": mean_of_defined(optimum.olrp for optimum in optima),
        "oLRP_localization": mean_of_defined(optimum.localization for optimum in optima),
        "oLRP_false_positive": mean_of_defined(optimum.false_positive for optimum in optima),
        "oLRP_false_negative": mean_of_defined(optimum.false_negative for optimum in optima),
        "rho": score_iou_correlation(matches),
        "per_class": per_class,
    }


def to_json(numbers: Mapping[str, Any], *, indent: int | None = 2) -> str:
    """The numbers of :func:`evaluate` as strict JSON: what is undefined becomes null. A list of numbers has as few lines as hold it.

    Args:
        numbers: nested dicts and lists of numbers and text.
        indent: spaces a level; None for one line.

    Returns:
        JSON text.

    Example:
        >>> to_json({"AP": 0.5, "APl": float("nan")}, indent=None)
        '{"AP": 0.5, "APl": null}'
        >>> print(to_json({"seeds": [0, 1, 2]}))
        {
          "seeds": [0, 1, 2]
        }
    """
    return NUMBERS.sub(_in_few_lines, json.dumps(_nan_as_none(numbers), indent=indent, allow_nan=False))


NUMBERS = re.compile(r'\[(\n +)([^]["{}]+?)(\n *\])')
"""A list of numbers as ``json.dumps`` indents it, one a line. A text holds no line break in JSON, so that none looks like one."""

WIDTH = 120
"""Characters of a line of numbers."""


def _in_few_lines(found: re.Match[str]) -> str:
    begin, numbers, end = found.groups()
    lines = textwrap.wrap(" ".join(numbers.split()), WIDTH, break_on_hyphens=False)
    return f"[{lines[0]}]" if len(lines) == 1 else "[" + "".join(begin + line for line in lines) + end


def _nan_as_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _nan_as_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nan_as_none(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@runtime_checkable
class FoundInImage(Protocol):
    """What a detector says about one image, as :class:`lossbox.records.Detections` does; tensors or arrays."""

    @property
    def boxes(self) -> Values: ...
    @property
    def scores(self) -> Values: ...
    @property
    def labels(self) -> Values: ...


class _Image(NamedTuple):
    """One image's detections on the CPU."""

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]


class Evaluator:
    """Collects detections image by image, then gives the numbers of :func:`evaluate`.

    An image is given once between two calls of :meth:`reset`. Giving it again is harmless if the detections are the same and an error if
    they differ. Under ``torch.distributed``, :meth:`compute`, :meth:`columns` and :meth:`results` gather the images of all processes (all
    must call them), and of an image that several processes have seen, as ``DistributedSampler`` pads, the lowest rank's detections count.

    Args:
        ground_truth: path of a COCO file, its content, or its columns.
        tau: IoU from which a detection is right, for oLRP and rho, in (0, 1).

    Raises:
        ValueError: see :func:`lossbox.metrics.read_ground_truth`; ``tau`` out of (0, 1).

    Source:
        See :func:`evaluate`.

    Example:
        >>> import torch
        >>> from lossbox.records import Detections
        >>> evaluator = Evaluator({"images": [{"id": 7}], "categories": [{"id": 3, "name": "cup"}], "annotations": [
        ...     {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20]}]})
        >>> evaluator.update([7], [Detections(torch.tensor([[10., 10., 30., 30.]]), torch.tensor([0.75]), torch.tensor([0]))])
        >>> round(evaluator.compute()["AP"], 6)
        1.0
        >>> evaluator.results()
        [{'image_id': 7, 'category_id': 3, 'bbox': [10.0, 10.0, 20.0, 20.0], 'score': 0.75}]
    """

    def __init__(self, ground_truth: str | Path | Mapping[str, Any] | GroundTruth, *, tau: float = 0.5) -> None:
        if not 0 < tau < 1:
            raise ValueError(f"tau must be in (0, 1), got {tau}")
        self.ground_truth = ground_truth if isinstance(ground_truth, GroundTruth) else read_ground_truth(ground_truth)
        self.tau = tau
        self._known = frozenset(self.ground_truth.image_ids.tolist())
        self._images: dict[int, _Image] = {}

    def reset(self) -> None:
        """Forget all detections, before another pass over the data."""
        self._images = {}

    def update(self, image_ids: Iterable[int], detections: Sequence[FoundInImage]) -> None:
        """Add the detections of some images.

        Args:
            image_ids: COCO ids, one per image.
            detections: one per image: boxes (n, 4) ``x1 y1 x2 y2`` in pixels of the original image, scores (n,) in [0, 1], labels (n,):
                index of the category among all categories by ascending id.

        Raises:
            ValueError: not one record per image; an unknown image id; one that was given with other detections; wrong shapes; NaN,
                infinity or a negative size in a box; a score that is NaN or out of [0, 1]; a label out of range.
        """
        ids = [int(image_id) for image_id in image_ids]
        if len(ids) != len(detections):
            raise ValueError(f"detections: one record for each image id expected, got {len(detections)} for {len(ids)} ids")
        # All are checked before any is kept: a caught error leaves the evaluator as it was.
        checked: dict[int, _Image] = {}
        for image_id, found in zip(ids, detections, strict=True):
            if image_id not in self._known:
                raise ValueError(f"image_ids: {image_id} is not the id of an image of the ground truth")
            image = _checked_image(found, image_id, num_categories=len(self.ground_truth.category_ids))
            earlier = checked.get(image_id, self._images.get(image_id))
            if earlier is not None and not all(map(np.array_equal, earlier, image)):
                raise ValueError(f"image_ids: {image_id} was already given with other detections; call reset() before a new pass")
            checked[image_id] = image
        self._images |= checked

    def compute(self, *, seen_only: bool = False) -> dict[str, Any]:
        """The numbers of :func:`evaluate`.

        Args:
            seen_only: evaluate only the images that were given, as after a pass over a part of the data; otherwise an image that was
                never given counts as one in which nothing was found.

        Returns:
            See :func:`evaluate`; equal on all processes.
        """
        truth, found = self.columns(seen_only=seen_only)
        return evaluate(truth, found, tau=self.tau)

    def columns(self, *, seen_only: bool = False) -> tuple[GroundTruth, DetectionColumns]:
        """The annotations and all detections as columns: what the other functions of this package take.

        Args:
            seen_only: only the images that were given.

        Returns:
            The ground truth and the detections in it, by image; equal on all processes.
        """
        images = self._gathered()
        truth = self.ground_truth
        if seen_only:
            truth = truth.of_images(np.isin(truth.image_ids, list(images)))
        columns = [(index, images[image_id]) for index, image_id in enumerate(truth.image_ids.tolist()) if image_id in images]
        boxes = np.concatenate([np.zeros((0, 4)), *(image.boxes for _, image in columns)])
        boxes[:, 2:] -= boxes[:, :2]
        found = DetectionColumns(
            image=np.repeat(np.array([index for index, _ in columns], dtype=np.int64), [len(image.scores) for _, image in columns]),
            category=np.concatenate([np.zeros(0, dtype=np.int64), *(image.labels for _, image in columns)]),
            boxes=boxes,
            scores=np.concatenate([np.zeros(0), *(image.scores for _, image in columns)]),
        )
        return truth, found

    def results(self) -> list[dict[str, Any]]:
        """All detections as COCO's results list, by image id: what pycocotools' ``loadRes`` and ``lossbox evaluate`` read.

        Returns:
            A dict of ``image_id``, ``category_id``, ``bbox`` (``x y width height``) and ``score`` for each detection.
        """
        categories = self.ground_truth.category_ids.tolist()
        return [
            {"image_id": image_id, "category_id": categories[label], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            for image_id, image in sorted(self._gathered().items())
            for (x1, y1, x2, y2), score, label in zip(*(column.tolist() for column in image), strict=True)
        ]

    def _gathered(self) -> dict[int, _Image]:
        """The images of all processes; where two have the same, the lowest rank's."""
        if not (dist.is_available() and dist.is_initialized()):
            return self._images
        of_processes: list[dict[int, _Image]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(of_processes, self._images)
        merged: dict[int, _Image] = {}
        for images in reversed(of_processes):
            merged |= images
        return merged


def _checked_image(found: FoundInImage, image_id: int, *, num_categories: int) -> _Image:
    boxes, scores, labels = as_array(found.boxes), as_array(found.scores), as_array(found.labels)
    where = f"detections of image {image_id}"
    count = len(scores) if scores.ndim == 1 else -1
    if scores.ndim != 1 or labels.shape != (count,) or boxes.shape != (count, 4):
        raise ValueError(
            f"{where}: boxes (n, 4), scores (n,) and labels (n,) expected, got {boxes.shape}, {scores.shape} and {labels.shape}"
        )
    if count and labels.dtype.kind not in "iu":
        raise ValueError(f"{where}: labels must be integers, got {labels.dtype}")
    boxes, scores = boxes.astype(np.float64), scores.astype(np.float64)
    rules = [
        ("boxes must be finite", ~np.isfinite(boxes).all(axis=1), boxes),
        ("boxes must have x2 >= x1 and y2 >= y1", (boxes[:, 2:] < boxes[:, :2]).any(axis=1), boxes),
        ("scores must be in [0, 1]", ~((scores >= 0) & (scores <= 1)), scores),
        (f"labels must be in [0, {num_categories}), the number of categories", (labels < 0) | (labels >= num_categories), labels),
    ]
    for rule, broken, values in rules:
        if broken.any():
            first = int(broken.argmax())
            raise ValueError(f"{where}: {rule}, got {values[first].tolist()} at index {first} ({int(broken.sum())} of {count})")
    return _Image(boxes, scores, labels.astype(np.int64))
