"""The tutorial and the how-tos run as they are written, with fewer and smaller images."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[1] / "docs"
# What makes the commands of the tutorial a matter of seconds.
SMALLER = {
    "digits": "--train-images 8 --val-images 4 --size 64",
    "fit": "--data.image_size 64 --data.batch_size 4 --trainer.max_epochs 2 --trainer.check_val_every_n_epoch 1"
    " --trainer.log_every_n_steps 1 --model.decoder.init_args.score_threshold 0",
}


def blocks(page):
    """(language, code) of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_tutorial_runs(tmp_path, monkeypatch, capsys, one_thread):
    pytest.importorskip("onnxruntime", reason="needs lossbox[export]")
    from lossbox.__main__ import main

    monkeypatch.chdir(tmp_path)
    ran = []
    for language, code in blocks("tutorial.md"):
        if language == "bash":
            for line in code.replace("\\\n", " ").splitlines():
                program, command, *words = shlex.split(line)
                assert program == "lossbox"
                assert main([command, *words, *shlex.split(SMALLER.get(command, ""))]) == 0, line
                ran.append(command)
        elif language == "python" and "import lossbox" in code:
            capsys.readouterr()
            exec(compile(code, "tutorial.md", "exec"), {"__name__": "tutorial"})
            assert len(re.findall(r"^\[", capsys.readouterr().out, re.MULTILINE)) >= 2  # a line or more for each image
            ran.append("load")
        elif language == "python":
            (tmp_path / "deploy.py").write_text(code)
            capsys.readouterr()
            detect = runpy.run_path("deploy.py")["detect"]
            assert len(capsys.readouterr().out.splitlines()) == 3
            ran.append("deploy")
    assert ran == ["digits", "check", "fit", "validate", "predict", "load", "export", "deploy"]
    detect.__globals__["cut"][:] = 0  # every place passes: the loop over duplicates ends, boxes lie in pixels of the image
    found = detect(next(Path("data/digits/val").glob("*.jpg")))
    assert found
    assert all(0 <= label < 10 and 0 <= score <= 1 and box.shape == (4,) for label, score, box in found)
    for name in ("found/detections.json", "runs/digits/thresholds.csv", "runs/check/data.png", "digits.json"):
        assert Path(name).is_file()


@pytest.mark.parametrize("page", ["how_to/ranking_loss.md", "how_to/processes.md", "how_to/migrate.md"])
def test_the_python_of_a_how_to_runs(page):
    codes = [code for language, code in blocks(page) if language == "python"]
    assert codes
    for code in codes:
        exec(compile(code, page, "exec"), {"__name__": "how_to"})
