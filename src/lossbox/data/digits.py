"""The embedded data set: handwritten digits on photographs, written to disk as images and COCO JSON.

The digits are the 1,797 scans, and the backgrounds crops of the two photographs, that ship inside scikit-learn: nothing is downloaded.
The demo so takes the very path that a user's own data takes.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from .digit_images import draw_image, load_ingredients

FORMAT_VERSION = 1
"""Raised when the same options give other images than before, so that an older set on disk is made anew."""

EMPTY_EVERY = 25
"""Every 25th image has no digit: a detector must learn to stay silent."""

PARTS = ("train", "val")

SILENCE = 10.0
"""Seconds after which, without a progress bar (no terminal), a line is due that says how far it is: here, in trainings and comparisons."""

MARKER = ".lossbox_digits"
"""A file in each folder of images: what lies there is ours and may be replaced."""

CREDITS = [
    {"id": 1, "name": "scikit-learn load_digits: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI, CC BY 4.0"},
    {"id": 2, "name": "china.jpg by danielbuechele, CC BY 2.0", "url": "https://creativecommons.org/licenses/by/2.0/"},
    {"id": 3, "name": "flower.jpg by vultilion, CC BY 2.0", "url": "https://creativecommons.org/licenses/by/2.0/"},
]


@dataclass(frozen=True)
class DigitsSet:
    """Where a set of digits lies; the paths are named like the arguments of ``CocoDataModule``.

    Attributes:
        train_annotations: COCO JSON of the training part.
        train_images: folder of its images.
        val_annotations: COCO JSON of the validation part.
        val_images: folder of its images.
        reused: True where a complete set made with the same options was found and nothing was written.
    """

    train_annotations: Path
    train_images: Path
    val_annotations: Path
    val_images: Path
    reused: bool


def write_digits(
    root: str | os.PathLike[str],
    *,
    train_images: int = 2000,
    val_images: int = 400,
    size: int = 128,
    max_digits: int = 6,
    digit_side: tuple[float, float] = (0.11, 0.5),
    seed: int = 0,
    imbalance: float = 1.0,
    progress: bool = True,
) -> DigitsSet:
    """Writes ``train/*.jpg``, ``train.json``, ``val/*.jpg`` and ``val.json`` under ``root``, or finds them already there.

    Each image is a random crop of a photograph with 1 to ``max_digits`` digits (every 25th has none) of random size, color and place.
    The two parts share neither scans nor areas of the photographs. The same options give the same bytes. A set on disk that was
    made with other options is replaced; files that are not such a set are never touched. The JSON files are written last, so that
    an interrupted run never looks complete.

    Args:
        root: folder, made if it does not exist.
        train_images: images of the training part.
        val_images: images of the validation part.
        size: width and height of each image, in pixels.
        max_digits: most digits in one image.
        digit_side: smallest and largest height of a digit, as shares of ``size``; drawn log-uniformly.
        seed: of the random choices.
        imbalance: in the training part 0 is so many times as frequent as 9, the digits between them in equal ratios: a long tail. In the
            validation part all are equally frequent.
        progress: show a progress bar, and say so where a set on disk is used again.

    Returns:
        The paths of the four parts.

    Raises:
        ValueError: an option is out of range, or ``root`` holds a JSON file or a folder of images that this function did not write.
        ImportError: scikit-learn, Pillow or rich is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     first = write_digits(root, train_images=4, val_images=2, progress=False)
        ...     again = write_digits(root, train_images=4, val_images=2, progress=False)
        ...     print(sorted(path.name for path in first.train_images.glob("*.jpg")), again.reused)
        ['000001.jpg', '000002.jpg', '000003.jpg', '000004.jpg'] True
    """
    counts = {"train": train_images, "val": val_images}
    _check_options(counts, size, max_digits, digit_side, seed, imbalance)
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError as error:
        raise ImportError("the progress bar needs rich: pip install 'lossbox[train]'") from error
    options = {
        "format": FORMAT_VERSION,
        "train_images": train_images,
        "val_images": val_images,
        "size": size,
        "max_digits": max_digits,
        "digit_side": list(digit_side),
        "seed": seed,
        **({} if imbalance == 1 else {"imbalance": imbalance}),
    }
    root = Path(root)
    paths = {part: (root / f"{part}.json", root / part) for part in PARTS}
    console = Console(stderr=True, quiet=not progress)
    found = [_options_on_disk(*paths[part]) for part in PARTS]
    if found == [options, options]:
        console.print(f"Digits: using the set in {root}, made with the same options.", soft_wrap=True, markup=False, highlight=False)
        return DigitsSet(*paths["train"], *paths["val"], reused=True)

    ingredients = load_ingredients(seed)
    for part in PARTS:
        _clear(*paths[part])
    columns = (TextColumn("Digits: drawing images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    documents, spoke, drawn = {}, time.monotonic(), 0
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=sum(counts.values()))
        for part_index, part in enumerate(PARTS):
            folder = paths[part][1]
            documents[part] = _empty_document(part, options)
            for index in range(counts[part]):
                # Each image has its own stream: the validation part is the same whatever the length of the training part.
                rng = np.random.default_rng([seed, part_index, index])
                most = 0 if index % EMPTY_EVERY == EMPTY_EVERY - 1 else max_digits
                tail = imbalance if part == "train" else 1.0
                drawn_as: dict[str, Any] = {"size": size, "max_digits": most, "digit_side": digit_side, "imbalance": tail}
                image, boxes, digits = draw_image(rng, ingredients[part], **drawn_as)
                _save(image, folder / f"{index + 1:06d}.jpg")
                _record(documents[part], boxes, digits, size)
                bar.advance(task)
                drawn += 1
                if not console.is_terminal and time.monotonic() - spoke >= SILENCE:
                    spoke = time.monotonic()
                    console.print(f"Digits: {drawn} of {sum(counts.values())} images drawn", highlight=False)
    for part in PARTS:
        _write_json(documents[part], paths[part][0])
    return DigitsSet(*paths["train"], *paths["val"], reused=False)


def _check_options(
    counts: dict[str, int], size: int, max_digits: int, digit_side: tuple[float, float], seed: int, imbalance: float
) -> None:
    for part, count in counts.items():
        if count < 1:
            raise ValueError(f"{part}_images: at least 1 image expected, got {count}")
    if not 32 <= size <= 2048:
        raise ValueError(f"size: a side of 32 to 2048 pixels expected, got {size}")
    if max_digits < 1:
        raise ValueError(f"max_digits: at least 1 expected, got {max_digits}")
    if not 0 < digit_side[0] <= digit_side[1] <= 0.6:
        raise ValueError(f"digit_side: 0 < smallest <= largest <= 0.6 of the image's side expected, got {tuple(digit_side)}")
    if seed < 0:
        raise ValueError(f"seed: 0 or more expected, got {seed}")
    if not 1 <= imbalance < float("inf"):
        raise ValueError(f"imbalance: a finite ratio of 1 or more expected, got {imbalance:g}")


def _options_on_disk(json_file: Path, folder: Path) -> dict[str, Any] | None:
    """The options that a complete part was made with; None if it is not there or an image is missing.

    Raises:
        ValueError: the JSON file or the folder was not made by ``write_digits``: it is somebody's own and must not be overwritten.
    """
    foreign = "root: {} was not made by write_digits and is not overwritten; choose another folder"
    if folder.exists() and not (folder / MARKER).is_file() and any(folder.iterdir()):
        raise ValueError(foreign.format(folder))
    if not json_file.exists():
        return None
    try:
        document = json.loads(json_file.read_bytes())
        options: dict[str, Any] = document["info"]["lossbox_digits"]
        names = [image["file_name"] for image in document["images"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(foreign.format(json_file)) from error
    return options if all((folder / name).is_file() for name in names) else None


def _clear(json_file: Path, folder: Path) -> None:
    """Takes an older or unfinished set away, its JSON first: from now on the folder does not look complete."""
    json_file.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("The images in this folder were made by lossbox.data.digits, which may replace them.\n")
    for path in folder.glob("*.jpg"):
        path.unlink()


def _empty_document(part: str, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "info": {
            "description": f"Handwritten digits on photographs, {part} part, made by lossbox.data.digits",
            "version": str(FORMAT_VERSION),
            "lossbox_digits": options,
        },
        "licenses": CREDITS,
        "categories": [{"id": digit + 1, "name": str(digit), "supercategory": "digit"} for digit in range(10)],
        "images": [],
        "annotations": [],
    }


def _record(document: dict[str, Any], boxes: list[tuple[int, int, int, int]], digits: list[int], size: int) -> None:
    """Appends the image of the next number and its annotations."""
    image_id = len(document["images"]) + 1
    document["images"].append({"id": image_id, "file_name": f"{image_id:06d}.jpg", "width": size, "height": size})
    for box, digit in zip(boxes, digits, strict=True):
        document["annotations"].append(
            {
                "id": len(document["annotations"]) + 1,
                "image_id": image_id,
                "category_id": digit + 1,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
        )


def _save(image: UInt8[np.ndarray, "s s 3"], path: Path) -> None:
    from PIL import Image

    Image.fromarray(image).save(path, quality=95, subsampling=0)


def _write_json(document: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".json.part")
    temporary.write_text(json.dumps(document))
    os.replace(temporary, path)
