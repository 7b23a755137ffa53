"""Ultralytics' own training, with a loss of ours: `make test-integrations` has the environment."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from lossbox.integrations.ultralytics import use
from lossbox.losses import APLoss, FocalLoss, alrp_loss, ap_loss, rank_sort_loss

ultralytics = pytest.importorskip("ultralytics", reason="an environment of its own has it: make test-integrations")

SIZE, CLASSES = 64, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight images with a bright square each, in YOLO's layout."""
    from PIL import Image

    root = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    for part in ("train", "val"):
        (root / "images" / part).mkdir(parents=True)
        (root / "labels" / part).mkdir(parents=True)
        for i in range(8):
            pixels = (torch.rand(SIZE, SIZE, 3, generator=generator) * 80).to(torch.uint8)
            x, y = torch.randint(0, SIZE - 24, (2,), generator=generator).tolist()
            pixels[y : y + 24, x : x + 24, i % CLASSES] = 250
            Image.fromarray(pixels.numpy()).save(root / "images" / part / f"{i}.png")
            label = f"{i % CLASSES} {(x + 12) / SIZE} {(y + 12) / SIZE} {24 / SIZE} {24 / SIZE}\n"
            (root / "labels" / part / f"{i}.txt").write_text(label)
    file = root / "data.yaml"
    file.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [a, b, c]\n")
    return file


def detector(name="yolo11n.yaml"):
    return ultralytics.YOLO(name)


def train(model, data, folder, **options):
    fixed = {"imgsz": SIZE, "batch": 8, "epochs": 1, "device": "cpu", "workers": 0, "plots": False, "verbose": False, "exist_ok": True}
    fixed |= {"pretrained": False, "amp": False, "warmup_epochs": 0.0, "mosaic": 0.0, "project": str(folder), "name": "run"}
    return model.train(data=str(data), **(fixed | options))


def attached(name, loss, **options):
    """A small model with its criterion, as it stands when the training starts, and what the model would do without us."""
    model = detector(name)
    model.model.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=10)
    callbacks = []
    use(SimpleNamespace(add_callback=lambda event, function: callbacks.append((event, function)), task="detect"), loss, **options)
    ((event, function),) = callbacks
    assert event == "on_train_start"
    function(SimpleNamespace(model=model.model))
    return model.model


def batch(model):
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[0.3, 0.3, 0.4, 0.4], [0.6, 0.6, 0.5, 0.3], [0.5, 0.5, 0.7, 0.7]])
    return {"img": images, "batch_idx": torch.tensor([0, 0, 1]), "cls": torch.tensor([0.0, 2.0, 1.0]), "bboxes": boxes}


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        ("rank_sort", lambda x, y, q: sum(rank_sort_loss(x, y, q))),
        ("alrp", lambda x, y, q: alrp_loss(x, y, (1 - q) / 0.5)[0]),
        (ap_loss, lambda x, y, q: ap_loss(x, y)),
        (APLoss(delta=0.5), lambda x, y, q: ap_loss(x, y, delta=0.5)),
    ],
    ids=["rank_sort", "alrp", "ap_function", "ap_module"],
)
def test_the_class_part_is_ours_times_the_gain(loss, by_hand):
    model = attached("yolo11n.yaml", loss).train()
    given = {}
    bce = model.criterion.bce
    model.criterion.bce = lambda logits, targets: given.update(logits=logits, targets=targets) or bce(logits, targets)
    _, items = model.loss(batch(model))
    positive = given["targets"] > 0
    assert 0 < positive.sum() < positive.numel() / 10
    expected = by_hand(given["logits"], positive.long(), given["targets"][positive])
    torch.testing.assert_close(items["cls_loss"], 0.5 * expected.detach(), rtol=1e-5, atol=1e-6)
    gradient = torch.autograd.grad(bce(given["logits"], given["targets"]), given["logits"], retain_graph=True)[0]
    reference = torch.autograd.grad(by_hand(given["logits"], positive.long(), given["targets"][positive]), given["logits"])[0]
    torch.testing.assert_close(gradient, reference * given["targets"].sum().clamp(min=1))


def test_an_elementwise_loss_is_a_sum_as_theirs_is():
    model = attached("yolo11n.yaml", FocalLoss(alpha=None, gamma=0.0)).train()
    ours = model.loss(batch(model))[1]["cls_loss"]
    model.criterion = model.init_criterion()
    targets = {}
    bce = model.criterion.bce
    model.criterion.bce = lambda x, y: targets.update(y=y) or bce(x, (y > 0).to(x.dtype))
    torch.testing.assert_close(ours, model.loss(batch(model))[1]["cls_loss"], rtol=1e-4, atol=1e-5)


def test_both_heads_of_yolo26_are_ranked_by_themselves():
    model = attached("yolo26n.yaml", "rank_sort").train()
    calls = []
    for part in (model.criterion.one2many, model.criterion.one2one):
        inner = part.bce
        part.bce = lambda x, y, inner=inner: calls.append(int((y > 0).sum())) or inner(x, y)
    total, _ = model.loss(batch(model))
    total.sum().backward()
    assert len(calls) == 2
    assert calls[0] > calls[1] > 0  # one to many, one to one
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolo26n.yaml"])
def test_a_training_runs_and_its_checkpoint_is_theirs(name, data, tmp_path):
    model = detector(name)
    seen = []
    use(model, "rank_sort")
    model.add_callback("on_train_batch_end", lambda trainer: seen.append(trainer.loss.sum().item()))
    train(model, data, tmp_path)
    assert seen
    assert all(value == value for value in seen)
    for file in (tmp_path / "run" / "weights").glob("*.pt"):
        assert b"lossbox" not in file.read_bytes()  # the pickle in the archive is stored without compression
    again = ultralytics.YOLO(str(tmp_path / "run" / "weights" / "last.pt"))
    assert getattr(again.model, "criterion", None) is None


def test_no_boxes_in_a_batch():
    model = attached("yolo11n.yaml", "rank_sort").train()
    empty = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0), "bboxes": torch.zeros(0, 4)}
    total, items = model.loss(batch(model) | empty)
    total.sum().backward()
    assert items["cls_loss"] == 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="GIoULoss is no loss of class scores that a detector can take"):
        use(detector(), "giou")
    with pytest.raises(ValueError, match="is called 'no_such'; one of"):
        use(detector(), "no_such")
    with pytest.raises(ValueError, match="'detect' expected, got 'segment'"):
        use(ultralytics.YOLO("yolo11n-seg.yaml"), "ap")
    with pytest.raises(ValueError, match="got Tensor"):
        use(torch.zeros(1), "ap")
    model, callbacks = detector().model, []
    model.criterion = type("SomeLoss", (), {})()
    use(SimpleNamespace(add_callback=lambda _, function: callbacks.append(function), task="detect"), "ap")
    with pytest.raises(ValueError, match="criterion is a SomeLoss"):
        callbacks[0](SimpleNamespace(model=model))


def test_another_version_is_warned_of(monkeypatch):
    monkeypatch.setattr("lossbox.integrations._scores.version", lambda package: "9.0.0+local")
    with pytest.warns(UserWarning, match=r"tested with ultralytics 8\.4\.190, installed is 9\.0\.0"):
        use(detector(), "ap")
    monkeypatch.setattr("lossbox.integrations._scores.version", lambda package: "8.4.190")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use(detector(), "ap")
