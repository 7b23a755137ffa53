"""`learning_rate: auto`: the search touches nothing, ends where the loss does, and the run keeps its number."""

import copy
import json
import math
from functools import partial

import pytest
import torch
import yaml

from lossbox.__main__ import main
from lossbox.assignment import ATSSAssigner
from lossbox.data.digits import write_digits
from lossbox.data.module import CocoDataModule
from lossbox.decoding import Decoder
from lossbox.detectors import Backbone, RetinaNet
from lossbox.objective import ALRPObjective, RankSortObjective
from lossbox.training import DetectionTask, WarmupCosine, WarmupSteps, cli, learning_rate
from lossbox.training.learning_rate import choose_rate, find_learning_rate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"), train_images=4, val_images=2, size=64, progress=False)


@pytest.fixture(scope="module")
def paths(digits):
    return {name: str(getattr(digits, name)) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}


def task(objective, optimizer):
    detector = RetinaNet(10, backbone=Backbone(stages=2, strides=(4, 8), channels=8), head_convs=1)
    return DetectionTask(detector, ATSSAssigner(), objective, Decoder(), optimizer)


@pytest.mark.parametrize("objective", [ALRPObjective, RankSortObjective])
def test_the_search_leaves_everything_as_it_was_and_keeps_the_rates_of_the_trunk(paths, objective, monkeypatch):
    data = CocoDataModule(**paths, image_size=64, batch_size=2)
    model = task(objective(), WarmupCosine(backbone_rate=0.1)).eval()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    seen, take = [], learning_rate._step

    def step(tried, batch, optimizer, *rest):
        seen.append([group["lr"] for group in optimizer.param_groups])
        return take(tried, batch, optimizer, *rest)

    monkeypatch.setattr(learning_rate, "_step", step)
    monkeypatch.setattr(learning_rate, "choose_rate", lambda rates, smoothed: 0.5)
    found = find_learning_rate(model, data, CPU, steps=5)  # more than an epoch
    assert found.found == 0.5
    assert not model.training
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # of the objective, its self-balance, too
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert found.rates == pytest.approx([1e-6, 10**-4.5, 1e-3, 10**-1.5, 1.0])
    assert [rates[0] for rates in seen] == pytest.approx(found.rates)
    assert all(min(rates) == pytest.approx(0.1 * max(rates)) for rates in seen)
    assert 0.5 < found.losses[0] < 3  # the parts without their weights: aLRP begins with a weight of 50


@pytest.mark.parametrize(("losses", "kept"), [([1.0, 0.9, math.nan, 0.1], 2), ([1.0, 0.5, 90.0, 0.1], 3), ([0.0, 0.0, 0.0, 0.0], 4)])
def test_the_search_ends_where_the_loss_does(paths, losses, kept, monkeypatch):
    losses = iter(losses)
    monkeypatch.setattr(learning_rate, "_step", lambda *rest: next(losses))
    monkeypatch.setattr(learning_rate, "choose_rate", lambda rates, smoothed: len(rates))
    data = CocoDataModule(**paths, image_size=64, batch_size=2)
    assert find_learning_rate(task(ALRPObjective(), WarmupSteps()), data, CPU, steps=4).found == kept


def test_weights_that_are_not_finite_end_the_search_without_an_error(paths):
    data = CocoDataModule(**paths, image_size=64, batch_size=2)
    model = task(ALRPObjective(), WarmupSteps())
    with torch.no_grad():
        next(model.detector.parameters()).fill_(math.inf)
    with pytest.raises(ValueError, match="learning_rate: the loss falls at no rate of the search; give a number in place of auto"):
        find_learning_rate(model, data, CPU, steps=3)


def test_a_loss_that_never_falls_finds_nothing():
    with pytest.raises(ValueError, match="the loss falls at no rate"):
        choose_rate([0.1, 0.2], [1.0, 1.0])


@pytest.mark.parametrize("optimizer", [WarmupCosine, WarmupSteps])
def test_an_optimizer_needs_a_number(optimizer):
    with pytest.raises(ValueError, match="learning_rate: a number expected, got 'auto', which `lossbox fit` finds before the training"):
        optimizer(learning_rate="auto")(torch.nn.Linear(1, 1), 9)


def test_a_run_with_auto_is_the_run_with_the_number_and_goes_on_with_it(digits, tiny_recipe, tmp_path, capsys, monkeypatch):
    content = tiny_recipe(digits, batch_size=16, trainer={"limit_val_batches": 0})  # more than there are: --batch_size says another
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(cli, "find_learning_rate", partial(find_learning_rate, steps=20))

    def fit(out, *words):
        words = ["--config", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / out), "--artifacts", "false", *words]
        assert main(["fit", *words, "--batch_size", "2"]) == 0
        rate = yaml.safe_load((tmp_path / out / "config.yaml").read_text())["model"]["optimizer"]["init_args"]["learning_rate"]
        return rate, torch.load(tmp_path / out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    found, weights = fit("a", "--learning_rate", "auto")
    printed = capsys.readouterr().out
    assert f"learning_rate: {found:g} (auto: the loss is smallest at " in printed
    search = json.loads((tmp_path / "a" / "learning_rate.json").read_text())
    assert search["found"] == found
    assert list(search["steps"][0]) == ["learning_rate", "loss", "smoothed"]
    number, same = fit("b", f"--learning-rate={found}")
    assert number == found
    assert all(torch.equal(weights[name], same[name]) for name in weights)

    kept, _ = fit("a", "--learning_rate", "auto", "--ckpt_path", "last")
    assert kept == found
    assert "learning_rate:" not in capsys.readouterr().out
