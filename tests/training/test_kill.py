"""``kill -9`` in the middle of an epoch, then the same command with ``--ckpt_path last``: the result is that of a run left alone."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lossbox.__main__ import main
from lossbox.data.digits import write_digits

EPOCHS, STEPS = 3, 10


def write_recipe(folder: Path) -> Path:
    """Everything that remembers or draws something: augmentation, a sampling assigner, batch norms, self-balance, AdamW, a schedule."""
    data = write_digits(folder / "digits", train_images=2 * STEPS, val_images=2, size=64, progress=False)
    paths = {name: str(getattr(data, name)) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}
    head = {"backbone": {"stages": 2, "strides": [4, 8], "channels": 8}, "head_convs": 1, "scales": [1.0], "ratios": [1.0]}
    sampled = {"assigner": {"class_path": "lossbox.assignment.ATSSAssigner"}, "count": 64}
    content = {
        "data": {**paths, "image_size": 64, "batch_size": 2, "augmentation": {"scale_jitter": [0.7, 1.4], "photometric": 0.5}},
        "model": {
            "detector": {"class_path": "lossbox.detectors.retinanet.RetinaNet", "init_args": head},
            "assigner": {"class_path": "lossbox.assignment.SampledAssigner", "init_args": sampled},
            "objective": {"class_path": "lossbox.objective.ALRPObjective"},
            "decoder": {"class_path": "lossbox.decoding.Decoder"},
            "optimizer": {"class_path": "lossbox.training.WarmupCosine"},
        },
        "trainer": {"accelerator": "cpu", "max_epochs": EPOCHS, "log_every_n_steps": 1, "num_sanity_val_steps": 0},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def words(recipe: Path, run: Path) -> list[str]:
    """The command; its log is written at once, so that the steps of a run can be watched."""
    options = f'{{"save_dir": "{run}", "name": "csv", "flush_logs_every_n_steps": 1}}'
    logger = f'{{"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {options}}}'
    return ["fit", "--config", str(recipe), "--out", str(run), "--artifacts", "false", "--trainer.logger", logger]


def logged(run: Path, version: int = 0) -> list[dict[str, str]]:
    """The steps in the log of one start."""
    path = run / "csv" / f"version_{version}" / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as opened:
        return [row for row in csv.DictReader(opened) if row.get("train/total")]


def killed(recipe: Path, run: Path) -> int:
    """Starts the command, and kills it as soon as its log has a step of the second epoch."""
    command = [sys.executable, "-m", "lossbox", *words(recipe, run)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        while process.poll() is None and not any(row["epoch"] == "1" for row in logged(run)):
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
    return process.wait()


def differences(expected: Any, found: Any, at: str = "") -> list[str]:
    """Where two checkpoints differ in a bit."""
    if isinstance(expected, torch.Tensor):
        return [] if torch.equal(expected, found) else [at]
    if isinstance(expected, dict):
        common = expected.keys() & found.keys()
        places = [place for name in common for place in differences(expected[name], found[name], f"{at}.{name}")]
        return places + [f"{at}.{name}" for name in expected.keys() ^ found.keys()]
    if isinstance(expected, list | tuple):
        pairs = zip(expected, found, strict=True)
        return [place for i, (one, other) in enumerate(pairs) for place in differences(one, other, f"{at}[{i}]")]
    return [] if expected == found else [at]


@pytest.mark.timeout(900)  # three runs one after the other, on a machine that may be busy
def test_a_killed_run_ends_as_the_run_left_alone_bit_for_bit(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    alone, run = tmp_path / "alone", tmp_path / "killed"

    assert killed(recipe, run) == -signal.SIGKILL
    epochs, steps = divmod(int(logged(run)[-1]["step"]) + 1, STEPS)
    assert (epochs, steps > 0) == (1, True)
    before = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert before["global_step"] == STEPS

    assert main([*words(recipe, run), "--ckpt_path", "last"]) == 0
    assert main(words(recipe, alone)) == 0

    expected, found = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (alone, run))
    assert found["global_step"] == EPOCHS * STEPS
    state = ("state_dict", "optimizer_states", "lr_schedulers", "lossbox_random_state", "lossbox_epochs_ended")
    assert [place for name in state for place in differences(expected[name], found[name], name)] == []
    assert "objective.balance.weight" in expected["state_dict"]
    # the comparison sees what two more epochs changed, in each part of the state
    changed = [{place.partition(".")[0].partition("[")[0] for place in differences(before[name], found[name], name)} for name in state]
    assert changed == [{name} for name in state]
    # step by step: the epoch that was killed is made anew from its start
    assert logged(run, version=1) == logged(alone)[STEPS:]
    assert (run / "metrics.json").read_bytes() == (alone / "metrics.json").read_bytes()
