"""``lossbox digits``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .command import NewFolder, command

if TYPE_CHECKING:
    from ..data.digits import DigitsSet


def digits(
    root: NewFolder = "data/digits",
    *,
    train_images: int = 2000,
    val_images: int = 400,
    size: int = 128,
    seed: int = 0,
    imbalance: float = 1.0,
) -> DigitsSet:
    """Writes the embedded data set, handwritten digits on photographs: images and COCO JSON.

    Args:
        root: the folder to write
        train_images: images of the training part
        val_images: images of the validation part
        size: width and height in pixels
        seed: of the images
        imbalance: so many times as frequent is 0 as 9 in the training part, a long tail; the validation part stays balanced

    Returns:
        Where the annotations and the images of each part are.
    """
    from ..data.digits import write_digits

    return write_digits(root, train_images=train_images, val_images=val_images, size=size, seed=seed, imbalance=imbalance)


def show_digits(written: DigitsSet) -> None:
    """Prints where the parts are."""
    print(f"{written.train_annotations} with {written.train_images}/, {written.val_annotations} with {written.val_images}/")


run = command(digits, show_digits)
