"""Two processes (gloo) train by the README's command: a rank whose batches have no boxes neither hangs nor logs other keys."""

import csv
import json
import os
import subprocess
import sys

from lossbox.data.digits import write_digits


def test_two_processes_train_though_one_sees_no_boxes(tmp_path):
    data = write_digits(tmp_path / "digits", train_images=8, val_images=3, size=96, progress=False)
    truth = json.loads(data.train_annotations.read_text())
    only = truth["images"][0]["id"]  # one batch an epoch, on one of the ranks, has boxes
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
    assert done.stdout.count("epoch 2/2") == 1  # one rank speaks for both
    assert "sync_dist" not in done.stderr

    rows = list(csv.DictReader((tmp_path / "run" / "csv" / "version_0" / "metrics.csv").open()))
    steps = [row for row in rows if row["train/total"]]
    assert [row["step"] for row in steps] == ["0", "1", "2", "3"]  # 8 pictures / (2 processes x batches of 2) x 2 epochs
    for name in ("train/classification", "train/localization", "weight/localization", "gradient_balance"):
        assert all(row[name] for row in steps), name
    # in each epoch one step has the picture with boxes, whichever rank it is on
    assert [sum(float(row["train/classification"]) > 0 for row in steps[i : i + 2]) for i in (0, 2)] == [1, 1]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert sum(row["num_ground_truth"] for row in metrics["per_class"]) == len(json.loads(data.val_annotations.read_text())["annotations"])
