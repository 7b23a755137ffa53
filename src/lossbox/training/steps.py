"""A line of JSON for each training step: what the loss is made of and where it pushes.

Needs the extra: ``pip install 'lossbox[train]'``.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, TextIO, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ..objective import class_targets, find_positives, weighted_sum
from ..objective.positives import positive_ious
from ..records import Batch, Targets
from .task import DetectionTask, Losses

GROUPS = 10
"""The positives of a batch by rank are so many groups of equal size, the highest scores first."""


class StepLog(Callback):
    """Writes ``steps.jsonl`` into the folder of the run: for each step a line of

    - ``step`` and ``epoch`` (from 0), ``seconds`` and ``cpu_seconds`` (of all threads) from the batch to its end,
    - each part of the loss by its name, unweighted, and ``weight_`` before the name: its weight; ``total``, their weighted sum,
    - ``positives``: the number of positive anchors; ``iou``: the mean IoU of their boxes (null without any); ``clear``: the share of them
      whose logit is higher by 1 or more than that of every negative, so that no ranking loss with delta <= 1 finds a negative above,
    - ``positive_gradient``, ``negative_gradient``: the sums of ``|dL/ds|`` over positive and negative logits; ``balance``: their ratio,
      negatives over positives (null without any); ``box_gradient``: the sum of ``|dL/db|`` over the regression outputs.

    Every ``by_rank_every`` steps also lists of ten, over the positives in order of their scores: ``rank_score_gradient`` and
    ``rank_box_gradient`` (the share of each tenth in the two sums over the positives), ``rank_iou`` (the share in the sum of the IoUs).

    Of a detector of two stages the gradients are those of the second. What is written is the share of the process 0. A run that is resumed
    keeps the lines of the steps before. The training is the same, bit for bit.

    Args:
        by_rank_every: 0 writes no lists.

    Raises:
        ValueError: by_rank_every < 0.
    """

    def __init__(self, by_rank_every: int = 0) -> None:
        if by_rank_every < 0:
            raise ValueError(f"by_rank_every: a number >= 0 expected, got {by_rank_every}")
        self.by_rank_every = by_rank_every
        self._row: dict[str, Any] = {}
        self._file: TextIO | None = None
        self._began = (0.0, 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / "steps.jsonl"
        kept = [line for line in path.read_text().splitlines() if _step_of(line) < trainer.global_step] if path.is_file() else []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w")
        self._file.writelines(f"{line}\n" for line in kept)
        cast(DetectionTask, pl_module).observers.append(self._observe)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._row = {"step": trainer.global_step, "epoch": trainer.current_epoch}
        self._began = (time.perf_counter(), time.process_time())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._file is not None:
            wall, cpu = self._began
            self._row |= {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
            self._file.write(json.dumps(_finite(self._row)) + "\n")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._file is not None:
            self._file.flush()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            cast(DetectionTask, pl_module).observers.remove(self._observe)

    def _observe(self, batch: Batch, losses: Losses) -> None:
        predictions, assignment, parts = losses
        positives = find_positives(predictions, assignment, batch.targets)
        row, at = self._row, (positives.image, positives.anchor, positives.labels)
        row |= {name: part.value.item() for name, part in parts.items()}
        row |= {f"weight_{name}": torch.as_tensor(part.weight).item() for name, part in parts.items()}
        row["total"] = sum(row[name] * row[f"weight_{name}"] for name in parts)
        with torch.no_grad():
            logits = predictions.logits.detach().float()
            labels = class_targets(assignment, positives, logits.shape[-1])
            highest = torch.where(labels == 0, logits, -torch.inf).max()
            count, ious = len(positives.boxes), positive_ious(predictions, positives).double()
            row |= {"positives": count, "iou": ious.mean().item(), "clear": (logits[at] >= highest + 1).sum().item() / max(count, 1)}
            order = logits[at].argsort(descending=True)
        listed = self.by_rank_every > 0 and row["step"] % self.by_rank_every == 0
        if listed:
            row["rank_iou"] = shares(ious[order])

        def of_scores(gradient: Tensor) -> None:
            magnitude = gradient.detach().double().abs()
            positive = magnitude[at]
            row["positive_gradient"] = positive.sum().item()
            row["negative_gradient"] = negative = magnitude.sum().item() - row["positive_gradient"]
            row["balance"] = negative / row["positive_gradient"] if row["positive_gradient"] else None
            if listed:
                row["rank_score_gradient"] = shares(positive[order])

        def of_boxes(gradient: Tensor) -> None:
            row["box_gradient"] = gradient.detach().double().abs().sum().item()
            if listed:
                row["rank_box_gradient"] = shares(gradient[positives.image, positives.anchor].detach().double().abs().sum(-1)[order])

        predictions.logits.register_hook(of_scores)  # type: ignore[no-untyped-call]
        predictions.regression.register_hook(of_boxes)  # type: ignore[no-untyped-call]


def columns_of(task: DetectionTask) -> list[str]:
    """The names in a line of ``steps.jsonl``, by a step on an image without boxes; lists are left out. It leaves gradients in the task."""
    log, none = StepLog(), torch.zeros(0, dtype=torch.long)
    batch = Batch(torch.zeros(1, 3, 128, 128), [Targets(torch.zeros(0, 4), none, none.bool(), 0, (128, 128), (128, 128))])
    losses = task.eval().losses(batch)
    log._row = {"step": 0, "epoch": 0}
    log._observe(batch, losses)
    weighted_sum(losses.parts).backward()  # type: ignore[no-untyped-call]
    return [*log._row, "seconds", "cpu_seconds"]


def shares(values: Tensor) -> list[float | None]:
    """The share of each tenth of the values in their sum.

    Example:
        >>> shares(torch.tensor([3.0, 1.0] + [0.0] * 18))[:2]
        [1.0, 0.0]
    """
    total = values.sum()
    groups = torch.arange(len(values), device=values.device) * GROUPS // max(len(values), 1)
    sums = values.new_zeros(GROUPS).index_add_(0, groups, values)
    return [float(share) if math.isfinite(share) else None for share in (sums / total).tolist()]


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}


def _step_of(line: str) -> float:
    """Of a line that was cut off in the middle: infinite, so that it is dropped."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return math.inf
