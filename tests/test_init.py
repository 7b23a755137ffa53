"""What ``import lossbox`` gives: names that are loaded when they are asked for, and nothing heavy before."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lossbox


def fresh(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_loads_nothing_of_ours_or_of_others():
    # -S: without site, whose .pth files load what they like
    path = f"import sys; sys.path.append({str(Path(lossbox.__file__).parents[1])!r}); before = set(sys.modules)"
    code = f"{path}\nimport lossbox; dir(lossbox)\nprint(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == ["lossbox"]


def test_a_loss_loads_no_lightning():
    code = "import sys, lossbox; lossbox.alrp_loss, lossbox.evaluate\nprint('torch' in sys.modules, 'lightning' in sys.modules)"
    assert fresh(code) == ["True", "False"]


@pytest.mark.parametrize("name", lossbox._HOME)
def test_every_name_is_what_its_module_says(name):
    value = getattr(lossbox, name)
    assert name in dir(lossbox)
    home = sys.modules[f"lossbox.{lossbox._HOME[name]}"]
    assert value is getattr(home, "load_trained" if name == "load" else name)


def test_type_checkers_read_the_same_names():
    tree = ast.parse(Path(lossbox.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names if alias.asname}
    assigned = {node.targets[0].id for node in block.body if isinstance(node, ast.Assign)}
    assert imported | assigned == set(lossbox._HOME)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'lossbox' has no attribute 'alpr_loss'; did you mean alrp_loss"):
        _ = lossbox.alpr_loss
