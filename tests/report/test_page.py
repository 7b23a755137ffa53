"""The page: what is in it, and what a browser makes of it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lossbox import report
from lossbox.metrics import DetectionColumns, GroundTruth, evaluate

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ATTACK = "</script><script>window.hacked = 1</script>"
NAMES = (ATTACK, "<img src=x onerror='window.hacked = 1'> & \"quoted\" ${1} {{ 7 * 7 }}", "שלום 🐱")


def made(random_data, name, seed, root, *, rate=0.1, truth=None):
    """A run with names that try to get out of the page, and one image that can be opened."""
    random_truth, found = random_data(seed)
    files = ("a.png", f"{ATTACK}.png", *("gone.png",) * (len(random_truth.image_ids) - 2))
    truth = truth or replace(random_truth, category_names=NAMES, file_names=files)
    root.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), (90, 120, 60)).save(root / "a.png")
    config = {"seed_everything": seed, "out": name, "model": {"rate": rate, "note": ATTACK}}
    logged = ("val/AP", "train/total", f"train/{ATTACK}", "weight/b", "lr", "gradient_balance")
    curves = {key: ([1, 2, 3], [0.1, 0.2, 0.3]) for key in logged}
    facts = {"minutes": 1.5, "epochs": 3, "command": ["fit", ATTACK]}
    return report.Run(f"{name} {ATTACK}", Path(name), config, facts, curves, truth, found, root, evaluate(truth, found), (ATTACK,))


def content_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def many_classes(count=80):
    rng = np.random.default_rng(0)
    image, category = np.repeat(np.arange(5), count), np.tile(np.arange(count), 5)
    boxes = np.concatenate([rng.uniform(0, 200, (5 * count, 2)), rng.uniform(20, 60, (5 * count, 2))], axis=1)
    names = tuple(f"class number {index}" for index in range(count))
    truth = GroundTruth(np.arange(5), np.arange(count), names, image, category, boxes, boxes[:, 2] * boxes[:, 3], category < 0)
    found = DetectionColumns(image, category, boxes * rng.uniform(0.9, 1.1, (5 * count, 1)), rng.random(5 * count))
    return report.Run("many", Path("many"), {}, {}, {}, truth, found, None, evaluate(truth, found))


def nothing_found(random_data):
    truth, found = random_data(0)
    none = DetectionColumns(found.image[:0], found.category[:0], found.boxes[:0], found.scores[:0])
    return report.Run("nothing", Path("nothing"), {}, {}, {}, truth, none, None, evaluate(truth, none))


def test_all_text_is_escaped_and_all_numbers_are_those_of_the_metrics(tmp_path, random_data):
    run = made(random_data, "a", 0, tmp_path)
    page = report.render_page([run], command=f"lossbox report {ATTACK}")
    assert ATTACK not in page
    assert "<img src=x" not in page
    assert "49" not in re.findall(r"\$\{1\} (.*?)\"", page)
    content = content_of(page)
    assert content["sets"][0]["classes"] == list(NAMES)
    assert content["runs"][0]["numbers"]["AP"] == pytest.approx(run.metrics["AP"], rel=1e-5)
    for shown, row in zip(content["runs"][0]["classes"], run.metrics["per_class"], strict=True):
        assert (shown["oLRP"], shown["threshold"]) == pytest.approx((row["oLRP"], row["threshold"]), abs=1e-4)
        assert sum(shown["shares"]) == pytest.approx(row["oLRP"], abs=1e-3)
    matrix = np.zeros((4, 4), dtype=int)
    for row, column, number in content["runs"][0]["confusion"]:
        matrix[row, column] = number
    thresholds = [row["threshold"] for row in run.metrics["per_class"]]
    assert matrix.tolist() == report.confusion_matrix(run.truth, run.found, thresholds).tolist()
    assert sum(image["source"] is not None for image in content["sets"][0]["images"]) == 1
    at_75 = content_of(report.render_page([run], command="", tau=0.75))["runs"][0]["numbers"]
    assert at_75["AP"] == content["runs"][0]["numbers"]["AP"]
    assert at_75["oLRP"] > content["runs"][0]["numbers"]["oLRP"]


def test_runs_on_the_same_annotations_show_the_same_images(tmp_path, random_data):
    first = made(random_data, "a", 0, tmp_path)
    second = made(random_data, "b", 1, tmp_path, rate=0.2, truth=first.truth)
    third = made(random_data, "c", 2, tmp_path, rate=0.3)
    unmeasured = replace(first, name="d", truth=None, found=None, metrics=None)
    content = report.page_content([first, unmeasured, second, third])
    assert [run.get("set") for run in content["runs"]] == [0, None, 0, 1]
    assert [len(content["runs"][index]["found"]) for index in (0, 2)] == [len(content["sets"][0]["images"])] * 2
    assert [run["group"] for run in content["runs"]] == [0, 0, 1, 2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory, random_data):
    root = tmp_path_factory.mktemp("pages")
    first = made(random_data, "a", 0, root / "images")
    second = made(random_data, "b", 1, root / "images", truth=first.truth)
    third = made(random_data, "c", 2, root / "images", rate=0.2, truth=first.truth)
    unmeasured = replace(first, truth=None, found=None, metrics=None, facts={}, curves={})
    runs = {"one": [first], "three": [first, second, third], "odd": [many_classes(), nothing_found(random_data), unmeasured]}
    return {name: report.write_page(root / f"{name}.html", of, command=ATTACK) for name, of in runs.items()}


def test_a_page_is_a_file_of_two_megabytes(pages):
    assert 1.5e6 < pages["one"].stat().st_size < 2.5e6


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_a_browser_draws_filters_and_runs_nothing_of_the_data(pages):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs lossbox[docs]")
    problems = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else problems.append(request.url))
        for name, look_at in (("one", look_at_one), ("three", look_at_three), ("odd", look_at_odd)):
            page.goto(pages[name].as_uri())
            page.wait_for_selector("html[data-ready]", timeout=60_000)
            assert page.evaluate("window.hacked") is None
            look_at(page)
            page.set_viewport_size({"width": 390, "height": 800})
            assert page.evaluate("document.scrollingElement.scrollWidth - document.documentElement.clientWidth") <= 0, name
            page.set_viewport_size({"width": 1280, "height": 800})
        browser.close()
    assert problems == []


def look_at_one(page):
    rows, figures = page.locator("#class-table tbody tr"), page.locator("#gallery figure")
    assert rows.count() == 3
    assert page.locator("#confusion-chart .heatmaplayer text, #confusion-chart .hm text").count() > 3
    page.locator("#order").select_option("all")
    shown, boxes = figures.count(), page.locator("#gallery rect").count()
    title = page.locator("#pr .gtitle").inner_html()
    rows.filter(has_text="שלום").click()
    assert page.locator("#class").input_value() == "2"
    assert page.locator("#gallery rect").count() < boxes
    assert "שלום" in page.locator("#pr .gtitle").inner_html() != title
    page.locator("#class").select_option("")
    assert (figures.count(), page.locator("#gallery rect").count()) == (shown, boxes)
    page.locator("#score").fill("0")
    most = page.locator("#gallery rect").count()
    assert not page.locator("#cuts").is_checked()
    page.locator("#score").fill("900")
    assert page.locator("#gallery rect").count() < most
    page.locator("#class-table thead th", has_text="AP50").click()
    numbers = [float(text) for text in page.locator("#class-table tbody td:nth-child(4)").all_inner_texts()]
    assert numbers == sorted(numbers, reverse=True)
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.locator("#gallery svg").first.click()
    assert page.locator("#large svg").is_visible()
    page.keyboard.press("Escape")


def look_at_three(page):
    assert page.locator("#summary tbody tr").count() == 3
    assert page.locator("#comparison table").first.locator("tbody tr").count() == 2
    assert page.locator("#recipe tbody tr").all_inner_texts() == ["model.rate\t0.1\t0.2"]
    assert page.locator("#pr .scatterlayer .trace").count() == 3
    page.locator("#run").select_option("2")
    assert page.locator("#pr .scatterlayer .trace").count() == 5
    assert "c " in page.locator("#images .which").inner_text()


def look_at_odd(page):
    """80 classes, nothing found, and a run that was interrupted."""
    assert page.locator("#comparison .note").count() == 1
    page.locator("#run").select_option("0")
    assert page.locator("#class-table tbody tr").count() == 80
    assert page.locator("#confusion-chart .hm text").count() == 0
    page.locator("#class-table tbody tr").first.click()
    assert page.locator("#gallery figure").count() > 0
    page.locator("#run").select_option("1")
    assert page.locator("#class option").count() == 4
    assert "nothing found" in page.locator("#lrp").inner_text()
    assert page.locator("#gallery rect.missed").count() > 0
    page.locator("#run").select_option("2")
    assert not page.locator("#images").is_visible()
    assert page.locator("#summary .note", has_text="window.hacked").count() == 1
