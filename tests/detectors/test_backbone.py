"""The pyramid: which levels, which parameters, what is frozen, and what is said where weights cannot be had."""

import sys
from typing import Any
from urllib.error import URLError

import pytest
import timm
import torch
from torch import nn
from torchvision.models import get_model, resnet

from lossbox.detectors import FCOS, Backbone, FoveaBox, Pyramid, RetinaNet
from lossbox.detectors.deformable import DeformableConv
from lossbox.detectors.resnet_trunk import ResNetTrunk
from lossbox.detectors.timm_trunk import TimmTrunk, timm_trunk


def build_pyramid(name: str = "resnet18", **options: Any) -> Pyramid:
    return Pyramid(Backbone(name, **options))


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
    pyramid = build_pyramid(strides=(16,), channels=4)
    pyramid.trunk = ResNetTrunk(net, stages=3)
    pyramid.eval()
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 48)
        x = pyramid.normalize(images)
        expected = net.layer3(net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))))
        (found,) = pyramid(images)
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
    assert all(m.training for m in pyramid.train().modules())


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


@pytest.mark.parametrize("stages", [1, 3])
def test_frozen_stages_can_be_chosen(stages: int) -> None:
    pyramid = build_pyramid("resnet18", strides=(8, 16, 32), channels=8, frozen_stages=stages)
    trained = [any(p.requires_grad for p in stage.parameters()) for stage in pyramid.trunk.stages]
    assert trained == [i >= stages for i in range(4)]
    with pytest.raises(ValueError, match="frozen_stages: 0 to 4"):
        pyramid.trunk.freeze(5)


@pytest.mark.parametrize(("name", "stages"), [("resnet18", 2), ("timm/tf_efficientnet_lite0", 3)])
def test_no_gradient_goes_through_frozen_stages_and_their_norms_are_held(name: str, stages: int) -> None:
    pyramid = build_pyramid(name, strides=(8, 16, 32), channels=8, frozen_stages=stages)
    for _ in range(2):  # as it is built, which is how Lightning trains it, and after train()
        maps = pyramid.trunk(torch.rand(2, 3, 64, 64))
        assert [one.grad_fn is None for one in maps] == [i < stages for i in range(4)]
        for norm in (m for m in pyramid.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
            assert norm.training == all(p.requires_grad for p in norm.parameters())
        pyramid.eval().train()


@pytest.mark.parametrize("name", ["resnet18", "timm/tf_efficientnet_lite0", "timm/hrnet_w18_small"])
def test_every_trained_parameter_of_a_trunk_belongs_to_one_stage(name: str) -> None:
    with torch.device("meta"):
        trunk = build_pyramid(name, strides=(8, 16), channels=8).trunk
    by_stage = [parameter for stage in trunk.by_stage() for parameter in stage]
    trained = [parameter for parameter in trunk.parameters() if parameter.requires_grad]
    assert len(by_stage) == len({id(p) for p in by_stage})
    assert {id(p) for p in by_stage} >= {id(p) for p in trained}
    assert trunk.by_stage()[0][0] is next(trunk.parameters())  # the stem


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("invalid hash value")])
def test_weights_that_cannot_be_fetched_say_where_to_put_them(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(resnet.ResNet18_Weights, "get_state_dict", fail)
    with pytest.raises(
        ConnectionError,
        match=r"could not be fetched.* weights: FILE; .*weights: bundled .*lossbox\[pretrained\].* weights: null; "
        r"or put that file at .*hub.checkpoints.resnet18-f37072fd\.pth",
    ) as caught:
        build_pyramid("resnet18", weights="DEFAULT")
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(caught.value)
    assert caught.value.__cause__ is error


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"backbone: one of .*resnet18, .*resnext50_32x4d.* expected, got 'resnet19'"):
        build_pyramid("resnet19")
    with pytest.raises(ValueError, match=r"weights: null, a file, or one of IMAGENET1K_V1, DEFAULT \(for resnet18\) expected, got 'COCO'"):
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


TIMM = "timm/mobilenetv3_small_050"


def test_a_backbone_of_timm_by_name() -> None:
    pyramid = build_pyramid(TIMM, strides=(8, 16, 32), channels=8, stages=3)
    levels = pyramid(torch.rand(2, 3, 96, 128))
    assert [tuple(level.shape) for level in levels] == [(2, 8, 96 // s, 128 // s) for s in (8, 16, 32)]
    sum(level.square().mean() for level in levels).backward()  # type: ignore[union-attr]
    assert [name for name, p in pyramid.named_parameters() if p.requires_grad and p.grad is None] == []
    # the stage of stride 32 is not there
    whole = timm_trunk(Backbone(TIMM))
    assert whole.strides == (4, 8, 16, 32)
    assert sum(p.numel() for p in pyramid.trunk.parameters()) < 0.4 * sum(p.numel() for p in whole.parameters())


def test_the_features_of_timm_are_those_of_its_own_features_only() -> None:
    net = timm.create_model("mobilenetv3_small_050", features_only=True, out_indices=(1, 2, 3)).eval()
    trunk = timm_trunk(Backbone(TIMM, strides=(8, 16))).eval()
    trunk.net.load_state_dict({f"model.{name}": value for name, value in net.state_dict().items()}, strict=False)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for found, expected in zip(trunk(x), net(x), strict=True):
            torch.testing.assert_close(found, expected)


NARROW = {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1], "stem_type": "deep", "stem_width": 4}


def test_options_make_another_model_of_timm_and_every_detector_passes_them_on() -> None:
    net = timm.create_model("resnet18", features_only=True, out_indices=(2, 3), **NARROW).eval()
    trunk = timm_trunk(Backbone("timm/resnet18", NARROW, strides=(8, 16))).eval()
    assert trunk.channels == (8, 16, 24)
    trunk.net.load_state_dict({f"model.{name}": value for name, value in net.state_dict().items()})
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for found, expected in zip(trunk(x)[1:], net(x), strict=True):
            torch.testing.assert_close(found, expected)
    for detector in (RetinaNet, FCOS, FoveaBox):
        small: Any = detector(2, backbone=Backbone("timm/resnet18", NARROW, strides=(8, 16), channels=8), head_convs=0)
        assert small.pyramid.trunk.channels == (8, 16, 24)
        assert small(torch.rand(1, 3, 64, 96)).logits.shape[-1] == 2


@pytest.mark.parametrize("name", ["timm/convnext_atto", "timm/hrnet_w18_small"])
def test_other_families_of_timm_fit_and_leave_no_trained_parameter_idle(name: str) -> None:
    with torch.device("meta"):
        pyramid = build_pyramid(name, strides=(8, 16), channels=8)
        levels = pyramid(torch.zeros(2, 3, 64, 96))
        assert [tuple(level.shape) for level in levels] == [(2, 8, 64 // s, 96 // s) for s in (8, 16)]
        sum(level.square().mean() for level in levels).backward()  # type: ignore[union-attr]
    assert [name for name, p in pyramid.named_parameters() if p.requires_grad and p.grad is None] == []


def test_stages_and_norms_of_timm_can_be_frozen() -> None:
    pyramid = build_pyramid(TIMM, strides=(8, 16), channels=8, frozen_stages=1, frozen_norm=True).train()
    trunk = pyramid.trunk
    assert isinstance(trunk, TimmTrunk)
    trained = {name for name, p in trunk.net.named_parameters() if p.requires_grad}
    first = {name for name, p in trunk.net.named_parameters() if any(p is one for one in trunk.by_stage()[0])}
    assert {name.split(".")[1] for name in first} == {"conv_stem", "bn1", "blocks"}
    assert all(name.split(".")[1:3] in (["blocks", "1"], ["blocks", "2"], ["blocks", "3"]) for name in trained)
    assert len(trained) + len(first) == len(list(trunk.net.parameters()))
    before = {name: value.clone() for name, value in pyramid.state_dict().items() if "running" in name}
    assert len(before) > 10
    pyramid(torch.rand(2, 3, 64, 64) * 9)
    assert all(torch.equal(value, before[name]) for name, value in pyramid.state_dict().items() if "running" in name)
    live = build_pyramid(TIMM, strides=(8, 16), channels=8).train()
    live(torch.rand(2, 3, 64, 64) * 9)
    assert any(not torch.equal(value, before[name]) for name, value in live.state_dict().items() if "running" in name)


def test_timm_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"backbone: timm/resnet18 needs timm: pip install 'lossbox\[train\]'"):
        build_pyramid("timm/resnet18")


WAYS = (
    r"weights of timm/.* could not be fetched \(no route to host\).*download https://huggingface.co/timm/mobilenetv3_small_050.*"
    r"/model.safetensors .*weights: FILE; .*weights: bundled .*weights: null; or DEFAULT .*HF_HOME"
)


def test_weights_of_timm_that_cannot_be_fetched_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    create, error = timm.create_model, OSError("no route to host")

    def offline(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise error
        return create(name, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConnectionError, match=WAYS) as caught:
        build_pyramid(TIMM, weights="DEFAULT", strides=(8, 16))
    assert caught.value.__cause__ is error
    asked: list[bool] = []
    monkeypatch.setattr(timm, "create_model", lambda *a, pretrained=False, **k: asked.append(pretrained) or create(*a, **k))
    pyramid = build_pyramid(TIMM, weights="DEFAULT", strides=(8, 16), channels=8)
    assert asked == [False, True]
    assert not any(p.requires_grad for name, p in pyramid.named_parameters() if "conv_stem" in name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "timm/mobilenetv3_smal_050"}, "backbone: a model of timm .* did you mean timm/mobilenetv3_small_050"),
        ({"name": "timm/vit_tiny_patch16_224"}, r"backbone: a model of timm .* any size expected, got .*doesn't match model"),
        ({"weights": "IMAGENET1K_V1"}, r"weights: null, DEFAULT, bundled or a file \(for timm/"),
        ({"strides": (2, 4)}, r"strides: one of 4, 8, 16, 32 \(what 4 stages make\).* got \(2, 4\)"),
        ({"strides": (16, 32), "stages": 2}, r"strides: one of 4, 8 \(what 2 stages make\)"),
        ({"name": "timm/resnet18", "options": {"widths": 3}}, r"backbone: a model of timm .* got 'timm/resnet18' with {'widths': 3} "),
        ({"options": {"out_indices": (1,)}}, "backbone.options: what changes the model expected, not features_only, .*out_indices.* got"),
        (
            {"options": {"act_layer": "relu"}, "weights": "DEFAULT"},
            "backbone.options: none beside weights DEFAULT expected, .* got {'act_layer'",
        ),
        ({"name": "resnet18", "options": {"a": 1}}, "backbone.options: none with a backbone of torchvision expected, got {'a': 1}"),
        ({"deformable_stages": (2,)}, r"deformable_stages: none with a backbone of timm expected, got \(2,\)"),
        ({"name": "resnet18", "deformable_stages": (0, 2)}, r"deformable_stages: some of 1 to 4 .* got \(0, 2\)"),
        ({"name": "resnet18", "stages": 2, "strides": (8,), "deformable_stages": (3,)}, "deformable_stages: some of 1 to 2"),
    ],
)
def test_options_of_backbones_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_pyramid(**{"name": TIMM, **options})


def test_deformable_stages_start_as_the_plain_ones_and_learn_where_to_look() -> None:
    torch.manual_seed(0)
    plain = ResNetTrunk(get_model("resnet18"), stages=2).eval()
    deformable = ResNetTrunk(get_model("resnet18"), stages=2, deformable=(2,)).eval()
    # a checkpoint of the plain one loads, but for the offsets
    missing, unexpected = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert {name.split(".")[-2] for name in missing} == {"offset"}
    assert sum(isinstance(m, DeformableConv) for m in deformable.modules()) == 2
    x = torch.rand(1, 3, 64, 64)
    for found, expected in zip(deformable(x), plain(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    deformable(x)[1].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in deformable.named_parameters() if "offset" in name)


def test_an_offset_moves_what_a_deformable_convolution_sees() -> None:
    layer = DeformableConv(nn.Conv2d(1, 1, 3, padding=1, bias=False))
    x = torch.rand(1, 1, 6, 7)
    with torch.no_grad():
        before = layer(x)
        layer.offset.bias.view(9, 2)[:, 1] = 1.0  # type: ignore[union-attr]
        moved = layer(x)
    torch.testing.assert_close(moved[..., 1:-2], before[..., 2:-1])
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
    torch.testing.assert_close(half.float(), moved, rtol=0.02, atol=0.02)


def test_the_largest_backbone_of_the_paper_is_built() -> None:
    """X-101-64x4d with deformable convolution in C3 to C5; on no device, as it has 85 million parameters."""
    with torch.device("meta"):
        pyramid = build_pyramid("resnext101_64x4d", deformable_stages=(2, 3, 4), frozen_stages=1, frozen_norm=True)
        levels = pyramid(torch.zeros(1, 3, 128, 96))
    assert [tuple(level.shape) for level in levels] == [(1, 256, -(-128 // s), -(-96 // s)) for s in (8, 16, 32, 64, 128)]
    layers = [m for m in pyramid.modules() if isinstance(m, DeformableConv)]
    assert len(layers) == 4 + 23 + 3
    # 64 groups of 4 channels a 64th of 256
    assert layers[0].weight.shape == (512, 8, 3, 3)
    assert layers[0].offset.weight.shape == (18, 512, 3, 3)
    assert not any(p.requires_grad for p in pyramid.trunk.stages[0].parameters())  # type: ignore[index, union-attr]
