"""An evaluation as images: precision against recall, LRP against the score threshold, IoU against score, and how far scores can be read
as precision; and the bounds of re-scoring as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..metrics import AveragePrecision, LRPCurve, Matches, lrp_curve, optimal_lrp_per_class, pearson, score_iou_correlation
from ..metrics.lrp import SAME_LRP
from ._canvas import plain, pyplot, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 10
"""Up to so many classes, each has a color and a line in the legend; of more, the three best and the three worst."""

POINTS = 4000
"""Up to so many true positives are drawn as points, more as a density."""

SCORE_BINS = 20
"""Bins of the reliability diagram, equally wide on [0, 1]."""

_PR_IOUS = {"0.5": 0, "0.6": 2, "0.7": 4, "0.8": 6, "0.9": 8}  # where these stand among COCO's ten IoU thresholds
_RECALLS = np.linspace(0.0, 1.0, 101)
_PARTS = {
    "localization": "Loc: mean 1 - IoU of the true positives",
    "false_positive": "FP: 1 - precision",
    "false_negative": "FN: 1 - recall",
}


def draw_evaluation(folder: Path, ap: AveragePrecision, matches: Matches, class_names: Sequence[str], *, tau: float = 0.5) -> list[Path]:
    """Draws the four images of an evaluation.

    Args:
        folder: is made where it does not exist; ``precision_recall.png``, ``lrp.png``, ``score_iou.png`` and ``reliability.png`` go there.
        ap: from :func:`lossbox.metrics.average_precision`.
        matches: from :func:`lossbox.metrics.match_detections` with ``iou_threshold=tau``.
        class_names: in the order of the classes of both.
        tau: IoU from which a detection is right, in (0, 1).

    Returns:
        The paths of the images.
    """
    return [
        draw_precision_recall(ap, class_names, folder / "precision_recall.png"),
        draw_lrp(matches, class_names, folder / "lrp.png", tau=tau),
        draw_score_iou(matches, class_names, folder / "score_iou.png", tau=tau),
        draw_reliability(matches, folder / "reliability.png", tau=tau),
    ]


def draw_precision_recall(ap: AveragePrecision, class_names: Sequence[str], path: Path) -> Path:
    """Draws precision against recall: the mean over classes at IoU 0.5, 0.6 ... 0.9; beside it each class at IoU 0.5."""
    with_truth = np.flatnonzero(~np.isnan(ap.precision[0, 0])).tolist()
    figure, panels = _panels(1 if len(with_truth) == 1 else 2)
    left = panels[0]
    for name, index in _PR_IOUS.items():
        if len(with_truth):
            mean = ap.precision[index][:, with_truth].mean(axis=1)
            left.plot(_RECALLS, mean, label=f"IoU {name}: AP {mean.mean():.3f}")
    left.set(title=_whose(with_truth, class_names))
    for right in panels[1:]:
        of_class = {index: ap.precision[0][:, index] for index in with_truth}
        labels = {index: f"{_text(class_names[index])}: AP50 {curve.mean():.3f}" for index, curve in of_class.items()}
        for index, style in _class_styles(labels, {index: float(-curve.mean()) for index, curve in of_class.items()}).items():
            right.plot(_RECALLS, of_class[index], **style)
        right.set(title="Each class at IoU 0.5")
    for panel in panels:
        panel.set(xlabel="recall", ylabel="precision (the best at that recall or above)", xlim=(0, 1), ylim=(0, 1.02))
    return _finish(figure, path, "no ground truth")


def draw_lrp(matches: Matches, class_names: Sequence[str], path: Path, *, tau: float = 0.5) -> Path:
    """Draws LRP against the score threshold: the mean over classes and its parts, and beside it each class; minima are marked.

    A class counts 1 at thresholds above its highest score, as LRP does where nothing is kept. A part is averaged over the classes where it
    is defined. The mean curve's minimum is that of one threshold for all classes; oLRP has one per class.
    """
    optima = optimal_lrp_per_class(matches, tau=tau)
    classes = [index for index, count in enumerate(matches.num_ground_truth.tolist()) if count]
    figure, panels = _panels(1 if len(classes) == 1 else 2)
    left = panels[0]
    curves = {index: lrp_curve(*matches.of_class(index), int(matches.num_ground_truth[index]), tau=tau) for index in classes}
    scores = np.concatenate([np.zeros(0), *(curve.thresholds for curve in curves.values())])
    if len(scores):
        # Every threshold would be a million; the optimum of each class is on the grid, so that no marker hangs in the air.
        best = [optima[index].threshold for index in classes if not np.isnan(optima[index].threshold)]
        grid = np.unique(np.concatenate([np.linspace(scores.min(), scores.max(), 1001), best]))
        on_grid = {index: _at_thresholds(curve, grid) for index, curve in curves.items()}
        mean = np.mean([curve.lrp for curve in on_grid.values()], axis=0)
        least = int(np.flatnonzero(mean <= mean.min() + SAME_LRP)[-1])  # of equally good thresholds the highest, as oLRP takes it
        left.plot(grid, mean, color="black", linewidth=2, label="LRP")
        for part, meaning in _PARTS.items():
            left.plot(grid, _defined_mean([getattr(curve, part) for curve in on_grid.values()]), linestyle="--", label=meaning)
        left.plot(grid[least], mean[least], "o", color="black", label=f"minimum {mean[least]:.3f} at the score {grid[least]:.3f}")
        olrp = {index: optima[index].olrp for index in classes}
        if len(classes) > 1:
            each = float(np.mean(list(olrp.values())))
            left.axhline(each, color="black", linestyle=":", label=f"oLRP {each:.3f}: each class at its own minimum")
        labels = {index: f"{_text(class_names[index])}: {olrp[index]:.3f} at {optima[index].threshold:.3f}" for index in classes}
        for right in panels[1:]:
            for index, style in _class_styles(labels, olrp).items():
                (line,) = right.plot(grid, on_grid[index].lrp, **style)
                right.plot(optima[index].threshold, olrp[index], "o", color=line.get_color(), alpha=line.get_alpha(), markersize=4)
            right.set(title="Each class, with its minimum: oLRP and the score to cut at")
    left.set(title=f"{_whose(classes, class_names)}, at IoU {tau:g}")
    for panel in panels:
        panel.set(xlabel="score threshold", ylabel="error (0 is perfect)", ylim=(0, 1.02))
    return _finish(figure, path, "nothing found" if classes else "no ground truth")


def draw_score_iou(matches: Matches, class_names: Sequence[str], path: Path, *, tau: float = 0.5) -> Path:
    """Draws the IoU of every true positive against its score, with Pearson's rho; as a density where there are more than ``POINTS``."""
    figure, (panel,) = _panels(1)
    right = matches.is_tp
    classes = np.unique(matches.category[right]).tolist()
    scores = {index: matches.scores[right & (matches.category == index)] for index in classes}
    ious = {index: matches.ious[right & (matches.category == index)] for index in classes}
    if right.sum() > POINTS:
        drawn = panel.hexbin(matches.scores[right], matches.ious[right], gridsize=60, bins="log", mincnt=1)
        panel.figure.colorbar(drawn, label="true positives")
    elif len(classes) > FEW:
        panel.plot(matches.scores[right], matches.ious[right], ".", alpha=0.5)
    else:
        for index in classes:
            rho = pearson(scores[index], ious[index])
            panel.plot(scores[index], ious[index], ".", alpha=0.6, label=f"{_text(class_names[index])}: {_rho(rho)}")
    mean = f"{_rho(score_iou_correlation(matches))}{', the mean over classes' if len(classes) > 1 else ''}"
    panel.set(title=f"{right.sum():,} true positives at IoU {tau:g}: {mean}", xlabel="score", ylabel="IoU", ylim=(tau - 0.02, 1.02))
    return _finish(figure, path, "no true positives")


def draw_reliability(matches: Matches, path: Path, *, tau: float = 0.5) -> Path:
    """Draws what a score is worth: precision, and precision times mean IoU, of the detections of each score bin, all classes together.

    A score that can be read as a probability lies on the diagonal. Below: how many detections there are in each bin.
    """
    figure, (top, bottom) = _panels(2, rows=(3, 1))
    counts = ~matches.ignored
    scores, right, ious = matches.scores[counts], matches.is_tp[counts], matches.ious[counts]
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, SCORE_BINS - 1)  # 1.0 belongs to the last bin

    def sums(weights: Float[np.ndarray, " d"]) -> Float[np.ndarray, " bins"]:
        return np.bincount(place, weights, minlength=SCORE_BINS)

    number, found = sums(np.ones(len(scores))), sums(right * 1.0)
    some = number > 0
    if some.any():
        score, precision, quality = (sums(values)[some] / number[some] for values in (scores, right * 1.0, right * ious))
        top.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="score = precision")
        top.plot(score, precision, marker="o", label=f"precision (IoU from {tau:g} on)")
        top.plot(score, quality, marker="s", label="precision x mean IoU of the true positives")
        width = 1 / SCORE_BINS
        middle = edges[:-1] + width / 2
        bottom.bar(middle, found, width * 0.9, label="true positives")
        bottom.bar(middle, number - found, width * 0.9, bottom=found, label="false positives", alpha=0.5)
        # A detector gives a thousand boxes of no score for each that is right: those would be out of sight on a linear scale.
        if number.max() > 100 * np.median(number[some]):
            bottom.set_yscale("symlog", linthresh=10)
    top.set(title=f"Reliability: {len(scores):,} detections in {SCORE_BINS} score bins", ylabel="precision of a bin", ylim=(-0.02, 1.02))
    bottom.set(xlabel="score", ylabel="detections")
    for panel in (top, bottom):
        panel.set_xlim(-0.01, 1.01)
    return _finish(figure, path, "nothing found")


def print_bounds(bounds: Mapping[str, Mapping[str, float]]) -> None:
    """Prints the three rows of :func:`lossbox.metrics.score_bounds`: Table 5 of the aLRP paper."""
    from rich.console import Console
    from rich.table import Table

    rows = {"lower": "in inverse order of IoU (lower bound)", "measured": "as they are", "upper": "in order of IoU (upper bound)"}
    title = "AP if the true positives swapped their scores"
    table = Table("scores", title=title, title_justify="left")
    for name in bounds["measured"]:
        table.add_column(name, justify="right", no_wrap=True)
    for key, meaning in rows.items():
        table.add_row(meaning, *("-" if value is None or np.isnan(value) else f"{value:.3f}" for value in bounds[key].values()))
    Console().print(table)


def _at_thresholds(curve: LRPCurve, grid: Float[np.ndarray, " g"]) -> LRPCurve:
    """The curve at any thresholds: a detection is kept from its score downwards, and above the highest score nothing is kept."""
    kept = np.searchsorted(-curve.thresholds, -grid, side="right") - 1
    nothing = {"lrp": 1.0, "localization": np.nan, "false_positive": np.nan, "false_negative": 1.0}
    columns = {name: np.append(getattr(curve, name), value)[kept] for name, value in nothing.items()}  # -1 reads what was appended
    return LRPCurve(thresholds=grid, **columns)


def _defined_mean(rows: Sequence[Float[np.ndarray, " g"]]) -> Float[np.ndarray, " g"]:
    """Mean of each column over its numbers that are not NaN; NaN without one."""
    values = np.stack(rows)
    number = np.count_nonzero(~np.isnan(values), axis=0)
    mean = np.full(values.shape[1], np.nan)
    np.divide(np.nansum(values, axis=0), number, out=mean, where=number > 0)
    return mean


def _class_styles(labels: Mapping[int, str], badness: Mapping[int, float]) -> dict[int, dict[str, Any]]:
    """How to draw each class's curve; where they are many, the three best and worst stand out before gray ones, and are drawn last."""
    order = sorted(labels, key=lambda index: badness[index])
    if len(order) <= FEW:
        return {index: {"label": labels[index]} for index in sorted(order)}
    plain = {index: {"color": "gray", "alpha": 0.35, "linewidth": 0.8} for index in order[3:-3]}
    first, last = [f"C{number}" for number in range(3)], [f"C{number}" for number in range(3, 6)]
    chosen = zip([*order[:3], *order[-3:]], [*first, *last], strict=True)
    return plain | {index: {"color": color, "label": labels[index]} for index, color in chosen}


def _rho(value: float) -> str:
    return "rho undefined" if np.isnan(value) else f"rho {value:.3f}"


def _whose(classes: Sequence[int], class_names: Sequence[str]) -> str:
    return _text(class_names[classes[0]]) if len(classes) == 1 else f"Mean over {len(classes)} classes with ground truth"


def _text(name: str) -> str:
    """A class name that matplotlib shows as it is: a dollar sign would start a formula, a leading underscore hide it from the legend."""
    escaped = plain(name)
    return f" {escaped}" if escaped.startswith("_") else escaped


def _panels(number: int, *, rows: Sequence[int] = ()) -> tuple[Any, list[Axes]]:
    """A figure with panels side by side, or below each other with the given shares of the height."""
    plt = pyplot()
    if rows:
        options = {"height_ratios": list(rows), "sharex": True, "figsize": (7, 7)}
        figure, axes = plt.subplots(len(rows), 1, squeeze=False, layout="constrained", **options)
    else:
        figure, axes = plt.subplots(1, number, figsize=(6.5 * number, 5), squeeze=False, layout="constrained")
    return figure, list(axes.flat)


def _finish(figure: Any, path: Path, empty: str) -> Path:
    """Grid and legends, ``empty`` in a panel without content, and the file."""
    for panel in figure.axes:
        if panel.get_label() == "<colorbar>":
            continue
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[1]:
            panel.legend(fontsize=8)
        elif not panel.has_data():
            panel.text(0.5, 0.5, empty, transform=panel.transAxes, ha="center", va="center")
    return save_figure(figure, path)
