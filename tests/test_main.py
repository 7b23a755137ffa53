"""The ``lossbox`` command: help, errors a user can act on, and the programs end to end on a tiny data set."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import lossbox
from lossbox.__main__ import COMMANDS, main
from lossbox.data.digits import write_digits
from lossbox.programs.fit import FILES
from lossbox.programs.recipes import find_recipe, with_recipes


def test_help_names_every_command_and_loads_nothing_heavy():
    code = "import sys; from lossbox.__main__ import main; main(['--help']); print([m for m in ('torch', 'lightning') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *text, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    for name, purpose in COMMANDS.items():
        assert any(line.split()[:1] == [name] and line.endswith(purpose) for line in text)


def test_the_exit_codes_are_those_of_every_command(capsys):
    assert main(["--help"]) == 0
    assert "1 `check` found bad records; 2 something to change" in capsys.readouterr().out


def test_help_of_every_command_loads_nothing_heavy():
    code = """import contextlib, sys
from lossbox.data.digits import write_digits
from lossbox.programs.fit import FILES
from lossbox.__main__ import COMMANDS, main
for name in COMMANDS:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(None):
        main([name, "--help"])
    print(name, [module for module in ("torch", "lightning", "matplotlib") if module in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name} []" for name in COMMANDS]


@pytest.mark.parametrize("words", [["demo", "--out"], ["fit", "--config", "own_data", "--out"]], ids=["demo", "fit"])
def test_the_first_line_comes_before_anything_heavy_is_loaded(words, tmp_path):
    """Torch is shadowed by a module that stops the process: what was said until then needs no patience."""
    (tmp_path / "torch.py").write_text("import os\nos._exit(7)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "lossbox", *words, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith(f"lossbox {words[0]}: ")


def test_no_command_prints_the_help(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: lossbox COMMAND")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pre", "predict"),
        ("predict photos --score", "--score-threshold"),
        ("predict photos", ""),  # names of files, which bash knows
        ("fit --config own_data_", "own_data_large own_data_pretrained"),
        ("compare digits_t", "digits_tiny_alrp"),
        ("fit --min", "--minutes"),
    ],
)
def test_a_shell_completes(words, expected, capsys):
    bash = shutil.which("bash") or pytest.skip("needs bash")
    assert main(["--completion"]) == 0
    script = capsys.readouterr().out
    script += f'COMP_WORDS=(lossbox {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _lossbox; echo "${{COMPREPLY[*]}}"'
    done = subprocess.run([bash, "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (expected, "")


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lossbox {lossbox.__version__}\n"


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert main(["validat"]) == 2
    assert "no command 'validat'; did you mean validate?" in capsys.readouterr().err
    assert main(["xyz"]) == 2
    assert "demo, fit, validate" in capsys.readouterr().err


def test_a_user_error_is_one_line_and_with_debug_a_traceback(capsys, monkeypatch):
    monkeypatch.delenv("LOSSBOX_DEBUG", raising=False)
    assert main(["fit", "--config", "nowhere.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lossbox fit: --config: no file nowhere.yaml")
    assert "`lossbox fit --help` lists them\n" in said
    assert "Traceback" not in said
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        main(["fit", "--config", "nowhere.yaml", "--debug"])
    monkeypatch.setenv("LOSSBOX_DEBUG", "1")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        main(["fit", "--config", "nowhere.yaml"])


def test_ctrl_c_is_one_line(capsys, monkeypatch):
    monkeypatch.delenv("LOSSBOX_DEBUG", raising=False)

    def of_python(_):
        raise KeyboardInterrupt

    def of_lightning(argv):
        try:
            of_python(argv)
        except KeyboardInterrupt:
            sys.exit(1)

    for stop in (of_python, of_lightning):
        monkeypatch.setattr("lossbox.programs.fit.run", stop)
        assert main(["fit"]) == 130
        assert capsys.readouterr().err == "\nlossbox fit: interrupted\n"
    monkeypatch.setattr("lossbox.programs.fit.run", lambda _: sys.exit(3))
    with pytest.raises(SystemExit, match="3"):
        main(["fit"])


def test_a_closed_pipe_is_no_error():
    code = "import sys; from lossbox.__main__ import main; sys.exit(main(['losses', 'alrp_loss']))"
    done = subprocess.run(["sh", "-c", f'"{sys.executable}" -u -c "{code}" | true'], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_recipe_is_asked_for(capsys):
    for command in ("fit", "validate"):
        assert main([command, "--out", "somewhere"]) == 2
        assert f"lossbox {command}: --config RECIPE expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.max_epochss", "3"], "unrecognized arguments: --trainer.max_epochss 3; did you mean --trainer.max_epochs?"),
        (["--ou", "x"], "; did you mean --out?"),
        (["--model.detector.init_args.anchor_scal", "8"], "Option 'anchor_scal' is not accepted; did you mean anchor_scale?"),
        (["--trainer.max_epochs", "few"], 'Parser key "trainer.max_epochs"'),
        (["--data.image_size", "-5"], "--data.image_size: a positive number of pixels"),
        (["--data.augmentation.mosaic", "3"], "--data.augmentation.mosaic: a number in [0, 1] expected, got 3.0"),
        (["--out", f"{__file__}/deep"], f"--out: {__file__}/deep cannot be written: {__file__} is no folder"),
    ],
)
def test_a_mistake_in_an_option_of_fit_is_one_line_with_a_suggestion(words, message, capsys):
    assert main(["fit", "--config", "digits_retinanet_alrp", *words]) == 2
    first, *more = capsys.readouterr().err.splitlines()
    assert first.startswith("lossbox fit: ")
    assert message in first
    assert more == ["(--debug shows where this was raised)"]


def test_a_misspelled_recipe_or_config_gets_the_near_name(capsys):
    assert main(["fit", "--confg", "own_data"]) == 2
    assert "no option --confg; did you mean --config?" in capsys.readouterr().err
    assert main(["fit", "--config", "own_dat"]) == 2
    assert "no file own_dat, and no recipe of that name ships with lossbox; did you mean own_data?" in capsys.readouterr().err


def test_recipes_are_found_by_path_and_by_name(tmp_path):
    own = tmp_path / "digits_retinanet_alrp.yaml"
    own.write_text("out: x")
    assert find_recipe(str(own)) == own
    shipped = find_recipe("digits_retinanet_alrp")
    assert shipped.is_file()
    assert shipped != own
    assert find_recipe("elsewhere/digits_retinanet_alrp.yaml") == shipped
    words = ["fit", "--config", "digits_retinanet_alrp", "--config=digits_retinanet_alrp", "-c", str(own), "--out", "digits_retinanet_alrp"]
    expected = ["fit", "--config", str(shipped), f"--config={shipped}", "-c", str(own), "--out", "digits_retinanet_alrp"]
    assert with_recipes(words) == expected


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_help_of_a_command_is_a_page_and_help_all_is_everything(command, capsys):
    assert main([command, "--help"]) == 0
    page = capsys.readouterr().out.splitlines()
    assert page[0].startswith(f"usage: lossbox {command} --config")
    assert len(page) < 40
    assert max(map(len, page)) < 130
    assert any("--ckpt_path" in line for line in page)
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help-all"])
    assert stopped.value.code == 0
    assert "--trainer.max_epochs" in capsys.readouterr().out


def test_a_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    for name in ("lossbox.training.cli", "lossbox.training"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert main(["fit", "--config", "own_data"]) == 2
    assert "pip install 'lossbox[train]'" in capsys.readouterr().err


TINY = {
    "data.image_size": 64,
    "data.batch_size": 2,
    "model.detector.init_args.backbone.stages": 2,
    "model.detector.init_args.backbone.strides": "[4,8]",
    "model.detector.init_args.backbone.channels": 8,
    "trainer.max_epochs": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.check_val_every_n_epoch": 1,
}


@pytest.fixture
def tiny():
    """Options that make a recipe a matter of seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("epochs", "said"),
    [(0, "no epoch was finished; the same command begins again"), (1, "--ckpt_path last goes on from the last whole epoch")],
)
def test_ctrl_c_says_how_to_go_on(epochs, said, tmp_path, tiny, capsys, monkeypatch):
    digits = write_digits(tmp_path / "digits", train_images=2, val_images=2, progress=False)
    where = [f"--data.{name}={getattr(digits, name)}" for name in FILES]

    def stop(cli, **kwargs):
        for _ in range(epochs):
            (tmp_path / "run" / "checkpoints").mkdir(parents=True)
            (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("lossbox.training.cli").LossboxCLI, "fit", stop)
    assert main(["fit", "--config", "digits_tiny_alrp", "--out", str(tmp_path / "run"), *where, *tiny]) == 130
    assert capsys.readouterr().err.endswith(f"lossbox fit: interrupted; {said}\n")


def test_demo_leaves_metrics_curves_and_images(tmp_path, tiny, capsys):
    out = tmp_path / "demo"
    words = ["demo", "--out", str(out), "--data", str(tmp_path / "digits"), "--train-images", "4", "--val-images", "2"]
    assert main([*words, *tiny]) == 0
    said = capsys.readouterr().out
    for name in ("metrics.json", "report.html", "images.png"):
        assert (out / name).is_file()
        assert str(out / name) in said
    assert "epoch 1/1" in said
    assert "trained in" in said
    assert "What to try next" in said
    assert len(json.loads((out / "metrics.json").read_text())["per_class"]) == 10
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["data"]["val_images"] == str(tmp_path / "digits" / "val")

    trained = (out / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    (out / "report.html").unlink()
    assert main([*words, *tiny]) == 0
    assert "holds a finished run" in capsys.readouterr().out
    assert (out / "report.html").is_file()
    assert (out / "checkpoints" / "last.ckpt").stat().st_mtime_ns == trained

    # A second training would mix with the first.
    assert main(["fit", "--config", str(out / "config.yaml")]) == 2
    assert "--ckpt_path last" in capsys.readouterr().err
    assert main(["validate", "--config", str(out / "config.yaml"), "--ckpt_path", "best"]) == 0
    said = capsys.readouterr().out
    assert "best.ckpt" in said
    assert str(out / "report.html") in said
    assert main(["validate", "--config", str(out / "config.yaml"), "--out", str(tmp_path / "none")]) == 2
    assert "no " + str(tmp_path / "none" / "checkpoints" / "last.ckpt") in capsys.readouterr().err


def test_demo_and_compare_without_validation_say_so(tmp_path, tiny, capsys):
    out, data = tmp_path / "demo", tmp_path / "digits"
    tiny = [*tiny, "--trainer.limit_val_batches", "0"]
    words = ["demo", "--out", str(out), "--data", str(data), "--train-images", "4", "--val-images", "2"]
    for _ in range(2):
        assert main([*words, *tiny]) == 0
        assert capsys.readouterr().out.endswith(f"nothing to look at: {out} was trained with trainer.limit_val_batches 0\n")
    places = {
        f"{part}_{kind}": data / name for part in ("train", "val") for kind, name in (("annotations", f"{part}.json"), ("images", part))
    }
    paths = [word for name, path in places.items() for word in (f"--data.{name}", str(path))]
    assert main(["compare", "digits_retinanet_focal", "--seeds", "0", "--out", str(tmp_path / "runs"), *tiny, *paths]) == 0
    assert "| digits_retinanet_focal | - | - | - | - | - | 1 |" in capsys.readouterr().out


def test_compare_trains_each_recipe_with_each_seed_once(tmp_path, tiny, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["digits", "data/digits", "--train-images", "4", "--val-images", "2"]) == 0
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["compare", "digits_retinanet_focal", "--seeds", "3", "4", "--out", "runs", "--json", "results/accuracy.json", *tiny]
    assert main(words) == 0
    result = json.loads(Path("results/accuracy.json").read_text())
    assert [(run["variant"], run["seed"]) for run in result["runs"]] == [("digits_retinanet_focal", 3), ("digits_retinanet_focal", 4)]
    assert result["summary"]["digits_retinanet_focal"]["seeds"] == [3, 4]
    assert {"AP", "oLRP", "minutes"} <= result["runs"][0].keys()
    assert "| digits_retinanet_focal | " in capsys.readouterr().out

    finished = Path("runs/digits_retinanet_focal/seed-3/run.json")
    changed = json.loads(finished.read_text()) | {"minutes": 61.0}
    finished.write_text(json.dumps(changed))
    assert main([*words[:3], "3", *words[5:]]) == 0
    assert json.loads(Path("results/accuracy.json").read_text())["runs"][0]["minutes"] == 61.0


@pytest.mark.parametrize("given", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_waiting_threads_spin_less_unless_the_environment_says_how_they_wait(given, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    environment = os.environ | given | {"OMP_DISPLAY_ENV": "VERBOSE"}
    code = "from lossbox.__main__ import main; main(['losses']); import torch"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch here does not bring libgomp")
    assert ("GOMP_SPINCOUNT = '50000'" in done.stderr) == (not given)
    assert ("GOMP_SPINCOUNT = '7'" in done.stderr) == ("GOMP_SPINCOUNT" in given)
