"""``lossbox fit`` and ``lossbox validate``: LightningCLI around the training task, and what every run leaves in its folder.

OUT/config.yaml                    the resolved options: every one, with the defaults
OUT/checkpoints/last.ckpt          after every epoch; ``--ckpt_path last`` goes on from it
OUT/checkpoints/best.ckpt          of the highest validation AP
OUT/train_batches.png              the first batch, its boxes and the anchors trained on each
OUT/csv/version_N/metrics.csv      the log, one file for each start of the run
OUT/results.csv                    of the same, a row per epoch: the parts of the loss, weights, learning rate, validation
OUT/events.out.tfevents.*          the same for ``tensorboard --logdir OUT``; trainer.logger names other loggers of Lightning's
OUT/metrics.json                   the last validation: AP, optimal LRP, per class
OUT/thresholds.csv                 of the same: the score at which to cut each class, for ``lossbox predict --thresholds``
OUT/images.png                   of the same: images with predicted and true boxes
OUT/ground_truth.json              of the same: the annotations that were validated, and
OUT/detections.json                the detections in them, in COCO's formats
OUT/confusion_matrix.json          of the same: which class was taken for which
OUT/learning_rate.json, .png       where ``learning_rate`` was ``auto``: the loss at each rate of the search
OUT/run.json                       when the training is finished: minutes, epochs, steps, the command
OUT/report.html                    all of it as a page, see ``lossbox report``
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar, Timer, WeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from .. import report
from ..coco.read import CocoAnnotations
from ..data.module import CocoDataModule
from ..decoding import write_thresholds
from ..writable import check_writable
from .batch_size import choose_batch_size
from .budget import TimeBudget
from .callbacks import IMAGES, LastEpoch, RunFiles
from .checkpoint import FORMAT, check_format, checkpoint_of, config_of, read_checkpoint, read_config, start_from
from .explain import as_typed, explained
from .from_data import BATCH_SIZE, LEARNING_RATE, settle_auto, settle_tried
from .learning_rate import find_learning_rate, write_search
from .precision import device_of, precision_in_use, resolve
from .progress import ProgressLines
from .summary import summary
from .task import DetectionTask

DESCRIPTIONS = {"fit": "Train a detector.", "validate": "Measure a trained detector."}


class TrainerOfAnyPrecision(Trainer):
    """Lightning's Trainer, whose option ``precision`` may say ``auto``; LossboxCLI puts a precision in its place before it builds one."""

    def __init__(self, *args: Any, precision: _PRECISION_INPUT | Literal["auto"] | None = "auto", **kwargs: Any) -> None:
        super().__init__(*args, precision=precision, **kwargs)  # type: ignore[arg-type]


class LossboxCLI(LightningCLI):
    """Parses, builds, runs. ``args`` as on the command line: ``["fit", "--config", ...]``.

    ``until`` stops before: "options" once they are parsed and checked as far as that can be done without the data, of which nothing is
    read; "built" once everything is built.
    """

    def __init__(self, args: list[str], *, until: Literal["options", "built", "done"] = "done") -> None:
        self._words, self._until = args, until
        self._tries: list[str] = []
        self._train: CocoAnnotations | None = None  # what `auto` read of the training part
        try:
            self._run()
        except (ValueError, FileNotFoundError) as error:
            said = self._as_typed(str(error))
            if type(error) not in (ValueError, FileNotFoundError) or said == str(error):
                raise
            raise type(error)(said) from error
        except (KeyboardInterrupt, SystemExit) as stopped:  # Lightning turns Ctrl-C into an exit
            stopped.hint = self._how_to_go_on()  # type: ignore[union-attr]  # read by lossbox.__main__, which does not have the run
            raise

    def _how_to_go_on(self) -> str:
        """What to do after an interruption of ``fit``."""
        if self._words[0] != "fit" or not hasattr(self, "config"):
            return ""
        if (self.out / "checkpoints" / "last.ckpt").is_file():
            return "--ckpt_path last goes on from the last whole epoch"
        return "no epoch was finished; the same command begins again"

    def _run(self) -> None:
        command, strict = self._words[0], {"exit_on_error": False, "allow_abbrev": False}
        usage = f"lossbox {command} --config RECIPE [options]"
        super().__init__(
            DetectionTask,
            CocoDataModule,
            trainer_class=TrainerOfAnyPrecision,
            args=self._words,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "lossbox", **strict, command: {"description": DESCRIPTIONS[command], "usage": usage, **strict}},
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that is asked for: each has a parser of its own, which takes half a second to build."""
        command = self._words[0]
        return {command: LightningCLI.subcommands()[command] | {"verbose", "weights_only"}}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        # without Lightning's warning that sys.argv holds something too
        try:
            self.config = parser.parse_args(args)  # type: ignore[arg-type]
        except ArgumentError as error:
            known = self._subcommand_parsers[self._words[0]]._option_string_actions
            raise ValueError(explained(str(error), known)) from None
        for option in ("ckpt_path", "init_from"):  # Lightning looks into them next, and fails in ways of its own
            if (path := Path(self.config[self._words[0]].get(option) or "")).is_file():
                read_checkpoint(path, option=option)

    def _as_typed(self, message: str) -> str:
        """A message that begins with the name of an argument, with the option in its place."""
        section = getattr(self, "config", {}).get(self._words[0])
        if section is None:
            return message
        return as_typed(message, section.keys(), self._subcommand_parsers[self._words[0]]._option_string_actions)

    def _run_subcommand(self, subcommand: str) -> None:
        if self._until == "done":
            super()._run_subcommand(subcommand)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=str, default="runs/latest", help="The folder of the run: checkpoints, logs, metrics.json.")
        parser.add_argument("--lossbox_format", type=int, default=FORMAT, help="The version of what a run leaves; config.yaml keeps it.")
        parser.add_argument("--artifacts", type=bool, default=True, help="Leave results.csv and images in the folder of the run.")
        parser.add_argument(
            "--minutes", type=float | None, default=None, help="fit: a time for training and validation, in place of trainer.max_epochs."
        )
        parser.add_argument(
            "--init-from", type=str | None, default=None, help="fit: begin with the weights of this checkpoint, classes matched by name."
        )
        parser.link_arguments("data.num_classes", "model.detector.init_args.num_classes", apply_on="instantiate")

    @property
    def out(self) -> Path:
        return Path(self._get(self.config, "out"))

    @property
    def artifacts(self) -> bool:
        return bool(self._get(self.config, "artifacts"))

    def before_instantiate_classes(self) -> None:
        section = self.config[str(self.subcommand)]
        check_format(section.as_dict(), f"config: {', '.join(map(str, section.config or ['the recipe']))}")
        check_writable("out", self.out, folder=True)
        last = self.out / "checkpoints" / "last.ckpt"
        if self.subcommand == "fit" and section.init_from is not None and section.ckpt_path is not None:
            raise ValueError(
                f"init_from: not beside ckpt_path, got {section.init_from} and {section.ckpt_path}; to go on with a run that began so, "
                f"--ckpt_path with --init-from null"
            )
        if self.subcommand == "validate" and section.ckpt_path is None:
            section.ckpt_path = "last"
        if section.ckpt_path is not None:
            section.ckpt_path = checkpoint_of(self.out, section.ckpt_path, option="ckpt_path")
            read_checkpoint(Path(section.ckpt_path), option="ckpt_path")
        elif self.subcommand == "fit" and last.is_file() and not section.trainer.fast_dev_run:
            raise ValueError(f"out: {self.out} holds a run already; go on with it by --ckpt_path last, or name another folder by --out")
        if self.subcommand == "fit":
            self._settle_minutes(section)
        if self._until == "options":
            return
        section.trainer.precision = self._precision(section)
        if self.subcommand == "validate":
            self.save_config_callback = None  # it would overwrite the config of the training
        self._train = settle_auto(section)
        took = settle_tried(section)
        if self.subcommand == "fit":
            self._tries = [name for name, known in took.items() if not known]  # decided by before_fit, which has a model to try

    def instantiate_classes(self) -> None:
        if self._until == "options":
            self._check_data_options()
        else:
            super().instantiate_classes()

    def _check_data_options(self) -> None:
        """Builds the data module alone, which looks at its options and reads nothing yet; what says ``auto`` is decided by the data."""
        parser: ArgumentParser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(CocoDataModule, "data")
        options = self.config[self._words[0]].data.as_dict()
        said = {name: value for name, value in options.items() if value != "auto"}
        parser.instantiate_classes(parser.parse_object({"data": said}))

    def _settle_minutes(self, section: Any) -> None:
        """Where the run is limited by time, no number of epochs or steps limits it; a run that goes on keeps what it began with."""
        typed = {word.split("=")[0] for word in self._words}
        began = config_of(section.ckpt_path) if section.ckpt_path is not None else None
        if began is not None and began.is_file():
            minutes = read_config(began).get("minutes")
            if "--minutes" in typed and section.minutes != minutes:
                raise ValueError(f"minutes: a run that goes on keeps its length, {minutes} as {began} says, got {section.minutes}")
            section.minutes = minutes
        if section.minutes is None:
            return
        if not 0 < section.minutes < math.inf:
            raise ValueError(f"minutes: a finite number > 0 expected, got {section.minutes}")
        for name in ("max_epochs", "max_steps", "max_time"):
            if f"--trainer.{name}" in typed:
                both = f"{section.minutes:g} and {section.trainer[name]}"
                raise ValueError(f"minutes: not beside --trainer.{name}, got {both}; --minutes null takes the budget away")
        section.trainer.max_epochs, section.trainer.max_steps, section.trainer.max_time = -1, -1, None

    def _precision(self, section: Any) -> Any:
        """The precision that the command line names; else that of the run that goes on, or what is fast on this machine."""
        precision, device = section.trainer.precision, device_of(section.trainer.accelerator)
        if any(word.split("=")[0] == "--trainer.precision" for word in self._words) and precision != "auto":
            return precision
        if self.subcommand == "validate":
            return precision_in_use(precision, device)
        if precision == "auto" and section.ckpt_path is not None:
            path = config_of(section.ckpt_path)
            if path.is_file():
                precision = read_config(path)["trainer"].get("precision", precision)
        return resolve(precision, device)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        options = dict(self._get(self.config_init, "trainer"))
        callbacks: list[Callback] = list(options["callbacks"] or [])
        loggers: list[Logger] | bool = False
        if self.subcommand == "fit":
            loggers = [TensorBoardLogger(self.out, name="", version=""), CSVLogger(self.out, name="csv")]
            minutes, timer = self._get(self.config, "minutes"), Timer(verbose=False)
            callbacks += [timer, LastEpoch() if minutes is None else TimeBudget(minutes, timer)]
            if self.artifacts:
                callbacks.append(RunFiles())
            if options["enable_checkpointing"] is not False:
                # Lightning does not let callbacks put the average into a file of weights only.
                last, best = self._checkpoints(whole=any(isinstance(callback, WeightAveraging) for callback in callbacks))
                callbacks += [last] if options["limit_val_batches"] == 0 else [last, best]
        else:
            kwargs["enable_checkpointing"] = False  # Lightning's own would warn of a folder that was moved
        callbacks.append(ProgressLines())
        if not sys.stdout.isatty():
            kwargs["enable_progress_bar"] = False
        elif options["enable_progress_bar"] is not False:
            callbacks.append(RichProgressBar(refresh_rate=options["log_every_n_steps"] or 50))
        if options["enable_model_summary"] is None:
            kwargs["enable_model_summary"] = False
        if options["logger"] in (None, True):
            kwargs["logger"] = loggers
        return super().instantiate_trainer(callbacks=callbacks, default_root_dir=str(self.out), **kwargs)

    def _checkpoints(self, *, whole: bool) -> list[Callback]:
        """Two, because the last one must be written whether or not this epoch was validated."""
        keep: dict[str, Any] = {
            "dirpath": self.out.absolute() / "checkpoints",
            "save_on_train_epoch_end": True,
            "enable_version_counter": False,
        }
        return [
            ModelCheckpoint(filename="last", **keep),
            ModelCheckpoint(filename="best", monitor="val/AP", mode="max", save_weights_only=not whole, **keep),
        ]

    def before_fit(self) -> None:
        """Begins with the weights of another run where ``--init-from`` names one; decides what is ``auto`` and has to be tried."""
        self.datamodule.train_as_read = self._train
        self._say_tiles("fit")
        path = self._get(self.config, "init_from")
        if path is not None:
            content = read_checkpoint(Path(path), option="init_from")
            line = start_from(self.model.detector, content, self.datamodule.class_names, source=path)
            if self.trainer.is_global_zero:
                print(line, flush=True)

        if self._tries and self.trainer.world_size > 1:
            raise ValueError(f"{self._tries[0].rpartition('.')[2]}: a number expected for {self.trainer.world_size} processes, got auto")
        section, where = self.config["fit"], (self.trainer.strategy.root_device, self.trainer.precision_plugin.forward_context)
        if BATCH_SIZE in self._tries:
            size, reason = choose_batch_size(self.model, self.datamodule, *where)
            self.datamodule.batch_size = section[BATCH_SIZE] = size
            print(f"batch_size: {size} (auto: {reason})", flush=True)
        if LEARNING_RATE in self._tries:
            search = find_learning_rate(self.model, self.datamodule, *where, clip=self.trainer.gradient_clip_val)
            self.model.optimizer = replace(self.model.optimizer, learning_rate=search.found)
            section[LEARNING_RATE] = search.found
            print(f"learning_rate: {search.found:g} (auto: {write_search(self.out, search, draw=self.artifacts)})", flush=True)

    def _say_tiles(self, stage: Literal["fit", "validate"]) -> None:
        if self.trainer.is_global_zero and (line := self.datamodule.describe_tiles(stage)) is not None:
            print(line, flush=True)

    def fit(self, **kwargs: Any) -> None:
        """Trains, then writes the numbers of the last epoch (not of the best one) and how long the training took.

        With ``trainer.limit_val_batches: 0`` there are no such numbers: no best.ckpt, metrics.json and what is drawn of them.
        """
        trainer, start = self.trainer, time.process_time()
        trainer.fit(**kwargs, weights_only=True)
        cpu_minutes = (time.process_time() - start) / 60  # of all threads of this process, of this call
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        validates = trainer.limit_val_batches != 0
        if validates and self.model.validated_at != trainer.global_step:
            trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
        if trainer.is_global_zero:
            timer = next(callback for callback in trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
            run: dict[str, Any] = {
                "minutes": timer.time_elapsed("train") / 60,
                "cpu_minutes": cpu_minutes,
                "epochs": trainer.current_epoch,
                "steps": trainer.global_step,
                "accelerator": self.model.device.type,
                "command": self._words,
                "folder": str(Path.cwd()),
                "precision": str(trainer.precision),
            }
            if validates:
                self._write_metrics()
            report.write_json(self.out / "run.json", run)
        if self.artifacts:
            self._report(validates)
        if trainer.is_global_zero:
            print(f"trained in {run['minutes']:.1f} minutes" + ("" if validates else "  not validated (trainer.limit_val_batches is 0)"))
            if validates:
                print(summary(self.model.metrics, self.out))
            elif self.artifacts:
                print(f"the report, for a browser: {self.out / 'report.html'}")

    def validate(self, **kwargs: Any) -> None:
        """Validates one checkpoint, prints the tables, writes metrics.json and thresholds.csv, draws what was found."""
        if self.trainer.limit_val_batches == 0:
            raise ValueError("trainer.limit_val_batches: more than 0 expected, to validate, got 0; the folder's config.yaml may say so")
        self._say_tiles("validate")
        self.trainer.validate(**kwargs, verbose=False, weights_only=True)
        if self.trainer.is_global_zero:
            self._write_metrics()
            report.print_metrics(self.model.metrics)
            print(
                f"{kwargs['ckpt_path']}: all numbers in {self.out / 'metrics.json'}, "
                f"the score at which to cut each class in {self.out / 'thresholds.csv'}"
            )
        if self.artifacts:
            self._report()
            if self.trainer.is_global_zero:
                print(f"the report, for a browser: {self.out / 'report.html'}")

    def _write_metrics(self) -> None:
        report.write_json(self.out / "metrics.json", self.model.metrics)
        write_thresholds(self.out / "thresholds.csv", self.model.metrics)

    def _report(self, validates: bool = True) -> None:
        """What the last validation found, and the report of the run; every process takes part, the first one writes."""
        truth, found = self.model.detected() if validates else (None, None)
        if not self.trainer.is_global_zero:
            return
        if truth is not None and found is not None:
            dataset = self.datamodule.val_dataset
            images, targets = zip(*(dataset[index] for index in range(min(IMAGES, len(dataset)))), strict=True)
            report.draw_validation(self.out / "images.png", truth, found, self.model.metrics, images, targets)
            places = {"annotations": self.datamodule.val_annotations, "images": self.datamodule.val_images}
            info = {name: str(path.absolute()) for name, path in places.items()}
            report.write_validation(self.out, truth, found, self.model.metrics, info=info)
        page = self.out / "report.html"
        report.write_page(page, [report.read_run(self.out)], command=report.report_command([self.out], page))
