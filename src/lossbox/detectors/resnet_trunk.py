"""A ResNet, ResNeXt or Wide ResNet of torchvision as a trunk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import cast
from urllib.parse import urlparse

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import ResNet, WeightsEnum, get_model, get_model_weights, list_models

from .backbone import FIRST_STRIDE, Backbone
from .deformable import DeformableConv
from .trunk import Trunk
from .weights import BUNDLED, bundled_weights, fit_weights, other_ways, read_weights, weights_file

FAMILIES = ("resnet*", "resnext*", "wide_resnet*")


class ResNetTrunk(Trunk):
    """The stages of a ResNet of torchvision, without its pooling, its classifier and the stages that are not used.

    Args:
        resnet: any ``torchvision.models.ResNet``.
        stages: how many of its four stages are used.
        deformable: in these stages, 1 to 4, the 3 x 3 convolutions of the blocks are deformable.
        frozen_norm: all batch norms keep their mean and variance.

    Raises:
        ValueError: stages that it does not have.

    Example:
        >>> [tuple(level.shape) for level in ResNetTrunk(get_model("resnet18"), stages=2)(torch.zeros(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8)]
    """

    def __init__(self, resnet: ResNet, *, stages: int = 4, deformable: Collection[int] = (), frozen_norm: bool = False) -> None:
        if not set(deformable) <= set(range(1, stages + 1)):
            raise ValueError(f"deformable_stages: some of 1 to {stages} (the stages in use) expected, got {tuple(deformable)}")
        layers = [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4][:stages]
        super().__init__(
            strides=[FIRST_STRIDE * 2**i for i in range(stages)],
            channels=[_out_channels(layer[-1]) for layer in layers],
            frozen_norm=frozen_norm,
        )
        self.stem = nn.Sequential(OrderedDict(conv=resnet.conv1, norm=resnet.bn1, relu=resnet.relu, pool=resnet.maxpool))
        self.stages = nn.ModuleList(layers)
        for number in deformable:
            for block in layers[number - 1]:
                block.conv2 = DeformableConv(cast(nn.Conv2d, block.conv2))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _c _h _w"]]:
        """Normalized images to one map per stage, finest first."""
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def by_stage(self) -> list[list[nn.Parameter]]:
        """The parameters of each stage; the stem belongs to the first."""
        stem = list(self.stem.parameters())
        return [[*(() if i else stem), *stage.parameters()] for i, stage in enumerate(self.stages)]


def resnet_trunk(backbone: Backbone) -> ResNetTrunk:
    """The stages of a torchvision ResNet as far as the strides need them.

    Example:
        >>> resnet_trunk(Backbone("resnet18", strides=(8, 16))).strides
        (4, 8, 16)
    """
    names = list_models(torchvision.models, include=FAMILIES)
    if backbone.name not in names:
        raise ValueError(f"backbone: one of {', '.join(names)}, or timm/... expected, got {backbone.name!r}")
    if backbone.options:
        raise ValueError(f"backbone.options: none with a backbone of torchvision expected, got {backbone.options}")
    stages = sum(stride <= backbone.strides[-1] for stride in backbone.stage_strides)
    resnet = _resnet(backbone.name, backbone.weights, stages)
    return ResNetTrunk(resnet, stages=stages, deformable=backbone.deformable_stages, frozen_norm=backbone.norms_are_frozen)


def _resnet(name: str, weights: str | None, stages: int) -> ResNet:
    named = get_model_weights(name).__members__
    if weights is not None and weights in named:
        return _downloaded(name, named[weights])
    net = cast(ResNet, get_model(name, weights=None))
    if weights is None:
        return net
    if weights == BUNDLED:
        bundled_weights(name, {})
    if weights_file(weights) is None:
        raise ValueError(f"weights: null, a file, or one of {', '.join(named)} (for {name}) expected, got {weights!r}")
    whole = net.state_dict()
    beyond = tuple(f"layer{number}." for number in range(stages + 1, 5))
    needed = {key: value for key, value in whole.items() if not key.startswith(("fc.", *beyond))}
    fit_weights(needed, read_weights(weights), unused=whole, what=f"{weights} in {name}")
    return net


def _downloaded(name: str, weights: WeightsEnum) -> ResNet:
    try:
        return cast(ResNet, get_model(name, weights=weights))
    except (OSError, RuntimeError) as error:  # no network, a proxy's error page, a download that broke off (its hash is wrong)
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
        raise ConnectionError(
            f"the weights {weights.name} of {name} could not be fetched from {weights.url} ({error}); "
            f"{other_ways('download that file')}; or put that file at {path}, where {weights.name} looks first"
        ) from error


def _out_channels(block: nn.Module) -> int:
    """What a block puts out."""
    last = block.conv3 if hasattr(block, "conv3") else block.conv2
    return cast(nn.Conv2d, last).out_channels
