"""What `make bench-check` says of measured ratios; no time is measured here."""

import copy
import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytest.importorskip("lightning", reason="the benchmarks need lossbox[train]")


@pytest.fixture(scope="module")
def check():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("check")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def committed():
    return json.loads((BENCHMARKS / "results" / "ranking.json").read_text())["rows"]


def test_equal_ratios_and_those_a_quarter_above_pass(check, committed):
    fresh = copy.deepcopy(committed)
    assert check.find_worse(fresh, committed) == []
    fresh[0]["ratio_to_focal"]["ap_loss"] *= 1.249
    fresh[1]["ratio_to_focal"]["alrp_loss"] *= 0.1
    assert check.find_worse(fresh, committed) == []


def test_what_is_more_than_a_quarter_worse_is_named(check):
    row = {"positives": 1_000, "negatives": 10**6, "ratio_to_focal": {"ap_loss": 0.5, "ndcg_loss": 0.5}}
    slow = {**row, "ratio_to_focal": {"ap_loss": 0.64, "ndcg_loss": 0.5}}
    assert check.find_worse([slow], [row]) == ["ap_loss at P = 1,000, N = 1,000,000: 0.64 x focal, committed 0.50 x (+28%)"]


def test_the_best_of_three_measurements_counts(check, monkeypatch):
    row = {"positives": 7, "negatives": 9, "ratio_to_focal": {"ap_loss": 0.5, "ndcg_loss": 0.5}}
    times = iter([{"ap_loss": 0.9, "ndcg_loss": 0.5}, {"ap_loss": 0.6, "ndcg_loss": 0.9}, {"ap_loss": 0.9}])
    monkeypatch.setattr(check, "QUICK", [(7, 9)])
    monkeypatch.setattr(check, "measure_ratios", lambda size, rounds: {**row, "ratio_to_focal": next(times)})
    assert check.compare([row], rounds=1) == []
    times = iter([{"ap_loss": 0.9, "ndcg_loss": 0.5}] * 3)
    assert len(check.compare([row], rounds=1)) == 1


def test_what_was_never_measured_is_said(check):
    row = {"positives": 7, "negatives": 10**6, "ratio_to_focal": {"ap_loss": 0.5}}
    with pytest.raises(LookupError, match="ap_loss at P = 7, N = 1,000,000 is not in the committed file"):
        check.find_worse([row], [{**row, "positives": 8}])


def test_the_reference_has_the_instruction_set_and_the_threads(check, tmp_path):
    for name, isa, threads in (("ranking", "AVX512", 2), ("ranking_avx2", "AVX2", 1)):
        report = {"device": "cpu", "instruction_set": {"torch": isa}, "threads": threads, "rows": [name]}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    assert check.find_reference(tmp_path, "AVX2", 1)["rows"] == ["ranking_avx2"]
    with pytest.raises(LookupError, match=r"no times of DEFAULT with 2 thread\(s\), but AVX2 with 1 thread\(s\), AVX512 with 2"):
        check.find_reference(tmp_path, "DEFAULT", 2)


@pytest.mark.parametrize("isa", ["AVX2", "AVX512"])
def test_times_of_both_instruction_sets_are_committed(check, isa):
    assert {row["positives"] for row in check.find_reference(check.RESULTS, isa, threads=2)["rows"]} >= {size[0] for size in check.QUICK}


def test_an_unknown_machine_ends_with_2_before_anything_is_measured(check, monkeypatch, capsys):
    monkeypatch.setattr(check, "instruction_set", lambda: "NONE")
    monkeypatch.setattr(sys, "argv", ["check.py"])
    assert check.main() == 2
    assert "no times of NONE" in capsys.readouterr().out
