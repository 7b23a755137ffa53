"""The embedded data set: the same bytes each time, tight boxes, nothing shared between the parts, nobody's files lost."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from lossbox.coco.read import read_coco
from lossbox.data import digits
from lossbox.data.digit_images import (
    MAX_OVERLAP,
    MIN_CONTRAST,
    VISIBLE,
    Ingredients,
    digit_alpha,
    draw_image,
    load_ingredients,
    tight_box,
)
from lossbox.data.digits import write_digits

SMALL = {"train_images": 27, "val_images": 6, "size": 64, "progress": False}


@pytest.fixture(scope="module")
def ingredients():
    return load_ingredients()


def files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def plain(ingredients, level):
    """The scans of the training part on one even gray."""
    return Ingredients(ingredients["train"].scans, [np.full((200, 200, 3), level, dtype=np.uint8)])


def box_of(inked):
    """Definition of the tight box, pixel by pixel."""
    places = [(x, y) for y in range(inked.shape[0]) for x in range(inked.shape[1]) if inked[y, x]]
    left, top = min(x for x, _ in places), min(y for _, y in places)
    return left, top, max(x for x, _ in places) + 1 - left, max(y for _, y in places) + 1 - top


# -- the images


def test_tight_box_is_the_smallest_box_around_a_known_mask():
    rng = np.random.default_rng(0)
    for _ in range(50):
        alpha = rng.uniform(0, VISIBLE * 0.99, (20, 30))
        x, y, w, h = (int(v) for v in (*rng.integers(0, 10, 2), *rng.integers(1, 10, 2)))
        # One pixel on each side of the box, and only just of enough ink.
        alpha[y, x + rng.integers(w)] = alpha[y + h - 1, x + rng.integers(w)] = VISIBLE
        alpha[y + rng.integers(h), x] = alpha[y + rng.integers(h), x + w - 1] = VISIBLE
        assert tight_box(alpha) == box_of(alpha >= VISIBLE) == (x, y, w, h)
    assert tight_box(np.zeros((4, 4))) == (0, 0, 0, 0)


def test_boxes_are_tight_around_the_pixels_of_the_image(ingredients):
    checked = 0
    for seed in range(60):
        image, boxes, _ = draw_image(np.random.default_rng(seed), plain(ingredients, 0), max_digits=1)
        if not boxes:
            continue
        x, y, w, h = boxes[0]
        ink = image.max(2) / image.max()
        # Pixels are rounded to 1/255, so the mask is known a little to either side of the threshold.
        loose, strict = box_of(ink >= VISIBLE - 0.02), box_of(ink >= VISIBLE + 0.02)
        assert loose[0] <= x <= strict[0]
        assert loose[1] <= y <= strict[1]
        assert strict[0] + strict[2] <= x + w <= loose[0] + loose[2]
        assert strict[1] + strict[3] <= y + h <= loose[1] + loose[3]
        checked += 1
    assert checked > 50


def test_digits_have_the_size_asked_for_and_lie_inside_with_little_overlap(ingredients):
    counts, heights = [], []
    for seed in range(80):
        image, boxes, names = draw_image(np.random.default_rng(seed), ingredients["train"])
        assert image.shape == (128, 128, 3)
        assert image.dtype == np.uint8
        assert len(boxes) == len(names) <= 6
        counts.append(len(boxes))
        heights += [h for _, _, _, h in boxes]
        for i, (x, y, w, h) in enumerate(boxes):
            assert x >= 0 and y >= 0 and x + w <= 128 and y + h <= 128  # noqa: PT018
            for ox, oy, ow, oh in boxes[:i]:
                common = max(min(x + w, ox + ow) - max(x, ox), 0) * max(min(y + h, oy + oh) - max(y, oy), 0)
                assert common <= MAX_OVERLAP * min(w * h, ow * oh)
    assert set(counts) >= {1, 2, 3, 4, 5}
    # Ink fades out at the rim of a scan: a box may be a little higher or lower than the scan.
    assert 9 <= min(heights) <= 16
    assert 50 <= max(heights) <= 74


def test_ink_stands_out_from_the_ground(ingredients):
    for level in (0, 128, 255):
        for seed in range(20):
            image, boxes, _ = draw_image(np.random.default_rng(seed), plain(ingredients, level), max_digits=3)
            luma = image @ np.array([0.299, 0.587, 0.114])
            for x, y, w, h in boxes:
                assert abs(luma[y : y + h, x : x + w] - level).max() > MIN_CONTRAST - 3


def test_labels_name_the_digit_that_is_shown(ingredients):
    """The nearest scan, after both are cut to their ink and brought to one size, is of the same digit nearly always."""

    def signature(ink):
        x, y, w, h = tight_box(ink)
        cut = Image.fromarray((ink[y : y + h, x : x + w] * 255).astype(np.uint8)).resize((12, 12), Image.Resampling.BILINEAR)
        flat = np.asarray(cut, dtype=np.float64).ravel()
        return flat / np.linalg.norm(flat)

    names = np.concatenate([np.full(len(scans), digit) for digit, scans in enumerate(ingredients["train"].scans)])
    known = np.stack([signature(digit_alpha(scan, height=32.0)) for scans in ingredients["train"].scans for scan in scans])
    right = []
    for seed in range(60):
        image, boxes, shown = draw_image(np.random.default_rng(seed), plain(ingredients, 0), max_digits=1, digit_side=(0.2, 0.5))
        if boxes:
            right.append(names[(known @ signature(image.max(2) / image.max())).argmax()] == shown[0])
    assert len(right) > 50
    assert np.mean(right) > 0.95


def test_the_parts_share_neither_scans_nor_areas_of_the_photographs(ingredients):
    train, val = ({scan.tobytes() for scans in ingredients[part].scans for scan in scans} for part in ("train", "val"))
    assert not train & val
    assert len(train) + len(val) == 1797
    assert all(len(ingredients["val"].scans[digit]) >= 30 for digit in range(10))
    photographs = load_sample_images().images
    for left, right, photograph in zip(ingredients["train"].backgrounds, ingredients["val"].backgrounds, photographs, strict=True):
        # The two areas side by side are the photograph: each of its columns is in one part.
        assert np.array_equal(np.concatenate([left, right], 1), photograph)


# -- the files


def test_same_options_same_bytes_and_another_seed_other_images(tmp_path):
    for name in ("a", "b"):
        write_digits(tmp_path / name, **SMALL)
    write_digits(tmp_path / "c", **SMALL, seed=1)
    first, second, other = (files(tmp_path / name) for name in "abc")
    assert len(first) == 27 + 6 + 2 + 2
    assert first == second
    assert first["train/000001.jpg"] != other["train/000001.jpg"]


def test_the_validation_part_does_not_depend_on_the_length_of_the_training_part(tmp_path):
    write_digits(tmp_path / "a", **SMALL)
    write_digits(tmp_path / "b", **{**SMALL, "train_images": 2})
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert all(a[name] == b[name] for name in b if name.startswith("val/"))


def test_a_long_tail_in_the_training_part_alone(tmp_path):
    even = write_digits(tmp_path / "even", train_images=90, val_images=8, progress=False)
    tail = write_digits(tmp_path / "tail", train_images=90, val_images=8, imbalance=30, progress=False)
    documents = [json.loads(path.read_text()) for path in (even.train_annotations, tail.train_annotations)]
    assert [document["info"]["lossbox_digits"].get("imbalance") for document in documents] == [None, 30]
    counts = [np.bincount([one["category_id"] - 1 for one in document["annotations"]], minlength=10) for document in documents]
    assert counts[0].min() > 10
    # 30^(-1/9) = 0.685 a digit: the first three have 1 - 0.685^3 = 0.68 of nearly all
    assert counts[1][:3].sum() / counts[1].sum() == pytest.approx(0.70, abs=0.07)
    assert counts[1][7:].sum() / counts[1].sum() == pytest.approx(0.05, abs=0.03)
    assert (tmp_path / "even/val/000003.jpg").read_bytes() == (tmp_path / "tail/val/000003.jpg").read_bytes()
    assert write_digits(tmp_path / "tail", train_images=90, val_images=8, imbalance=30, progress=False).reused
    assert not write_digits(tmp_path / "tail", train_images=4, val_images=2, imbalance=20, progress=False).reused


def test_the_files_are_coco_json_with_a_few_images_without_digits(tmp_path):
    made = write_digits(tmp_path, **SMALL)
    document = json.loads(made.train_annotations.read_text())
    assert [c["id"] for c in document["categories"]] == list(range(1, 11))
    assert [c["name"] for c in document["categories"]] == [str(digit) for digit in range(10)]
    assert [a["id"] for a in document["annotations"]] == list(range(1, len(document["annotations"]) + 1))
    assert all(a["area"] == a["bbox"][2] * a["bbox"][3] and a["iscrowd"] == 0 for a in document["annotations"])
    annotations = read_coco(made.train_annotations, made.train_images)
    counts = [len(image.boxes) for image in annotations.images]
    assert len(counts) == 27
    assert counts[24] == 0
    assert sum(count == 0 for count in counts) <= 3


def test_a_complete_set_is_used_again_and_another_one_replaced(tmp_path):
    made = write_digits(tmp_path, **SMALL)
    before = files(tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not made.reused
    assert write_digits(tmp_path, **SMALL).reused
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps
    (tmp_path / "val/000003.jpg").unlink()
    assert not write_digits(tmp_path, **SMALL).reused
    assert files(tmp_path) == before
    assert not write_digits(tmp_path, **{**SMALL, "train_images": 3}).reused
    assert len(list((tmp_path / "train").glob("*.jpg"))) == 3


def test_it_says_how_far_it_is_where_there_is_no_terminal(tmp_path, capsys, monkeypatch):
    write_digits(tmp_path / "quick", **{**SMALL, "progress": True})
    assert "images drawn" not in capsys.readouterr().err
    monkeypatch.setattr("lossbox.data.digits.SILENCE", 0.0)
    write_digits(tmp_path / "slow", **{**SMALL, "progress": True})
    total = SMALL["train_images"] + SMALL["val_images"]
    lines = [line for line in capsys.readouterr().err.splitlines() if "images drawn" in line]
    assert lines == [f"Digits: {drawn + 1} of {total} images drawn" for drawn in range(total)]


def test_it_says_that_a_set_is_used_again(tmp_path, capsys):
    write_digits(tmp_path, **SMALL)
    assert capsys.readouterr().err == ""
    write_digits(tmp_path, **{**SMALL, "progress": True})
    assert "made with the same options" in capsys.readouterr().err


def test_an_interrupted_run_never_looks_complete_and_can_be_repeated(tmp_path, monkeypatch):
    write_digits(tmp_path / "whole", **SMALL)
    write_digits(tmp_path / "cut", **SMALL, seed=5)  # an older, complete set is in the way
    save, done = digits._save, []

    def stop_at_the_thirtieth(image, path):
        if len(done) == 30:
            raise KeyboardInterrupt
        done.append(path)
        save(image, path)

    monkeypatch.setattr(digits, "_save", stop_at_the_thirtieth)
    with pytest.raises(KeyboardInterrupt):
        write_digits(tmp_path / "cut", **SMALL)
    assert not list((tmp_path / "cut").glob("*.json"))
    monkeypatch.undo()
    assert not write_digits(tmp_path / "cut", **SMALL).reused
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.json", json.dumps({"images": [], "info": {}})),
        ("val.json", "not JSON"),
        ("train/000001.jpg", "a user's own image"),
        ("val/notes.txt", "a user's own notes"),
    ],
)
def test_files_of_others_are_never_touched(tmp_path, name, content):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=r"was not made by write_digits and is not overwritten"):
        write_digits(tmp_path, **SMALL)
    assert files(tmp_path) == {name: content.encode()}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("train_images", 0),
        ("val_images", -1),
        ("size", 16),
        ("max_digits", 0),
        ("digit_side", (0.5, 0.1)),
        ("digit_side", (0.1, 0.9)),
        ("seed", -1),
        ("imbalance", 0.5),
        ("imbalance", float("inf")),
    ],
)
def test_options_out_of_range_are_named(tmp_path, option, value):
    with pytest.raises(ValueError, match=f"^{option}: "):
        write_digits(tmp_path, **{**SMALL, option: value})
    assert not list(tmp_path.iterdir())
