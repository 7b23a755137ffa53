"""``lossbox fit``: Lightning's parser and trainer, with a page of help that one can read."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence

from .recipes import shipped_recipes, with_recipes

HELP = """usage: lossbox fit --config RECIPE [options]

Trains a detector as a recipe says. A recipe is a YAML file, or the name of one of those that ship with lossbox:
  {recipes}

Every key of a recipe is an option, its levels joined by dots:
  --out FOLDER                                   checkpoints, logs, metrics.json and the resolved recipe go here
  --data.train_annotations FILE  --data.train_images FOLDER       COCO JSON and the images it names; likewise
  --data.val_annotations FILE    --data.val_images FOLDER         (the number of classes is read from there)
  --data.batch_size 8   --data.image_size 512   --data.num_workers 4
  --trainer.max_epochs 20   --trainer.accelerator gpu   --trainer.precision bf16-mixed
  --model.optimizer.init_args.learning_rate 1e-3
  --seed_everything 1

  --ckpt_path last                               go on after an interruption, to the same result as without it
  --init-from CKPT                               begin with the weights of another run, as far as they fit; classes by name
  --artifacts false                              no results.csv and no images in the folder of the run
  --print_config                                 print the resolved recipe and stop
  --help-all                                     all options, those of Lightning's Trainer too (2,000 lines)

Examples:
  lossbox fit --config digits_retinanet_alrp --trainer.max_epochs 4
  lossbox fit --config own_data --out runs/mine --data.train_annotations train.json --data.train_images train \\
    --data.val_annotations val.json --data.val_images val"""


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox fit``."""
    run_lightning("fit", HELP, argv)


def run_lightning(command: str, help: str, argv: Sequence[str]) -> None:
    """Prints our page of help where ``--help`` is asked for, and otherwise hands the words to Lightning's parser."""
    if any(word in ("-h", "--help") for word in argv):
        names = ", ".join(sorted(path.stem for path in shipped_recipes()))
        print(help.format(recipes=textwrap.fill(names, 110, subsequent_indent="  ")))
        return
    if not any(word in ("-c", "--help-all") or word.startswith(("--config", "--model")) for word in argv):
        raise ValueError(f"config: --config RECIPE expected; `lossbox {command} --help` says what a recipe is and which ship with lossbox")
    # tells a misspelled recipe before the seconds that Lightning takes to load
    words = with_recipes("--help" if word == "--help-all" else word for word in argv)
    first = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
    if first and not any(word == "--help" or word.startswith("--print_config") for word in words):
        print(f"lossbox {command}: loading torch and Lightning", flush=True)  # seconds, on a busy machine many
    from ..training.cli import LossboxCLI

    LossboxCLI([command, *words])
