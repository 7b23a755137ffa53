"""The pages of the losses are complete, and the curves that they show are drawn from what they say."""

import importlib
import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lossbox.losses import CATALOG, balanced_l1_loss

DOCS = Path(__file__).parents[1] / "docs"
GOLDEN = json.loads((Path(__file__).parent / "golden" / "regression" / "balanced_l1.json").read_text())["cases"]


sys.path.insert(0, str(DOCS))
pytest.importorskip("mkdocs", reason="needs lossbox[docs]")


@pytest.fixture(scope="module")
def drawing():
    return importlib.import_module("curves")


@pytest.fixture(scope="module")
def hooks():
    return importlib.import_module("hooks")


@pytest.fixture(scope="module")
def pages():
    return importlib.import_module("pages")


WRITTEN = sorted({page.stem for page in (DOCS / "losses").glob("*.md")} - {"index"})


def test_every_page_has_a_loss():
    assert set(WRITTEN) <= set(CATALOG)


def test_a_loss_without_a_written_page_gets_one(hooks, pages, monkeypatch):
    files = importlib.import_module("mkdocs.structure.files")
    config = SimpleNamespace(site_dir="site", use_directory_urls=True, plugins=SimpleNamespace(_current_plugin="hooks"))
    written = [files.File(f"losses/{name}.md", str(DOCS), "site", use_directory_urls=True) for name in WRITTEN if name != "ap_loss"]
    monkeypatch.setenv("LOSSBOX_CURVE_POINTS", "2")
    monkeypatch.setattr(hooks, "math_font", lambda: b"")
    made = hooks.on_files(files.Files(written), config)
    assert sorted(file.src_uri for file in made if file.src_uri.startswith("losses/") and file.src_uri.endswith(".md")) == sorted(
        f"losses/{name}.md" for name in CATALOG
    )
    page = SimpleNamespace(file=made.get_file_from_path("losses/ap_loss.md"))
    assert page.file.content_string == ""
    completed = hooks.on_page_markdown("", page)
    assert completed.startswith("# ap_loss\n")
    assert "## Example" in completed
    assert "When to use it" not in completed


@pytest.mark.parametrize("name", WRITTEN)
def test_a_page_says_when_and_what_is_wrong_elsewhere(name):
    sections = re.split(r"^## ", (DOCS / "losses" / f"{name}.md").read_text(), flags=re.MULTILINE)
    assert [section.splitlines()[0] for section in sections[1:]] == ["When to use it", "Known defects elsewhere"]
    when, defects = ("\n".join(section.splitlines()[1:]).strip() for section in sections[1:])
    assert 2 <= len(re.findall(r"[.:?](?:\s|$)", when)) <= 8
    assert len(defects) >= len("None known to us.")


@pytest.mark.parametrize("name", CATALOG)
def test_the_hook_completes_a_page(name, pages):
    page = pages.loss_page(name, "## When to use it\n\nNever.\n", "x")
    assert page.startswith(f"# {name}\n")
    gradient = CATALOG[name].no_derivative or "| the derivative of the value |"
    for part in (CATALOG[name].source, CATALOG[name].range, gradient, f"curves/{name}.js", "Never.", f"::: lossbox.losses.{name}"):
        assert part in page
    assert "Args:" not in page
    assert re.search(rf"```pycon\n>>> [^`]*{name}\([^`]*\n```\n", page)
    assert ("N_FP(i) = sum" in page) == (CATALOG[name].family == "ranking")


def test_the_navigation_lists_every_page_once(hooks):
    config = hooks.on_config({"nav": ["index.md", {"Losses": []}], "markdown_extensions": []})
    overview, *families = config["nav"][1]["Losses"]
    assert overview == "losses/index.md"
    pages = [path for family in families for listed in family.values() for entry in listed for path in entry.values()]
    assert sorted(pages) == sorted(f"losses/{name}.md" for name in CATALOG)


def test_the_overview_links_to_every_loss(pages):
    assert "<!-- table of losses -->" in (DOCS / "losses" / "index.md").read_text()
    assert all(f"[{name}]({name}.md)" in pages.table_of_losses() for name in CATALOG)


def test_the_links_between_pages_hold(pages):
    made = {DOCS / path for path in pages.reference_pages()}
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([\w/.]+\.md)\)", page.read_text()):
            place = (page.parent / target).resolve()
            assert place.is_file() or place in made, (page.name, target)


ELEMENTWISE = [case for case in GOLDEN if case["args"].get("reduction") == "none"]


@pytest.mark.parametrize("case", ELEMENTWISE, ids=lambda case: case["id"])
def test_the_wrong_curve_is_that_of_the_published_code(case, drawing):
    """And ours is not, for beta != 1."""
    options = {name: case["args"][name] for name in ("alpha", "gamma", "beta")}
    input, target = (torch.tensor(case["inputs"][name], dtype=torch.float64) for name in ("pred", "target"))
    input.requires_grad_()
    published = {name: torch.tensor(values, dtype=torch.float64) for name, values in case["outputs"]["libra"].items()}
    wrong = drawing.widely_used_balanced_l1(input, target, **options)
    torch.testing.assert_close(wrong, published["loss"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(wrong.sum(), input)[0], published["grad_pred"], rtol=1e-9, atol=1e-9)
    ours = balanced_l1_loss(input, target, **options, reduction="none")
    assert torch.allclose(ours, published["loss"], rtol=1e-9) == (options["beta"] == 1)


def test_the_golden_numbers_hold_other_betas():
    assert {1.0, 0.5, 2.0} < {case["args"]["beta"] for case in ELEMENTWISE}


def test_what_the_page_says_of_the_wrong_curve(drawing):
    curves = drawing.balanced_l1_beside_the_widely_used(1 / 9, 0.18, points=19)
    middle = len(curves.x) // 2
    assert all(map(math.isfinite, curves.gradients["widely used code, wrong"]))
    assert curves.gradients["lossbox"][middle] == pytest.approx(0, abs=1e-12)

    def wrong(x, beta):
        x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        value = drawing.widely_used_balanced_l1(x, torch.zeros((), dtype=torch.float64), beta=beta)
        return value.item(), torch.autograd.grad(value, x)[0].item()

    assert wrong(1e-9, 1 / 9)[1] == pytest.approx(4.0, abs=1e-4)
    assert wrong(1e-3, 2.0)[0] < 0
    for beta, jump in ((1 / 9, -0.199), (0.5, -0.0249), (2.0, 0.0124)):
        assert wrong(beta, beta)[1] - wrong(beta - 1e-9, beta)[1] == pytest.approx(jump, abs=1e-3)
