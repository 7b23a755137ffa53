"""Where results cannot be written, every command says so before its work, with the option and the path."""

import os

import pytest

from lossbox.__main__ import main
from lossbox.writable import check_writable

CASES = {
    "--out": [
        *("check none", "convert none", "compare toy", "demo", "fit none", "report none"),
        *("predict none --ckpt none", "calibrate --config none"),
    ],
    "--json": ["check none", "compare toy", "evaluate none none", "losses"],
    "--sheet": ["check none"],
    "--png": ["losses ap_loss"],
    "--thresholds": ["evaluate none none"],
    "--report": ["evaluate none none"],
    "ROOT": ["digits"],
    "MODEL": ["export --ckpt none"],
}


@pytest.mark.parametrize(("option", "words"), [(option, words) for option, lines in CASES.items() for words in lines])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(option, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    where = tmp_path / "file" / "deeper" / "x.png"
    assert main([*words.split(), *([option] if option.startswith("--") else []), str(where)]) == 2
    assert f": {option}: {where} cannot be written: {tmp_path / 'file'} is no folder\n" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_what_can_be_written_leaves_nothing_behind(tmp_path):
    check_writable("out", tmp_path / "a" / "b", folder=True)
    check_writable("json", tmp_path / "a.json", folder=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.json").write_text("")
    check_writable("json", tmp_path / "a.json", folder=False)


@pytest.mark.parametrize(
    ("place", "folder", "said"),
    [
        ("", False, "cannot be written: it is a folder"),
        ("file", True, "file is no folder"),
        ("x" * 300, False, "File name too long"),
        pytest.param("/proc/x", True, "No such file or directory", marks=pytest.mark.skipif(not os.path.isdir("/proc"), reason="no /proc")),
    ],
)
def test_the_reason_is_said(place, folder, said, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=f"^out: .*{said}$"):
        check_writable("out", tmp_path / place, folder=folder)
