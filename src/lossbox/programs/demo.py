"""``lossbox demo``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..writable import check_writable
from .command import Folder, NewFolder, command
from .recipes import find_recipe, resume


def demo(
    *,
    out: NewFolder = "runs/demo",
    data: Folder = "data/digits",
    recipe: str = "digits_small_alrp",
    train_images: int = 2000,
    val_images: int = 400,
    seed: int = 0,
    overrides: Sequence[str] = (),
) -> Path:
    """Draws handwritten digits on photographs, and trains a small RetinaNet on them with the aLRP loss.

    It validates the detector and leaves metrics.json, the curves of the training and a sheet of images with predicted and true boxes.
    Nothing is downloaded. Some 3 minutes on 2 CPU cores. Interrupted, it goes on where it was when it is called again.

    Any option of `lossbox fit` may follow, for example: lossbox demo --out runs/short --trainer.max_epochs 2

    Args:
        out: where the results go
        data: where the images go
        recipe: a recipe for the digits, by name or path
        train_images: images to train on
        val_images: images to validate on
        seed: of the training
        overrides: options of `lossbox fit` with their values

    Returns:
        ``out``: the folder of the run.
    """
    out = Path(out)
    file = find_recipe(recipe, option="recipe")
    print(f"lossbox demo: images of digits, a detector trained on them, validated and drawn; results in {out}", flush=True)

    from ..data.digits import write_digits
    from ..training.cli import LossboxCLI

    if not Path(data).exists():
        check_writable("data", data, folder=True)
    written = write_digits(data, train_images=train_images, val_images=val_images)
    if (out / "run.json").is_file():
        print(f"{out} holds a finished run: validating and drawing it again. Another --out trains anew.")
    else:
        paths = {name: getattr(written, name) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}
        words = ["fit", "--config", str(file), "--out", str(out), "--seed_everything", str(seed), *overrides]
        words += [word for name, path in paths.items() for word in (f"--data.{name}", str(path))]
        LossboxCLI([*words, *resume(out)])
    if (out / "metrics.json").is_file():
        LossboxCLI(["validate", "--config", str(out / "config.yaml"), "--ckpt_path", "last"])
    return out


def show_demo(out: Path) -> None:
    """Prints where to look, and what to try next."""
    if not (out / "metrics.json").is_file():
        print(f"nothing to look at: {out} was trained with trainer.limit_val_batches 0")
        return
    minutes = json.loads((out / "run.json").read_text())["minutes"]
    print(
        f"""
Trained in {minutes:.1f} minutes. Where to look:
  {out / "images.png"}    validation images: predicted boxes solid, true boxes dashed
  {out / "report.html"}   the same and all curves, classes and mistakes, for a browser
  {out / "metrics.json"}    all numbers, per class too
  tensorboard --logdir {out}

What to try next:
  lossbox fit --config digits_retinanet_focal --out runs/focal     the same with focal loss + smooth L1
  lossbox fit --config own_data --data.train_annotations ...       your own images, in COCO's format (the recipe own_data)
  from lossbox.losses import alrp_loss                             the loss in a training loop of your own"""
    )


run = command(demo, show_demo)
