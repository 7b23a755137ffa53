"""Two processes (gloo) train by the README's command: a rank whose batches have no boxes neither hangs nor logs other keys. And under
DistributedDataParallel two take the steps that one takes on both their batches."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from lossbox.data.digits import write_digits

sys.path.insert(0, str(Path(__file__).parent))
import step_worker as worker

RUNS = [(name, dtype) for name in worker.TASKS for dtype in worker.DTYPES[name]]


def test_two_processes_train_though_one_sees_no_boxes(tmp_path):
    data = write_digits(tmp_path / "digits", train_images=8, val_images=3, size=96, progress=False)
    truth = json.loads(data.train_annotations.read_text())
    only = truth["images"][0]["id"]  # one batch an epoch, in one of the processes, has boxes
    truth["annotations"] = [box for box in truth["annotations"] if box["image_id"] == only]
    assert truth["annotations"]
    data.train_annotations.write_text(json.dumps(truth))
    paths = {name: getattr(data, name) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}
    options = {
        "--config": "digits_retinanet_alrp",
        "--out": tmp_path / "run",
        **{f"--data.{name}": path for name, path in paths.items()},
        "--data.image_size": 96,
        "--data.batch_size": 2,
        "--trainer.devices": 2,
        "--trainer.strategy": "ddp",
        "--trainer.max_epochs": 2,
        "--trainer.log_every_n_steps": 1,
    }
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lossbox", "fit"]
    words += [str(word) for pair in options.items() for word in pair]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1  # one process speaks for both
    assert "sync_dist" not in done.stderr

    rows = list(csv.DictReader((tmp_path / "run" / "csv" / "version_0" / "metrics.csv").open()))
    steps = [row for row in rows if row["train/total"]]
    assert [row["step"] for row in steps] == ["0", "1", "2", "3"]  # 8 images / (2 processes x batches of 2) x 2 epochs
    for name in ("train/classification", "train/localization", "weight/localization", "gradient_balance"):
        assert all(row[name] for row in steps), name
    # in each epoch one step has the image with boxes, whichever process it is on
    assert [sum(float(row["train/classification"]) > 0 for row in steps[i : i + 2]) for i in (0, 2)] == [1, 1]
    # what the process with the positives pulls up and both push down: equal over both (Theorem 2), not on either
    balances = [float(row["gradient_balance"]) for row in steps if float(row["train/classification"]) > 0]
    assert balances == pytest.approx([1, 1], abs=2e-2)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert sum(row["num_ground_truth"] for row in metrics["per_class"]) == len(json.loads(data.val_annotations.read_text())["annotations"])


@pytest.fixture(scope="module")
def processes(tmp_path_factory, run_processes):
    """What the steps of each of two processes came to, and what they found in tiles."""
    folder = tmp_path_factory.mktemp("steps")
    write_digits(folder, train_images=1, val_images=3, size=96, progress=False)
    run_processes(worker.__file__, 2, folder, timeout=240)
    return [torch.load(folder / f"{number}.pt") | {"folder": folder} for number in range(2)]


@pytest.mark.parametrize(("name", "dtype"), RUNS)
def test_two_processes_take_the_steps_of_one(processes, name, dtype):
    first, second = (found[name, dtype] for found in processes)
    *alone, validation = worker.run(name, dtype)
    tolerance = {"rtol": 1e-6, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 2e-3, "atol": 2e-5}
    for one, other, expected in zip(first, second, alone, strict=False):
        assert list(one["parts"]) == list(other["parts"]) == list(expected["parts"])
        for key, value in expected["parts"].items():
            assert_close((one["parts"][key] + other["parts"][key]) / 2, value, **tolerance)
            if name != "focal" and key != "centerness" and not (name in ("ap", "ndcg") and key == "localization"):
                assert_close(one["parts"][key], other["parts"][key], rtol=0, atol=0)  # what is ranked over all is the same on all
        for of in ("weights", "balance"):
            assert_close(one[of], other[of], rtol=0, atol=0)
        for of in ("weights", "gradients", "parameters"):
            assert_close(one[of], expected[of], check_dtype=False, **tolerance)
    assert any(gradient.abs().sum() > 1e-3 for gradient in alone[1]["gradients"].values())
    # the first process validated its share of the first batch alone: nothing waited for the second
    assert len(first) == len(alone) + 1 == len(second) + 1
    assert_close(first[-1], validation, **tolerance)


def test_two_processes_find_in_tiles_what_one_does(processes):
    first, second = (found["tiles"] for found in processes)
    alone = worker.validate_tiles(processes[0]["folder"])
    assert first == second  # of three images two processes see four
    assert [row["image_id"] for row in first] == [row["image_id"] for row in alone] == [1] * 9 + [2] * 9 + [3] * 9
    for one, expected in zip(first, alone, strict=True):
        assert one["score"] == pytest.approx(expected["score"], abs=1e-6)
        assert one["bbox"] == pytest.approx(expected["bbox"], abs=1e-3)
