"""A training that is limited by time and not by epochs: ``lossbox fit --minutes``. Needs the extra: ``pip install 'lossbox[train]'``."""

from __future__ import annotations

import math
import time
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Timer
from torch.optim.lr_scheduler import LRScheduler

from ..data.images import TiledImages

TICKS = 10_000
"""Steps of the schedule of the learning rate in a run that is limited by time: as many of them are over as of the time, in proportion."""

VALIDATION_SHARE = 0.1
"""An epoch is validated when all time since the last validation is so long that validating takes at most this share of both."""


class TimeBudget(Callback):
    """Ends a run after a time, its learning rate and its augmentation included: what a recipe says in shares of the run are shares of it.

    The share of the run that is over is ``min(elapsed / (budget - v), 1)``, where v are the seconds of a validation: of the last one,
    before the first one as many steps as it has batches (of tiles: of as many as a step has). v is taken as at most half of the budget. The
    run ends after the step that makes the share 1, within an epoch too, is validated and saved. An epoch before that is validated if
    ``v <= VALIDATION_SHARE * (v + t)`` with t the seconds since the last validation, in place of ``trainer.check_val_every_n_epoch``.

    The budget counts from the first step on, over interruptions (a run that goes on has what is left), validations included. It is exceeded
    by the length of the last step and by what the last validation takes longer than v. In a distributed run the first process decides.

    Args:
        minutes: the budget, finite and > 0.
        timer: Lightning's, beside this callback; it keeps the time in checkpoints.

    Raises:
        ValueError: minutes out of their range.

    Example:
        >>> budget = TimeBudget(15.0, Timer())
        >>> budget.seconds_left
        900.0
    """

    def __init__(self, minutes: float, timer: Timer) -> None:
        if not 0 < minutes < math.inf:
            raise ValueError(f"minutes: a finite number > 0 expected, got {minutes}")
        self.seconds = 60.0 * minutes
        self._timer = timer
        self._trainer: Trainer | None = None
        self._ticks = 0
        self._validation: float | None = None
        self._validation_ended = 0.0
        self._began_validation = self._first_elapsed = 0.0
        self._first_step = 0
        self._load = 1.0  # images, or tiles, of a validation batch for each of a training batch

    @property
    def seconds_left(self) -> float:
        """Until the end of the budget, in seconds; 0 when it is spent."""
        return max(self.seconds - self._timer.time_elapsed(), 0.0)

    def progress(self) -> float:
        """The share of the run that is over, in [0, 1], the same in each process; every process must call it."""
        if self._trainer is None:
            return 0.0
        training = max(self.seconds - self._validation_seconds(), self.seconds / 2)
        return self._trainer.strategy.broadcast(min(self._timer.time_elapsed() / training, 1.0))

    def step(self, scheduler: LRScheduler) -> None:
        """Brings the learning rate to where it is at this share of the run."""
        reached = min(int(self.progress() * TICKS), TICKS - 1)
        for _ in range(reached - self._ticks):
            scheduler.step()
        self._ticks = max(self._ticks, reached)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._trainer = trainer
            cast(Any, pl_module).budget = self
            cast(Any, trainer).datamodule.progress = self.progress

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.progress() == 1:  # a run that is over goes on
            trainer.should_stop = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first_step, self._first_elapsed = trainer.global_step, self._timer.time_elapsed()
        data = cast(Any, trainer).datamodule
        loader = data.val_dataloader()
        if isinstance(loader.dataset, TiledImages):
            self._load = loader.batch_size * len(loader.dataset.tiles) / len(loader.dataset) / data.batch_size
        if trainer.is_global_zero:
            left = "" if self._timer.time_elapsed() < 1 else f", {self.seconds_left / 60:.2g} of them are left"
            rule = "one validation is at the end, those before take at most a tenth of the time"
            print(
                f"minutes: {self.seconds / 60:g} for all steps and validations{left}; learning rate and augmentation fit in; {rule}",
                flush=True,
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        over = self.progress() == 1
        trainer.should_stop = trainer.should_stop or over
        v, since = self._validation_seconds(), self._timer.time_elapsed() - self._validation_ended
        due = trainer.should_stop or trainer.strategy.broadcast(v <= VALIDATION_SHARE * (v + since))
        trainer.check_val_every_n_epoch = 1 if due else trainer.current_epoch + 2  # the epoch ends, or not, right after this

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began_validation = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation = time.monotonic() - self._began_validation
        self._validation_ended = self._timer.time_elapsed()

    def state_dict(self) -> dict[str, Any]:
        return {"ticks": self._ticks, "validation": self._validation, "validation_ended": self._validation_ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._ticks, self._validation = state_dict["ticks"], state_dict["validation"]
        self._validation_ended = state_dict["validation_ended"]

    def _validation_seconds(self) -> float:
        if self._validation is not None or self._trainer is None:
            return self._validation or 0.0
        steps = self._trainer.global_step - self._first_step
        batches = self._trainer.num_val_batches
        count = sum(batches) if isinstance(batches, list) else batches
        return self._load * count * (self._timer.time_elapsed() - self._first_elapsed) / steps if steps else 0.0
