"""``learning_rate: auto``: a rate for a training, found by a short one whose rate rises. Needs the extra: ``pip install 'lossbox[train]'``.

Lightning's ``LearningRateFinder`` is not used. It gives all groups of parameters one rate, so that ``backbone_rate`` is lost, and a loss
that is not finite any more ends the run. And it looks for the steepest fall of the loss over the rate, not over its logarithm: that is
steepest at the smallest rates, where the loss only flickers.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .. import report
from ..data.digits import SILENCE
from ..data.module import CocoDataModule
from ..messages import duration
from ..objective import weighted_sum
from ..records import Batch
from .task import DetectionTask

STEPS = 100
"""Steps of the search."""

LOWEST, HIGHEST = 1e-6, 1.0
"""The rates of its first and its last step, at most."""

MEMORY = 0.9
"""What is left of a loss in the smoothed one after a step."""

DIVERGED = 4.0
"""The search ends where the smoothed loss is so many times its minimum."""

SAFETY = 10.0
"""The rate found is so many times smaller than that of the smallest smoothed loss."""


@dataclass(frozen=True)
class RateSearch:
    """What a search saw.

    Attributes:
        rates: of each step.
        losses: the sum of the unweighted parts of the loss before each step.
        smoothed: of the same, their running mean.
        found: the rate to train with.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    found: float


def find_learning_rate(
    task: DetectionTask,
    data: CocoDataModule,
    device: torch.device,
    context: Callable[[], AbstractContextManager[object]] = nullcontext,
    *,
    clip: float | None = None,
    steps: int = STEPS,
    say: Callable[[str], None] = print,
) -> RateSearch:
    """Trains a copy of the task for some steps, each at a higher rate than the one before, from 1e-6 to 1 in equal ratios.

    The optimizer is that of the task without its schedule, with its rates of the trunk and of stages. What is looked at is the sum of the
    parts of the loss without their weights: weights differ between losses by a factor of 50 (aLRP begins with that), and then the part
    that rises while a detector learns would hide the one that falls. The search ends before where this is not finite or, smoothed, four
    times its minimum. Task, data and random numbers stay as they are.

    Args:
        task: the training task; its ``optimizer`` is a dataclass with a ``learning_rate``.
        data: whose training batches are taken, in their order, over again where there are fewer.
        device: where the training will be.
        context: in which a forward pass takes place, for its precision.
        clip: the largest norm of the gradient, where the training has one.
        steps: of the search, >= 2.
        say: is given a line now and then.

    Raises:
        ValueError: the loss of the first steps is not finite, or it falls nowhere.

    Source:
        Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, Sec. 3.3: the range test.
    """
    rates, losses = [LOWEST * (HIGHEST / LOWEST) ** (step / (steps - 1)) for step in range(steps)], []
    began = spoke = time.monotonic()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        tried = copy.deepcopy(task).train().to(device)
        optimizer, _ = replace(tried.optimizer, learning_rate=1.0)(tried, steps)  # type: ignore[type-var]
        shares = [group["initial_lr"] for group in optimizer.param_groups]
        for step, batch in enumerate(itertools.islice(_batches(data), steps)):
            for group, share in zip(optimizer.param_groups, shares, strict=True):
                group["lr"] = rates[step] * share
            losses.append(_step(tried, batch.to(device), optimizer, context, clip))
            smoothed = smooth(losses)
            if not math.isfinite(losses[-1]) or smoothed[-1] > DIVERGED * min(smoothed) > 0:
                break
            if time.monotonic() - spoke >= SILENCE:
                spoke = time.monotonic()
                say(f"learning_rate: step {step + 1}/{steps}, {duration((spoke - began) * (steps - step - 1) / (step + 1))} left")
    finite = len(losses) if math.isfinite(losses[-1]) else len(losses) - 1
    rates, losses, smoothed = rates[:finite], losses[:finite], smooth(losses[:finite])
    return RateSearch(rates, losses, smoothed, choose_rate(rates, smoothed))


def _batches(data: CocoDataModule) -> Iterator[Batch]:
    """Of one epoch after another."""
    loader: Any = data.train_dataloader()
    for epoch in itertools.count():
        loader.sampler.set_epoch(epoch)
        yield from loader


def _step(
    task: DetectionTask,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    context: Callable[[], AbstractContextManager[object]],
    clip: float | None,
) -> float:
    """The loss before the step; NaN, and no step, where weights are not finite any more."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not torch.stack([parameter.detach().sum() for parameter in parameters]).isfinite().all():
        return math.nan
    with context():
        parts = task.losses(batch).parts
        total = weighted_sum(parts)
    loss = float(sum(part.value.detach() for part in parts.values()))
    if math.isfinite(loss):
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
    return loss


def smooth(losses: Sequence[float]) -> list[float]:
    """The mean of each loss and those before, which weigh 0.9 times as much with each step that they lie back.

    Example:
        >>> [round(mean, 3) for mean in smooth([1.0, 1.0, 0.0])]
        [1.0, 1.0, 0.631]
    """
    mean, weight, means = 0.0, 0.0, []
    for loss in losses:
        mean, weight = MEMORY * mean + loss, MEMORY * weight + 1
        means.append(mean / weight)
    return means


def choose_rate(rates: Sequence[float], smoothed: Sequence[float]) -> float:
    """A tenth of the rate at which the smoothed loss is smallest, with two digits.

    Args:
        rates: rising.
        smoothed: the smoothed loss at each.

    Raises:
        ValueError: the loss is smallest at the first rate, or there is none.

    Example:
        >>> choose_rate([1e-4, 1e-3, 1e-2, 1e-1], [2.0, 1.9, 1.2, 1.6])
        0.001
    """
    best = min(range(len(smoothed)), key=smoothed.__getitem__, default=0)
    if best == 0:
        raise ValueError("learning_rate: the loss falls at no rate of the search; give a number in place of auto")
    return float(f"{rates[best] / SAFETY:.1e}")


def write_search(out: Path, search: RateSearch, *, draw: bool = True) -> str:
    """Writes ``learning_rate.json`` and draws ``learning_rate.png`` into the folder of a run; what was found, in words.

    Args:
        out: the folder.
        search: what is written.
        draw: False writes the JSON alone.
    """
    columns = zip(search.rates, search.losses, search.smoothed, strict=True)
    steps = [{"learning_rate": rate, "loss": loss, "smoothed": mean} for rate, loss, mean in columns]
    report.write_json(out / "learning_rate.json", {"found": search.found, "steps": steps})
    if draw:
        report.draw_rates(out / "learning_rate.png", search.rates, search.losses, search.smoothed, search.found)
    best = search.rates[search.smoothed.index(min(search.smoothed))]
    return f"the loss is smallest at {best:.1e} in {len(steps)} steps of rising rates, a tenth of that; {out / 'learning_rate.json'}"
