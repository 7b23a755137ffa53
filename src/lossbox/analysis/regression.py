"""The curves of the box distances: smooth L1 and balanced L1 at any beta, their derivatives, and a form of balanced L1 that is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from ..losses import balanced_l1_loss, smooth_l1_loss

Form = Literal["smooth L1", "balanced L1", "widely used balanced L1"]


def widely_used_balanced_l1(input: Tensor, target: Tensor, *, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0) -> Tensor:
    """Balanced L1 as OceanPang/Libra_R-CNN and mmdetection compute it: WRONG for every beta but 1, and here only to be shown.

    In ``alpha/b (b x + 1) log(b x/beta + 1) - alpha x`` the factor before the logarithm should be ``b x + beta``.
    """
    b = math.exp(gamma / alpha) - 1
    x = (input - target).abs()
    inside = alpha / b * (b * x + 1) * torch.log(b * x / beta + 1) - alpha * x
    return torch.where(x < beta, inside, gamma * x + gamma / b - alpha * beta)


def regression_curve(
    form: Form, *, beta: float = 1.0, alpha: float = 0.5, gamma: float = 1.5, reach: float = 2.0, points: int = 201
) -> dict[str, Any]:
    """Value and derivative of a loss along the difference x of a coordinate from its target, in float64.

    What a derivative should be: ``clamp(x / beta, -1, 1)`` of smooth L1; of balanced L1 ``alpha log(1 + b |x| / beta)`` below beta and
    gamma from there on, with the sign of x and ``alpha log(1 + b) = gamma``.

    Args:
        form: which loss.
        beta: where the loss becomes linear, > 0; sigma of Faster R-CNN is ``beta = 1 / sigma^2``.
        alpha, gamma: of balanced L1.
        reach: the curve is drawn from -reach to reach.
        points: of the curve.

    Returns:
        ``jump`` and ``derivative_jump``: of the value and the derivative at beta; ``derivative_error``: the greatest distance of the
        derivative from what it should be; ``scaling_error``: the greatest ``|L(x; beta) - beta L(x / beta; 1)|``, 0 as both losses scale;
        ``value_at_0.4``: L(0.4); ``rows``: ``x``, ``value``, ``derivative``.

    Raises:
        ValueError: a form that is none, beta <= 0.

    Source:
        Girshick, Fast R-CNN, ICCV 2015, Eq. (3); Pang et al., Libra R-CNN, CVPR 2019, Eqs. (5)-(8) and their integral at any beta.

    Example:
        >>> [round(regression_curve(form, beta=0.5)["derivative_jump"], 4) for form in ("balanced L1", "widely used balanced L1")]
        [0.0, 0.0249]
    """
    losses: dict[str, Callable[..., Tensor]] = {
        "smooth L1": lambda x, beta: smooth_l1_loss(x, 0 * x, beta=beta, reduction="none"),
        "balanced L1": lambda x, beta: balanced_l1_loss(x, 0 * x, alpha=alpha, gamma=gamma, beta=beta, reduction="none"),
        "widely used balanced L1": lambda x, beta: widely_used_balanced_l1(x, 0 * x, alpha=alpha, gamma=gamma, beta=beta),
    }
    if form not in losses:
        raise ValueError(f"form: one of {', '.join(losses)} expected, got {form}")
    if not 0 < beta < math.inf:
        raise ValueError(f"beta: a finite number > 0 expected, got {beta}")
    loss = losses[form]
    x = torch.linspace(-reach, reach, points, dtype=torch.float64)
    value, derivative = _traced(loss, x, beta)
    around = torch.tensor([beta * (1 - 1e-12), beta * (1 + 1e-12)], dtype=torch.float64)
    (below, above), (slope_below, slope_above) = (pair.tolist() for pair in _traced(loss, around, beta))
    b = math.exp(gamma / alpha) - 1
    size = x.abs()
    bent = (
        (x / beta).clamp(-1, 1) if form == "smooth L1" else x.sign() * torch.where(size < beta, alpha * torch.log1p(b * size / beta), gamma)
    )
    return {
        "jump": abs(above - below),
        "derivative_jump": abs(slope_above - slope_below),
        "derivative_error": (derivative - bent).abs().max().item(),
        "scaling_error": (value - beta * loss(x / beta, 1.0)).abs().max().item(),
        "value_at_0.4": loss(torch.tensor([0.4], dtype=torch.float64), beta).item(),
        "rows": [{"x": a, "value": v, "derivative": d} for a, v, d in zip(x.tolist(), value.tolist(), derivative.tolist(), strict=True)],
    }


def _traced(loss: Callable[..., Tensor], x: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = loss(x, beta)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]
