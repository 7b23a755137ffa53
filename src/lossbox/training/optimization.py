"""Optimizers and their schedules: what ``training.DetectionTask`` takes as ``optimizer``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, SequentialLR

from ..detectors.trunk import Trunk


@dataclass(frozen=True)
class WarmupCosine:
    """AdamW; the learning rate rises linearly over ``warmup`` (a share of the run), then falls to 0 along a cosine.

    Weight decay acts on the weights of convolutions and linear layers, not on biases and the parameters of norms.

    Args:
        learning_rate: the highest; in a recipe ``auto`` has it found by a short search, see ``find_learning_rate``.
        weight_decay: as AdamW takes it.
        warmup: share of the run.
        backbone_rate: the trunk of the detector learns at so many times the learning rate, > 0; below 1 for pretrained weights.
        depth_decay: each earlier stage of the trunk learns at so many times the rate of the next one, > 0; the stem with the first.

    Raises:
        ValueError: a rate out of its range, or for a model without a trunk.

    Example:
        >>> optimizer, schedule = WarmupCosine(learning_rate=1e-3, warmup=0.5)(nn.Linear(2, 2), total_steps=4)
        >>> rates = []
        >>> for _ in range(4):
        ...     rates.append(round(schedule.get_last_lr()[0], 6))
        ...     optimizer.step(); schedule.step()
        >>> rates
        [0.0005, 0.001, 0.001, 0.0005]
    """

    learning_rate: float | Literal["auto"] = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    backbone_rate: float = 1.0
    depth_decay: float = 1.0

    def __post_init__(self) -> None:
        _check_rates(self.backbone_rate, self.depth_decay)

    def __call__(self, model: nn.Module, total_steps: int) -> tuple[Optimizer, LRScheduler]:
        rate = _number(self.learning_rate)
        optimizer = AdamW(parameter_groups(model, rate, self.weight_decay, self.backbone_rate, self.depth_decay), lr=rate)
        rise = max(1, round(self.warmup * total_steps))
        fall = CosineAnnealingLR(optimizer, max(1, total_steps - rise))
        return optimizer, SequentialLR(optimizer, [_rise(optimizer, rise), fall], [rise])


@dataclass(frozen=True)
class WarmupSteps:
    """SGD with momentum; linear warm-up over ``warmup_steps``, then a tenth of the rate at each milestone (shares of the run).

    The defaults are the published ones of the aLRP paper's RetinaNet on COCO: 32 images per step, 100 epochs, steps at 60 and 80.

    Args:
        learning_rate: the highest; in a recipe ``auto`` has it found by a short search, see ``find_learning_rate``.
        momentum: of SGD.
        weight_decay: as SGD takes it, on what WarmupCosine puts it on.
        warmup_steps: so many steps.
        milestones: shares of the run.
        backbone_rate: the trunk of the detector learns at so many times the learning rate, > 0; below 1 for pretrained weights.
        depth_decay: each earlier stage of the trunk learns at so many times the rate of the next one, > 0; the stem with the first.

    Raises:
        ValueError: a rate out of its range, or for a model without a trunk.

    Example:
        >>> optimizer, schedule = WarmupSteps(learning_rate=1.0, warmup_steps=2, milestones=(0.6, 0.8))(nn.Linear(2, 2), total_steps=5)
        >>> rates = []
        >>> for _ in range(5):
        ...     rates.append(round(schedule.get_last_lr()[0], 4))
        ...     optimizer.step(); schedule.step()
        >>> rates
        [0.5, 1.0, 1.0, 0.1, 0.01]
    """

    learning_rate: float | Literal["auto"] = 0.008
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_steps: int = 500
    milestones: tuple[float, ...] = (0.6, 0.8)
    backbone_rate: float = 1.0
    depth_decay: float = 1.0

    def __post_init__(self) -> None:
        _check_rates(self.backbone_rate, self.depth_decay)

    def __call__(self, model: nn.Module, total_steps: int) -> tuple[Optimizer, LRScheduler]:
        rate = _number(self.learning_rate)
        groups = parameter_groups(model, rate, self.weight_decay, self.backbone_rate, self.depth_decay)
        optimizer = SGD(groups, lr=rate, momentum=self.momentum)
        milestones = [math.ceil(share * total_steps) for share in self.milestones]
        return optimizer, ChainedScheduler([_rise(optimizer, max(1, self.warmup_steps)), MultiStepLR(optimizer, milestones)], optimizer)


def _number(learning_rate: float | Literal["auto"]) -> float:
    if learning_rate == "auto":
        raise ValueError("learning_rate: a number expected, got 'auto', which `lossbox fit` finds before the training")
    return learning_rate


def _rise(optimizer: Optimizer, steps: int) -> LinearLR:
    """From ``1 / steps`` of the rate in the first step to the whole of it in the last of ``steps``."""
    return LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, backbone_rate: float = 1.0, depth_decay: float = 1.0
) -> list[dict[str, Any]]:
    """What an optimizer takes: the trained parameters by learning rate and weight decay, the head's first, no group empty.

    The stage k of the trunk, counted from its last (0), learns at ``learning_rate * backbone_rate * depth_decay**k``, everything else at
    ``learning_rate``. Parameters of one dimension (biases, norms) do not decay.

    Args:
        model: with one or no trunk of ``lossbox.detectors`` in it.
        learning_rate: of the head.
        weight_decay: of parameters of two dimensions and more.
        backbone_rate: of the last stage of the trunk over that of the head.
        depth_decay: of a stage over the next one.

    Returns:
        Groups with ``params``, ``lr`` and ``weight_decay``.

    Raises:
        ValueError: rates of a trunk for a model that has none.

    Example:
        >>> from lossbox.detectors import Backbone, RetinaNet
        >>> model = RetinaNet(2, backbone=Backbone(stages=3, strides=(8, 16), channels=8), head_convs=0)
        >>> [(group["lr"], group["weight_decay"]) for group in parameter_groups(model, 1.0, 0.1, 0.5, 0.5)]
        [(1.0, 0.1), (1.0, 0.0), (0.125, 0.1), (0.125, 0.0), (0.25, 0.1), (0.25, 0.0), (0.5, 0.1), (0.5, 0.0)]
    """
    factors: dict[nn.Parameter, float] = {}
    if (backbone_rate, depth_decay) != (1.0, 1.0):
        trunk = next((module for module in model.modules() if isinstance(module, Trunk)), None)
        if trunk is None:
            raise ValueError(f"backbone_rate, depth_decay: a detector with a trunk of stages expected, got {type(model).__name__}")
        for depth, stage in enumerate(reversed(trunk.by_stage())):
            factors |= dict.fromkeys(stage, backbone_rate * depth_decay**depth)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((factors.get(parameter, 1.0), parameter.ndim > 1), []).append(parameter)
    places = list(dict.fromkeys([1.0, *(factor for factor, _ in groups)]))
    ordered = sorted(groups, key=lambda key: (places.index(key[0]), not key[1]))
    return [{"params": groups[key], "lr": learning_rate * key[0], "weight_decay": weight_decay if key[1] else 0.0} for key in ordered]


def _check_rates(backbone_rate: float, depth_decay: float) -> None:
    for name, value in (("backbone_rate", backbone_rate), ("depth_decay", depth_decay)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: a finite number > 0 expected, got {value}")
