"""`lossbox losses`, called as a user would."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lossbox
from lossbox.__main__ import main
from lossbox.losses import CATALOG


def test_losses_lists_all(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["losses"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in CATALOG)
    assert "[0, 1]" in shown


def test_losses_is_a_line_a_loss_in_a_pipe(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["losses"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["loss", "family", "hyper-parameters", "range", "source"]
    for name, entry in CATALOG.items():
        (line,) = (line for line in lines if line.split()[0] == name)
        assert entry.source in line


def test_losses_explains_one(capsys):
    assert main(["losses", "alrp_loss"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("alrp_loss(logits, targets, localization_error, *, delta=1.0,")
    assert "Eqs. (9)-(13)" in shown
    assert main(["losses", "alrp_los"]) == 2
    assert "did you mean alrp_loss?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("losses", "count"), [(["alrp_loss"], 1), (["ap_loss", "smooth_l1_loss"], 3), (["focal_loss", "smooth_l1_loss"], 4)]
)
def test_losses_counts_hyperparameters_as_table_1_does(losses, count, capsys):
    assert main(["losses", "--count", *losses]) == 0
    assert capsys.readouterr().out.strip() == str(count)


def test_losses_regenerates_every_row_of_the_paper(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["losses", "--count"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["hyper-parameters", "paper", "counted", "from"]
    rows = {cells[0]: cells[1:] for cells in (re.split(r"  +", line) for line in lines)}
    table_1 = {"AP + smooth L1": 3, "focal + smooth L1": 4, "FCOS": 4, "DR + smooth L1": 5, "FreeAnchor": 8, "Faster R-CNN": 9}
    table_1 |= {"CenterNet": 10, "aLRP": 1}
    a_11 = {"cross-entropy": 0, "alpha-balanced cross-entropy": 1, "focal loss": 2, "AP loss": 1, "DR loss": 3, "smooth L1": 1}
    a_11 |= {"balanced L1": 2, "IoU loss": 0}
    assert {row: cells[:2] for row, cells in rows.items()} == {row: [str(n), str(n)] for row, n in (a_11 | table_1).items()}
    assert rows["Faster R-CNN"][2].startswith("recipe coco_faster_rcnn_ce_smooth_l1: first_stage 1, SampledAssigner 2,")


def test_a_recipe_is_counted_and_a_self_balance_is_no_weight(capsys, tmp_path):
    assert main(["losses", "--count", "digits_fcos_focal"]) == 0
    assert capsys.readouterr().out.strip() == "4"
    own = tmp_path / "own.yaml"
    separate = "lossbox.objective.SeparateObjective"
    own.write_text(
        f"model: {{objective: {{class_path: {separate}, init_args: {{self_balance: true, classification: lossbox.losses.APLoss}}}}}}"
    )
    assert main(["losses", "--count", str(own)]) == 0
    assert capsys.readouterr().out.strip() == "1"
    own.write_text("[]")
    assert main(["losses", "--count", str(own)]) == 2
    assert "must hold a recipe, got list" in capsys.readouterr().err


def test_names_are_never_broken_where_the_terminal_is_narrow(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["losses"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "\nquality:\n" in shown
    assert all(re.search(rf"^  {name}( |$)", shown, re.MULTILINE) for name in CATALOG)


BARE = """
import sys
from lossbox.__main__ import main
print([main(["losses", *words.split()]) for words in ("", f"--json {sys.argv[1]}", "alrp_loss", "--count", "a b")])
"""


def test_losses_works_on_the_bare_install(tmp_path):
    """Every package of the extras is shadowed by one that is not there."""
    for name in ("jsonargparse", "rich", "yaml", "matplotlib", "plotext", "lightning", "hotcoco"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(lossbox.__file__).parents[1])])}
    command = [sys.executable, "-c", BARE, str(tmp_path / "a.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.endswith("[0, 0, 0, 2, 2]\n")
    assert all(name in done.stdout for name in (*CATALOG, f"{len(CATALOG)} losses: ", "Eqs. (9)-(13)"))
    assert "reading a recipe needs PyYAML: pip install 'lossbox[train]'" in done.stderr
    assert "no such argument: b" in done.stderr


def test_losses_plots_where_asked_and_not_into_a_pipe(capsys):
    assert main(["losses", "focal_loss"]) == 0
    assert "focal_loss: gradient" not in capsys.readouterr().out
    assert main(["losses", "focal_loss", "--plot"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("focal_loss(logits, targets, *,")
    assert "focal_loss: gradient" in shown
    assert "\x1b" not in shown


def test_losses_plots_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["losses", "l1_loss"]) == 0
    assert "\x1b[" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["losses", "l1_loss"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "l1_loss: gradient" in shown


def test_losses_draws_a_image(tmp_path, capsys):
    path = tmp_path / "new" / "loss.png"
    assert main(["losses", "giou_loss", "--png", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--plot"], "NAME: --plot and --png draw one loss"),
        (["--png", "a.png"], "NAME: --plot and --png draw one loss"),
        (["l1_loss", "--png", "a.pdf"], "png: a file ending in .png or .svg expected, got a.pdf"),
        (["--count", "l1"], "losses: names of the catalog expected, got 'l1'"),
    ],
)
def test_losses_names_the_mistake(argv, message, capsys):
    assert main(["losses", *argv]) == 2
    assert message in capsys.readouterr().err


def test_losses_writes_the_catalog(tmp_path):
    path = tmp_path / "losses.json"
    assert main(["losses", "--json", str(path)]) == 0
    rows = {row["name"]: row for row in json.loads(path.read_text())["losses"]}
    assert list(rows) == list(CATALOG)
    assert rows["focal_loss"]["hyperparameters"] == {"alpha": 0.25, "gamma": 2.0}
    assert rows["ap_loss"]["family"] == "ranking"
    assert rows["ap_loss"]["range"] == "[0, 1]"
    assert all(row["source"] for row in rows.values())
