"""A trunk: the part of a backbone that a pyramid is built on, from normalized images to one feature map per stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of the red, green and blue of ImageNet, in [0, 1]: what torchvision's weights were trained with."""


class Trunk(nn.Module, ABC):
    """Feature maps of several strides; freezes its stages and its batch norms.

    Args:
        strides: of the maps, finest first.
        channels: of the maps.
        mean: of the images that it was trained on, red, green and blue in [0, 1].
        std: of these images.
        frozen_norm: all batch norms keep their mean and variance.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int],
        channels: Sequence[int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        frozen_norm: bool = False,
    ) -> None:
        super().__init__()
        self.strides, self.channels = tuple(strides), tuple(channels)
        self.mean, self.std = tuple(mean), tuple(std)
        self.frozen_norm = frozen_norm

    @abstractmethod
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _c _h _w"]]:
        """Normalized images to one map per stage, finest first."""

    @abstractmethod
    def by_stage(self) -> list[list[nn.Parameter]]:
        """The parameters of each stage; the stem belongs to the first."""

    def freeze(self, stages: int) -> None:
        """Stops training the stem and the first ``stages`` stages, whose batch norms keep their statistics; 0 freezes no stage.

        Raises:
            ValueError: more stages than there are.
        """
        if not 0 <= stages <= len(self.strides):
            raise ValueError(f"frozen_stages: 0 to {len(self.strides)} (the stages in use) expected, got {stages}")
        for stage in self.by_stage()[:stages]:
            for parameter in stage:
                parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Trunk:
        """As of any module, but frozen batch norms stay in evaluation mode, in which they use their stored mean and variance.

        Not ``FrozenBatchNorm2d``: its float32 arithmetic undoes bfloat16, its factors are fixed, and its checkpoints do not load into a
        batch norm.
        """
        super().train(mode)
        for norm in self.modules():
            # of any class: an EfficientNet of timm has one of its own
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                trained = any(parameter.requires_grad for parameter in norm.parameters())
                norm.train(mode and trained and not self.frozen_norm)
        return self
