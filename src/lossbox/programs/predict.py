"""``lossbox predict``."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..writable import check_writable
from .bars import track
from .command import File, NewFolder, command
from .detection_files import Format, Found, check_formats, write_found
from .image_files import find_images, relative_names
from .video import is_video, look_at, read_frames, video_writer

if TYPE_CHECKING:
    from ..decoding import Tile
    from ..metrics import Calibration
    from ..records import Detections
    from ..training.load import Categories


@dataclass(frozen=True)
class Predictions:
    """What :func:`predict` found.

    Attributes:
        detections: by image, best score first: dicts of ``image_id``, ``file_name``, ``category_id``, ``bbox`` and ``score``.
        files: they are written there, one path per format (for ``yolo`` the folder).
        images: how many images, or frames, were read.
        left_out: why each of the others was not.
        images_per_second: reading and drawing included.
        device: where the detector was.
        drawn: how many boxes were drawn; None where no image was.
        draw_threshold: the score from which they were drawn.
        tile: side of the tiles that were looked at, in pixels; None where whole images were.
        overlap: fraction of its side that a tile shared with the next.
    """

    detections: list[dict[str, Any]]
    files: list[Path]
    images: int
    left_out: list[str]
    images_per_second: float
    device: str
    drawn: int | None
    draw_threshold: float
    tile: int | None
    overlap: float


def predict(
    images: Sequence[File],
    *,
    ckpt: File,
    config: File | None = None,
    out: NewFolder,
    thresholds: File | None = None,
    score_threshold: float | None = None,
    max_detections: int | None = None,
    calibration: File | None = None,
    annotations: File | None = None,
    format: Sequence[Format] = ("coco",),
    no_images: bool = False,
    draw_threshold: float | None = None,
    skip_bad: bool = False,
    tile: int | None = None,
    overlap: float | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> Predictions:
    """Finds objects in images and videos with a trained detector.

    OUT/detections.json has COCO's results format, with file names; boxes are x y width height in pixels of the image as it is stored (an
    EXIF orientation is not applied, as in training). --format yolo writes OUT/yolo/labels/NAME.txt for each image, with a line `class cx cy
    w h score` for each box, in fractions of the image, and OUT/yolo/classes.txt; csv writes OUT/detections.csv. OUT/images has the images
    with their boxes. Of a video it has an MP4 file, and each box has its frame and time. The folder of the run is all that is needed, no
    annotations. A threshold is compared with the detector's own score, not with a calibrated one.

    To measure:

      lossbox predict --ckpt X val --annotations val.json --out D && lossbox evaluate val.json D/detections.json

    Args:
        images: files, folders (with all images below them), patterns such as 'a/*.jpg', or lists: text files with a path per line; videos
            by name or pattern
        ckpt: OUT/checkpoints/best.ckpt or last.ckpt of a run, or OUT, the folder of the run
        config: the resolved recipe (default: OUT/config.yaml of that run)
        out: where the results go
        thresholds: cut each class at its own score: OUT/thresholds.csv of a run, which belongs to its last.ckpt
        score_threshold: only scores above it (default: the recipe's)
        max_detections: per image (default: the recipe's)
        calibration: OUT/calibration.json: write scores that say the expected IoU
        annotations: COCO JSON to take the image ids from (by file name)
        format: one or more
        no_images: draw none
        draw_threshold: draw boxes whose written score reaches this (default: 0.3; with --thresholds all)
        skip_bad: leave out images that cannot be read, and say how many
        tile: cut large images into squares of so many pixels, 32 or more, and look for objects in each as in an image of its own; 0: do
            not (default: as in the training)
        overlap: fraction of its side that a tile shares with the next, at most 0.75 (default: as in the training)
        batch_size: images, or tiles, at a time (default: the recipe's)
        device: cpu, cuda, cuda:1, ...; auto: a GPU where there is one

    Raises:
        ValueError: an option is out of its range, files do not belong to each other, or an image cannot be read.
        FileNotFoundError: a file is not there.
        ImportError: a video, without the extra ``video``.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: a number >= 1 expected, got {batch_size}")
    from ..boxes import check_tiling
    from ..decoding import read_thresholds

    check_tiling(tile or None, overlap or 0.0)
    out = Path(out)
    files = find_images(images, outside=out / "images")
    names = relative_names(files, images)
    _check_out(out, files, [] if no_images else names)
    check_formats(format, names)
    ids, categories = (None, None) if annotations is None else _read_ids(Path(annotations), files)
    from ..metrics import Calibration
    from ..training.load import load_trained

    decoder = {"thresholds": Path(thresholds) if thresholds else None, "score_threshold": score_threshold, "max_detections": max_detections}
    trained = load_trained(Path(ckpt), Path(config) if config else None, device=device, categories=categories, decoder=decoder)
    if thresholds:
        _check_categories("thresholds", Path(thresholds), list(read_thresholds(Path(thresholds))), trained.categories)
    calibrated = Calibration.read(calibration) if calibration else None
    if calibration and calibrated:
        _check_categories("calibration", Path(calibration), list(calibrated.category_ids), trained.categories)
    as_trained, (tile, overlap) = tile is None, trained.tiling(tile, overlap)
    least = draw_threshold if draw_threshold is not None else 0.0 if thresholds else 0.3

    started = time.monotonic()
    left_out: list[str] = []
    everything: list[Found] = []
    total = sum(_count_tiles(file, tile, overlap) for file in files)
    if tile is not None:
        why = " (as in the training; --tile 0 looks at whole images)" if as_trained else ""
        print(f"tiles of {tile} px, overlap {overlap:g}{why}: {len(files)} files, {total} tiles", file=sys.stderr, flush=True)
    tiles = track(_tiles(files, ids, left_out if skip_bad else None, tile, overlap), "images" if tile is None else "tiles", total)
    whole = (part for part in tiles if part is not None)
    with ExitStack() as videos:
        draw = _drawer(out / "images", files, trained.categories, least, videos)
        for (number, *key), image, found in trained.detect_tiles(whole, batch_size or trained.data.batch_size):
            image_id, frame, seconds = key
            ranked = _calibrated(found, calibrated)
            everything.append(Found(image_id, names[number], (image.shape[1], image.shape[2]), ranked, frame, seconds))
            if not no_images:
                draw(image, number, everything[-1])
    if not everything:
        raise ValueError(f"IMAGES: none of the {len(files)} can be read; the first: {left_out[0].removeprefix('IMAGES: ')}")
    speed = len(everything) / (time.monotonic() - started)
    drawn = None if no_images else sum(int((one.detections.scores >= least).sum()) for one in everything)
    rows = [row for found in everything for row in found.rows(trained.categories)]
    written = write_found(out, everything, trained.categories, format)
    return Predictions(rows, written, len(everything), left_out, speed, str(trained.device), drawn, least, tile, overlap)


def show_predictions(found: Predictions) -> None:
    """Prints how many detections there are, and where."""
    for message in found.left_out:
        print(f"left out: {message}", file=sys.stderr)
    left_out = f", {len(found.left_out)} left out" if found.left_out else ""
    speed = f"{found.images_per_second:.1f} images/s on {found.device}"
    print(f"{len(found.detections)} detections in {found.images} images{left_out}, {speed}: {', '.join(map(str, found.files))}")
    if found.images and not found.detections:
        print(
            "note: nothing was found: no score passes --score-threshold and --thresholds (an empty threshold there: nothing of this class)"
        )
    if found.drawn is not None:
        print(f"{found.drawn} boxes drawn: {found.files[0].parent / 'images'}")
    if found.drawn == 0 and found.detections:
        # The scores of a ranking loss say an order, not how sure they are: all may be below any usual threshold.
        highest = max(row["score"] for row in found.detections)
        print(
            f"note: no score reaches {found.draw_threshold:g}, the highest is {highest:.3f}: --draw-threshold X draws from X on, "
            "--thresholds OUT/thresholds.csv cuts each class where the LRP of the validation was smallest"
        )


def _tiles(
    files: Sequence[Path], ids: Sequence[int] | None, left_out: list[str] | None, tile: int | None, overlap: float
) -> Iterator[Tile | None]:
    """The tiles of each image or frame; None for a file that cannot be read, where that is no error.

    Their key: the number of the file, the id of the image, and number and time of the frame of a video.
    """
    from ..decoding import tiles_of

    numbers = itertools.count(1)
    for number, file in enumerate(files):
        try:
            for frame, seconds, image in read_frames(file) if is_video(file) else [(None, None, _load(file))]:
                image_id = next(numbers) if ids is None else ids[number]
                yield from tiles_of((number, image_id, frame, seconds), image, tile, overlap)
        except (ValueError, OSError) as error:
            if left_out is None:
                raise ValueError(f"{error}; --skip-bad leaves such images out") from error
            left_out.append(str(error))
            next(numbers)
            yield None


def _count_tiles(file: Path, tile: int | None, overlap: float) -> int:
    """How many tiles a file has, by its header; 1 where it cannot be read."""
    if tile is None and not is_video(file):
        return 1
    from PIL import Image

    from ..boxes import tile_corners

    try:
        if is_video(file):
            frames, size, _ = look_at(file)
        else:
            with Image.open(file) as image:
                frames, size = 1, (image.height, image.width)
    except ImportError:
        raise
    except Exception:  # decoders of broken files raise OSError, SyntaxError, struct.error and more; reading it says so
        return 1
    return frames if tile is None else frames * len(tile_corners(size, tile, overlap))


def _load(file: Path) -> Any:
    """(3, h, w) uint8, as the data set loads it."""
    from ..training.images import read_image

    try:
        return read_image(file)
    except ValueError as error:
        raise ValueError(f"IMAGES: {error}") from error


def _calibrated(found: Detections, calibration: Calibration | None) -> Detections:
    if calibration is None:
        return found
    import torch

    from ..records import Detections

    scores = torch.from_numpy(calibration(found.scores, found.labels))
    order = scores.argsort(descending=True, stable=True)
    return Detections(found.boxes[order], scores[order], found.labels[order])


def _check_out(out: Path, files: Sequence[Path], drawn: Sequence[str]) -> None:
    """Says before the work, and not after it, that results cannot be written, or would replace an image."""
    check_writable("out", out, folder=True)
    for file, name in zip(files, drawn, strict=False):
        path = _drawn_file(out / "images", name)
        if path.exists() and path.samefile(file):
            raise ValueError(f"out: {path} is one of the images; name another folder")


def _drawn_file(folder: Path, name: str) -> Path:
    """Where an image is drawn: a format that cannot be written becomes PNG, and every video MP4."""
    from PIL import Image

    path = folder / name
    if is_video(path):
        return path if path.suffix.lower() == ".mp4" else path.with_name(f"{path.name}.mp4")
    return path if Image.registered_extensions().get(path.suffix.lower()) in Image.SAVE else path.with_name(f"{path.name}.png")


def _drawer(
    folder: Path, files: Sequence[Path], categories: Categories, least: float, videos: ExitStack
) -> Callable[[Any, int, Found], None]:
    """Draws the boxes of one image, or of the next frame of a video, into a file below a folder."""
    from PIL import Image

    from ..report.boxes import draw_boxes

    add_to: dict[int, Callable[[Any], None]] = {}

    def draw(image: Any, number: int, found: Found) -> None:
        names = [name for _, name in categories]
        drawn = draw_boxes(Image.fromarray(image.permute(1, 2, 0).numpy()), found.detections, names, threshold=least)
        path = _drawn_file(folder, found.name)
        if found.frame is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            lossy = Image.registered_extensions()[path.suffix.lower()] in ("JPEG", "WEBP")
            options: dict[str, Any] = {"quality": 92} if lossy else {}
            drawn.save(path, **options)
            return
        if number not in add_to:
            add_to[number] = videos.enter_context(video_writer(path, look_at(files[number])[2]))
        add_to[number](drawn)

    return draw


def _read_ids(annotations: Path, files: Sequence[Path]) -> tuple[list[int], Categories]:
    """The image id of each file, and the categories, of a COCO file."""
    from ..coco.columns import read_index

    if video := next(filter(is_video, files), None):
        raise ValueError(f"annotations: {video} is a video; the ids of images can be taken for images only")
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


run = command(predict, show_predictions)
