"""The training task: detector, assignment, objective and decoding under Lightning, and nothing that Lightning has already.

One forward pass over a validation batch gives both the validation loss and the detections, because a detector does not know the
targets. Needs the extra: ``pip install 'lossbox[train]'``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..decoding import MultiScale, merge_tiles
from ..detectors.proposals import add_true_boxes
from ..metrics import DetectionColumns, GroundTruth
from ..metrics.evaluator import Evaluator
from ..objective import Objective, Part, weighted_sum
from ..records import Assignment, Batch, Detections, Proposals, RawPredictions, Targets
from .budget import TICKS, TimeBudget
from .checkpoint import FORMAT, check_format
from .watch import LossWatch, gradient_magnitudes, gradient_ratio


class Assigner(Protocol):
    """Says on which target each anchor is trained."""

    def __call__(self, predictions: RawPredictions, targets: list[Targets]) -> Assignment: ...


class Decoding(Protocol):
    """Turns raw predictions into the detections of each image."""

    def __call__(self, predictions: RawPredictions, sizes: list[tuple[int, int]]) -> list[Detections]: ...


class Optimization(Protocol):
    """Builds the optimizer and the learning rate of every step of a run of ``total_steps`` steps."""

    def __call__(self, model: nn.Module, total_steps: int) -> tuple[Optimizer, LRScheduler]: ...


@dataclass(frozen=True)
class FirstStage:
    """How the first stage of a two-stage detector is trained: on the same boxes, all of one class.

    Its proposals are chosen the same way in training and in evaluation; in training the true boxes may join them.

    Attributes:
        assigner: (predictions, targets) -> Assignment, of the anchors of the first stage.
        objective: gives the parts of its loss; ``rpn_`` goes before their names.
        weight: of the whole of it beside the loss of the second stage, >= 0.
        add_true_boxes: in training the true boxes join the proposals, so that the second stage has positives from the first step on.

    Raises:
        ValueError: a weight out of its range.
    """

    assigner: Assigner
    objective: Objective
    weight: float = 1.0
    add_true_boxes: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"first_stage.weight: a finite number >= 0 expected, got {self.weight}")


class TwoStageDetector(Protocol):
    """A detector whose proposals are assigned between its two stages."""

    def propose(self, images: Tensor) -> Proposals: ...

    def refine(self, features: list[Tensor], boxes: Tensor) -> RawPredictions: ...


class Losses(NamedTuple):
    """What one batch comes to: the last predictions, their assignment, and all parts of the loss with their weights."""

    predictions: RawPredictions
    assignment: Assignment
    parts: dict[str, Part]


class DetectionTask(LightningModule):
    """Trains and validates one detector.

    Logged, on Lightning's logged steps only: the unweighted parts of the loss and the weighted ``total`` (``train/...``), the weight of
    each part (``weight/...``: the self-balance), the gradient balance, and per validation the parts (``val/...``: the mean over the
    batches, each counted by its images) and the metrics
    (``val/AP``, ``val/oLRP``, ...). ``metrics`` keeps everything the last validation found, per class too; ``validated_at`` is its step.
    Every function in ``observers`` is called with the batch and its :class:`Losses` in each training step, before the backward pass.

    A loss that is not finite stops the run with the step, the part and the images. On the CPU it is looked at every step, elsewhere
    on the logged steps (a look waits for the device), and then over all steps since the last look.

    Args:
        detector: images (b, 3, h, w) in [0, 1] -> RawPredictions.
        assigner: (predictions, targets) -> Assignment.
        objective: gives the parts of the loss with their weights; any of ``lossbox.objective``.
        decoder: (predictions, sizes) -> the detections of each image.
        optimizer: builds the optimizer and its schedule; WarmupCosine or WarmupSteps, or your own.
        first_stage: how the proposals of a two-stage detector (FasterRCNN) are trained; assigner and objective are then those of its
            second stage. None for every other detector.
        multi_scale: detect at several scales and in mirror images, in validation and prediction; None looks once.
        channels_last: lay images and weights out as NHWC; faster on CPUs and on tensor cores.

    Raises:
        ValueError: a first stage for a detector that has none, or none for one that has.
    """

    def __init__(
        self,
        detector: nn.Module,
        assigner: Assigner,
        objective: Objective,
        decoder: Decoding,
        optimizer: Optimization,
        *,
        first_stage: FirstStage | None = None,
        multi_scale: MultiScale | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if hasattr(detector, "propose") != (first_stage is not None):
            needs = "one expected, with assigner and objective of the proposals" if first_stage is None else "none expected"
            raise ValueError(f"first_stage: {needs} for {type(detector).__name__}, got {first_stage}")
        self.detector = detector.to(memory_format=torch.channels_last) if channels_last else detector
        self.assigner = assigner
        self.objective = objective
        self.first_stage = first_stage
        self.first_objective = None if first_stage is None else first_stage.objective  # registered: what it remembers is state
        self.decoder = decoder
        self.multi_scale = multi_scale
        self.optimizer = optimizer
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.metrics: dict[str, Any] = {}
        self.validated_at: int | None = None
        self._evaluator: Evaluator | None = None
        self.observers: list[Callable[[Batch, Losses], None]] = []
        self._watch = LossWatch()
        self._balance: Tensor | None = None
        self._epochs_ended = 0
        self.budget: TimeBudget | None = None

    def forward(self, images: Tensor) -> RawPredictions:
        predictions: RawPredictions = self.detector(images.contiguous(memory_format=self.memory_format))
        return predictions

    def detect(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
        """The detections in images (b, 3, h, w) of these (height, width), in their frame; at several scales where that is asked for."""

        def once(images: Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
            return self.decoder(self(images), sizes)

        return once(images, sizes) if self.multi_scale is None else self.multi_scale(images, sizes, once)

    def in_images(self, found: Sequence[Detections], targets: Sequence[Targets]) -> dict[int, Detections]:
        """What was found in images or tiles, by image id, in pixels of the files on disk; that in the tiles of one image is merged."""
        parts: dict[int, list[Detections]] = {}
        for one, target in zip(found, targets, strict=True):
            parts.setdefault(target.image_id, []).append(one.resized(target.size, target.original_size).moved(target.corner))
        return {image_id: merge_tiles(of_image, self.decoder) for image_id, of_image in parts.items()}

    def configure_optimizers(self) -> Any:
        total_steps = self.trainer.estimated_stepping_batches if self.budget is None else TICKS
        if not math.isfinite(total_steps):
            raise ValueError("the schedule needs the length of the run: set trainer.max_epochs or trainer.max_steps, got neither")
        optimizer, schedule = self.optimizer(self, int(total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any) -> None:
        if self.budget is None:
            scheduler.step()
        else:
            self.budget.step(scheduler)

    def losses(self, batch: Batch) -> Losses:
        """One pass over a batch, in training and in validation: every part of the loss, and what the detections are decoded from."""
        if self.first_stage is None:
            return self._assign_and_weigh(self(batch.images), batch.targets)
        detector, first_stage = cast(TwoStageDetector, self.detector), self.first_stage
        found = detector.propose(batch.images.contiguous(memory_format=self.memory_format))
        objects = [target.of_one_class() for target in batch.targets]
        first: dict[str, Part] = first_stage.objective(found.predictions, first_stage.assigner(found.predictions, objects), objects)
        parts = {f"rpn_{name}": Part(part.value, first_stage.weight * part.weight) for name, part in first.items()}
        added = self.training and first_stage.add_true_boxes
        boxes = add_true_boxes(found.boxes, batch.targets) if added else found.boxes
        second = self._assign_and_weigh(detector.refine(found.features, boxes), batch.targets)
        return second._replace(parts=parts | second.parts)

    def _assign_and_weigh(self, predictions: RawPredictions, targets: list[Targets]) -> Losses:
        assignment = self.assigner(predictions, targets)
        return Losses(predictions, assignment, self.objective(predictions, assignment, targets))

    # -- training

    def on_train_start(self) -> None:
        # an epoch shorter than the interval is logged at its end
        self.trainer.log_every_n_steps = min(self.trainer.log_every_n_steps, int(self.trainer.num_training_batches))  # type: ignore[attr-defined]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # The period of the self-balance is the epoch. It ends here and not in on_train_epoch_end, which comes after the validation
        # (whose checkpoint would miss it) and which Lightning skips or repeats on some resumes.
        while self._epochs_ended < self.current_epoch:
            self.objective.end_epoch()
            if self.first_stage is not None:
                self.first_stage.objective.end_epoch()
            self._epochs_ended += 1

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.losses(batch)
        predictions, assignment, parts = losses
        for observe in self.observers:
            observe(batch, losses)
        total = weighted_sum(parts)

        logged = (self.global_step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        self._watch.add(self.global_step, [t.image_id for t in batch.targets], {name: part.value for name, part in parts.items()})
        if logged or self.device.type == "cpu":
            self._watch.look()
        if logged:
            # the mean over the processes, on logged steps only: a process whose images are empty would say 0 for all
            self.log_dict({f"train/{name}": part.value.detach() for name, part in parts.items()}, sync_dist=True)
            self.log_dict({f"weight/{name}": torch.as_tensor(part.weight, device=self.device) for name, part in parts.items()})
            self.log("train/total", total.detach(), prog_bar=True, sync_dist=True)
            keep = partial(self._keep_balance, assignment=assignment, targets=batch.targets)
            predictions.logits.register_hook(keep)  # type: ignore[no-untyped-call]
        return total

    def _keep_balance(self, gradient: Tensor, assignment: Assignment, targets: list[Targets]) -> None:
        self._balance = gradient_magnitudes(gradient, assignment, targets)

    def on_after_backward(self) -> None:
        if self._balance is not None:
            # of all processes: what a ranking over them pushes down on one it pulls up on another
            self.log("gradient_balance", gradient_ratio(self.trainer.strategy.reduce(self._balance, reduce_op="sum")))
            self._balance = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._watch.look()
        checkpoint["lossbox_format"] = FORMAT
        checkpoint["lossbox_epochs_ended"] = self._epochs_ended
        checkpoint["lossbox_random_state"] = torch.get_rng_state()  # of the CPU: a sampling assigner draws from it
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:  # the id and name of each label, for detections on images without annotations
            checkpoint["lossbox_categories"] = [[*category] for category in zip(data.category_ids, data.class_names, strict=True)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_format(checkpoint, "ckpt_path: the checkpoint")
        self._epochs_ended = checkpoint["lossbox_epochs_ended"]
        torch.set_rng_state(checkpoint["lossbox_random_state"].cpu())

    # -- validation

    def on_validation_epoch_start(self) -> None:
        if self._evaluator is None:
            self._evaluator = Evaluator(self.trainer.datamodule.val_ground_truth)  # type: ignore[attr-defined]
        self._evaluator.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        found: list[Detections] = []
        for some in batch.split(self.trainer.datamodule.batch_size):  # type: ignore[attr-defined]  # an image may have more tiles
            predictions, _, parts = self.losses(some)
            self.log_dict({f"val/{name}": part.value for name, part in parts.items()}, batch_size=len(some.targets), sync_dist=True)
            sizes = [target.size for target in some.targets]
            found += self.decoder(predictions, sizes) if self.multi_scale is None else self.detect(some.images, sizes)
        assert self._evaluator is not None
        in_images = self.in_images(found, batch.targets)
        self._evaluator.update(list(in_images), list(in_images.values()))

    def on_validation_epoch_end(self) -> None:
        assert self._evaluator is not None
        self.metrics = self._evaluator.compute(seen_only=True)
        self.validated_at = self.global_step
        self.log_dict({f"val/{name}": value for name, value in self.metrics.items() if isinstance(value, float)})

    def detected(self) -> tuple[GroundTruth, DetectionColumns]:
        """The annotations of the images of the last validation and the detections in them; every process must call it."""
        if self._evaluator is None:
            raise RuntimeError("nothing was validated yet")
        return self._evaluator.columns(seen_only=True)
