"""`lossbox losses`, called as a user would."""

import json
import sys

import pytest

from lossbox.__main__ import main
from lossbox.losses import CATALOG
from lossbox.programs.losses import PAPER_ROWS


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
    assert "near it: alrp_loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("losses", "count"), [(["alrp_loss"], 1), (["ap_loss", "smooth_l1_loss"], 3), (["focal_loss", "smooth_l1_loss"], 4)]
)
def test_losses_counts_hyperparameters_as_table_1_does(losses, count, capsys):
    assert main(["losses", "--count", *losses]) == 0
    assert capsys.readouterr().out.strip() == str(count)


def test_losses_regenerates_the_rows_of_the_paper(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "130")
    assert main(["losses", "--count"]) == 0
    shown = capsys.readouterr().out
    rows = {line.split("  ")[0].strip(): line.split()[-2:] for line in shown.splitlines()[1 : 1 + len(PAPER_ROWS)]}
    assert rows["aLRP"] == ["1", "1"]
    assert rows["DR + smooth L1"] == ["5", "5"]
    for name, (losses, paper) in PAPER_ROWS.items():
        assert rows[name] == [str(paper) if losses else "-", str(paper)]
    assert "Out of reach: FreeAnchor, Faster R-CNN, CenterNet." in shown


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
        (["--plot"], "name: --plot and --png draw one loss"),
        (["--png", "a.png"], "name: --plot and --png draw one loss"),
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
