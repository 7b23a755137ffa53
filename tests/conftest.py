"""Small tensors on one thread: faster than two threads that wait for each other. The same precision on every CPU."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

collect_ignore_glob = ["*_worker.py"]  # programs that tests start, with imports of their own

torch.set_num_threads(1)
os.environ.setdefault("LOSSBOX_CPU_PRECISION", "32-true")  # what `precision: auto` becomes; tests/training/test_precision.py takes it away


# Loads what a script imports once, for all its processes; macOS and Windows do not like forks.
FORKS = """
import os, pathlib, runpy, sys, traceback
script, size, *words = sys.argv[1:]
sys.path.insert(0, str(pathlib.Path(script).parent))
runpy.run_path(script)
started = []
for number in range(int(size)):
    if child := os.fork():
        started.append(child)
        continue
    status = 1
    try:
        sys.argv = [script, str(number), *words]
        runpy.run_path(script, run_name="__main__")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in started))
"""


def _run_processes(script, size, *words, timeout=240):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    rest = list(map(str, words))
    if sys.platform == "linux":
        commands = [[sys.executable, "-c", FORKS, str(script), str(size), *rest]]
    else:
        commands = [[sys.executable, str(script), str(number), *rest] for number in range(size)]
    processes = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=sys.platform == "linux")
        for command in commands
    ]
    try:
        errors = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None and sys.platform == "linux":
                os.killpg(process.pid, signal.SIGKILL)  # its forks, too
            process.kill()
    assert not any(process.returncode for process in processes), errors


@pytest.fixture(scope="session")
def run_processes():
    """``run_processes(script, size, *words)`` runs the script as so many processes side by side, each with its number and the words."""
    return _run_processes


@dataclass
class CocoFolder:
    """``document`` may be changed before ``write``; the images are 40 pixels wide and 30 high."""

    root: Path
    document: dict[str, Any]

    @property
    def json_file(self) -> Path:
        return self.root / "instances.json"

    @property
    def images(self) -> Path:
        return self.root / "images"

    def write(self) -> tuple[Path, Path]:
        self.json_file.write_text(json.dumps(self.document))
        return self.json_file, self.images


@pytest.fixture
def coco_folder(tmp_path):
    """Category ids with gaps and not in order; image 7 without boxes; annotation 3 a crowd."""
    folder = CocoFolder(
        tmp_path,
        {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in (5, 7, 6)],
            "categories": [{"id": 20, "name": "dog"}, {"id": 3, "name": "cat"}],
            "annotations": [
                {"id": 1, "image_id": 5, "category_id": 20, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
                {"id": 2, "image_id": 6, "category_id": 3, "bbox": [0, 0, 40, 30]},
                {"id": 3, "image_id": 5, "category_id": 3, "bbox": [10.5, 5, 20.25, 5], "iscrowd": 1},
            ],
        },
    )
    folder.images.mkdir()
    rng = np.random.default_rng(0)
    for i in (5, 6, 7):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder.images / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_recipe():
    """The sections of a recipe, to be changed and written: a RetinaNet of two levels with aLRP on the data that ``write_digits`` wrote."""

    def recipe(digits, *, trainer=None, **data):
        paths = {name: str(getattr(digits, name)) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}
        head = {"backbone": {"stages": 2, "strides": [4, 8], "channels": 8}, "head_convs": 1, "scales": [1.0], "ratios": [1.0]}
        return {
            "data": {**paths, "image_size": 64, "batch_size": 2, **data},
            "model": {
                "detector": {"class_path": "lossbox.detectors.RetinaNet", "init_args": head},
                "assigner": {"class_path": "lossbox.assignment.ATSSAssigner"},
                "objective": {"class_path": "lossbox.objective.ALRPObjective"},
                "decoder": {"class_path": "lossbox.decoding.Decoder", "init_args": {}},
                "optimizer": {"class_path": "lossbox.training.WarmupCosine", "init_args": {}},
            },
            "trainer": {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 1, "num_sanity_val_steps": 0, **(trainer or {})},
        }

    return recipe
