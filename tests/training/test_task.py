"""The training task on tiny images: what is logged, what stops it, and that a resumed run is the uninterrupted one."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from torch import nn

from lossbox.assignment import ATSSAssigner
from lossbox.data.digits import write_digits
from lossbox.data.module import CocoDataModule
from lossbox.decoding import Decoder, MultiScale
from lossbox.detectors import Backbone, RetinaNet
from lossbox.objective import ALRPObjective, Part
from lossbox.records import Assignment, Detections, Targets
from lossbox.training import DetectionTask, WarmupCosine, WarmupSteps
from lossbox.training.cli import LossboxCLI
from lossbox.training.watch import LossWatch, gradient_balance


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"), train_images=6, val_images=3, size=64, progress=False)


@pytest.fixture(scope="module")
def recipe(digits, tiny_recipe, tmp_path_factory):
    """The path of a recipe of a tiny run: two epochs of three steps."""
    content = tiny_recipe(digits, augmentation={"scale_jitter": [0.7, 1.4]}, trainer={"max_epochs": 2})
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture(scope="module")
def straight(recipe, tmp_path_factory):
    """An uninterrupted run: what it built, and its folder."""
    run = tmp_path_factory.mktemp("straight")
    return LossboxCLI(["fit", "--config", recipe, "--out", str(run)]), run


def rows(run, version=0):
    """Of the log, without the seconds that an epoch takes."""
    with (run / "csv" / f"version_{version}" / "metrics.csv").open(newline="") as opened:
        return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(opened)]


def test_fit_logs_unweighted_parts_weights_and_balance(straight):
    cli, run = straight
    steps = [{name: float(cell) for name, cell in row.items() if cell} for row in rows(run) if row["train/total"]]
    assert [step["step"] for step in steps] == list(range(6))
    for step in steps:
        total = step["train/classification"] + step["weight/localization"] * step["train/localization"]
        assert step["train/total"] == pytest.approx(total, rel=1e-5)
        assert step["weight/classification"] == 1
        # Theorem 2: the ranking losses push the negatives as hard as the positives
        assert step["gradient_balance"] == pytest.approx(1, abs=1e-3)
    assert [step["weight/localization"] for step in steps[:3]] == [50.0] * 3
    parts = {name: sum(step[f"train/{name}"] for step in steps[:3]) for name in ("classification", "localization")}
    balanced = (parts["classification"] + parts["localization"]) / parts["localization"]
    assert [step["weight/localization"] for step in steps[3:]] == pytest.approx([balanced] * 3, rel=1e-5)
    assert balanced != 50.0

    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["AP"] == cli.model.metrics["AP"]
    assert [row["name"] for row in metrics["per_class"]] == [str(digit) for digit in range(10)]
    assert cli.model.detector.head.num_classes == 10
    assert json.loads((run / "run.json").read_text())["steps"] == 6
    assert (run / "config.yaml").is_file()
    assert list(run.glob("events.out.tfevents.*"))
    validated = [row for row in rows(run) if row["val/AP"]]
    assert len(validated) == 2
    assert float(validated[-1]["val/localization"]) > 0


def test_the_numbers_of_a_run_are_those_of_its_last_epoch(recipe, tmp_path):
    run = tmp_path / "run"
    cli = LossboxCLI(["fit", "--config", recipe, "--out", str(run), "--trainer.check_val_every_n_epoch", "5"])
    assert cli.model.validated_at == 6
    assert (run / "checkpoints" / "best.ckpt").is_file()
    assert json.loads((run / "metrics.json").read_text())["AP"] == cli.model.metrics["AP"]


def test_a_run_without_validation_ends_in_a_line(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    cli = LossboxCLI(["fit", "--config", recipe, "--out", str(run), "--trainer.limit_val_batches", "0"])
    assert cli.model.validated_at is None
    assert capsys.readouterr().out.endswith(
        f"minutes  not validated (trainer.limit_val_batches is 0)\nthe report, for a browser: {run / 'report.html'}\n"
    )
    assert json.loads((run / "run.json").read_text())["steps"] == 6
    assert (run / "report.html").is_file()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["last.ckpt"]
    assert not (run / "metrics.json").exists()
    with pytest.raises(ValueError, match=r"trainer.limit_val_batches: more than 0 expected, to validate, got 0"):
        LossboxCLI(["validate", "--config", str(run / "config.yaml")])
    LossboxCLI(["validate", "--config", str(run / "config.yaml"), "--trainer.limit_val_batches", "1.0"])
    assert (run / "metrics.json").is_file()


class KillAt(Exception):
    pass


def interrupted(recipe, run, monkeypatch, at):
    """Runs until step ``at`` raises, then goes on from the last checkpoint."""
    step = DetectionTask.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == at:
            raise KillAt
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionTask, "training_step", training_step)
        with pytest.raises(KillAt):
            LossboxCLI(["fit", "--config", recipe, "--out", str(run)])
    return LossboxCLI(["fit", "--config", recipe, "--out", str(run), "--ckpt_path", "last"])


def test_a_run_stopped_between_two_epochs_is_resumed_bit_for_bit(straight, recipe, tmp_path, monkeypatch):
    """In the middle of one: test_kill.py."""
    resumed = interrupted(recipe, tmp_path, monkeypatch, 3)
    expected, found = straight[0].model.state_dict(), resumed.model.state_dict()
    assert expected.keys() == found.keys()
    assert "objective.balance.weight" in expected
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert different == []
    assert rows(straight[1])[-2:] == rows(tmp_path, version=1)[-2:]
    checkpoints = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (straight[1], tmp_path)]
    moments = [checkpoint["optimizer_states"][0]["state"][0]["exp_avg_sq"] for checkpoint in checkpoints]
    assert torch.equal(*moments)


def test_the_weight_of_a_resumed_epoch_depends_on_its_checkpoint(straight, recipe, tmp_path, monkeypatch):
    """The test above can fail: a resumed run that does not close the period of its first epoch goes on with another weight."""
    monkeypatch.setattr(DetectionTask, "on_load_checkpoint", lambda self, checkpoint: setattr(self, "_epochs_ended", 1))
    resumed = interrupted(recipe, tmp_path, monkeypatch, 3)
    name = "objective.balance.weight"
    assert not torch.equal(straight[0].model.state_dict()[name], resumed.model.state_dict()[name])


def tiny(objective=None, decoder=None, assigner=None, **options):
    seed_everything(0)
    detector = RetinaNet(10, backbone=Backbone(stages=2, strides=(4, 8), channels=8), head_convs=1, scales=(1.0,), ratios=(1.0,))
    return DetectionTask(
        detector, assigner or ATSSAssigner(), objective or ALRPObjective(), decoder or Decoder(), WarmupCosine(), **options
    )


def fit(model, digits, *, image_size=64, ckpt_path=None, **options):
    paths = {name: getattr(digits, name) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}
    defaults = {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 1, "logger": False, "enable_checkpointing": False}
    quiet = {"num_sanity_val_steps": 0, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(**{**defaults, **quiet, **options})
    trainer.fit(model, datamodule=CocoDataModule(**paths, image_size=image_size, batch_size=2), ckpt_path=ckpt_path, weights_only=True)
    return trainer


class CountingObjective(ALRPObjective):
    """Counts the ends of its epochs; its loss in validation is the number of images of the batch."""

    ended = 0

    def forward(self, predictions, assignment, targets):
        parts = super().forward(predictions, assignment, targets)
        return parts if self.training else {name: Part(0 * part.value + len(targets)) for name, part in parts.items()}

    def end_epoch(self):
        super().end_epoch()
        self.ended += 1


def test_the_validation_loss_counts_each_batch_by_its_images(digits):
    """Three images in batches of two and one."""
    trainer = fit(tiny(CountingObjective()), digits)
    assert trainer.callback_metrics["val/classification"].item() == pytest.approx((2 * 2 + 1 * 1) / 3)


def test_a_resumed_run_ends_each_epoch_once(digits, tmp_path):
    """That of the self-balance would not tell: a period without steps keeps its weight."""
    first, resumed, straight = CountingObjective(), CountingObjective(), CountingObjective()
    trainer = fit(tiny(first), digits, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    assert first.ended == 1  # the second ends where the third begins
    fit(tiny(resumed), digits, max_epochs=4, ckpt_path=tmp_path / "two.ckpt")
    fit(tiny(straight), digits, max_epochs=4)
    assert first.ended + resumed.ended == straight.ended == 3


class BrokenObjective(ALRPObjective):
    """Its third step is NaN."""

    calls = 0

    def forward(self, predictions, assignment, targets):
        parts = super().forward(predictions, assignment, targets)
        self.calls += 1
        self.ids = [target.image_id for target in targets]
        return {**parts, "localization": Part(parts["localization"].value * torch.nan)} if self.calls == 3 else parts


def test_a_loss_that_is_not_finite_names_step_part_and_images(digits):
    objective = BrokenObjective()
    with pytest.raises(ValueError, match="loss of step 2 is not finite: localization = nan") as raised:
        fit(tiny(objective), digits)
    assert str(raised.value).endswith("images of the batch: " + ", ".join(map(str, objective.ids)))


def test_a_late_look_names_the_first_of_several_bad_steps():
    watch = LossWatch()
    for step in range(5):
        watch.add(step, [10 + step], {"a": torch.tensor(1.0), "b": torch.tensor(float("inf") if step >= 3 else 2.0)})
    with pytest.raises(ValueError, match=r"step 3 is not finite: b = inf \(a = 1\); images of the batch: 13"):
        watch.look()
    watch.add(9, [1], {"a": torch.tensor(1.0)})
    watch.look()


def test_gradient_balance_counts_only_the_class_of_a_positive():
    targets = [of_labels(2, 0), of_labels(), of_labels(1)]
    matched = torch.tensor([[1, -1, -2, 0], [-1, -1, -1, -1], [-1, 0, 0, -2]])
    gradient = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0))
    positive = gradient[0, 0, 0].abs() + gradient[0, 3, 2].abs() + gradient[2, 1, 1].abs() + gradient[2, 2, 1].abs()
    expected = (gradient.abs().sum() - positive) / positive
    assert gradient_balance(gradient, Assignment(matched), targets).item() == pytest.approx(expected.item(), rel=1e-6)
    assert gradient_balance(gradient, Assignment(torch.full((3, 4), -1)), targets).isnan()


def of_labels(*labels):
    count = len(labels)
    return Targets(torch.zeros(count, 4), torch.tensor(labels).long(), torch.zeros(count).bool(), 0, (8, 8), (8, 8))


class Oracle:
    """An assigner that remembers the targets, and a decoder that finds exactly them."""

    def assign(self, predictions, targets):
        self.targets = targets
        return ATSSAssigner()(predictions, targets)

    def decode(self, predictions, sizes):
        assert sizes == [target.size for target in self.targets]
        return [Detections(target.boxes, torch.ones(len(target.labels)), target.labels) for target in self.targets]


@pytest.mark.parametrize("image_size", [32, 64, 96])
def test_detections_are_evaluated_in_the_frame_of_the_file(digits, image_size):
    oracle = Oracle()
    trainer = fit(tiny(assigner=oracle.assign, decoder=oracle.decode), digits, image_size=image_size, limit_train_batches=1)
    assert trainer.callback_metrics["val/AP"].item() == pytest.approx(1)
    assert trainer.callback_metrics["val/oLRP"].item() == pytest.approx(0, abs=1e-5)
    assert trainer.callback_metrics["val/classification"].item() > 0


def test_channels_last_is_the_same_detector():
    images = torch.rand(2, 3, 64, 64)
    plain, last = tiny(), tiny(channels_last=True)
    assert last.detector.pyramid.trunk.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not plain.detector.pyramid.trunk.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last(images).logits, plain(images).logits)


def test_a_run_without_an_end_has_no_schedule(digits):
    with pytest.raises(ValueError, match=r"trainer\.max_epochs"):
        fit(tiny(), digits, max_epochs=-1)


@pytest.mark.parametrize("frozen", [{"frozen_norm": True}, {"frozen_norm": False, "frozen_stages": 2}])
def test_what_is_frozen_stays_through_training_and_validation(frozen, digits):
    """Lightning trains a model in the modes that it finds, and gives them back after a validation."""
    model = tiny()
    backbone = Backbone("timm/mobilenetv3_small_050", stages=3, strides=(8, 16), channels=8, **frozen)
    model.detector = RetinaNet(10, backbone=backbone, head_convs=0)
    held = [name for name, _ in model.named_buffers() if "running" in name]
    if "frozen_stages" in frozen:
        frozen_parameters = {id(parameter) for stage in model.detector.pyramid.trunk.by_stage()[:2] for parameter in stage}
        names = {name for name, parameter in model.named_parameters() if id(parameter) in frozen_parameters}
        held = [name for name in held if name.rpartition(".")[0] + ".weight" in names]
        held += names
        assert any("running" in name for name in held)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, digits, max_epochs=2)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) > 10
    assert set(changed) & set(held) == set()


@pytest.mark.parametrize("factory", [WarmupCosine(weight_decay=0.3), WarmupSteps(weight_decay=0.3)])
def test_weight_decay_spares_biases_norms_and_what_is_frozen(factory):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1).requires_grad_(False))
    groups = factory(model, 10)[0].param_groups
    by_decay = {group["weight_decay"]: [tuple(parameter.shape) for parameter in group["params"]] for group in groups}
    assert by_decay == {0.3: [(4, 3, 3, 3)], 0.0: [(4,), (4,), (4,)]}


def test_validation_looks_at_several_scales_where_asked(straight, tmp_path):
    _, run = straight
    words = ["validate", "--config", str(run / "config.yaml"), "--out", str(run), "--model.decoder.init_args.score_threshold", "0.0"]
    once = LossboxCLI(words)
    twice = LossboxCLI([*words, "--model.multi_scale", '{"scales": [0.5, 1.0], "flip": true}'])
    assert twice.model.multi_scale == MultiScale(scales=(0.5, 1.0))
    batch = next(iter(twice.datamodule.val_dataloader()))
    sizes = [target.size for target in batch.targets]
    with torch.inference_mode():
        found = twice.model.detect(batch.images, sizes)
        expected = MultiScale(scales=(0.5, 1.0))(batch.images, sizes, once.model.detect)
    assert sum(len(one.scores) for one in found) > 0
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.boxes, other.boxes)
        torch.testing.assert_close(mine.scores, other.scores)
    assert not np.array_equal(twice.model.detected()[1].scores, once.model.detected()[1].scores)
