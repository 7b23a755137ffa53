"""CONTRIBUTING.md is followed to the letter: its two made-up losses are added to a copy of the package as it says, and work everywhere."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import lossbox

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
KINDS = {"An elementwise loss": ("brier_loss", "BrierLoss"), "A ranking loss": ("reciprocal_rank_loss", "ReciprocalRankLoss")}

EVERYWHERE = """
import sys
import pytest
from lossbox import losses, report
from lossbox.__main__ import main
from lossbox.objective import SeparateObjective

root, *words = sys.argv[1:]
assert losses.__file__.startswith(root)
for name, module in zip(words[::2], words[1::2], strict=True):
    assert losses.CATALOG[name] is getattr(losses, module)
    assert losses.CATALOG[name].function is getattr(losses, name)
    assert {name, module} <= set(losses.__all__)
    SeparateObjective(losses.CATALOG[name]())
    assert main(["losses", name]) == 0
    assert report.curves_of(name, points=2).values
properties = pytest.main(
    ["--doctest-modules", "-p", "no:cacheprovider", "-k", f"({words[0]} or {words[2]}) and not compiled", "tests/losses/test_every_loss.py"]
)
assert properties == 0, properties
"""


def steps(kind):
    """What a section says: by file the code that it gets, and the file of the exports."""
    section = PAGE.split(f"### {kind}\n")[1].split("\n#")[0]
    found = re.split(r"^\d\. ", section, flags=re.MULTILINE)[1:]
    assert len(found) == 4
    files = [re.search(r"`((?:src|tests)/\S+\.py)`", step)[1] for step in found]
    assert len(set(files)) == 4
    code = [textwrap.dedent(re.search(r"```python\n(.*?)```", step, re.DOTALL)[1]) for step in found[:2]]
    return dict(zip(files, code, strict=False)), files[2], files[3]


def add(root, kind):
    blocks, exports, test = steps(kind)
    assert (ROOT / test).is_file()
    imports = []
    for (file, code), name in zip(blocks.items(), KINDS[kind], strict=True):
        with (root / file).open("a") as existing:
            existing.write("\n\n" + code)
        place = Path(file).relative_to("src/lossbox/losses").with_suffix("")
        imports.append(f"from .{'.'.join(place.parts)} import {name}\n")
    package = (
        (root / exports).read_text().replace("__all__ = [", "".join(imports) + f"\n__all__ = [{KINDS[kind][0]!r}, {KINDS[kind][1]!r}, ")
    )
    (root / exports).write_text(package)


def test_a_loss_is_added_as_the_page_says(tmp_path):
    shutil.copytree(Path(lossbox.__file__).parent, tmp_path / "src" / "lossbox", ignore=shutil.ignore_patterns("__pycache__"))
    for kind in KINDS:
        add(tmp_path, kind)
    words = [word for names in KINDS.values() for word in names]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", EVERYWHERE, str(tmp_path), *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name, _ in KINDS.values():
        assert f"\n{name}(logits, targets, *, " in "\n" + done.stdout
    assert re.search(r"\d\d passed", done.stdout) or "[100%]" in done.stdout


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:src|tests|docs|recipes|benchmarks|examples)/[\w/.]*)`", PAGE))))
def test_a_path_of_the_page_exists(path):
    assert "NAME" in path or (ROOT / path).exists()
