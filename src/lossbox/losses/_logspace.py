"""The terms of sigmoid losses in log-space, where a saturated sigmoid loses no digits and has no 0 * inf in its gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._gradient import with_gradient

SMALLEST_SHARE = 1e-30
"""Where a softmax is smaller, its logarithm is not taken from it: it has fewer digits, or is 0."""


def may_look(x: Tensor) -> bool:
    """Whether looking at values costs nothing: on a CPU. It would wait for another device, and break the graph of a compiler."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x)) = -log(sigmoid(-x))``; torch's own threshold of 20 would cost float64 half its digits."""
    return F.softplus(x, threshold=50.0)


def error_margin(logits: Tensor, targets: Tensor, ignored: Tensor | None = None) -> Tensor:
    """The logit on the wrong side: ``x`` where the target is 0, ``-x`` where it is 1, so that ``1 - p_t = sigmoid(margin)``.

    It is ``-inf`` where ``ignored``, whatever stands there: no loss and no gradient comes of that.
    """
    margin = logits * (1 - 2 * targets)
    return margin if ignored is None else torch.where(ignored, -torch.inf, margin)


def cross_entropy(logits: Tensor, targets: Tensor, ignored: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``-t log(p) - (1 - t) log(1 - p)`` and the error ``p - t`` of targets in [0, 1], which take no gradient, to the last digits.

    Both are 0 where ``ignored``, whatever stands there, and so is their gradient.
    """
    result: tuple[Tensor, Tensor] = with_gradient(_cross_entropy, logits, targets, ignored)
    return result


def _cross_entropy(logits: Tensor, targets: Tensor, ignored: Tensor | None) -> tuple[Any, ...]:
    """From the end of [0, 1] nearest to t: with ``r = round(t)`` and ``m = x (1 - 2 r)``, ``CE = softplus(m) - x (t - r)``.

    No two terms cancel: the second is 0 for a hard target, and at most half of the first where m > 0. torch's own form leaves 0 of the
    loss of a negative at -16 in float32. In place, which takes a third of the time of the same steps under autograd.
    """
    nearest = targets.round()
    margin = torch.addcmul(logits, logits, nearest, value=-2)
    loss = softplus(margin)
    error = margin.sigmoid_()
    error.addcmul_(error, nearest, value=-2)
    beyond = nearest.sub_(targets)
    loss.addcmul_(logits, beyond)
    error.add_(beyond)
    if ignored is not None:
        loss.masked_fill_(ignored, 0.0)
        error.masked_fill_(ignored, 0.0)
    return (loss, error), (error, targets), _cross_entropy_gradient


def _cross_entropy_gradient(error: Tensor, targets: Tensor, of_loss: Tensor | None, of_error: Tensor | None) -> Tensor | None:
    gradient = None if of_loss is None else error * of_loss
    if of_error is not None:
        through_error = (error + targets).mul_((1 - targets).sub_(error)).mul_(of_error)  # p (1 - p)
        gradient = through_error if gradient is None else gradient.add_(through_error)
    return gradient


def softmax_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """``-log(softmax(logits)_y)`` of (n, C) logits and (n,) classes; value and gradient to the last digits."""
    loss: Tensor = with_gradient(_softmax_cross_entropy, logits, targets)
    return loss


def _softmax_cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Any, ...]:
    """With ``rest`` the summed probabilities of the other classes: ``-log(p_y) = -log1p(-rest)``, and the gradient at y is ``-rest``.

    Where p_y is near 1, ``log_softmax`` has nothing left of the difference.
    """
    index = targets.unsqueeze(1)
    share = logits.softmax(1)
    own = share.gather(1, index)
    far = -own.log()
    if not may_look(own) or (own < SMALLEST_SHARE).any():  # p_y may be 0, the largest p is not
        far = logits.amax(1, keepdim=True) - logits.gather(1, index) - share.amax(1, keepdim=True).log()
    rest = share.scatter_(1, index, 0.0).sum(1, keepdim=True)
    gradient = share.scatter_(1, index, -rest)
    return torch.where(rest < 0.5, -torch.log1p(-rest), far).squeeze(1), (gradient,), _scale_rows


def _scale_rows(gradient: Tensor, upstream: Tensor) -> Tensor:
    return gradient * upstream.unsqueeze(1)


def focal_cross_entropy(margin: Tensor, gamma: float) -> Tensor:
    """``-(1 - p_t)^gamma log(p_t)`` of an error margin.

    A power of the sigmoid itself has the gradient 0 * inf = NaN where the sigmoid is 0 and gamma < 1.
    """
    loss = softplus(margin)
    return loss * torch.exp(gamma * (margin - loss)) if gamma else loss


def power(x: Tensor, exponent: float) -> Tensor:
    """``x^exponent`` for x >= 0 with a gradient of 0 at 0, where that of a fractional power is infinite; ``0^0 = 1``."""
    if exponent >= 1 or exponent == 0:
        return x**exponent
    zero = x == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, x) ** exponent)
