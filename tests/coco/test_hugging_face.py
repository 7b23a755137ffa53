"""The object detection layout of Hugging Face datasets, in metadata.jsonl and, where pyarrow is installed, in Parquet and Arrow."""

import io
import json
import sys

import pytest
from PIL import Image

from lossbox.coco.files import BadLabel
from lossbox.coco.layout import read_part
from lossbox.coco.recognize import recognize

WIDTH, HEIGHT = 80, 40


def picture(kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(stream, kind)
    return stream.getvalue()


def read(source, on_bad=None, **options):
    handler = [on_bad] if on_bad else []
    layout = recognize(source, *handler, **options)
    found = {
        f"{part}/{image.image.name}": [(box.name, box.corners) for box in image.boxes]
        for part in layout.parts
        for image in read_part(layout, part, *handler)
    }
    return layout.kind, layout.names, found, [str(note) for note in layout.notes]


def jsonl(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        if row.get("file_name", "").startswith("a"):
            (folder / row["file_name"]).write_bytes(picture())
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def objects(*boxes, categories=None):
    return {"bbox": list(boxes), "categories": categories or ["cup"] * len(boxes)}


@pytest.mark.parametrize(
    ("box", "others", "note"),
    [
        ([10, 5, 20, 4], [], ""),
        ([10, 5, 30, 9], [[60, 5, 70, 9]], "bbox: is read as x1 y1 x2 y2: 2 of 4 break a rule as x y width height, 0 as x1 y1 x2 y2"),
        ([0.125, 0.125, 0.25, 0.1], [], "bbox: is read as x y width height in shares of the image: 0 of 2 break a rule"),
        ([0.125, 0.125, 0.375, 0.225], [[0.9, 0.9, 1, 1]], "bbox: is read as x1 y1 x2 y2 in shares of the image: 2 of 4 break a rule"),
    ],
)
def test_the_way_of_the_boxes_is_found(tmp_path, box, others, note):
    for part in ("train", "validation"):
        jsonl(tmp_path / part, {"file_name": "a.png", "objects": objects(box, *others)})
    kind, names, found, notes = read(tmp_path)
    assert (kind, names, list(found)) == ("Hugging Face datasets", ["cup"], ["train/a.png", "val/a.png"])
    assert found["train/a.png"][0] == ("cup", pytest.approx((10, 5, 30, 9)))
    assert [text.startswith(note) for text in notes] == [True] * bool(note)


def test_bad_rows_are_named(tmp_path):
    rows = [
        {"file_name": "a.png", "objects": [{"bbox": [1, 2, 3, 4], "category": "cup"}, {"bbox": [1, 2, 3]}, {"bbox": [1, 2, 3, 4]}]},
        {"file_name": "b.png", "objects": objects()},
        {"file_name": "a2.png", "objects": objects([1, 2, 3, 4], categories=[1, 2])},
        {"file_name": "a3.png", "objects": None},
    ]
    jsonl(tmp_path, *rows)
    bad = []
    _, _, found, _ = read(tmp_path, bad.append)
    assert found == {"all/a.png": [("cup", (1, 2, 4, 6))], "all/a3.png": []}
    assert [str(error).removeprefix(f"{tmp_path}/metadata.jsonl: ") for error in bad] == [
        "row 1: its image does not exist, got 'b.png'",
        "row 2: objects must have lists of equal length, got {'bbox': 1, 'categories': 2}",
        "row 0: objects[1]: bbox of four numbers expected, got [1.0, 2.0, 3.0]",
        "row 0: objects[2]: names no class",
    ]
    with pytest.raises(BadLabel):
        read(tmp_path)


def test_without_pyarrow_the_error_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        recognize(tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("as_list", [False, True])
def test_tables(tmp_path, kind, as_list):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("pyarrow.ipc")
    label = {"names": ["cup", "pen"], "_type": "ClassLabel"}
    inner = {"bbox": {"_type": "List"}, "category": label if as_list else {"feature": label, "_type": "List"}}
    features = {"image": {"_type": "Image"}, "objects": {"feature": inner, "_type": "List"} if as_list else inner}
    some = [{"bbox": [1.0, 2.0, 3.0, 4.0], "category": 1}] if as_list else {"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [1]}
    none = [] if as_list else {"bbox": [], "category": []}
    images = [{"bytes": picture("JPEG"), "path": None}, {"bytes": picture(), "path": "x.png"}]
    rows = [{"image": images[0], "objects": some}, {"image": images[1], "objects": none}]
    table = pyarrow.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for part in ("train", "test"):
        path = tmp_path / "d/data" / f"{part}-00000-of-00001.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "parquet":
            pyarrow.parquet.write_table(table, path)
        else:
            with pyarrow.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table)
    _, names, found, notes = read(tmp_path / "d", store=tmp_path / "store")
    boxes = [[("pen", (1, 2, 4, 6))], []]
    name = "{0}/{0}-00000-of-00001-00000{1}.{2}"
    assert found == {name.format(part, i, "jpg" if i == 0 else "png"): boxes[i] for part in ("test", "train") for i in (0, 1)}
    assert (names, notes) == (["cup", "pen"], [])
    assert (tmp_path / "store/images/train").is_dir()
    table = pyarrow.Table.from_pylist([{"picture": b""}])
    pyarrow.parquet.write_table(table, tmp_path / "d/data/train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="lacks the column image; an image and its objects expected, got picture"):
        read(tmp_path / "d", store=tmp_path / "store")
