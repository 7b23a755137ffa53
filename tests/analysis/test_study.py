"""Studies: what a file may say, rules that hold and rules that do not, and numbers over seeds."""

import json
import math
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from lossbox.analysis import Run, by_rank, check, curves, paired_differences, parse_study, read_study, shipped_studies, with_step_numbers
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
    ],
)
def test_what_is_no_study_is_refused(more, said):
    with pytest.raises(ValueError, match=said):
        study(**more)


def test_a_file_that_is_no_study_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    for text, said in (
        ("a: [", "is not YAML"),
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
    with pytest.raises(ValueError, match="no number APx; there are AP, oLRP"):
        rule({"run": "APx > 0"}, Run("a", 0, {"AP": 1.0, "oLRP": 0.5, "name": "n"}, []))


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
