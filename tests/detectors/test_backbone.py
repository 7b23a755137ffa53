"""The pyramid: which levels, which parameters, what is frozen, and what is said where weights cannot be had."""

from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import get_model, resnet

from lossbox.detectors import Pyramid, build_pyramid
from lossbox.detectors.trunks import DeformableConv, ResNetTrunk, StoredBatchNorm, TimmTrunk, timm_trunk


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (1, 129)])
@pytest.mark.parametrize(
    ("strides", "stages"),
    [((8, 16, 32), 4), ((8, 16, 32), 3), ((8, 16, 32, 64, 128), 4), ((4, 8), 4), ((16,), 4), ((32, 64), 4), ((4, 8), 1)],
)
def test_a_level_of_stride_s_has_a_cell_for_every_s_pixels(size: tuple[int, int], strides: tuple[int, ...], stages: int) -> None:
    with torch.device("meta"):
        levels = build_pyramid("resnet18", strides=strides, channels=8, stages=stages)(torch.zeros(2, 3, *size))
    assert [tuple(level.shape) for level in levels] == [(2, 8, -(-size[0] // s), -(-size[1] // s)) for s in strides]


def test_coarser_levels_are_made_from_the_coarsest_of_the_fpn() -> None:
    pyramid = build_pyramid("resnet18", strides=(8, 16, 32, 64), channels=8, stages=2).eval()
    with torch.no_grad():
        finest, second, third, fourth = pyramid(torch.rand(1, 3, 64, 64))
        torch.testing.assert_close(second, pyramid.extra[0](finest))
        assert (second < 0).any()
        torch.testing.assert_close(third, pyramid.extra[1](second.clamp(min=0)))
        torch.testing.assert_close(fourth, pyramid.extra[2](third.clamp(min=0)))


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_bottleneck_backbones_fit(name: str) -> None:
    with torch.device("meta"):
        pyramid = build_pyramid(name, strides=(8, 16, 32, 64), channels=8)
        assert [tuple(level.shape) for level in pyramid(torch.zeros(2, 3, 64, 64))] == [(2, 8, 64 // s, 64 // s) for s in (8, 16, 32, 64)]


def test_the_features_are_those_of_torchvisions_resnet() -> None:
    net = get_model("resnet18").eval()
    pyramid = Pyramid(ResNetTrunk(net, stages=3), strides=(16,), channels=4).eval()
    with torch.no_grad():
        x = torch.rand(1, 3, 64, 48)
        expected = net.layer3(net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))))
        (found,) = pyramid(x)
        torch.testing.assert_close(found, pyramid.fpn.layer_blocks[0](pyramid.fpn.inner_blocks[0](expected)))


def test_every_parameter_that_is_there_is_used() -> None:
    """DDP stops at parameters without a gradient: unused stages, the pooling and the classifier must be gone."""
    for strides, stages in (((8, 16, 32), 3), ((4, 8), 4), ((8,), 2)):
        pyramid = build_pyramid("resnet18", strides=strides, channels=8, stages=stages)
        sum(level.square().mean() for level in pyramid(torch.rand(2, 3, 32, 32))).backward()  # type: ignore[union-attr]
        assert [name for name, p in pyramid.named_parameters() if p.grad is None] == []


def test_from_random_numbers_nothing_is_frozen() -> None:
    pyramid = build_pyramid("resnet18", strides=(8, 16), channels=8)
    assert all(p.requires_grad for p in pyramid.parameters())
    assert not any(isinstance(m, StoredBatchNorm) for m in pyramid.modules())


def test_pretrained_freezes_the_first_stage_and_the_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    state = get_model("resnet18").state_dict()
    monkeypatch.setattr(resnet.ResNet18_Weights.IMAGENET1K_V1.__class__, "get_state_dict", lambda self, *a, **k: state)
    pyramid = build_pyramid("resnet18", weights="DEFAULT", strides=(8, 16, 32), channels=8)
    assert torch.equal(pyramid.trunk.stem.conv.weight, state["conv1.weight"])  # type: ignore[arg-type, union-attr]
    frozen = {"".join(name.split(".")[1:3]) for name, p in pyramid.named_parameters() if not p.requires_grad}
    assert frozen == {"stemconv", "stemnorm", "stages0"}
    assert pyramid.trunk.stages[1][0].bn1.weight.requires_grad  # type: ignore[index, union-attr]
    before = {name: value.clone() for name, value in pyramid.state_dict().items() if "running" in name}
    assert len(before) > 10
    pyramid.train()
    pyramid(torch.rand(2, 3, 64, 64) * 9)
    for name, value in pyramid.state_dict().items():
        if "running" in name:
            assert torch.equal(value, before[name])


def test_a_stored_norm_is_a_batch_norm_in_eval_mode_and_shares_its_checkpoints() -> None:
    live = nn.BatchNorm2d(3)
    live(torch.rand(4, 3, 5, 5) * 7)
    stored = StoredBatchNorm(3)
    stored.load_state_dict(live.state_dict())
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(stored.train()(x), live.eval()(x))


@pytest.mark.parametrize("stages", [1, 3])
def test_frozen_stages_can_be_chosen(stages: int) -> None:
    pyramid = build_pyramid("resnet18", strides=(8, 16, 32), channels=8, frozen_stages=stages)
    trained = [any(p.requires_grad for p in stage.parameters()) for stage in pyramid.trunk.stages]
    assert trained == [i >= stages for i in range(4)]
    with pytest.raises(ValueError, match="frozen_stages: 0 to 4"):
        pyramid.freeze(5)


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("invalid hash value")])
def test_weights_that_cannot_be_fetched_say_where_to_put_them(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(resnet.ResNet18_Weights, "get_state_dict", fail)
    with pytest.raises(
        ConnectionError, match=r"could not be fetched.*hub.checkpoints.resnet18-f37072fd\.pth, or .* weights: null"
    ) as caught:
        build_pyramid("resnet18", weights="DEFAULT")
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(caught.value)
    assert caught.value.__cause__ is error


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"backbone: one of .*resnet18, .*resnext50_32x4d.* expected, got 'resnet19'"):
        build_pyramid("resnet19")
    with pytest.raises(ValueError, match=r"weights: null or one of IMAGENET1K_V1, DEFAULT \(for resnet18\) expected, got 'COCO'"):
        build_pyramid("resnet18", weights="COCO")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (8, 32)}, r"strides: one of 4, 8, 16, 32 .* got \(8, 32\)"),
        ({"strides": (2, 4)}, "strides: one of 4, 8, 16, 32"),
        ({"strides": ()}, "strides: one of 4, 8, 16, 32"),
        ({"strides": (32, 64), "stages": 3}, r"strides: one of 4, 8, 16 \(what 3 stages make\)"),
        ({"stages": 5}, "stages: 1 to 4 stages of a backbone expected, got 5"),
        ({"channels": 0}, "channels: a number >= 1 expected, got 0"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_pyramid("resnet18", **options)
