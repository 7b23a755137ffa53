"""The toy example against the numbers that the paper prints."""

import numpy as np
import pytest

from lossbox.analysis import TOY_DETECTORS, read_study, shipped_studies, toy_detector

# Oksuz et al., NeurIPS 2020, Table A.9: precision at recall 0.1 ... 1.0, and AP; by IoU, then C & R1, R2, R3.
PRECISION = {
    "0.50": [[1, 1, 0.67, 0.67, 0.5, 0.5, 0.4, 0.4, 0, 0]] * 3,
    "0.65": [
        [1, 1, 0.67, 0.67, 0.5, 0.5, 0, 0, 0, 0],
        [1, 1, 0.67, 0.67, 0.3, 0.3, 0, 0, 0, 0],
        [0.33, 0.33, 0.33, 0.33, 0.3, 0.3, 0, 0, 0, 0],
    ],
    "0.80": [
        [1, 1, 0.67, 0.67, 0, 0, 0, 0, 0, 0],
        [1, 1, 0.2, 0.2, 0, 0, 0, 0, 0, 0],
        [0.2, 0.2, 0.2, 0.2, 0, 0, 0, 0, 0, 0],
    ],
    "0.95": [
        [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [0.1, 0.1, 0, 0, 0, 0, 0, 0, 0, 0],
        [0.1, 0.1, 0, 0, 0, 0, 0, 0, 0, 0],
    ],
}
NUMBERS = {
    "AP50": (0.51, 0.51, 0.51),
    "AP65": (0.43, 0.39, 0.19),
    "AP80": (0.33, 0.24, 0.08),
    "AP95": (0.20, 0.02, 0.02),
    "cross_entropy": (0.87, 0.87, 0.87),
    "ap_loss": (0.36, 0.36, 0.36),
    "iou_loss": (0.28, 0.28, 0.28),
    "alrp_loss": (0.53, 0.69, 0.89),
}
TWO_DIGITS = 0.005 + 1e-9  # 0.275 is printed as 0.28


@pytest.fixture(scope="module")
def detectors():
    return {name: toy_detector(ious) for name, ious in TOY_DETECTORS.items()}


def test_precision_is_the_papers(detectors):
    for iou, rows in PRECISION.items():
        shown = [detector[f"precision_{iou[2:]}"] for detector in detectors.values()]
        assert np.shape(shown) == (3, 10)
        np.testing.assert_allclose(shown, rows, atol=TWO_DIGITS)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_the_papers(detectors, name):
    assert [detector[name] for detector in detectors.values()] == pytest.approx(NUMBERS[name], abs=TWO_DIGITS, rel=0)


def test_what_sees_the_order_of_the_boxes(detectors):
    first, *others = detectors.values()
    for other in others:
        for blind in ("cross_entropy", "ap_loss", "iou_loss", "alrp_classification"):
            assert other[blind] == pytest.approx(first[blind], abs=1e-12)
        assert other["alrp_localization"] > first["alrp_localization"] + 0.1
        assert other["AP"] < first["AP"] - 0.05
        assert other["rho"] < 0 < first["rho"]


def test_numbers_by_hand(detectors):
    """C & R1: errors 0.1, 0.4, 0.7, 1.0 at ranks 1, 3, 6, 10, with 0, 1, 3, 6 negatives above."""
    one = detectors["C & R1"]
    assert [row["precision_65"] for row in one["rows"]] == one["precision_65"]
    assert one["alrp_loss"] == pytest.approx((0.1 / 1 + 1.5 / 3 + 4.2 / 6 + 8.2 / 10) / 4)
    # LRP of the first three detections: errors 0.1 and 0.4, one false positive, three of five missed; of the first alone 4.1 / 5
    assert one["oLRP"] == pytest.approx(min(4.1 / 5, 4.5 / 6, (1.2 + 3 + 2) / 8, (2.2 + 6 + 1) / 11))


def test_the_study_has_these_detectors():
    assert {variant.name: tuple(variant.options["ious"]) for variant in read_study(shipped_studies()["toy"]).variants} == TOY_DETECTORS


@pytest.mark.parametrize("ious", [[0.5], [0.5, 0.6, 0.7, 1.1], [0.4, 0.5, 0.6, 0.7]])
def test_ious_that_are_none_are_refused(ious):
    with pytest.raises(ValueError, match="ious: 4 numbers in"):
        toy_detector(ious)
