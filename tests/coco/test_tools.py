"""Files of annotation tools that describe many images: every shape becomes a box, or is named."""

import csv
import io
import json
import zipfile

import pytest
from PIL import Image

from lossbox.coco.checks import NO_LABEL_LEFT
from lossbox.coco.files import BadLabel
from lossbox.coco.layout import read_part
from lossbox.coco.recognize import recognize

WIDTH, HEIGHT = 80, 40


def draw(path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, **options)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(source, on_bad=None, **options):
    """The kind, the classes, (class, box) by part and image, and the notes; boxes rounded to a thousandth of a pixel."""
    handler = [on_bad] if on_bad else []
    layout = recognize(source, *handler, **options)
    found = {
        f"{part}/{image.image.name}": [(box.name, tuple(round(number, 3) for number in box.corners)) for box in image.boxes]
        for part in layout.parts
        for image in read_part(layout, part, *handler)
    }
    return layout.kind, layout.names, found, [str(note).removeprefix(f"{source}/") for note in layout.notes]


# -- CVAT


def cvat(images="", tracks="", labels=("cup", "plate")):
    listed = "".join(f"<label><name>{name}</name></label>" for name in labels)
    size = "<original_size><width>80</width><height>40</height></original_size>" if tracks else ""
    return f"<annotations><version>1.1</version><meta><task><labels>{listed}</labels>{size}</task></meta>{images}{tracks}</annotations>"


CVAT_SHAPES = {
    '<box label="cup" xtl="10" ytl="5" xbr="30.5" ybr="25" occluded="1"><attribute name="color">red</attribute></box>': (10, 5, 30.5, 25),
    '<box label="cup" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90"/>': (15, 5, 25, 25),
    '<polygon label="cup" points="10,5;30,7.5;20,25"/>': (10, 5, 30, 25),
    '<polygon label="cup" points="-10,5;30,7.5;20,45"/>': (0, 5, 30, 40),
    '<ellipse label="cup" cx="20" cy="15" rx="10" ry="5"/>': (10, 10, 30, 20),
    '<mask label="cup" rle="1" left="10" top="5" width="20" height="4"/>': (10, 5, 30, 9),
    '<cuboid label="cup" xtl1="10" ytl1="5" xbl1="10" ybl1="9" xtr1="20" ytr1="5" xbr1="30" ybr1="12" xtl2="11" ytl2="6"/>': (
        10,
        5,
        30,
        12,
    ),
}


@pytest.mark.parametrize(("shape", "box"), CVAT_SHAPES.items())
def test_shapes_of_cvat(tmp_path, shape, box):
    draw(tmp_path / "images/a b.jpg")
    text(tmp_path / "annotations.xml", cvat(f'<image id="0" name="a b.jpg" width="80" height="40">{shape}</image>'))
    assert read(tmp_path) == ("CVAT", ["cup", "plate"], {"all/a b.jpg": [("cup", box)]}, [])


def test_cvat_parts_and_what_has_no_box(tmp_path):
    for name in ("train/1.jpg", "2.jpg", "3.jpg"):
        draw(tmp_path / "images" / name)
    shapes = '<polyline label="cup" points="1,1;2,2"/><points label="cup" points="1,1"/><tag label="cup"/>'
    text(
        tmp_path / "annotations.xml",
        cvat(
            f'<image id="0" name="train/1.jpg" subset="Train" width="80" height="40">{shapes}</image>'
            '<image id="1" name="2.jpg" subset="Validation" width="80" height="40"><box label="x" xtl="1" ytl="1" xbr="9" ybr="9"/></image>'
        ),
    )
    bad = []
    layout = recognize(tmp_path, bad.append)
    assert [(part, [image.image.name for image in items]) for part, items in layout.parts.items()] == [
        ("train", ["1.jpg"]),
        ("val", ["2.jpg"]),
    ]
    names, found, notes = layout.names, read_part(layout, "val"), [str(note).removeprefix(f"{tmp_path}/") for note in layout.notes]
    assert (names, [box.corners for box in found[0].boxes], bad) == (["cup", "plate", "x"], [(1, 1, 9, 9)], [])
    assert [note.partition(": ")[2] for note in notes] == [
        "image 0 (train/1.jpg): polyline: is of the type polyline, has no box, and is not used",
        "image 0 (train/1.jpg): points: is of the type points, has no box, and is not used",
        "image 0 (train/1.jpg): tag: is of the type tag, has no box, and is not used",
        "is in no part",
        "is not among the classes that the file lists, and is one more",
    ]
    assert notes[-1].startswith("class 'x' of 1 labels: ")


BAD_CVAT = {
    '<image id="0" name="b.jpg"/>': "image 0 (b.jpg): its image is not below",
    '<image id="0" name="a.jpg" width="81" height="40"/>': "image 0 (a.jpg): states 81 x 40 px",
    '<image id="0" name="a.jpg"><box label="cup" xtl="1" ytl="1" xbr="x" ybr="2"/></image>': "box: xtl, ytl, xbr, ybr expected, as numbers",
    '<image id="0" name="a.jpg"><box label="cup" xtl="1" ytl="1" xbr="1" ybr="2"/></image>': "bbox must have a positive width",
    '<image id="0" name="a.jpg"><box label="" xtl="1" ytl="1" xbr="3" ybr="2"/></image>': "box: names no class",
    '<image id="0" name="a.jpg"><box label="cup" xtl="1" ytl="1" xbr="99" ybr="2"/></image>': "bbox must lie inside its image",
    '<image id="0" name="a.jpg"><polygon label="cup" points=""/></image>': "pairs x, y expected",
    '<image id="0" name="a.jpg"><cuboid label="cup"/></image>': "pairs x, y expected",
    '<image id="0" name="a.jpg"><sphere label="cup"/></image>': "sphere: is a shape that is not known; box, polygon",
    '<image id="0" name="a.jpg"/><image id="1" name="images/a.jpg"/>': "image 1 (images/a.jpg): is about the same image as ",
}


@pytest.mark.parametrize(("images", "message"), BAD_CVAT.items())
def test_bad_records_of_cvat_are_named(tmp_path, images, message):
    draw(tmp_path / "images/a.jpg")
    draw(tmp_path / "images/c.jpg")
    text(tmp_path / "annotations.xml", cvat(images + '<image id="7" name="c.jpg"/>'))
    with pytest.raises(BadLabel) as raised:
        read(tmp_path)
    assert message in str(raised.value)
    bad = []
    assert "all/c.jpg" in read(tmp_path, bad.append)[2]
    assert [error.rule for error in bad[1:]] == ([NO_LABEL_LEFT] if "label=" in images else [])  # without its only label


def test_tracks_of_cvat(tmp_path):
    for frame in range(3):
        draw(tmp_path / f"images/frame_{frame:06}.PNG")
    box = '<box frame="{}" outside="{}" keyframe="1" xtl="{}" ytl="1" xbr="9" ybr="9"/>'
    tracks = f'<track id="0" label="cup">{box.format(0, 0, 1)}{box.format(1, 0, 2)}{box.format(2, 1, 2)}</track>'
    text(tmp_path / "annotations.xml", cvat(tracks=tracks + f'<track id="1" label="plate">{box.format(1, 0, 3)}</track>'))
    kind, _, found, notes = read(tmp_path)
    assert (kind, found) == (
        "CVAT",
        {
            "all/frame_000000.PNG": [("cup", (1, 1, 9, 9))],
            "all/frame_000001.PNG": [("cup", (2, 1, 9, 9)), ("plate", (3, 1, 9, 9))],
            "all/frame_000002.PNG": [],
        },
    )
    assert notes == ["annotations.xml: track 0, frame 2: is outside of the image, and not used"]
    (tmp_path / "images/frame_000001.PNG").unlink()
    with pytest.raises(BadLabel, match="frame 1: its image is not below"):
        read(tmp_path)


def test_a_zip_file_of_cvat(tmp_path):
    draw(tmp_path / "a.jpg")
    with zipfile.ZipFile(tmp_path / "job.zip", "w") as archive:
        archive.write(tmp_path / "a.jpg", "images/a.jpg")
        archive.writestr("annotations.xml", cvat('<image id="0" name="a.jpg"><box label="cup" xtl="1" ytl="1" xbr="9" ybr="9"/></image>'))
    assert read(tmp_path / "job.zip", store=tmp_path / "store")[2] == {"all/a.jpg": [("cup", (1, 1, 9, 9))]}
    with pytest.raises(ValueError, match=r"job.zip is a ZIP file; unpack it"):
        recognize(tmp_path / "job.zip")
    (tmp_path / "job.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"job.zip is not a ZIP file that can be unpacked"):
        recognize(tmp_path / "job.zip", store=tmp_path / "store")


# -- Label Studio


def region(kind="rectanglelabels", labels=("cup",), sized=True, **value):
    size = {"original_width": WIDTH, "original_height": HEIGHT} if sized else {}
    return {"id": "r", "type": kind, "from_name": "label", "to_name": "image", **size, "value": {**value, kind: list(labels)}}


def task(*results, image="/data/upload/3/0a1b2c3d-a.jpg", **more):
    return {"id": 5, "data": {"image": image}, "annotations": [{"result": list(results)}], "predictions": [], **more}


RECTANGLE = {"x": 10, "y": 10, "width": 25, "height": 50, "rotation": 0}
STUDIO_SHAPES = [
    (region(**RECTANGLE), (8, 4, 28, 24)),
    (region(**RECTANGLE, sized=False), (8, 4, 28, 24)),
    (region(**{**RECTANGLE, "x": 50, "rotation": 90}), (20, 4, 40, 24)),
    (region("polygonlabels", points=[[10, 10], [35, 60], [20, 20]]), (8, 4, 28, 24)),
    (region("ellipselabels", x=50, y=50, radiusX=25, radiusY=25), (20, 10, 60, 30)),
    (region("ellipselabels", x=50, y=50, radiusX=25, radiusY=25, rotation=90), (30, 0, 50, 40)),
    (region("labels", **RECTANGLE), (8, 4, 28, 24)),
]


@pytest.mark.parametrize(("result", "box"), STUDIO_SHAPES)
@pytest.mark.parametrize("folder", ["", "images/"])
def test_shapes_of_label_studio(tmp_path, result, box, folder):
    draw(tmp_path / f"{folder}a.jpg")
    text(tmp_path / "project.json", [task(result)])
    assert read(tmp_path) == ("Label Studio", ["cup"], {"all/a.jpg": [("cup", box)]}, [])


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/3/0a1b2c3d-a%20b.jpg",
        "/data/local-files/?d=set/a%20b.jpg",
        "s3://bucket/set/a b.jpg",
        "https://example.com/set/a%20b.jpg?token=1",
        "C:\\set\\a b.jpg",
        "a b.jpg",
    ],
)
def test_images_of_label_studio_by_any_name(tmp_path, image):
    draw(tmp_path / "set/a b.jpg")
    text(tmp_path / "project.json", [task(region(**RECTANGLE), image=image)])
    assert read(tmp_path)[2] == {"all/a b.jpg": [("cup", (8, 4, 28, 24))]}


def test_annotations_of_label_studio(tmp_path):
    """The ground truth or else the newest annotation, and never a canceled one or a prediction."""
    for name in "12345":
        draw(tmp_path / f"{name}.jpg")

    def annotation(label, **more):
        return {"result": [region(labels=[label], **RECTANGLE)], **more}

    versions = [
        [annotation("a", updated_at="2024-01-02"), annotation("b", updated_at="2024-01-03"), annotation("c", updated_at="2024-01-01")],
        [annotation("a", ground_truth=True), annotation("b", updated_at="2024-01-03")],
        [annotation("a", was_cancelled=True)],
        [],
        [{"result": []}],
    ]
    text(tmp_path / "p.json", [task(image=f"{i}.jpg") | {"id": i, "annotations": found} for i, found in enumerate(versions, 1)])
    _, names, found, notes = read(tmp_path)
    assert names == ["a", "b"]
    assert {name: [label for label, _ in boxes] for name, boxes in found.items()} == {
        "all/1.jpg": ["b"],
        "all/2.jpg": ["a"],
        "all/5.jpg": [],
    }
    assert [note.removeprefix("p.json: ") for note in notes] == [
        *["task 1: has more than one annotation: that marked as ground truth or else the newest is used"] * 2,
        "task 2: has more than one annotation: that marked as ground truth or else the newest is used",
        "task 3: has a canceled annotation, which is not used",
        "task 3: has no annotation, and its image is not used, got '3.jpg'",
        "task 4: has no annotation, and its image is not used, got '4.jpg'",
        "3.jpg: is in no part",
        "4.jpg: is in no part",
    ]


def test_what_has_no_box_in_label_studio(tmp_path):
    draw(tmp_path / "a.jpg")
    bare = {"id": "r", "type": "rectangle", "value": dict(RECTANGLE)}
    results = [
        bare,
        region("labels", ("cup", "pen"), **RECTANGLE),
        region("brushlabels", format="rle"),
        {"type": "choices", "value": {"choices": ["x"]}},
        {"type": "relation"},
    ]
    text(tmp_path / "p.json", [task(*results)])
    _, _, found, notes = read(tmp_path)
    assert found == {"all/a.jpg": [("cup", (8, 4, 28, 24)), ("pen", (8, 4, 28, 24))]}
    assert [note.partition("is of the type ")[2] for note in notes] == [
        f"{kind}, has no box, and is not used" for kind in ("brushlabels", "choices", "relation")
    ]
    for broken, message in (
        ([bare], "result[0]: names no class"),
        ([region(**{**RECTANGLE, "x": "left"})], "result[0]: x, y, width, height, rotation expected, as numbers"),
        ([region(**{**RECTANGLE, "x": 90})], "result[0] in 80 x 40 px: bbox must lie inside its image"),
        ([{**region(**RECTANGLE), "image_rotation": 90}], "result[0]: was drawn on a rotated image"),
        ([{"type": "rectanglelabels"}], "result[0]: must have a value"),
        ([{**region(**RECTANGLE), "original_width": 40}], "task 5: states 40 x 40 px"),
    ):
        text(tmp_path / "p.json", [task(*broken)])
        with pytest.raises(BadLabel) as raised:
            read(tmp_path)
        assert message in str(raised.value)


def test_flat_records_of_label_studio(tmp_path):
    draw(tmp_path / "a.jpg")
    draw(tmp_path / "b.jpg")
    flat = {**RECTANGLE, "rectanglelabels": ["cup"], "original_width": WIDTH, "original_height": HEIGHT}
    text(tmp_path / "min.json", [{"id": 1, "image": "/data/upload/b.jpg"}, {"id": 2, "image": "/data/upload/a.jpg", "label": [flat]}])
    assert read(tmp_path)[2] == {"all/b.jpg": [], "all/a.jpg": [("cup", (8, 4, 28, 24))]}


# -- VIA


RECT = {"name": "rect", "x": 10, "y": 5, "width": 20, "height": 4}
VIA_SHAPES = [
    (RECT, [2, 10, 5, 20, 4], (10, 5, 30, 9)),
    ({"name": "circle", "cx": 20, "cy": 15, "r": 5}, [3, 20, 15, 5], (15, 10, 25, 20)),
    ({"name": "ellipse", "cx": 20, "cy": 15, "rx": 10, "ry": 5}, [4, 20, 15, 10, 5], (10, 10, 30, 20)),
    ({"name": "polygon", "all_points_x": [10, 30, 20], "all_points_y": [5, 7, 9]}, [7, 10, 5, 30, 7, 20, 9], (10, 5, 30, 9)),
    ({"name": "polyline", "all_points_x": [10, 30], "all_points_y": [5, 9]}, [6, 10, 5, 30, 9], (10, 5, 30, 9)),
]


def via_2(*shapes, attributes=({"class": "cup"},), name="a.jpg"):
    regions = [{"shape_attributes": shape, "region_attributes": dict(of)} for shape, of in zip(shapes, attributes, strict=True)]
    return {f"{name}123": {"filename": name, "size": 123, "regions": regions, "file_attributes": {}}}


def via_3(*shapes):
    return {
        "project": {"pid": "x"},
        "config": {},
        "attribute": {"1": {"aname": "kind", "options": {"0": "plate", "1": "cup"}}},
        "file": {"4": {"fid": "4", "fname": "a.jpg", "src": "/old/a.jpg"}},
        "view": {"9": {"fid_list": ["4"]}},
        "metadata": {f"9_{i}": {"vid": "9", "flg": 0, "z": [], "xy": shape, "av": {"1": "1"}} for i, shape in enumerate(shapes)},
    }


@pytest.mark.parametrize(("shape", "numbers", "box"), VIA_SHAPES)
@pytest.mark.parametrize("version", ["2", "1", "project", "csv", "3"])
def test_shapes_of_via(tmp_path, version, shape, numbers, box):
    draw(tmp_path / "img/a.jpg")
    document = via_2(shape)
    if version == "1":
        document["a.jpg123"]["regions"] = {"0": document["a.jpg123"]["regions"][0]}
    elif version == "project":
        document = {"_via_settings": {}, "_via_img_metadata": document, "_via_attributes": {"region": {"class": {"options": {"cup": ""}}}}}
    elif version == "3":
        document = via_3(numbers)
    if version == "csv":
        stream = io.StringIO()
        rows = csv.writer(stream)
        rows.writerow(["#filename", "file_size", "region_count", "region_id", "region_shape_attributes", "region_attributes"])
        rows.writerow(["a.jpg", 123, 1, 0, json.dumps(shape), json.dumps({"class": "cup"})])
        text(tmp_path / "via.csv", stream.getvalue())
    else:
        text(tmp_path / "via.json", document)
    assert read(tmp_path) == ("VIA", ["cup"], {"all/a.jpg": [("cup", box)]}, [])


def test_the_class_of_via(tmp_path):
    draw(tmp_path / "a.jpg")
    for attributes, label, note in (
        ([{"class": "cup", "color": "red"}], "cup", ["region attribute 'color': is not the class, and is not used"]),
        ([{"kind": {"cup": True, "pen": False}}], "cup", []),
        ([{}], "object", ["regions: have no attributes: all are of the class object"]),
    ):
        text(tmp_path / "via.json", via_2(RECT, attributes=attributes))
        _, names, _, notes = read(tmp_path)
        assert (names, notes) == ([label], note)
    for attributes, message in (
        ([{"color": "red", "kind": "cup"}], "regions have the attributes 'color', 'kind'; rename the one that is the class"),
        ([{"kind": {"cup": True, "pen": True}}], r"regions\[0\]: has several values of kind"),
    ):
        text(tmp_path / "via.json", via_2(RECT, attributes=attributes))
        with pytest.raises(ValueError, match=message):
            read(tmp_path)


def test_bad_regions_of_via_are_named(tmp_path):
    draw(tmp_path / "a.jpg")
    shapes = [
        RECT,
        {"name": "rect", "x": 1},
        {"name": "blob"},
        {"name": "point", "cx": 1, "cy": 2},
        {"name": "polygon", "all_points_x": [1]},
        RECT,
    ]
    classes = [*[{"class": "cup"}] * 5, {"class": ""}]
    text(tmp_path / "via.json", via_2(*shapes, attributes=classes))
    bad = []
    _, _, found, notes = read(tmp_path, bad.append)
    assert found == {"all/a.jpg": [("cup", (10, 5, 30, 9))]}
    assert [str(error).rpartition("regions")[2] for error in bad] == [
        "[1]: x, y, width, height expected, as numbers, got [1, None, None, None]",
        "[2]: is a shape that is not known; rect, circle, ellipse, polygon, polyline are, got 'blob'",
        "[4]: as many x as y expected, got [1, 0]",
        "[5]: names no class",
    ]
    assert [note.rpartition("regions")[2] for note in notes] == ["[3]: is of the type point, has no box, and is not used"]


# -- LabelMe


def test_labelme(tmp_path):
    for part in ("train", "test"):
        draw(tmp_path / part / "a.jpg")
        shapes = [
            {"label": "cup", "points": [[30, 9], [10, 5]], "shape_type": "rectangle"},
            {"label": "pen", "points": [[10, 5], [30, 9], [12, 6]], "shape_type": "polygon"},
            {"label": "pen", "points": [[20, 15], [20, 20]], "shape_type": "circle"},
            {"label": "pen", "points": [[20, 15]], "shape_type": "point"},
        ]
        document = {
            "version": "5",
            "shapes": shapes,
            "imagePath": "..\\x\\a.jpg",
            "imageWidth": WIDTH,
            "imageHeight": HEIGHT,
            "imageData": None,
        }
        text(tmp_path / part / "a.json", document)
    kind, names, found, notes = read(tmp_path)
    boxes = [("cup", (10, 5, 30, 9)), ("pen", (10, 5, 30, 9)), ("pen", (15, 10, 25, 20))]
    assert (kind, names, found) == ("LabelMe", ["cup", "pen"], {"train/a.jpg": boxes, "test/a.jpg": boxes})
    assert sorted(notes) == [f"{part}/a.json: shapes[3]: is of the type point, has no box, and is not used" for part in ("test", "train")]


# -- labels without a box


def labelme_of(name, *kinds):
    shapes = [{"label": "cup", "points": [[30, 9], [10, 5]], "shape_type": kind} for kind in kinds]
    return {"shapes": shapes, "imagePath": name, "imageWidth": WIDTH, "imageHeight": HEIGHT}


def cvat_of(*images):
    return cvat(
        "".join(f'<image id="{i}" name="{name}" width="80" height="40">{shapes}</image>' for i, (name, shapes) in enumerate(images))
    )


CVAT_POINT, CVAT_BOX = '<points label="cup" points="1,1"/>', '<box label="cup" xtl="10" ytl="5" xbr="30" ybr="9"/>'
VIA_POINT = {"name": "point", "cx": 1, "cy": 2}
STUDIO_POINT, STUDIO_BRUSH = region("keypointlabels", x=10, y=10, width=1), region("brushlabels", format="rle", rle=[1, 2])
STUDIO_CHOICE = {"type": "choices", "value": {"choices": ["blurred"]}}
BOXLESS = {
    "labelme": (
        {
            "a.json": labelme_of("a.jpg", "point", "line", "point"),
            "b.json": labelme_of("b.jpg", "point", "rectangle"),
            "c.json": labelme_of("c.jpg"),
        },
        ["line", "point"],
    ),
    "cvat": (
        {
            "annotations.xml": cvat_of(
                ("a.jpg", '<polyline label="cup" points="1,1;2,2"/><skeleton label="cup"/>'),
                ("b.jpg", CVAT_POINT + CVAT_BOX),
                ("c.jpg", '<tag label="cup"/>'),
            )
        },
        ["polyline", "skeleton"],
    ),
    "label studio": (
        {
            "p.json": [
                task(STUDIO_POINT, STUDIO_BRUSH, image="a.jpg"),
                task(STUDIO_POINT, region(x=12.5, y=12.5, width=25, height=10), image="b.jpg"),
                task(STUDIO_CHOICE, image="c.jpg"),
            ]
        },
        ["brushlabels", "keypointlabels"],
    ),
    "via": (
        {
            "via.json": via_2(VIA_POINT)
            | via_2(VIA_POINT, RECT, attributes=[{"class": "cup"}] * 2, name="b.jpg")
            | via_2(attributes=(), name="c.jpg")
        },
        ["point"],
    ),
}


@pytest.mark.parametrize(("files", "kinds"), BOXLESS.values(), ids=BOXLESS)
def test_an_image_whose_objects_have_no_box_is_left_out(tmp_path, files, kinds):
    """It would be trained as background. In image b an object has one; c has no object."""
    for name in "abc":
        draw(tmp_path / f"{name}.jpg")
    for name, content in files.items():
        text(tmp_path / name, content)
    said = f"{tmp_path}/a.jpg: {NO_LABEL_LEFT}, got {kinds}"
    with pytest.raises(BadLabel) as raised:
        read(tmp_path)
    assert str(raised.value) == said
    bad = []
    _, names, found, notes = read(tmp_path, bad.append)
    assert [str(error) for error in bad] == [said]
    assert "cup" in names
    assert found == {"all/b.jpg": [("cup", (10, 5, 30, 9))], "all/c.jpg": []}
    assert sum("has no box, and is not used" in note for note in notes) >= len(kinds) + 1


# -- Darknet


@pytest.mark.parametrize("prefix", ["data/", ""])
def test_darknet(tmp_path, prefix):
    """As CVAT exports it, and as people have it."""
    for part, name in (("train", "1"), ("valid", "2")):
        draw(tmp_path / f"obj_{part}_data/{name}.jpg")
        text(tmp_path / f"obj_{part}_data/{name}.txt", "1 0.5 0.5 0.5 0.5\n")
        text(tmp_path / f"{part}.txt", f"{prefix}obj_{part}_data/{name}.jpg\n")
    text(tmp_path / "obj.names", "cup\nsmall plate\n")
    text(
        tmp_path / "obj.data",
        f"classes = 2\ntrain = {prefix}train.txt\nvalid = {prefix}valid.txt\nnames={prefix}obj.names\nbackup = backup/\n",
    )
    box = ("small plate", (20, 10, 60, 30))
    expected = ("Darknet", ["cup", "small plate"], {"train/1.jpg": [box], "val/2.jpg": [box]}, [])
    assert read(tmp_path) == expected
    assert read(tmp_path / "obj.data")[:3] == expected[:3]
    text(tmp_path / "obj.names", "cup\n")
    with pytest.raises(ValueError, match=r"obj.data: classes = 2, but .*obj.names has 1 names"):
        read(tmp_path)
    (tmp_path / "obj.names").unlink()
    with pytest.raises(FileNotFoundError, match=r"obj.data: names = .*obj.names, but there is no such file"):
        read(tmp_path)
