"""``lossbox predict``."""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..metrics import Calibration
    from ..records import Detections
    from ..training.load import Categories, Trained

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""What is taken from a folder; a file that is named is opened whatever its name."""


def run(argv: Sequence[str]) -> None:
    """Runs ``lossbox predict``."""
    parser = argparse.ArgumentParser(
        "lossbox predict",
        description="Finds objects in images: DIR/detections.json (COCO's results format with file names, boxes as x y width height in "
        "pixels of the image as it is stored; an EXIF orientation is not applied, as in training) and DIR/images, the images with "
        "their boxes. The folder of the run is all that is needed, no annotations.",
        epilog="A threshold is compared with the detector's own score, not with a calibrated one. To measure: "
        "lossbox predict --ckpt X val --annotations val.json --out D && lossbox evaluate val.json D/detections.json",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders (with all below them) or patterns such as 'a/*.jpg'")
    parser.add_argument("--ckpt", type=Path, required=True, metavar="FILE", help="OUT/checkpoints/best.ckpt or last.ckpt of a run")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the resolved recipe (default: OUT/config.yaml of that run)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--thresholds", type=Path, metavar="FILE", help="cut each class at its own score: OUT/thresholds.csv of a run")
    parser.add_argument("--score-threshold", type=float, metavar="S", help="only scores above it (default: the recipe's)")
    parser.add_argument("--max-detections", type=int, metavar="N", help="of one image (default: the recipe's)")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="OUT/calibration.json: write scores that say the expected IoU")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="COCO JSON to take the image ids from (by file name)")
    parser.add_argument("--no-images", action="store_true", help="write detections.json only")
    parser.add_argument(
        "--draw-threshold",
        type=float,
        metavar="S",
        help="draw boxes whose written score reaches this (default: 0.3; with --thresholds all)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be read, and say how many")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images at a time (default: the recipe's)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    options = parser.parse_args(argv)
    if options.batch_size is not None and options.batch_size < 1:
        raise ValueError(f"batch-size: a number >= 1 expected, got {options.batch_size}")

    files = find_images(options.images, outside=options.out / "images")
    names = relative_names(files, options.images)
    ids, categories = (None, None) if options.annotations is None else _read_ids(options.annotations, files)
    from ..decoding import read_thresholds
    from ..metrics import Calibration
    from ..training.load import load_trained

    trained = load_trained(
        options.ckpt,
        options.config,
        device=options.device,
        categories=categories,
        decoder={name: getattr(options, name) for name in ("thresholds", "score_threshold", "max_detections")},
    )
    if options.thresholds:
        _check_categories("thresholds", options.thresholds, list(read_thresholds(options.thresholds)), trained.categories)
    calibration = None
    if options.calibration:
        calibration = Calibration.read(options.calibration)
        _check_categories("calibration", options.calibration, list(calibration.category_ids), trained.categories)
    draw_from = options.draw_threshold if options.draw_threshold is not None else 0.0 if options.thresholds else 0.3

    started, done, drawn, highest = time.monotonic(), 0, 0, 0.0
    skipped: list[str] = []
    rows: list[dict[str, Any]] = []
    batches = _batches(files, ids, trained, options.batch_size or trained.data.batch_size, skipped if options.skip_bad else None)
    for batch in _with_progress(batches, len(files)):
        for (number, image_id, image), found in zip(batch, _detect(trained, batch), strict=True):
            ranked = _calibrated(found, calibration)
            rows += _results(ranked, image_id, names[number], trained.categories)
            highest = max([highest, *ranked.scores[:1].tolist()])
            if not options.no_images:
                drawn += int((ranked.scores >= draw_from).sum())
                _draw(image, ranked, trained.categories, options.out / "images" / names[number], files[number], least=draw_from)
            done += 1
    for message in skipped:
        print(f"left out: {message}", file=sys.stderr)
    if not done:
        raise ValueError(f"IMAGES: none of the {len(files)} can be read")
    seconds = time.monotonic() - started
    path = options.out / "detections.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, allow_nan=False) + "\n")
    left_out = f", {len(skipped)} left out" if skipped else ""
    print(f"{len(rows)} detections in {done} images{left_out}, {done / seconds:.1f} images/s on {trained.device}: {path}")
    if not options.no_images:
        print(f"{drawn} boxes drawn: {options.out / 'images'}")
    if not options.no_images and rows and not drawn:
        # The scores of a ranking loss say an order, not how sure they are: all may be below any usual threshold.
        print(
            f"note: no score reaches {draw_from:g}, the highest is {highest:.3f}: --draw-threshold S draws from S on, --thresholds "
            "OUT/thresholds.csv cuts each class where the LRP of the validation was smallest"
        )


def find_images(words: Iterable[str], *, outside: Path | None = None) -> list[Path]:
    """The files that words name, each once: files as they are, of folders all images below, sorted, of patterns what matches, sorted.

    Args:
        words: files, folders, patterns.
        outside: a folder whose files are not taken: earlier results are no images to look at.

    Raises:
        FileNotFoundError: a word names nothing, or a folder without an image.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "deep").mkdir()
        >>> for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.jpg"):
        ...     (root / name).touch()
        >>> [file.name for file in find_images([str(root), f"{root}/*.jpg"])]
        ['a.PNG', 'b.jpg', 'c.jpg']
    """
    found: dict[Path, Path] = {}
    for word in words:
        path = Path(word)
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
            if outside is not None and outside.is_dir():
                files = [file for file in files if outside.resolve() not in file.resolve().parents]
            if not files:
                raise FileNotFoundError(f"IMAGES: no image ({', '.join(IMAGE_SUFFIXES)}) in the folder {word}")
        else:
            files = [Path(name) for name in sorted(glob.glob(word, recursive=True)) if Path(name).is_file()]
            if not files:
                raise FileNotFoundError(f"IMAGES: no file, folder or pattern {word}")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def relative_names(files: Sequence[Path], words: Iterable[str]) -> list[str]:
    """What to call each file: its path below the folder that holds everything that was named, so that no two are called the same.

    Example:
        >>> relative_names([Path("x/a/1.jpg"), Path("x/b/1.jpg")], ["x/a/1.jpg", "x/b/1.jpg"])
        ['a/1.jpg', 'b/1.jpg']
    """
    folders = {os.path.abspath(file.parent) for file in files} | {os.path.abspath(word) for word in words if Path(word).is_dir()}
    base = os.path.commonpath(folders)
    return [Path(os.path.abspath(file)).relative_to(base).as_posix() for file in files]


Loaded = tuple[int, int, Any]
"""Number of an image among the files, its image id, and its pixels (3, h, w)."""


def _batches(
    files: Sequence[Path], ids: Sequence[int] | None, trained: Trained, size: int, skipped: list[str] | None
) -> Iterator[list[Loaded]]:
    batch: list[Loaded] = []
    for number, file in enumerate(files):
        image_id = number + 1 if ids is None else ids[number]
        try:
            batch.append((number, image_id, _load(file)))
        except (ValueError, OSError) as error:
            if skipped is None:
                raise ValueError(f"{error}; --skip-bad leaves such images out") from error
            skipped.append(str(error))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _load(file: Path) -> Any:
    """(3, h, w) uint8, as the data set loads it."""
    from ..training.images import read_image

    try:
        return read_image(file)
    except ValueError as error:
        raise ValueError(f"IMAGES: {error}") from error


def _detect(trained: Trained, batch: Sequence[Loaded]) -> list[Detections]:
    return trained.detect_images([image for *_, image in batch])


def _calibrated(found: Detections, calibration: Calibration | None) -> Detections:
    if calibration is None:
        return found
    import torch

    from ..records import Detections

    scores = torch.from_numpy(calibration(found.scores, found.labels))
    order = scores.argsort(descending=True, stable=True)
    return Detections(found.boxes[order], scores[order], found.labels[order])


def _results(found: Detections, image_id: int, name: str, categories: Categories) -> Iterator[dict[str, Any]]:
    for (x1, y1, x2, y2), score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
        box = [x1, y1, x2 - x1, y2 - y1]
        yield {"image_id": image_id, "file_name": name, "category_id": categories[label][0], "bbox": box, "score": score}


def _draw(image: Any, found: Detections, categories: Categories, path: Path, source: Path, *, least: float) -> None:
    from PIL import Image

    from ..report.boxes import draw_boxes

    if path.exists() and path.samefile(source):
        raise ValueError(f"out: {path} is one of the images; name another folder")
    format = Image.registered_extensions().get(path.suffix.lower())
    if format not in Image.SAVE:
        path, format = path.with_name(f"{path.name}.png"), "PNG"
    drawn = draw_boxes(Image.fromarray(image.permute(1, 2, 0).numpy()), found, [name for _, name in categories], threshold=least)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(path, format=format, **({"quality": 92} if format in ("JPEG", "WEBP") else {}))


def _with_progress(batches: Iterable[list[Loaded]], total: int) -> Iterator[list[Loaded]]:
    """The same batches, with a bar on a terminal."""
    if not sys.stdout.isatty():
        yield from batches
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=True) as progress:
        task = progress.add_task("images", total=total)
        for batch in batches:
            yield batch
            progress.update(task, completed=batch[-1][0] + 1)


def _read_ids(annotations: Path, files: Sequence[Path]) -> tuple[list[int], Categories]:
    """The image id of each file, and the categories, of a COCO file."""
    from ..coco.columns import read_index

    known, categories = read_index(annotations)
    ids: dict[int, Path] = {}
    for file in files:
        parts = Path(os.path.abspath(file)).parts
        # the longest end of its path that the file names
        names = ("/".join(parts[start:]) for start in range(1, len(parts)))
        name = next((name for name in names if name in known), None)
        if name is None:
            raise ValueError(f"annotations: {annotations} names no image {file} (by file_name, the end of its path)")
        if known[name] in ids:
            raise ValueError(f"annotations: {annotations} has one image, id {known[name]}, for {ids[known[name]]} and {file}")
        ids[known[name]] = file
    return list(ids), categories


def _check_categories(option: str, path: Path, found: list[int], categories: Categories) -> None:
    expected = [category_id for category_id, _ in categories]
    if found != expected:
        raise ValueError(
            f"{option}: {path} must have the category ids of the detector; it has {len(found)}, the detector {len(expected)}, "
            f"and {len(set(found) ^ set(expected))} are on one side only"
        )
