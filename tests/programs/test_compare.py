"""`lossbox compare` on a study, called as a user would."""

import json
import re
import textwrap

import pytest

from lossbox.__main__ import main
from lossbox.analysis import shipped_studies
from lossbox.programs.grid_numbers import of_training
from lossbox.training.cli import LossboxCLI

STUDIES = shipped_studies()


def test_toy_prints_the_papers_numbers_and_writes_them(tmp_path, capsys):
    assert main(["compare", "toy", "--json", str(tmp_path / "new" / "toy.json"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    lines = [line.replace("|", " ").split() for line in said.splitlines()]
    # the losses of C & R3: cross-entropy, AP, IoU, aLRP; AP by IoU and their mean; oLRP, rho
    row = ["0.873", "0.358", "0.275", "0.892", "0.513", "0.193", "0.080", "0.020", "0.202", "0.836", "-0.989", "1"]
    assert ["C", "&", "R3", *row] in lines
    assert "held, 147 checked" in said
    numbers = json.loads((tmp_path / "new" / "toy.json").read_text())
    assert numbers["summary"]["C & R2"]["alrp_loss"]["mean"] == pytest.approx(0.6925)
    assert numbers["runs"][2]["precision_65"] == pytest.approx([1 / 3] * 4 + [0.3] * 2 + [0] * 4)
    assert numbers["command"] == "lossbox compare toy --seeds 0 1 2"
    assert numbers["machine"]["instruction_set"]
    assert (tmp_path / "out" / "toy.png").read_bytes().startswith(b"\x89PNG")


def test_help_lists_the_studies(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    listed = [line.split()[0] for line in shown.splitlines() if re.match(r"  [a-z-]+  +\w", line)]
    assert sorted(listed) == sorted(STUDIES)


def test_what_is_neither_study_nor_recipe_names_both(capsys):
    assert main(["compare", "toi"]) == 2
    said = capsys.readouterr().err
    assert "no file toi, and no study or recipe of that name ships with lossbox; did you mean toy?" in said
    assert main(["compare", "digits_retinanet_alpr"]) == 2
    assert "did you mean digits_retinanet_alrp?" in capsys.readouterr().err
    assert main(["compare", "zzz"]) == 2
    assert "`lossbox compare --help` lists the studies, `lossbox fit --help` the recipes\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["toy", "balance"], "a study stands alone, got toy balance"),
        (["toy", "--jobs", "0"], "jobs: a number >= 1"),
        (["toy", "--minutes", "0"], "minutes: a number > 0 expected, got 0"),
        (["toy", "--minutes", "1"], "which only computes"),
        (["toy", "--seeds", "1", "1"], "seeds: at least one, each once, expected, got 1 1"),
        (["toy", "--seeds"], "seeds: at least one, each once, expected, got none"),
        (["toy", "--only", "C & R9"], "only: no variant C & R9; there are C & R1, C & R2"),
        (["digits_retinanet_alrp", "--only", "a"], "only: a study expected"),
        (["digits_retinanet_alrp", "digits_retinanet_alrp.yaml"], "recipes of different names"),
    ],
)
def test_what_does_not_fit_is_refused(words, said, capsys, tmp_path):
    assert main(["compare", *words, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_some_variants_of_a_study_with_the_rules_about_them(tmp_path, capsys):
    words = ["compare", "regression-curves", "--only", "smooth L1, beta 0.5", "wrong*", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "held, 1 checked: run: max" not in capsys.readouterr().out  # also that of wrong, beta 1
    document = json.loads((tmp_path / "regression-curves.json").read_text())
    assert list(document["summary"]) == ["smooth L1, beta 0.5", "wrong, beta 1", "wrong, beta 0.5", "wrong, beta 1/9"]
    assert [check["of"] for check in document["checks"]] == [
        ["smooth L1, beta 0.5", "wrong, beta 1"],
        ["wrong, beta 0.5", "wrong, beta 1/9"],
    ]
    assert document["baseline"] == "smooth L1, beta 0.5"
    assert "--only 'smooth L1, beta 0.5' 'wrong*'" in document["command"]


def test_a_study_of_ones_own_that_does_not_hold_ends_with_2_and_says_where(tmp_path, capsys, monkeypatch):
    text = """
        title: Mine
        call: lossbox.analysis.regression.regression_curve
        options: {form: smooth L1, points: 3}
        variants: {one: {beta: 1.0}, half: {beta: 0.5}}
        measure: [value_at_0.4]
        must_hold: [{every step: value < 1.6}, {run: jump < 1}]
    """
    (tmp_path / "mine.yaml").write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "mine.yaml"]) == 2
    printed = capsys.readouterr()
    assert "run half: every step: value < 1.6; found {'value': 1.75}" in printed.err
    assert "2 violations" in printed.err
    assert "VIOLATED 2 times: every step: value < 1.6" in printed.out
    assert "held, 2 checked: run: jump < 1" in printed.out
    checks = json.loads((tmp_path / "runs" / "studies" / "mine" / "mine.json").read_text())["checks"]
    assert [len(one["violations"]) for one in checks] == [2, 0]
    (tmp_path / "mine.yaml").write_text(textwrap.dedent(text).replace("points: 3", "points: 5"))
    assert main(["compare", "mine.yaml"]) == 2
    assert "holds a run with other options" in capsys.readouterr().err


def test_a_study_may_be_json(tmp_path, capsys, monkeypatch):
    call = "lossbox.analysis.regression.regression_curve"
    study = {"title": "Mine", "call": call, "variants": {"one": {"form": "smooth L1", "points": 3}}, "measure": ["value_at_0.4"]}
    monkeypatch.chdir(tmp_path)
    for number, text in enumerate((json.dumps(study), json.dumps(study, indent="\t"))):
        (tmp_path / f"mine{number}.json").write_text(text)
        assert main(["compare", f"mine{number}.json"]) == 0, capsys.readouterr().err
        assert "value_at_0.4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"title": "Mine", "variants": {"one": {}', "study: mine.json is neither YAML nor JSON: "),
        ('{"title": "Mine", "measure": ["AP"]}', "study: mine.json: title, variants and measure expected, got no variants"),
        ('{"model": {}, "variants": []}', "study: mine.json: no key model; a study has"),
        ("[1]", "NAMES: mine.json must hold a recipe, got list"),
    ],
)
def test_json_that_is_meant_as_a_study_is_told_what_it_lacks(text, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text(text)
    assert main(["compare", "mine.json"]) == 2
    assert f"lossbox compare: {said}" in capsys.readouterr().err


STUDY = """
title: Two weights of the boxes
source: none
options:
  data.image_size: 64
  model.detector.init_args.backbone.stages: 2
  model.detector.init_args.backbone.strides: [4, 8]
  model.detector.init_args.backbone.channels: 8
recipe: digits_tiny_alrp
variants:
  self-balance: {}
  learned: {model.objective.init_args: {self_balance: false, uncertainty_weights: true}}
seeds: [0]
measure: [AP, AP_frequent, upper, weight_localization_last]
must_hold:
  - every step: abs(negative_gradient - positive_gradient) <= 1e-5 * positive_gradient
  - every step: weight_localization == 50
    of: self-balance
plot: {x: step, y: [localization, classification / localization]}
"""


def test_a_study_on_a_folder_of_data_goes_on_where_it_stopped(tmp_path, capsys, monkeypatch):
    """Two trainings of two steps in the time of a few steps, with bounds; then those of the second are taken away."""
    (tmp_path / "weights.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    assert main(["digits", "mine", "--train-images", "4", "--val-images", "3"]) == 0
    words = ["compare", "weights.yaml", "--data", "mine", "--minutes", "0.001", "--data.batch_size", "2"]
    assert main(words) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "1 epochs for each training" in said
    assert re.search(r"-- learned, seed 0 \(run 2 of 2; .* left\)", said)
    out = tmp_path / "runs" / "studies" / "weights"
    document = json.loads((out / "weights.json").read_text())
    assert all(not one["violations"] and one["checked"] > 0 for one in document["checks"])
    for run in document["runs"]:
        assert run["lower"] <= run["AP"] <= run["upper"]
        assert run["precision"] == "32-true"
        assert 0 <= run["AP_frequent"] <= 1
    numbers = of_training(LossboxCLI(["validate", "--config", str(out / "learned" / "seed-0" / "config.yaml")], until="built").model)
    rows = [json.loads(line) for line in (out / "learned" / "seed-0" / "steps.jsonl").read_text().splitlines()]
    listed = {name for name in rows[0] if name.startswith("rank_")}
    assert set(numbers.of_steps) == set().union(*rows) - listed
    other = {"variant", "seed", "precision", "accelerator"}
    assert set(document["runs"][1]) - other == set(numbers.of_run)  # what is said of a training before it is what it has
    assert document["runs"][1]["weight_localization_last"] != 1  # the learned weight reached the optimizer
    assert document["runs"][1]["weight_localization_last"] == pytest.approx(1, abs=0.1)
    assert document["command"].endswith("--data mine --minutes 0.001 --data.batch_size 2")
    assert len(document["curves"][0]["localization"]) == 2
    folder = out / "learned" / "seed-0"
    assert {"config.yaml", "recipe.yaml", "variant.yaml", "steps.jsonl", "checkpoints", "metrics.json", "bounds.json"} <= {
        path.name for path in folder.iterdir()
    }
    (folder / "bounds.json").unlink()
    first = (out / "self-balance" / "seed-0" / "run.json").stat().st_mtime_ns
    assert main(words) == 0
    assert "1 of 2 runs are done already" in capsys.readouterr().out
    assert (folder / "bounds.json").is_file()
    assert (out / "self-balance" / "seed-0" / "run.json").stat().st_mtime_ns == first
    again = json.loads((out / "weights.json").read_text())
    assert again["runs"] == document["runs"]
    assert main([*words, "--trainer.max_steps", "1"]) == 2
    assert "holds a run with other options" in capsys.readouterr().err


def test_a_misspelled_number_is_named_and_the_runs_stay(tmp_path, capsys, monkeypatch):
    text = """
        title: Mine
        call: lossbox.analysis.regression.regression_curve
        variants: {one: {form: smooth L1, points: 3, beta: 1.0}}
        measure: [value_at_O.4]
    """
    (tmp_path / "mine.yaml").write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "mine.yaml"]) == 2
    assert "study: mine.yaml: measure: no run has a number value_at_O.4; did you mean value_at_0.4?" in capsys.readouterr().err
    (tmp_path / "mine.yaml").write_text(textwrap.dedent(text).replace("O.4", "0.4"))
    assert main(["compare", "mine.yaml"]) == 0
    assert "1 of 1 runs are done already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("must_hold: [{every step: clasification >= 0}]", "no run of plain has a number clasification; did you mean classification?"),
        ("plot: {x: step, y: [weight_lokalization]}", "plot: no run has a number weight_lokalization; did you mean weight_localization?"),
        ("must_hold: [{run: weight_localization_lest > 0}]", "_lest; did you mean weight_localization_last?"),
    ],
)
def test_a_number_that_no_training_will_have_is_refused_before_the_first(key, said, tiny_run, tmp_path, capsys):
    text = f"title: mine\nrecipe: {tiny_run.config}\nvariants: {{plain: {{}}}}\nmeasure: [AP]\n{key}\n"
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["compare", str(tmp_path / "mine.yaml"), "--seeds", "0", "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "training RetinaNet" not in printed.out
    assert not list(tmp_path.glob("out/*/*/checkpoints"))


def test_a_mistake_in_the_last_variant_is_found_before_the_first_is_trained(tiny_run, tmp_path, capsys):
    text = f"""
        title: box weights
        recipe: {tiny_run.config}
        variants:
          plain: {{}}
          misspelled: {{model.objective.init_args.self_balanced: true}}
        measure: [AP]
        """
    (tmp_path / "weights.yaml").write_text(textwrap.dedent(text))
    assert main(["compare", str(tmp_path / "weights.yaml"), "--seeds", "0", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert f"lossbox compare: study: {tmp_path}/weights.yaml: misspelled: " in said.err
    assert "self_balanced" in said.err
    assert "training RetinaNet" not in said.out
    assert not list(tmp_path.glob("out/*/*/checkpoints"))
    # nothing has begun: a study with the mistake mended takes the same folders
    words = ["compare", str(tmp_path / "weights.yaml"), "--seeds", "0", "--out", str(tmp_path / "out")]
    (tmp_path / "weights.yaml").write_text(textwrap.dedent(text).replace("{}", "{trainer.max_epochs: 1}"))
    assert main(words) == 2
    assert "misspelled: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data.bach_size": 3}, "Subcommand 'fit' does not accept option 'data.bach_size'; did you mean --data.batch_size?"),
        ({"data.batch_size": 0}, "--data.batch_size: at least 1 expected, got 0"),
    ],
)
@pytest.mark.parametrize("where", [["--data", "mine"], []], ids=["a folder", "digits"])
def test_a_wrong_option_in_a_study_is_found_before_its_data_is_made(options, said, where, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["digits", "mine", "--train-images", "2", "--val-images", "2"]) == 0
    (tmp_path / "mine.json").write_text(
        json.dumps({"title": "t", "recipe": "digits_tiny_alrp", "variants": {"right": {}, "wrong": options}, "measure": ["AP"]})
    )
    monkeypatch.setattr("lossbox.programs.fit.convert", None)
    monkeypatch.setattr("lossbox.data.digits.write_digits", None)
    assert main(["compare", "mine.json", *where]) == 2
    assert f"lossbox compare: study: mine.json: wrong: {said}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine.json"]


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ({"form": "smooth L1", "point": 3}, "lossbox.analysis.regression.regression_curve takes no argument point; did you mean points?"),
        ({"call": "lossbox.analysis.regression.curve"}, "call: no function lossbox.analysis.regression.curve: "),
    ],
)
def test_a_wrong_call_in_a_study_is_named_before_anything_is_computed(variant, said, tmp_path, capsys, monkeypatch):
    call, right = "lossbox.analysis.regression.regression_curve", {"form": "smooth L1", "points": 3}
    study = {"title": "t", "call": call, "variants": {"right": right, "wrong": variant}, "measure": ["value_at_0.4"]}
    (tmp_path / "mine.json").write_text(json.dumps(study))
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "mine.json"]) == 2
    assert f"lossbox compare: study: mine.json: wrong: {said}" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_a_study_with_a_time_names_the_variant(tiny_run, tmp_path, capsys):
    text = f"title: mine\nrecipe: {tiny_run.config}\nvariants: {{wrong: {{data.batch_size: 0}}}}\nmeasure: [AP]\n"
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["compare", str(tmp_path / "mine.yaml"), "--minutes", "1", "--out", str(tmp_path / "out")]) == 2
    assert f"lossbox compare: study: {tmp_path}/mine.yaml: wrong: --data.batch_size: at least 1 expected, got 0" in capsys.readouterr().err


def test_jobs_train_side_by_side_what_they_train_one_after_another(tiny_run, tmp_path, capsys, monkeypatch):
    words = ["compare", str(tiny_run.config), "--seeds", "0", "1", "--artifacts", "false", "--trainer.enable_checkpointing", "false"]
    part = tiny_run.images.parent / "train"  # that of the validation was changed
    words += ["--data.val_annotations", f"{part}.json", "--data.val_images", str(part)]
    monkeypatch.setattr("lossbox.data.digits.SILENCE", 0.1)
    found, said = {}, {}
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        assert main([*words, "--jobs", jobs, "--out", str(out), "--json", str(out / "all.json")]) == 0
        said[jobs] = capsys.readouterr().out.splitlines()
        document = json.loads((out / "all.json").read_text())
        found[jobs] = [run[name] for run in document["runs"] for name in ("seed", "AP", "oLRP", "steps")]
        assert document["summary"]["config"]["seeds"] == [0, 1]
        assert all(run["cpu_minutes"] > 0 and run["accelerator"] == "cpu" for run in document["runs"])
    assert found["1"] == pytest.approx(found["2"], rel=1e-6)  # trainings side by side have fewer threads, which add in another order
    assert "training RetinaNet" in (tmp_path / "2" / "config" / "seed-1" / "log.txt").read_text()
    assert any(line.startswith("training RetinaNet") for line in said["1"])
    assert not any(line.startswith("training RetinaNet") for line in said["2"])
    assert "   config, seed 0: starts" in said["2"]  # and later the last line of its log


def test_a_failed_job_is_named_with_its_log(tiny_run, tmp_path, capsys):
    words = ["compare", str(tiny_run.config), "--seeds", "0", "--jobs", "2", "--out", str(tmp_path)]
    assert main([*words, "--data.train_annotations", "nowhere.json"]) == 2
    said = capsys.readouterr().err
    assert "1 of 1 trainings failed" in said
    assert "nowhere.json does not exist" in said
    assert str(tmp_path / "config" / "seed-0" / "log.txt") in said
    assert main([*words, "--jobs", "0"]) == 2
    assert "jobs: a number >= 1" in capsys.readouterr().err
