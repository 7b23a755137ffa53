"""The images of a data set whose labels a person should look at, with these labels and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ._canvas import name_box, plain, rectangle, save_figure, sheet, show_image

COLORS = {"no size": "tab:red", "outside": "tab:orange", "bad label": "tab:purple", "double": "tab:blue", "tiny": "tab:green"}

MARGIN = 0.15
"""Share of an image that is shown around it, for boxes that leave it."""

LINES = 3
"""Reasons above an image; how many more there are is said."""


class Marked(Protocol):
    """A label to look at: its kind, a key of ``COLORS``; what is wrong with it; its box ``x1 y1 x2 y2`` where it has one."""

    @property
    def kind(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def box(self) -> Sequence[float] | None: ...


def draw_faults(images: Sequence[tuple[str, Tensor, Sequence[Marked]]], heading: str, path: Path) -> Path:
    """Draws images with the labels that something is wrong with, each with the reason, in the color of its kind.

    A box is cut where what is shown ends; a cross marks the middle of one that is too small to be seen, or lies elsewhere.

    Args:
        images: of each its name, its pixels (3, h, w) in [0, 1], and its labels, the worst first.
        heading: of the sheet.
        path: where the PNG goes.

    Returns:
        ``path``.
    """
    figure, panels = sheet([(image.shape[-2], image.shape[-1]) for _, image, _ in images], columns=4, scale=3.4)
    for panel, (name, image, faults) in zip(panels, images, strict=True):
        height, width = image.shape[-2:]
        show_image(panel, image)
        around = MARGIN if any(fault.kind == "outside" for fault in faults) else 0.0
        view = (-around * width, -around * height, (1 + around) * width, (1 + around) * height)
        panel.set(xlim=(view[0] - 0.5, view[2] - 0.5), ylim=(view[3] - 0.5, view[1] - 0.5))
        rectangle(panel, (-0.5, -0.5, width - 0.5, height - 0.5), "black", ":", width=0.6)
        for fault in reversed(faults):  # the worst on top
            if fault.box is not None:
                _draw(panel, fault.kind, fault.box, view)
        said = [f"{fault.kind}: {fault.reason}" for fault in faults[:LINES]]
        said += [f"and {len(faults) - LINES} more"] if len(faults) > LINES else []
        panel.set_title(plain("\n".join(_short(line) for line in (name, *said))), fontsize=6, pad=2)
    figure.suptitle(heading, fontsize=9)
    return save_figure(figure, path)


def _draw(panel: Any, kind: str, box: Sequence[float], view: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = view
    x1, x2 = (min(max(x, left), right) - 0.5 for x in box[::2])
    y1, y2 = (min(max(y, top), bottom) - 0.5 for y in box[1::2])
    rectangle(panel, (x1, y1, x2, y2), COLORS[kind])
    if min(abs(x2 - x1), abs(y2 - y1)) < 0.02 * (right - left):
        panel.plot([(x1 + x2) / 2], [(y1 + y2) / 2], "x", color=COLORS[kind], markersize=7, clip_on=False)
    # a name that began at the right border would be cut
    name_box(panel, min(x1, x2, right - 0.15 * (right - left)), min(y1, y2), kind, color=COLORS[kind])


def _short(line: str, most: int = 56) -> str:
    return line if len(line) <= most else f"{line[: most - 3]}..."
