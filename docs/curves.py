"""The curves that the pages show: value and gradient of every loss, at every position of its sliders, computed by the code of the package.

``docs/assets/curves.js`` draws them. It knows no formula: it looks up the table that belongs to the sliders.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lossbox import report
from lossbox.analysis.regression import widely_used_balanced_l1
from lossbox.losses import CATALOG, balanced_l1_loss

_DIFFERENCE = report.Axis("difference of a coordinate from its target", (-3, 3), {"": lambda loss, x: loss(x, 0 * x)})
_WEIGHTED = report.Axis(_DIFFERENCE.label, (-3, 3), {"": lambda loss, x: loss(x[None], 0 * x[None], torch.ones(1, 1), torch.ones(1, 1))})
# The axes of these two compare fixed values of what the page's slider moves.
AXES = {"smooth_l1_loss": _DIFFERENCE, "faster_rcnn_smooth_l1_loss": _WEIGHTED}

_GAMMA = (0.0, 0.5, 1.0, 2.0, 5.0)
_DELTA = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
SLIDERS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "focal_loss": {"gamma": _GAMMA, "alpha": (0.25, 0.5, 0.75)},
    "softmax_focal_loss": {"gamma": _GAMMA},
    "class_balanced_focal_loss": {"gamma": _GAMMA},
    "dr_loss": {"smoothness": (2.0, 4.0, 6.0, 10.0)},
    "ghm_r_loss": {"mu": (0.005, 0.02, 0.05, 0.1)},
    "quality_focal_loss": {"beta": _GAMMA},
    "varifocal_loss": {"gamma": _GAMMA, "alpha": (0.25, 0.5, 0.75)},
    "matchability_aware_loss": {"gamma": (0.5, 1.0, 1.5, 2.0, 3.0)},
    "ia_bce_loss": {"gamma": _GAMMA, "alpha": (0.1, 0.25, 0.5)},
    "ap_loss": {"delta": _DELTA},
    "alrp_loss": {"delta": _DELTA},
    "ndcg_loss": {"delta": _DELTA},
    "rank_sort_loss": {"delta": _DELTA},
    "ape_loss": {"sharpness": (1.0, 2.0, 4.0, 8.0)},
    "smooth_l1_loss": {"beta": (0.0, 1 / 9, 0.25, 0.5, 1.0, 2.0)},
    "faster_rcnn_smooth_l1_loss": {"sigma": (0.5, 1.0, 2.0, 3.0)},
    "balanced_l1_loss": {"gamma": (1.0, 1.5, 2.0), "beta": (1 / 9, 0.5, 1.0, 2.0)},
    "alpha_iou_loss": {"alpha": (0.5, 1.0, 2.0, 3.0, 5.0)},
}
"""By loss: the options that a reader can move, the last one fastest. The paper's value is among them."""


def balanced_l1_beside_the_widely_used(beta: float, reach: float, *, points: int = 601) -> report.LossCurves:
    """Both along the difference, up to ``reach`` on either side, for one beta."""
    axis = report.Axis(
        "difference of a coordinate from its target",
        (-reach, reach),
        {
            "lossbox": lambda loss, x: loss(x, 0 * x, beta=beta),
            "widely used code, wrong": lambda loss, x: widely_used_balanced_l1(x, 0 * x, beta=beta),
        },
    )
    return report.trace(f"balanced L1 at beta = {beta:.3g}", balanced_l1_loss, axis, points=points)


def axis_of(name: str) -> report.Axis:
    return AXES.get(name) or report.axis_of(name)


def paper_value(name: str, option: str) -> float:
    """The option as the page first shows it: the catalog's number, or the function's default."""
    entry = CATALOG[name]
    if option in entry.hyperparameters():
        return float(entry.hyperparameters()[option])
    return float(entry.function.__kwdefaults__[option])


def table(name: str, *, points: int = 57) -> dict[str, Any]:
    """What the page of a loss draws.

    Returns:
        ``x``: the positions; ``lines``: their names; ``sliders``: name, values and start of each; ``tables``: for every combination of the
        sliders, the last one fastest, the values and the gradients of each line at each x, with four digits.
    """
    sliders = SLIDERS.get(name, {})
    traces = []
    for chosen in itertools.product(*sliders.values()):
        loss = functools.partial(CATALOG[name].function, **dict(zip(sliders, chosen, strict=True)))
        traces.append(report.trace(name, loss, axis_of(name), points=points))
    rows = [{"name": option, "values": list(values), "start": paper_value(name, option)} for option, values in sliders.items()]
    return _packed(traces, rows)


def wrong_balanced_l1_table() -> dict[str, Any]:
    """Balanced L1 beside the widely used code, with beta as a slider."""
    betas = (1 / 9, 0.5, 1.0, 2.0)
    traces = [balanced_l1_beside_the_widely_used(beta, 0.2, points=121) for beta in betas]
    return _packed(traces, [{"name": "beta", "values": list(betas), "start": 1 / 9}])


def _packed(traces: Sequence[report.LossCurves], sliders: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "x": _short(traces[0].x),
        "lines": list(traces[0].values),
        "sliders": sliders,
        "tables": [{part: [_short(line) for line in getattr(t, part).values()] for part in ("values", "gradients")} for t in traces],
    }


def _short(numbers: Sequence[float]) -> list[float]:
    return [float(f"{number:.4g}") for number in numbers]


def script(name: str, data: Mapping[str, Any]) -> str:
    """A table as a script: it can be loaded from disk, where a browser reads no JSON."""
    return f"(window.lossboxCurves ??= {{}})[{json.dumps(name)}] = {json.dumps(data, separators=(',', ':'))};\n"
