"""`lossbox losses`, called as a user would."""

import pytest

from lossbox.__main__ import main
from lossbox.losses import CATALOG


def test_losses_lists_all(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["losses"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in CATALOG)
    assert "[0, 1]" in shown


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
