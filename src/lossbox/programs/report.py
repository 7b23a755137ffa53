"""``lossbox report``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .bars import stages
from .command import Folder, NewFile, command

PAGE = b'<script type="application/json" id="data">'
"""What a page has and no other file."""


@dataclass(frozen=True)
class Report:
    """What :func:`write_report` wrote.

    Attributes:
        page: the file.
        runs: the folders of the runs in it.
        notes: what is missing of a run, and why.
    """

    page: Path
    runs: tuple[Path, ...]
    notes: tuple[str, ...]


def write_report(runs: Sequence[Folder], *, out: NewFile | None = None, iou: float = 0.5, resamples: int = 1000) -> Report:
    """Writes a page about one run, or about several beside each other, that opens in any browser and needs no network.

    Of one run: its numbers, the curves of its training, precision against recall, LRP against the score threshold, each class with the
    score to cut it at and what its error is made of, the confusion matrix, the worst and the best images with boxes, the recipe and the
    commands to get it again. Of several: mean and spread of each recipe, the options in which they differ, and a paired bootstrap
    interval of the differences. Runs whose options are equal but for seed and folder are of one recipe.

    Args:
        runs: folders of runs, or folders that hold some, as that of `lossbox compare`
        out: the page (default: report.html in the folder, or of several in the working directory); only an earlier page is overwritten
        iou: IoU from which a detection is right; in (0, 1)
        resamples: draws of the images behind the intervals; 0 leaves these out

    Returns:
        Where the page is, and what it could not show.

    Raises:
        FileNotFoundError: a folder that is no run and holds none; it is named.
        ValueError: an option out of range, a file of a run that cannot be read, or a file of another kind at ``out``; it is named.
    """
    if not 0 < iou < 1:
        raise ValueError(f"iou: a number in (0, 1) expected, got {iou}")
    if resamples < 0:
        raise ValueError(f"resamples: a number >= 0 expected, got {resamples}")
    from .. import report
    from ..report import comparison

    paths = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    folders = report.find_runs(paths)
    target = Path(out) if out is not None else (paths[0] if len(paths) == 1 else Path()) / "report.html"
    if target.exists() and not (target.is_file() and PAGE in target.read_bytes()):
        raise ValueError(f"out: {target} is there and no page of lossbox report; --out names another file")
    names = report.names_of(folders)
    most = len(folders) - 1 if resamples else 0
    with stages(len(folders) + most + 1) as stage:
        read = []
        for folder, name in zip(folders, names, strict=True):
            stage(f"reading {name}")
            read.append(report.read_run(folder, name=name))
        intervals = []
        for base, other in comparison.paired_runs(read) if resamples else ():
            stage(f"comparing {read[other].name} with {read[base].name}")
            intervals += comparison.interval_rows(read[base], read[other], tau=iou, resamples=resamples)
        stage("writing the page")
        command = report.report_command(paths, target, tau=iou)
        page = report.write_page(target, read, command=command, tau=iou, intervals=intervals)
    return Report(page, tuple(folders), tuple(f"{run.name}: {note}" for run in read for note in run.notes))


def show_report(written: Report) -> None:
    """Prints where the page is, and what is missing."""
    for note in written.notes:
        print(f"note: {note}")
    count = len(written.runs)
    print(f"{count} run{'s' if count > 1 else ''}: {written.page} ({written.page.stat().st_size / 1e6:.1f} MB), open it in a browser")


run = command(write_report, show_report, name="report")
