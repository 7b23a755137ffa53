"""The heads of dense detectors: two towers of convolutions, shared by all levels, that predict class and box on every cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

Norm = Literal["none", "group", "batch"]

NORMS: dict[str, Callable[[int, int], list[nn.Module]]] = {
    "none": lambda channels, levels: [nn.Identity()],
    "group": lambda channels, levels: [nn.GroupNorm(math.gcd(32, channels), channels)],
    "batch": lambda channels, levels: [nn.BatchNorm2d(channels) for _ in range(levels)],
}
"""What follows a convolution of a tower, for so many channels and levels: one for all levels, or one for each."""


class Tower(nn.Module):
    """Convolutions that all levels share, each with its norm and a ReLU.

    Args:
        channels: of the levels, kept.
        convs: 3 x 3 convolutions; 0 or more.
        norm: ``"none"``; ``"group"``: a GroupNorm; ``"batch"``: a batch norm of its own for each level, whose statistics differ.
        levels: how many there are.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Sec. 4; the batch norms: Lyu et al., RTMDet,
        arXiv:2212.07784, Sec. 3.2.

    Example:
        >>> tower = Tower(2, convs=1, norm="batch", levels=2)
        >>> [tuple(level.shape) for level in tower([torch.rand(1, 2, 4, 4), torch.rand(1, 2, 2, 2)])]
        [(1, 2, 4, 4), (1, 2, 2, 2)]
    """

    def __init__(self, channels: int, *, convs: int, norm: Norm, levels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([_conv(channels, channels, bias=norm == "none") for _ in range(convs)])
        self.norms = nn.ModuleList([nn.ModuleList(NORMS[norm](channels, levels)) for _ in range(convs)])

    def forward(self, levels: Sequence[Float[Tensor, "b c _h _w"]]) -> list[Float[Tensor, "b c _h _w"]]:
        return [self._one(level, number) for number, level in enumerate(levels)]

    def _one(self, x: Tensor, level: int) -> Tensor:
        for conv, norms in zip(self.convs, self.norms, strict=True):
            own = cast(nn.ModuleList, norms)
            x = own[level if len(own) > 1 else 0](conv(x)).relu_()
        return x


class DenseHead(nn.Module):
    """Class scores and box regression of every anchor, by one tower each.

    A tower is ``convs`` times (3 x 3 convolution, norm, ReLU), then a 3 x 3 convolution puts out ``num_anchors`` predictions per cell.
    Weights are drawn from N(0, 0.01^2), biases are 0, but those of the class scores are ``-log((1 - prior) / prior)``: every class starts
    at probability ``prior``, so that the many negatives do not drown the first steps.

    Args:
        channels: of the levels and of the towers.
        num_classes: C.
        levels: how many there are.
        num_anchors: predictions on one cell.
        convs: of each tower, before the last one; 0 or more.
        norm: after each convolution of a tower: ``"none"``, ``"group"`` or ``"batch"``, as for ``Tower``.
        prior: probability of each class at the start, in (0, 1).

    Raises:
        ValueError: an option out of its range.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Sec. 4 and 4.1.

    Example:
        >>> head = DenseHead(8, num_classes=3, levels=2, num_anchors=2, convs=1)
        >>> logits, regression = head([torch.zeros(1, 8, 4, 5), torch.zeros(1, 8, 2, 3)])
        >>> tuple(logits.shape), tuple(regression.shape)
        ((1, 52, 3), (1, 52, 4))
        >>> logits.sigmoid().unique().detach()
        tensor([0.0100])
    """

    def __init__(
        self,
        channels: int,
        *,
        num_classes: int,
        levels: int,
        num_anchors: int = 1,
        convs: int = 4,
        norm: Norm = "none",
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        _check(num_classes=num_classes, levels=levels, num_anchors=num_anchors, convs=convs, norm=norm, prior=prior)
        self.num_classes = num_classes
        self.classification_tower = Tower(channels, convs=convs, norm=norm, levels=levels)
        self.classification = _last(channels, num_anchors * num_classes, prior)
        self.box_tower = Tower(channels, convs=convs, norm=norm, levels=levels)
        self.box = _last(channels, num_anchors * 4)

    def forward(self, levels: Sequence[Float[Tensor, "b c _h _w"]]) -> tuple[Float[Tensor, "b a classes"], Float[Tensor, "b a 4"]]:
        """Levels, finest first, to logits and regression; the order of a: level, row, column, anchor on the cell."""
        logits = [_flat(self.classification(level), self.num_classes) for level in self.classification_tower(levels)]
        regression = [_flat(self.box(level), 4) for level in self.box_tower(levels)]
        return torch.cat(logits, 1), torch.cat(regression, 1)


class CenternessHead(nn.Module):
    """Class scores, box regression and centerness of every point, as in FCOS: one point per cell, one learned factor per level.

    The towers, weights and biases are those of ``DenseHead``. The centerness comes from the tower of the box; what the box regresses is
    multiplied by the factor of its level, which starts at 1.

    Args:
        channels: of the levels and of the towers.
        num_classes: C.
        levels: how many there are.
        convs: of each tower, before the last one; 0 or more.
        norm: after each convolution of a tower: ``"none"``, ``"group"`` or ``"batch"``, as for ``Tower``.
        prior: probability of each class at the start, in (0, 1).
        box_outputs: numbers that are regressed for a box: 4, or the bins of its four sides.

    Raises:
        ValueError: an option out of its range.

    Source:
        Tian et al., FCOS, ICCV 2019, Sec. 3.1-3.3 and Fig. 2; the centerness beside the box: the same authors, TPAMI 2020.

    Example:
        >>> head = CenternessHead(8, num_classes=3, levels=2, convs=1)
        >>> logits, regression, centerness = head([torch.zeros(1, 8, 4, 5), torch.zeros(1, 8, 2, 3)])
        >>> tuple(logits.shape), tuple(regression.shape), tuple(centerness.shape)
        ((1, 26, 3), (1, 26, 4), (1, 26))
    """

    def __init__(
        self,
        channels: int,
        *,
        num_classes: int,
        levels: int,
        convs: int = 4,
        norm: Norm = "group",
        prior: float = 0.01,
        box_outputs: int = 4,
    ) -> None:
        super().__init__()
        _check(num_classes=num_classes, levels=levels, convs=convs, norm=norm, prior=prior)
        self.num_classes = num_classes
        self.classification_tower = Tower(channels, convs=convs, norm=norm, levels=levels)
        self.classification = _last(channels, num_classes, prior)
        self.box_tower = Tower(channels, convs=convs, norm=norm, levels=levels)
        self.box = _last(channels, box_outputs)
        self.centerness = _last(channels, 1)
        self.scales = nn.Parameter(torch.ones(levels))

    def forward(
        self, levels: Sequence[Float[Tensor, "b c _h _w"]]
    ) -> tuple[Float[Tensor, "b a classes"], Float[Tensor, "b a outputs"], Float[Tensor, "b a"]]:
        """Levels, finest first, to logits, regression and centerness (a logit); the order of a: level, row, column."""
        towers = self.box_tower(levels)
        logits = [_flat(self.classification(level), self.num_classes) for level in self.classification_tower(levels)]
        regression = [_flat(self.box(tower), self.box.out_channels) * scale for tower, scale in zip(towers, self.scales, strict=True)]
        centerness = [_flat(self.centerness(tower), 1) for tower in towers]
        return torch.cat(logits, 1), torch.cat(regression, 1), torch.cat(centerness, 1)[..., 0]


def _last(channels: int, out: int, prior: float = 0.5) -> nn.Conv2d:
    """The convolution that puts out predictions; logits start at probability ``prior``."""
    conv = _conv(channels, out)
    nn.init.constant_(cast(Tensor, conv.bias), -math.log((1 - prior) / prior))
    return conv


def _conv(channels: int, out: int, *, bias: bool = True) -> nn.Conv2d:
    conv = nn.Conv2d(channels, out, 3, padding=1, bias=bias)
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _check(*, convs: int, norm: str, prior: float, **counts: int) -> None:
    for name, value, least in (*((name, count, 1) for name, count in counts.items()), ("convs", convs, 0)):
        if value < least:
            raise ValueError(f"{name}: a number >= {least} expected, got {value}")
    if norm not in NORMS:
        raise ValueError(f"norm: one of {', '.join(map(repr, NORMS))} expected, got {norm!r}")
    if not 0 < prior < 1:
        raise ValueError(f"prior: a probability in (0, 1) expected, got {prior}")


def _flat(x: Tensor, width: int) -> Tensor:
    """(b, A * width, h, w) to (b, h * w * A, width); no copy where x is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)
