"""Near-duplicates, what an image file holds, and what a split keeps together."""

import numpy as np
import pytest
from PIL import Image

from lossbox.coco.alike import near_duplicates, same_groups
from lossbox.coco.checks import NO_LABEL_LEFT
from lossbox.coco.files import Labelled
from lossbox.coco.labels import Box, Read
from lossbox.coco.layout import Layout, look_at_parts, read_part
from lossbox.coco.look import look_at, look_at_all
from lossbox.coco.split import split, to_split, with_val
from lossbox.coco.voc import voc_layout


def scene(seed, size=(160, 120)):
    """A picture with structure, as photographs have it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def reads(paths):
    return [Read(path, (160, 120), [Box("cup", (0, 0, 9, 9))]) for path in paths]


@pytest.fixture
def images(tmp_path):
    """Ten scenes, and three copies of the first in other sizes and formats."""
    paths = [tmp_path / f"{i}.png" for i in range(10)]
    for i, path in enumerate(paths):
        scene(i).save(path)
    scene(0).save(tmp_path / "copy.jpg", quality=40)
    scene(0).resize((80, 60)).save(tmp_path / "small.png")
    scene(0).point(lambda value: value * 0.8 + 10).save(tmp_path / "dark.png")
    return [*paths, *(tmp_path / name for name in ("copy.jpg", "small.png", "dark.png"))]


@pytest.mark.parametrize("depth", ["thumb", "pixels"])
def test_copies_are_found_and_nothing_else(images, depth):
    looks = list(look_at_all(images, depth))
    assert [(i, others.tolist()) for i, others in near_duplicates(looks)] == [(0, [10, 11, 12]), (10, [11, 12]), (11, [12])]
    assert [(i, others.tolist()) for i, others in near_duplicates(looks[10:], looks[:10])] == [(i, [0]) for i in range(3)]
    assert same_groups(images, dict(zip(images, looks, strict=True))).tolist() == [*range(10), 0, 0, 0]
    assert same_groups(images, {}).tolist() == list(range(13))


def test_images_without_contrast_are_not_alike(tmp_path):
    for i, gray in enumerate((0, 100, 101)):
        Image.new("L", (30, 30), gray).save(tmp_path / f"{i}.png")
    assert list(near_duplicates(list(look_at_all(sorted(tmp_path.iterdir()), "pixels")))) == []


def test_augmented_copies_of_roboflow_stay_together(tmp_path):
    names = ["a_jpg.rf.0011.jpg", "a_jpg.rf.0022.jpg", "b_jpg.rf.0011.jpg"]
    for i, name in enumerate(names):
        scene(i).save(tmp_path / name)
    assert same_groups([tmp_path / name for name in names], {}).tolist() == [0, 0, 2]


def test_copies_stay_on_one_side_of_a_split(images):
    looks = dict(zip(images, look_at_all(images, "thumb"), strict=True))
    alike = {images[0], *images[10:]}
    for seed in range(5):
        sides = [{image.image for image in side} & alike for side in split(reads(images), share=0.3, seed=seed, looks=looks)]
        assert sorted(map(len, sides)) == [0, 4]
    # where almost all look alike, there would be no split
    mostly = [images[0], *images[10:], images[1]]
    assert all(split(reads(mostly), share=0.4, looks=looks))


def test_folds_are_a_cross_validation(images):
    parts = {f"fold_{i}": reads([images[i]]) for i in (10, 2, 1)}
    assert to_split(parts) is None
    found, said = with_val(parts)
    assert [[image.image for image in found[part]] for part in ("train", "val")] == [[images[1], images[2]], [images[10]]]
    assert said == "fold_10 is val, the other folds are train"


def test_an_image_file_is_opened_once(images, monkeypatch):
    opened = []
    layout = Layout("x", {"train": [Labelled(path, path) for path in images]}, lambda item, on_bad: Read(item.image, item.look.size, []))
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *rest, **more: opened.append(path) or original(path, *rest, **more))
    look_at_parts(layout, "thumb", lambda items, what, total: items)
    read_part(layout, "train")
    assert sorted(opened) == sorted(images)


def test_what_an_image_file_holds(tmp_path):
    frames = [scene(i) for i in range(3)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    scene(0).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    assert look_at(tmp_path / "film.gif").frames == 3
    assert look_at(tmp_path / "cut.jpg").fault() == ""
    assert "is not an image that can be decoded" in look_at(tmp_path / "cut.jpg", "pixels").fault()
    assert look_at(tmp_path / "none.jpg").fault() == "does not exist"
    items = {"train": [Labelled(tmp_path / name, tmp_path) for name in ("film.gif", "cut.jpg")]}
    layout = Layout("x", items, lambda item, on_bad: Read(item.image, (160, 120), []))
    look_at_parts(layout, "pixels", lambda items, what, total: items)
    bad = []
    assert [image.image.name for image in read_part(layout, "train", bad.append)] == ["film.gif"]
    assert len(bad) == 1
    assert [str(note).partition("film.gif: ")[2] for note in layout.notes] == ["has several frames, of which the first is used, got 3"]


@pytest.mark.parametrize(("first", "asked"), [(1, None), (0, None), (0, 1)])
def test_voc_that_counts_pixels_from_0(tmp_path, first, asked):
    box = "<bndbox><xmin>{}</xmin><ymin>5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"
    for i, xmin in enumerate((first, 1)):
        scene(i).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.xml").write_text(f"<annotation><object><name>cup</name>{box.format(xmin)}</object></annotation>")
    layout = voc_layout(tmp_path, first_pixel=asked)
    bad = []
    boxes = [box.corners for image in read_part(layout, "all", bad.append) for box in image.boxes]
    if first == 1:
        assert boxes == [(0, 4, 20, 30)] * 2
        assert layout.notes == []
    elif asked is None:
        assert boxes == [(0, 5, 20, 30), (1, 5, 20, 30)]
        assert [note.rule for note in layout.notes] == ["are counted from 0: boxes begin there in 1 files; --first-pixel 1 counts from 1"]
    else:
        assert (len(boxes), len(bad)) == (1, 2)
        assert bad[1].rule == NO_LABEL_LEFT  # the image of the one bad box
