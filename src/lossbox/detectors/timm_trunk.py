"""A ``features_only`` model of timm as a trunk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..messages import near_name
from .backbone import Backbone, check_strides
from .trunk import IMAGENET_MEAN, IMAGENET_STD, Trunk
from .weights import BUNDLED, bundled_weights, fit_weights, other_ways, read_weights, weights_file

TIMM = "timm/"
"""What the name of a backbone of timm begins with."""

OURS = ("features_only", "feature_cls", "out_indices", "pretrained", "pretrained_cfg", "checkpoint_path")
"""Options of ``timm.create_model`` that are set here, or that other options stand for."""

SIZE = 128
"""Rows and columns of the image that a model is tried with."""


class TimmTrunk(Trunk):
    """The stages of a ``features_only`` model of timm.

    Args:
        net: the model, with one output per stage.
        reached: for each output the names of the parameters that it depends on.
        strides: of the outputs, finest first.
        channels: of the outputs.
        mean: of the images that it was trained on, red, green and blue in [0, 1].
        std: of these images.
        frozen_norm: all batch norms keep their mean and variance.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        reached: Sequence[Collection[str]],
        strides: Sequence[int],
        channels: Sequence[int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        frozen_norm: bool = False,
    ) -> None:
        super().__init__(strides=strides, channels=channels, mean=mean, std=std, frozen_norm=frozen_norm)
        self.net = net
        self._stage = {name: stage for stage, names in reversed(list(enumerate(reached))) for name in names}

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _c _h _w"]]:
        """Normalized images to one map per stage, finest first."""
        return list(self.net(images))

    def by_stage(self) -> list[list[nn.Parameter]]:
        """The parameters of each stage: those that its map depends on, and no earlier one."""
        stages: list[list[nn.Parameter]] = [[] for _ in self.strides]
        for name, parameter in self.net.named_parameters():
            if name in self._stage:
                stages[self._stage[name]].append(parameter)
        return stages


class _Output(NamedTuple):
    """One feature map of a model of timm."""

    position: int
    channels: int
    reached: set[str]
    """The names of the parameters that it depends on."""


def timm_trunk(backbone: Backbone) -> TimmTrunk:
    """The stages of a model of timm as far as the strides need them.

    Example:
        >>> timm_trunk(Backbone("timm/mobilenetv3_small_050", strides=(8, 16))).channels
        (8, 16, 24)
        >>> timm_trunk(Backbone("timm/resnet18", {"channels": (8, 16, 24, 32)}, strides=(8, 16))).channels
        (8, 16, 24)
    """
    _check(backbone)
    outputs, config = _outputs(backbone)
    check_strides(backbone.strides, tuple(outputs))
    outputs = {stride: output for stride, output in outputs.items() if stride <= backbone.strides[-1]}
    net = _net(backbone, tuple(output.position for output in outputs.values()))
    used = set().union(*(output.reached for stride, output in outputs.items() if stride in backbone.strides))
    for name, parameter in net.named_parameters():
        # DistributedDataParallel stops at trained parameters that get no gradient
        parameter.requires_grad_(name in used)
    return TimmTrunk(
        net,
        reached=[output.reached for output in outputs.values()],
        strides=tuple(outputs),
        channels=[output.channels for output in outputs.values()],
        mean=config.get("mean", IMAGENET_MEAN),
        std=config.get("std", IMAGENET_STD),
        frozen_norm=backbone.norms_are_frozen,
    )


def _check(backbone: Backbone) -> None:
    """Raises ValueError or ImportError where a backbone of timm cannot be built."""
    name, weights, options = backbone.name, backbone.weights, backbone.options
    try:
        import timm  # noqa: F401
    except ImportError as error:
        raise ImportError(f"backbone: {name} needs timm: pip install 'lossbox[train]'") from error
    if backbone.deformable_stages:
        raise ValueError(f"deformable_stages: none with a backbone of timm expected, got {tuple(backbone.deformable_stages)}")
    if weights is not None and weights not in ("DEFAULT", BUNDLED) and weights_file(weights) is None:
        raise ValueError(
            f"weights: null, DEFAULT, {BUNDLED} or a file (for {name}; a tag of timm belongs to the name) expected, got {weights!r}"
        )
    if weights in ("DEFAULT", BUNDLED) and options:
        raise ValueError(
            f"backbone.options: none beside weights {weights} expected, which belong to {name} as it is (a file may be of any width), "
            f"got {options}"
        )
    if any(key in OURS for key in options or {}):
        raise ValueError(f"backbone.options: what changes the model expected, not {', '.join(OURS)}, got {options}")


def _model_options(backbone: Backbone) -> dict[str, Any]:
    # The getter builds no block beyond the last output.
    return {**(backbone.options or {}), "features_only": True, "feature_cls": "getter"}


def _outputs(backbone: Backbone) -> tuple[dict[int, _Output], dict[str, Any]]:
    """The last output of each stride of the stages in use, and timm's configuration of the weights."""
    import timm

    name = backbone.name.removeprefix(TIMM)
    try:
        # On the device "meta" nothing is computed, but all shapes and dependences are there.
        with torch.device("meta"):
            net: Any = timm.create_model(name, **_model_options(backbone)).eval()
            maps = net(torch.zeros(1, 3, SIZE, SIZE))
    except Exception as error:
        options = f" with {backbone.options}" if backbone.options else ""
        known = [TIMM + model for model in timm.list_models()]
        near = "" if backbone.name in known else near_name(backbone.name, known, otherwise="timm.list_models() lists them")
        raise ValueError(
            f"backbone: a model of timm that gives feature maps of images of any size expected, got {backbone.name!r}{options} "
            f"({error}){near}"
        ) from error
    strides, channels = net.feature_info.reduction(), net.feature_info.channels()
    expected = [(width, SIZE // stride, SIZE // stride) for stride, width in zip(strides, channels, strict=True)]
    if [tuple(one.shape[1:]) for one in maps] != expected:
        raise ValueError(f"backbone: a model of timm whose maps are (b, c, h / stride, w / stride) expected, got {backbone.name!r}")
    last = {stride: i for i, stride in enumerate(strides) if stride in backbone.stage_strides}
    parameters = dict(net.named_parameters())
    return {stride: _Output(i, channels[i], _depends_on(maps[i], parameters)) for stride, i in last.items()}, net.pretrained_cfg


def _net(backbone: Backbone, outputs: tuple[int, ...]) -> nn.Module:
    """The ``features_only`` model of timm with these outputs and its weights."""
    import timm

    name, weights = backbone.name.removeprefix(TIMM), backbone.weights
    try:
        net: nn.Module = timm.create_model(name, pretrained=weights == "DEFAULT", out_indices=outputs, **_model_options(backbone))
    except Exception as error:
        if weights != "DEFAULT":
            raise
        config: Any = timm.get_pretrained_cfg(name)
        source = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors" if config and config.hf_hub_id else "them"
        raise ConnectionError(
            f"the weights of {backbone.name} could not be fetched ({error}); {other_ways(f'download {source}')}; or DEFAULT once with a "
            f"network: timm keeps them in the cache of Hugging Face (HF_HOME), from where they are read without one"
        ) from error
    if weights is not None and weights != "DEFAULT":
        with torch.device("meta"):
            whole = timm.create_model(name, **(backbone.options or {})).state_dict()
        state = bundled_weights(backbone.name, whole) if weights == BUNDLED else read_weights(weights)
        needed = {key.removeprefix("model."): value for key, value in net.state_dict().items()}
        fit_weights(needed, state, unused=whole, what=f"{weights} in {backbone.name}")
    return net


def _depends_on(output: Tensor, parameters: dict[str, nn.Parameter]) -> set[str]:
    """The names of the parameters that a tensor was computed from."""
    gradients = torch.autograd.grad(output.sum(), list(parameters.values()), allow_unused=True, retain_graph=True)
    return {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
