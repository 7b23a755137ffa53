"""Draws value and gradient of every loss into docs/losses/curves, from the code of the package.

The images are not committed: ``make docs`` draws them before it builds the pages.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from lossbox import report
from lossbox.losses import CATALOG, balanced_l1_loss

FOLDER = Path(__file__).parent / "losses" / "curves"


def widely_used_balanced_l1(input: Tensor, target: Tensor, *, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0) -> Tensor:
    """Balanced L1 as OceanPang/Libra_R-CNN and mmdetection compute it: WRONG for every beta but 1, and here only to be shown.

    In ``alpha/b (b x + 1) log(b x/beta + 1) - alpha x`` the factor before the logarithm should be ``b x + beta``.
    """
    b = math.exp(gamma / alpha) - 1
    x = (input - target).abs()
    inside = alpha / b * (b * x + 1) * torch.log(b * x / beta + 1) - alpha * x
    return torch.where(x < beta, inside, gamma * x + gamma / b - alpha * beta)


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


def main() -> None:
    for name in CATALOG:
        report.draw_loss(report.curves_of(name), FOLDER / f"{name}.png")
    report.draw_loss(balanced_l1_beside_the_widely_used(1 / 9, 0.18), FOLDER / "balanced_l1_loss_beta_ninth.png")
    report.draw_loss(balanced_l1_beside_the_widely_used(2.0, 0.2), FOLDER / "balanced_l1_loss_beta_2.png")
    print(f"{len(CATALOG) + 2} images: {FOLDER}")


if __name__ == "__main__":
    main()
