"""The studies of ``lossbox compare`` as tables and images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._canvas import pyplot, save_figure

if TYPE_CHECKING:
    from rich.table import Table

_TOY_LOSSES = {
    "cross_entropy": "cross-entropy",
    "ap_loss": "AP loss",
    "iou_loss": "IoU loss",
    "alrp_loss": "aLRP loss",
}


def print_toy(study: Mapping[str, Any]) -> None:
    """Prints the numbers of :func:`lossbox.analysis.toy_study`: precision by recall and AP (Table A.9), then the losses (Figure 1)."""
    from rich.console import Console

    console = Console()
    for table in (_precision_table(study), _loss_table(study)):
        console.print(table)


def _precision_table(study: Mapping[str, Any]) -> Table:
    """The toy example's interpolated precision at ten recalls and their mean, by IoU and detector: Table A.9."""
    from rich import box
    from rich.table import Table

    title = "Precision at recall 0.1 ... 1.0, and AP, their mean"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=0)  # 80 columns hold it
    table.add_column("IoU")
    table.add_column("detector", no_wrap=True)
    for tenth in range(1, 11):
        table.add_column(f"{tenth / 10:.1f}", justify="right")
    table.add_column("AP", justify="right", style="bold")
    for iou in next(iter(study["detectors"].values()))["precision"]:
        for name, detector in study["detectors"].items():
            values = [*detector["precision"][iou], detector[f"AP{float(iou) * 100:.0f}"]]
            table.add_row(iou, name, *map(_two_digits, values))
        table.add_section()
    return table


def _loss_table(study: Mapping[str, Any]) -> Table:
    """The toy example's losses beside AP, oLRP and the correlation of score and IoU: Figure 1 (c)."""
    from rich import box
    from rich.table import Table

    caption = "of the losses only aLRP sees which box comes first"
    table = Table(title="Losses and metrics", caption=caption, box=box.SIMPLE, padding=0, title_justify="left", caption_justify="left")
    table.add_column("detector", no_wrap=True)
    columns = _TOY_LOSSES | {"AP": "AP", "oLRP": "oLRP", "rho": "rho"}
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for name, detector in study["detectors"].items():
        table.add_row(name, *(_two_digits(detector[key]) for key in columns))
    return table


def _two_digits(value: float) -> str:
    # An IoU loss of 0.275 is 0.28 in the paper; the last bit of the sum must not decide.
    return f"{value + 1e-9:.2f}"


def draw_toy(study: Mapping[str, Any], path: Path) -> Path:
    """Draws the toy example: what each detector found, AP by IoU, and the losses side by side.

    Args:
        study: from :func:`lossbox.analysis.toy_study`.
        path: where the PNG goes; its folder is made.

    Returns:
        ``path``.
    """
    plt = pyplot()
    figure, (found, ap, losses) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    detectors = study["detectors"]
    width = 0.8 / len(detectors)
    positive_scores = [score for score, positive in zip(study["scores"], study["is_positive"], strict=True) if positive]
    negative_scores = [score for score, positive in zip(study["scores"], study["is_positive"], strict=True) if not positive]
    names = [name for name in next(iter(detectors.values())) if name.startswith("AP") and name != "AP"]
    for index, (name, detector) in enumerate(detectors.items()):
        shift = (index - (len(detectors) - 1) / 2) * width
        found.plot(positive_scores, detector["ious"], marker="o", label=name)
        for panel, keys in ((ap, [*names, "AP"]), (losses, list(_TOY_LOSSES))):
            bars = panel.bar([place + shift for place in range(len(keys))], [detector[key] for key in keys], width, label=name)
            panel.bar_label(bars, fmt=_two_digits, fontsize=6)
    found.plot(negative_scores, [0.0] * len(negative_scores), "x", color="black", label="false positives, of each")
    found.set(title="IoU of what is found, by score", xlabel="score", ylabel="IoU", xlim=(1.05, 0.05), ylim=(-0.05, 1.05))
    ap.set(title="AP at one IoU, and their mean")
    ap.set_xticks(range(len(names) + 1), [*names, "mean"])
    losses.set(title="Losses: only aLRP sees which box comes first")
    losses.set_xticks(range(len(_TOY_LOSSES)), list(_TOY_LOSSES.values()))
    for panel in (found, ap, losses):
        panel.grid(alpha=0.3, axis="y")
    found.legend(fontsize=8, loc="center", bbox_to_anchor=(0.5, 0.25))
    return save_figure(figure, path)
