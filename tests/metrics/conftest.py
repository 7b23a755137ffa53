"""Problems in COCO's format: random ones, the golden ones, and what pycocotools says about them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "metrics" / "problems.json").read_text())["problems"]


def make_problem(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Shuffled ids and records, crowds, areas that are not the box's, ties of score and of IoU (coarse grids), empty images."""
    rng = np.random.default_rng(seed)
    levels = [None, 5, 10][seed % 3]
    grid = [None, 4, 10, 20][seed % 4]

    def snapped(box: np.ndarray) -> np.ndarray:
        return np.round(box / grid) * grid if grid else box

    images = [{"id": int(number), "width": 300, "height": 300} for number in rng.permutation(6) * 3 + 2]
    categories = [{"id": int(number), "name": f"class {number}"} for number in rng.permutation(3) * 2 + 1]
    annotations, results = [], []
    for image in images:
        for category in categories:
            key = {"image_id": image["id"], "category_id": category["id"]}
            boxes = []
            for _ in range(rng.integers(0, 6)):
                box = snapped(np.concatenate([rng.random(2) * 120, 2 + rng.random(2) ** 2 * 150]))
                if boxes and grid and rng.random() < 0.3:
                    box = boxes[0]  # two annotations of one place: equal IoUs
                boxes.append(box)
                area = float(box[2] * box[3] * rng.choice([1, 0.6]))
                annotations.append({**key, "bbox": box.tolist(), "area": area, "iscrowd": int(rng.random() < 0.15)})
            for _ in range(rng.integers(0, 13)):
                box = np.concatenate([rng.random(2) * 120, 2 + rng.random(2) ** 2 * 150])
                if boxes and rng.random() < 0.7:
                    box = boxes[rng.integers(len(boxes))]
                    box = box + rng.normal(size=4) * np.concatenate([box[2:], box[2:]]) * 0.1 * (rng.random() < 0.8)
                box = snapped(np.concatenate([box[:2], np.abs(box[2:])]))
                score = rng.random()
                results.append({**key, "bbox": box.tolist(), "score": float(np.round(score * levels) / levels if levels else score)})
    rng.shuffle(annotations)
    rng.shuffle(results)
    annotations = [{"id": number + 1, **annotation} for number, annotation in enumerate(annotations)]
    return {"info": {}, "images": images, "categories": categories, "annotations": annotations}, results


def run_pycocotools(ground_truth: dict[str, Any], results: list[dict[str, Any]], **params: Any) -> COCOeval:
    """COCOeval after evaluate and, if no parameter is changed, accumulate and summarize."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy({"info": {}, **ground_truth})
        truth.createIndex()
        found = truth.loadRes(copy.deepcopy(results)) if results else COCO()
        if not results:  # loadRes([]) raises IndexError
            found.dataset = {"images": truth.dataset["images"], "categories": truth.dataset["categories"], "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        for name, value in params.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        if not params.keys() & {"iouThrs", "maxDets"}:
            evaluation.accumulate()
            evaluation.summarize()
    return evaluation


@pytest.fixture(scope="session")
def random_problem():
    return make_problem


@pytest.fixture(scope="session")
def pycocotools():
    return run_pycocotools


@pytest.fixture(scope="session")
def golden():
    return GOLDEN


@pytest.fixture(params=sorted(GOLDEN))
def golden_problem(request):
    """Name and content of each golden problem."""
    return request.param, GOLDEN[request.param]
