"""CenterPoint: a pyramid brought to one fine map, and a head that predicts centers and sizes on it. Images in, raw predictions out."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..boxes import CellCoder
from ..records import RawPredictions
from .anchors import anchors_on
from .backbone import Backbone
from .dense_head import DenseHead, Norm
from .pyramid import Pyramid


class CenterPoint(nn.Module):
    """One-stage detector without anchors: a heat map of centers per class, and the place of the center and the size in every cell.

    All levels of the pyramid are enlarged to the finest one (bilinear) and added. On this map one tower of convolutions gives the heat
    maps and one the four numbers of a box in the units of ``CellCoder``. The cell stands in the predictions as its square.
    ``CellAssigner`` and ``CenterPointObjective`` are made for it, and ``Decoder(peak_window=3, nms_threshold=1.0)``: a cell detects where
    its score is the highest of the 3 x 3 cells around it. It sees no targets and does the same in training and in evaluation.

    Args:
        num_classes: C; there is no background class, each class has its own heat map.
        backbone: the network that the images go through, and the pyramid on top of it; its finest stride is that of the heat maps.
        head_convs: convolutions of each of the two towers of the head, before the last.
        head_norm: what follows each of them: ``none``, ``group`` or ``batch``.
        prior: probability of each class at the start.

    Raises:
        ValueError: an option out of its range.
        ConnectionError: weights that could not be fetched.

    Source:
        Zhou et al., Objects as Points, arXiv:1904.07850, Secs. 3 and 4, with a pyramid in the place of its upsampling; the sum of the
        levels: Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019, Sec. 3.1.

    Example:
        >>> import torch
        >>> detector = CenterPoint(3, backbone=Backbone(stages=3, strides=(4, 8, 16), channels=16), head_convs=1)
        >>> predictions = detector(torch.rand(2, 3, 40, 64))
        >>> tuple(predictions.logits.shape), predictions.level_sizes, predictions.anchors[1]
        ((2, 160, 3), (160,), tensor([4., 0., 8., 4.]))
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone = Backbone(strides=(4, 8, 16, 32)),
        head_convs: int = 1,
        head_norm: Norm = "none",
        prior: float = 0.1,
    ) -> None:
        super().__init__()
        self.coder = CellCoder()
        self.pyramid = Pyramid(backbone)
        self.head = DenseHead(backbone.channels, num_classes=num_classes, levels=1, convs=head_convs, norm=head_norm, prior=prior)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> RawPredictions:
        """Predictions for a batch.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], not normalized. Any height and width; one image of any size is a batch of its own.

        Returns:
            Predictions on the cells of the finest level, row by row.

        Raises:
            ValueError: not a batch of RGB images of floats.
        """
        finest, *coarser = self.pyramid(images)
        for level in coarser:
            finest = finest + interpolate(level, size=finest.shape[-2:], mode="bilinear", align_corners=False)
        logits, regression = self.head([finest])
        anchors, level_sizes = anchors_on([finest], self.pyramid.strides[:1], anchor_scale=1.0)
        return RawPredictions(logits=logits, regression=regression, anchors=anchors, level_sizes=level_sizes, coder=self.coder)
