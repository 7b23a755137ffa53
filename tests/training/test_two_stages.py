"""A two-stage detector in the training task: what each stage is trained on, that both learn, what is logged, saved and refused."""

import copy
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from lossbox.assignment import OverlapAssigner, SampledAssigner
from lossbox.data.digits import write_digits
from lossbox.data.module import CocoDataModule
from lossbox.decoding import Decoder
from lossbox.detectors import Backbone, FasterRCNN, RetinaNet
from lossbox.losses import L1Loss, SigmoidCrossEntropyLoss
from lossbox.objective import ALRPObjective, RankSortObjective, SeparateObjective, weighted_sum
from lossbox.records import Batch, Targets
from lossbox.training import DetectionTask, FirstStage, WarmupCosine

FIRST, SECOND = OverlapAssigner(0.7, 0.3), OverlapAssigner(0.5, 0.5, allow_low_quality_matches=False)
DETECTOR: dict[str, Any] = {
    "backbone": Backbone(stages=2, strides=(4, 8, 16), channels=16),
    "anchor_scale": 4.0,
    "ratios": (1.0,),
    "max_proposals": 40,
    "region_levels": 2,
    "finest_scale": 16.0,
    "region_size": 3,
    "head_channels": 32,
}


def alrp() -> DetectionTask:
    return task(ALRPObjective(), FirstStage(FIRST, ALRPObjective(tau=0.7), 0.2))


def rank_sort() -> DetectionTask:
    return task(RankSortObjective(), FirstStage(FIRST, RankSortObjective(), 0.5))


def baseline() -> DetectionTask:
    first = FirstStage(SampledAssigner(FIRST, 64, 0.5), SeparateObjective(SigmoidCrossEntropyLoss(), L1Loss()))
    return task(SeparateObjective(SigmoidCrossEntropyLoss(), L1Loss()), first, assigner=SampledAssigner(SECOND, 32, 0.25))


TASKS = [alrp, rank_sort, baseline]


def task(objective: Any, first_stage: FirstStage | None, *, assigner: Any = SECOND, **options: Any) -> DetectionTask:
    seed_everything(0, verbose=False)
    detector = FasterRCNN(10, **DETECTOR)
    return DetectionTask(detector, assigner, objective, Decoder(0.005), WarmupCosine(), first_stage=first_stage, **options)


def toy(counts: tuple[int, ...] = (2, 1), size: int = 96) -> Batch:
    """Images with bright squares, the color of which is the class."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(len(counts), 3, size, size, generator=generator) * 0.2
    targets = []
    for i, count in enumerate(counts):
        boxes = torch.tensor([[8.0, 10.0, 30.0, 36.0], [50.0, 44.0, 90.0, 80.0]])[:count]
        labels = torch.arange(count)
        for (x1, y1, x2, y2), label in zip(boxes.int().tolist(), labels.tolist(), strict=True):
            images[i, label, y1:y2, x1:x2] += 0.7
        targets.append(Targets(boxes, labels, torch.zeros(count).bool(), i, (size, size), (size, size)))
    return Batch(images, targets)


def total(model: DetectionTask, batch: Batch) -> torch.Tensor:
    return weighted_sum(model.losses(batch).parts)


@pytest.mark.parametrize("make", TASKS)
def test_both_stages_learn_two_images_by_heart(make: Any) -> None:
    model, batch = make(), toy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for step in range(30):
        optimizer.zero_grad()
        found = model.losses(batch)
        weighted_sum(found.parts).backward()
        if step == 0:
            gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
            assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
            for part in ("detector.proposal_head.classification", "detector.head.classification", "detector.pyramid"):
                assert any(gradient.abs().sum() > 0 for name, gradient in gradients.items() if part in name)
        optimizer.step()
        history.append({name: part.value.item() for name, part in found.parts.items()})
    learned = [name for name in history[0] if name.endswith(("classification", "ranking"))]
    assert len(learned) == 2
    for name in learned:
        assert sum(row[name] for row in history[-3:]) / 3 < 0.6 * history[0][name], name


def test_the_parts_are_those_of_both_objectives_and_the_first_stage_is_weighted() -> None:
    model, batch = alrp(), toy()
    found = model.losses(batch)
    assert list(found.parts) == ["rpn_classification", "rpn_localization", "classification", "localization"]
    assert {name: float(part.weight) for name, part in found.parts.items()} == pytest.approx(
        {"rpn_classification": 0.2, "rpn_localization": 0.2 * 50, "classification": 1, "localization": 50}
    )
    assert list(rank_sort().losses(batch).parts)[:3] == ["rpn_ranking", "rpn_sorting", "rpn_localization"]


def test_true_boxes_are_added_in_training_only_and_on_request() -> None:
    model, batch = alrp(), toy()
    proposals = model.detector.propose(batch.images).boxes  # type: ignore[operator]
    boxes = batch.targets[0].boxes
    trained = model.train().losses(batch)
    assert torch.equal(trained.predictions.anchors[0, -2:], boxes)
    # the second image has one box, and one row that fills up
    assert trained.assignment.matched[:, -2:].tolist() == [[0, 1], [0, -2]]
    assert trained.predictions.anchors.shape[1] == proposals.shape[1] + 2
    evaluated = model.eval().losses(batch)
    assert torch.equal(evaluated.predictions.anchors, model(batch.images).anchors)
    without = task(ALRPObjective(), FirstStage(FIRST, ALRPObjective(tau=0.7), add_true_boxes=False))
    assert torch.equal(without.train().losses(batch).predictions.anchors, proposals)


@pytest.mark.parametrize("make", TASKS)
@pytest.mark.parametrize("counts", [(0, 0), (2, 0)])
def test_images_without_boxes_have_the_same_parts_and_a_live_graph(make: Any, counts: tuple[int, ...]) -> None:
    model = make()
    found = model.losses(toy(counts))
    assert list(found.parts) == list(make().losses(toy()).parts)
    total(model, toy(counts)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("make", TASKS)
def test_no_proposals_leave_the_true_boxes_or_nothing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = torch.zeros(2, 0, 4)
    monkeypatch.setattr("lossbox.detectors.faster_rcnn.choose_proposals", lambda *arguments, **options: nothing)
    model = make()
    assert model.train().losses(toy()).predictions.anchors.shape == (2, 2, 4)
    total(model.train(), toy((0, 0))).backward()
    found = model.eval().losses(toy())
    assert found.predictions.logits.shape == (2, 0, 10)
    assert all(part.value.isfinite() for part in found.parts.values())


def test_a_nan_in_either_stage_comes_out_as_a_nan() -> None:
    for head, broken in (("proposal_head", "rpn_classification"), ("head", "classification")):
        model = alrp()
        with torch.no_grad():
            getattr(model.detector, head).classification.bias.fill_(torch.nan)
        parts = model.losses(toy()).parts
        assert [name for name in ("rpn_classification", "classification") if parts[name].value.isnan()] == [broken]


def test_the_self_balance_of_both_stages_is_state_and_ends_with_the_epoch() -> None:
    model = alrp()
    stored = {name for name in model.state_dict() if name.endswith("balance.weight")}
    assert stored == {"objective.balance.weight", "first_objective.balance.weight"}
    assert model.first_stage is not None
    first = model.first_stage.objective
    assert first is model.first_objective
    before = {name: float(part.weight) for name, part in model.losses(toy()).parts.items()}
    model._epochs_ended = -1  # as if an epoch had passed
    model.on_train_batch_start(toy(), 0)
    after = {name: float(part.weight) for name, part in model.losses(toy()).parts.items()}
    assert {name for name in before if before[name] != after[name]} == {"rpn_localization", "localization"}


def test_a_detector_and_its_stages_must_fit() -> None:
    with pytest.raises(ValueError, match=r"first_stage: one expected, with assigner and objective .* for FasterRCNN, got None"):
        task(ALRPObjective(), None)
    dense = RetinaNet(1, backbone=Backbone(stages=1, strides=(4,), channels=8))
    with pytest.raises(ValueError, match=r"first_stage: none expected for RetinaNet"):
        DetectionTask(dense, FIRST, ALRPObjective(), Decoder(), WarmupCosine(), first_stage=FirstStage(FIRST, ALRPObjective()))
    with pytest.raises(ValueError, match=r"first_stage\.weight: a finite number >= 0 expected, got -1"):
        FirstStage(FIRST, ALRPObjective(), -1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoDataModule:
    digits = write_digits(tmp_path_factory.mktemp("digits"), train_images=4, val_images=2, size=64, progress=False)
    paths = {name: getattr(digits, name) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}
    return CocoDataModule(**paths, image_size=64, batch_size=2)


def fit(model: DetectionTask, data: CocoDataModule, epochs: int, **options: Any) -> Trainer:
    quiet = {"num_sanity_val_steps": 0, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    seed_everything(0, verbose=False)
    trainer = Trainer(accelerator="cpu", max_epochs=epochs, log_every_n_steps=1, logger=False, **quiet)  # type: ignore[arg-type]
    trainer.fit(model, datamodule=copy.copy(data), weights_only=True, **options)
    return trainer


class TwoEpochs(WarmupCosine):
    """The schedule of a run of two epochs, also in the run that stops after one."""

    def __call__(self, model: Any, total_steps: int) -> Any:
        return super().__call__(model, 4)


def test_a_resumed_run_samples_as_the_uninterrupted_one(data: CocoDataModule, tmp_path: Any) -> None:
    straight, stopped, resumed = baseline(), baseline(), baseline()
    for model in (straight, stopped, resumed):
        model.optimizer = TwoEpochs()
    trainer = fit(straight, data, 2)
    assert trainer.callback_metrics["val/rpn_classification"] > 0
    assert {"AP", "oLRP"} <= straight.metrics.keys()
    fit(stopped, data, 1).save_checkpoint(tmp_path / "last.ckpt")
    torch.manual_seed(123)
    fit(resumed, data, 2, ckpt_path=str(tmp_path / "last.ckpt"))
    different = [name for name, value in straight.state_dict().items() if not torch.equal(value, resumed.state_dict()[name])]
    assert different == []
