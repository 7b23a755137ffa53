"""From images to a feature pyramid: a trunk of torchvision or timm, an FPN, and coarser levels by convolutions of stride 2."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from .backbone import Backbone
from .resnet_trunk import resnet_trunk
from .timm_trunk import TIMM, timm_trunk
from .trunk import Trunk


class Pyramid(nn.Module):
    """Features of images at several strides, all with the same number of channels.

    Images are normalized, ``(x - mean) / std``, by the mean and standard deviation that the trunk was trained with. Maps of the trunk whose
    stride is asked for go through torchvision's FPN; levels of larger strides than its last are made from the coarsest FPN level,
    each by a 3 x 3 convolution of stride 2 (a ReLU in front of all but the first).

    Args:
        backbone: its description.

    Raises:
        ValueError: an unknown name or unknown weights, weights that do not fit (the first few are named), or options that do not
            fit each other.
        ConnectionError: the weights could not be fetched; it names the other ways, and where to put the file by hand.
        FileNotFoundError: weights name a file that is not there.
        ImportError: a model of timm without timm, bundled weights without their package.

    Source:
        Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017; the coarser levels: Lin et al., Focal Loss for Dense Object
        Detection, ICCV 2017, Sec. 4 (there from the last stage, here from the coarsest FPN level, as in ATSS and FCOS).

    Example:
        >>> pyramid = Pyramid(Backbone("resnet18", strides=(16, 32), stages=3, channels=8))
        >>> [tuple(level.shape) for level in pyramid(torch.zeros(1, 3, 70, 64))]
        [(1, 8, 5, 4), (1, 8, 3, 2)]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.strides, self.channels = tuple(backbone.strides), backbone.channels
        self.trunk: Trunk = (timm_trunk if backbone.name.startswith(TIMM) else resnet_trunk)(backbone)
        self._used = [i for i, stride in enumerate(self.trunk.strides) if stride in self.strides]
        norm = nn.BatchNorm2d if backbone.pyramid_norm else None
        self.fpn = FeaturePyramidNetwork([self.trunk.channels[i] for i in self._used], self.channels, norm_layer=norm)
        more = len(self.strides) - len(self._used)
        self.extra = nn.ModuleList([nn.Conv2d(self.channels, self.channels, 3, stride=2, padding=1) for _ in range(more)])
        for conv in self.extra:
            # as torchvision does in its FPN: the features keep their variance
            nn.init.kaiming_uniform_(cast(Tensor, conv.weight), a=1)
            nn.init.zeros_(cast(Tensor, conv.bias))
        for name, values in (("mean", self.trunk.mean), ("std", self.trunk.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        frozen = backbone.frozen_stages
        self.trunk.freeze(int(backbone.weights is not None) if frozen is None else frozen)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c _h _w"]]:
        """Levels, finest first.

        Args:
            images: (b, 3, h, w), RGB in [0, 1]. Any height and width.

        Returns:
            (b, channels, rows, columns) of each level; on a ResNet ceil(h / stride) rows and ceil(w / stride) columns.

        Raises:
            ValueError: not a batch of RGB images of floats.
        """
        maps = self.trunk(self.normalize(images))
        levels = list(self.fpn(OrderedDict((str(i), maps[i]) for i in self._used)).values())
        for i, conv in enumerate(self.extra):
            levels.append(conv(levels[-1].relu() if i else levels[-1]))
        return levels

    def normalize(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """``(x - mean) / std``; the one place where a detector checks its input."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f"images: (b, 3, h, w) floats in [0, 1] expected, got {tuple(images.shape)} of {images.dtype}")
        return (images - self.mean) / self.std
