"""``lossbox fit``: Lightning's parser and trainer, with a page of help that one can read."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..messages import near_name
from ..writable import check_writable
from .convert import convert, show_notes
from .recipes import read_recipe, shipped_recipes, with_recipes

FILES = ("train_annotations", "train_images", "val_annotations", "val_images")
"""The options that say where the data is."""

SHORT = {f"--{name}": f"--data.{name}" for name in ("tile", "overlap", "batch_size")}
SHORT |= {"--batch-size": "--data.batch_size"}
SHORT |= {f"--learning{mark}rate": "--model.optimizer.init_args.learning_rate" for mark in "_-"}
"""Short forms of options."""

WAIT = 3600
"""Seconds that the other processes of a distributed run wait for the first to convert the data."""

HELP = """usage: lossbox fit --config RECIPE [options]
       lossbox fit DATA [--config RECIPE] [options]

DATA is a folder (or ZIP file) of COCO, Pascal VOC, YOLO, CVAT, Label Studio, VIA or other data, or its
JSON or YAML file, recognized and converted into OUT/data (`lossbox convert --help` says what is known);
a fifth becomes the validation part where there is none. Defaults: own_data, runs/NAME_OF_FOLDER.

A recipe says everything else: a YAML file, or the name of one of those that ship with lossbox:
  {recipes}

Every key of a recipe is an option, its levels joined by dots:
  --out FOLDER                                   checkpoints, logs, metrics.json and the resolved recipe go here
  --data.train_annotations FILE  --data.train_images FOLDER       COCO JSON and the images it names; likewise
  --data.val_annotations FILE    --data.val_images FOLDER         (the number of classes is read from there)
  --batch_size 8 (or auto)   --data.image_size 512   --data.num_workers 4
  --tile 640 --overlap 0.2                       cut large images into tiles, in training and validation
  --minutes 15                                   in place of epochs: a time, which the schedule fits in
  --trainer.max_epochs 20   --trainer.accelerator gpu   --trainer.precision bf16-mixed
  --learning_rate 1e-3 (or auto: found by a short search, on top of --minutes)   --seed_everything 1

  --ckpt_path last                               go on after an interruption, to the same result as without it
  --init-from CKPT                               begin with the weights of another run, as far as they fit; classes by name
  --artifacts false                              no results.csv and no images in the folder of the run
  --print_config                                 print the resolved recipe and stop
  --help-all                                     all options, those of Lightning's Trainer too (2,000 lines)

Examples:
  lossbox fit my_data --config own_data_large --out runs/large
  lossbox fit --config digits_retinanet_alrp --trainer.max_epochs 4
  lossbox fit --config own_data --out runs/mine --data.train_annotations train.json --data.train_images train \\
    --data.val_annotations val.json --data.val_images val"""


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox fit``."""
    words = list(argv)
    if words and not words[0].startswith("-") and not {"-h", "--help"} & set(words):
        words = with_data(Path(words[0]), words[1:])
    run_lightning("fit", HELP, words)


def with_data(data: Path, words: Sequence[str]) -> list[str]:
    """The options of a training on a folder of data, which is converted into the folder of the run.

    A run that goes on keeps the files that it began with.
    """
    configs, rest = _split_off(words, "--config", "-c")
    outs, rest = _split_off(rest, "--out")
    configs = configs or ["own_data"]
    out = Path(outs[-1]) if outs else Path("runs", name_of(data))
    check_writable("--out", out, folder=True)
    begun = (out / "checkpoints" / "last.ckpt").is_file() and (out / "config.yaml").is_file()

    def said(files: Mapping[str, Any]) -> list[str]:
        # a later word wins
        return [*(word for config in configs for word in ("--config", config)), "--out", str(out), *data_words(files), *rest]

    if begun:
        return said(read_recipe(str(out / "config.yaml"), option="--out")["data"])
    if not data.exists():
        raise FileNotFoundError(f"data: {data} does not exist")
    if _is_first() and not any(word.startswith(("--print_config", "--help-all")) for word in rest):
        check_options(said(dict.fromkeys(FILES, data)))
    return said(_converted(data, out, configs[-1], rest))


def data_words(files: Mapping[str, Any]) -> list[str]:
    """The options that say where the data is."""
    return [word for key in FILES for word in (f"--data.{key}", str(files[key]))]


def name_of(data: Path) -> str:
    """Of the folder, or of the ZIP file."""
    return data.stem if data.suffix.lower() == ".zip" else (data if data.is_dir() else data.parent).resolve().name


def _split_off(words: Sequence[str], *labels: str) -> tuple[list[str], list[str]]:
    """The values of an option, and the other words."""
    values, rest, left = [], [], iter(words)
    for word in left:
        label, equals, value = word.partition("=")
        if label in labels:
            values.append(value if equals else next(left, ""))
        else:
            rest.append(word)
    return values, rest


def _converted(data: Path, out: Path, config: str, words: Sequence[str]) -> dict[str, Path]:
    """The files of the converted data; what was found and left out is printed."""
    said: dict[str, Any] = dict(read_recipe(config, option="--config").get("data") or {})
    for key in ("on_bad_box", "allow_empty"):
        values, _ = _split_off(words, f"--data.{key}")
        said |= {key: values[-1]} if values else {}
    drop, empty = said.get("on_bad_box") == "drop", said.get("allow_empty") in (True, "true", "True")
    done, asked = out / "data" / "converted.json", _fingerprint(data, drop, empty)
    if not _is_first():
        return _files_of_first(done, asked)
    from ..coco.split import VAL_SHARE
    from ..report import write_json

    try:
        written = convert(data, out=out / "data", on_bad_box="drop" if drop else "error", val_share=VAL_SHARE, allow_empty=empty)
    except ValueError as error:
        options = {"--on-bad-box drop": "--data.on_bad_box drop", "--allow-empty": "--data.allow_empty true"}
        message = str(error)
        for option, here in options.items():
            message = message.replace(option, here)
        raise ValueError(message) from error
    print(written["data"], flush=True)
    show_notes(written["left_out"], "left out")
    show_notes(written["notes"], "note")
    files = {f"{part}_{key}": written["parts"][part][key] for part in ("train", "val") for key in ("annotations", "images")}
    write_json(done, {"of": asked, "files": {key: str(path) for key, path in files.items()}})
    return files


def _is_first() -> bool:
    """Whether this is the first process of a distributed run."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((os.environ[name] for name in names if name in os.environ), "0") == "0"


def _fingerprint(data: Path, *options: bool) -> str:
    """The same for the same files, by name, size and time, and the same options: what is converted is then the same."""
    files = [Path(folder, name) for folder, _, names in os.walk(data, followlinks=True) for name in names] if data.is_dir() else [data]
    stated = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files) if file.is_file()]
    return hashlib.sha256(repr((stated, options)).encode()).hexdigest()


def _files_of_first(done: Path, asked: str) -> dict[str, Path]:
    """What the first process converts, in a folder that all processes see; waits until it has."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if done.is_file() and (found := json.loads(done.read_text()))["of"] == asked:
            return {key: Path(path) for key, path in found["files"].items()}
        time.sleep(0.5)
    raise TimeoutError(f"data: the first process has not written {done} within {WAIT} s; OUT must be a folder that all processes see")


def run_lightning(command: str, help: str, argv: Sequence[str]) -> None:
    """Prints our page of help where ``--help`` is asked for, and otherwise hands the words to Lightning's parser."""
    if any(word in ("-h", "--help") for word in argv):
        names = ", ".join(sorted(path.stem for path in shipped_recipes()))
        print(help.format(recipes=textwrap.fill(names, 124, subsequent_indent="  ")))
        return
    if not any(word in ("-c", "--help-all") or word.startswith(("--config", "--model")) for word in argv):
        for word in argv:
            if near := near_name(word.partition("=")[0], ["--config"], cutoff=0.75):
                raise ValueError(f"no option {word}{near}")
        raise ValueError(f"--config RECIPE expected; `lossbox {command} --help` says what a recipe is and which ship with lossbox")
    words = _in_full(argv)
    if not any(word == "--help" or word.startswith("--print_config") for word in words):
        _say_loading(command)
    from ..training.cli import LossboxCLI

    LossboxCLI([command, *words])


def check_options(argv: Sequence[str], *, command: str = "fit") -> None:
    """Raises ValueError where an option of ``lossbox fit`` is wrong, as far as that can be told without the data.

    Args:
        argv: the options.
        command: that the user called.
    """
    words = _in_full(argv)
    _say_loading(command)
    from ..training.cli import LossboxCLI

    LossboxCLI(["fit", *words], until="options")


def _in_full(argv: Sequence[str]) -> list[str]:
    """The words with short options and names of recipes in full.

    Tells a misspelled recipe before the seconds that Lightning takes to load.
    """
    full = (SHORT.get(label, label) + equals + value for label, equals, value in (word.partition("=") for word in argv))
    return with_recipes("--help" if word == "--help-all" else word for word in full)


def _say_loading(command: str) -> None:
    """Once; it takes seconds, on a busy machine many."""
    if _is_first() and "lightning" not in sys.modules:
        print(f"lossbox {command}: loading torch and Lightning", flush=True)
