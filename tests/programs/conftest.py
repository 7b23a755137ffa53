"""A tiny run of each kind of detector, for all tests of commands that use a trained one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lossbox.__main__ import main

TINY = {
    "data.image_size": 64,
    "data.batch_size": 2,
    "model.detector.init_args.backbone.stages": 2,
    "model.detector.init_args.backbone.strides": "[4,8]",
    "model.detector.init_args.backbone.channels": 8,
    "trainer.max_epochs": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.check_val_every_n_epoch": 1,
}
TINY_TWO_STAGES = {
    **TINY,
    "model.detector.init_args.nms_threshold": 0.5,
    "model.detector.init_args.max_proposals": 300,
    "model.detector.init_args.region_levels": 2,
    "model.detector.init_args.region_size": 3,
    "model.detector.init_args.head_channels": 16,
}


@dataclass(frozen=True)
class TinyRun:
    """The folder of a run, and validation images with annotations by which its detector is neither perfect nor useless."""

    out: Path
    annotations: Path
    images: Path

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoints" / "last.ckpt"

    @property
    def config(self) -> Path:
        return self.out / "config.yaml"


def fit(root: Path, recipe: str, changes: Mapping[str, Any]) -> Path:
    """Trains for two steps on digits in ``root / "data"``; the folder of the run."""
    torch.set_num_threads(1)
    assert main(["digits", str(root / "data"), "--train-images", "4", "--val-images", "5"]) == 0
    options = {name: str(root / "data" / place) for name, place in (("train_annotations", "train.json"), ("train_images", "train"))}
    options |= {name: str(root / "data" / place) for name, place in (("val_annotations", "val.json"), ("val_images", "val"))}
    words = [word for name, value in options.items() for word in (f"--data.{name}", value)]
    words += [word for name, value in changes.items() for word in (f"--{name}", str(value))]
    assert main(["fit", "--config", recipe, "--out", str(root / "run"), *words]) == 0
    return root / "run"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """What a detector of two steps finds is made the truth, in part, and moved: AP is neither 0 nor 1."""
    root = tmp_path_factory.mktemp("tiny")
    run = TinyRun(fit(root, "digits_retinanet_alrp", TINY), root / "val.json", root / "data" / "val")

    document = json.loads((root / "data" / "val.json").read_text())
    second = document["images"][1]
    second["width"], second["height"] = 90, 128  # images of one size would not tell one frame from another
    image = run.images / second["file_name"]
    Image.open(image).crop((0, 0, 90, 128)).save(image)
    run.annotations.write_text(json.dumps({**document, "annotations": []}))
    words = ["predict", str(run.images), "--ckpt", str(run.checkpoint), "--annotations", str(run.annotations), "--no-images"]
    assert main([*words, "--out", str(root / "found"), "--max-detections", "16"]) == 0
    found = json.loads((root / "found" / "detections.json").read_text())
    document["annotations"] = []
    for number, row in enumerate(found[::2]):
        x, y, width, height = row["bbox"]
        shrunk = [x, y, width * (0.55 + 0.05 * (number % 9)), height]
        key = {"id": number + 1, "image_id": row["image_id"], "category_id": row["category_id"]}
        document["annotations"].append({**key, "bbox": shrunk, "area": shrunk[2] * shrunk[3], "iscrowd": 0})
    run.annotations.write_text(json.dumps(document))
    return run


@pytest.fixture(scope="session")
def tiny_two_stage_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Faster R-CNN, on the images as they are."""
    root = tmp_path_factory.mktemp("tiny_two_stages")
    return TinyRun(fit(root, "digits_faster_rcnn_alrp", TINY_TWO_STAGES), root / "data" / "val.json", root / "data" / "val")
