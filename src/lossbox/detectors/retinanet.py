"""RetinaNet: a feature pyramid, a dense head, and anchors. Images in, raw predictions out."""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from ..boxes import DeltaCoder
from ..records import RawPredictions
from .anchors import cached_pyramid_anchors, decided
from .backbone import build_pyramid
from .dense_head import DenseHead, Norm
from .trunks import Normalization


class RetinaNet(nn.Module):
    """One-stage detector with anchors. It sees no targets and knows no training mode.

    ATSS is this detector with square anchors (``ratios: [1.0]``, ``scales: [1.0]``) and another assigner.

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
        pyramid_norm: a batch norm after each convolution of the FPN.
        head_convs: convolutions of each of the two towers of the head, before the last.
        head_norm: what follows each of them: ``none``, ``group``, or ``batch`` with statistics of its own for each level.
        anchor_scale: side of the square anchor of scale 1, in strides; in a recipe ``auto`` has it decided by the training boxes.
        scales: of the anchors on one place.
        ratios: height over width of the anchors on one place.
        delta_std: what the four box offsets are divided by.
        prior: probability of each class at the start.

    Raises:
        ValueError: an option out of its range.
        ConnectionError: weights that could not be fetched.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017. The defaults of the anchors: Oksuz et al., aLRP Loss, NeurIPS 2020.

    Example:
        >>> import torch
        >>> detector = RetinaNet(3, strides=(8, 16), stages=3, channels=16, head_convs=1)
        >>> predictions = detector(torch.rand(2, 3, 40, 64))
        >>> tuple(predictions.logits.shape), tuple(predictions.regression.shape), predictions.level_sizes
        ((2, 312, 3), (2, 312, 4), (240, 72))
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
        pyramid_norm: bool = False,
        head_convs: int = 4,
        head_norm: Norm = "none",
        anchor_scale: float | Literal["auto"] = 4.0,
        scales: tuple[float, ...] = (1.0, 2**0.5),
        ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        delta_std: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2),
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        anchor_scale = decided(anchor_scale)
        for name, values in (("anchor_scale", (anchor_scale,)), ("scales", scales), ("ratios", ratios)):
            if not values or not all(value > 0 for value in values):
                raise ValueError(f"{name}: numbers > 0 expected, got {values}")
        self.anchor_scale = anchor_scale
        self.scales = tuple(scales)
        self.ratios = tuple(ratios)
        self.coder = DeltaCoder(delta_std)
        self.pyramid = build_pyramid(
            backbone,
            weights=weights,
            strides=strides,
            channels=channels,
            norm=pyramid_norm,
            stages=stages,
            frozen_stages=frozen_stages,
            frozen_norm=frozen_norm,
            deformable_stages=deformable_stages,
            options=backbone_options,
        )
        self.normalize = Normalization(self.pyramid.trunk.mean, self.pyramid.trunk.std)
        self.head = DenseHead(
            channels,
            num_classes=num_classes,
            levels=len(strides),
            num_anchors=len(scales) * len(ratios),
            convs=head_convs,
            norm=head_norm,
            prior=prior,
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> RawPredictions:
        """What the detector says about a batch.

        Args:
            images: (b, 3, h, w), RGB in [0, 1]; normalized here. Any height and width; one image of any size is a batch of its own.

        Returns:
            Predictions on the anchors of all levels, finest level first; on a level row by row, then column, ratio, scale.

        Raises:
            ValueError: not a batch of RGB images of floats.
        """
        levels = self.pyramid(self.normalize(images))
        logits, regression = self.head(levels)
        sizes = tuple((level.shape[2], level.shape[3]) for level in levels)
        per_place = len(self.scales) * len(self.ratios)
        return RawPredictions(
            logits=logits,
            regression=regression,
            anchors=cached_pyramid_anchors(sizes, self.pyramid.strides, self.anchor_scale, self.scales, self.ratios, logits.device),
            level_sizes=tuple(rows * columns * per_place for rows, columns in sizes),
            coder=self.coder,
        )
