"""Where the cells of a pyramid lie in the image, and the anchors that stand on them.

A cell of a level with stride s covers s x s pixels; its center is at ((column + 1/2) s, (row + 1/2) s). Cells are numbered row by row,
and levels follow each other, finest first. ``torchvision``'s ``AnchorGenerator`` is not used: it centers anchors on the corners of the
cells and rounds them to whole pixels, where the papers' implementations center them in the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


def cell_centers(size: tuple[int, int], stride: int, *, device: torch.device | str = "cpu") -> Float[Tensor, "cells 2"]:
    """The centers of the cells of one level, row by row.

    ``((column + 1/2) s, (row + 1/2) s)``

    Args:
        size: rows and columns of the level.
        stride: pixels from one cell to the next.
        device: where the result lies.

    Returns:
        (rows * columns, 2), x and y in pixels of the image.

    Example:
        >>> cell_centers((1, 2), 8)
        tensor([[ 4.,  4.],
                [12.,  4.]])
    """
    rows, columns = size
    y = (torch.arange(rows, device=device, dtype=torch.float32) + 0.5) * stride
    x = (torch.arange(columns, device=device, dtype=torch.float32) + 0.5) * stride
    return torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], -1).reshape(-1, 2)


def pyramid_anchors(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    *,
    anchor_scale: float = 4.0,
    scales: Sequence[float] = (1.0, 2**0.5),
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    device: torch.device | str = "cpu",
) -> Float[Tensor, "a 4"]:
    """The anchors of a whole pyramid: every scale and aspect ratio on every cell of every level.

    On a level of stride s an anchor of scale c and ratio r has ``height / width = r`` and the area ``(anchor_scale s c)^2``, around the
    center of its cell.

    Args:
        sizes: rows and columns of each level, finest first.
        strides: pixels from one cell to the next, one per level.
        anchor_scale: side of the square anchor of scale 1, in strides.
        scales: sizes on one cell, as factors.
        ratios: height over width.
        device: where the result lies.

    Returns:
        (a, 4) ``x1 y1 x2 y2`` in pixels. The order: level, row, column, ratio, scale.

    Example:
        >>> pyramid_anchors([(1, 1)], [8], scales=(1.0,), ratios=(0.25, 1.0))
        tensor([[-28.,  -4.,  36.,  12.],
                [-12., -12.,  20.,  20.]])
    """
    levels = []
    for size, stride in zip(sizes, strides, strict=True):
        scale = torch.tensor(scales, device=device).repeat(len(ratios)) * (anchor_scale * stride)
        root = torch.tensor(ratios, device=device).sqrt().repeat_interleave(len(scales))
        half = torch.stack([scale / root, scale * root], -1) / 2
        centers = cell_centers(size, stride, device=device)[:, None]
        levels.append(torch.cat([centers - half, centers + half], -1).reshape(-1, 4))
    return torch.cat(levels)


def anchor_shapes(
    strides: Sequence[int], *, anchor_scale: float = 4.0, scales: Sequence[float] = (1.0, 2**0.5), ratios: Sequence[float] = (0.5, 1.0, 2.0)
) -> list[Float[Tensor, "k 2"]]:
    """For each level the (width, height) of the anchors on one cell, in pixels; the options are those of ``pyramid_anchors``.

    Raises:
        ValueError: no stride, or a number that is not > 0.

    Example:
        >>> anchor_shapes([8, 16], anchor_scale=2.0, scales=(1.0,), ratios=(1.0,))
        [tensor([[16., 16.]]), tensor([[32., 32.]])]
    """
    check_positive(strides=strides, anchor_scale=(anchor_scale,), scales=scales, ratios=ratios)
    levels = [pyramid_anchors([(1, 1)], [stride], anchor_scale=anchor_scale, scales=scales, ratios=ratios) for stride in strides]
    return [level[:, 2:] - level[:, :2] for level in levels]


def check_positive(**options: Sequence[float | Literal["auto"]]) -> None:
    """Raises ValueError where an option holds no number, one that is not > 0, or ``auto``.

    Example:
        >>> check_positive(scales=(1.0, 0.0))
        Traceback (most recent call last):
        ValueError: scales: numbers > 0 expected, got (1.0, 0.0)
    """
    for name, values in options.items():
        if "auto" in values:
            raise ValueError(
                f"{name}: a number > 0 expected, got 'auto', which `lossbox fit` decides by the training boxes; the number stands in the "
                "config.yaml of the run, and `lossbox check` prints it"
            )
        if not values or not all(value > 0 for value in values):  # type: ignore[operator]
            raise ValueError(f"{name}: numbers > 0 expected, got {tuple(values)}")


def anchors_on(
    levels: Sequence[Float[Tensor, "b c _h _w"]],
    strides: tuple[int, ...],
    *,
    anchor_scale: float,
    scales: tuple[float, ...] = (1.0,),
    ratios: tuple[float, ...] = (1.0,),
) -> tuple[Float[Tensor, "a 4"], tuple[int, ...]]:
    """``pyramid_anchors`` of feature maps and the number of anchors on each, made once for each of the last 32 shapes.

    The anchors are shared by all calls: nothing may be written into them.
    """
    sizes = tuple((level.shape[2], level.shape[3]) for level in levels)
    # a tracer's stand-ins must not enter the cache, and it makes a constant of the result anyway
    make = _anchors if torch.compiler.is_compiling() else _cached_anchors
    anchors = make(sizes, strides, anchor_scale, scales, ratios, levels[0].device)
    return anchors, tuple(rows * columns * len(scales) * len(ratios) for rows, columns in sizes)


# A tensor made under inference_mode (a validation before the first step) could not take part in a training step later.
@torch.inference_mode(False)
def _anchors(
    sizes: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    anchor_scale: float,
    scales: tuple[float, ...],
    ratios: tuple[float, ...],
    device: torch.device,
) -> Tensor:
    return pyramid_anchors(sizes, strides, anchor_scale=anchor_scale, scales=scales, ratios=ratios, device=device)


_cached_anchors = lru_cache(maxsize=32)(_anchors)
