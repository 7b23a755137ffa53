"""``lossbox validate``."""

from __future__ import annotations

from collections.abc import Sequence

from .fit import run_lightning

HELP = """usage: lossbox validate --config OUT/config.yaml [--ckpt_path last | best | FILE] [options]

Measures a trained detector: the COCO block of average precision, and optimal LRP with its components and the score
at which to cut, per class and mean. Prints the tables and writes OUT/metrics.json, OUT being the folder of the run.

  --config OUT/config.yaml                       the resolved recipe that `lossbox fit` left in the folder of its run
  --ckpt_path FILE                               which checkpoint: last (the default), best, or any file
  --data.val_annotations FILE  --data.val_images FOLDER           measure on other images
  --model.decoder.init_args.score_threshold 0.05                  with another decoding
  --help-all                                     all options"""


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox validate``."""
    run_lightning("validate", HELP, argv)
