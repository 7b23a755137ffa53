"""``lossbox fit`` and ``lossbox validate``: LightningCLI around the training task, and what every run leaves in its folder.

OUT/config.yaml                    the resolved options: every one, with the defaults
OUT/checkpoints/last.ckpt          after every epoch; ``--ckpt_path last`` goes on from it
OUT/checkpoints/best.ckpt          of the highest validation AP
OUT/csv/version_N/metrics.csv      the logs, one file a start
OUT/events.out.tfevents.*          the same for ``tensorboard --logdir OUT``
OUT/metrics.json                   the last validation: AP, optimal LRP, per class
OUT/thresholds.csv                 of the same: the score at which to cut each class, for ``lossbox predict --thresholds``
OUT/run.json                       when the training is finished: minutes, epochs, steps
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar, Timer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from . import report
from .data.module import CocoDataModule
from .training import Detection


class EpochLines(Callback):
    """Says what is trained, then one plain line an epoch; beside a progress bar as well as without a terminal."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        count = sum(parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad)
        steps = f"{trainer.num_training_batches} steps an epoch"
        where = f"on {trainer.strategy.root_device.type} in {trainer.precision}, {steps}; results in {trainer.default_root_dir}"
        print(f"training {type(pl_module.detector).__name__}: {count / 1e6:.1f} million parameters, {where}", flush=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        validated = trainer.fit_loop.epoch_loop._should_check_val_epoch()
        wanted = [name for name in trainer.callback_metrics if name.startswith("train/")] + ["val/AP", "val/oLRP"] * validated
        numbers = "  ".join(f"{name} {float(trainer.callback_metrics[name]):.3f}" for name in wanted if name in trainer.callback_metrics)
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {numbers}  {time.monotonic() - self._started:.0f} s", flush=True)


class LossboxCLI(LightningCLI):
    """Parses, builds, runs. ``args`` as on the command line: ``["fit", "--config", ...]``."""

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            Detection,
            CocoDataModule,
            args=args,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={
                "prog": "lossbox",
                "fit": {"description": "Train a detector.", "usage": "lossbox fit --config RECIPE [options]"},
                "validate": {"description": "Measure a trained detector.", "usage": "lossbox validate --config RECIPE [options]"},
            },
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        offered = LightningCLI.subcommands()
        return {name: offered[name] | {"verbose", "weights_only"} for name in ("fit", "validate")}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        # without Lightning's warning that sys.argv holds something too
        self.config = parser.parse_args(args)  # type: ignore[arg-type]

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=str, default="runs/latest", help="The folder of the run: checkpoints, logs, metrics.json.")
        parser.link_arguments("data.num_classes", "model.detector.init_args.num_classes", apply_on="instantiate")

    @property
    def out(self) -> Path:
        return Path(self._get(self.config, "out"))

    def before_instantiate_classes(self) -> None:
        section = self.config[str(self.subcommand)]
        last = self.out / "checkpoints" / "last.ckpt"
        if self.subcommand == "validate" and section.ckpt_path is None:
            section.ckpt_path = "last"
        if section.ckpt_path in ("last", "best"):
            path = last.with_name(f"{section.ckpt_path}.ckpt")
            if not path.is_file():
                raise FileNotFoundError(f"ckpt_path: no {path}; --out names the folder of the run, --ckpt_path a checkpoint file")
            section.ckpt_path = str(path)
        elif self.subcommand == "fit" and section.ckpt_path is None and last.is_file() and not section.trainer.fast_dev_run:
            raise ValueError(f"out: {self.out} holds a run already; go on with it by --ckpt_path last, or name another folder by --out")
        if self.subcommand == "validate":
            self.save_config_callback = None  # it would overwrite the config of the training

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        options = dict(self._get(self.config_init, "trainer"))
        callbacks: list[Callback] = list(options["callbacks"] or [])
        loggers: list[Logger] | bool = False
        if self.subcommand == "fit":
            loggers = [TensorBoardLogger(self.out, name="", version=""), CSVLogger(self.out, name="csv")]
            callbacks.append(Timer(verbose=False))
            if options["enable_checkpointing"] is not False:
                callbacks += self._checkpoints()
        callbacks.append(EpochLines())
        if not sys.stdout.isatty():
            kwargs["enable_progress_bar"] = False
        elif options["enable_progress_bar"] is not False:
            callbacks.append(RichProgressBar(refresh_rate=options["log_every_n_steps"] or 50))
        if options["enable_model_summary"] is None:
            kwargs["enable_model_summary"] = False
        if options["logger"] in (None, True):
            kwargs["logger"] = loggers
        return super().instantiate_trainer(callbacks=callbacks, default_root_dir=str(self.out), **kwargs)

    def _checkpoints(self) -> list[Callback]:
        """Two, because the last one must be written whether or not this epoch was validated."""
        keep: dict[str, Any] = {
            "dirpath": self.out.absolute() / "checkpoints",
            "save_on_train_epoch_end": True,
            "enable_version_counter": False,
        }
        return [
            ModelCheckpoint(filename="last", **keep),
            ModelCheckpoint(filename="best", monitor="val/AP", mode="max", save_weights_only=True, **keep),
        ]

    def fit(self, **kwargs: Any) -> None:
        """Trains, then writes the numbers of the last epoch (not of the best one) and how long the training took."""
        trainer = self.trainer
        trainer.fit(**kwargs, weights_only=True)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.model.validated_at != trainer.global_step:
            trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
        if trainer.is_global_zero:
            timer = next(callback for callback in trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
            run = {"minutes": timer.time_elapsed("train") / 60, "epochs": trainer.current_epoch, "steps": trainer.global_step}
            self._write_metrics()
            report.write_json(self.out / "run.json", run)

    def validate(self, **kwargs: Any) -> None:
        """Validates one checkpoint, prints the tables, writes metrics.json and thresholds.csv."""
        self.trainer.validate(**kwargs, verbose=False, weights_only=True)
        if self.trainer.is_global_zero:
            self._write_metrics()
            report.print_metrics(self.model.metrics)
            print(
                f"{kwargs['ckpt_path']}: all numbers in {self.out / 'metrics.json'}, "
                f"the score at which to cut each class in {self.out / 'thresholds.csv'}"
            )

    def _write_metrics(self) -> None:
        report.write_json(self.out / "metrics.json", self.model.metrics)
        report.write_thresholds(self.out / "thresholds.csv", self.model.metrics)

    def draw_sheet(self, path: Path, *, pictures: int = 16) -> Path:
        """Draws the first pictures of the validation part with true and predicted boxes, each class cut at its LRP-optimal score."""
        batches, drawn = iter(self.datamodule.val_dataloader()), 0
        images, targets, found = [], [], []
        self.model.eval()
        while drawn < pictures and (batch := next(batches, None)) is not None:
            with torch.inference_mode():
                found += self.model.decoder(self.model(batch.images), [target.size for target in batch.targets])
            images += list(batch.images)
            targets += batch.targets
            drawn = len(images)
        thresholds = {label: row["threshold"] for label, row in enumerate(self.model.metrics["per_class"])}
        return report.draw_sheet(images[:pictures], targets, found, self.datamodule.class_names, path, thresholds=thresholds)
