"""The objective of every recipe computes the numbers that were recorded when its options were still named one by one.

``python tests/test_objective_of_recipes.py`` writes them anew, which is right only where a recipe's loss is meant to change.
"""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lossbox.boxes import DeltaCoder
from lossbox.records import Assignment, RawPredictions, Targets

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "objective" / "recipes.json"


def objectives() -> dict[str, Any]:
    """By recipe and stage, what the recipe says of its objective."""
    found = {}
    for path in sorted((ROOT / "src/lossbox/recipes").glob("*.yaml")):
        model = yaml.safe_load(path.read_text())["model"]
        found[path.stem] = model["objective"]
        if "first_stage" in model:
            found[f"{path.stem}, first stage"] = model["first_stage"]["objective"]
    return found


def build(config: dict[str, Any]) -> torch.nn.Module:
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--objective", type=torch.nn.Module)
    parsed = parser.parse_object({"objective": config})
    # jsonargparse 4.49 gave it another name
    objective: torch.nn.Module = (parser.instantiate if hasattr(parser, "instantiate") else parser.instantiate_classes)(parsed).objective
    return objective


def numbers(seed: int, *shape: int) -> torch.Tensor:
    """In [0, 1), the same for every version of torch."""
    source = random.Random(seed)
    size = torch.Size(shape)
    return torch.tensor([source.random() for _ in range(size.numel())], dtype=torch.float64).reshape(size)


def computed(config: dict[str, Any]) -> dict[str, list[float]]:
    """By part: its value, its weight, and its gradients at logits, regression and centerness, each as a sum with fixed factors."""
    corner = 40 * numbers(0, 16, 2)
    anchors = torch.cat([corner, corner + 6 + 10 * numbers(1, 16, 2)], 1)
    inputs = [8 * numbers(2, 2, 16, 3) - 5, numbers(3, 2, 16, 4) - 0.5, 4 * numbers(4, 2, 16) - 2]
    logits, regression, centerness = (tensor.requires_grad_() for tensor in inputs)
    targets = []
    for image, chosen in enumerate(([0, 3, 9], [5, 12])):
        boxes = anchors[chosen] + 3 * numbers(5 + image, len(chosen), 4)
        labels = torch.tensor([2, 0, 1][: len(chosen)])
        targets.append(Targets(boxes, labels, torch.zeros(len(chosen), dtype=torch.bool), image, (64, 64), (64, 64)))
    matched = torch.full((2, 16), -1)
    matched[0, [0, 1, 3, 4, 9]] = torch.tensor([0, 0, 1, 2, 2])
    matched[1, [5, 12, 13]] = torch.tensor([0, 1, 1])
    matched[:, [7, 15]] = -2
    raw = RawPredictions(logits, regression, anchors, (16,), DeltaCoder(), centerness=centerness)
    objective = build(config)
    parts = objective(raw, Assignment(matched), targets)
    result = {}
    for name, (value, weight) in parts.items():
        gradients = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
        sums = [0.0 if g is None else float((g * numbers(7, *g.shape)).sum()) for g in gradients]
        result[name] = [value.item(), float(weight), *sums]
    return result


@pytest.mark.parametrize("name", objectives())
def test_the_objective_of_a_recipe_computes_what_it_did(name: str) -> None:
    expected = json.loads(GOLDEN.read_text())[name]
    found = computed(objectives()[name])
    assert list(found) == list(expected)
    for part, sums in expected.items():
        assert found[part] == pytest.approx(sums, rel=1e-6, abs=1e-9), part


def test_the_recorded_numbers_are_of_the_recipes_there_are() -> None:
    assert set(json.loads(GOLDEN.read_text())) == set(objectives())


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: computed(config) for name, config in objectives().items()}, indent=1) + "\n")
