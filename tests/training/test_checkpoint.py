"""`start_from`: a detector that begins with another's weights says of the classes they share what that one says."""

import pytest
import torch

from lossbox.detectors import FCOS, Backbone, FasterRCNN, FoveaBox, RetinaNet
from lossbox.training.checkpoint import read_checkpoint, start_from

SMALL = {"backbone": Backbone(stages=3, strides=(8, 16), channels=8)}
DETECTORS = {
    "retinanet": lambda classes, **options: RetinaNet(classes, **{**SMALL, "head_convs": 1, **options}),
    "foveabox": lambda classes, **options: FoveaBox(classes, **{**SMALL, "head_convs": 1, **options}),
    "fcos": lambda classes, **options: FCOS(classes, **{**SMALL, "head_convs": 1, **options}),
    "faster_rcnn": lambda classes, **options: FasterRCNN(classes, **{**SMALL, "region_levels": 2, "head_channels": 8, **options}),
}
OLD, NEW = ["cat", "dog", "cow"], ["bus", "dog", "car", "cat", "van"]


def stored(detector, names=OLD):
    """A checkpoint with weights that no constructor makes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in detector.state_dict().items():
            if value.is_floating_point() and "running" not in name:
                value += 0.02 * torch.randn_like(value)
    state = {f"detector.{name}": value.clone() for name, value in detector.state_dict().items()}
    return {"state_dict": {**state, "objective.balance.weight": torch.ones(1)}, "lossbox_categories": [[i, n] for i, n in enumerate(names)]}


def predicted(detector, images, boxes):
    with torch.no_grad():
        if isinstance(detector, FasterRCNN):
            found = detector.propose(images)
            return found.predictions, detector.refine(found.features, boxes)
        return (detector(images),)


@pytest.mark.parametrize("kind", DETECTORS)
def test_the_classes_of_the_same_name_are_found_as_before_and_others_are_new(kind):
    old, new = DETECTORS[kind](len(OLD)).eval(), DETECTORS[kind](len(NEW)).eval()
    content = stored(old)
    fresh = {name: value.clone() for name, value in new.state_dict().items()}
    line = start_from(new, content, NEW, source="a.ckpt")
    count = len(new.state_dict())
    classes = "of 5 classes 2 matched by name (dog, cat), the others new"
    assert line == f"init-from a.ckpt: {count} of {count} tensors taken; {classes}; nothing was left out"
    images, boxes = torch.rand(1, 3, 64, 64), torch.tensor([[[3.0, 4.0, 40.0, 50.0], [20.0, 0.0, 60.0, 30.0]]])
    for theirs, ours in zip(predicted(old, images, boxes), predicted(new, images, boxes), strict=True):
        torch.testing.assert_close(ours.regression, theirs.regression)
        if theirs.centerness is not None:
            torch.testing.assert_close(ours.centerness, theirs.centerness)
        if theirs.logits.shape[-1] == len(OLD):
            torch.testing.assert_close(ours.logits[..., [1, 3]], theirs.logits[..., [1, 0]])
    (name,) = [name for name in fresh if name.startswith("head.classification") and fresh[name].shape[0] % 5 == 0 and fresh[name].ndim > 1]
    rows = new.state_dict()[name].unflatten(0, (-1, 5))
    assert torch.equal(rows[:, [0, 2, 4]], fresh[name].unflatten(0, (-1, 5))[:, [0, 2, 4]])


def test_the_same_number_of_classes_is_no_reason_to_take_them_for_the_same():
    old, new = DETECTORS["retinanet"](3).eval(), DETECTORS["retinanet"](3).eval()
    line = start_from(new, stored(old), ["cow", "cat", "pig"], source="a.ckpt")
    assert "of 3 classes 2 matched by name (cow, cat), the others new" in line
    images = torch.rand(1, 3, 64, 64)
    (theirs,), (ours,) = predicted(old, images, None), predicted(new, images, None)
    torch.testing.assert_close(ours.logits[..., :2], theirs.logits[..., [2, 0]])
    assert not torch.allclose(ours.logits[..., 2], theirs.logits[..., 1], atol=1e-2)


def test_what_does_not_fit_is_named_and_counted():
    content = stored(DETECTORS["retinanet"](3))
    before = DETECTORS["retinanet"](2, backbone=Backbone(stages=2, strides=(8, 16), channels=8), head_convs=2, scales=(1.0,))
    line = start_from(before, content, ["cat", "pig"], source="a.ckpt")
    # the tower is one convolution longer, an anchor scale is missing, a stage is gone
    assert "all 2 classes new, as its outputs have another shape or place; not taken: " in line
    assert "of another shape (" in line
    missing = [name for name in before.state_dict() if f"detector.{name}" not in content["state_dict"]]
    assert "head.classification_tower.convs.1.weight" in missing
    assert f"{len(missing)} not in the checkpoint ({', '.join(missing[:3])}, and {len(missing) - 3} more)" in line
    assert "in the checkpoint only (pyramid.trunk.stages.2.0.conv1.weight, " in line
    total = len(before.state_dict())
    shapes = int(line.split(" of another shape")[0].rsplit(" ", 1)[1])
    assert f"init-from a.ckpt: {total - shapes - len(missing)} of {total} tensors taken" in line


def test_outputs_of_another_number_of_anchors_are_new():
    content = stored(DETECTORS["retinanet"](3))
    line = start_from(DETECTORS["retinanet"](3, scales=(1.0,)), content, OLD, source="a.ckpt")
    assert "of 3 classes" not in line
    assert (
        "all 3 classes new, as its outputs have another shape or place; not taken: 4 of another shape (head.classification.weight is "
        in line
    )
    assert "(18, 8, 3, 3), not (9, 8, 3, 3)" in line


def test_classes_without_names_or_of_other_names_are_new():
    content = stored(DETECTORS["fcos"](3))
    new = DETECTORS["fcos"](2)
    before = {name: value.clone() for name, value in new.state_dict().items()}
    line = start_from(new, content, ["ant", "bee"], source="a.ckpt")
    assert (
        "of 2 classes none matched by name, all new (it has cat, dog, cow); not taken: 2 of other classes (head.classification.weight, "
        in line
    )
    line = start_from(new, {"state_dict": content["state_dict"]}, ["ant", "bee"], source="a.ckpt")
    assert "all 2 classes new, as it does not hold the names of its classes" in line
    changed = {name for name, value in new.state_dict().items() if not torch.equal(value, before[name])}
    assert not changed & {"head.classification.weight", "head.classification.bias"}
    assert "head.classification_tower.convs.0.weight" in changed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"objective.weight": torch.ones(1)}}, "nothing in a.ckpt fits this RetinaNet: .* not in the checkpoint"),
        (
            {"state_dict": {"detector.pyramid.trunk.stem.conv.weight": torch.ones(1), "detector.other": torch.ones(1)}},
            r"nothing in a.ckpt fits this RetinaNet: 1 of another shape \(pyramid.trunk.stem.conv.weight is \(1,\), not \(64, 3, 7, 7\)\)",
        ),
        ({"state_dict": {"detector.pyramid.trunk.stem.norm.num_batches_tracked": torch.tensor(3)}}, "nothing in a.ckpt fits"),
    ],
)
def test_a_checkpoint_of_which_nothing_fits_is_an_error(content, message):
    new = DETECTORS["retinanet"](2)
    before = {name: value.clone() for name, value in new.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        start_from(new, content, ["a", "b"], source="a.ckpt")
    assert all(torch.equal(value, before[name]) for name, value in new.state_dict().items())


@pytest.mark.parametrize(
    "content",
    [b"", b"a,b,c\n1,2,3", b"abc", b"epoch: 1", b"G", b"PK\3\4", b"h\xf4", b"U\xd1j\xe0\xcf", b"N.", b"cos\nsystem\n.", b"\xff\xd8\xff"],
)
def test_whatever_else_a_file_holds_it_is_said_not_to_be_a_checkpoint(content, tmp_path):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"^ckpt: .*x\.csv is not a checkpoint of lossbox fit"):
        read_checkpoint(tmp_path / "x.csv")
