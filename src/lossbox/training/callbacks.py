"""What happens beside the training: the files that a run leaves behind, and the average of its weights.

Nothing here changes what is trained: with and without these callbacks the weights of every step are the same, bit for bit. (What
:class:`EMAWeights` changes is which weights are validated and saved.) Needs the extra: ``pip install 'lossbox[train]'``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from ..data.module import CocoDataModule
from ..records import Assignment, Batch, RawPredictions
from ..report.images import draw_assignment
from ..report.log import write_results
from .task import DetectionTask, TwoStageDetector

IMAGES = 16
"""Up to so many images are on a sheet."""


class LastEpoch(Callback):
    """Validates the last epoch too where ``check_val_every_n_epoch`` would leave it out: it may be the best, or the only one."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        # At each batch, since Lightning skips the hook of the epoch in one that is resumed.
        if trainer.check_val_every_n_epoch is not None and trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


class RunFiles(Callback):
    """Writes ``results.csv``, a row per epoch, and ``train_batches.png``, the first batch of the run, into the folder of the run.

    ``results.csv`` comes from the log of the run, see :func:`lossbox.report.write_results`. To the log are added, at the end of each epoch,
    ``seconds`` (training and validation) and ``lr`` (of the head, in the epoch's last step).

    ``train_batches.png`` shows the boxes after augmentation and the centers of the anchors trained on each; of a two-stage detector those
    of its first stage. It takes one more forward pass, in evaluation mode, that leaves no trace: batch norms and all random number
    generators are as before.
    """

    def __init__(self) -> None:
        self._started = self._learning_rate = math.nan

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)
        self._started, self._learning_rate = time.monotonic(), math.nan

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        first = trainer.global_step == 0 and batch_idx == 0 and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if first and trainer.is_global_zero:
            model = cast(DetectionTask, pl_module)
            names = cast(CocoDataModule, trainer.datamodule).class_names  # type: ignore[attr-defined]
            shown = Batch(batch.images[:IMAGES], batch.targets[:IMAGES])
            with trainer.precision_plugin.forward_context():
                predictions, assignment = first_assignment(model, shown)
            draw_assignment(list(shown.images), shown.targets, predictions, assignment, names, _folder(trainer) / "train_batches.png")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not math.isnan(self._learning_rate):  # a resumed run may end an epoch of which it has trained nothing
            pl_module.log_dict({"seconds": time.monotonic() - self._started, "lr": self._learning_rate}, sync_dist=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run and not trainer.sanity_checking:  # type: ignore[attr-defined]
            write_results(_folder(trainer))


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir)


def first_assignment(model: DetectionTask, batch: Batch) -> tuple[RawPredictions, Assignment]:
    """The anchors of a detector (of its first stage, if it has two) and the boxes they are trained on; changes nothing.

    Args:
        model: the training task.
        batch: on the device of the model.

    Returns:
        The predictions, and the assignment of their anchors.
    """
    images = batch.images.contiguous(memory_format=model.memory_format)
    with torch.no_grad(), isolate_rng(), _evaluating(model):
        if model.first_stage is None:
            predictions = model(images)
            return predictions, model.assigner(predictions, batch.targets)
        predictions = cast(TwoStageDetector, model.detector).propose(images).predictions
        return predictions, model.first_stage.assigner(predictions, [target.of_one_class() for target in batch.targets])


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class EMAWeights(WeightAveraging):
    """Validates and saves an exponential moving average of the detector's weights instead of the weights themselves.

    ``average = d_t * average + (1 - d_t) * weights`` after every optimizer step t = 1, 2, ..., with ``d_t = min(decay, t / (t + warmup))``:
    at the beginning the average spans about the last ``t / warmup`` steps, so that it does not drag the random weights of the start along.

    Averaged are the parameters of the detector and its floating-point buffers, which are the statistics of its batch norms. All else is
    copied: counters, and what the objective remembers (the self-balance of aLRP weighs the training, which goes on with its own weights).

    A checkpoint holds the average as ``state_dict``, which every command reads, and the weights of the training as
    ``current_model_state``, from which ``--ckpt_path last`` goes on. When the training is over the model is the average.

    Args:
        decay: d, the largest, in [0, 1); 0.999 averages about the last 1,000 steps.
        warmup: > 0, or 0 for the full decay from the first step on.

    Raises:
        ValueError: an option out of its range; a ``ModelCheckpoint`` with ``save_weights_only`` (Lightning does not let callbacks take part
            in such files: it would hold weights that were not validated).

    Source:
        Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; with a decay: Tarvainen and Valpola, Mean
        Teachers, NeurIPS 2017. Swapping and saving are Lightning's ``WeightAveraging``.

    Example:
        >>> [round(EMAWeights(decay=0.9, warmup=10).decay_at(step), 3) for step in (1, 10, 90, 1000)]
        [0.091, 0.5, 0.9, 0.9]
    """

    def __init__(self, decay: float = 0.999, warmup: float = 10.0) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: a number in [0, 1) expected, got {decay}")
        if not 0 <= warmup < math.inf:
            raise ValueError(f"warmup: a finite number >= 0 expected, got {warmup}")
        super().__init__()
        self.decay = decay
        self.warmup = warmup

    def decay_at(self, step: int) -> float:
        """How much of the average is kept at optimizer step ``step`` >= 1."""
        return min(self.decay, step / (step + self.warmup))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if any(isinstance(callback, ModelCheckpoint) and callback.save_weights_only for callback in trainer.callbacks):  # type: ignore[attr-defined]
            raise ValueError("save_weights_only: False expected of every ModelCheckpoint beside EMAWeights, got True")
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._averaged().to(pl_module.device)  # it is copied before Lightning moves the model

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        # Not AveragedModel.update_parameters: it reads a counter back from the device at every step and averages the self-balance too.
        if trainer.global_step == self._latest_update_step:
            return
        self._latest_update_step = trainer.global_step
        averaged, current, copies, originals = [], [], [], []
        of_detector = {name for name, _ in _tensors(pl_module) if name.startswith("detector.")}
        for (name, mean), (_, new) in zip(_tensors(self._averaged()), _tensors(pl_module), strict=True):
            if name in of_detector and mean.is_floating_point():
                averaged.append(mean)
                current.append(new)
            else:
                copies.append(mean)
                originals.append(new)
        torch._foreach_lerp_(averaged, current, 1 - self.decay_at(trainer.global_step))
        if copies:
            torch._foreach_copy_(copies, originals)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None:  # outside of fit the average, which is the state_dict, is all that is needed
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _averaged(self) -> nn.Module:
        assert self._average_model is not None
        return self._average_model.module


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from ((name, parameter.detach()) for name, parameter in module.named_parameters())
    yield from module.named_buffers()
