"""The rates of the optimizers: what learns how fast, and what is in no group."""

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from lossbox.detectors import Backbone, FasterRCNN, RetinaNet
from lossbox.training.optimization import WarmupCosine, WarmupSteps, parameter_groups

FACTORIES = (WarmupCosine, WarmupSteps)


def detector(**options):
    return RetinaNet(2, backbone=Backbone(**{"strides": (8, 16, 32), "channels": 8, **options}), head_convs=1)


def rates(model, groups):
    """Learning rate by name."""
    by_id = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    return {name: by_id.get(id(parameter)) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("factory", FACTORIES)
def test_without_rates_of_the_trunk_there_are_the_two_groups_of_ever(factory):
    model = detector()
    optimizer, _ = factory(weight_decay=0.3)(model, 10)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    for group, wide in zip(optimizer.param_groups, (True, False), strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters() if (p.ndim > 1) == wide]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize(
    ("backbone", "prefixes"),
    [
        ("resnet18", [("stem.", "stages.0."), ("stages.1.",), ("stages.2.",), ("stages.3.",)]),
        (
            "timm/tf_efficientnet_lite0",
            [
                ("net.model.conv_stem", "net.model.bn1", "net.model.blocks.0.", "net.model.blocks.1."),
                ("net.model.blocks.2.",),
                ("net.model.blocks.3.", "net.model.blocks.4."),
                ("net.model.blocks.5.", "net.model.blocks.6."),
            ],
        ),
    ],
)
def test_each_earlier_stage_learns_more_slowly(factory, backbone, prefixes):
    model = nn.ModuleDict({"detector": detector(name=backbone), "objective": nn.Linear(2, 2)})
    optimizer, schedule = factory(learning_rate=1.0, backbone_rate=0.5, depth_decay=0.1)(model, 1000)
    groups = [{**group, "lr": group["initial_lr"]} for group in optimizer.param_groups]
    found = rates(model, groups)
    trunk = "detector.pyramid.trunk."
    for k, names in enumerate(reversed(prefixes)):
        of_stage = {rate for name, rate in found.items() if name.startswith(tuple(trunk + prefix for prefix in names))}
        assert sorted(of_stage) == pytest.approx([0.5 * 0.1**k])
    assert {rate for name, rate in found.items() if not name.startswith(trunk)} == {1.0}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    # the schedule moves all alike, and results.csv tells the rate of the head
    optimizer.step()
    schedule.step()
    factors = {round(group["lr"] / group["initial_lr"], 9) for group in optimizer.param_groups}
    assert len(factors) == 1
    assert optimizer.param_groups[0]["initial_lr"] == 1.0


def cosine(step, steps, warmup):
    rise = max(1, round(warmup * steps))
    return (step + 1) / rise if step < rise else 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def milestones(step, steps, warmup_steps, shares):
    return min(1.0, (step + 1) / max(1, warmup_steps)) * 0.1 ** sum(step >= share * steps for share in shares)


@pytest.mark.parametrize(
    ("factory", "closed_form", "steps"),
    [
        *[(WarmupCosine(1.5, warmup=share), partial(cosine, warmup=share), n) for n in (1, 2, 7, 400) for share in (0.0, 0.1, 0.5, 1.0)],
        *[
            (WarmupSteps(1.5, warmup_steps=rise, milestones=shares), partial(milestones, warmup_steps=rise, shares=shares), n)
            for n in (1, 7, 400)
            for rise, shares in [(0, ()), (1, (0.6, 0.8)), (3, (0.3, 0.35, 1.0)), (350, (0.6, 0.8))]
        ],
    ],
)
def test_the_rate_of_every_step_is_the_closed_form_and_goes_on_from_a_checkpoint(factory, closed_form, steps):
    factory = replace(factory, backbone_rate=0.5)
    model = detector(stages=3, strides=(8,))
    optimizer, schedule = factory(model, steps)
    for step in range(steps):
        if step == steps // 2:
            saved = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
            optimizer, schedule = factory(model, steps)
            optimizer.load_state_dict(saved[0])
            schedule.load_state_dict(saved[1])
        expected = 1.5 * closed_form(step, steps)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9, abs=1e-15)
        assert optimizer.param_groups[-1]["lr"] == pytest.approx(expected / 2, rel=1e-9, abs=1e-15)
        optimizer.step()
        schedule.step()


def test_frozen_stages_are_in_no_group_and_no_group_is_empty():
    model = detector(frozen_stages=3)
    groups = parameter_groups(model, 1.0, 0.1, 0.5, 0.5)
    assert sorted({group["lr"] for group in groups}) == [0.5, 1.0]
    assert all(group["params"] for group in groups)
    frozen = {name for name, rate in rates(model, groups).items() if rate is None}
    assert frozen == {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 1.0, 0.1)) == 1


def test_faster_rcnn_has_a_trunk_too():
    model = FasterRCNN(2, backbone=Backbone(stages=3, strides=(8, 16), channels=8), region_levels=2, head_channels=8)
    found = rates(model, parameter_groups(model, 1.0, 0.1, 0.25))
    assert {rate for name, rate in found.items() if name.startswith("pyramid.trunk.")} == {0.25}
    assert {rate for name, rate in found.items() if not name.startswith("pyramid.trunk.")} == {1.0}


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("name", ["backbone_rate", "depth_decay"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_rates_out_of_their_range_are_named(factory, name, value):
    with pytest.raises(ValueError, match=f"{name}: a finite number > 0 expected, got {value}"):
        factory(**{name: value})


@pytest.mark.parametrize("factory", FACTORIES)
def test_rates_of_a_trunk_need_a_trunk(factory):
    with pytest.raises(ValueError, match="backbone_rate, depth_decay: a detector with a trunk of stages expected, got Linear"):
        factory(backbone_rate=0.5)(nn.Linear(2, 2), 10)


def test_a_step_moves_the_trunk_by_its_rate():
    """SGD moves each parameter by its rate times its gradient: the ratio of the moves is that of the rates."""
    torch.manual_seed(0)
    model = detector()
    optimizer, _ = WarmupSteps(learning_rate=1.0, warmup_steps=1, momentum=0.0, weight_decay=0.0, backbone_rate=0.125)(model, 10)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        moved = before[name] - parameter.detach()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.125 if name.startswith("pyramid.trunk") else 1.0), rtol=0, atol=1e-5)
