"""Faster R-CNN: a first stage that proposes boxes of any object, a second that classes and refines them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..boxes import DeltaCoder, box_area
from ..records import Proposals, RawPredictions
from .anchors import anchors_on, check_positive
from .backbone import Backbone
from .proposals import choose_proposals, crop_regions
from .pyramid import Pyramid

NOTHING = -1e4
"""The logit of a proposal that only fills up a batch: finite, so that a loss that gives it no weight stays finite; its score is 0."""


class FasterRCNN(nn.Module):
    """Two-stage detector. It sees no targets and does the same in training and in evaluation.

    ``propose`` and ``refine`` are its two stages, between which the training task assigns the proposals; called as a whole, it does one
    after the other. The second stage has one sigmoid per class, as the aLRP paper has it, and no background class. Its box regression
    is shared by the classes (four numbers a proposal), which that paper does not specify.

    Args:
        num_classes: C.
        backbone: the network that the images go through, and the pyramid on top of it. In Python, name the strides beside other options:
            ``Backbone("resnet50", strides=(4, 8, 16, 32, 64))``; a recipe keeps these strides.
        anchor_scale: side of the square anchor of scale 1, in strides; in a recipe ``auto`` has it decided by the training boxes.
        scales: of the anchors on one cell.
        ratios: height over width of the anchors on one cell.
        anchor_delta_std: what the four box offsets of the first stage are divided by.
        nms_threshold: IoU with a better proposal of its level above which one falls.
        top_k_per_level: candidates for proposals, a level.
        max_proposals: of one image.
        region_levels: so many of the finest levels are cropped for the second stage.
        region_size: rows and columns of the crop of a proposal.
        finest_scale: pixels; proposals of up to twice this side are cut from the finest level.
        head_channels: of the two hidden layers of the second stage.
        delta_std: what the four box offsets of the second stage are divided by.
        prior: probability of each class, and of an object, at the start.

    Raises:
        ValueError: an option out of its range.
        ConnectionError: weights that could not be fetched.

    Source:
        Ren et al., Faster R-CNN, NeurIPS 2015; on a pyramid: Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017; the
        sigmoids: Oksuz et al., aLRP Loss, NeurIPS 2020, App. G.4.

    Example:
        >>> backbone = Backbone(stages=3, strides=(8, 16), channels=16)
        >>> detector = FasterRCNN(3, backbone=backbone, region_levels=2, head_channels=32, max_proposals=20)
        >>> found = detector.propose(torch.rand(2, 3, 64, 64))
        >>> tuple(found.predictions.logits.shape), found.boxes.shape[0], found.boxes.shape[2]
        ((2, 240, 1), 2, 4)
        >>> detector.refine(found.features, found.boxes).logits.shape == (*found.boxes.shape[:2], 3)
        True
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone = Backbone(strides=(4, 8, 16, 32, 64)),
        anchor_scale: float | Literal["auto"] = 8.0,
        scales: tuple[float, ...] = (1.0,),
        ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        anchor_delta_std: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
        nms_threshold: float = 0.7,
        top_k_per_level: int = 1000,
        max_proposals: int = 1000,
        region_levels: int = 4,
        region_size: int = 7,
        finest_scale: float = 56.0,
        head_channels: int = 1024,
        delta_std: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2),
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        check_positive(anchor_scale=(anchor_scale,), scales=scales, ratios=ratios, finest_scale=(finest_scale,))
        for name, value in (("top_k_per_level", top_k_per_level), ("max_proposals", max_proposals), ("region_size", region_size)):
            if value < 1:
                raise ValueError(f"{name}: a number >= 1 expected, got {value}")
        if not 0 <= nms_threshold <= 1:
            raise ValueError(f"nms_threshold: a number in [0, 1] expected, got {nms_threshold}")
        if not 1 <= region_levels <= len(backbone.strides):
            raise ValueError(f"region_levels: 1 to {len(backbone.strides)} (the number of strides) expected, got {region_levels}")
        self.anchor_scale, self.scales, self.ratios = cast(float, anchor_scale), tuple(scales), tuple(ratios)
        self.nms_threshold, self.top_k_per_level, self.max_proposals = nms_threshold, top_k_per_level, max_proposals
        self.region_levels, self.region_size, self.finest_scale = region_levels, region_size, finest_scale
        self.anchor_coder, self.coder = DeltaCoder(anchor_delta_std), DeltaCoder(delta_std)
        self.pyramid = Pyramid(backbone)
        self.proposal_head = ProposalHead(backbone.channels, num_anchors=len(scales) * len(ratios), prior=prior)
        self.head = RegionHead(backbone.channels * region_size**2, num_classes=num_classes, channels=head_channels, prior=prior)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> RawPredictions:
        """Both stages.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], not normalized. Any height and width; one image of any size is a batch of its own.

        Returns:
            The predictions of ``refine`` for the proposals of ``propose``.

        Raises:
            ValueError: not a batch of RGB images of floats.
        """
        found = self.propose(images)
        return self.refine(found.features, found.boxes)

    def propose(self, images: Float[Tensor, "b 3 h w"]) -> Proposals:
        """The first stage: boxes that may hold an object.

        Args:
            images: as in ``forward``.

        Returns:
            The features, the predictions of the first stage on the anchors of all levels (finest first; on a level row by row, then column,
            ratio, scale), and the proposals that follow from them.

        Raises:
            ValueError: not a batch of RGB images of floats.
        """
        levels = self.pyramid(images)
        logits, regression = self.proposal_head(levels)
        anchors, level_sizes = anchors_on(
            levels, self.pyramid.strides, anchor_scale=self.anchor_scale, scales=self.scales, ratios=self.ratios
        )
        predictions = RawPredictions(
            logits=logits,
            regression=regression,
            anchors=anchors,
            level_sizes=level_sizes,
            coder=self.anchor_coder,
        )
        boxes = choose_proposals(
            predictions,
            (images.shape[2], images.shape[3]),
            nms_threshold=self.nms_threshold,
            top_k_per_level=self.top_k_per_level,
            max_proposals=self.max_proposals,
        )
        return Proposals(levels, predictions, boxes)

    def refine(self, features: list[Tensor], boxes: Float[Tensor, "b p 4"]) -> RawPredictions:
        """The second stage: the class of each proposal and a better box.

        Args:
            features: those of ``propose``.
            boxes: (b, p, 4) ``x1 y1 x2 y2``, its proposals or any others; those without area only fill up the batch.

        Returns:
            Predictions whose anchors are the boxes; what has no area has the score 0 in all classes.
        """
        levels = self.region_levels
        strides = self.pyramid.strides[:levels]
        regions = crop_regions(features[:levels], boxes, strides, size=self.region_size, finest_scale=self.finest_scale)
        logits, regression = self.head(regions)
        logits = logits.unflatten(0, boxes.shape[:2])
        return RawPredictions(
            logits=torch.where((box_area(boxes) > 0)[..., None], logits, NOTHING),
            regression=regression.unflatten(0, boxes.shape[:2]),
            anchors=boxes,
            level_sizes=(boxes.shape[1],),
            coder=self.coder,
        )


class ProposalHead(nn.Module):
    """Objectness and box regression of every anchor: a 3 x 3 convolution with a ReLU, then a 1 x 1 convolution for each of the two.

    Args:
        channels: of the levels.
        num_anchors: on one cell.
        prior: probability of an object at the start, in (0, 1).

    Raises:
        ValueError: a prior out of its range.

    Source:
        Ren et al., Faster R-CNN, NeurIPS 2015, Sec. 3.1.

    Example:
        >>> logits, regression = ProposalHead(8, num_anchors=3)([torch.zeros(1, 8, 4, 5), torch.zeros(1, 8, 2, 3)])
        >>> tuple(logits.shape), tuple(regression.shape)
        ((1, 78, 1), (1, 78, 4))
    """

    def __init__(self, channels: int, *, num_anchors: int, prior: float = 0.01) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.classification = nn.Conv2d(channels, num_anchors, 1)
        self.box = nn.Conv2d(channels, num_anchors * 4, 1)
        for layer in (self.conv, self.classification, self.box):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, _bias(prior) if layer is self.classification else 0.0)  # type: ignore[arg-type]

    def forward(self, levels: Sequence[Float[Tensor, "b c _h _w"]]) -> tuple[Float[Tensor, "b a 1"], Float[Tensor, "b a 4"]]:
        """Levels, finest first, to logits and regression; the order of a: level, row, column, anchor on the place."""
        logits, regression = [], []
        for level in levels:
            x = self.conv(level).relu()
            # (b, A * k, h, w) to (b, h * w * A, k)
            logits.append(self.classification(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 1))
            regression.append(self.box(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4))
        return torch.cat(logits, 1), torch.cat(regression, 1)


class RegionHead(nn.Module):
    """Class scores and box regression of crops, by two hidden layers.

    Args:
        inputs: numbers in a crop.
        num_classes: C.
        channels: of the hidden layers.
        prior: probability of each class at the start, in (0, 1).

    Raises:
        ValueError: an option out of its range.

    Source:
        Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017, Sec. 4.2.

    Example:
        >>> logits, regression = RegionHead(8 * 7 * 7, num_classes=3, channels=16)(torch.zeros(5, 7, 7, 8))
        >>> tuple(logits.shape), tuple(regression.shape)
        ((5, 3), (5, 4))
    """

    def __init__(self, inputs: int, *, num_classes: int, channels: int = 1024, prior: float = 0.01) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("head_channels", channels)):
            if value < 1:
                raise ValueError(f"{name}: a number >= 1 expected, got {value}")
        self.num_classes = num_classes
        self.hidden = nn.Sequential(nn.Linear(inputs, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU())
        self.classification = nn.Linear(channels, num_classes)
        self.box = nn.Linear(channels, 4)
        for layer in (self.hidden[0], self.hidden[2]):
            nn.init.kaiming_uniform_(layer.weight, a=1)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for layer, std, bias in ((self.classification, 0.01, _bias(prior)), (self.box, 0.001, 0.0)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.constant_(layer.bias, bias)

    def forward(self, crops: Float[Tensor, "n _rows _columns c"]) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n 4"]]:
        """Crops to logits and regression."""
        x = self.hidden(crops.flatten(1))
        return self.classification(x), self.box(x)


def _bias(prior: float) -> float:
    """The logit of a probability."""
    if not 0 < prior < 1:
        raise ValueError(f"prior: a probability in (0, 1) expected, got {prior}")
    return -math.log((1 - prior) / prior)
