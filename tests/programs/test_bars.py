"""Progress where there is no terminal."""

import re
import time

from lossbox.programs import bars


def test_lines_with_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(bars, "EVERY", 0.05)
    for _ in bars.track(range(40), "opening images", 40):
        time.sleep(0.01)
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) >= 3
    assert all(re.fullmatch(r"opening images: \d+ of 40, \d s so far(, \d+ s left)?", line) for line in shown)
    assert shown[-1].endswith(" left")
    with bars.stages(2) as stage:
        stage("reading")
        time.sleep(0.12)
    assert capsys.readouterr().err.startswith("reading: 0 of 2, 0 s so far\n")
    time.sleep(0.12)
    assert capsys.readouterr().err == ""  # over is over


def test_what_is_short_says_nothing(capsys):
    assert list(bars.track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
