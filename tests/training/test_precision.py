"""``precision: auto``: what it becomes, that an option and a run that goes on are not overruled, and that processes agree."""

import os
import subprocess
import sys

import pytest
import torch
import yaml

from lossbox.__main__ import main
from lossbox.data.digits import write_digits
from lossbox.training import precision
from lossbox.training.cli import LossboxCLI
from lossbox.training.load import load_trained
from lossbox.training.precision import CPU_VARIABLE, FULL, MIXED, bfloat16_ratio, fastest_precision, precision_in_use, resolve

IMITATED = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
"""Makes a processor with bfloat16 instructions one without."""

# What a fresh process runs: the module without the rest of lossbox.training, which takes seconds to load.
LOAD = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("precision", {precision.__file__!r})
precision = importlib.util.module_from_spec(spec)
spec.loader.exec_module(precision)
"""


@pytest.fixture
def cpu(monkeypatch):
    """``cpu(ratio)``: a machine on whose CPU bfloat16 takes so many times as long; returns how often it was tried."""

    def like(ratio):
        tries = []
        monkeypatch.setattr(precision, "bfloat16_ratio", lambda: tries.append(ratio) or ratio)
        monkeypatch.setenv(CPU_VARIABLE, "")
        monkeypatch.delenv(CPU_VARIABLE)
        return tries

    return like


def test_a_cpu_gets_what_is_faster_by_a_margin(cpu):
    for ratio, expected in ((0.5, MIXED), (0.79, MIXED), (0.9, FULL), (9.8, FULL)):
        cpu(ratio)
        assert fastest_precision("cpu").precision == expected
    assert fastest_precision("cpu").reason == "bf16 takes 9.8 x as long on this CPU"


def test_a_cpu_without_the_instructions_trains_in_float32():
    """On any processor: the trial sees what oneDNN does, not what the processor could do."""
    code = LOAD + "print(*precision.fastest_precision('cpu'), sep='|')"
    environment = {**os.environ, **IMITATED}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("32-true|bf16 takes ")


def test_the_trial_leaves_no_trace():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert bfloat16_ratio(rounds=1) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_gpus_and_other_devices_are_asked_not_tried(cpu, monkeypatch):
    tries = cpu(0.5)
    for has, expected in ((True, MIXED), (False, FULL)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has and not including_emulation)
        assert resolve("auto", "cuda") == expected
    assert resolve("auto", "mps") == FULL
    assert tries == []


def test_it_is_tried_and_said_once(cpu, capsys):
    tries = cpu(9.8)
    assert [resolve("auto", "cpu") for _ in range(3)] == [FULL] * 3
    assert len(tries) == 1
    assert capsys.readouterr().out == "precision: 32-true (bf16 takes 9.8 x as long on this CPU)\n"
    assert resolve("bf16-mixed", "cpu") == MIXED
    code = LOAD + "print(precision.resolve('auto', 'cpu'))"  # a process that is started does as this one
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "32-true\n"


@pytest.mark.parametrize(("ratio", "here"), [(0.5, MIXED), (9.8, FULL)])
def test_a_trained_detector_is_used_in_what_is_fast_here(cpu, ratio, here):
    cpu(ratio)
    assert [precision_in_use(trained, "cpu") for trained in ("bf16-mixed", "16-mixed", "auto")] == [here] * 3
    assert [precision_in_use(trained, "cpu") for trained in ("32-true", "64-true", None)] == [FULL] * 3


WORKER = """
import os
precision.bfloat16_ratio = lambda: 9.8 if os.environ["RANK"] == "{slow}" else 0.5
chosen = precision.resolve("auto", "cpu")
import torch.distributed as dist
dist.init_process_group("gloo")
every = [None, None]
dist.all_gather_object(every, chosen)
os.write(1, f"chosen {{every[0]}} {{every[1]}}\\n".encode())  # in one piece, beside the other process
dist.destroy_process_group()
os._exit(0)  # gloo's threads may outlive the interpreter and abort it
"""


@pytest.mark.parametrize(("slow", "expected"), [(0, FULL), (1, MIXED)])
def test_the_first_process_of_torchrun_decides(tmp_path, slow, expected):
    script = tmp_path / "worker.py"
    script.write_text(LOAD + WORKER.format(slow=slow))
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {name: value for name, value in os.environ.items() if name != CPU_VARIABLE}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env={**environment, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("precision:") == 1
    assert done.stdout.count(f"chosen {expected} {expected}") == 2


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Options that make a training a matter of seconds."""
    data = write_digits(tmp_path_factory.mktemp("digits"), train_images=4, val_images=2, size=64, progress=False)
    backbone = {"stages": 2, "strides": "[4,8]", "channels": 8}
    trainer = {"max_epochs": 2, "log_every_n_steps": 1}
    options = {
        **{f"data.{name}": getattr(data, name) for name in ("train_annotations", "train_images", "val_annotations", "val_images")},
        **{"data.image_size": 64, "data.batch_size": 2},
        **{f"model.detector.init_args.backbone.{name}": value for name, value in backbone.items()},
        **{f"trainer.{name}": value for name, value in trainer.items()},
    }
    return ["--config", "digits_retinanet_focal", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def stored(run):
    return yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"]


def test_a_run_stores_what_it_trained_in_and_goes_on_in_it(cpu, words, tmp_path, capsys):
    tries, run = cpu(9.8), tmp_path / "run"
    assert main(["fit", *words, "--out", str(run), "--trainer.max_steps", "2"]) == 0
    said = capsys.readouterr().out
    assert "precision: 32-true (bf16 takes 9.8 x" in said
    assert "in 32-true" in said
    assert stored(run) == FULL
    assert len(tries) == 1

    cpu(0.5)  # on another machine
    resumed = ["fit", *words, "--out", str(run), "--ckpt_path"]
    assert main([*resumed, "last"]) == 0
    assert stored(run) == FULL
    assert "in 32-true" in capsys.readouterr().out
    elsewhere = tmp_path / "elsewhere"
    assert main([*resumed[:-2], str(elsewhere), "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--trainer.max_epochs", "3"]) == 0
    assert stored(elsewhere) == FULL

    assert main(["fit", *words, "--out", str(tmp_path / "new"), "--trainer.fast_dev_run", "1"]) == 0
    assert "in bf16-mixed" in capsys.readouterr().out


def test_an_option_wins_and_what_uses_the_checkpoint_follows_the_machine(cpu, words, tmp_path):
    cpu(9.8)
    run = tmp_path / "run"
    assert main(["fit", *words, "--out", str(run), "--trainer.precision", "bf16-mixed", "--trainer.max_epochs", "1"]) == 0
    assert stored(run) == MIXED
    checkpoint, validate = run / "checkpoints" / "last.ckpt", ["validate", "--config", str(run / "config.yaml"), "--artifacts", "false"]
    for ratio, here, autocast in ((9.8, FULL, None), (0.5, MIXED, torch.bfloat16)):
        cpu(ratio)
        assert load_trained(checkpoint).autocast == autocast
        assert LossboxCLI(validate).trainer.precision == here
    assert LossboxCLI([*validate, "--trainer.precision=32-true"]).trainer.precision == FULL
