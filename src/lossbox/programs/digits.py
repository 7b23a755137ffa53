"""``lossbox digits``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox digits``."""
    parser = argparse.ArgumentParser("lossbox digits", description="Writes the embedded data set: images and COCO JSON.")
    parser.add_argument("root", nargs="?", default="data/digits", help="the folder to write (default: %(default)s)")
    parser.add_argument("--train-images", type=int, default=2000, help="images of the training part (default: %(default)s)")
    parser.add_argument("--val-images", type=int, default=400, help="images of the validation part (default: %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the images (default: %(default)s)")
    options = parser.parse_args(argv)
    from ..data.digits import write_digits

    written = write_digits(
        options.root, train_images=options.train_images, val_images=options.val_images, size=options.size, seed=options.seed
    )
    print(f"{written.train_annotations} with {written.train_images}/, {written.val_annotations} with {written.val_images}/")
