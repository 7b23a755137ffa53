"""Trunks: the part of a torchvision or timm backbone that a pyramid is built on, from normalized images to one map a stage."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable
from urllib.parse import urlparse

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import ResNet, get_model, get_model_weights, list_models

from .layers import DeformableConv, StoredBatchNorm, hold_norms
from .weights import BUNDLED, bundled_weights, fit_weights, other_ways, read_weights, weights_file

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
    """The part of a backbone that a pyramid is built on: an ``nn.Module`` from normalized images to one map a stage, finest first.

    Attributes:
        strides: of the maps.
        channels: of the maps.
        mean: of the images it was trained on, red, green and blue in [0, 1].
        std: likewise.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> list[Tensor]: ...

    def freeze(self, stages: int) -> None: ...

    def by_stage(self) -> list[list[nn.Parameter]]: ...


class Normalization(nn.Module):
    """Takes mean and standard deviation of the training images out: ``(x - mean) / std``. Its constants are in no checkpoint.

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
        """Images in [0, 1] to what the backbone expects; the one place where a detector looks at what it was given."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f"images: (b, 3, h, w) floats in [0, 1] expected, got {tuple(images.shape)} of {images.dtype}")
        return (images - self.mean) / self.std


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
        """Normalized images to one map a stage."""
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
        self.train(self.training)

    def by_stage(self) -> list[list[nn.Parameter]]:
        """The parameters of each stage; the stem belongs to the first."""
        stem = list(self.stem.parameters())
        return [[*(() if i else stem), *stage.parameters()] for i, stage in enumerate(self.stages)]

    def train(self, mode: bool = True) -> ResNetTrunk:
        super().train(mode)
        hold_norms(self, every=False)
        return self


class TimmTrunk(nn.Module):
    """The stages of a ``features_only`` model of timm.

    Args:
        net: the model, with one output a stage.
        strides: of its outputs.
        channels: of its outputs.
        reached: for each output the names of the parameters that it depends on.
        frozen_norm: batch norms use their stored mean and variance at all times.
        mean: of the images it was trained on, red, green and blue in [0, 1].
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
        """Normalized images to one map a stage."""
        return list(self.net(images))

    def freeze(self, stages: int) -> None:
        """Stops training everything that the map of the stage of this number depends on; 0 freezes nothing."""
        if stages:
            for name, parameter in self.net.named_parameters():
                if name in self._reached[stages - 1]:
                    parameter.requires_grad_(False)
        self.train(self.training)

    def by_stage(self) -> list[list[nn.Parameter]]:
        """The parameters of each stage: those that its map depends on, and no earlier one."""
        first = {name: stage for stage, names in reversed(list(enumerate(self._reached))) for name in names}
        named = self.net.named_parameters()
        stages: list[list[nn.Parameter]] = [[] for _ in self._reached]
        for name, parameter in named:
            if name in first:
                stages[first[name]].append(parameter)
        return stages

    def train(self, mode: bool = True) -> TimmTrunk:
        super().train(mode)
        # their classes are many, so their mode is set: StoredBatchNorm cannot take their place
        hold_norms(self, every=self._frozen_norm)
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
    used = sum(stride <= strides[-1] for stride in made)
    return ResNetTrunk(_resnet(name, weights, norm, used), stages=used, deformable=deformable)


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
    if weights is not None and weights not in ("DEFAULT", BUNDLED) and weights_file(weights) is None:
        raise ValueError(
            f"weights: null, DEFAULT, {BUNDLED} or a file (for {name}; a tag of timm belongs to the name) expected, got {weights!r}"
        )
    chosen = dict(options or {})
    if weights in ("DEFAULT", BUNDLED) and chosen:
        raise ValueError(
            f"backbone_options: none beside weights {weights} expected, which belong to {name} as it is (a file may be of any width), "
            f"got {chosen}"
        )
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
            f"backbone: a model of timm that gives feature maps of images of any size expected, got {name!r}{given} ({error}); "
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
    net = _timm_net(name, weights, chosen, {**asked, "out_indices": tuple(places.values())})
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


def _timm_net(name: str, weights: str | None, chosen: Mapping[str, Any], asked: Mapping[str, Any]) -> nn.Module:
    """The ``features_only`` model of timm, with its weights."""
    import timm

    own = name.removeprefix(TIMM)
    try:
        net: nn.Module = timm.create_model(own, pretrained=weights == "DEFAULT", **asked)
    except Exception as error:
        if weights != "DEFAULT":
            raise
        config: Any = timm.get_pretrained_cfg(own)
        source = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors" if config and config.hf_hub_id else "them"
        raise ConnectionError(
            f"the weights of {name} could not be fetched ({error}); {other_ways(f'download {source}')}; or DEFAULT once with a "
            f"network: timm keeps them in the cache of Hugging Face (HF_HOME), from where they are read without one"
        ) from error
    if weights is not None and weights != "DEFAULT":
        with torch.device("meta"):
            whole = timm.create_model(own, **chosen).state_dict()
        state = bundled_weights(name, whole) if weights == BUNDLED else read_weights(weights)
        needed = {key.removeprefix("model."): value for key, value in net.state_dict().items()}
        fit_weights(needed, state, unused=whole, what=f"{weights} in {name}")
    return net


def _resnet(name: str, weights: str | None, norm: type[nn.Module], stages: int) -> ResNet:
    known = get_model_weights(name)
    if weights is None or weights not in known.__members__:
        net = cast(ResNet, get_model(name, weights=None, norm_layer=norm))
        if weights is not None:
            if weights == BUNDLED:
                bundled_weights(name, {})
            if weights_file(weights) is None:
                names = ", ".join(known.__members__)
                raise ValueError(f"weights: null, a file, or one of {names} (for {name}) expected, got {weights!r}")
            whole = net.state_dict()
            beyond = tuple(f"layer{number}." for number in range(stages + 1, 5))
            needed = {key: value for key, value in whole.items() if not key.startswith(("fc.", *beyond))}
            fit_weights(needed, read_weights(weights), unused=whole, what=f"{weights} in {name}")
        return net
    entry = known[weights]
    try:
        return cast(ResNet, get_model(name, weights=entry, norm_layer=norm))
    except (OSError, RuntimeError) as error:  # no network, a proxy's error page, a download that broke off (its hash is wrong)
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(entry.url).path).name
        raise ConnectionError(
            f"the weights {weights} of {name} could not be fetched from {entry.url} ({error}); "
            f"{other_ways('download that file')}; or put that file at {place}, where {weights} looks first"
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
