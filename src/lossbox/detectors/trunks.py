"""Trunks: the part of a torchvision or timm backbone that a pyramid is built on, from normalized pictures to one map a stage."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable
from urllib.parse import urlparse

import torch
import torch.nn.functional as F
import torchvision
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import ResNet, get_model, get_model_weights, list_models
from torchvision.ops import deform_conv2d

FIRST_STRIDE = 4
"""Stride of the first of the four stages of a ResNet; each next one doubles it."""

FAMILIES = ("resnet*", "resnext*", "wide_resnet*")

TIMM = "timm/"
"""What the name of a backbone of timm begins with."""

OURS = ("features_only", "feature_cls", "out_indices", "pretrained", "pretrained_cfg", "checkpoint_path")
"""Options of ``timm.create_model`` that the trunk sets itself, or that other options stand for."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of the red, green and blue of ImageNet, in [0, 1]: what pretrained weights of torchvision expect to be taken out."""


@runtime_checkable
class Trunk(Protocol):
    """The part of a backbone that a pyramid is built on: an ``nn.Module`` from normalized pictures to one map a stage, finest first.

    Attributes:
        strides: of the maps.
        channels: of the maps.
        mean: of the pictures it was trained on, red, green and blue in [0, 1].
        std: likewise.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> list[Tensor]: ...

    def freeze(self, stages: int) -> None: ...


class Normalization(nn.Module):
    """Takes mean and standard deviation of the training pictures out: ``(x - mean) / std``. Its constants are in no checkpoint.

    Args:
        mean: of red, green and blue, in [0, 1].
        std: likewise, > 0.

    Example:
        >>> Normalization()(torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)).flatten()
        tensor([0., 0., 0.])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [0, 1] to what the backbone expects; the one place where a detector looks at what it was given."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f"images: (b, 3, h, w) floats in [0, 1] expected, got {tuple(images.shape)} of {images.dtype}")
        return (images - self.mean) / self.std


class StoredBatchNorm(nn.BatchNorm2d):
    """A batch norm that uses its stored mean and variance at all times; its factors are trained.

    For pretrained backbones, where batches are too small to measure. Not ``FrozenBatchNorm2d``: its float32 arithmetic undoes bf16, its
    factors are fixed, and its checkpoints do not load into a batch norm.
    """

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)


class DeformableConv(nn.Module):
    """A convolution that looks where a second one tells it to; it starts as the plain one it replaces.

    ``y(p) = sum over the places q of the kernel of w(q) x(p + q + d(p, q))``, the offsets ``d`` from a convolution of the same shape whose
    weights begin at 0. It computes in float32 under autocast: torchvision has no bfloat16 kernel.

    Args:
        conv: its weight, stride, padding, dilation and groups are taken over; without bias.

    Source:
        Dai et al., Deformable Convolutional Networks, ICCV 2017, Eq. (2).

    Example:
        >>> conv = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        >>> x = torch.rand(1, 4, 5, 5)
        >>> torch.allclose(DeformableConv(conv)(x), conv(x), atol=1e-6)
        True
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        size, stride = (cast(tuple[int, int], value) for value in (conv.kernel_size, conv.stride))
        padding, dilation = (cast(tuple[int, int], value) for value in (conv.padding, conv.dilation))
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.weight = conv.weight
        self.offset = nn.Conv2d(conv.in_channels, 2 * size[0] * size[1], size, stride=stride, padding=padding, dilation=dilation)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(cast(Tensor, self.offset.bias))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _c _h _w"]:
        # deform_conv2d is on no list of autocast: what it computes in is what it is given
        full = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        offset = self.offset(x).to(full.dtype)
        found = deform_conv2d(full, offset, self.weight, stride=self.stride, padding=self.padding, dilation=self.dilation)
        return cast(Tensor, found)


class ResNetTrunk(nn.Module):
    """The stages of a ResNet of torchvision; its pooling, its classifier and the stages that are not used are dropped.

    Args:
        resnet: any ``torchvision.models.ResNet``.
        stages: how many of its four stages are used.
        deformable: in these stages, 1 to 4, the 3 x 3 convolutions of the blocks are deformable.

    Raises:
        ValueError: stages that it does not have.

    Example:
        >>> [tuple(level.shape) for level in ResNetTrunk(get_model("resnet18"), stages=2)(torch.zeros(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8)]
    """

    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(self, resnet: ResNet, *, stages: int = 4, deformable: Collection[int] = ()) -> None:
        super().__init__()
        if not 1 <= stages <= 4:
            raise ValueError(f"stages: 1 to 4 stages of a ResNet expected, got {stages}")
        if not set(deformable) <= set(range(1, stages + 1)):
            raise ValueError(f"deformable_stages: some of 1 to {stages} (the stages in use) expected, got {tuple(deformable)}")
        self.strides = tuple(FIRST_STRIDE * 2**i for i in range(stages))
        self.stem = nn.Sequential(OrderedDict(conv=resnet.conv1, norm=resnet.bn1, relu=resnet.relu, pool=resnet.maxpool))
        self.stages = nn.ModuleList([resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4][:stages])
        self.channels = tuple(_out_channels(stage) for stage in self.stages)
        for number in deformable:
            for block in cast(nn.Sequential, self.stages[number - 1]):
                block.conv2 = DeformableConv(cast(nn.Conv2d, block.conv2))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _c _h _w"]]:
        """Normalized pictures to one map a stage."""
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def freeze(self, stages: int) -> None:
        """Stops training the stem and the first ``stages`` stages; 0 freezes nothing."""
        if stages:
            for part in (self.stem, *self.stages[:stages]):
                part.requires_grad_(False)


class TimmTrunk(nn.Module):
    """The stages of a ``features_only`` model of timm.

    Args:
        net: the model, with one output a stage.
        strides: of its outputs.
        channels: of its outputs.
        reached: for each output the names of the parameters that it depends on.
        frozen_norm: batch norms use their stored mean and variance at all times.
        mean: of the pictures it was trained on, red, green and blue in [0, 1].
        std: likewise.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        strides: tuple[int, ...],
        channels: tuple[int, ...],
        reached: Sequence[Collection[str]],
        frozen_norm: bool = False,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.net = net
        self.strides, self.channels = strides, channels
        self.mean, self.std = mean, std
        self._reached = reached
        self._frozen_norm = frozen_norm

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _c _h _w"]]:
        """Normalized pictures to one map a stage."""
        return list(self.net(images))

    def freeze(self, stages: int) -> None:
        """Stops training everything that the map of the stage of this number depends on; 0 freezes nothing."""
        if stages:
            for name, parameter in self.net.named_parameters():
                if name in self._reached[stages - 1]:
                    parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> TimmTrunk:
        super().train(mode)
        if self._frozen_norm:
            # their classes are many, so their mode is set: StoredBatchNorm cannot take their place
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def resnet_trunk(
    name: str,
    *,
    weights: str | None = None,
    strides: Sequence[int] = (8, 16, 32),
    stages: int = 4,
    frozen_norm: bool = False,
    deformable: Collection[int] = (),
) -> ResNetTrunk:
    """The stages of a torchvision ResNet, by name, as far as the strides need them; see ``build_pyramid`` for the arguments.

    Example:
        >>> resnet_trunk("resnet18", strides=(8, 16)).strides
        (4, 8, 16)
    """
    names = list_models(torchvision.models, include=FAMILIES)
    if name not in names:
        raise ValueError(f"backbone: one of {', '.join(names)}, or {TIMM}... expected, got {name!r}")
    made = tuple(FIRST_STRIDE * 2**i for i in range(stages))
    check_strides(strides, made)
    norm: type[nn.Module] = StoredBatchNorm if frozen_norm else nn.BatchNorm2d
    return ResNetTrunk(_resnet(name, weights, norm), stages=sum(stride <= strides[-1] for stride in made), deformable=deformable)


def timm_trunk(
    name: str,
    *,
    weights: str | None = None,
    strides: Sequence[int] = (8, 16, 32),
    stages: int = 4,
    frozen_norm: bool = False,
    options: Mapping[str, Any] | None = None,
) -> TimmTrunk:
    """The stages of a model of timm, by name, as far as the strides need them; see ``build_pyramid`` for the arguments.

    Example:
        >>> timm_trunk("timm/mobilenetv3_small_050", strides=(8, 16)).channels
        (8, 16, 24)
        >>> timm_trunk("timm/resnet18", strides=(8, 16), options={"channels": (8, 16, 24, 32)}).channels
        (8, 16, 24)
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"backbone: {name} needs timm: pip install 'lossbox[train]'") from error
    if weights not in (None, "DEFAULT"):
        raise ValueError(f"weights: null or DEFAULT (for {name}; a tag of timm belongs to the name) expected, got {weights!r}")
    chosen = dict(options or {})
    if weights is not None and chosen:
        raise ValueError(f"backbone_options: none beside weights expected, which belong to {name} as it is, got {chosen}")
    if any(key in OURS for key in chosen):
        raise ValueError(f"backbone_options: what changes the model expected, not {', '.join(OURS)}, got {chosen}")
    own = name.removeprefix(TIMM)
    # The getter builds no block beyond the last output. Nothing is computed on the device "meta", shapes and dependences are all there.
    asked: dict[str, Any] = {**chosen, "features_only": True, "feature_cls": "getter"}
    try:
        with torch.device("meta"):
            plan: Any = timm.create_model(own, **asked).eval()
            maps = plan(torch.zeros(1, 3, 128, 128))
    except Exception as error:
        given = f" with {chosen}" if chosen else ""
        close = ", ".join(TIMM + other for other in difflib.get_close_matches(own, timm.list_models(), 5))
        raise ValueError(
            f"backbone: a model of timm that gives feature maps of pictures of any size expected, got {name!r}{given} ({error}); "
            f"similar names: {close or 'none'}"
        ) from error
    infos = list(zip(plan.feature_info.reduction(), plan.feature_info.channels(), strict=True))
    if any(tuple(one.shape[1:]) != (width, 128 // stride, 128 // stride) for one, (stride, width) in zip(maps, infos, strict=True)):
        raise ValueError(f"backbone: a model of timm whose maps are (b, c, h / stride, w / stride) expected, got {name!r}")
    # the last output of each stride
    places = {stride: i for i, (stride, _) in enumerate(infos) if FIRST_STRIDE <= stride <= FIRST_STRIDE * 2 ** (stages - 1)}
    check_strides(strides, tuple(places))
    places = {stride: i for stride, i in places.items() if stride <= strides[-1]}
    parameters = dict(plan.named_parameters())
    reached = {stride: _depends_on(maps[i], parameters) for stride, i in places.items()}
    try:
        net = timm.create_model(own, pretrained=weights is not None, out_indices=tuple(places.values()), **asked)
    except Exception as error:
        if weights is None:
            raise
        raise ConnectionError(
            f"the weights of {name} could not be fetched ({error}); with a network timm keeps them in the cache of Hugging Face "
            f"(HF_HOME), from where they are read without one; or start from random numbers with weights: null"
        ) from error
    used = set().union(*(names for stride, names in reached.items() if stride in strides))
    for parameter_name, parameter in net.named_parameters():
        # DistributedDataParallel stops at trained parameters that get no gradient
        parameter.requires_grad_(parameter_name in used)
    config = plan.pretrained_cfg
    return TimmTrunk(
        net,
        strides=tuple(places),
        channels=tuple(infos[i][1] for i in places.values()),
        reached=tuple(reached.values()),
        frozen_norm=frozen_norm,
        mean=tuple(config.get("mean", IMAGENET_MEAN)),
        std=tuple(config.get("std", IMAGENET_STD)),
    )


def check_strides(strides: Sequence[int], made: Sequence[int]) -> None:
    """Raises ValueError where the strides do not double, or do not begin with one of those that the stages make."""
    doubled = all(coarse == 2 * fine for fine, coarse in pairwise(strides))
    if not strides or strides[0] not in made or not doubled:
        raise ValueError(
            f"strides: one of {', '.join(map(str, made))} (what {len(made)} stages make), then each twice the one before "
            f"expected, got {tuple(strides)}"
        )


def _resnet(name: str, weights: str | None, norm: type[nn.Module]) -> ResNet:
    if weights is None:
        return cast(ResNet, get_model(name, weights=None, norm_layer=norm))
    known = get_model_weights(name)
    if weights not in known.__members__:
        raise ValueError(f"weights: null or one of {', '.join(known.__members__)} (for {name}) expected, got {weights!r}")
    entry = known[weights]
    try:
        return cast(ResNet, get_model(name, weights=entry, norm_layer=norm))
    except (OSError, RuntimeError) as error:  # no network, a proxy's error page, a download that broke off (its hash is wrong)
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(entry.url).path).name
        raise ConnectionError(
            f"the weights {weights} of {name} could not be fetched from {entry.url} ({error}); "
            f"put that file at {place}, or start from random numbers with weights: null"
        ) from error


def _depends_on(output: Tensor, parameters: dict[str, nn.Parameter]) -> set[str]:
    """The names of the parameters that a tensor was computed from."""
    gradients = torch.autograd.grad(output.sum(), list(parameters.values()), allow_unused=True, retain_graph=True)
    return {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def _out_channels(stage: nn.Module) -> int:
    """What the last block of a stage puts out."""
    block = cast(nn.Sequential, stage)[-1]
    last = block.conv3 if hasattr(block, "conv3") else block.conv2
    return cast(nn.Conv2d, last).out_channels
