"""FCOS: a feature pyramid and a head that predicts class, box and centerness of one point per cell. Images in, raw predictions out."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..boxes import MAX_LOG_SCALE, DistanceCoder, PointCoder
from ..boxes._dtype import upcast
from ..records import RawPredictions
from .anchors import anchors_on
from .backbone import Backbone
from .dense_head import CenternessHead, Norm
from .pyramid import Pyramid


class FCOS(nn.Module):
    """One-stage detector without anchors: every cell predicts the distances of the four sides of a box and how central it lies in it.

    A distance is ``stride * exp(factor of the level * output)``: the exponential form of the first publication, in units of the stride, so
    that all levels start at boxes of two strides. The point of a cell stands in the predictions as the square of one stride around the
    center of the cell. ``CenterAssigner`` is made for it. It sees no targets and does the same in training and in evaluation.

    Args:
        num_classes: C; there is no background class, each class has its own sigmoid.
        backbone: the network that the images go through, and the pyramid on top of it.
        head_convs: convolutions of each of the two towers of the head, before the last.
        head_norm: what follows each of them: ``none``, ``group``, or ``batch`` with statistics of its own for each level.
        prior: probability of each class at the start.
        bins: each distance is predicted as probabilities of 0, 1, ..., bins - 1 strides and is their mean, in place of one number (0). The
            objective is then to be ``WithDistribution``. Boxes start at bins - 1 strides.

    Raises:
        ValueError: an option out of its range.
        ConnectionError: weights that could not be fetched.

    Source:
        Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, ICCV 2019, Secs. 3.1-3.3; the centerness beside the box: the same
        authors, TPAMI 2020; the bins: Li et al., Generalized Focal Loss, NeurIPS 2020, Sec. 3.1.

    Example:
        >>> detector = FCOS(3, backbone=Backbone(stages=3, strides=(8, 16), channels=16), head_convs=1)
        >>> predictions = detector(torch.rand(2, 3, 40, 64))
        >>> tuple(predictions.logits.shape), tuple(predictions.centerness.shape), predictions.anchors[0]
        ((2, 52, 3), (2, 52), tensor([0., 0., 8., 8.]))
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone = Backbone(),
        head_convs: int = 4,
        head_norm: Norm = "group",
        prior: float = 0.01,
        bins: int = 0,
    ) -> None:
        super().__init__()
        if bins < 0 or bins == 1:
            raise ValueError(f"bins: 0, or a number >= 2 expected, got {bins}")
        self.bins = bins
        # the largest distance that can be decoded: FCOS has no limit of its targets
        self.coder = DistanceCoder(bins - 1) if bins else PointCoder(math.exp(MAX_LOG_SCALE))
        self.pyramid = Pyramid(backbone)
        self.head = CenternessHead(
            backbone.channels,
            num_classes=num_classes,
            levels=len(backbone.strides),
            convs=head_convs,
            norm=head_norm,
            prior=prior,
            box_outputs=4 * max(bins, 1),
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
        logits, regression, centerness = self.head(levels)
        distribution = None
        if self.bins:
            distribution = regression.unflatten(-1, (4, self.bins))
            regression = upcast(distribution).softmax(-1) @ torch.arange(self.bins, device=logits.device, dtype=upcast(distribution).dtype)
        anchors, level_sizes = anchors_on(levels, self.pyramid.strides, anchor_scale=1.0)
        return RawPredictions(
            logits=logits,
            regression=regression,
            anchors=anchors,
            level_sizes=level_sizes,
            coder=self.coder,
            centerness=centerness,
            distribution=distribution,
        )
