"""FoveaBox: a feature pyramid and a dense head, one point per cell, no anchors. Images in, raw predictions out."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from ..boxes import PointCoder
from ..records import RawPredictions
from .anchors import anchors_on
from .backbone import Backbone
from .dense_head import DenseHead, Norm
from .pyramid import Pyramid


class FoveaBox(nn.Module):
    """One-stage detector without anchors: every cell predicts the log distances of the four sides, in units of its level's base edge.

    The point of a cell stands in the predictions as the square of the base edge around the center of the cell. ``FoveaAssigner`` is made
    for it. It sees no targets and does the same in training and in evaluation.

    Args:
        num_classes: C; there is no background class, each class has its own sigmoid.
        backbone: the network that the images go through, and the pyramid on top of it.
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
        >>> detector = FoveaBox(3, backbone=Backbone(stages=3, strides=(8, 16), channels=16), head_convs=1)
        >>> predictions = detector(torch.rand(2, 3, 40, 64))
        >>> tuple(predictions.logits.shape), predictions.level_sizes, predictions.anchors[0]
        ((2, 52, 3), (40, 12), tensor([-4., -4., 12., 12.]))
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone = Backbone(),
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
        self.pyramid = Pyramid(backbone)
        self.head = DenseHead(
            backbone.channels, num_classes=num_classes, levels=len(backbone.strides), convs=head_convs, norm=head_norm, prior=prior
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> RawPredictions:
        """Predictions for a batch.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], not normalized. Any height and width; one image of any size is a batch of its own.

        Returns:
            Predictions on the points of all levels, finest level first; on a level row by row.

        Raises:
            ValueError: not a batch of RGB images of floats.
        """
        levels = self.pyramid(images)
        logits, regression = self.head(levels)
        anchors, level_sizes = anchors_on(levels, self.pyramid.strides, anchor_scale=self.base_scale)
        return RawPredictions(
            logits=logits,
            regression=regression,
            anchors=anchors,
            level_sizes=level_sizes,
            coder=self.coder,
        )
