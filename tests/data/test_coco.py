"""COCO JSON into records, and image files of every kind into RGB."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from lossbox.coco.read import CocoImage, read_coco
from lossbox.data.digits import write_digits
from lossbox.data.images import CocoDataset, Phase, decode_image


def test_reads_images_boxes_and_labels(coco_folder):
    read = read_coco(*coco_folder.write())
    assert read.path == coco_folder.json_file
    assert read.categories == [(3, "cat"), (20, "dog")]
    assert read.category_ids == [3, 20]
    assert read.class_names == ["cat", "dog"]
    assert [image.id for image in read.images] == [5, 7, 6]
    assert [(image.width, image.height) for image in read.images] == [(40, 30)] * 3
    five, seven, six = read.images
    assert five.path == coco_folder.images / "5.png"
    assert five.boxes.tolist() == [[1, 2, 4, 6], [10.5, 5, 30.75, 10]]
    assert five.labels.tolist() == [1, 0]
    assert five.crowd.tolist() == [False, True]
    assert six.boxes.tolist() == [[0, 0, 40, 30]]
    assert seven.boxes.shape == (0, 4)
    for image in read.images:
        assert (image.boxes.dtype, image.labels.dtype, image.crowd.dtype) == (torch.float32, torch.int64, torch.bool)
    assert read.dropped == frozenset()


def test_a_file_without_any_annotation_is_read(coco_folder):
    coco_folder.document["annotations"] = []
    assert [len(image.boxes) for image in read_coco(*coco_folder.write()).images] == [0, 0, 0]


def test_less_than_a_pixel_outside_is_clipped(coco_folder):
    coco_folder.document["annotations"] = [{"id": 1, "image_id": 5, "category_id": 3, "bbox": [-0.9, -0.5, 41.7, 31.3]}]
    assert read_coco(*coco_folder.write()).images[0].boxes.tolist() == [[0, 0, 40, 30]]


def test_images_in_subfolders_and_behind_links_inside_the_root(coco_folder):
    (coco_folder.images / "deep/er").mkdir(parents=True)
    (coco_folder.images / "5.png").rename(coco_folder.images / "deep/er/5.png")
    (coco_folder.images / "link.png").symlink_to("deep/er/5.png")
    coco_folder.document["images"][0]["file_name"] = "deep/er/5.png"
    coco_folder.document["images"][1]["file_name"] = "link.png"
    linked_root = coco_folder.root / "elsewhere"
    linked_root.symlink_to(coco_folder.images)
    read = read_coco(coco_folder.write()[0], linked_root)
    assert read.images[0].path == linked_root / "deep/er/5.png"
    decode_image(read.images[1], source=read.path)


def test_dataset_gives_the_image_and_its_targets(coco_folder):
    dataset = CocoDataset(read_coco(*coco_folder.write()))
    assert len(dataset) == 3
    image, targets = dataset[0]
    assert isinstance(image, tv_tensors.Image)
    assert image.dtype == torch.uint8
    stored = torch.from_numpy(np.array(Image.open(coco_folder.images / "5.png"))).permute(2, 0, 1)
    assert torch.equal(image.as_subclass(torch.Tensor), stored)
    assert (targets.image_id, targets.size, targets.original_size) == (5, (30, 40), (30, 40))
    assert targets.labels.tolist() == [1, 0]
    assert targets.crowd.tolist() == [False, True]


def test_cache_decodes_once(coco_folder):
    read = read_coco(*coco_folder.write())
    cached, fresh = CocoDataset(read, cache=True), CocoDataset(read)
    first = cached[0][0]
    (coco_folder.images / "5.png").unlink()
    assert torch.equal(cached[0][0], first)
    with pytest.raises(FileNotFoundError, match="image id 5"):
        fresh[0]


def test_seed_in_the_index_decides_the_random_choices_and_leaves_the_generator_alone(coco_folder):
    dataset = CocoDataset(read_coco(*coco_folder.write()), Phase(lambda image, targets: (torch.rand(3), targets)))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    draws = [dataset[0, 11, 0][0], dataset[1, 11, 0][0], dataset[0, 12, 0][0]]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(dataset[0][0], dataset[0][0])


def test_generator_is_restored_where_a_transform_fails(coco_folder):
    def broken(image, targets):
        torch.rand(1)
        raise RuntimeError("broken")

    dataset = CocoDataset(read_coco(*coco_folder.write()), Phase(broken))
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        dataset[0, 3, 0]
    assert torch.equal(torch.get_rng_state(), state)


# -- image files


RGB = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def record(path, width=8, height=6):
    empty = torch.zeros(0)
    return CocoImage(1, path, width, height, empty.reshape(0, 4), empty.long(), empty.bool())


def gray():
    return Image.fromarray(RGB).convert("L")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Image.fromarray(RGB), RGB),
        (gray, np.asarray(gray())[..., None].repeat(3, 2)),
        (lambda: Image.merge("LA", (gray(), Image.new("L", (8, 6), 9))), np.asarray(gray())[..., None].repeat(3, 2)),
        (lambda: Image.merge("RGBA", (*Image.fromarray(RGB).split(), Image.new("L", (8, 6), 9))), RGB),
        (lambda: Image.fromarray(RGB).quantize(48), np.asarray(Image.fromarray(RGB).quantize(48).convert("RGB"))),
        (lambda: gray().point(lambda v: 255 * (v > 128)).convert("1"), (np.asarray(gray())[..., None].repeat(3, 2) > 128) * 255),
    ],
    ids=["RGB", "gray", "gray and alpha", "RGBA", "palette", "black and white"],
)
@pytest.mark.filterwarnings("error")
def test_every_kind_of_image_becomes_rgb(tmp_path, make, expected):
    make().save(tmp_path / "p.png")
    decoded = decode_image(record(tmp_path / "p.png"), source=tmp_path / "x.json")
    assert decoded.dtype == torch.uint8
    assert decoded.is_contiguous()
    assert np.array_equal(decoded.permute(1, 2, 0).numpy(), expected)


@pytest.mark.filterwarnings("error")
def test_palette_with_transparency_and_cmyk(tmp_path):
    palette = Image.fromarray(RGB).quantize(16)
    palette.save(tmp_path / "p.png", transparency=bytes(range(16)))
    decoded = decode_image(record(tmp_path / "p.png"), source=tmp_path / "x.json")
    assert np.array_equal(decoded.permute(1, 2, 0).numpy(), np.asarray(palette.convert("RGB")))
    Image.new("CMYK", (8, 6), (0, 255, 255, 0)).save(tmp_path / "p.jpg")
    red = decode_image(record(tmp_path / "p.jpg"), source=tmp_path / "x.json").float().mean((1, 2))
    assert red[0] > 200 > 60 > red[1:].max()


def test_exif_orientation_is_not_applied_and_named_where_the_json_means_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(RGB).save(tmp_path / "p.png", exif=exif)
    stored = decode_image(record(tmp_path / "p.png"), source=tmp_path / "x.json")
    assert np.array_equal(stored.permute(1, 2, 0).numpy(), RGB)
    with pytest.raises(ValueError, match=r"has 8 x 6 pixels, the JSON states width x height = 6 x 8; it has an EXIF orientation"):
        decode_image(record(tmp_path / "p.png", width=6, height=8), source=tmp_path / "x.json")


def test_sixteen_bits_a_channel_are_refused(tmp_path):
    Image.fromarray(np.full((6, 8), 40000, dtype=np.uint16)).save(tmp_path / "p.png")
    with pytest.raises(ValueError, match=r"x\.json: image id 1: .*p\.png has pixels of mode I.*8 bits"):
        decode_image(record(tmp_path / "p.png"), source=tmp_path / "x.json")


def test_the_embedded_digits_are_read_like_any_other_data(tmp_path):
    made = write_digits(tmp_path, train_images=3, val_images=2, size=64, progress=False)
    read = read_coco(made.train_annotations, made.train_images)
    document = json.loads(made.train_annotations.read_text())
    assert sum(len(image.boxes) for image in read.images) == len(document["annotations"]) > 0
    image, targets = CocoDataset(read)[1]
    assert image.shape == (3, 64, 64)
    assert targets.boxes.max() <= 64
