"""Studies: what a file may say, rules that hold and rules that do not, and numbers over seeds."""

import json
import math
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from lossbox.analysis import (
    Numbers,
    Run,
    by_rank,
    check,
    check_numbers,
    curves,
    paired_differences,
    parse_study,
    read_study,
    shipped_studies,
    with_step_numbers,
)
from lossbox.objective import Objective
from lossbox.programs.grid import recipe_of
from lossbox.programs.recipes import find_recipe

BASE = {"title": "A", "recipe": "r", "variants": {"a": {}, "b": {"x.y": 2}}, "measure": ["AP"]}


def study(**more):
    return parse_study("mine", BASE | more)


def rule(rule, *runs):
    return check(study(must_hold=[rule]), runs)[0]


def test_options_of_all_come_first_and_a_variant_may_name_another_recipe_or_a_call():
    found = study(
        options={"x.y": 1, "z": 3}, variants={"a": {}, "b": {"x.y": 2}, "c": {"recipe": "s"}, "d": {"call": "f", "n": 1}}
    ).variants
    assert [variant.recipe for variant in found] == ["r", "r", "s", None]
    assert [variant.call for variant in found] == [None, None, None, "f"]
    assert [variant.options for variant in found] == [
        {"x.y": 1, "z": 3},
        {"x.y": 2, "z": 3},
        {"x.y": 1, "z": 3},
        {"x.y": 1, "z": 3, "n": 1},
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"title": None, "measures": ["AP"]}, "no key measures; did you mean measure?"),
        ({"zzz": 1}, "no key zzz; a study has"),
        ({"variants": {}}, "variants: at least one"),
        ({"recipe": None}, "variants: a: a recipe or a call"),
        ({"variants": {"a": {"recipe": "r", "call": "f"}}}, "a recipe or a call"),
        ({"baseline": "c"}, "baseline: no variant c; there are a, b"),
        ({"must_hold": [{"run": "AP >"}]}, "is no comparison"),
        ({"must_hold": [{"run": "__import__('os').getcwd() == 1"}]}, "arithmetic, comparisons and abs"),
        ({"must_hold": [{"run": "(lambda: 1)() == 1"}]}, "arithmetic, comparisons and abs"),
        ({"must_hold": [{"run": "AP.real == 1"}]}, "arithmetic, comparisons and abs"),
        ({"must_hold": [{"run": "AP > 0", "of": "c*"}]}, r"must_hold: no variant c\*"),
        ({"must_hold": [{"each step": "AP > 0"}]}, "one of run, every step, some step, equal"),
        ({"must_hold": [{"equal": {"c": {"AP": 1}}}]}, "no variant c"),
        ({"plot": {"x": "step"}}, "plot: x and y expected, and perhaps log and of: runs, got"),
        ({"plot": {"x": "step", "y": ["a"], "of": "steps"}}, "plot: x and y expected, and perhaps log and of: runs, got"),
        ({"plot": {"x": "step", "y": "total"}}, "plot: y: a list of names expected, got 'total'"),
        (
            {"plot": {"x": "step", "y": ["total"], "log": ["totel"]}},
            r"plot: log: a name that y has expected, got totel; did you mean total\?",
        ),
    ],
)
def test_what_is_no_study_is_refused(more, said):
    with pytest.raises(ValueError, match=said):
        study(**more)


def test_a_file_that_is_no_study_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    for text, said in (
        ("a: [", "is neither YAML nor JSON"),
        ("[1]", "title, variants and measure expected"),
        ("title: a", "title, variants and measure expected, got no variants"),
        ("mesure: [AP]", "no key mesure; did you mean measure?"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"mine\.yaml.*{said}"):
            read_study(path)


STEPS = [{"step": 0, "x": 1.0, "y": 1.0}, {"step": 1, "x": 1.0, "y": 2.0}, {"step": 2, "x": None, "y": 2.0}]


def test_a_rule_of_every_step_names_each_step_and_what_was_found():
    found = rule({"every step": "x <= y"}, Run("a", 0, {}, STEPS[:2]))
    assert (found["checked"], found["violations"]) == (2, [])
    found = rule({"every step": "abs(y - x) < 0.5"}, Run("a", 0, {}, STEPS[:2]), Run("b", 1, {}, STEPS[:1]))
    assert found["checked"] == 3
    assert found["violations"] == [{"variant": "a", "seed": 0, "step": 1, "found": {"x": 1.0, "y": 2.0}}]


def test_what_is_undefined_does_not_hold():
    assert [v["step"] for v in rule({"every step": "x > 0"}, Run("a", 0, {}, STEPS))["violations"]] == [2]
    assert rule({"run": "AP >= 0"}, Run("a", 0, {"AP": None}, []))["violations"]
    assert rule({"run": "AP >= 0"}, Run("a", 0, {"AP": math.nan}, []))["violations"]


def test_a_rule_of_some_step_needs_one():
    assert not rule({"some step": "y > 1"}, Run("a", 0, {}, STEPS))["violations"]
    assert len(rule({"some step": "y > 2"}, Run("a", 0, {}, STEPS))["violations"]) == 3


def test_a_rule_with_nothing_to_check_is_violated():
    assert rule({"every step": "y > 0"}, Run("a", 0, {}, []))["violations"] == [{"variant": "a", "seed": 0, "found": "nothing to check"}]


def test_a_rule_about_some_variants_leaves_the_others_alone():
    runs = [Run("a", 0, {"AP": 0.1}, []), Run("b", 0, {"AP": -1}, [])]
    assert not rule({"run": "AP > 0", "of": "a*"}, *runs)["violations"]
    assert rule({"run": "AP > 0"}, *runs)["violations"][0]["variant"] == "b"


def test_a_number_that_is_not_there_is_named_with_those_that_are():
    for name, near in (("zzz", "there are AP, oLRP"), ("APx", r"did you mean AP\?")):
        with pytest.raises(ValueError, match=f"no number {name}; {near}"):
            rule({"run": f"{name} > 0"}, Run("a", 0, {"AP": 1.0, "oLRP": 0.5, "name": "n"}, []))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"measure": ["AP5O"]}, r"measure: no run has a number AP5O; did you mean AP50\?"),
        ({"must_hold": [{"run": "oLPR < 1"}]}, r"must_hold: 'run: oLPR < 1': no run of [ab] has a number oLPR; did you mean oLRP\?"),
        ({"must_hold": [{"every step": "AP < 1"}]}, "no run of [ab] has a number AP; there are step, total"),
        ({"must_hold": [{"run": "total < 1"}]}, r"has a number total; did you mean total_last\?"),
        ({"must_hold": [{"some step": "balance < 1", "of": "b"}]}, "no run of b has a number balance"),
        ({"must_hold": [{"equal": {"a": {"AP5O": 1}}}]}, r"no run of a has a number AP5O; did you mean AP50\?"),
        ({"plot": {"x": "steps", "y": ["total"]}}, r"plot: no run has a number steps; did you mean step\?"),
        ({"plot": {"x": "step", "y": ["total", "total / totel"]}}, r"plot: no run has a number totel; did you mean total\?"),
        ({"plot": {"of": "runs", "x": "AP", "y": ["value_at_0.5"]}}, r"has a number value_at_0.5; did you mean value_at_0.4\?"),
    ],
)
def test_a_name_that_no_run_has_is_refused_with_the_near_one(more, said):
    known = Numbers(["AP", "AP50", "oLRP", "total_last", "value_at_0.4"], ["step", "total"])
    right = {"must_hold": [{"run": "AP <= AP50"}], "plot": {"x": "step", "y": ["total", "total / step"]}}
    check_numbers(study(**right), {"a": known, "b": known})
    with pytest.raises(ValueError, match=said):
        check_numbers(study(**right | more), {"a": known, "b": known})


def test_of_a_variant_whose_numbers_are_not_known_yet_nothing_is_refused():
    check_numbers(study(measure=["x"], must_hold=[{"run": "y > 0", "of": "b"}]), {"a": Numbers(["AP"], [])})


def test_numbers_as_given_and_lists_of_them():
    claim = {"within": 0.01, "equal": {"a": {"AP": 0.5, "p": [0.1, 0.2]}}}
    assert rule(claim, Run("a", None, {"AP": 0.505, "p": [0.1, 0.2]}, []))["violations"] == []
    found = rule(claim, Run("a", None, {"AP": 0.52, "p": [0.1]}, []))
    assert [v["found"] for v in found["violations"]] == ["AP = 0.52, not 0.5", "p[1] = None, not 0.2"]


def test_differences_are_paired_by_seed():
    runs = [Run("a", seed, {"AP": float(seed)}, []) for seed in (0, 1, 2)] + [Run("b", seed, {"AP": seed + 0.5}, []) for seed in (1, 2, 3)]
    assert paired_differences(runs, ["AP"], "a") == {"b": {"AP": {"mean": 0.5, "deviation": 0.0, "seeds": 2}}}


def test_curves_take_expressions_and_leave_out_what_is_undefined():
    rows = [{"step": step, "x": float(step), "y": 2.0} for step in range(4)] + [
        {"step": 4, "x": 1.0, "y": 0.0},
        {"step": 5, "x": None, "y": 1.0},
    ]
    (found,) = curves([Run("a", 0, {}, rows)], "step", ["x", "x / y"], points=3)
    assert found == {"variant": "a", "seed": 0, "step": [0.5, 2.5, 4.5], "x": [0.5, 2.5, 1.0], "x / y": [0.25, 1.25, None]}


def test_shares_by_rank_are_means_over_runs_and_thirds_of_the_training():
    rows = [{"step": s, "rank_iou": [s / 10, 1 - s / 10]} if s % 2 == 0 else {"step": s} for s in range(6)]
    rows[4]["rank_iou"] = [None, None]
    found = by_rank([Run("a", 0, {}, rows), Run("a", 1, {}, rows), Run("b", 0, {}, [])])
    assert found == {"a": {"rank_iou": [[0.0, 1.0], [0.2, 0.8], []]}}


def test_numbers_of_steps():
    found = with_step_numbers(Run("a", 0, {"AP": 0.5}, STEPS)).numbers
    assert (found["AP"], found["x_max"], found["y_median"], found["y_last"], found["x_last"]) == (0.5, 1.0, 2.0, 2.0, 1.0)


@pytest.mark.parametrize("name", shipped_studies())
def test_each_study_of_the_package_is_one_and_names_recipes_that_ship(name):
    found = read_study(shipped_studies()[name])
    assert found.title
    assert found.source
    assert found.paper
    assert {find_recipe(variant.recipe).stem for variant in found.variants if variant.recipe} == {
        variant.recipe for variant in found.variants if variant.recipe
    }


@pytest.mark.parametrize("name", shipped_studies())
def test_the_objective_of_each_variant_can_be_built(name):
    parser = ArgumentParser(exit_on_error=False)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # before jsonargparse 4.49
    parser.add_subclass_arguments(Objective, "objective")
    recipes = [recipe_of(variant) for variant in read_study(shipped_studies()[name]).variants if variant.recipe]
    for objective in {json.dumps(recipe["model"]["objective"]) for recipe in recipes}:
        built = instantiate(parser.parse_object({"objective": json.loads(objective)}))
        assert isinstance(built.objective, Objective)


DOCS, RESULTS = (Path(__file__).parents[2] / place for place in ("docs", "benchmarks/results/studies"))


@pytest.mark.parametrize("name", shipped_studies())
def test_each_study_has_a_page_in_the_menu_and_the_page_shows_what_was_measured(name):
    page = (DOCS / "studies" / f"{name}.md").read_text()
    assert f"- studies/{name}.md" in (DOCS.parent / "mkdocs.yml").read_text()
    assert (f"<!-- study {name} -->" in page) == (RESULTS / f"{name}.json").is_file()


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_what_was_measured_is_of_the_study_as_it_ships_and_held(file):
    document, study = json.loads(file.read_text()), read_study(shipped_studies()[file.stem])
    assert set(document["summary"]) <= {variant.name for variant in study.variants}
    assert document["measure"] == list(study.measure)
    assert document["machine"]["instruction_set"]
    assert document["command"].startswith(f"lossbox compare {file.stem}")
    assert [check["rule"] for check in document["checks"]] == [rule.text for rule in study.must_hold]
    assert all(check["checked"] > 0 and not check["violations"] for check in document["checks"])
