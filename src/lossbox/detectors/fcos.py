"""FCOS: a feature pyramid and a head that says class, box and centerness of one point per cell. Images in, raw predictions out."""

from __future__ import annotations

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..boxes import MAX_LOG_SCALE, PointCoder
from ..records import RawPredictions
from .anchors import cached_pyramid_anchors
from .backbone import build_pyramid
from .dense_head import CenternessHead, Norm
from .trunks import Normalization


class FCOS(nn.Module):
    """One-stage detector without anchors: every cell says the distances of the four sides and how central it lies in its object.

    A distance is ``stride * exp(factor of the level * output)``: the exponential form of the first publication, in units of the stride, so
    that all levels start at boxes of two strides. The point of a cell stands in the predictions as the square of one stride around the
    center of the cell. ``CenterAssigner`` is made for it. It sees no targets and knows no training mode.

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
        prior: probability of each class at the start.

    Raises:
        ValueError: an option out of its range.
        ConnectionError: weights that could not be fetched.

    Source:
        Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, ICCV 2019, Secs. 3.1-3.3; the centerness beside the box: the same
        authors, TPAMI 2020.

    Example:
        >>> import torch
        >>> detector = FCOS(3, strides=(8, 16), stages=3, channels=16, head_convs=1)
        >>> predictions = detector(torch.rand(2, 3, 40, 64))
        >>> tuple(predictions.logits.shape), tuple(predictions.centerness.shape), predictions.anchors[0]
        ((2, 52, 3), (2, 52), tensor([0., 0., 8., 8.]))
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
        head_norm: Norm = "group",
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        # as far as a decoded distance goes: FCOS knows no limit of its targets
        self.coder = PointCoder(math.exp(MAX_LOG_SCALE))
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
        self.head = CenternessHead(channels, num_classes=num_classes, levels=len(strides), convs=head_convs, norm=head_norm, prior=prior)

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
        logits, regression, centerness = self.head(levels)
        sizes = tuple((level.shape[2], level.shape[3]) for level in levels)
        return RawPredictions(
            logits=logits,
            regression=regression,
            anchors=cached_pyramid_anchors(sizes, self.pyramid.strides, 1.0, (1.0,), (1.0,), logits.device),
            level_sizes=tuple(rows * columns for rows, columns in sizes),
            coder=self.coder,
            centerness=centerness,
        )
