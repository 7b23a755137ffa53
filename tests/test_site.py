"""The site: it builds without a warning, its formulas and curves are right, and a browser finds nothing missing on any page."""

import functools
import http.server
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import torch

from lossbox.losses import CATALOG

pytest.importorskip("mkdocs", reason="needs lossbox[docs]")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
curves = importlib.import_module("curves")
formulas = importlib.import_module("formulas")
pages = importlib.import_module("pages")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


# -- formulas


@pytest.mark.parametrize(
    ("plain", "latex"),
    [
        ("L = 1/|P| sum_i N_FP(i) / rank(i)", r"L = \frac{1}{\left|P\right|}\,\sum_{i} \,\frac{N_{\text{FP}}(i)}{\text{rank}(i)}"),
        ("b x/beta", r"b\,\frac{x}{\beta }"),
        ("H(s_k - s_i) 1[y_k < y_i]", r"H(s_{k} - s_{i})\,\mathbf{1}\!\left[y_{k} < y_{i}\right]"),
        ("G = sum_{i=1..|P|} 1 / log2(1 + i)", r"G = \sum_{i = 1}^{\left|P\right|} \,\frac{1}{\log_{2}(1 + i)}"),
        ("(1 - p)^gamma log(p)", r"\left(1 - p\right)^{\gamma }\,\log (p)"),
        ("rank+(i) + l*(i) - p*_i", r"\text{rank}^{+}(i) + l^{\ast }(i) - p_{i}^{\ast }"),
        ("|C \\ (A u B)| / |C|", r"\frac{\left|C \setminus \left(A \cup B\right)\right|}{\left|C\right|}"),
        ("p(j|i) ~ H(s_j - s_i) phi(s_j)", r"p(j\mid i) \propto H(s_{j} - s_{i})\,\phi (s_{j})"),
        ("a / b / (c d)", r"\frac{\frac{a}{b}}{c\,d}"),
        ("(a + b) (c + d) / e", r"\left(a + b\right)\,\frac{c + d}{e}"),
    ],
)
def test_plain_notation_becomes_latex(plain, latex):
    assert formulas.span_to_latex(plain) == latex


@pytest.mark.parametrize(
    "code",
    [
        "cutoff=math.inf",
        "logits[targets == 1]",
        "(P, 4)",
        "loss(input, target, *, weight, normalizer)",
        "timm/resnet18",
        "lossbox evaluate --thresholds",
        "global_batch=True",
        "assignment.matched >= 0",
        "x1 y1 x2 y2",
        "localization_error",
        "beta",
        '{"mean": 1}',
        "sum_i p_i / sum_i q_i",  # where the divisor ends cannot be told
    ],
)
def test_code_stays_code(code):
    assert formulas.span_to_latex(code) is None


def render(text):
    import markdown

    return markdown.markdown(text, extensions=[formulas.Formulas(), "pymdownx.superfences"])


def test_where_formulas_are_typeset():
    assert render("so ``x < beta`` holds").count("<math") == 1
    assert render("so $x < \\beta$ holds").count("<math") == 1
    assert render("$$\n\\sum_i x_i\n$$").count('display="block"') == 1
    assert render("costs $5 and $6").count("<math") == 0
    assert render("text\n\n    l(i) = 1 / rank(i)        l*(i) = 0\n    y = x     where it holds").count("<math") == 3
    assert render("```\n$x$ ``x < y``\n```").count("<math") == 0
    assert "<code>" in render("text\n\n    for name in names:\n        print(name)")


@pytest.mark.parametrize("name", CATALOG)
def test_a_loss_has_a_typeset_formula(name):
    assert "<math" in render(pages.description(CATALOG[name].function))


# -- curves


@pytest.mark.parametrize("name", CATALOG)
def test_the_curves_are_those_of_the_loss(name):
    """The numbers that the page draws are what the function returns for the options that its sliders show."""
    table = curves.table(name, points=3)
    sliders = [(slider["name"], slider["values"]) for slider in table["sliders"]]
    strides = [len(values) for _, values in sliders]
    for slider in table["sliders"]:
        assert slider["start"] in slider["values"]
    index = len(table["tables"]) // 2
    chosen, rest = {}, index
    for (option, values), stride in reversed(list(zip(sliders, strides, strict=True))):
        chosen[option], rest = values[rest % stride], rest // stride
    loss = functools.partial(CATALOG[name].function, **chosen)
    for place, x in enumerate(table["x"]):
        values, gradients = [], []
        for line in curves.axis_of(name).lines.values():
            position = torch.tensor([x], dtype=torch.float64, requires_grad=True)
            result = line(loss, position)
            for part in result if isinstance(result, tuple) else (result,):
                values.append(part.sum().item())
                gradient = (
                    torch.autograd.grad(part.sum(), position, retain_graph=True, allow_unused=True)[0] if part.requires_grad else None
                )
                gradients.append(0.0 if gradient is None else gradient.item())
        drawn = table["tables"][index]
        assert [line[place] for line in drawn["values"]] == pytest.approx(values, rel=1e-3, abs=1e-9)
        assert [line[place] for line in drawn["gradients"]] == pytest.approx(gradients, rel=1e-3, abs=1e-9)


def test_a_table_is_a_script():
    text = curves.script("l1_loss", curves.table("l1_loss", points=3))
    assert json.loads(text.partition(" = ")[2].rstrip(";\n"))["tables"][0]["values"] == [[3.0, 0.0, 3.0]]


# -- reference


def test_every_public_name_is_documented():
    assert pages.undocumented() == []


def test_an_undocumented_name_is_found(monkeypatch):
    monkeypatch.setattr(pages.package()["boxes.overlap.box_area"], "docstring", None)
    assert pages.undocumented() == ["lossbox.boxes.box_area"]


def test_the_reference_has_every_public_name():
    import lossbox.losses

    written = "\n".join(pages.reference_pages().values())
    for name in lossbox.losses.__all__:
        assert name in CATALOG or f"heading: lossbox.losses.{name}\n" in written
    for name in ("metrics.evaluate", "metrics.torchmetric.OptimalLRP", "training.load.load_trained"):
        assert f"heading: lossbox.{name}\n" in written


# -- the built site


class Page(HTMLParser):
    """The anchors of a page and what it points at."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.update(value for key in ("id", "name") if (value := found.get(key)))
        self.targets += [found[key] for key in ("href", "src") if found.get(key)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {
        "LOSSBOX_CURVE_POINTS": "3",
        "NO_MKDOCS_2_WARNING": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "src"),
    }
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_internal_links_and_images_resolve(site):
    parsed = {path: Page(path.read_text()) for path in site.rglob("*.html")}
    assert len(parsed) > 40
    for path, page in parsed.items():
        for target in page.targets:
            if path.name == "404.html" or re.match(r"\w+:", target):
                continue
            file, anchor = urldefrag(unquote(target))
            place = (path.parent / file).resolve() if file else path
            place = place / "index.html" if place.is_dir() else place
            assert place.is_file(), (path.name, target)
            assert not anchor or place.suffix != ".html" or anchor in parsed[place].ids | {"__tabbed_1_1"}, (path.name, target)


def test_no_table_has_an_empty_head(site):
    for path in site.rglob("*.html"):
        for head in re.findall(r"<thead>(.*?)</thead>", path.read_text(), re.DOTALL):
            assert all(cell.strip() for cell in re.findall(r"<th[^>]*>(.*?)</th>", head, re.DOTALL)), path.name


def test_nothing_is_asked_of_another_host(site):
    """What a page loads by itself: scripts, styles, images and fonts."""
    for path in site.rglob("*.html"):
        assert re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(?:https?:)?//[^"]+"', path.read_text()) == [], path.name


CUT = """() => {
  const width = document.documentElement.clientWidth, found = [];
  if (document.scrollingElement.scrollWidth > width + 1) found.push("page " + document.scrollingElement.scrollWidth);
  for (const element of document.querySelectorAll(".md-content :is(math, code, table, img, svg)")) {
    if (element.getBoundingClientRect().right <= width + 1) continue;
    let box = element;
    while (box && !box.matches(".md-content") && !["auto", "scroll"].includes(getComputedStyle(box).overflowX)) box = box.parentElement;
    if (!box || box.matches(".md-content")) found.push(element.tagName + " " + element.textContent.slice(0, 40));
  }
  return found;
}"""

INDEX = "search/search_index.json"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_a_browser_finds_nothing_wrong_on_any_page(site):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs lossbox[docs]")
    handler = functools.partial(QuietHandler, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/"
    problems = []
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.on("console", lambda message: problems.append((page.url, message.text)) if message.type == "error" else None)
            page.on("pageerror", lambda error: problems.append((page.url, str(error))))
            page.on(
                "requestfailed", lambda request: None if request.failure == "net::ERR_ABORTED" else problems.append((page.url, request.url))
            )
            page.on(
                "request",
                lambda request: None if request.url.startswith((base, "data:", "blob:")) else problems.append((page.url, request.url)),
            )
            # a page reads the index of the search in the background, which takes most of its time: one page in the end is enough
            empty = json.loads((site / INDEX).read_text()) | {"docs": []}
            page.route(base + INDEX, lambda route: route.fulfill(json=empty))
            for path in sorted(site.rglob("*.html")):
                if path.name == "404.html":
                    continue
                page.set_viewport_size({"width": 1280, "height": 800})
                page.goto(base + path.relative_to(site).as_posix())
                problems += [(page.url, 1280, cut) for cut in page.evaluate(CUT)]
                page.set_viewport_size({"width": 390, "height": 800})
                problems += [(page.url, 390, cut) for cut in page.evaluate(CUT)]
            page.goto(base + "losses/focal_loss.html")
            assert page.evaluate("document.querySelector('math').getBoundingClientRect().height") > 10
            assert page.evaluate("document.fonts.check('16px \"STIX Two Math\"')")
            drawn = page.locator(".curve svg path").first.get_attribute("d")
            page.locator(".curve input").first.fill("0")
            assert page.locator(".curve svg path").first.get_attribute("d") != drawn
            page.set_viewport_size({"width": 1280, "height": 800})
            page.unroute(base + INDEX)
            page.goto(base + "index.html")
            page.locator(".md-search__input").fill("varifocal")
            page.locator(".md-search-result__item").first.wait_for(timeout=20_000)
            assert "varifocal" in page.locator(".md-search-result__item").first.inner_text().lower()
            browser.close()
    finally:
        server.shutdown()
    assert problems == []


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_measured_numbers_come_from_the_results():
    measured = importlib.import_module("measured")
    found = measured.fill("{{digits_small summary.digits_small_alrp.AP.mean}} {{ ranking rows.0.ms.ap_loss 1 }}")
    results = ROOT / "benchmarks" / "results"
    mean = json.loads((results / "digits_small.json").read_text())["summary"]["digits_small_alrp"]["AP"]["mean"]
    time = json.loads((results / "ranking.json").read_text())["rows"][0]["ms"]["ap_loss"]
    assert found == f"{mean:.3f} {time:.1f}"
    table = measured.fill("<!-- accuracy digits_accuracy focal -->").splitlines()
    assert len(table) == 3
    assert table[2].startswith("| `digits_retinanet_focal` | 0.5")
    by_rows = measured.fill("<!-- rows ultralytics_losses raccoon loss cls seed nothing -->").splitlines()
    assert by_rows[0] == "| loss | cls | seed | nothing |"
    assert by_rows[2] == "| bce | 0.5 | 0 | - |"
    assert "x | -" in measured.fill("<!-- speed ranking -->").splitlines()[-1]  # the loop was not run on 20 million negatives
    with pytest.raises(KeyError):
        measured.fill("{{digits_small summary.nobody.AP.mean}}")


def test_the_advice_of_which_loss_is_what_was_measured():
    """The words of docs/losses/index.md beside its numbers."""
    results = ROOT / "benchmarks" / "results"
    losses, detectors, three = (
        json.loads((results / f"digits_{name}.json").read_text())["summary"] for name in ("losses", "detectors", "accuracy")
    )

    def best(summary, column, part=""):
        return max((name for name in summary if part in name), key=lambda name: summary[name][column]["mean"])

    assert best(losses, "AP") == "digits_retinanet_rank_sort"
    assert best(losses, "rho") == "digits_retinanet_qfl_giou"
    assert best(three, "AP") == "digits_retinanet_alrp"
    for detector in ("fcos", "foveabox", "faster_rcnn"):
        assert best(detectors, "AP", detector) == f"digits_{detector}_rank_sort"
    assert all(len(detectors[f"digits_{name}_rank_sort"]["seeds"]) == 3 for name in ("fcos", "foveabox"))
    ap = {name: row["AP"]["mean"] for name, row in losses.items()}
    box = ap["digits_retinanet_focal_giou"] - ap["digits_retinanet_focal"]
    assert box > abs(ap["digits_retinanet_focal_giou"] - ap["digits_retinanet_rank_sort"])
    groups = json.loads((results / "groups.json").read_text())["rows"]
    assert max(ratio for row in groups for ratio in row["ratio"].values()) == groups[0]["ratio"]["shuffled"]
