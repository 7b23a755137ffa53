"""`fit --minutes`: a run ends near the budget with its learning rate at the end, is validated and saved, and goes on with what is left."""

import csv
import json
import re
from itertools import pairwise

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Timer
from torch import nn

from lossbox.__main__ import main
from lossbox.data.digits import write_digits
from lossbox.data.module import CocoDataModule, SeededSampler
from lossbox.training import WarmupCosine
from lossbox.training.budget import TICKS, TimeBudget

SECONDS = 3.0


@pytest.fixture(scope="module")
def recipe(tiny_recipe, tmp_path_factory):
    """A run of 1,000 epochs of two steps, if nothing stops it."""
    root = tmp_path_factory.mktemp("budget")
    digits = write_digits(root / "digits", train_images=4, val_images=2, size=64, progress=False)
    content = tiny_recipe(digits, start_scale=0.5, trainer={"max_epochs": 1000})
    content["model"]["optimizer"]["init_args"] = {"learning_rate": 1.0e-3}
    (root / "recipe.yaml").write_text(yaml.safe_dump(content))
    return root / "recipe.yaml"


def fit(recipe, *words):
    return main(["fit", "--config", str(recipe), *map(str, words)])


def test_a_run_ends_with_its_budget_and_goes_on_with_what_is_left(recipe, tmp_path, capsys):
    out = tmp_path / "run"
    assert fit(recipe, "--out", out, "--minutes", SECONDS / 60) == 0
    printed = capsys.readouterr().out
    assert re.search(r"minutes: 0.05 for all steps and validations; learning rate", printed)
    assert "/1000" not in printed
    run = json.loads((out / "run.json").read_text())
    assert 0.7 * SECONDS < 60 * run["minutes"] < SECONDS + 2.0  # on a busy machine a step or a validation may take longer than before
    assert 1 < run["epochs"] < 1000
    assert "AP" in json.loads((out / "metrics.json").read_text())
    rows = list(csv.DictReader((out / "results.csv").open()))
    rates = [float(row["lr"]) for row in rows if row["lr"]]
    assert max(rates) > 0.9e-3
    assert rates[-1] < 0.05e-3
    peak = rates.index(max(rates))
    assert all(later <= earlier for earlier, later in pairwise(rates[peak:]))
    validated = [row for row in rows if row["val/AP"]]
    assert rows[-1]["val/AP"]
    assert len(validated) < len(rows)
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["minutes"], config["trainer"]["max_epochs"]) == (pytest.approx(SECONDS / 60), -1)

    # as if it had been interrupted with one second left, and the learning rate is where it was
    path = out / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["Timer"]["time_elapsed"]["train"] = SECONDS - 1.0
    torch.save(checkpoint, path)
    assert fit(recipe, "--out", out, "--ckpt_path", "last", "--artifacts", "false") == 0
    again = json.loads((out / "run.json").read_text())
    assert again["steps"] > run["steps"]
    assert SECONDS - 0.5 < 60 * again["minutes"] < SECONDS + 2.0
    assert fit(recipe, "--out", out, "--ckpt_path", "last", "--artifacts", "false") == 0  # nothing is left
    assert json.loads((out / "run.json").read_text())["steps"] == again["steps"]
    capsys.readouterr()
    assert fit(recipe, "--out", out, "--ckpt_path", "last", "--minutes", 1) == 2
    assert "minutes: a run that goes on keeps its length" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "0"], "minutes: a finite number > 0 expected, got 0"),
        (["--minutes", "-1"], "minutes: a finite number > 0 expected, got -1"),
        (["--minutes", ".inf"], "minutes: a finite number > 0 expected, got inf"),
        (["--minutes", "5", "--trainer.max_epochs", "3"], "not beside --trainer.max_epochs, got 5 and 3"),
        (["--minutes=5", "--trainer.max_steps=3"], "not beside --trainer.max_steps, got 5 and 3"),
    ],
)
def test_what_is_no_budget_is_refused(recipe, tmp_path, capsys, words, message):
    assert fit(recipe, "--out", tmp_path / "run", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class Strategy:
    def broadcast(self, value):
        return value


class FakeTimer(Timer):
    now = 0.0

    def time_elapsed(self, stage="train"):
        return self.now


class FakeTrainer:
    strategy, global_step, num_val_batches = Strategy(), 0, [5]


def test_the_share_of_the_run_leaves_time_for_the_last_validation():
    timer = FakeTimer()
    budget = TimeBudget(1.0, timer)
    budget._trainer = FakeTrainer()
    timer.now = 30.0
    assert budget.progress() == 0.5
    budget._trainer.global_step = 15  # five batches take as long as five steps of 2 s
    assert budget.progress() == pytest.approx(30 / 50)
    budget._load = 1.5  # their images have more tiles than a step
    assert budget.progress() == pytest.approx(30 / 45)
    budget._validation = 20.0
    assert budget.progress() == pytest.approx(30 / 40)
    budget._validation = 50.0  # at most half of the budget is set aside
    assert budget.progress() == 1.0


def test_the_schedule_is_where_the_time_is_and_never_goes_back():
    timer = FakeTimer()
    budget = TimeBudget(1.0, timer)
    budget._trainer, budget._validation = FakeTrainer(), 0.0
    optimizer, schedule = WarmupCosine(learning_rate=1.0, warmup=0.1)(nn.Linear(2, 2), TICKS)
    rates = []
    for timer.now in (0.0, 3.0, 6.0, 33.0, 20.0, 60.0, 70.0):
        optimizer.step()
        budget.step(schedule)
        rates.append(schedule.get_last_lr()[0])
    assert rates == pytest.approx([1e-4, 0.5, 1.0, 0.5, 0.5, 0.0, 0.0], abs=1e-3)


def test_sizes_of_images_follow_the_time(recipe):
    content = yaml.safe_load(recipe.read_text())["data"]
    data = CocoDataModule(**{**content, "image_size": 128})
    shares = iter((0.0, 0.4, 0.7, 1.0))
    data.progress = lambda: next(shares)
    sampler = data.train_dataloader().sampler
    assert isinstance(sampler, SeededSampler)
    different = list(dict.fromkeys(data.course()))
    assert [different[next(iter(sampler))[2]][0] for _ in range(4)] == [(64, 64), (96, 96), (128, 128), (128, 128)]
