"""What happens beside the training: it changes no weight, its files survive a kill, and the average of the weights is what is measured."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lossbox.assignment import ATSSAssigner, OverlapAssigner, SampledAssigner
from lossbox.data.digits import write_digits
from lossbox.data.module import CocoDataModule
from lossbox.decoding import Decoder
from lossbox.detectors import Backbone, FasterRCNN, RetinaNet
from lossbox.metrics import evaluate, read_ground_truth, to_json
from lossbox.metrics import read_results as read_detections
from lossbox.objective import ALRPObjective
from lossbox.records import Batch, Targets
from lossbox.training import DetectionTask, FirstStage, WarmupCosine
from lossbox.training.callbacks import EMAWeights, LastEpoch, RunFiles, first_assignment
from lossbox.training.cli import LossboxCLI

EMA = {"decay": 0.8, "warmup": 2.0}
STEPS = 6


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"), train_images=6, val_images=3, size=96, progress=False)


@pytest.fixture(scope="module")
def recipe(digits, tiny_recipe, tmp_path_factory):
    """The path of a recipe of a tiny run: two epochs of three steps."""
    content = tiny_recipe(digits, image_size=96, augmentation={"scale_jitter": [0.7, 1.4]}, trainer={"max_epochs": 2})
    content["model"]["decoder"]["init_args"] = {"score_threshold": 0.001}
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "plain.yaml").write_text(yaml.safe_dump(content))
    content["trainer"]["callbacks"] = [{"class_path": "lossbox.training.EMAWeights", "init_args": EMA}]
    (folder / "averaged.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(scope="module")
def averaged(recipe, tmp_path_factory):
    """An uninterrupted run with all files and the average: its folder, the weights of the training after each step, its detections."""
    run, weights = tmp_path_factory.mktemp("averaged"), []

    def keep(self, *_):
        weights.append({name: tensor.clone() for name, tensor in self.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DetectionTask, "on_train_start", keep)
        patch.setattr(DetectionTask, "on_train_batch_end", keep)
        cli = LossboxCLI(["fit", "--config", str(recipe / "averaged.yaml"), "--out", str(run)])
    assert len(weights) == STEPS + 1
    return run, weights, cli.model.detected()[1]


def read_results(run):
    with (run / "results.csv").open(newline="") as opened:
        return list(csv.DictReader(opened))


def checkpoint(run, name="last"):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def different(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_neither_files_nor_average_change_what_is_trained(averaged, recipe, tmp_path):
    LossboxCLI(["fit", "--config", str(recipe / "plain.yaml"), "--out", str(tmp_path), "--artifacts", "false"])
    assert {path.name for path in tmp_path.iterdir()} & {
        "results.csv",
        "train_batches.png",
        "images.png",
        "detections.json",
        "report.html",
    } == set()
    plain, with_all = checkpoint(tmp_path), checkpoint(averaged[0])
    assert different(plain["state_dict"], with_all["current_model_state"]) == []
    moments = [states["optimizer_states"][0]["state"] for states in (plain, with_all)]
    assert all(torch.equal(moments[0][index]["exp_avg_sq"], moments[1][index]["exp_avg_sq"]) for index in moments[0])


def test_one_row_an_epoch_with_the_means_of_its_steps(averaged):
    rows = read_results(averaged[0])
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6")]
    with (averaged[0] / "csv" / "version_0" / "metrics.csv").open(newline="") as opened:
        steps = [row for row in csv.DictReader(opened) if row["train/total"]]
    for row, of_epoch in zip(rows, (steps[:3], steps[3:]), strict=True):
        for name in ("train/classification", "train/localization", "train/total", "weight/localization", "gradient_balance"):
            assert float(row[name]) == pytest.approx(sum(float(step[name]) for step in of_epoch) / 3, rel=1e-5)
        assert float(row["seconds"]) > 0
        assert float(row["val/classification"]) > 0
        assert float(row["val/oLRP"]) <= 1
    assert float(rows[1]["lr"]) < float(rows[0]["lr"])


def test_the_average_is_that_of_the_weights_after_each_step(averaged):
    run, weights, _ = averaged
    mean, expected = dict(weights[0]), {}
    for step, new in enumerate(weights[1:], start=1):
        kept = min(EMA["decay"], step / (step + EMA["warmup"]))
        for name, tensor in new.items():
            follows = name.startswith("detector.") and tensor.is_floating_point()
            mean[name] = kept * mean[name] + (1 - kept) * tensor if follows else tensor
        expected[step] = dict(mean)
    for name in ("last", "best"):
        saved = checkpoint(run, name)
        assert different(saved["current_model_state"], weights[saved["global_step"]]) == []
        torch.testing.assert_close(saved["state_dict"], expected[saved["global_step"]], rtol=1e-5, atol=1e-6)
    last = checkpoint(run)
    changed = different(last["state_dict"], weights[STEPS])
    assert any(name.endswith("running_var") for name in changed)
    assert all(name.startswith("detector.") and not name.endswith("num_batches_tracked") for name in changed)
    assert last["state_dict"]["objective.balance.weight"] != 50  # the self-balance in force, no mixture of it and its start


def test_the_average_is_validated_and_validate_measures_the_same(averaged, recipe, tmp_path):
    run, _, in_fit = averaged
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    cli = LossboxCLI(["validate", "--config", str(run / "config.yaml"), "--out", str(tmp_path)])
    again = cli.model.detected()[1]
    assert len(again.scores) > 0
    assert np.array_equal(again.scores, in_fit.scores)
    assert np.array_equal(again.boxes, in_fit.boxes)
    assert (tmp_path / "metrics.json").read_text() == (run / "metrics.json").read_text()
    assert float(read_results(run)[-1]["val/oLRP"]) == pytest.approx(json.loads((run / "metrics.json").read_text())["oLRP"])

    cli.model.load_state_dict(checkpoint(run)["current_model_state"])
    cli.trainer.validate(cli.model, datamodule=cli.datamodule, verbose=False)
    assert not np.array_equal(cli.model.detected()[1].scores, in_fit.scores)


def test_what_a_validation_leaves(averaged):
    run = averaged[0]
    for name in ("images.png", "train_batches.png"):
        assert (run / name).read_bytes()[:4] == b"\x89PNG", name
    confusion = json.loads((run / "confusion_matrix.json").read_text())
    assert confusion["classes"] == [*map(str, range(10)), "background"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert [sum(row) for row in confusion["matrix"][:10]] == [row["num_ground_truth"] for row in metrics["per_class"]]
    truth = read_ground_truth(run / "ground_truth.json")
    again = evaluate(truth, read_detections(run / "detections.json", truth))
    assert json.loads(to_json(again)) == metrics
    assert "<!doctype html>" in (run / "report.html").read_text()


class KillAt(Exception):
    pass


def test_a_resumed_run_has_the_same_average_and_no_row_twice(averaged, recipe, tmp_path, monkeypatch):
    step = DetectionTask.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == 4:
            raise KillAt
        return step(self, batch, batch_idx)

    words = ["fit", "--config", str(recipe / "averaged.yaml"), "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(DetectionTask, "training_step", training_step)
        with pytest.raises(KillAt):
            LossboxCLI(words)
    assert [row["epoch"] for row in read_results(tmp_path)] == ["1"]
    # rows beyond the checkpoint, as of a run that goes on from an earlier one
    log = tmp_path / "csv" / "version_0" / "metrics.csv"
    columns, *rows = csv.reader(log.read_text().splitlines())
    ahead = [["6" if name == "epoch" else "20" if name == "step" else cell for name, cell in zip(columns, rows[0], strict=True)]]
    log.write_text("\n".join(",".join(row) for row in [columns, *rows, *ahead]) + "\n")
    drawn = (tmp_path / "train_batches.png").stat().st_mtime_ns
    LossboxCLI([*words, "--ckpt_path", "last"])

    expected, found = checkpoint(averaged[0]), checkpoint(tmp_path)
    for part in ("state_dict", "current_model_state"):
        assert different(expected[part], found[part]) == []
    rows = [
        [{name: cell for name, cell in row.items() if name != "seconds"} for row in read_results(run)] for run in (averaged[0], tmp_path)
    ]
    assert rows[0] == rows[1]
    assert (tmp_path / "train_batches.png").stat().st_mtime_ns == drawn


def tiny(assigner=None, **options):
    seed_everything(0)
    detector = RetinaNet(10, backbone=Backbone(stages=2, strides=(4, 8), channels=8), head_convs=1, scales=(1.0,), ratios=(1.0,))
    return DetectionTask(detector, assigner or ATSSAssigner(), ALRPObjective(), Decoder(), WarmupCosine(), **options)


def fit(model, digits, folder, callbacks, **options):
    paths = {name: getattr(digits, name) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}
    defaults = {"accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(**{**defaults, **quiet, **options}, default_root_dir=folder, callbacks=callbacks)
    trainer.fit(model, datamodule=CocoDataModule(**paths, image_size=96, batch_size=2))
    return trainer


def test_a_validation_after_the_training_completes_the_last_row(digits, tmp_path):
    model = tiny()
    files = RunFiles()
    logger = CSVLogger(tmp_path, name="csv")
    trainer = fit(model, digits, tmp_path, [files], check_val_every_n_epoch=5, log_every_n_steps=2, logger=logger)
    (row,) = read_results(tmp_path)
    assert "val/oLRP" not in row
    assert float(row["train/total"]) > 0
    trainer.validate(model, datamodule=trainer.datamodule, verbose=False)
    (completed,) = read_results(tmp_path)
    assert float(completed["val/oLRP"]) == pytest.approx(model.metrics["oLRP"])
    assert {name: completed[name] for name in row} == row


def test_the_last_epoch_is_validated_whatever_the_interval(digits, tmp_path):
    model, at = tiny(), []
    model.on_validation_end = lambda: at.append(model.trainer.current_epoch)
    fit(model, digits, tmp_path, [LastEpoch()], check_val_every_n_epoch=2, max_epochs=3)
    assert at == [1, 2]


def test_the_drawn_assignment_leaves_no_trace(digits):
    paths = {name: getattr(digits, name) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}
    batch = next(iter(CocoDataModule(**paths, image_size=96, batch_size=2).train_dataloader()))
    model = tiny(SampledAssigner(OverlapAssigner(), count=8))
    model.train()
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    predictions, assignment = first_assignment(model, batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert different(before, model.state_dict()) == []
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert len(set(modes.values())) == 2
    assert not predictions.logits.requires_grad
    kept = SampledAssigner(OverlapAssigner(), count=8)(predictions, batch.targets)
    assert torch.equal(assignment.matched, kept.matched)


def test_of_two_stages_the_anchors_of_the_first_are_drawn():
    sizes = {"max_proposals": 20, "region_levels": 2, "region_size": 3, "head_channels": 16}
    detector = FasterRCNN(3, backbone=Backbone(stages=2, strides=(8, 16), channels=16), ratios=(1.0,), **sizes)
    anchors, regions = OverlapAssigner(0.5, 0.3), OverlapAssigner(0.5, 0.5, allow_low_quality_matches=False)
    model = DetectionTask(detector, regions, ALRPObjective(), Decoder(), WarmupCosine(), first_stage=FirstStage(anchors, ALRPObjective()))
    box = Targets(torch.tensor([[20.0, 20.0, 60.0, 60.0]]), torch.tensor([2]), torch.tensor([False]), 1, (96, 96), (96, 96))
    predictions, assignment = first_assignment(model, Batch(torch.rand(1, 3, 96, 96), [box]))
    assert sum(predictions.level_sizes) == 12 * 12 + 6 * 6
    assert torch.equal(assignment.matched, anchors(predictions, [box]).matched)
    assert (assignment.matched >= 0).any()


def test_a_checkpoint_that_would_hold_other_weights_is_refused(digits, tmp_path):
    checkpoints = ModelCheckpoint(dirpath=tmp_path, save_weights_only=True)
    with pytest.raises(ValueError, match="save_weights_only: False expected of every ModelCheckpoint beside EMAWeights"):
        fit(tiny(), digits, tmp_path, [EMAWeights(), checkpoints], enable_checkpointing=True)


@pytest.mark.parametrize(("options", "said"), [({"decay": 1.0}, r"decay: .* got 1\.0"), ({"warmup": -1.0}, r"warmup: .* got -1\.0")])
def test_options_out_of_range(options, said):
    with pytest.raises(ValueError, match=said):
        EMAWeights(**options)
