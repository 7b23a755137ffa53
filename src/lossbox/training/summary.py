"""What a training ends with on the screen: how good the detector is, its worst classes and why, where everything is, what comes next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WORST = 3
"""So many classes are named."""

FILES = {
    "report.html": "all of it, to look at in a browser",
    "checkpoints/best.ckpt": "the epoch of the highest AP",
    "checkpoints/last.ckpt": "the last epoch, to which the numbers above and the thresholds belong",
    "metrics.json": "all numbers",
    "thresholds.csv": "the score at which to cut each class",
    "images.png": "predicted and true boxes",
}


def summary(metrics: Mapping[str, Any], out: Path) -> str:
    """The lines that end a training.

    Args:
        metrics: of the last validation, from :func:`lossbox.metrics.evaluate`.
        out: the folder of the run; of its files those are named that are there.
    """
    numbers = "  ".join(f"{name} {_number(metrics[name])}" for name in ("AP", "AP50", "oLRP"))
    lines = [f"{numbers} (oLRP: 0 is perfect, 1 is nothing found)"]
    defined = [row for row in metrics["per_class"] if row["num_ground_truth"]]
    worst = sorted(defined, key=lambda row: -row["oLRP"])[:WORST]
    if worst:
        lines.append("the worst classes:" if len(defined) > 1 else "what its error is made of:")
    lines += [f"  {row['name']}: oLRP {_number(row['oLRP'])}, {reason(row)}" for row in worst]
    lines += [f"{out / name}  {what}" for name, what in FILES.items() if (out / name).exists()]
    thresholds = f" --thresholds {out / 'thresholds.csv'}" if (out / "thresholds.csv").exists() else ""
    last = out / "checkpoints" / "last.ckpt"
    return "\n".join([*lines, f"next: lossbox predict IMAGES --ckpt {last}{thresholds} --out found"])


def reason(row: Mapping[str, Any], *, tau: float = 0.5) -> str:
    """What most of the LRP error of a class comes from, at its LRP-optimal score.

    The error is ``(N_TP (1 - mean IoU) / (1 - tau) + N_FP + N_FN) / (N_TP + N_FP + N_FN)``; of its three parts the largest is named, with
    its share.

    Args:
        row: of a class, from ``per_class`` of :func:`lossbox.metrics.evaluate`.
        tau: IoU from which a detection is right.

    Source:
        Oksuz et al., Localization Recall Precision, ECCV 2018, Eq. (3).

    Example:
        >>> reason({"num_ground_truth": 10, "localization": 0.1, "false_positive": 0.0, "false_negative": 0.6})
        'mostly misses (88 % of the error): 60 % of the objects are not found'
    """
    if row["false_negative"] is None or row["false_negative"] == 1 or math.isnan(row["false_negative"]):
        return f"never found: none of {row['num_ground_truth']} objects"
    missed = row["num_ground_truth"] * row["false_negative"]
    right = row["num_ground_truth"] - missed
    parts = {
        "localization": (right * row["localization"] / (1 - tau), f"the mean IoU is {1 - row['localization']:.2f}"),
        "false positives": (
            right * row["false_positive"] / (1 - row["false_positive"]),
            f"{row['false_positive']:.0%} of the detections are wrong",
        ),
        "misses": (missed, f"{row['false_negative']:.0%} of the objects are not found"),
    }
    name, (error, words) = max(parts.items(), key=lambda item: item[1][0])
    total = sum(value for value, _ in parts.values())
    return f"mostly {name} ({error / total:.0%} of the error): {words}".replace("%", " %") if total else "without an error"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
