"""Every example runs as a user would run it, stays under 40 lines, and does what it says it does."""

import functools
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


# Each in a process of its own, which is a fork of one that has loaded what most of them import.
EACH = """
import os, runpy, sys, traceback, torch, lossbox.training
folder, *files = sys.argv[1:]
for number, file in enumerate(files):
    if child := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.rename(f"{folder}/{number}", f"{folder}/{os.path.basename(file)}.{code}")
        continue
    with open(f"{folder}/{number}", "w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        code = 1
        try:
            sys.argv = [file]
            runpy.run_path(file, run_name="__main__")
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
"""


@functools.cache
def outputs() -> dict[str, tuple[str, str]]:
    """By name of an example, the code it ended with and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", EACH, folder, *map(str, EXAMPLES)], check=True, timeout=250)
        return {path.name.partition(".")[0]: (path.suffix, path.read_text()) for path in Path(folder).iterdir()}


def run(name: str) -> str:
    code, text = outputs()[name]
    assert code == ".0", text
    return text


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_are_short_and_run(file):
    assert len(file.read_text().splitlines()) <= 40
    assert run(file.stem)


def test_own_training_loop_learns():
    first, *_, last = re.findall(r"classification ([\d.]+) localization ([\d.]+)", run("own_training_loop"))
    assert float(last[0]) < float(first[0]) / 2
    assert float(last[1]) < float(first[1])


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("image_retrieval", r"step 0: .* photographs ([\d.]+)", r"step 59: .* photographs ([\d.]+)"),
        ("edge_detection", r"step 0: ranking ([\d.]+)", r"step 60: ranking ([\d.]+)"),
        ("imbalanced_classification", r"step 100: .* half ([\d.]+)", r"step 0: .* half ([\d.]+)"),
    ],
)
def test_examples_outside_of_detection_learn(name, first, last):
    output = run(name)
    assert float(re.search(last, output)[1]) < float(re.search(first, output)[1]) * 0.85


def test_new_ranking_loss_is_balanced_and_learns():
    output = run("new_ranking_loss")
    for positives, negatives in re.findall(r"positives ([\d.]+), negatives ([\d.]+)", output):
        assert positives == negatives
    assert float(re.search(r"at the end ([\d.]+)", output)[1]) < 0.05
