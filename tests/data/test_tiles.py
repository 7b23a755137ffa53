"""A data set in tiles: no box is lost, what a tile shows of a box is an object or ignored, and validation is about whole images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DistributedSampler

from lossbox.boxes import tile_corners
from lossbox.coco.read import CocoAnnotations, CocoImage
from lossbox.data import images as images_module
from lossbox.data.digits import write_digits
from lossbox.data.images import CocoDataset, TiledImages
from lossbox.data.module import CocoDataModule
from lossbox.data.tiles import cut_into_tiles
from lossbox.data.transforms import Augmentation, train_transforms
from lossbox.records import Targets


def annotations(*images):
    return CocoAnnotations(Path("a.json"), [(1, "cup"), (2, "pen")], list(images))


def image(boxes, *, size=(100, 180), crowd=None, number=1, path="a.png"):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    crowd = torch.zeros(len(boxes), dtype=torch.bool) if crowd is None else torch.tensor(crowd, dtype=torch.bool)
    return CocoImage(number, Path(path), size[1], size[0], boxes, torch.arange(len(boxes)) % 2, crowd)


@st.composite
def images(draw):
    width, height = draw(st.integers(1, 250)), draw(st.integers(1, 250))
    boxes, crowd = [], []
    for _ in range(draw(st.integers(0, 5))):
        corners = []
        for side in (width, height):
            low = draw(st.floats(0, side, width=32, exclude_max=True))
            corners.append((low, draw(st.floats(low, side, width=32, exclude_min=True))))
        (x1, x2), (y1, y2) = corners
        boxes.append([x1, y1, x2, y2])
        crowd.append(draw(st.booleans()))
    return image(boxes, size=(height, width), crowd=crowd)


@settings(max_examples=40, deadline=None)
@given(images(), st.integers(40, 300), st.sampled_from([0.0, 0.2, 0.5]), st.sampled_from([0.0, 0.4, 1.0]))
def test_every_box_is_trained_on_in_a_tile_and_is_background_in_none(whole, tile, overlap, min_visible):
    tiles = cut_into_tiles(annotations(whole), tile=tile, overlap=overlap, min_visible=min_visible).images
    assert [part.corner for part in tiles] == tile_corners((whole.height, whole.width), tile, overlap)
    trained = torch.zeros(len(whole.boxes), dtype=torch.long)
    for part in tiles:
        assert (part.width, part.height) == (min(tile, whole.width), min(tile, whole.height))
        assert part.stored is whole
        y, x = part.corner
        rows = iter(range(len(part.boxes)))
        for number, box in enumerate(whole.boxes.double()):
            moved = box - torch.tensor([x, y, x, y])
            clipped = moved.clamp(min=0).minimum(torch.tensor([part.width, part.height] * 2))
            if not (clipped[2:] > clipped[:2]).all():
                continue
            row = next(rows)  # what shows in the tile is in its list, in the order of the image
            assert torch.equal(part.boxes[row].double(), clipped)
            assert part.labels[row] == whole.labels[number]
            share = (clipped[2:] - clipped[:2]).prod() / (box[2:] - box[:2]).prod()
            if whole.crowd[number]:
                assert part.crowd[row]
            elif share >= min_visible + 1e-9:
                assert not part.crowd[row]
            trained[number] += int(not part.crowd[row])
        assert next(rows, None) is None
    assert (trained[~whole.crowd] >= 1).all()
    assert (trained[whole.crowd] == 0).all()


def test_of_a_box_larger_than_a_tile_the_tile_that_shows_most_is_trained_on():
    parts = cut_into_tiles(annotations(image([[0, 0, 400, 90]], size=(100, 400))), tile=100, overlap=0.0).images
    assert [(part.boxes.tolist(), part.crowd.tolist()) for part in parts] == [([[0, 0, 100, 90]], [number > 0]) for number in range(4)]


def test_an_image_no_larger_than_a_tile_stays_whole():
    small = image([[1, 2, 3, 4]], size=(60, 100))
    assert cut_into_tiles(annotations(small), tile=100).images == [small]
    with pytest.raises(ValueError, match=r"min_visible: a number in \[0, 1\] expected, got 2"):
        cut_into_tiles(annotations(small), tile=100, min_visible=2)


def test_a_crowd_region_of_which_the_jitter_leaves_little_is_no_background():
    jitter = train_transforms(Augmentation(horizontal_flip=0, scale_jitter=(4.0, 4.0)), size=64)
    boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0]] * 2)
    targets = Targets(boxes, torch.tensor([0, 1]), torch.tensor([False, True]), 1, (64, 64), (64, 64))
    _, left = jitter(torch.zeros(3, 64, 64, dtype=torch.uint8), targets)
    assert left.labels.tolist() == [1]


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Two images as files, 90 x 150 and 40 x 50, and the names of those that are decoded."""
    generator, records = np.random.default_rng(0), []
    for number, (height, width) in enumerate([(90, 150), (40, 50)], 1):
        path = tmp_path / f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        records.append(image([[10, 10, 30, 30]], size=(height, width), number=number, path=path))
    decoded = []
    decode = images_module.decode_image
    monkeypatch.setattr(images_module, "decode_image", lambda record, **rest: decoded.append(record.id) or decode(record, **rest))
    return annotations(*records), decoded


@pytest.mark.parametrize(("cache", "expected"), [(True, [1, 2]), (False, [1, 2, 1])])
def test_a_tile_has_its_part_of_the_pixels_and_says_where_it_lies(stored, cache, expected):
    whole, decoded = stored
    pixels = [CocoDataset(whole)[number][0] for number in range(2)]
    decoded.clear()
    tiles = CocoDataset(cut_into_tiles(whole, tile=64), cache=cache)
    assert len(tiles) == 2 * 3 + 1
    for part, target in (tiles[number] for number in range(len(tiles))):
        y, x = target.corner
        assert torch.equal(part, pixels[target.image_id - 1][:, y : y + 64, x : x + 64])
        assert target.size == target.original_size == (64, 64) if target.image_id == 1 else (40, 50)
    tiles[0]
    assert decoded == expected  # once for all tiles of an image in a row


def test_the_tiles_of_an_image_go_to_one_process_and_none_is_lost(stored):
    images = TiledImages(CocoDataset(cut_into_tiles(stored[0], tile=64)))
    assert (len(images), images.most) == (2, 6)
    shares = [[images[number] for number in DistributedSampler(images, 3, process, shuffle=False)] for process in range(3)]
    seen = [[(targets.image_id, len(item)) for item in share for _, targets in item[:1]] for share in shares]
    assert seen == [[(1, 6)], [(2, 1)], [(1, 6)]]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    made = write_digits(tmp_path_factory.mktemp("digits"), train_images=5, val_images=3, size=96, progress=False)
    return {name: getattr(made, name) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}


def test_batches_of_tiles(digits):
    data = CocoDataModule(**digits, image_size=64, batch_size=8, tile=64, overlap=0.2)
    (one, two, *_), val = list(data.train_dataloader()), list(data.val_dataloader())
    assert one.images.shape == two.images.shape == (8, 3, 64, 64)
    assert data.train_count == 20
    assert [len(batch.targets) for batch in val] == [8, 4]  # two images, then one
    assert [t.image_id for batch in val for t in batch.targets] == [1] * 4 + [2] * 4 + [3] * 4
    assert [t.corner for t in val[1].targets] == [(0, 0), (0, 32), (32, 0), (32, 32)]
    assert [len(some.targets) for some in val[0].split(3)] == [3, 3, 2]
    assert data.val_ground_truth.image_ids.tolist() == [1, 2, 3]
    assert data.val_dataset[0][1].size == (64, 64)
    said = data.describe_tiles("fit")
    assert said.startswith("tiles of 64 px, overlap 0.2: training 5 images, 20 tiles (")
    assert "; validation 3 images, 12 tiles (" in said
    assert CocoDataModule(**digits, tile=96).describe_tiles("validate").endswith("; no image is larger than a tile")
    assert CocoDataModule(**digits, tile=0).describe_tiles("fit") is None
    assert "GiB" not in said
    said = CocoDataModule(**digits, tile=64, eval_size=8192).describe_tiles("validate")
    assert said.endswith("; the validation holds the 4 tiles of an image at once, some 3 GiB")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tile": 6}, "tile: 32 pixels or more expected, or 0 for whole images, got 6"),
        ({"tile": -640}, "tile: 32 pixels or more expected, or 0 for whole images, got -640"),
        ({"tile": 64, "overlap": 1.0}, r"overlap: a number in \[0, 0.75\] expected, got 1.0"),
        ({"overlap": -0.1}, r"overlap: a number in \[0, 0.75\] expected, got -0.1"),
    ],
)
def test_options_out_of_range(digits, options, said):
    with pytest.raises(ValueError, match=said):
        CocoDataModule(**digits, **options)
    with pytest.raises(ValueError, match=said):  # where `auto` is decided, before there is a data module
        cut_into_tiles(annotations(image([])), **{"tile": 64} | options)


def test_a_batch_of_more_tiles_than_there_are_names_a_size_that_works(digits):
    with pytest.raises(ValueError, match=r"batch_size: 24 is more than the 20 tiles from .*; --data.batch_size 20 works"):
        CocoDataModule(**digits, image_size=64, batch_size=24, tile=64).train_dataloader()
    assert len(list(CocoDataModule(**digits, image_size=64, batch_size=20, tile=64).train_dataloader())) == 1
