"""A misspelled name is answered in the same words everywhere."""

from pathlib import Path

import lossbox


def test_one_place_looks_for_messages():
    files = [file for file in Path(lossbox.__file__).parent.rglob("*.py") if "difflib" in file.read_text()]
    assert [file.name for file in files] == ["messages.py"]
