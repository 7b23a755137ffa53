"""``lossbox.load(checkpoint).predict(images)``: every kind of image gives what the command writes, and what is no image is named."""

import json
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import lossbox
from lossbox.__main__ import main
from lossbox.data.digits import write_digits
from lossbox.records import Detections
from lossbox.training.cli import LossboxCLI
from lossbox.training.images import named_images, read_image
from lossbox.training.load import Prediction


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"), train_images=2, val_images=3, size=96, progress=False)


@pytest.fixture(scope="module")
def checkpoint(digits, tiny_recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    content = tiny_recipe(digits, image_size=96, trainer={"limit_val_batches": 0})
    content["model"]["decoder"]["init_args"] = {"score_threshold": 0.001, "max_detections": 7}
    (out / "recipe.yaml").write_text(yaml.safe_dump(content))
    LossboxCLI(["fit", "--config", str(out / "recipe.yaml"), "--out", str(out), "--artifacts", "false"])
    return out / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def detector(checkpoint):
    return lossbox.load(str(checkpoint), device="cpu")


@pytest.fixture(scope="module")
def files(digits):
    return sorted(digits.val_images.glob("*.*g"))


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "scores", "labels"))


def test_it_finds_what_the_command_writes(checkpoint, detector, digits, files, tmp_path):
    assert (
        main(["predict", str(digits.val_images), "--ckpt", str(checkpoint), "--out", str(tmp_path), "--no-images", "--device", "cpu"]) == 0
    )
    rows = json.loads((tmp_path / "detections.json").read_text())
    found = detector.predict(files)
    assert len(found) == 3
    assert [len(one) for one in found] == [7, 7, 7]
    boxes = [[x1, y1, x2 - x1, y2 - y1] for one in found for x1, y1, x2, y2 in one.boxes.tolist()]
    assert [row["bbox"] for row in rows] == boxes
    assert [row["score"] for row in rows] == [score for one in found for score in one.scores.tolist()]
    names = dict(detector.categories)
    assert [names[row["category_id"]] for row in rows] == [name for one in found for name in one.class_names]


def test_every_kind_of_image_gives_the_same(detector, files):
    image = Image.open(files[0])
    array = np.array(image)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    (expected,) = detector.predict(files[0])
    kinds = [str(files[0]), image, image.convert("RGBA")]
    kinds += [array, array[None], np.asarray(image), array[..., ::-1].copy()[..., ::-1], np.concatenate([array, array[..., :1]], -1)]
    kinds += [tensor, tensor[None], torch.cat([tensor, tensor[:1]]), tensor.float() / 255, array.astype(np.float64) / 255]
    for kind in kinds:
        (found,) = detector.predict(kind)
        assert found.class_names == expected.class_names
        torch.testing.assert_close(found.boxes, expected.boxes)
        torch.testing.assert_close(found.scores, expected.scores)
    found = detector.predict([files[1], image, tensor], batch_size=1)
    assert same(found[1], found[2])
    assert same(found[0], detector.predict(files[1])[0])


def test_gray_images_are_as_their_channels_repeated(detector, files):
    gray = Image.open(files[0]).convert("L")
    array = np.array(gray)
    (expected,) = detector.predict(gray.convert("RGB"))
    tensor = torch.from_numpy(array)
    for kind in (gray, array, array[..., None], tensor, tensor[None]):
        assert same(detector.predict(kind)[0], expected)


def test_the_exif_orientation_is_not_applied(detector, files, tmp_path):
    upright = Image.open(files[0]).crop((0, 0, 96, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").shape == (3, 60, 96)
    for kind in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        assert same(detector.predict(kind)[0], detector.predict(upright)[0])


def test_boxes_are_in_pixels_of_the_image(detector, files):
    image = Image.open(files[0])
    (small,), (large,) = detector.predict(image), detector.predict(image.resize((960, 960), Image.Resampling.NEAREST))
    assert large.boxes.max() > 200 > small.boxes.max()


def test_no_image_no_record(detector):
    assert detector.predict([]) == []
    assert detector.predict(iter(())) == []
    assert detector.predict(torch.zeros(0, 3, 8, 8)) == []


def test_an_image_without_detections_has_a_record(checkpoint, files):
    (found,) = lossbox.load(checkpoint, device="cpu", decoder={"score_threshold": 0.999999}).predict(files[0])
    assert (found.boxes.shape, len(found), found.class_names) == ((0, 4), 0, [])
    assert len(found.to_supervision()) == 0


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((3, 8, 9), np.uint8), r"images: array .* got \(3, 8, 9\); turn it by \.transpose\(1, 2, 0\)"),
        (torch.zeros(8, 9, 3), r"images: tensor .* got \(8, 9, 3\); turn it by \.permute\(2, 0, 1\)"),
        ([torch.zeros(3, 8, 9), torch.zeros(2, 8, 9)], r"images\[1\]: tensor .* got \(2, 8, 9\)$"),
        (torch.zeros(9), r"got \(9,\)$"),
        (torch.zeros(3, 0, 9), r"got \(3, 0, 9\)$"),
        (torch.zeros(3, 8, 9, dtype=torch.int64), r"images: uint8, or floating point in \[0, 1\], expected, got int64"),
        (np.zeros((8, 9), bool), "got bool"),
        (torch.full((3, 8, 9), 255.0), r"floating point values in \[0, 1\] expected, got 255 to 255"),
        (torch.full((3, 8, 9), torch.nan), "got nan to nan"),
        ([None], r"images\[0\]: a path, an image of Pillow's, an array or a tensor expected, got NoneType"),
        (7, "images: a path, .* got int"),
        (Image.new("I;16", (8, 8)), "images has pixels of mode I;16; images of 8 bits per channel expected"),
    ],
)
def test_what_is_no_image_is_named(images, said):
    with pytest.raises(ValueError, match=said):
        list(named_images(images))


def test_files_that_are_no_images_are_named(detector, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"broken\.png is not an image that can be decoded"):
        detector.predict([tmp_path / "broken.png"])
    with pytest.raises(ValueError, match=r"deep\.png has pixels of mode I;16"):
        detector.predict(tmp_path / "deep.png")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        detector.predict("nowhere.png")
    with pytest.raises(ValueError, match="batch_size: a number >= 1 expected, got 0"):
        detector.predict([], batch_size=0)


def test_supervision_reads_the_same(detector, files, monkeypatch):
    (found,) = detector.predict(files[0])
    other = found.to_supervision()
    assert np.array_equal(other.xyxy, found.boxes.numpy())
    assert np.array_equal(other.confidence, found.scores.numpy())
    assert np.array_equal(other.class_id, found.labels.numpy())
    assert other.data["class_name"].tolist() == found.class_names
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="to_supervision needs supervision: pip install supervision"):
        Prediction(found.boxes, found.scores, found.labels, found.class_names).to_supervision()


def test_the_folder_of_a_run_stands_for_its_best_checkpoint(checkpoint, detector, digits, tmp_path):
    loaded = lossbox.load(checkpoint.parents[1], device="cpu")
    found = loaded.predict(digits.val_images)
    assert [one.path for one in found] == sorted(digits.val_images.glob("*.*g"))
    assert same(found[2], detector.predict(found[2].path)[0])
    assert repr(loaded).startswith("<Trained: RetinaNet, ")
    assert len(repr(loaded).splitlines()) == 1
    with pytest.raises(FileNotFoundError, match=r"has no checkpoints/best\.ckpt"):
        lossbox.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no image"):
        detector.predict(tmp_path)


def test_options_of_one_prediction(detector, files):
    (all_of_them,) = detector.predict(files[0])
    cut = all_of_them.scores[3].item()
    assert same(
        detector.predict(files[0], score_threshold=cut)[0],
        Prediction(*(getattr(all_of_them, k)[:3] for k in ("boxes", "scores", "labels")), []),
    )
    assert len(detector.predict(files[0], max_detections=9)[0]) == 9
    assert len(detector.predict(files[0])[0]) == 7
    with pytest.raises(ValueError, match="max_detections: a number >= 1 expected, got 0"):
        detector.predict(files[0], max_detections=0)


@pytest.mark.parametrize(
    ("format", "said"), [(None, "has no lossbox_format: .* Train again"), (2, "has lossbox_format 2, .* upgrade lossbox")]
)
def test_a_run_of_another_format_says_what_to_do(checkpoint, tmp_path, format, said):
    content, recipe = torch.load(checkpoint, weights_only=True), yaml.safe_load((checkpoint.parents[1] / "config.yaml").read_text())
    assert content["lossbox_format"] == recipe["lossbox_format"] == 1
    torch.save({**content, "lossbox_format": format}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=rf"ckpt: .*other\.ckpt {said}"):
        lossbox.load(tmp_path / "other.ckpt", checkpoint.parents[1] / "config.yaml")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**recipe, "lossbox_format": format}))
    with pytest.raises(ValueError, match=rf"config: .*config\.yaml {said}"):
        lossbox.load(checkpoint, tmp_path / "config.yaml")


def bright(images):
    """What a detector finds that takes each bright pixel for an object of 4 x 4 pixels, of class 1 where it is pure red."""
    found = []
    for image in images:
        y, x = (image[0] == 255).nonzero().unbind(1)
        boxes = torch.stack([x, y, x + 4, y + 4], 1).float()
        found.append(Detections(boxes, 0.9 - 0.001 * x, (image[1, y, x] == 0).long()))
    return found


def test_a_small_object_in_a_large_image_is_found_once_by_tiles(detector, monkeypatch):
    image = torch.zeros(3, 200, 330, dtype=torch.uint8)
    for y, x in ((10, 10), (150, 300), (85, 90)):  # the last is in four tiles
        image[:, y, x] = 255
    image[0, 86, 91] = 255  # of the other class, in the same place
    batches = []
    monkeypatch.setattr(type(detector), "detect_images", lambda self, images: batches.append(len(images)) or bright(images))
    small = torch.zeros(3, 20, 30, dtype=torch.uint8)
    found, nothing = detector.predict([image, small], tile=100, overlap=0.2, batch_size=4)
    assert batches == [4, 4, 4, 1]  # 3 x 4 tiles and the small image
    assert sorted(found.boxes.tolist()) == [[10, 10, 14, 14], [90, 85, 94, 89], [91, 86, 95, 90], [300, 150, 304, 154]]
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert sum(found.labels.tolist()) == 1
    assert len(nothing) == 0
    assert len(detector.predict(image, tile=100, max_detections=2)[0]) == 2


def test_a_decoder_without_suppression_merges_tiles_all_the_same(checkpoint, monkeypatch):
    detector = lossbox.load(checkpoint, device="cpu", decoder={"nms_threshold": 1.0})
    monkeypatch.setattr(type(detector), "detect_images", lambda self, images: bright(images))
    image = torch.zeros(3, 100, 180, dtype=torch.uint8)
    image[:, 50, 90] = 255
    assert detector.predict(image, tile=100)[0].boxes.tolist() == [[90, 50, 94, 54]]


def test_an_image_no_larger_than_a_tile_is_as_without_tiles(detector, files):
    for one, other in zip(detector.predict(files), detector.predict(files, tile=96), strict=True):
        assert same(one, other)
        assert one.path == other.path
    with pytest.raises(ValueError, match=r"overlap: a number in \[0, 0.75\] expected, got 1"):
        detector.predict(files, tile=96, overlap=1)
