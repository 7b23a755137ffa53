"""Drawn data sets, written in every layout and read again: what was written is used, or named.

More examples by hand: LOSSBOX_EXAMPLES=3000 pytest --timeout 0 tests/coco/test_any_layout.py
"""

import csv
import functools
import io
import json
import os
import tempfile
import unicodedata
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import hypothesis
from hypothesis import strategies as st
from PIL import Image

from lossbox.coco.convert import coco_document
from lossbox.coco.files import normal
from lossbox.coco.layout import read_part
from lossbox.coco.recognize import recognize

WIDTH, HEIGHT = 64, 48

EXAMPLES = int(os.environ.get("LOSSBOX_EXAMPLES", 25))


class Drawn(NamedTuple):
    """An image of a data set; ``folder`` is "" or ends with a slash, ``boxes`` are (class, x, y, width, height)."""

    part: str
    folder: str
    stem: str
    suffix: str
    boxes: tuple

    @property
    def name(self):
        return self.folder + self.stem + self.suffix


# -- what is drawn

# no control characters, no separators of folders and of Windows; lines may end otherwise than in \n in no format
LETTERS = st.characters(min_codepoint=32, exclude_categories=("Cc", "Cs", "Cn", "Co"), exclude_characters='/\\:*?"<>|')
ODD_STEMS = ["a b", "é", "e\u0301", "1", "007", "x.y", "a#1", "50%", "a+b", "x,y", "image (1)", "it's", "données_train", "a\u2028b", "B"]
STEMS = st.sampled_from(ODD_STEMS) | st.text(LETTERS, min_size=1, max_size=8).filter(lambda text: text.strip(". ") == text)
FOLDERS = st.sampled_from(["", "", "sub/", "a b/", "Été/", unicodedata.normalize("NFD", "Été/"), "2024/01/", "images/", "data/"])
SUFFIXES = st.sampled_from([".png", ".PNG", ".jpg", ".JPEG", ".Tiff"])
ODD_CLASSES = [
    "cup",
    "Cup",
    "a, b",
    'say "x"',
    "it's",
    "12",
    "0",
    " cup",
    "cup ",
    "é",
    "e\u0301",
    "no",
    "null",
    "a: b",
    "#1",
    "<b> & c",
    "-",
    "{x}",
]
CLASSES = st.sampled_from(ODD_CLASSES) | st.text(LETTERS, min_size=1, max_size=6).filter(lambda text: text.strip())


@st.composite
def boxes(draw, names):
    """Whole pixels; some without a size, some outside of the image."""
    x, y = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
    width, height = draw(st.integers(1, WIDTH - x)), draw(st.integers(1, HEIGHT - y))
    width = draw(st.sampled_from([width] * 8 + [0, WIDTH + 9]))
    return draw(st.sampled_from(names)), x, y, width, height


@st.composite
def data_sets(draw):
    """The classes, and the images of one part without a name, or of several."""
    names = draw(st.lists(CLASSES, min_size=1, max_size=4, unique_by=normal))
    parts = draw(st.sampled_from([("",), ("train", "val"), ("train", "val", "test"), ("train",)]))
    images, keys = [], set()
    for part in [*parts, *draw(st.lists(st.sampled_from(parts), max_size=3))]:
        folder, stem = draw(FOLDERS), draw(STEMS)
        if (key := (part, normal(folder), normal(stem))) not in keys:
            keys.add(key)
            images.append(Drawn(part, folder, stem, draw(SUFFIXES), tuple(draw(st.lists(boxes(names), max_size=3)))))
    drawn = [box for image in images for box in image.boxes]
    hypothesis.assume(any(max(box) > 1 for _, *box in drawn))  # Hugging Face: all in 0 and 1 are shares of the image
    return names, images


@functools.cache
def png(image):
    """The content of an image, by which it is known again."""
    content = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), zlib.crc32(repr(image[:4]).encode()) & 0xFFFFFF).save(content, "PNG")
    return content.getvalue()


# -- writers: each writes the labels of a data set, and says where its images lie and what the spaces around a class name are


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)


def by_part(images):
    return {part: [image for image in images if image.part == part] for part in dict.fromkeys(image.part for image in images)}


def coco(root, names, images):
    for part, of_part in by_part(images).items():
        records = [{"id": n, "file_name": image.name, "width": WIDTH, "height": HEIGHT} for n, image in enumerate(of_part)]
        rows = [(n, names.index(name), box) for n, image in enumerate(of_part) for name, *box in image.boxes]
        labels = [{"id": i, "image_id": n, "category_id": c, "bbox": box} for i, (n, c, box) in enumerate(rows)]
        categories = [{"id": i, "name": name} for i, name in enumerate(names)]
        put(
            root / "annotations" / f"instances_{part or 'all'}.json",
            json.dumps({"images": records, "annotations": labels, "categories": categories}),
        )
        for image in of_part:
            put(root / "images" / part / image.name, png(image))


def voc(root, names, images):
    for image in images:
        objects = "".join(
            f"<object><name>{escape(name)}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
            "</bndbox></object>"
            for name, x, y, w, h in image.boxes
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        put(root / "Annotations" / image.part / f"{image.folder}{image.stem}.xml", f"<annotation>{size}{objects}</annotation>")
        put(root / "JPEGImages" / image.part / image.name, png(image))
    for part, of_part in by_part(images).items():
        if part:
            put(root / "ImageSets" / "Main" / f"{part}.txt", "".join(f"{part}/{image.folder}{image.stem}\n" for image in of_part))


def yolo_lines(names, image):
    rows = ((names.index(name), (x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT) for name, x, y, w, h in image.boxes)
    return "".join(" ".join(map(repr, row)) + "\n" for row in rows)


def yolo(root, names, images):
    parts = {part: f"images/{part}" for part in by_part(images) if part}
    put(root / "data.yaml", json.dumps({"names": names, **parts}))
    for image in images:
        put(root / "images" / image.part / image.name, png(image))
        put(root / "labels" / image.part / f"{image.folder}{image.stem}.txt", yolo_lines(names, image))


def darknet(root, names, images):
    names = list(dict.fromkeys(name.strip() for name in names))
    images = [image._replace(boxes=tuple((name.strip(), *box) for name, *box in image.boxes)) for image in images]
    put(root / "obj.names", "".join(f"{name}\n" for name in names))
    keys = {"": "train", "train": "train", "val": "valid", "test": "test"}
    said = [f"classes = {len(names)}", "names = data/obj.names"]
    for part, of_part in by_part(images).items():
        folder = f"obj_{keys[part]}_data"
        put(root / f"{part or 'train'}.txt", "".join(f"data/{folder}/{image.name}\n" for image in of_part))
        said.append(f"{keys[part]} = data/{part or 'train'}.txt")
        for image in of_part:
            put(root / folder / image.name, png(image))
            put(root / folder / f"{image.folder}{image.stem}.txt", yolo_lines(names, image))
    put(root / "obj.data", "\n".join(said))


def cvat(root, names, images):
    labels = "".join(f"<label><name>{escape(name)}</name></label>" for name in names)
    entries = []
    for number, image in enumerate(images):
        shapes = "".join(
            f'<box label={quoteattr(name)} xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}"/>' for name, x, y, w, h in image.boxes
        )
        subset = f' subset="{image.part}"' if image.part else ""
        name = quoteattr(image.name)
        entries.append(f'<image id="{number}" name={name}{subset} width="{WIDTH}" height="{HEIGHT}">{shapes}</image>')
        put(root / "images" / image.part / image.name, png(image))
    put(root / "annotations.xml", f"<annotations><meta><task><labels>{labels}</labels></task></meta>{''.join(entries)}</annotations>")


def via(root, names, images):
    for part, of_part in by_part(images).items():
        records = {}
        for image in of_part:
            regions = [
                {"shape_attributes": {"name": "rect", "x": x, "y": y, "width": w, "height": h}, "region_attributes": {"class": name}}
                for name, x, y, w, h in image.boxes
            ]
            records[f"{image.name}{len(png(image))}"] = {"filename": image.name, "size": len(png(image)), "regions": regions}
            put(root / part / image.name, png(image))
        put(root / part / "via.json", json.dumps(records))


def via_csv(root, names, images):
    columns = ("filename", "region_count", "region_id", "region_shape_attributes", "region_attributes")
    for part, of_part in by_part(images).items():
        content = io.StringIO()
        writer = csv.writer(content)
        writer.writerow(columns)
        for image in of_part:
            for number, (name, x, y, w, h) in enumerate(image.boxes):
                shape = {"name": "rect", "x": x, "y": y, "width": w, "height": h}
                writer.writerow([image.name, len(image.boxes), number, json.dumps(shape), json.dumps({"class": name})])
            if not image.boxes:
                writer.writerow([image.name, 0, 0, "{}", "{}"])
            put(root / part / image.name, png(image))
        put(root / part / "via.csv", content.getvalue())


def label_studio(root, names, images):
    tasks = []
    for number, image in enumerate(images):
        place = f"{image.part}/{image.name}".lstrip("/")
        results = [
            {
                "id": f"{number}-{at}",
                "type": "rectanglelabels",
                "original_width": WIDTH,
                "original_height": HEIGHT,
                "value": {
                    "x": 100 * x / WIDTH,
                    "y": 100 * y / HEIGHT,
                    "width": 100 * w / WIDTH,
                    "height": 100 * h / HEIGHT,
                    "rectanglelabels": [name],
                },
            }
            for at, (name, x, y, w, h) in enumerate(image.boxes)
        ]
        url = f"/data/local-files/?d={quote(place)}"
        tasks.append({"id": number, "data": {"image": url}, "annotations": [{"id": number, "result": results}]})
        put(root / place, png(image))
    put(root / "project.json", json.dumps(tasks, ensure_ascii=False))


def labelme(root, names, images):
    for image in images:
        shapes = [{"label": name, "shape_type": "rectangle", "points": [[x, y], [x + w, y + h]]} for name, x, y, w, h in image.boxes]
        about = {"imagePath": image.stem + image.suffix, "imageWidth": WIDTH, "imageHeight": HEIGHT, "shapes": shapes}
        put(root / image.part / f"{image.folder}{image.stem}.json", json.dumps(about))
        put(root / image.part / image.name, png(image))


def hugging_face(root, names, images):
    for part, of_part in by_part(images).items():
        rows = []
        for image in of_part:
            found = {"bbox": [box for _, *box in image.boxes], "category": [name for name, *_ in image.boxes]}
            rows.append(json.dumps({"file_name": image.name, "objects": found}, ensure_ascii=False))
            put(root / part / image.name, png(image))
        put(root / part / "metadata.jsonl", "\n".join(rows))


WRITERS = {
    "COCO": coco,
    "Pascal VOC": voc,
    "YOLO": yolo,
    "Darknet": darknet,
    "CVAT": cvat,
    "VIA": via,
    "VIA, CSV": via_csv,
    "Label Studio": label_studio,
    "LabelMe": labelme,
    "Hugging Face datasets": hugging_face,
}

TRIMMED = {"Pascal VOC", "Darknet", "CVAT"}
"""XML and lines of text, where the spaces around a class name are no part of it."""


# -- the law


@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="LOSSBOX_EXAMPLES" not in os.environ,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(kind=st.sampled_from(list(WRITERS)), data=data_sets())
def test_what_was_written_is_used_or_named(kind, data):
    names, images = data
    hypothesis.assume(not any(set(of_part) <= set(unlabelled(images)) for of_part in by_part(images).values()))  # no image is left
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "mine"
        WRITERS[kind](root, names, images)
        named = []
        layout = recognize(root, named.append)
        reads = {part: read_part(layout, part, named.append, allow_empty=True) for part in layout.parts}
        assert layout.kind == kind.partition(",")[0]
        check(kind, names, images, reads, layout, [str(error) for error in [*named, *layout.notes]])
        classes = layout.names or sorted({box.name for found in reads.values() for read in found for box in read.boxes})
        for found in reads.values():
            document = coco_document(found, layout.ids or classes, root)
            assert len(document["annotations"]) == sum(len(read.boxes) for read in found)


def is_wrong(box):
    return box[3] == 0 or box[1] + box[3] >= WIDTH + 1


def unlabelled(images):
    """The images that have boxes, all of them wrong."""
    return [image for image in images if image.boxes and all(map(is_wrong, image.boxes))]


def check(kind, names, images, reads, layout, named):
    def class_of(name):
        return normal(name.strip() if kind in TRIMMED else name)

    wrong = [box for image in images for box in image.boxes if is_wrong(box)]
    written = Counter(
        (image.part or ("train" if kind == "Darknet" else "all"), normal(image.name), class_of(name), x, y, x + w, y + h)
        for image in images
        for name, x, y, w, h in image.boxes
        if (name, x, y, w, h) not in wrong
    )
    name_of = {png(image): normal(image.name) for image in images}
    used = Counter(
        (part, name_of[read.image.read_bytes()], box.name, *(round(side) for side in box.corners))
        for part, found in reads.items()
        for read in found
        for box in read.boxes
    )
    assert used == written, named
    lost = unlabelled(images)
    assert sum(map(len, reads.values())) == len(images) - len(lost), named
    assert len(named) == len(wrong) + len(lost), named
    if layout.names:
        assert {class_of(name) for name, *_ in sum((image.boxes for image in images), ())} <= set(layout.names)
