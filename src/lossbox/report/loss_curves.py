"""A loss as an image: its value and its gradient along one number that slides, computed by the loss itself.

What slides, and beside what, is said in ``loss_axes.AXES``. The gradient is the one that training uses: for a ranking loss the
*defined* one, which is not the slope of the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..losses import CATALOG, ClassificationLoss
from ._canvas import pyplot, save_figure
from .loss_axes import AXES, Axis, Loss


@dataclass(frozen=True)
class LossCurves:
    """A loss along its axis.

    Attributes:
        name: of the loss.
        label: of the axis.
        x: the values of the number that slides.
        values: by line, the loss at each x; a loss of two parts has a line for each.
        gradients: by line, the derivative with respect to x.
    """

    name: str
    label: str
    x: list[float]
    values: dict[str, list[float]]
    gradients: dict[str, list[float]]


def axis_of(name: str) -> Axis:
    """The axis of a loss of ``CATALOG``."""
    entry = CATALOG[name]
    targets = entry.targets if issubclass(entry, ClassificationLoss) else ()
    return AXES.get(name) or AXES.get(f"{entry.family}: {', '.join(targets)}") or AXES[entry.family]


def trace(name: str, loss: Loss, axis: Axis, *, points: int = 241) -> LossCurves:
    """Computes any loss along any axis.

    Args:
        name: what it is called.
        loss: of tensors; it may return a tuple of parts, with names (a NamedTuple).
        axis: what slides.
        points: at how many equal steps, >= 2.

    Returns:
        A line for each of ``axis.lines`` and each part.

    Raises:
        ValueError: fewer than two points.

    Example:
        >>> axis = Axis("x", (-1.0, 1.0), {"": lambda loss, x: loss(x)})
        >>> trace("square", torch.square, axis, points=3).gradients
        {'value': [-2.0, 0.0, 2.0]}
    """
    if points < 2:
        raise ValueError(f"points: at least 2 expected, got {points}")
    grid = torch.linspace(*axis.span, points, dtype=torch.float64).tolist()
    values: dict[str, list[float]] = {}
    gradients: dict[str, list[float]] = {}
    for line, at in axis.lines.items():
        for position in grid:
            x = torch.tensor([position], dtype=torch.float64, requires_grad=True)
            result = at(loss, x)
            parts = result._asdict() if isinstance(result, tuple) else {"": result}  # type: ignore[attr-defined]
            for part, value in parts.items():
                key = ", ".join(word for word in (line, part) if word) or "value"
                gradient = torch.autograd.grad(value.sum(), x, retain_graph=True, allow_unused=True)[0] if value.requires_grad else None
                values.setdefault(key, []).append(value.detach().sum().item())
                gradients.setdefault(key, []).append(0.0 if gradient is None else gradient.item())
    return LossCurves(name, axis.label, grid, values, gradients)


def curves_of(name: str, *, points: int = 241) -> LossCurves:
    """Computes a loss of ``CATALOG`` along the axis of ``AXES``.

    Args:
        name: of the loss.
        points: at how many equal steps.

    Raises:
        ValueError: a loss that is not in the catalog, fewer than two points.

    Example:
        >>> curves_of("l1_loss", points=3).values
        {'value': [3.0, 0.0, 3.0]}
    """
    if name not in CATALOG:
        raise ValueError(f"name: one of lossbox.losses.CATALOG expected, got {name!r}")
    return trace(name, CATALOG[name].function, axis_of(name), points=points)


def draw_loss(curves: LossCurves, path: Path) -> Path:
    """Draws value and gradient side by side.

    Args:
        curves: of ``curves_of`` or ``trace``.
        path: ending in .png or .svg; its folder is made.

    Returns:
        ``path``.
    """
    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    styles = ("-", "--", "-.", ":")
    for panel, title, lines in zip(panels, ("value", "gradient"), (curves.values, curves.gradients), strict=True):
        for (line, heights), style in zip(lines.items(), styles, strict=False):
            panel.plot(curves.x, heights, style, label=line, linewidth=1.8)
        panel.set(title=title)
        panel.axhline(0, color="black", linewidth=0.6)
        panel.grid(alpha=0.3)
    if list(curves.values) != ["value"]:
        panels[0].legend(fontsize=8)
    figure.suptitle(curves.name)
    figure.supxlabel(curves.label, fontsize=9)
    return save_figure(figure, path)


def plot_loss(curves: LossCurves, *, width: int = 100, color: bool = False) -> str:
    """Value and gradient as text, side by side where there is room.

    Args:
        curves: of ``curves_of`` or ``trace``.
        width: columns of the terminal.
        color: escape codes for color; without them each line has a character of its own.

    Returns:
        About 20 lines, or 40 where ``width`` is below 90.
    """
    import plotext  # type: ignore[import-untyped]

    figure = plotext.figure
    figure.clear()
    plotext.terminal.limit(False, False)  # a plot taller than the window scrolls
    rows, columns = (1, 2) if width >= 90 else (2, 1)
    figure.subplots(rows, columns)
    panels: Sequence[tuple[str, dict[str, list[float]]]] = (("value", curves.values), ("gradient", curves.gradients))
    for index, (title, lines) in enumerate(panels):
        panel = figure.subplot(1 + index // columns, 1 + index % columns)
        panel.theme("simple" if color else "colorless")
        panel.title(f"{curves.name}: {title}")
        for (line, heights), character in zip(lines.items(), "*o+x", strict=False):
            signal = panel.signal(curves.x, heights, marker=None if color else character)
            signal.lines()
            if list(lines) != ["value"] and index == 0:
                signal.label(line)
            panel.draw(signal)
    figure.plot_size(min(width, 140), 18 * rows)
    text: str = figure.build().string(colorless=not color)
    figure.clear()
    return "\n".join([*(line.rstrip() for line in text.splitlines()), f"x: {curves.label}"])
