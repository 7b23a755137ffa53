"""A typed function as a program: options, help, mistakes; each command is one, from Python too."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

import pytest

from lossbox.__main__ import COMMANDS, main
from lossbox.programs.command import File, Folder, command, options_of


def sort(
    images: Sequence[File],
    *,
    out: Folder,
    by_name: bool = False,
    method: Literal["quick", "slow"] = "quick",
    size: tuple[int, int] | None = None,
    share: float | None = None,
    seeds: Sequence[int] = (0, 1),
    count: Sequence[str] | None = None,
) -> dict[str, object]:
    """Sorts ``images``.

    More about it, over
    two lines.

      raw   line

    Args:
        images: files
        out: where the results go,
            in two lines
        by_name: not by date
        method: how: 100 %
        size: height and width
        share: of the images
        seeds: of the order
        count: what
    """
    return {name: value for name, value in locals().items() if name != "images"} | {"images": images}


def called(words, function=sort, show=None):
    seen = []
    command(function, show or (lambda found: seen.append(found)))(words.split())
    return seen[0] if seen else None


def test_options_are_the_parameters():
    found = called("a b --out c --by-name --method slow --size 3 4 --share .5 --seeds 7 --count")
    assert found["images"] == [Path("a"), Path("b")]
    assert found["out"] == Path("c")
    assert found["by_name"] is True
    assert (found["method"], tuple(found["size"]), found["share"], found["seeds"], found["count"]) == ("slow", (3, 4), 0.5, [7], [])
    defaults = called("1 true null [x] --out 3")
    assert defaults["images"] == [Path("1"), Path("true"), Path("null"), Path("[x]")]
    assert (defaults["by_name"], defaults["method"], defaults["size"], defaults["seeds"]) == (False, "quick", None, (0, 1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a --out c --by-nam", "no option --by-nam; did you mean --by-name?"),
        ("a --out c --by_name", "no option --by_name; did you mean --by-name?"),
        ("a --ou c", "no option --ou; did you mean --out?"),
        ("a --out c --xyzzy", "no option --xyzzy; `lossbox sort --help` lists them"),
        ("--out c", "IMAGES expected"),
        ("a", "--out expected"),
        ("a --out", "--out: expected one argument"),
        ("a --out c --method medium", "--method: one of quick, slow expected, got medium"),
        ("a --out c --seeds 1.5", "--seeds: a whole number expected, got 1.5"),
        ("a --out c --share half", "--share: a number expected, got half"),
        ("a --out c --size 3 x", "--size: a whole number expected, got x"),
        ("a --out c --size 3", "--size: expected 2 arguments"),
        ("a --out c --by-name=3", "--by-name: ignored explicit argument '3'"),
    ],
)
def test_a_mistake_is_named_with_the_option_and_the_rule(words, message):
    with pytest.raises(ValueError, match=r"expected|no option|argument") as error:
        called(words)
    assert str(error.value) == message


def test_help_is_the_docstring(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit) as stopped:
        called("--help")
    assert stopped.value.code == 0
    page = capsys.readouterr().out
    assert page.startswith("usage: lossbox sort [-h] --out FOLDER [--by-name] [--method {quick,slow}]")
    assert "Sorts `images`.\n\nMore about it, over two lines.\n\n  raw   line\n" in page
    for words in ("where the results go, in two lines", "how: 100 % (default: quick)", "of the order (default: 0 1)", "--size N N"):
        assert words in " ".join(page.split())
    assert "not by date (default" not in page


def test_what_shows_the_result_has_options_of_its_own(capsys):
    def show(found: dict[str, object], *, out: Folder, loud: bool = False) -> None:
        """Prints.

        Args:
            out: not this one
            loud: in capitals
        """
        print(found["out"], out, loud)

    def of_the_same_name(out: dict[str, object]) -> None:
        """Prints."""
        print(out["images"])

    called("a --out c", show=of_the_same_name)
    assert capsys.readouterr().out == f"{[Path('a')]}\n"
    called("a --out c --loud", show=show)
    assert capsys.readouterr().out == "c c True\n"
    assert options_of(sort)["out"].settings["help"] == "where the results go, in two lines"


def test_other_options_are_handed_on_with_their_values():
    def train(recipes: Sequence[str], *, seeds: Sequence[int] = (0,), overrides: Sequence[str] = ()) -> tuple[object, ...]:
        """Trains."""
        return recipes, seeds, overrides

    words = "r --trainer.max_epochs 2 --seeds 1 2 --data.size=[3,4] --betas 1 -2"
    assert called(words, train) == (["r"], [1, 2], ["--trainer.max_epochs", "2", "--data.size=[3,4]", "--betas", "1", "-2"])
    assert called("r", train) == (["r"], (0,), ())
    with pytest.raises(ValueError, match="no option --seed; did you mean --seeds"):
        called("r --seed 1", train)


TYPED = [name for name in COMMANDS if name not in ("fit", "validate")]


def function_of(name):
    # lossbox.report is a package, so that the function has another name
    return getattr(import_module(f"lossbox.programs.{name}"), {"report": "write_report"}.get(name, name))


@pytest.mark.parametrize("name", TYPED)
def test_a_command_is_a_function_that_python_calls_too(name):
    function = function_of(name)
    documented = inspect.getdoc(function)
    assert inspect.signature(function).return_annotation not in (inspect.Signature.empty, "None")
    assert documented.split("\n\n")[0].endswith(".")
    for option in options_of(function).values():
        assert option.settings["help"], option.label


@pytest.mark.parametrize("name", TYPED)
def test_a_misspelled_option_gets_a_suggestion(name, capsys):
    options = options_of(function_of(name))
    label = next(option.label for option in options.values() if option.label.startswith("--"))
    assert main([name, f"{label}s"]) == 2
    assert f"lossbox {name}: no option {label}s; did you mean {label}?" in capsys.readouterr().err


def test_evaluate_from_python_takes_files_and_columns(tmp_path, capsys):
    import json

    from lossbox.metrics import read_ground_truth, read_results
    from lossbox.programs.evaluate import evaluate

    truth = {"images": [{"id": 7}], "categories": [{"id": 3, "name": "cup"}]}
    truth["annotations"] = [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10]}]
    found = [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 8], "score": 0.9}]
    files = tmp_path / "truth.json", tmp_path / "found.json"
    for file, content in zip(files, (truth, found), strict=True):
        file.write_text(json.dumps(content))
    columns = read_ground_truth(truth)
    numbers = evaluate(*files)
    assert numbers["AP"] == pytest.approx(0.7)
    assert numbers["num_detections"] == 1
    assert evaluate(*map(str, files))["oLRP"] == evaluate(columns, read_results(found, columns))["oLRP"] == pytest.approx(0.4)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match=r"iou: a number in \(0, 1\) expected, got 1"):
        evaluate(*files, iou=1)
