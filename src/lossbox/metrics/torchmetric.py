"""Optimal LRP as a torchmetrics metric; torchmetrics is not part of the bare install, so ``lossbox.metrics`` does not import this file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..coco.columns import DetectionColumns, GroundTruth
from ._arrays import mean_of_defined
from .lrp import optimal_lrp_per_class
from .matching import match_detections

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError("lossbox.metrics.torchmetric needs torchmetrics: pip install 'lossbox[train]'") from error

_OF_PREDICTION, _OF_TARGET = 6, 7  # numbers per box: x1 y1 x2 y2 label score, and x1 y1 x2 y2 label crowd area


class OptimalLRP(Metric):
    """Optimal LRP error of detections in torchmetrics' format, over all images of all processes.

    ``oLRP = min_s LRP(s)`` for each class that has ground truth, then the mean over classes; see :func:`lossbox.metrics.optimal_lrp`.

    Args:
        tau: IoU from which a detection is right, in (0, 1).
        max_detections: detections of one image and class that are looked at, best first.
        **kwargs: for ``torchmetrics.Metric``.

    Raises:
        ValueError: ``tau`` out of (0, 1).

    Source:
        Oksuz et al., Localization Recall Precision, ECCV 2018; arXiv 2011.10772.

    Example:
        >>> metric = OptimalLRP()
        >>> found = {"boxes": torch.tensor([[0., 0., 10., 8.]]), "scores": torch.tensor([0.9]), "labels": torch.tensor([3])}
        >>> truth = {"boxes": torch.tensor([[0., 0., 10., 10.]]), "labels": torch.tensor([3])}
        >>> metric.update([found], [truth])
        >>> numbers = metric.compute()
        >>> round(numbers["olrp"].item(), 6), numbers["classes"].item(), numbers["thresholds"].item()
        (0.4, 3, 0.8999999761581421)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    # Boxes of all images one after the other, flat, and how many each image has. All states are flat and of one dtype, since that is
    # what torchmetrics gathers from a process that has seen no image.
    predictions: list[Tensor]
    prediction_counts: list[Tensor]
    targets: list[Tensor]
    target_counts: list[Tensor]

    def __init__(self, *, tau: float = 0.5, max_detections: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < tau < 1:
            raise ValueError(f"tau must be in (0, 1), got {tau}")
        self.tau = tau
        self.max_detections = max_detections
        for name in ("predictions", "prediction_counts", "targets", "target_counts"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.set_dtype(torch.float64)

    def update(self, preds: Sequence[dict[str, Tensor]], target: Sequence[dict[str, Tensor]]) -> None:
        """Add the images of one batch.

        Args:
            preds: a dict per image: ``boxes`` (n, 4) ``x1 y1 x2 y2`` in pixels, ``scores`` (n,) in [0, 1], ``labels`` (n,) integers.
            target: a dict per image: ``boxes`` (m, 4), ``labels`` (m,), optional ``iscrowd`` (m,) and ``area`` (m,) in square pixels.

        Raises:
            ValueError: ``preds`` and ``target`` differ in length; a key is missing; wrong shapes; NaN, infinity or a negative size in a
                box; a score that is NaN or out of [0, 1].
        """
        if len(preds) != len(target):
            raise ValueError(f"preds and target: one dict per image expected in both, got {len(preds)} and {len(target)}")
        found = [_rows(image, ("scores",), f"preds[{index}]") for index, image in enumerate(preds)]
        for index, rows in enumerate(found):
            if not bool(((rows[:, 5] >= 0) & (rows[:, 5] <= 1)).all()):
                raise ValueError(f"preds[{index}]: scores must be in [0, 1]")
        true = []
        for index, image in enumerate(target):
            rows = _rows(image, (), f"target[{index}]")
            filled = {"iscrowd": torch.zeros(len(rows)), "area": (rows[:, 2:4] - rows[:, :2]).prod(-1)} | dict(image)
            true.append(_rows(filled, ("iscrowd", "area"), f"target[{index}]"))
        for values, counts, images in (
            (self.predictions, self.prediction_counts, found),
            (self.targets, self.target_counts, true),
        ):
            values.extend(rows.to(self.device, self.dtype).flatten() for rows in images)
            counts.append(torch.tensor([len(rows) for rows in images], device=self.device, dtype=self.dtype))

    def compute(self) -> dict[str, Tensor]:
        """The error of all images.

        Returns:
            ``olrp``, ``localization``, ``false_positive``, ``false_negative``: means over the classes where each is defined, NaN if there
            is none. ``classes``: (C,) every label that was seen, ascending. ``thresholds``, ``olrp_per_class``,
            ``localization_per_class``, ``false_positive_per_class``, ``false_negative_per_class``: (C,), NaN where undefined.
            Of one class alone they have no dimension: torchmetrics drops it from every tensor of one number.
        """
        found, found_image = _table(self.predictions, self.prediction_counts, _OF_PREDICTION)
        true, true_image = _table(self.targets, self.target_counts, _OF_TARGET)
        labels = np.unique(np.concatenate([found[:, 4], true[:, 4]]).astype(np.int64))
        truth = GroundTruth(
            image_ids=np.arange(max(found_image.max(initial=-1), true_image.max(initial=-1)) + 1),
            category_ids=labels,
            category_names=tuple(map(str, labels)),
            image=true_image,
            category=np.searchsorted(labels, true[:, 4]),
            boxes=_width_height(true),
            areas=true[:, 6],
            crowd=true[:, 5] != 0,
        )
        results = DetectionColumns(found_image, np.searchsorted(labels, found[:, 4]), _width_height(found), found[:, 5])
        matches = match_detections(truth, results, iou_threshold=self.tau, max_detections=self.max_detections)
        optima = optimal_lrp_per_class(matches, tau=self.tau)

        def of_classes(name: str) -> Tensor:
            return torch.tensor([getattr(optimum, name) for optimum in optima], dtype=self.dtype, device=self.device)

        names = ("olrp", "localization", "false_positive", "false_negative")
        means = {name: torch.tensor(mean_of_defined(of_classes(name).tolist()), dtype=self.dtype, device=self.device) for name in names}
        per_class = {f"{name}_per_class": of_classes(name) for name in names}
        return means | {"thresholds": of_classes("threshold"), "classes": torch.from_numpy(labels).to(self.device)} | per_class


def _rows(image: dict[str, Any], more: tuple[str, ...], where: str) -> Tensor:
    """(n, 5 + len(more)) of one image: box, label, and the named columns."""
    for name in ("boxes", "labels", *more):
        if not isinstance(image.get(name), Tensor):
            raise ValueError(f"{where}: '{name}' must be a tensor, got {type(image[name]).__name__ if name in image else 'nothing'}")
    boxes, columns = image["boxes"].detach().cpu(), [image[name].detach().cpu() for name in ("labels", *more)]
    count = len(columns[0]) if columns[0].ndim == 1 else -1
    # An empty image's boxes are often written as an empty vector.
    if boxes.numel() == 0 and count == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.shape != (count, 4) or any(column.shape != (count,) for column in columns):
        shapes = ", ".join(str(tuple(column.shape)) for column in (boxes, *columns))
        raise ValueError(f"{where}: boxes (n, 4) and one value per box in labels, {', '.join(more)} expected, got shapes {shapes}")
    if count and columns[0].is_floating_point():
        raise ValueError(f"{where}: labels must be integers, got {columns[0].dtype}")
    rows = torch.cat([boxes.double(), *(column.double()[:, None] for column in columns)], 1)
    if not bool(rows[:, :4].isfinite().all()):
        raise ValueError(f"{where}: boxes must be finite")
    if bool((rows[:, 2:4] < rows[:, :2]).any()):
        raise ValueError(f"{where}: boxes must have x2 >= x1 and y2 >= y1")
    return rows


def _table(values: list[Tensor] | Tensor, counts: list[Tensor] | Tensor, width: int) -> tuple[Any, Any]:
    """All images' rows and the image of each; a state is a list before and a tensor after torchmetrics has gathered it."""
    rows, lengths = (
        np.concatenate([np.zeros(0), *(part.cpu().double().numpy() for part in (parts if isinstance(parts, list) else [parts]))])
        for parts in (values, counts)
    )
    return rows.reshape(-1, width), np.repeat(np.arange(len(lengths)), lengths.astype(np.int64))


def _width_height(rows: Any) -> Any:
    return np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], 1)
