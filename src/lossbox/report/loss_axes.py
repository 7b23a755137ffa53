"""What slides in the curve of each loss: one number, and what stands still beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..losses import class_balanced_weights

Loss = Callable[..., Any]


@dataclass(frozen=True)
class Axis:
    """What slides.

    Attributes:
        label: what the number is, and what stands still beside it.
        span: from where to where.
        lines: by name, the loss at one value: ``(loss, x)`` to what the loss returns, with x of shape (1,) in float64.
    """

    label: str
    span: tuple[float, float]
    lines: Mapping[str, Callable[[Loss, Tensor], Any]]


def _double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# What stands still. Ranking: a positive at 2, negatives at -2, 0 and 3.
_BESIDE = _double(2.0, -2.0, 0.0, 3.0)
_POSITIVE, _NEGATIVE = torch.tensor([1, 1, 0, 0, 0]), torch.tensor([0, 1, 0, 0, 0])
# DR: a positive at 1, negatives at -4, -2 and -1.
_OF_ONE_IMAGE = _double(1.0, -4.0, -2.0, -1.0)
# GHM: many easy negatives and some positives of all kinds; coordinates most of which are nearly right.
_BATCH = torch.cat([torch.linspace(-6, -1, 200, dtype=torch.float64), torch.linspace(-4, 4, 30, dtype=torch.float64)])
_BATCH_TARGETS = (torch.arange(230) >= 200).double()
_OFFSETS = torch.linspace(-1, 1, 101, dtype=torch.float64) ** 3
_CLASS_WEIGHTS = class_balanced_weights(_double(10.0, 1000.0))
_UNIT_BOX = _double(0.0, 0.0, 1.0, 1.0).unsqueeze(0)


def _box(left: Tensor | float, top: Tensor | float, right: Tensor | float, bottom: Tensor | float) -> Tensor:
    return torch.stack([torch.as_tensor(side, dtype=torch.float64).reshape(()) for side in (left, top, right, bottom)]).unsqueeze(0)


def _around_center(width: Tensor, height: Tensor) -> Tensor:
    """A box of these sides with the center of the unit box."""
    return _box(0.5 - width / 2, 0.5 - height / 2, 0.5 + width / 2, 0.5 + height / 2)


_CLASS_BALANCED = Axis(
    "logit of the true class; the other class at 0",
    (-6, 6),
    {
        "true class of 10 samples": lambda loss, x: loss(torch.stack([x, 0 * x], 1), torch.tensor([0]), _CLASS_WEIGHTS),
        "true class of 1,000 samples": lambda loss, x: loss(torch.stack([0 * x, x], 1), torch.tensor([1]), _CLASS_WEIGHTS),
    },
)
_SOFTMAX = Axis(
    "logit of one of three classes; the others at 0",
    (-6, 6),
    {
        "it is the true class": lambda loss, x: loss(torch.stack([x, 0 * x, 0 * x], 1), torch.tensor([0])),
        "it is not": lambda loss, x: loss(torch.stack([x, 0 * x, 0 * x], 1), torch.tensor([1])),
    },
)
_TARGETS_AND_QUALITY = Axis(
    "logit",
    (-6, 6),
    {
        "positive, IoU 0.9": lambda loss, x: loss(x, _double(1), _double(0.9)),
        "positive, IoU 0.5": lambda loss, x: loss(x, _double(1), _double(0.5)),
        "negative": lambda loss, x: loss(x, _double(0), _double(0)),
    },
)
_RANKING = Axis(
    "logit; beside it a positive at 2, negatives at -2, 0 and 3",
    (-6, 8),
    {
        "of a positive": lambda loss, x: loss(torch.cat([x, _BESIDE]), _POSITIVE),
        "of a negative": lambda loss, x: loss(torch.cat([x, _BESIDE]), _NEGATIVE),
    },
)

AXES: dict[str, Axis] = {
    "classification": Axis(
        "logit", (-6, 6), {"target 1": lambda loss, x: loss(x, _double(1)), "target 0": lambda loss, x: loss(x, _double(0))}
    ),
    "softmax_cross_entropy_loss": _SOFTMAX,
    "softmax_focal_loss": _SOFTMAX,
    "dr_loss": Axis(
        "logit; beside it a positive at 1, negatives at -4, -2 and -1",
        (-6, 6),
        {
            "of a positive": lambda loss, x: loss(torch.cat([x, _OF_ONE_IMAGE]), _POSITIVE),
            "of a negative": lambda loss, x: loss(torch.cat([x, _OF_ONE_IMAGE]), _NEGATIVE),
        },
    ),
    "class-balanced": _CLASS_BALANCED,
    "ghm_c_loss": Axis(
        "logit of one of 231: 200 easy negatives, 30 positives from -4 to 4",
        (-6, 6),
        {
            "target 1": lambda loss, x: loss(torch.cat([x, _BATCH]), torch.cat([_double(1), _BATCH_TARGETS]), bins=10, reduction="none")[0],
            "target 0": lambda loss, x: loss(torch.cat([x, _BATCH]), torch.cat([_double(0), _BATCH_TARGETS]), bins=10, reduction="none")[0],
        },
    ),
    "ghm_r_loss": Axis(
        "error of one of 102 coordinates, most of them nearly right",
        (-0.2, 0.2),
        {"": lambda loss, x: loss(torch.cat([x, _OFFSETS]), torch.zeros(102, dtype=torch.float64), reduction="none")[0]},
    ),
    "quality": Axis(
        "logit",
        (-6, 6),
        {
            "positive, IoU 0.9": lambda loss, x: loss(x, _double(0.9)),
            "positive, IoU 0.5": lambda loss, x: loss(x, _double(0.5)),
            "negative": lambda loss, x: loss(x, _double(0)),
        },
    ),
    "quality: labels, ious": _TARGETS_AND_QUALITY,
    "correlation_loss": Axis(
        "logit of a positive of IoU 0.9; three others score their IoU: 0.3, 0.5, 0.7",
        (-6, 6),
        {"": lambda loss, x: loss(torch.cat([x, torch.logit(_double(0.3, 0.5, 0.7))]), _double(0.9, 0.3, 0.5, 0.7))},
    ),
    "ranking": _RANKING,
    "alrp_loss": Axis(
        "logit of a positive of error 0.2; beside it one of error 0.6 at 2, negatives at -2, 0 and 3",
        (-6, 8),
        {"": lambda loss, x: loss(torch.cat([x, _BESIDE]), _POSITIVE, _double(0.2, 0.6))},
    ),
    "rank_sort_loss": Axis(
        "logit of a positive of IoU 0.9; beside it one of IoU 0.7 at 2, negatives at -2, 0 and 3",
        (-6, 8),
        {"": lambda loss, x: loss(torch.cat([x, _BESIDE]), _POSITIVE, _double(0.9, 0.7))},
    ),
    "ranking: labels, positive ious": Axis(
        "logit; beside it a positive of IoU 0.7 at 2, negatives at -2, 0 and 3",
        (-6, 8),
        {
            "of a positive of IoU 0.9": lambda loss, x: loss(torch.cat([x, _BESIDE]), _POSITIVE, _double(0.9, 0.7)),
            "of a positive of IoU 0.5": lambda loss, x: loss(torch.cat([x, _BESIDE]), _POSITIVE, _double(0.5, 0.7)),
            "of a negative": lambda loss, x: loss(torch.cat([x, _BESIDE]), _NEGATIVE, _double(0.7)),
        },
    ),
    "box distance": Axis("difference of a coordinate from its target", (-3, 3), {"": lambda loss, x: loss(x, _double(0))}),
    "smooth_l1_loss": Axis(
        "difference of a coordinate from its target",
        (-3, 3),
        {
            "beta = 1": lambda loss, x: loss(x, _double(0), beta=1.0),
            "beta = 1/9": lambda loss, x: loss(x, _double(0), beta=1 / 9),
        },
    ),
    "faster_rcnn_smooth_l1_loss": Axis(
        "difference of a coordinate from its target",
        (-3, 3),
        {
            "sigma = 3 (RPN)": lambda loss, x: loss(x[None], 0 * x[None], torch.ones(1, 1), torch.ones(1, 1), sigma=3.0),
            "sigma = 1": lambda loss, x: loss(x[None], 0 * x[None], torch.ones(1, 1), torch.ones(1, 1), sigma=1.0),
        },
    ),
    "rpn_loss": Axis(
        "of one positive anchor: its logit (classification), the error of one offset (localization)",
        (-3, 3),
        {"": lambda loss, x: loss(x, torch.tensor([1]), torch.cat([x, 0 * _BESIDE[:3]])[None], 0 * _BESIDE[None])},
    ),
    "seesaw_loss": Axis(
        "logit of the other class; that of the true class at 0",
        (-6, 6),
        {
            "rare class over a frequent one": lambda loss, x: loss(torch.stack([0 * x, x], 1), torch.tensor([0]), _double(1000.0, 10.0)),
            "frequent class over a rare one": lambda loss, x: loss(torch.stack([0 * x, x], 1), torch.tensor([0]), _double(10.0, 1000.0)),
        },
    ),
    "equalization_loss_v2": Axis(
        "logit, of a class whose negatives prevail (ratio 0.5)",
        (-6, 6),
        {
            "target 1": lambda loss, x: loss(x[None], _double(1)[None], _double(0.5)),
            "target 0": lambda loss, x: loss(x[None], _double(0)[None], _double(0.5)),
        },
    ),
    "federated_loss": Axis(
        "logit of a negative",
        (-6, 6),
        {
            "its class takes part": lambda loss, x: loss(x[None], _double(0)[None], torch.tensor([True])),
            "its class does not": lambda loss, x: loss(x[None], _double(0)[None], torch.tensor([False])),
        },
    ),
    "distribution_focal_loss": Axis(
        "logit of bin 1 of three; the others at 0",
        (-6, 6),
        {
            "target 1": lambda loss, x: loss(torch.stack([0 * x, x, 0 * x], 1), _double(1.0)),
            "target 1.5": lambda loss, x: loss(torch.stack([0 * x, x, 0 * x], 1), _double(1.5)),
        },
    ),
    "fine_grained_localization_loss": Axis(
        "logit of the bin at 0; four others at 0",
        (-6, 6),
        {
            "offset 0": lambda loss, x: loss(torch.stack([0 * x, 0 * x, x, 0 * x, 0 * x], 1), _double(0.0)),
            "offset 0.25": lambda loss, x: loss(torch.stack([0 * x, 0 * x, x, 0 * x, 0 * x], 1), _double(0.25)),
        },
    ),
    "decoupled_distillation_loss": Axis(
        "logit of one bin of three; the teacher says 3",
        (-12, 12),
        {"": lambda loss, x: loss(torch.stack([x, 0 * x, 0 * x], 1), _double(3.0, 0.0, 0.0)[None], torch.tensor([1]), _double(0.8))},
    ),
    "keypoint_focal_loss": Axis(
        "logit",
        (-6, 6),
        {
            "at a keypoint (heat 1)": lambda loss, x: loss(x, _double(1)),
            "near one (heat 0.5)": lambda loss, x: loss(x, _double(0.5)),
            "far from all (heat 0)": lambda loss, x: loss(x, _double(0)),
        },
    ),
    "pull_loss": Axis("embedding of one corner; that of the other at 0", (-3, 3), {"": lambda loss, x: loss(torch.stack([x, 0 * x], 1))}),
    "push_loss": Axis("embedding of one object; that of another at 0", (-3, 3), {"": lambda loss, x: loss(torch.cat([x, 0 * x])[:, None])}),
    "offset_loss": Axis(
        "predicted offset in x, in cells; the keypoint is a quarter of a cell from its edge",
        (-2, 3),
        {"": lambda loss, x: loss(torch.stack([x, 0 * x], 1), _double(1.0, 0.0)[None])},
    ),
    "overlap": Axis(
        "x, of a box over the unit box",
        (-2, 2),
        {
            "moved by x": lambda loss, x: loss(_box(x, 0, x + 1, 1), _UNIT_BOX),
            "both sides times e^x": lambda loss, x: loss(_around_center(x.exp(), x.exp()), _UNIT_BOX),
            "sides e^x and e^-x": lambda loss, x: loss(_around_center(x.exp(), (-x).exp()), _UNIT_BOX),
        },
    ),
}
"""By loss where it needs one of its own, else by family and targets, else by family."""
