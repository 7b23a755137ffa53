"""Does a score say how good the box is: the localization-aware calibration error, and a map of scores that mends it.

A calibrated score of 0.7 means: boxes of this score have IoU 0.7 with an object on average, a false positive counted as 0. Measuring and
applying need numpy only; fitting needs scikit-learn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from ._arrays import Values, as_array, mean_of_defined
from .matching import Matches

ANY_OVERLAP = float(np.finfo(np.float64).tiny)
"""The ``iou_threshold`` to match with: the error's tau = 0, every overlap is one."""

Method = Literal["isotonic", "platt"]


class CalibrationError(NamedTuple):
    """Localization-aware calibration errors; the means leave out the classes without a number, and are NaN where all lack one.

    Attributes:
        laece: mean over classes, in [0, 1]; 0 is calibrated.
        laace: mean over classes, in [0, 1].
        lamce: mean over classes, in [0, 1].
        laece_per_class: (C,), NaN for a class without annotations or without detections.
        laace_per_class: (C,), likewise.
        lamce_per_class: (C,), likewise.
    """

    laece: float
    laace: float
    lamce: float
    laece_per_class: Float[np.ndarray, " c"]
    laace_per_class: Float[np.ndarray, " c"]
    lamce_per_class: Float[np.ndarray, " c"]


def localization_aware_calibration_error(matches: Matches, *, bins: int = 25) -> CalibrationError:
    """How far scores are from the IoU that detections have: LaECE_0, and two that tell the same of single detections and single bins.

    With D the detections of a class and D_j those whose score lies in the j-th of J equal bins of [0, 1]::

        LaECE = sum_j |D_j| / |D| * |mean score of D_j - precision of D_j * mean IoU of its true positives|
        LaACE = mean over D of |score - IoU|            the same with a bin for each detection
        LaMCE = max_j |mean score of D_j - precision of D_j * mean IoU of its true positives|

    Precision times mean IoU is the mean IoU of all of D_j, 0 for a false positive. A bin holds its upper edge, the first both edges.

    Args:
        matches: from ``match_detections(ground_truth, results, iou_threshold=ANY_OVERLAP)``; with a higher threshold tau it is
            LaECE_tau, for which a box below tau is as bad as one beside the object. Crowds and what they hide do not count.
        bins: J.

    Returns:
        Means over classes and the numbers of each class.

    Raises:
        ValueError: ``bins`` < 1, or a score is not in [0, 1].

    Source:
        Kuzucu et al., On Calibration of Object Detectors, ECCV 2024, arXiv 2405.20459: LaECE_0 and LaACE_0 with J = 25 and tau = 0; the
        error is by Oksuz et al., CVPR 2023. Two differences to the authors' program: there, a box that touches nothing may use up an
        annotation at IoU 0, which is then missing for a worse-scored box that overlaps it; and an error of exactly 0 is left out of the
        mean. LaMCE stands to LaECE as the maximum calibration error stands to the expected one.

    Example:
        A cup found with IoU 0.8 and score 0.9, and a false alarm of score 0.3.

        >>> two = np.array([0, 1])
        >>> matches = Matches(two, two * 0, np.array([0.9, 0.3]), np.array([0.8, 0.0]), np.array([0, -1]), two < 0, two < 1,
        ...                   num_ground_truth=np.array([1]))
        >>> [round(error, 3) for error in localization_aware_calibration_error(matches)[:3]]
        [0.2, 0.2, 0.3]
    """
    if bins < 1:
        raise ValueError(f"bins: a number >= 1 expected, got {bins}")
    classes = len(matches.num_ground_truth)
    counts = ~matches.ignored
    category, score = matches.category[counts], matches.scores[counts]
    outside = ~((score >= 0) & (score <= 1))
    if outside.any():
        raise ValueError(f"matches.scores: numbers in [0, 1] expected, got {score[outside][0]}")
    gap = score - np.where(matches.is_tp, matches.ious, 0.0)[counts]
    place = np.maximum(np.searchsorted(np.linspace(0, 1, bins + 1), score, side="left") - 1, 0)
    # |sum of gaps| of a bin is |D_j| |mean score - mean IoU|
    sums = np.abs(np.bincount(category * bins + place, weights=gap, minlength=classes * bins)).reshape(classes, bins)
    sizes = np.bincount(category * bins + place, minlength=classes * bins).reshape(classes, bins)
    single = np.bincount(category, weights=np.abs(gap), minlength=classes)
    total = sizes.sum(1)
    defined = (total > 0) & (matches.num_ground_truth > 0)
    largest = (sums / np.maximum(sizes, 1)).max(1)
    laece, laace, lamce = (
        np.where(defined, values, np.nan) for values in (sums.sum(1) / np.maximum(total, 1), single / np.maximum(total, 1), largest)
    )
    return CalibrationError(mean_of_defined(laece), mean_of_defined(laace), mean_of_defined(lamce), laece, laace, lamce)


@dataclass(frozen=True)
class IsotonicCurve:
    """A non-decreasing map through breakpoints: straight in between, constant outside.

    Attributes:
        scores: ascending.
        calibrated: what each of them becomes, in [0, 1], not descending.
    """

    scores: tuple[float, ...]
    calibrated: tuple[float, ...]

    def __post_init__(self) -> None:
        x, y = np.array(self.scores, dtype=np.float64), np.array(self.calibrated, dtype=np.float64)
        rising = len(x) == len(y) > 0 and bool(np.isfinite(x).all()) and bool((np.diff(x) > 0).all()) and bool((np.diff(y) >= 0).all())
        if not rising or not (y[0] >= 0 and y[-1] <= 1):
            raise ValueError("scores and calibrated: as many ascending scores as non-descending values in [0, 1] expected, at least one")

    def __call__(self, scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        mapped: Float[np.ndarray, " n"] = np.interp(scores, self.scores, self.calibrated)
        return mapped


@dataclass(frozen=True)
class PlattCurve:
    """``sigmoid(a logit(score) + b)``, a >= 0."""

    a: float
    b: float

    def __post_init__(self) -> None:
        if not (0 <= self.a < math.inf and math.isfinite(self.b)):
            raise ValueError(f"a and b: finite numbers, a >= 0, expected, got {self.a} and {self.b}")

    def __call__(self, scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        mapped: Float[np.ndarray, " n"] = 0.5 * (1 + np.tanh(0.5 * (self.a * _logit(scores) + self.b)))
        return mapped


CURVES: dict[str, type[IsotonicCurve] | type[PlattCurve]] = {"isotonic": IsotonicCurve, "platt": PlattCurve}


@dataclass(frozen=True)
class Calibration:
    """Maps the scores of each class to the IoU that one may expect of them. It is numbers only, applied with numpy.

    No map descends, so that in a class a better score stays at least as good: AP changes only by ties that an isotonic map makes.

    Attributes:
        method: ``"isotonic"`` or ``"platt"``.
        curves: one per class, in the order of the labels.
        category_ids: the COCO id of each class.

    Example:
        >>> halved = Calibration("isotonic", (IsotonicCurve((0.0, 1.0), (0.0, 0.5)),), (3,))
        >>> halved([0.2, 1.0], [0, 0])
        array([0.1, 0.5])
    """

    method: str
    curves: tuple[IsotonicCurve | PlattCurve, ...]
    category_ids: tuple[int, ...]

    def __call__(self, scores: Values, labels: Values) -> Float[np.ndarray, " n"]:
        """Calibrated scores.

        Args:
            scores: (n,) in [0, 1].
            labels: (n,) index of the class of each.

        Returns:
            (n,) float64 in [0, 1].

        Raises:
            ValueError: a label is not that of a class.
        """
        score, label = as_array(scores).astype(np.float64), as_array(labels).astype(np.int64)
        if len(label) and (label.min() < 0 or label.max() >= len(self.curves)):
            raise ValueError(f"labels: whole numbers in [0, {len(self.curves)}) expected, got {label.min()} to {label.max()}")
        mapped = np.empty_like(score)
        for one in np.unique(label).tolist():
            of_class = label == one
            mapped[of_class] = self.curves[one](score[of_class])
        return mapped

    def to_dict(self) -> dict[str, Any]:
        """The content of a calibration file: plain numbers."""
        classes = [{"id": id_, **vars(curve)} for id_, curve in zip(self.category_ids, self.curves, strict=True)]
        return {"method": self.method, "classes": classes}

    @classmethod
    def read(cls, path: str | Path) -> Calibration:
        """The calibration in a JSON file, as ``lossbox calibrate`` writes it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds something else; names the class and the rule.
        """
        try:
            content = json.loads(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: not JSON: {error}") from error
        method = content.get("method") if isinstance(content, Mapping) else None
        if method not in CURVES or not isinstance(content.get("classes"), list):
            raise ValueError(f"{path}: an object with a 'method' ({' or '.join(CURVES)}) and a list 'classes' expected")
        make: Any = CURVES[method]
        names = [field.name for field in fields(make)]
        curves, ids = [], []
        for index, entry in enumerate(content["classes"]):
            try:
                values = [tuple(entry[name]) if isinstance(entry[name], list) else entry[name] for name in names]
                curves.append(make(*values))
                ids.append(int(entry["id"]))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}: classes[{index}]: 'id', {', '.join(map(repr, names))} expected: {error}") from error
        return cls(method, tuple(curves), tuple(ids))


def fit_calibration(
    matches: Matches, category_ids: Sequence[int], *, method: Method = "isotonic", per_class: bool = True, least: int = 20
) -> Calibration:
    """The maps from score to expected IoU, fitted on matched detections by scikit-learn.

    Isotonic: the non-decreasing map of least squares. Platt: ``sigmoid(a logit(score) + b)`` of least cross-entropy with the IoU as target.
    Fit on one split and judge on another.

    Args:
        matches: from ``match_detections(ground_truth, results, iou_threshold=ANY_OVERLAP)``.
        category_ids: the COCO id of each class.
        method: ``"isotonic"`` or ``"platt"``.
        per_class: a map for each class, else one for all.
        least: a class with fewer detections takes the map of all classes together.

    Returns:
        A map for every class.

    Raises:
        ValueError: no detection that counts, another number of ids than classes, or an unknown method.
        ImportError: scikit-learn is not installed.

    Source:
        Kuzucu et al., On Calibration of Object Detectors, ECCV 2024, arXiv 2405.20459: post-hoc calibrators for detection, with the IoU
        as their target.

    Example:
        >>> n = np.arange(100)
        >>> ious = np.where(n < 50, 0.8, 0.0)
        >>> matches = Matches(n, n * 0, 1 - n / 100, ious, n, n < 0, n < 50, num_ground_truth=np.array([50]))
        >>> fit_calibration(matches, [3])([0.9, 0.1], [0, 0])
        array([0.8, 0. ])
    """
    if method not in CURVES:
        raise ValueError(f"method: {' or '.join(CURVES)} expected, got {method!r}")
    classes = len(matches.num_ground_truth)
    if len(category_ids) != classes:
        raise ValueError(f"category_ids: one for each of the {classes} classes expected, got {len(category_ids)}")
    counts = ~matches.ignored
    category, scores = matches.category[counts], matches.scores[counts]
    ious = np.where(matches.is_tp, matches.ious, 0.0)[counts]
    if not len(scores):
        raise ValueError("matches: at least one detection expected to fit a calibration on, got none")
    fit = _fit_isotonic if method == "isotonic" else _fit_platt
    of_all = fit(scores, ious)
    curves = []
    for label in range(classes):
        of_class = category == label
        curves.append(fit(scores[of_class], ious[of_class]) if per_class and of_class.sum() >= max(least, 1) else of_all)
    return Calibration(method, tuple(curves), tuple(map(int, category_ids)))


def _fit_isotonic(scores: Float[np.ndarray, " n"], ious: Float[np.ndarray, " n"]) -> IsotonicCurve:
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError as error:
        raise ImportError("fitting a calibration needs scikit-learn: pip install 'lossbox[train]'") from error
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, ious)
    return IsotonicCurve(tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist()))


def _fit_platt(scores: Float[np.ndarray, " n"], ious: Float[np.ndarray, " n"]) -> PlattCurve:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError("fitting a calibration needs scikit-learn: pip install 'lossbox[train]'") from error
    logits, mean = _logit(scores), ious.mean()
    constant = PlattCurve(0.0, float(_logit(mean)))
    if np.ptp(logits) == 0 or not 0 < mean < 1:
        return constant
    # Cross-entropy with a target between 0 and 1: each detection is a positive of weight IoU and a negative of weight 1 - IoU.
    outcome = np.repeat([1, 0], len(scores))
    fitted = LogisticRegression(C=np.inf, max_iter=1000).fit(
        np.tile(logits, 2)[:, None], outcome, sample_weight=np.concatenate([ious, 1 - ious])
    )
    # A map that falls would turn the order of the detections around; the best one that does not is constant.
    return PlattCurve(float(fitted.coef_[0, 0]), float(fitted.intercept_[0])) if fitted.coef_[0, 0] > 0 else constant


def _logit(scores: Any) -> Any:
    """``log(p / (1 - p))``, of scores of 0 and 1 a large finite number."""
    p = np.clip(scores, 1e-12, 1 - 1e-12)
    return np.log(p) - np.log1p(-p)
