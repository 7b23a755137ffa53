"""The README's snippets run, and its tables are those of the JSON files that commands of this repository wrote."""

import importlib.util
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from lossbox import report
from lossbox.analysis import runs_of, summarize

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RECIPES = (ROOT / "src/lossbox/recipes" / "README.md").read_text()
RESULTS = ROOT / "benchmarks" / "results"


def test_the_snippets_run():
    snippets = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert snippets
    for snippet in snippets:
        result = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["ranking", "ranking_avx2"])
def test_the_speed_table_is_that_of_make_bench(name):
    assert load_benchmark("ranking").markdown(json.loads((RESULTS / f"{name}.json").read_text())) in README


def test_the_seconds_of_the_evaluation_are_those_of_make_bench():
    programs = json.loads((RESULTS / "evaluation.json").read_text())["programs"]
    for name in ("lossbox", "faster_coco_eval", "pycocotools"):
        assert f"{programs[name]['seconds']:.1f} s" in README
    assert abs(programs["lossbox"]["numbers"]["AP"] - programs["pycocotools"]["numbers"]["AP"]) < 1e-9


def test_the_accuracy_table_is_that_of_make_accuracy():
    written = json.loads((RESULTS / "digits_accuracy.json").read_text())
    assert report.accuracy_table(written["summary"]) in README
    assert report.accuracy_table(written["summary"]) in RECIPES
    assert report.accuracy_table(summarize(runs_of(written), report.COMPARED)) in README


def test_the_ratios_of_a_training_step_are_those_of_make_bench():
    detectors = json.loads((RESULTS / "step.json").read_text())["detectors"]
    for name in ("RetinaNet", "Faster R-CNN"):
        assert f"{detectors[name]['ratio']:.2f} x" in README
    assert f"{100 * detectors['RetinaNet']['loss_share']:.1f} %" in README
    on_gpu = json.loads((RESULTS / "step_cuda.json").read_text())["detectors"].values()
    assert "{:.2f} x and\n{:.2f} x".format(*(row["ratio"] for row in on_gpu)) in README
    assert "{:.0f} % and {:.0f} %".format(*(100 * row["loss_share"] for row in on_gpu)) in README


def load_benchmark(name):
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", ROOT / "benchmarks" / f"{name}.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    return benchmark


def test_what_the_small_detector_reaches_is_what_make_bench_small_wrote():
    written = json.loads((RESULTS / "small.json").read_text())
    assert load_benchmark("small").markdown(written["speed"], written["accuracy"]) in RECIPES
    speed, runs = written["speed"]["raccoon"], written["accuracy"]["raccoon"]
    ratio = speed["own_data"]["images_per_cpu_second"] / speed["yolo11n"]["images_per_cpu_second"]
    assert f"trains {ratio:.1f} times as many images per CPU second as Ultralytics' yolo11n" in README
    said = "AP {:.2f} after {:.0f} CPU minutes on 160 photographs, yolo11n {:.2f}"
    mean = {name: statistics.mean(run["AP"] for run in seeds) for name, seeds in runs.items()}
    numbers = (mean["own_data"], written["problem"]["minutes"], max(mean["yolo11n"], mean["yolo11n_nbs8"]))
    assert said.format(*numbers) in README


def test_the_tries_with_alrp_are_those_of_their_file():
    runs = json.loads((RESULTS / "digits_alrp_tries.json").read_text())["runs"]
    short = [run["AP"] for run in runs if run["recipe"] == "digits_foveabox_alrp" and run["epochs"] == 8]
    long = {run["recipe"]: run["AP"] for run in runs if run["epochs"] == 16}
    assert f"reach {min(short):.3f} to {max(short):.3f}" in RECIPES
    assert f"aLRP has {long['digits_foveabox_alrp']:.3f}, focal loss {long['digits_foveabox_focal']:.3f}" in RECIPES
    (balanced,) = (run["AP"] for run in runs if run["recipe"] == "digits_foveabox_ap")
    assert f"reaches {balanced:.3f}" in RECIPES


def test_the_tries_with_pretrained_features_are_those_of_their_file():
    runs = json.loads((RESULTS / "pretrained_tries.json").read_text())["runs"]
    assert len(runs) == 4
    for run in runs:
        numbers = " | ".join(f"{run[name]:.3f}" for name in ("AP", "AP50", "AP75", "oLRP"))
        assert f"| {run['images_per_cpu_second']:.1f} | {run['cpu_minutes']:.1f} | {run['epochs']} | {numbers} |" in RECIPES
    assert min(run["AP"] for run in runs[1:]) > 1.5 * runs[0]["AP"]  # "far above random weights"


def test_the_elementwise_losses_cost_what_the_readme_says():
    measured = json.loads((RESULTS / "losses.json").read_text())
    assert max(row["ratio"] for row in measured["rows"]) <= measured["target"]


@pytest.mark.parametrize("name", ["digits_losses", "digits_detectors", "digits_small"])
def test_the_tables_of_the_recipes_are_those_of_make_accuracy(name):
    written = json.loads((RESULTS / f"{name}.json").read_text())
    assert report.accuracy_table(written["summary"]) in RECIPES
    assert report.accuracy_table(summarize(runs_of(written), report.COMPARED)) in RECIPES


def test_a_number_of_the_accuracies_in_the_text_is_that_of_its_file():
    summary = json.loads((RESULTS / "digits_losses.json").read_text())["summary"]
    for recipe in ("rank_sort", "qfl_giou", "focal_giou", "ap", "cross_entropy"):
        assert f"{summary[f'digits_retinanet_{recipe}']['AP']['mean']:.3f}" in README


def test_every_recipe_is_in_the_list():
    for recipe in (ROOT / "src/lossbox/recipes").glob("*.yaml"):
        assert f"`{recipe.name}`" in RECIPES, recipe.name


def test_a_recipe_says_what_was_measured():
    for name in ("digits_losses", "digits_detectors", "digits_accuracy", "digits_small"):
        for recipe, row in json.loads((RESULTS / f"{name}.json").read_text())["summary"].items():
            header = (ROOT / "src/lossbox/recipes" / f"{recipe}.yaml").read_text().split("out:")[0]
            if name in header:
                assert f"AP {row['AP']['mean']:.3f}, oLRP {row['oLRP']['mean']:.3f}" in header, recipe


def test_what_the_readme_links_to_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_seconds_by_how_long_threads_spin_are_those_of_their_files():
    written = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("threads*.json"))]
    assert load_benchmark("threads").table(written) in (ROOT / "docs" / "machines.md").read_text()


def test_what_the_small_detector_reaches_in_ten_minutes_is_in_its_file():
    written = json.loads((RESULTS / "small_10_minutes.json").read_text())["accuracy"]["raccoon"]
    text = " ".join(RECIPES.split())
    for name in ("own_data", "yolo11n_nbs8"):
        run = written[name][0]
        assert f"`{name}`{' has' if name == 'own_data' else ''} AP {run['AP']:.3f}, AP75 {run['AP75']:.3f}" in text
