"""A report as one HTML page that needs no network: tables, interactive charts, images with boxes.

Charts are drawn by plotly.js from plotly's own package. It ships one bundle, of 4.8 MB; the page holds it compressed (2.0 MB) and unpacks
it when it is opened. ``page.html`` is filled by Jinja, which escapes; all data is in one JSON block, which ``page.js`` puts into the page
as text only. A content security policy forbids every request.
"""

from __future__ import annotations

import base64
import gzip
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .. import __version__
from ..metrics import (
    DetectionColumns,
    GroundTruth,
    Matches,
    average_precision,
    match_detections,
    numbers_of,
    optimal_lrp_per_class,
    to_json,
)
from ..metrics.errors import KINDS, error_shares
from . import comparison, curves, gallery
from .comparison import NUMBERS
from .confusion import confusion_matrix
from .runs import Run, same_truth

HERE = Path(__file__).parent


class Measured(NamedTuple):
    """The detections of a run, matched; ``thresholds``: the LRP-optimal score of each class."""

    truth: GroundTruth
    found: DetectionColumns
    matches: Matches
    thresholds: Float[np.ndarray, " c"]


def _measure(run: Run, *, tau: float) -> Measured | None:
    if run.truth is None or run.found is None:
        return None
    matches = match_detections(run.truth, run.found, iou_threshold=tau)
    thresholds = [optimum.threshold for optimum in optimal_lrp_per_class(matches, tau=tau)]
    return Measured(run.truth, run.found, matches, np.array(thresholds, dtype=np.float64))


def _run_content(run: Run, measured: Measured | None, *, tau: float) -> dict[str, Any]:
    """What the page shows of a run, without its images."""
    content: dict[str, Any] = {"name": run.name, "seed": run.config.get("seed_everything"), "facts": run.facts, "notes": run.notes}
    content |= {"curves": curves.training_curves(run.curves), "numbers": {name: (run.metrics or {}).get(name) for name in NUMBERS}}
    if measured is None:
        return content
    truth, found, matches, thresholds = measured
    ap = average_precision(truth, found)
    numbers = numbers_of(truth, ap, matches, tau=tau)
    optima = optimal_lrp_per_class(matches, tau=tau)
    shares = error_shares(truth, found, tau=tau, matches=matches)
    drawn = curves.drawn_classes(matches.num_ground_truth)
    classes = [
        {name: _short(row[name]) for name in ("num_ground_truth", "AP", "AP50", "oLRP", *_PARTS)}
        | {"threshold": _short(row["threshold"], 6), "shares": [_short(share["shares"][kind]) for kind in KINDS], "main": share["main"]}
        for row, share in zip(numbers["per_class"], shares, strict=True)
    ]
    return content | {
        "numbers": {name: _short(numbers[name], 6) for name in NUMBERS},
        "classes": classes,
        "pr": curves.precision_recall(ap, drawn),
        "lrp": curves.lrp_curves(matches, optima, drawn, tau=tau),
        "points": curves.score_iou(matches),
        "reliability": curves.reliability(matches),
        "confusion": _sparse(confusion_matrix(truth, found, thresholds.tolist(), iou_threshold=tau)),
        "left_out": int((matches.num_ground_truth > 0).sum()) - len(drawn),
    }


_PARTS = ("localization", "false_positive", "false_negative")


def _short(value: float | None, digits: int = 4) -> float | None:
    return None if value is None or math.isnan(value) else float(f"{value:.{digits}g}") if digits > 4 else round(value, digits)


def _sparse(matrix: Any) -> list[list[int]]:
    rows, columns = np.nonzero(matrix)
    return list(np.column_stack([rows, columns, matrix[rows, columns]]).tolist())


def page_content(runs: Sequence[Run], *, tau: float = 0.5) -> dict[str, Any]:
    """Everything that the page shows, as JSON.

    Args:
        runs: one or more.
        tau: IoU from which a detection is right.
    """
    groups = comparison.group_runs(runs)
    measured = [_measure(run, tau=tau) for run in runs]
    contents = [_run_content(run, basis, tau=tau) | {"group": group} for run, basis, group in zip(runs, measured, groups, strict=True)]
    sets: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        if measured[number] is None or "set" in contents[number]:
            continue
        members = [other for other in range(number, len(runs)) if same_truth(run, runs[other])]
        root = next((runs[member].images for member in members if (runs[member].images or Path("?")).is_dir()), None)
        content, found = _set_content([basis for member in members if (basis := measured[member])], root, tau=tau)
        for member, boxes in zip(members, found, strict=True):
            contents[member] |= {"set": len(sets), "found": boxes}
        sets.append(content)
    names = comparison.name_groups([run.name for run in runs], groups)
    return {"runs": contents, "sets": sets, "groups": names, "kinds": KINDS, "ious": list(curves.PR_IOUS), "tau": tau}


def _set_content(measured: Sequence[Measured], root: Path | None, *, tau: float) -> tuple[dict[str, Any], list[Any]]:
    """The images of runs that were validated on the same annotations, and the detections of each run in them."""
    truth = measured[0].truth
    errors = [gallery.image_errors(*one, tau=tau) for one in measured]
    lrp = np.array([np.nan_to_num(error.lrp) for error in errors]).mean(axis=0)
    olrp = [-np.nan_to_num(optimum.olrp) for optimum in optimal_lrp_per_class(measured[0].matches, tau=tau)]
    worst_classes = np.argsort(olrp, kind="stable")[: gallery.MOST]
    by_class = [gallery.image_errors(*measured[0], tau=tau, category=int(label)) for label in worst_classes]
    worst, best = gallery.choose_images(errors, by_class)
    images = [
        gallery.image_content(truth, index, root) | {"error": _short(float(lrp[index])), "worst": index in worst} for index in worst + best
    ]
    total = {"images": len(truth.image_ids), "boxes": int((~truth.crowd).sum())}
    content = {"classes": truth.category_names, "images": images, "total": total}
    return content, [gallery.found_content(truth, one.found, one.matches, worst + best) for one in measured]


def render_page(runs: Sequence[Run], *, command: str, tau: float = 0.5, intervals: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page.

    Args:
        runs: one or more, each with a name of its own.
        command: that writes this page again.
        tau: IoU from which a detection is right, in (0, 1).
        intervals: rows of :func:`lossbox.report.comparison.interval_rows`.

    Returns:
        HTML.
    """
    try:
        import jinja2
        from jinja2.utils import htmlsafe_json_dumps
    except ImportError as error:
        raise ImportError("a report needs Jinja: pip install 'lossbox[eval]'") from error
    content = page_content(runs, tau=tau)
    groups = [run["group"] for run in content["runs"]]
    summaries = [
        {
            "name": name,
            "runs": groups.count(number),
            "numbers": {
                key: comparison.spread([run["numbers"][key] for run in content["runs"] if run["group"] == number]) for key in NUMBERS
            },
        }
        for number, name in enumerate(content["groups"])
    ]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("page.html").render(
        content=content,
        data=htmlsafe_json_dumps(content, dumps=lambda value, **_: to_json(value, indent=None)),
        headings=NUMBERS,
        summaries=summaries,
        intervals=intervals,
        differences=comparison.differing_options(runs, groups),
        options=sorted(comparison.options_of(runs[0]).items()) if len(runs) == 1 else [],
        commands=[(run.name, comparison.commands_of(run)) for run in runs],
        command=command,
        first_batch=gallery.thumbnail(runs[0].folder / "train_batches.png", side=1200)[0] if len(runs) == 1 else None,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        plotly=_compressed_plotly(),
        style=(HERE / "page.css").read_text(),
        script=(HERE / "page.js").read_text(),
    )


def write_page(path: Path, runs: Sequence[Run], **options: Any) -> Path:
    """Writes :func:`render_page`, of the same options, into a file, whose folder is made; another process sees the whole file or none."""
    page = render_page(runs, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(page, encoding="utf-8", errors="replace")
    new.replace(path)
    return path


@cache
def _compressed_plotly() -> str:
    """plotly.js, compressed by gzip, as base64."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError("a report needs plotly: pip install 'lossbox[eval]'") from error
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
