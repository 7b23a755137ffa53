"""Imports go one way (see CONTRIBUTING.md), and the tensor level runs on the bare install. Each test is seen to fail on a planted
violation."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lossbox

SOURCE = Path(lossbox.__file__).parent

TENSORS = {"boxes", "losses", "coco", "metrics"}
PARTS = {"records", "data", "detectors", "assignment", "objective", "decoding"}
MAY_IMPORT = {
    "messages": set(),
    "writable": set(),
    "records": set(),
    "boxes": set(),
    "losses": {"boxes"},
    "coco": set(),
    "metrics": {"boxes", "coco"},
    "data": {"boxes", "coco", "records"},
    "detectors": {"boxes", "records", "messages"},
    "assignment": {"boxes", "records"},
    "decoding": {"boxes", "records"},
    "objective": {"losses", "boxes", "records"},
    "report": {"losses", "metrics", "records"},
    "analysis": {"losses", "metrics", "records", "messages"},
    "integrations": {"losses", "boxes", "objective", "records", "messages"},
    "training": TENSORS | PARTS | {"report", "messages", "writable"},
    "programs": TENSORS | PARTS | {"training", "report", "analysis", "messages", "writable"},
    "__main__": {"programs", "messages"},
    "__init__": {"losses", "metrics", "training", "programs", "messages"},  # when a name is asked for
}

EXTRAS = (
    "lightning",
    "pytorch_lightning",
    "hotcoco",
    "torchmetrics",
    "sklearn",
    "matplotlib",
    "rich",
    "jsonargparse",
    "tensorboard",
    "timm",
    "plotext",
    "yaml",
)
BARE = ("lossbox.losses", "lossbox.losses.modules", "lossbox.boxes", "lossbox.coco.read", "lossbox.metrics", "lossbox.records")


def imported(tree: ast.AST, package: str) -> set[str]:
    """Dotted names that a module of `package` imports, anywhere in it: inside functions and type-checking blocks too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names |= {stem} | {f"{stem}.{alias.name}" for alias in node.names}
    return names


def violations(source: Path) -> list[str]:
    found = []
    for file in sorted(source.rglob("*.py")):
        parts = file.relative_to(source).with_suffix("").parts
        area = parts[0]
        if area not in MAY_IMPORT:
            found.append(f"{file.name}: {area} has no place in the graph")
            continue
        package = ".".join(["lossbox", *parts[:-1]])
        for name in imported(ast.parse(file.read_text()), package):
            to = name.split(".")
            ours = to[0] == "lossbox" and len(to) > 1 and ((source / to[1]).is_dir() or (source / f"{to[1]}.py").exists())
            if ours and to[1] != area and to[1] not in MAY_IMPORT[area]:
                found.append(f"{'.'.join(parts)} imports {name}")
    return found


def test_imports_go_one_way():
    assert violations(SOURCE) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("losses/ranking.py", "from lossbox.metrics import lrp"),
        ("metrics/lrp.py", "import lossbox.losses.ranking"),
        ("detectors/retinanet.py", "from lossbox.losses import alrp_loss"),
        ("detectors/retinanet.py", "from ..assignment import ATSSAssigner"),
        ("boxes.py", "from lossbox import records"),
        ("coco/read.py", "from ..records import Targets"),
        ("coco/columns.py", "def late():\n    from lossbox.metrics import evaluate"),
        ("losses/ranking.py", "from ..coco.columns import GroundTruth"),
        ("losses/ranking.py", "def late():\n    from lossbox.training import DetectionTask"),
        ("data/images.py", "if TYPE_CHECKING:\n    from lossbox.objective import ALRPObjective"),
        ("newcomer.py", "import torch"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, line):
    for name in MAY_IMPORT:
        (tmp_path / name).with_suffix(".py").touch()
    for folder in ("losses", "metrics", "detectors", "data", "coco"):
        (tmp_path / folder).mkdir()
        (tmp_path / f"{folder}.py").unlink()
    assert violations(tmp_path) == []
    (tmp_path / file).write_text(line + "\n")
    assert len(violations(tmp_path)) >= 1


def loaded(code: str, packages: tuple[str, ...] = EXTRAS) -> set[str]:
    """Which of the packages a fresh process has loaded after `code`."""
    script = f"{code}\nimport sys\nprint(*sorted(set(sys.modules) & set({packages!r})))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_tensor_level_loads_nothing_of_the_extras():
    assert loaded(f"import {', '.join(BARE)}") == set()


def test_that_a_loaded_extra_would_be_seen():
    assert loaded("import lossbox.losses, yaml") >= {"yaml"}


SLOW = ("torchvision", "triton")  # of the bare install too, but a loss needs torchvision nowhere and triton only on a GPU


def test_the_losses_load_nothing_that_is_slow():
    assert loaded("import lossbox.losses", SLOW) == set()
    assert loaded("import lossbox.losses, torchvision", SLOW) >= {"torchvision"}


def test_the_tensor_level_works_where_the_extras_are_missing(tmp_path):
    """Every package of the extras is shadowed by one that raises: what the bare install is like."""
    for name in EXTRAS:
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n")
    code = "import " + ", ".join(BARE) + "\nimport torch\nprint(lossbox.losses.ap_loss(torch.zeros(2), torch.tensor([0, 1])).item())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["0.3333333432674408"]
    broken = subprocess.run([sys.executable, "-c", "import lossbox.training"], capture_output=True, text=True, env=environment)
    assert "No module named" in broken.stderr
