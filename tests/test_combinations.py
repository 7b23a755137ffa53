"""Each detector trains with each objective: on one batch, in a few steps, the loss falls, and every parameter has a finite gradient."""

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import nn

from lossbox.assignment import ATSSAssigner, CenterAssigner, FoveaAssigner, OverlapAssigner
from lossbox.decoding import Decoder
from lossbox.detectors import FCOS, Backbone, FasterRCNN, FoveaBox, RetinaNet
from lossbox.losses import (
    APLoss,
    DRLoss,
    GHMCLoss,
    GHMRLoss,
    GIoULoss,
    QualityFocalLoss,
    SigmoidCrossEntropyLoss,
)
from lossbox.objective import (
    ALRPObjective,
    FreeAnchorObjective,
    Objective,
    RankSortObjective,
    SeparateObjective,
    WithCenterness,
    weighted_sum,
)
from lossbox.records import Batch, Targets
from lossbox.training import DetectionTask, FirstStage, WarmupCosine

CLASSES, SIZE, LAST = 3, 32, 4

BODY: dict[str, Any] = {"backbone": Backbone(stages=2, strides=(4, 8), channels=16)}
REGIONS: dict[str, Any] = {"max_proposals": 40, "region_levels": 2, "finest_scale": 16.0, "region_size": 3, "head_channels": 32}
SQUARES: dict[str, Any] = {"scales": (1.0,), "ratios": (1.0,), "anchor_scale": 4.0}

Make = Callable[[], Objective]

DETECTORS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "retinanet": (partial(RetinaNet, CLASSES, head_convs=1, **BODY, **SQUARES), OverlapAssigner()),
    "atss": (partial(RetinaNet, CLASSES, head_convs=1, **BODY, **SQUARES), ATSSAssigner()),
    "foveabox": (partial(FoveaBox, CLASSES, head_convs=1, **BODY), FoveaAssigner(scale_ranges=((1.0, 16.0), (8.0, 64.0)))),
    "fcos": (partial(FCOS, CLASSES, head_convs=1, **BODY), CenterAssigner(regress_ranges=((0.0, 10.0), (10.0, float("inf"))))),
    "faster_rcnn": (partial(FasterRCNN, CLASSES, **BODY, **SQUARES, **REGIONS), OverlapAssigner(0.5, 0.5, allow_low_quality_matches=False)),
}

OBJECTIVES: dict[str, tuple[Make, int]] = {
    "alrp": (ALRPObjective, 20),
    "rank_sort": (RankSortObjective, 12),
    "ap_smooth_l1": (lambda: SeparateObjective(APLoss()), 12),
    "ap_giou_balanced": (lambda: SeparateObjective(APLoss(), GIoULoss(), self_balance=True), 12),
    "focal_smooth_l1": (SeparateObjective, 20),
    "cross_entropy_giou": (lambda: SeparateObjective(SigmoidCrossEntropyLoss(), GIoULoss()), 12),
    # its target, the IoU, first rises
    "quality_focal_giou": (lambda: SeparateObjective(QualityFocalLoss(), GIoULoss()), 30),
    # ten bins: there are only some 30 offsets of positives
    "ghm": (lambda: SeparateObjective(GHMCLoss(bins=10), GHMRLoss(bins=10)), 40),
    "free_anchor": (lambda: FreeAnchorObjective(bag_size=10), 15),
    "dr_smooth_l1": (lambda: SeparateObjective(DRLoss()), 25),
}
"""Each with its steps: those that say little about scores far from right take more."""

JUDGES: dict[str, Make] = {"ghm": lambda: SeparateObjective(SigmoidCrossEntropyLoss())}
"""GHM's value is one of the density too: at the start all examples lie in two bins, and it rises as they spread. What must fall is the sum
that it harmonizes."""


@cache
def network(name: str, seed: int) -> nn.Module:
    """A detector at its start; most of what a test would take is the drawing of these numbers."""
    torch.manual_seed(seed)
    return DETECTORS[name][0]()


def task(name: str, detector: nn.Module, objective: Make) -> DetectionTask:
    if name == "faster_rcnn":
        first = FirstStage(OverlapAssigner(0.7, 0.3), objective())
        return DetectionTask(detector, DETECTORS[name][1], objective(), Decoder(), WarmupCosine(), first_stage=first)
    made = WithCenterness(objective()) if name == "fcos" else objective()
    return DetectionTask(detector, DETECTORS[name][1], made, Decoder(), WarmupCosine())


@cache
def batch() -> Batch:
    """Two images, two bright squares each, the color of which is the class."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, SIZE, SIZE, generator=generator) * 0.2
    boxes = torch.tensor([[[2.0, 3, 13, 14], [15, 13, 29, 28]], [[17, 2, 28, 13], [3, 15, 17, 30]]])
    labels = torch.tensor([[0, 1], [2, 0]])
    for image, of_image, colors in zip(images, boxes.int().tolist(), labels.tolist(), strict=True):
        for (x1, y1, x2, y2), color in zip(of_image, colors, strict=True):
            image[color, y1:y2, x1:x2] += 0.7
    no_crowd = torch.zeros(2, dtype=torch.bool)
    sizes = ((SIZE, SIZE), (SIZE, SIZE))
    return Batch(images, [Targets(box, label, no_crowd, i, *sizes) for i, (box, label) in enumerate(zip(boxes, labels, strict=True))])


def history(detector: str, objective: str, seed: int = 0, learning_rate: float = 3e-3) -> list[float]:
    """The sum of the parts of the loss, which the ranking losses give a changing weight in training, at each step."""
    make, steps = OBJECTIVES[objective]
    model = task(detector, copy.deepcopy(network(detector, seed)), make).train()
    judge = task(detector, model.detector, JUDGES[objective]).train() if objective in JUDGES else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    values = []
    for step in range(steps):
        found = model.losses(batch())
        judged = found if judge is model else judge.losses(batch())
        values.append(float(sum(part.value.detach() for part in judged.parts.values())))
        optimizer.zero_grad()
        weighted_sum(found.parts).backward()
        if step in (0, steps - 1):
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step == steps // 2:
            model.objective.end_epoch()  # the self-balance takes over from its first weight
    return values


def share_left(values: list[float]) -> float:
    return sum(values[-LAST:]) / LAST / values[0]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("detector", DETECTORS)
def test_the_loss_falls(detector: str, objective: str) -> None:
    values = history(detector, objective)
    assert share_left(values) < 0.8, values


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_loss_of_a_network_that_does_not_learn_stays(detector: str) -> None:
    """The test above can fail."""
    assert share_left(history(detector, "focal_smooth_l1", learning_rate=0.0)) == pytest.approx(1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("detector", DETECTORS)
def test_a_gpu_computes_the_same_first_loss(detector: str, objective: str) -> None:
    parts = {}
    for device in ("cpu", "cuda"):
        model = task(detector, copy.deepcopy(network(detector, 0)), OBJECTIVES[objective][0]).train().to(device)
        torch.backends.cudnn.allow_tf32 = False
        found = model.losses(batch().to(device))
        weighted_sum(found.parts).backward()
        assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())
        parts[device] = {name: float(part.value.detach()) for name, part in found.parts.items()}
    assert parts["cuda"] == pytest.approx(parts["cpu"], rel=2e-2, abs=1e-3)
