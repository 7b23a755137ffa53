"""What benchmarks make of what they measured; no time is measured here."""

import copy
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lossbox.losses import _distributed, alrp_loss

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytest.importorskip("lightning", reason="the benchmarks need lossbox[train]")


@pytest.fixture(scope="module", autouse=True)
def path():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def check():
    return importlib.import_module("check")


@pytest.fixture(scope="module")
def committed():
    return json.loads((BENCHMARKS / "results" / "sizes.json").read_text())["rows"]


def test_equal_ratios_and_those_a_quarter_above_pass(check, committed):
    fresh = copy.deepcopy(committed)
    assert check.find_worse(fresh, committed) == []
    fresh[0]["ms"]["ap_loss"] *= 1.249
    fresh[1]["ms"]["alrp_loss"] *= 0.1
    fresh[2]["ms"] = {name: 3 * time for name, time in fresh[2]["ms"].items()}  # a slower machine
    assert check.find_worse(fresh, committed) == []


def test_what_is_more_than_a_quarter_worse_is_named(check):
    row = {"positives": 1_000, "scores": 10**6, "ms": {"focal": 10.0, "ap_loss": 5.0, "ndcg_loss": 5.0}}
    slow = {**row, "ms": {"focal": 1.0, "ap_loss": 0.64, "ndcg_loss": 0.5}}
    assert check.find_worse([slow], [row]) == ["ap_loss at P = 1,000, N = 1,000,000: 0.64 x focal, committed 0.50 x (+28%)"]


def test_the_best_of_three_measurements_counts(check, monkeypatch):
    row = {"positives": 7, "scores": 9, "ms": {"focal": 1.0, "ap_loss": 0.5, "ndcg_loss": 0.5}}
    times = iter([{"ap_loss": 0.9, "ndcg_loss": 0.5}, {"ap_loss": 0.6, "ndcg_loss": 0.9}, {"ap_loss": 0.9}])
    monkeypatch.setattr(check, "SIZES", [(7, 9)])
    monkeypatch.setattr(check, "measure", lambda size, rounds: {**row, "ms": {"focal": 1.0, **next(times)}})
    assert check.compare([row], rounds=1) == []
    times = iter([{"ap_loss": 0.9, "ndcg_loss": 0.5}] * 3)
    assert len(check.compare([row], rounds=1)) == 1


def test_what_was_never_measured_is_said(check):
    row = {"positives": 7, "scores": 10**6, "ms": {"focal": 1.0, "ap_loss": 0.5}}
    with pytest.raises(LookupError, match="ap_loss at P = 7, N = 1,000,000 is not in the committed file"):
        check.find_worse([row], [{**row, "positives": 8}])


@pytest.mark.parametrize("name", ["sizes.json", "sizes_avx2.json"])
def test_times_of_both_instruction_sets_are_committed(check, name):
    rows = check.read_reference(BENCHMARKS / "results" / name)["rows"]
    assert {(row["positives"], row["scores"]) for row in rows if set(check.LOSSES) <= set(row["ms"])} >= set(check.SIZES)


def test_an_unknown_machine_ends_with_2_before_anything_is_measured(check, monkeypatch, capsys):
    monkeypatch.setattr(check, "instruction_set", lambda: "NONE")
    monkeypatch.setattr(check, "results_file", lambda: Path("sizes_none.json"))
    monkeypatch.setattr(sys, "argv", ["check.py"])
    assert check.main() == 2
    assert "no sizes_none.json, the times of NONE; there is none" in capsys.readouterr().out


def test_the_exchange_of_the_scaling_page_is_that_of_the_loss(monkeypatch):
    scaling = importlib.import_module("scaling")
    sent = []

    def all_gather(parts, own):
        sent.append(own.nbytes)
        for part in parts:
            part.copy_(own)

    def all_reduce(values):
        sent.append(values.nbytes)
        values *= 2

    job = {"is_initialized": True, "get_world_size": 2, "get_rank": 0}
    stub = SimpleNamespace(
        is_available=lambda: True, all_gather=all_gather, all_reduce=all_reduce, **{k: lambda v=v: v for k, v in job.items()}
    )
    monkeypatch.setattr(_distributed, "dist", stub)
    monkeypatch.setattr(scaling, "IMAGES", 1)
    monkeypatch.setattr(scaling, "POSITIVES", 5)
    alrp_loss(torch.randn(30), torch.tensor([1] * 5 + [0] * 25), torch.rand(5), global_batch=True)
    assert sorted(sent) == [8, 8 * 5, 8 * 5, scaling.interval_bytes(processes=2)]
    assert scaling.ranking_bytes(processes=2) == sum(sent)  # of a reduction between two, half is received twice


def test_a_tree_needs_fewer_messages_and_a_ring_fewer_bytes():
    scaling = importlib.import_module("scaling")
    slow_start, slow_bytes = {"latency": 1.0, "per_byte": 0.0}, {"latency": 0.0, "per_byte": 1.0}
    assert (scaling.gather(slow_start, 8, 5, "ring"), scaling.gather(slow_start, 8, 5, "tree")) == (7, 3)
    assert (scaling.reduce(slow_bytes, 8, 80, "ring"), scaling.reduce(slow_bytes, 8, 80, "tree")) == (140, 480)


def test_the_comparison_with_other_packages_says_how_it_is_called(monkeypatch, capsys):
    """It took ``--help`` for the name of a case."""
    monkeypatch.setattr(sys, "argv", ["outside.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module("outside").main()
    assert "pip install --no-deps pytorch-metric-learning libauc" in capsys.readouterr().out
