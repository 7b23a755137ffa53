"""`data.batch_size: auto`: a power of two that fits, with its reason; the number stands in config.yaml."""

import pytest
import torch
import yaml

from lossbox.__main__ import main
from lossbox.assignment import ATSSAssigner
from lossbox.data.digits import write_digits
from lossbox.data.module import CocoDataModule
from lossbox.decoding import Decoder
from lossbox.detectors import Backbone, RetinaNet
from lossbox.objective import ALRPObjective
from lossbox.training import DetectionTask, WarmupCosine
from lossbox.training.batch_size import largest_batch, one_step


@pytest.mark.parametrize(("fits", "most", "expected"), [(1, 64, 1), (5, 64, 4), (8, 64, 8), (100, 64, 64), (100, 12, 8)])
def test_the_search_ends_where_memory_does(fits, most, expected):
    tried = []

    def peak(images):
        tried.append(images)
        if images > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images

    assert largest_batch(peak, limit=1000, most=most) == expected
    assert max(tried) <= 2 * expected


def test_what_takes_more_than_its_share_of_the_memory_does_not_fit():
    assert largest_batch(lambda images: 10 * images, limit=79, most=64) == 4
    assert largest_batch(lambda images: 10 * images, limit=80, most=64) == 8
    with pytest.raises(ValueError, match="batch_size: a step of one image takes more than"):
        largest_batch(lambda images: 10 * images, limit=9, most=64)


def test_an_error_that_is_not_about_memory_is_raised():
    def peak(images):
        raise RuntimeError("another")

    with pytest.raises(RuntimeError, match="another"):
        largest_batch(peak, limit=1000, most=8)


def test_on_a_cpu_it_is_a_stated_number_that_the_run_keeps(tiny_recipe, tmp_path, capsys):
    digits = write_digits(tmp_path / "digits", train_images=17, val_images=2, size=64, progress=False)
    stopping = {"monitor": "val/AP", "mode": "max", "patience": 2}
    callbacks = [{"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": stopping}]  # of Lightning, by class path
    content = tiny_recipe(digits, batch_size="auto", trainer={"max_epochs": 40, "log_every_n_steps": None, "callbacks": callbacks})
    content |= {"out": str(tmp_path / "run"), "artifacts": False}
    content["model"]["optimizer"]["init_args"] = {"learning_rate": 0.0}  # so that nothing gets better
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(recipe)]) == 0
    printed = capsys.readouterr().out
    assert "batch_size: 2 (auto: on cpu at most 8, and an eighth of 17 training images)" in printed
    assert "8 steps per epoch" in printed
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["batch_size"] == 2
    assert "epoch 3/40" in printed
    assert "epoch 4/40" not in printed  # EarlyStopping: the first epoch, and two that are not better

    assert main(["validate", "--config", str(recipe)]) == 0


def test_a_step_that_is_tried_has_a_gradient_on_images_of_full_size(tmp_path):
    digits = write_digits(tmp_path / "digits", train_images=2, val_images=1, size=64, progress=False)
    data = CocoDataModule(
        digits.train_annotations, digits.train_images, digits.val_annotations, digits.val_images, image_size=96, start_scale=0.3
    )
    detector = RetinaNet(10, backbone=Backbone(stages=2, strides=(4, 8), channels=8), head_convs=1, scales=[1.0], ratios=[1.0])
    task = DetectionTask(detector, ATSSAssigner(), ALRPObjective(), Decoder(), WarmupCosine())
    batch = data.full_size_batch(3)
    assert batch.images.shape == (3, 3, 96, 96)
    one_step(task, batch)
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in task.parameters())
