"""``lossbox demo``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from .recipes import find_recipe, resume

DEMO_RECIPE = "digits_small_alrp"


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox demo``."""
    parser = argparse.ArgumentParser(
        "lossbox demo",
        allow_abbrev=False,
        description="Draws handwritten digits on photographs, trains a small RetinaNet on them with the aLRP loss, validates it, leaves "
        "metrics.json, the curves of the training and a sheet of images with predicted and true boxes. Nothing is downloaded. "
        "Some 3 minutes on 2 CPU cores. Interrupted, it goes on where it was when it is called again.",
        epilog="Any option of `lossbox fit` may follow, for example: lossbox demo --out runs/short --trainer.max_epochs 2",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where the results go (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path("data/digits"), help="where the images go (default: %(default)s)")
    parser.add_argument("--recipe", default=DEMO_RECIPE, help="a recipe for the digits, by name or path (default: %(default)s)")
    parser.add_argument("--train-images", type=int, default=2000, help="images to train on (default: %(default)s)")
    parser.add_argument("--val-images", type=int, default=400, help="images to validate on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: %(default)s)")
    options, overrides = parser.parse_known_args(argv)
    recipe = find_recipe(options.recipe)
    print(f"lossbox demo: images of digits, a detector trained on them, validated and drawn; results in {options.out}", flush=True)

    from .. import report
    from ..data.digits import write_digits
    from ..training.cli import LossboxCLI

    data = write_digits(options.data, train_images=options.train_images, val_images=options.val_images)
    if (options.out / "run.json").is_file():
        print(f"{options.out} holds a finished run: validating and drawing it again. Another --out trains anew.")
    else:
        paths = {name: getattr(data, name) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}
        words = ["fit", "--config", str(recipe), "--out", str(options.out), "--seed_everything", str(options.seed), *overrides]
        words += [word for name, path in paths.items() for word in (f"--data.{name}", str(path))]
        LossboxCLI([*words, *resume(options.out)])
    if not (options.out / "metrics.json").is_file():
        print(f"nothing to look at: {options.out} was trained with trainer.limit_val_batches 0")
        return
    LossboxCLI(["validate", "--config", str(options.out / "config.yaml"), "--ckpt_path", "last"])
    curves = report.draw_curves(options.out)
    run = json.loads((options.out / "run.json").read_text())
    print(
        f"""
Trained in {run["minutes"]:.1f} minutes. Where to look:
  {options.out / "images.png"}    validation images: predicted boxes solid, true boxes dashed
  {curves}      the parts of the loss, the self-balance, the gradient balance, AP and oLRP
  {options.out / "metrics.json"}    all numbers, per class too
  tensorboard --logdir {options.out}

What to try next:
  lossbox fit --config digits_retinanet_focal --out runs/focal     the same with focal loss + smooth L1
  lossbox fit --config own_data --data.train_annotations ...       your own images, in COCO's format (recipes/own_data.yaml)
  from lossbox.losses import alrp_loss                             the loss in a training loop of your own"""
    )
