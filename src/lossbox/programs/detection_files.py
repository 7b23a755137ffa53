"""The files that ``lossbox predict`` writes what it found to: COCO's results, YOLO's text files, a CSV table."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..records import Detections
    from ..training.load import Categories

Format = Literal["coco", "yolo", "csv"]


@dataclass(frozen=True)
class Found:
    """What was found in one image.

    Attributes:
        image_id: of the results in COCO's format.
        name: of its file.
        size: (height, width) of the image as it is stored.
        detections: in its pixels, best score first.
        frame: of a video, the number from 0.
        time: of the frame in seconds.
    """

    image_id: int
    name: str
    size: tuple[int, int]
    detections: Detections
    frame: int | None = None
    time: float | None = None

    def boxes(self) -> Iterator[tuple[list[float], float, int]]:
        """``[x1, y1, x2, y2]``, score and label of each."""
        found = self.detections
        return zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)

    def rows(self, categories: Categories) -> Iterator[dict[str, Any]]:
        """One dict of COCO's results format per box, with the file name, and number and time of the frame of a video."""
        where = {} if self.frame is None else {"frame": self.frame, "time": self.time}
        for (x1, y1, x2, y2), score, label in self.boxes():
            box = [x1, y1, x2 - x1, y2 - y1]
            key = {"image_id": self.image_id, "file_name": self.name, **where}
            yield {**key, "category_id": categories[label][0], "bbox": box, "score": score}


def check_formats(formats: Sequence[Format], names: Sequence[str]) -> None:
    """Raises ValueError for a format that is not known, for none, and where two images would be written to one file.

    Example:
        >>> check_formats(["yolo"], ["a/1.jpg", "a/1.png"])
        Traceback (most recent call last):
        ValueError: format: yolo: a/1.jpg and a/1.png would both be written to yolo/labels/a/1.txt; predict them into two folders
    """
    unknown = [formats] if isinstance(formats, str) else [one for one in formats if one not in WRITERS]
    if unknown or not formats:
        raise ValueError(f"format: one or more of {', '.join(WRITERS)} expected, got {[*unknown, 'none'][0]!r}")
    if "yolo" in formats:
        taken: dict[Path, str] = {}
        for name in names:
            other = taken.setdefault(Path(name).with_suffix(".txt"), name)
            if other != name:
                place = Path("yolo/labels", name).with_suffix(".txt").as_posix()
                raise ValueError(f"format: yolo: {other} and {name} would both be written to {place}; predict them into two folders")


def write_found(out: Path, found: Sequence[Found], categories: Categories, formats: Sequence[Format]) -> list[Path]:
    """Writes what was found in each format into the folder ``out``.

    Returns:
        The file, or the folder, of each format.
    """
    out.mkdir(parents=True, exist_ok=True)
    return [WRITERS[one](out, found, categories) for one in dict.fromkeys(formats)]


def _write_coco(out: Path, found: Sequence[Found], categories: Categories) -> Path:
    from ..report import write_json

    path = out / "detections.json"
    write_json(path, [row for one in found for row in one.rows(categories)], indent=None)
    return path


def _write_yolo(out: Path, found: Sequence[Found], categories: Categories) -> Path:
    folder = out / "yolo"  # and not out / "labels", where a data set has its true boxes
    folder.mkdir(exist_ok=True)
    (folder / "classes.txt").write_text("".join(f"{' '.join(name.split())}\n" for _, name in categories), encoding="utf-8")
    for one in found:
        path = (folder / "labels" / one.name).with_suffix(".txt")
        if one.frame is not None:
            path = path.with_stem(f"{path.stem}_{one.frame:06d}")
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = one.size
        lines = []
        for (x1, y1, x2, y2), score, label in one.boxes():
            place = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(f"{label} {' '.join(f'{value:.8g}' for value in place)} {score:.8g}\n")
        path.write_text("".join(lines), encoding="utf-8")
    return folder


def _write_csv(out: Path, found: Sequence[Found], categories: Categories) -> Path:
    path = out / "detections.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        of_frames = any(one.frame is not None for one in found)
        writer.writerow(("file", "label", "class", "score", "x1", "y1", "x2", "y2", *(("frame", "time") if of_frames else ())))
        for one in found:
            where = (one.frame, one.time) if of_frames else ()
            writer.writerows((one.name, label, categories[label][1], score, *box, *where) for box, score, label in one.boxes())
    return path


WRITERS: dict[str, Callable[[Path, Sequence[Found], Categories], Path]] = {"coco": _write_coco, "yolo": _write_yolo, "csv": _write_csv}
