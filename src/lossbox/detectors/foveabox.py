"""FoveaBox: a feature pyramid and a dense head, one point per cell, no anchors. Images in, raw predictions out."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..boxes import PointCoder
from ..records import RawPredictions
from .anchors import cached_pyramid_anchors
from .backbone import build_pyramid
from .dense_head import DenseHead, Norm
from .trunks import Normalization


class FoveaBox(nn.Module):
    """One-stage detector without anchors: every cell says the log distances of the four sides, in units of its level's base edge.

    The point of a cell stands in the predictions as the square of the base edge around the center of the cell. ``FoveaAssigner`` is made
    for it. It sees no targets and knows no training mode.

    Args:
        num_classes: C; there is no background class, each class has its own sigmoid.
        backbone: a ResNet, ResNeXt or Wide ResNet of torchvision by name, or ``timm/...`` for a model of timm.
        backbone_options: of a model of timm, as ``timm.create_model`` takes them, for example ``channels`` of a ResNet.
        weights: null for random numbers, ``DEFAULT`` for ImageNet weights, a file, or ``bundled`` (see ``build_pyramid``).
        stages: how many of the stages of strides 4 to 32 are used; coarser levels come from stride-2 convolutions.
        frozen_stages: the stem and so many stages are not trained; by default 1 with weights and 0 without.
        frozen_norm: batch norms keep the statistics that they were loaded with; by default True with weights only.
        deformable_stages: stages of a ResNet, 1 to 4, with deformable convolutions.
        strides: of the levels in pixels, finest first, each twice the one before.
        channels: of every level and of the head.
        head_convs: convolutions of each of the two towers of the head, before the last.
        head_norm: what follows each of them: ``none``, ``group``, or ``batch`` with statistics of its own for each level.
        base_scale: the base edge of a level in strides; 2 makes 16 to 256 pixels of strides 8 to 128.
        limit: distances beyond it in base edges, or below its inverse, are no targets; > 1.
        prior: probability of each class at the start.

    Raises:
        ValueError: an option out of its range.
        ConnectionError: weights that could not be fetched.

    Source:
        Kong et al., FoveaBox: Beyond Anchor-based Object Detection, IEEE TIP 2020 (arXiv:1904.03797).

    Example:
        >>> import torch
        >>> detector = FoveaBox(3, strides=(8, 16), stages=3, channels=16, head_convs=1)
        >>> predictions = detector(torch.rand(2, 3, 40, 64))
        >>> tuple(predictions.logits.shape), predictions.level_sizes, predictions.anchors[0]
        ((2, 52, 3), (40, 12), tensor([-4., -4., 12., 12.]))
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet18",
        backbone_options: dict[str, Any] | None = None,
        weights: str | None = None,
        stages: int = 4,
        frozen_stages: int | None = None,
        frozen_norm: bool | None = None,
        deformable_stages: tuple[int, ...] = (),
        strides: tuple[int, ...] = (8, 16, 32, 64, 128),
        channels: int = 256,
        head_convs: int = 4,
        head_norm: Norm = "none",
        base_scale: float = 2.0,
        limit: float = 16.0,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        if not base_scale > 0:
            raise ValueError(f"base_scale: a number > 0 expected, got {base_scale}")
        self.base_scale = base_scale
        self.coder = PointCoder(limit)
        self.pyramid = build_pyramid(
            backbone,
            weights=weights,
            strides=strides,
            channels=channels,
            stages=stages,
            frozen_stages=frozen_stages,
            frozen_norm=frozen_norm,
            deformable_stages=deformable_stages,
            options=backbone_options,
        )
        self.normalize = Normalization(self.pyramid.trunk.mean, self.pyramid.trunk.std)
        self.head = DenseHead(channels, num_classes=num_classes, levels=len(strides), convs=head_convs, norm=head_norm, prior=prior)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> RawPredictions:
        """What the detector says about a batch.

        Args:
            images: (b, 3, h, w), RGB in [0, 1]; normalized here. Any height and width; one image of any size is a batch of its own.

        Returns:
            Predictions on the points of all levels, finest level first; on a level row by row.

        Raises:
            ValueError: not a batch of RGB images of floats.
        """
        levels = self.pyramid(self.normalize(images))
        logits, regression = self.head(levels)
        sizes = tuple((level.shape[2], level.shape[3]) for level in levels)
        return RawPredictions(
            logits=logits,
            regression=regression,
            anchors=cached_pyramid_anchors(sizes, self.pyramid.strides, self.base_scale, (1.0,), (1.0,), logits.device),
            level_sizes=tuple(rows * columns for rows, columns in sizes),
            coder=self.coder,
        )
