"""The lines that say how far a training is, on a terminal and in a log file. Needs the extra: ``pip install 'lossbox[train]'``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from ..data.digits import SILENCE
from ..messages import duration


class ProgressLines(Callback):
    """Says what is trained, then a line per epoch; where there is no progress bar also one about every ten seconds, with the time left.

    The time left is that of the steps to come at the mean speed so far, validations included, or of the budget of ``--minutes``.

    Args:
        clock: seconds since some moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._spoke = self._epoch_began = clock()
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began, self._first_step = self._clock(), trainer.global_step
        count = sum(parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad)
        steps = f"{trainer.num_training_batches} step{'s' * (trainer.num_training_batches != 1)} per epoch"
        where = f"on {trainer.strategy.root_device.type} in {trainer.precision}, {steps}; results in {trainer.default_root_dir}"
        self._say(trainer, f"training {type(pl_module.detector).__name__}: {count / 1e6:.1f} million parameters, {where}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_began = self._clock()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._due(trainer):
            self._say(trainer, f"{_epoch(trainer)}  step {batch_idx + 1}/{trainer.num_training_batches}  {self._left(trainer)}")

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        if self._due(trainer):
            done, all_of_them = rest[2] + 1, sum(trainer.num_val_batches)
            self._say(trainer, f"validating  batch {done}/{all_of_them}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        validated = trainer.fit_loop.epoch_loop._should_check_val_epoch()
        shown = [name for name in trainer.callback_metrics if name.startswith("train/")] + ["val/AP", "val/oLRP"] * validated
        numbers = "  ".join(f"{name} {float(trainer.callback_metrics[name]):.3f}" for name in shown if name in trainer.callback_metrics)
        times = f"{duration(self._clock() - self._epoch_began)}, {self._left(trainer)}"
        self._say(trainer, f"{_epoch(trainer)}  {numbers}  {times}")

    def _due(self, trainer: Trainer) -> bool:
        return trainer.progress_bar_callback is None and self._clock() - self._spoke >= SILENCE

    def _left(self, trainer: Trainer) -> str:
        budget = getattr(trainer.lightning_module, "budget", None)
        if budget is not None:
            return f"{duration(budget.seconds_left)} left"
        done = trainer.global_step - self._first_step
        to_come = max(trainer.estimated_stepping_batches - trainer.global_step, 0)
        return f"{duration((self._clock() - self._began) * to_come / max(done, 1))} left"

    def _say(self, trainer: Trainer, line: str) -> None:
        self._spoke = self._clock()
        if trainer.is_global_zero:
            print(line, flush=True)


def _epoch(trainer: Trainer) -> str:
    of_all = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
    return f"epoch {trainer.current_epoch + 1}{of_all}"
