"""RetinaNet: a feature pyramid, a dense head, and anchors. Images in, raw predictions out."""

from __future__ import annotations

from typing import Literal, cast

from jaxtyping import Float
from torch import Tensor, nn

from ..boxes import DeltaCoder
from ..records import RawPredictions
from .anchors import anchors_on, check_positive
from .backbone import Backbone
from .dense_head import DenseHead, Norm
from .pyramid import Pyramid


class RetinaNet(nn.Module):
    """One-stage detector with anchors. It sees no targets and does the same in training and in evaluation.

    ATSS is this detector with square anchors (``ratios: [1.0]``, ``scales: [1.0]``) and another assigner.

    Args:
        num_classes: C; there is no background class, each class has its own sigmoid.
        backbone: the network that the images go through, and the pyramid on top of it.
        head_convs: convolutions of each of the two towers of the head, before the last.
        head_norm: what follows each of them: ``none``, ``group``, or ``batch`` with statistics of its own for each level.
        anchor_scale: side of the square anchor of scale 1, in strides; in a recipe ``auto`` has it decided by the training boxes.
        scales: of the anchors on one cell.
        ratios: height over width of the anchors on one cell.
        delta_std: what the four box offsets are divided by.
        prior: probability of each class at the start.

    Raises:
        ValueError: an option out of its range.
        ConnectionError: weights that could not be fetched.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017. The defaults of the anchors: Oksuz et al., aLRP Loss, NeurIPS 2020.

    Example:
        >>> import torch
        >>> detector = RetinaNet(3, backbone=Backbone(stages=3, strides=(8, 16), channels=16), head_convs=1)
        >>> predictions = detector(torch.rand(2, 3, 40, 64))
        >>> tuple(predictions.logits.shape), tuple(predictions.regression.shape), predictions.level_sizes
        ((2, 312, 3), (2, 312, 4), (240, 72))
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone = Backbone(),
        head_convs: int = 4,
        head_norm: Norm = "none",
        anchor_scale: float | Literal["auto"] = 4.0,
        scales: tuple[float, ...] = (1.0, 2**0.5),
        ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        delta_std: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2),
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        check_positive(anchor_scale=(anchor_scale,), scales=scales, ratios=ratios)
        self.anchor_scale, self.scales, self.ratios = cast(float, anchor_scale), tuple(scales), tuple(ratios)
        self.coder = DeltaCoder(delta_std)
        self.pyramid = Pyramid(backbone)
        self.head = DenseHead(
            backbone.channels,
            num_classes=num_classes,
            levels=len(backbone.strides),
            num_anchors=len(scales) * len(ratios),
            convs=head_convs,
            norm=head_norm,
            prior=prior,
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> RawPredictions:
        """Predictions for a batch.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], not normalized. Any height and width; one image of any size is a batch of its own.

        Returns:
            Predictions on the anchors of all levels, finest level first; on a level row by row, then column, ratio, scale.

        Raises:
            ValueError: not a batch of RGB images of floats.
        """
        levels = self.pyramid(images)
        logits, regression = self.head(levels)
        anchors, level_sizes = anchors_on(
            levels, self.pyramid.strides, anchor_scale=self.anchor_scale, scales=self.scales, ratios=self.ratios
        )
        return RawPredictions(
            logits=logits,
            regression=regression,
            anchors=anchors,
            level_sizes=level_sizes,
            coder=self.coder,
        )
