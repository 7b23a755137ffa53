"""Every example runs as a user would run it, stays under 40 lines, and does what it says it does."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@functools.cache
def run(script: str) -> str:
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_are_short_and_run(file):
    assert len(file.read_text().splitlines()) <= 40
    assert run(file.read_text())


def test_own_training_loop_learns():
    first, *_, last = re.findall(
        r"classification ([\d.]+) localization ([\d.]+)", run((ROOT / "examples/own_training_loop.py").read_text())
    )
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
    output = run((ROOT / f"examples/{name}.py").read_text())
    assert float(re.search(last, output)[1]) < float(re.search(first, output)[1]) * 0.85


def test_new_ranking_loss_is_balanced_and_learns():
    output = run((ROOT / "examples/new_ranking_loss.py").read_text())
    for positives, negatives in re.findall(r"positives ([\d.]+), negatives ([\d.]+)", output):
        assert positives == negatives
    assert float(re.search(r"at the end ([\d.]+)", output)[1]) < 0.05
