"""What the adapters share: a loss by any of its names, called with the scores and matches of another package."""

from __future__ import annotations

import warnings
from dataclasses import MISSING, fields
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from ..boxes._dtype import upcast
from ..losses import CATALOG, ALRPLoss, ClassificationLoss, LossModule, RankSortLoss
from ..messages import near_name

SCORE_LOSSES = (ClassificationLoss, RankSortLoss, ALRPLoss)
"""The bases of the losses that an adapter takes."""

TAU = 0.5
"""The IoU at which aLRP's localization error is 1."""


def find_loss(loss: Any, name: str = "loss") -> LossModule:
    """The module of a loss of class scores.

    Args:
        loss: a module; a function of ``lossbox.losses``; or the name of a function, with or without ``_loss``.
        name: what the caller calls it in a message.

    Raises:
        ValueError: anything else, with the reason.

    Example:
        >>> find_loss("ap").function.__name__
        'ap_loss'
    """
    found = loss
    if isinstance(loss, str):
        found = CATALOG.get(loss) or CATALOG.get(f"{loss}_loss")
        if found is None:
            known = [each for each, module in CATALOG.items() if issubclass(module, SCORE_LOSSES)]
            near = near_name(loss, known, otherwise=f"one of {', '.join(known)} expected")
            raise ValueError(f"{name}: no loss of class scores is called {loss!r}{near}")
    found = next((module for module in CATALOG.values() if loss is module.function), found)
    kind = found if isinstance(found, type) else type(found)
    if not issubclass(kind, LossModule):
        raise ValueError(
            f"{name}: a name, function or module of lossbox.losses expected, got {getattr(found, '__name__', kind.__name__)}; "
            "lossbox.losses.CustomClassificationLoss makes a module of a function of yours"
        )
    if not issubclass(kind, SCORE_LOSSES):
        raise ValueError(f"{name}: {kind.__name__} is no loss of class scores that a detector can take. {kind.no_objective}".rstrip(". "))
    if isinstance(found, type) and (needed := [f.name for f in fields(found) if f.init and f.default is f.default_factory is MISSING]):
        call = f"{kind.__name__}({', '.join(f'{option}=...' for option in needed)})"
        raise ValueError(f"{name}: {kind.__name__} needs {', '.join(needed)}: {call} expected")
    module: LossModule = found() if isinstance(found, type) else found
    if (reduction := getattr(module, "reduction", "mean")) != "mean":
        raise ValueError(f"{name}: reduction 'mean' expected, since the adapter decides what is summed, got {reduction!r}")
    if memory := getattr(module, "memory", 0):
        raise ValueError(f"{name}: memory 0 expected, since a model may rank the scores of several heads in a step, got {memory}")
    return module


def score_loss(
    loss: LossModule, logits: Tensor, labels: Tensor, quality: Tensor, *, num_positives: Tensor | float, global_batch: bool = False
) -> Tensor:
    """The loss of one set of scores, which a ranking loss ranks against each other.

    Rank & Sort gives the sum of its two parts, aLRP the part that has a gradient with respect to the scores, with the localization errors
    ``(1 - quality) / (1 - 0.5)``.

    Args:
        loss: of ``find_loss``.
        logits: (b, a, C), before the sigmoid, of any floating-point type; what is computed is float32 or better.
        labels: (b, a, C) 1 for the class of a positive, -1 ignored, else 0.
        quality: (P,) in [0, 1], in the order of ``logits[labels == 1]``.
        num_positives: what an elementwise loss divides its sum by, at least 1; a ranking loss counts by itself.
        global_batch: of the ranking losses; only where a gradient is asked for.

    Returns:
        A scalar.
    """
    together = global_batch and logits.requires_grad and torch.is_grad_enabled()
    with torch.autocast(logits.device.type, enabled=False):
        logits, quality = upcast(logits), upcast(quality.detach())
        if isinstance(loss, RankSortLoss):
            return torch.stack(tuple(loss(logits, labels, quality, global_batch=together))).sum()
        if isinstance(loss, ALRPLoss):
            classification: Tensor = loss(logits, labels, (1 - quality) / (1 - TAU), global_batch=together)[0]
            return classification
        if not isinstance(loss, ClassificationLoss):
            raise TypeError(f"loss: one of find_loss expected, got {type(loss).__name__}")
        of_kind = {
            "labels": lambda: labels,
            "positive ious": lambda: quality,
            "ious": lambda: labels.to(logits.dtype).masked_scatter(labels == 1, quality.to(logits.dtype)),
        }
        count = torch.as_tensor(num_positives, dtype=logits.dtype, device=logits.device).clamp(min=1)
        targets = [of_kind[kind]() for kind in loss.targets]
        return loss.to(logits.device).of_batch(logits, *targets, num_positives=count, global_batch=together)


def log_odds(logits: Tensor) -> Tensor:
    """Softmax scores before a sigmoid: ``log(p / (1 - p)) = x_c - log sum_{k != c} exp(x_k)`` with ``p = softmax(x)_c``.

    Sorted by it, the scores of a softmax head stand in the order in which they come out at inference, so that any loss of sigmoid scores
    can train such a head.

    Args:
        logits: (..., C), C >= 2, the background among them.

    Returns:
        (..., C), float32 or better; finite where the logits are.

    Example:
        >>> log_odds(torch.tensor([1.0, 0.0, 0.0])).sigmoid(), torch.tensor([1.0, 0.0, 0.0]).softmax(-1)
        (tensor([0.5761, 0.2119, 0.2119]), tensor([0.5761, 0.2119, 0.2119]))
    """
    logits = upcast(logits)
    highest = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, logits.argmax(-1, keepdim=True), True)
    total = logits.logsumexp(-1, keepdim=True)
    # 1 - p loses its digits where p is near 1, which only the highest can be: its rest is summed without it
    rest = logits.masked_fill(highest, -torch.inf).logsumexp(-1, keepdim=True)
    p = (logits - total).masked_fill(highest, -1.0).exp()
    return logits - torch.where(highest, rest, total + torch.log1p(-p))


def warn_of_version(package: str, tested: tuple[str, ...]) -> None:
    """A warning where another version is installed than the adapter was tested with."""
    installed = version(package).split("+")[0]
    if installed not in tested:
        warnings.warn(
            f"lossbox.integrations.{package} was tested with {package} {', '.join(tested)}, installed is {installed}: look at the first "
            "losses before a long run",
            stacklevel=3,
        )
