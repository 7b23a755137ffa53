"""The sheet of `lossbox check`: the labels that a person should look at."""

import json

import numpy as np
import pytest
from PIL import Image

from lossbox.__main__ import main
from lossbox.report import faults as drawing

WIDTH, HEIGHT = 320, 240
BOXES = {
    "none.png": [[10, 10, 100, 100]],
    "size.png": [[20, 20, 100, 100], [50, 60, 0, 40]],
    "outside.png": [[300, 100, 500, 50]],
    "double.png": [[10, 10, 100, 100], [10, 10, 100, 99]],
    "tiny.png": [[100, 100, 2, 3]],
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def said(monkeypatch):
    """The text of the sheet, panel by panel."""
    texts = []
    save = drawing.save_figure

    def saved(figure, path):
        texts.extend([figure.get_suptitle(), *(panel.get_title() for panel in figure.axes)])
        return save(figure, path)

    monkeypatch.setattr(drawing, "save_figure", saved)
    return texts


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.stem)).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((WIDTH, HEIGHT)).save(path)


def as_coco(folder, boxes):
    images = [{"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(boxes, 1)]
    rows = [(i, box) for i, name in enumerate(boxes, 1) for box in boxes[name]]
    annotations = [{"id": n, "image_id": i, "category_id": 1, "bbox": box} for n, (i, box) in enumerate(rows, 1)]
    (folder / "train.json").write_text(
        json.dumps({"images": images, "categories": [{"id": 1, "name": "cup $5"}], "annotations": annotations})
    )


def as_yolo(folder, boxes):
    (folder / "data.yaml").write_text('names: ["cup $5"]\n')
    for name, of_image in boxes.items():
        lines = [f"0 {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}\n" for x, y, w, h in of_image]
        (folder / f"{name[:-4]}.txt").write_text("".join(lines))


def as_voc(folder, boxes):
    for name, of_image in boxes.items():
        corners = [(x + 1, y + 1, x + w, y + h) for x, y, w, h in of_image]
        tags = ("xmin", "ymin", "xmax", "ymax")
        objects = ["".join(f"<{tag}>{side}</{tag}>" for tag, side in zip(tags, box, strict=True)) for box in corners]
        body = "".join(f"<object><name>cup $5</name><bndbox>{box}</bndbox></object>" for box in objects)
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        (folder / f"{name[:-4]}.xml").write_text(f"<annotation>{size}{body}</annotation>")


def check(*words):
    try:
        return main(["check", *map(str, words)])
    except SystemExit as stopped:
        return stopped.code


@pytest.mark.parametrize(("form", "by_hand"), [(as_coco, False), (as_coco, True), (as_yolo, False), (as_voc, False)])
def test_one_of_each_kind_is_drawn_with_its_reason(tmp_path, capsys, said, form, by_hand):
    mine = tmp_path / "mine"
    for name in BOXES:
        draw(mine / name)
    form(mine, BOXES)
    data = [mine / "train.json", mine] if by_hand else [mine]
    assert check(*data, "--sheet", "s/sheet.png", "--json", "found.json") == 1
    worst = json.loads((tmp_path / "found.json").read_text())["worst"]
    assert worst["counts"] == {"no size": 1, "outside": 1, "double": 1, "tiny": 1}
    assert {(row["image"].rpartition("/")[2], row["kind"]) for row in worst["boxes"]} == {
        ("size.png", "no size"),
        ("outside.png", "outside"),
        ("double.png", "double"),
        ("tiny.png", "tiny"),
    }
    by_kind = {row["kind"]: row for row in worst["boxes"]}
    assert by_kind["outside"]["box"] == pytest.approx([300, 100, 800, 150], abs=0.01)
    assert by_kind["no size"]["box"] == pytest.approx([50, 60, 50, 100], abs=0.01)
    assert sorted(image.rpartition("/")[2] for image in worst["shown"]) == ["double.png", "outside.png", "size.png", "tiny.png"]
    assert said[0] == "4 of 4 images with labels to look at; of all: 1 no size, 1 outside, 1 double, 1 tiny"
    panels = {text.splitlines()[0]: text for text in said[1:]}
    assert "no size: 0 x 40 px" in panels["size.png"]
    assert "outside: 500 x 50 px at 300, 100" in panels["outside.png"]
    assert r"double: cup \$5 twice, IoU 0.99" in panels["double.png"]
    assert r"tiny: cup \$5 of " in panels["tiny.png"]
    assert Image.open(tmp_path / "s" / "sheet.png").size[0] > 800
    assert "labels to look at: 1 no size, 1 outside, 1 double, 1 tiny; the worst images: s/sheet.png\n" in capsys.readouterr().out


def test_where_nothing_is_wrong_no_sheet_is_written(tmp_path, capsys):
    boxes = {"a.png": [[10, 10, 100, 100]], "b.png": [[20, 20, 90, 100]]}
    for name in boxes:
        draw(tmp_path / name)
    as_coco(tmp_path, boxes)
    old = tmp_path / "runs/check/train/worst.png"
    draw(old)  # of an earlier check
    assert check("train.json", ".", "--json", "found.json") == 0
    assert "no label is without a size, outside of its image, double or tiny: no sheet" in capsys.readouterr().out
    assert not old.exists()
    assert json.loads((tmp_path / "found.json").read_text())["worst"] == {"counts": {}, "sheet": None, "shown": [], "boxes": []}


def test_labels_without_a_box_and_broken_images_do_not_stop_the_sheet(tmp_path, said, capsys):
    boxes = {"shape.png": [[1, 2, 3]], "broken.png": [[0, 0, 0, 0]], "huge.png": [[-1e30, 0, 2e30, 5]]}
    for name in boxes:
        draw(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"broken")
    as_coco(tmp_path, boxes)
    assert check("train.json", ".", "--allow-empty") == 1
    assert said[0].startswith("2 of 3 images")
    assert {text.splitlines()[0] for text in said[1:]} >= {"shape.png", "huge.png"}
    assert "1 no size, 1 outside, 1 bad label; the worst images: runs/check/train/worst.png" in capsys.readouterr().out
