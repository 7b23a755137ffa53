"""The curves of the losses: every loss has an axis, and what is drawn is what the loss says."""

import math

import numpy as np
import pytest
import torch

from lossbox import report
from lossbox.losses import CATALOG, alrp_loss, balanced_l1_loss, focal_loss

# a weight depends on x but takes no gradient
DETACHED_WEIGHT = {"matchability_aware_loss", "ghm_c_loss", "ghm_r_loss"}
DERIVED = [name for name, entry in CATALOG.items() if not entry.no_derivative and name not in DETACHED_WEIGHT]


@pytest.mark.parametrize("name", CATALOG)
def test_every_loss_has_finite_curves(name):
    curves = report.curves_of(name, points=9)
    assert curves.values.keys() == curves.gradients.keys()
    for heights in (*curves.values.values(), *curves.gradients.values()):
        assert len(heights) == len(curves.x) == 9
        assert all(map(math.isfinite, heights))
    assert any(any(heights) for heights in curves.gradients.values())
    assert curves.label


@pytest.mark.parametrize("name", DERIVED)
def test_the_gradient_is_the_slope_of_the_value(name):
    """By the mean over each step: right through kinks too, where a derivative at a point says little."""
    curves = report.curves_of(name, points=161)
    x = np.array(curves.x)
    for line, heights in curves.values.items():
        gradient = np.array(curves.gradients[line])
        rise = np.cumsum((gradient[1:] + gradient[:-1]) / 2 * np.diff(x))
        assert np.allclose(rise, np.array(heights[1:]) - heights[0], atol=0.05 * max(np.abs(gradient).max(), 0.1))


def test_the_lines_are_those_of_the_loss():
    curves = report.curves_of("focal_loss", points=3)
    assert curves.x == [-6, 0, 6]
    assert curves.values["target 0"][2] == pytest.approx(focal_loss(torch.tensor([6.0]), torch.tensor([0])).item())


def test_a_loss_of_two_parts_has_a_line_for_each():
    curves = report.curves_of("alrp_loss", points=3)
    assert set(curves.values) == {"classification", "localization"}
    assert curves.gradients["localization"] == [0, 0, 0]
    logits = torch.tensor([1.0, 2, -2, 0, 3], dtype=torch.float64, requires_grad=True)
    loss = alrp_loss(logits, torch.tensor([1, 1, 0, 0, 0]), torch.tensor([0.2, 0.6]))
    assert curves.x[1] == 1
    assert curves.values["classification"][1] == pytest.approx(loss.classification.item())
    assert curves.gradients["classification"][1] == pytest.approx(torch.autograd.grad(loss.classification, logits)[0][0].item())


def test_any_function_can_be_traced():
    axis = report.Axis("x", (0, 2), {"a": lambda loss, x: loss(x, 0 * x, beta=2.0), "b": lambda loss, x: loss(x, 0 * x)})
    curves = report.trace("mine", balanced_l1_loss, axis, points=3)
    assert list(curves.values) == ["a", "b"]
    assert curves.values["a"][2] == pytest.approx(2 * curves.values["b"][1])


def test_an_unknown_loss_and_too_few_points_are_errors():
    with pytest.raises(ValueError, match=r"name: .*'fokal_loss'"):
        report.curves_of("fokal_loss")
    with pytest.raises(ValueError, match="points: at least 2"):
        report.curves_of("l1_loss", points=1)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_image_is_written(tmp_path, suffix):
    path = report.draw_loss(report.curves_of("smooth_l1_loss", points=21), tmp_path / "new" / f"loss.{suffix}")
    assert path.stat().st_size > 5000
    if suffix == "png":
        from PIL import Image

        colors = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
        assert (np.ptp(colors, axis=1) > 60).sum() > 500


@pytest.mark.parametrize(("width", "lines"), [(100, (15, 25)), (70, (30, 45))])
def test_the_terminal_plot_fits(width, lines):
    shown = report.plot_loss(report.curves_of("focal_loss", points=41), width=width).splitlines()
    assert lines[0] < len(shown) < lines[1]
    assert max(map(len, shown)) <= width
    text = "\n".join(shown)
    assert "focal_loss: value" in text
    assert "focal_loss: gradient" in text
    assert "* target 1" in text
    assert "\x1b" not in text
    assert shown[-1] == "x: logit"


def test_the_terminal_plot_is_colored_where_asked():
    assert "\x1b[" in report.plot_loss(report.curves_of("l1_loss", points=5), color=True)
