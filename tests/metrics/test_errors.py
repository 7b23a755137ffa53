"""The LRP error by kinds of errors: TIDE's kinds, shares that add up to the error."""

import numpy as np
import pytest

from lossbox.metrics import error_shares, lrp, match_detections, optimal_lrp_per_class, read_ground_truth, read_results


def read(problem):
    content, detections = problem
    truth = read_ground_truth(content)
    return truth, read_results(detections, truth)


def box(image, category, bbox, **more):
    return {"image_id": image, "category_id": category, "bbox": bbox, **more}


CLASSES = [{"id": 1, "name": "cup"}, {"id": 2, "name": "plate"}, {"id": 3, "name": "never annotated"}]


def test_each_kind_is_named():
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": CLASSES,
        "annotations": [
            box(1, 1, [0, 0, 10, 10], id=1),
            box(1, 2, [50, 0, 10, 10], id=2),
            box(1, 1, [100, 0, 10, 10], id=3),
            box(2, 1, [0, 0, 10, 10], id=4),
            box(2, 1, [200, 0, 50, 50], id=5, iscrowd=1),
        ],
    }
    found = [
        box(1, 1, [0, 0, 10, 8], score=0.9),  # right, IoU 0.8
        box(1, 1, [0, 0, 10, 7], score=0.8),  # the same cup again
        box(1, 1, [50, 0, 10, 9], score=0.7),  # a plate
        box(1, 1, [50, 0, 10, 3], score=0.6),  # IoU 0.3 with a plate
        box(1, 1, [100, 0, 10, 4], score=0.5),  # IoU 0.4 with a cup
        box(1, 1, [300, 0, 10, 10], score=0.4),  # nothing
        box(2, 1, [50, 0, 10, 10], score=0.4),  # a plate in another image only
        box(2, 1, [200, 0, 90, 90], score=0.3),  # IoU 0.3 with a crowd, which is no object
        box(2, 1, [200, 0, 50, 50], score=0.3),  # in the crowd: does not count
    ]
    cup, plate, never = error_shares(*read((truth, found)), thresholds=[0, 0, 0])
    assert cup["counts"] == {
        "true_positive": 1, "false_positive": 7, "false_negative": 2,
        "localization": 1, "classification": 1, "duplicate": 1, "both": 1, "background": 3, "missed": 1,
    }  # fmt: skip
    # 1 right, 7 wrong, 2 lost; of these one lies under the box of IoU 0.4
    shares = {"localization": 0.4 + 1 + 1, "classification": 1, "duplicate": 1, "both": 1, "background": 3, "missed": 1}
    assert cup["shares"] == pytest.approx({kind: share / 10 for kind, share in shares.items()})
    assert (cup["main"], cup["num_ground_truth"], cup["id"], cup["name"]) == ("background", 3, 1, "cup")
    # the plate was found, as a cup
    assert plate["shares"] == dict.fromkeys(shares, 0) | {"classification": 1}
    assert np.isnan([never["LRP"], *never["shares"].values()]).all()
    assert never["main"] is None


def test_shares_add_up_to_the_optimal_error(random_problem):
    for seed in range(24):
        truth, found = read(random_problem(seed))
        matches = match_detections(truth, found, iou_threshold=0.4)
        rows = error_shares(truth, found, tau=0.4)
        assert str(rows) == str(error_shares(truth, found, tau=0.4, matches=matches))
        for index, (row, optimum) in enumerate(zip(rows, optimal_lrp_per_class(matches, tau=0.4), strict=True)):
            assert sum(row["shares"].values()) == pytest.approx(optimum.olrp, nan_ok=True)
            assert row["threshold"] == pytest.approx(optimum.threshold, nan_ok=True)
            at = error_shares(truth, found, tau=0.4, thresholds=np.full(3, 0.5))[index]
            expected = lrp(*matches.of_class(index), row["num_ground_truth"], threshold=0.5, tau=0.4)
            assert at["LRP"] == pytest.approx(expected.lrp, nan_ok=True)
            assert at["counts"]["false_negative"] == row["num_ground_truth"] - at["counts"]["true_positive"]


def test_counts_of_all_detections_are_hotcocos(random_problem):
    from hotcoco import COCO, COCOeval

    seen = dict.fromkeys(("Loc", "Cls", "Dupe", "Both", "Bkg", "Miss"), 0)
    for seed in range(0, 48, 4):  # boxes on no grid: no IoU that is a threshold exactly
        content, detections = random_problem(seed)
        content["annotations"] = [annotation | {"iscrowd": 0} for annotation in content["annotations"]]
        evaluation = COCOeval(COCO(content), COCO(content).load_res(detections), "bbox")
        evaluation.evaluate()
        theirs = evaluation.tide_errors()["counts"]
        rows = error_shares(*read((content, detections)), thresholds=np.zeros(3))
        ours = {kind: sum(row["counts"][kind] for row in rows) for kind in rows[0]["counts"]}
        names = ("localization", "classification", "duplicate", "both", "background", "missed")
        assert {key: ours[name] for key, name in zip(seen, names, strict=True)} == theirs
        seen = {key: count + theirs[key] for key, count in seen.items()}
    assert min(seen.values()) > 0


def test_nothing_found_is_all_missed(random_problem):
    truth, found = read((random_problem(1)[0], []))
    for row in error_shares(truth, found):
        assert row["shares"]["missed"] == row["LRP"] == 1
        assert np.isnan(row["threshold"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 1}, r"tau must be in \(0, 1\), got 1"),
        ({"background": 0.6}, r"background must be in \(0, tau\] = \(0, 0.5\], got 0.6"),
        ({"thresholds": [0.5]}, r"thresholds: a number for each of 3 classes expected, got the shape \(1,\)"),
    ],
)
def test_bad_options_are_refused(random_problem, options, message):
    with pytest.raises(ValueError, match=message):
        error_shares(*read(random_problem(0)), **options)
