"""Masks and keypoints: AP and matches are pycocotools', optimal LRP stands on them."""

import contextlib
import copy
import io
import math

import numpy as np
import pytest
from pycocotools import mask as pycocotools_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lossbox.metrics import average_precision, error_shares, evaluate, match_detections, read_ground_truth, read_results

SIZE = {"width": 120, "height": 100}


def polygon(rng, center, radius):
    angles = np.sort(rng.random(7) * 2 * np.pi)
    points = center + radius * np.stack([np.cos(angles), np.sin(angles)], 1) * (0.7 + 0.3 * rng.random((7, 1)))
    return np.clip(points, 0, [SIZE["width"], SIZE["height"]]).round(2)


def encoded(points):
    rle = pycocotools_mask.merge(pycocotools_mask.frPyObjects([points.flatten().tolist()], SIZE["height"], SIZE["width"]))
    return rle | {"counts": rle["counts"].decode()}


def masks(seed):
    rng = np.random.default_rng(seed)
    images = [{"id": number, **SIZE} for number in (4, 2, 9)]
    annotations, found = [], []
    for image in images:
        for category in (1, 3):
            key = {"image_id": image["id"], "category_id": category}
            for _ in range(rng.integers(0, 4)):
                center, radius = rng.random(2) * 80 + 10, 8 + 30 * rng.random()
                points = polygon(rng, center, radius)
                rle = encoded(points)
                crowd = int(rng.random() < 0.2)
                shape = rle if crowd or rng.random() < 0.5 else [points.flatten().tolist()]
                area, box = float(pycocotools_mask.area(rle)), pycocotools_mask.toBbox(rle).tolist()
                record = {**key, "segmentation": shape, "area": area, "bbox": box, "iscrowd": crowd, "id": len(annotations) + 1}
                annotations.append(record)
                for _ in range(rng.integers(0, 3)):
                    moved = polygon(rng, center + rng.normal(size=2) * 2, radius * (0.9 + 0.2 * rng.random()))
                    found.append({**key, "segmentation": encoded(moved), "score": round(rng.random(), 1)})
    categories = [{"id": 1, "name": "cup"}, {"id": 3, "name": "plate"}]
    return {"images": images, "categories": categories, "annotations": annotations}, found


def keypoints(seed):
    rng = np.random.default_rng(seed)
    images = [{"id": number, **SIZE} for number in (4, 2, 9)]
    annotations, found = [], []
    for image in images:
        key = {"image_id": image["id"], "category_id": 1}
        for _ in range(rng.integers(1, 5)):
            places, visible = rng.random((17, 2)) * 60 + rng.random(2) * 40, rng.integers(0, 3, 17) * (rng.random() < 0.8)
            box = [*places.min(0).tolist(), *np.ptp(places, 0).tolist()]
            record = {**key, "bbox": box, "area": box[2] * box[3] * 0.6, "iscrowd": int(rng.random() < 0.15), "id": len(annotations) + 1}
            points = np.column_stack([places * (visible > 0)[:, None], visible])
            annotations.append(record | {"keypoints": points.flatten().tolist(), "num_keypoints": int((visible > 0).sum())})
            for _ in range(rng.integers(0, 3)):
                moved = np.column_stack([places + rng.normal(size=(17, 2)) * rng.choice([1, 4]), np.ones(17)])
                found.append({**key, "keypoints": moved.flatten().tolist(), "score": round(rng.random(), 1)})
    return {"images": images, "categories": [{"id": 1, "name": "person"}], "annotations": annotations}, found


def theirs(content, found, iou_type):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy({"info": {}, **content})
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(found)), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def columns(content, found, iou_type):
    truth = read_ground_truth(content, iou_type=iou_type)
    return truth, read_results(found, truth)


@pytest.mark.parametrize(("make", "iou_type"), [(masks, "segm"), (keypoints, "keypoints")])
def test_ap_and_matches_are_pycocotools(make, iou_type):
    right = 0
    for seed in range(6):
        content, found = make(seed)
        evaluation = theirs(content, found, iou_type)
        truth, results = columns(content, found, iou_type)
        numbers = average_precision(truth, results).numbers
        if iou_type == "segm":
            names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
        else:
            names = ("AP", "AP50", "AP75", "APm", "APl", "AR100")
            assert np.isnan([numbers[name] for name in ("APs", "ARs", "AR1", "AR10")]).all()
        expected = [value if value != -1 else math.nan for value in evaluation.stats[: len(names)]]
        assert [numbers[name] for name in names] == pytest.approx(expected, nan_ok=True)

        matches = match_detections(truth, results)
        ours = {int(d) + 1: (int(a) + 1, bool(i)) for d, a, i in zip(matches.detection, matches.annotation, matches.ignored, strict=True)}
        per_area = len(evaluation.params.imgIds) * len(evaluation.params.areaRng)
        for index in range(len(evaluation.params.catIds)):
            for record in evaluation.evalImgs[index * per_area : index * per_area + len(evaluation.params.imgIds)]:
                for place, detection in enumerate(record["dtIds"] if record else ()):
                    assert ours[detection] == (int(record["dtMatches"][0][place]), bool(record["dtIgnore"][0][place]))
        key = {(image, category): iou for (image, category), iou in evaluation.ious.items() if len(iou)}
        highest = max(float(np.max(iou)) for iou in key.values())
        assert float(matches.ious.max()) <= highest + 1e-9
        right += int(matches.is_tp.sum())
        shares = error_shares(truth, results)
        assert [row["LRP"] for row in shares] == pytest.approx([row["oLRP"] for row in evaluate(truth, results)["per_class"]], nan_ok=True)
    assert right > 10


def test_a_shape_is_its_own_match():
    for make, iou_type in ((masks, "segm"), (keypoints, "keypoints")):
        content, _ = make(1)
        perfect = [{**annotation, "score": 0.5} for annotation in content["annotations"] if not annotation["iscrowd"]]
        if iou_type == "segm":
            rles = [
                encoded(np.array(a["segmentation"]).reshape(-1, 2)) if isinstance(a["segmentation"], list) else a["segmentation"]
                for a in perfect
            ]
            perfect = [record | {"segmentation": rle} for record, rle in zip(perfect, rles, strict=True)]
        numbers = evaluate(*columns(content, perfect, iou_type))
        assert (numbers["AP"], numbers["oLRP"]) == pytest.approx((1, 0))


def test_the_part_of_some_images_is_theirs():
    truth, results = columns(*masks(2), "segm")
    kept = np.array([True, False, True])
    part, found = truth.of_images(kept), results.of_images(kept)
    content, detections = masks(2)
    names = truth.image_ids[kept].tolist()
    only = content | {
        "images": [image for image in content["images"] if image["id"] in names],
        "annotations": [annotation for annotation in content["annotations"] if annotation["image_id"] in names],
    }
    expected = evaluate(*columns(only, [one for one in detections if one["image_id"] in names], "segm"))
    assert str(evaluate(part, found)) == str(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": None}, r"results\[0\]: lacks 'segmentation'"),
        ({"segmentation": []}, r"results\[0\]: segmentation must not be empty"),
        ({"segmentation": {"size": [5, 5], "counts": [25]}}, r"segmentation must have the size of its image, 100 x 120, got \[5, 5\]"),
        ({"segmentation": {"counts": "0"}}, r"results\[0\]: segmentation must be polygons or RLE \("),
        ({"segmentation": {"size": [100, 120], "counts": 5}}, r"segmentation must be polygons or RLE \("),
        ({"segmentation": [[1, 2]]}, r"segmentation must be polygons or RLE \("),
        ({"bbox": [0, 0, -1, 2]}, r"bbox must not have a negative width or height"),
    ],
)  # fmt: skip
def test_bad_masks_are_named(change, message):
    content, found = masks(0)
    image = content["annotations"][0]["image_id"]
    found = [{**next(one for one in found if one["image_id"] == image), **change}]
    with pytest.raises(ValueError, match=message):
        columns(content, found, "segm")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "keypoints must be a list of three numbers for each keypoint: x, y, visibility, got None"),
        ([1, 2], "keypoints must be .*; as many as the first record has"),
        ([1, 2, 3] * 16, "keypoints must be .*; as many as the first record has"),
        (["x", 0, 0] * 17, "keypoints must be a list of three numbers"),
        ([math.nan] * 51, "keypoints must be finite"),
    ],
)
def test_bad_keypoints_are_named(value, message):
    content, found = keypoints(0)
    with pytest.raises(ValueError, match=r"results\[1\]: " + message):
        columns(content, [found[0], found[1] | {"keypoints": value}], "keypoints")


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="iou_type: one of bbox, segm, keypoints expected, got 'boxes'"):
        read_ground_truth(masks(0)[0], iou_type="boxes")
