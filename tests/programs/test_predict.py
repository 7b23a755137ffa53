"""`lossbox predict`, called as a user would, on the run of two training steps."""

import csv
import json
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from PIL import Image

import lossbox
from lossbox.__main__ import main
from lossbox.metrics import Calibration
from lossbox.programs.image_files import find_images, relative_names
from lossbox.programs.video import look_at, read_frames, video_writer
from lossbox.records import Detections
from lossbox.report.boxes import draw_boxes


def predict(run, *words, out):
    assert main(["predict", "--ckpt", str(run.checkpoint), "--out", str(out), *map(str, words)]) == 0
    return json.loads((out / "detections.json").read_text())


def fails(capsys, *words):
    capsys.readouterr()
    assert main(["predict", *map(str, words)]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1] == "(--debug shows where this was raised)"
    assert len(error) == 2
    return error[0]


def test_predict_then_evaluate_is_validate(tiny_run, tmp_path, capsys):
    predict(tiny_run, tiny_run.images, "--annotations", tiny_run.annotations, "--no-images", out=tmp_path)
    words = ["evaluate", str(tiny_run.annotations), str(tmp_path / "detections.json")]
    assert main([*words, "--json", str(tmp_path / "n.json"), "--thresholds", str(tmp_path / "t.csv")]) == 0
    capsys.readouterr()
    before = (tiny_run.out / "metrics.json").read_text()
    words = ["validate", "--config", str(tiny_run.config), "--out", str(tmp_path / "v"), "--ckpt_path", str(tiny_run.checkpoint)]
    words += ["--data.val_annotations", str(tiny_run.annotations), "--data.val_images", str(tiny_run.images)]
    assert main(words) == 0
    assert str(tmp_path / "v" / "thresholds.csv") in capsys.readouterr().out.replace("\n", "")
    ours, theirs = (json.loads(path.read_text()) for path in (tmp_path / "n.json", tmp_path / "v" / "metrics.json"))
    assert 0.05 < theirs["AP"] < 0.9
    for name in ("AP", "AP50", "AR100", "oLRP"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-9), name
    assert (tmp_path / "t.csv").read_text() == (tmp_path / "v" / "thresholds.csv").read_text()
    assert (tiny_run.out / "metrics.json").read_text() == before
    assert not (tmp_path / "images").exists()


def test_a_run_leaves_its_thresholds_and_its_checkpoint_the_categories(tiny_run):
    rows = (tiny_run.out / "thresholds.csv").read_text().splitlines()
    assert rows[0] == "category_id,name,threshold"
    assert len(rows) == 11
    stored = torch.load(tiny_run.checkpoint, weights_only=True)["lossbox_categories"]
    assert stored == [[digit + 1, str(digit)] for digit in range(10)]


def test_without_annotations_images_are_numbered_and_drawn(tiny_run, tmp_path, capsys):
    found = predict(tiny_run, tiny_run.images, "--draw-threshold", "0", "--max-detections", "7", out=tmp_path)
    files = sorted(path.name for path in tiny_run.images.glob("*.jpg"))
    assert f"{len(found)} detections in 5 images, " in capsys.readouterr().out
    assert {(row["image_id"], row["file_name"]) for row in found} == set(enumerate(files, 1))
    assert len(found) == 35
    for name in files:
        source, drawn = Image.open(tiny_run.images / name), Image.open(tmp_path / "images" / name)
        assert drawn.size == source.size
        assert drawn.tobytes() != source.convert("RGB").tobytes()
        for row in (row for row in found if row["file_name"] == name):
            x, y, width, height = row["bbox"]
            assert min(x, y) >= 0
            assert x + width <= source.width + 1e-3
            assert y + height <= source.height + 1e-3


def test_thresholds_cut_each_class_and_empty_images_are_still_written(tiny_run, tmp_path, capsys):
    everything = predict(tiny_run, tiny_run.images, "--no-images", out=tmp_path / "all")
    label = everything[0]["category_id"]
    scores = sorted(row["score"] for row in everything if row["category_id"] == label)
    cut = scores[len(scores) // 2]
    table = tmp_path / "t.csv"
    table.write_text("category_id,name,threshold\n" + "".join(f"{i},{i - 1},{cut if i == label else ''}\n" for i in range(1, 11)))
    found = predict(tiny_run, tiny_run.images, "--no-images", "--thresholds", table, out=tmp_path / "cut")
    assert len(found) > 5
    assert {row["category_id"] for row in found} == {label}
    assert min(row["score"] for row in found) == cut

    assert predict(tiny_run, tiny_run.images, "--score-threshold", "0.9999", out=tmp_path / "none") == []
    said = capsys.readouterr().out
    assert "0 boxes drawn" in said
    assert "note: nothing was found: no score passes" in said
    predict(tiny_run, tiny_run.images, "--draw-threshold", "1", "--max-detections", "3", out=tmp_path / "bare")
    assert f"note: no score reaches 1, the highest is {max(row['score'] for row in everything):.3f}: " in capsys.readouterr().out
    assert len(list((tmp_path / "none" / "images").iterdir())) == 5


def test_a_calibration_changes_scores_and_nothing_else(tiny_run, tmp_path, capsys):
    path = tmp_path / "calibration.json"
    words = ["--annotations", str(tiny_run.annotations), "--images", str(tiny_run.images), "--method", "platt"]
    assert main(["calibrate", "--config", str(tiny_run.config), *words, "--out", str(path)]) == 0
    before = predict(tiny_run, tiny_run.images, "--no-images", out=tmp_path / "raw")
    after = predict(tiny_run, tiny_run.images, "--no-images", "--calibration", path, out=tmp_path / "calibrated")
    labels = [row["category_id"] - 1 for row in before]
    mapped = Calibration.read(path)([row["score"] for row in before], labels)

    def key(row):
        return row["image_id"], row["category_id"], row["bbox"]

    expected = sorted((*key(row), score) for row, score in zip(before, mapped.tolist(), strict=True))
    assert [(*key(row), row["score"]) for row in sorted(after, key=key)] == expected
    assert [row["score"] for row in after] != [row["score"] for row in before]
    for number in range(1, 6):
        scores = [row["score"] for row in after if row["image_id"] == number]
        assert scores == sorted(scores, reverse=True)


def test_a_bad_image_is_an_error_or_a_counted_skip(tiny_run, tmp_path, capsys):
    folder = tmp_path / "mixed"
    shutil.copytree(tiny_run.images, folder / "deep")
    (folder / "broken.jpg").write_bytes(b"no image")
    whole = next((folder / "deep").glob("*.jpg"))
    (folder / "cut.jpg").write_bytes(whole.read_bytes()[:400])
    base = ["--ckpt", tiny_run.checkpoint, "--out", tmp_path / "out", folder]
    said = fails(capsys, *base)
    assert "IMAGES" in said
    assert "broken.jpg is not an image that can be decoded" in said
    assert "--skip-bad" in said
    assert not (tmp_path / "out" / "detections.json").exists()
    found = predict(tiny_run, folder, "--skip-bad", out=tmp_path / "out")
    said = capsys.readouterr()
    assert "in 5 images, 2 left out" in said.out
    assert "broken.jpg" in said.err
    assert "cut.jpg" in said.err
    assert all(row["file_name"].startswith("deep/") for row in found)
    assert len(list((tmp_path / "out" / "images" / "deep").iterdir())) == 5
    assert main(["predict", *map(str, base[:4]), str(folder / "broken.jpg"), "--skip-bad"]) == 2
    assert "IMAGES: none of the 1 can be read" in capsys.readouterr().err


def test_results_inside_the_folder_of_images_are_not_looked_at_again(tiny_run, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(tiny_run.images, folder)
    first = predict(tiny_run, folder, out=folder / "found")
    assert predict(tiny_run, folder, out=folder / "found") == first


def test_find_images_takes_files_folders_and_patterns_once(tmp_path):
    for name in ("a/1.jpg", "a/deep/2.PNG", "a/notes.data", "b/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(*words):
        given = [str(tmp_path / word) for word in words]
        return relative_names(find_images(given), given)

    assert names("a") == ["1.jpg", "deep/2.PNG"]
    assert names("a/deep/2.PNG") == ["2.PNG"]
    assert names("*/1.jpg") == ["a/1.jpg", "b/1.jpg"]
    assert names("b/1.jpg", "**/*.jpg", "a") == ["b/1.jpg", "a/1.jpg", "a/deep/2.PNG"]
    assert names("a/notes.data") == ["notes.data"]
    for word in ("c", "*.jpg"):
        with pytest.raises(FileNotFoundError, match="IMAGES: no file, folder or pattern"):
            names(word)
    (tmp_path / "c").mkdir()
    with pytest.raises(FileNotFoundError, match="IMAGES: no image"):
        names("c")


def test_wrong_arguments_are_one_clear_line(tiny_run, tmp_path, capsys):
    base = ["--ckpt", tiny_run.checkpoint, "--out", tmp_path / "out", tiny_run.images]
    assert "device: no 'abacus' here" in fails(capsys, *base, "--device", "abacus")
    assert "--score-threshold: a number in [0, 1) expected, got 2.0" in fails(capsys, *base, "--score-threshold", "2")
    assert "--max-detections: a number >= 1 expected, got 0" in fails(capsys, *base, "--max-detections", "0")
    assert "--batch-size: a number >= 1" in fails(capsys, *base, "--batch-size", "0")
    assert "ckpt: no file nowhere.ckpt" in fails(capsys, "--ckpt", "nowhere.ckpt", *base[2:])
    assert "is not a checkpoint of lossbox fit" in fails(capsys, "--ckpt", tiny_run.config, *base[2:])

    shutil.copy(tiny_run.checkpoint, tmp_path / "moved.ckpt")
    assert "--config names the resolved recipe" in fails(capsys, "--ckpt", tmp_path / "moved.ckpt", *base[2:])
    assert "num_classes" not in tiny_run.config.read_text()
    other = tmp_path / "other.yaml"
    other.write_text(tiny_run.config.read_text().replace("channels: 8", "channels: 16"))
    assert "does not fit its recipe" in fails(capsys, *base, "--config", other)
    other.write_text("trainer: {}")
    assert "lacks 'model'" in fails(capsys, *base, "--config", other)

    thresholds = tmp_path / "t.csv"
    thresholds.write_text("category_id,name,threshold\n" + "".join(f"{i},{i},0.5\n" for i in range(10)))
    assert "thresholds: " in (said := fails(capsys, *base, "--thresholds", thresholds))
    assert "it has 10, the detector 10, and 2 are on one side only" in said
    calibration = tmp_path / "c.json"
    calibration.write_text('{"method": "platt", "classes": []}')
    assert "calibration: " in fails(capsys, *base, "--calibration", calibration)

    document = json.loads(tiny_run.annotations.read_text())
    (tmp_path / "few.json").write_text(json.dumps({**document, "images": document["images"][:2]}))
    assert "few.json names no image" in fails(capsys, *base, "--annotations", tmp_path / "few.json")
    renamed = [{**category, "name": "x"} if category["id"] == 4 else category for category in document["categories"]]
    (tmp_path / "names.json").write_text(json.dumps({**document, "categories": renamed}))
    assert "was trained on other categories: 2 (id, name) are on one side only" in fails(
        capsys, *base, "--annotations", tmp_path / "names.json"
    )
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_was_moved_and_knows_no_classes_takes_them_from_annotations(tiny_run, tmp_path, capsys):
    content = torch.load(tiny_run.checkpoint, weights_only=True)
    del content["lossbox_categories"]
    torch.save(content, tmp_path / "old.ckpt")
    base = ["--ckpt", tmp_path / "old.ckpt", "--config", tiny_run.config, "--out", tmp_path, tiny_run.images, "--no-images"]
    assert "does not hold the names of its classes" in fails(capsys, *base)
    assert main(["predict", *map(str, base), "--annotations", str(tiny_run.annotations)]) == 0


def test_a_bar_on_a_terminal(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    predict(tiny_run, tiny_run.images, "--no-images", out=tmp_path)
    assert "images/s on cpu" in capsys.readouterr().out


def test_boxes_are_drawn_where_they_are_from_the_threshold_on():
    found = Detections(torch.tensor([[20.0, 30.0, 60.0, 70.0], [80.0, 30.0, 95.0, 70.0]]), torch.tensor([0.9, 0.2]), torch.tensor([0, 1]))
    plain = Image.new("RGB", (100, 100))
    drawn = draw_boxes(plain, found, ["cup", "spoon"], threshold=0.5)
    assert drawn.getpixel((20, 50)) == drawn.getpixel((40, 70)) != (0, 0, 0)
    assert drawn.getpixel((40, 50)) == drawn.getpixel((80, 50)) == (0, 0, 0)
    assert draw_boxes(plain, found, ["cup", "spoon"]).getpixel((80, 50)) not in ((0, 0, 0), drawn.getpixel((20, 50)))
    assert plain.getbbox() is None


def test_lists_name_images_and_urls_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/1.jpg", "a/2.jpg"):
        (tmp_path / name).touch()
    listed = tmp_path / "a" / "val.txt"
    listed.write_text(f"# images\n2.jpg\n\n{tmp_path / 'a' / '1.jpg'}\n")
    assert [file.name for file in find_images([listed])] == ["2.jpg", "1.jpg"]
    listed.write_text("2.jpg\n3.jpg\n")
    with pytest.raises(FileNotFoundError, match=r"val\.txt, line 2: no file 3\.jpg"):
        find_images([listed])
    listed.write_text("\n")
    with pytest.raises(ValueError, match="names no image"):
        find_images([listed])
    listed.write_text("http://a.b/c.jpg\n")
    for word in (listed, "https://a.b/c.jpg", Path("https://a.b/c.jpg")):
        with pytest.raises(ValueError, match="is a URL; a file expected"):
            find_images([word])


def test_what_is_wrong_with_out_is_said_before_the_work(tiny_run, tmp_path, capsys):
    (tmp_path / "file").touch()
    base = ["--ckpt", tiny_run.out, tiny_run.images, "--out"]
    assert f"--out: {tmp_path / 'file' / 'deeper'} cannot be written: {tmp_path / 'file'} is no folder" in fails(
        capsys, *base, tmp_path / "file" / "deeper"
    )
    shutil.copytree(tiny_run.images, tmp_path / "out" / "images")
    one = next((tmp_path / "out" / "images").iterdir())
    assert f"{one} is one of the images; name another folder" in fails(capsys, *base[:2], one, "--out", tmp_path / "out")
    assert "no checkpoints/best.ckpt" in fails(capsys, "--ckpt", tmp_path, *base[2:], tmp_path / "new")
    assert not (tmp_path / "out" / "detections.json").exists()


def test_every_format_says_the_same(tiny_run, tmp_path, capsys):
    rows = predict(tiny_run, tiny_run.images, "--no-images", "--max-detections", "5", "--format", "coco", "yolo", "csv", out=tmp_path)
    assert f"{tmp_path / 'detections.json'}, {tmp_path / 'yolo'}, {tmp_path / 'detections.csv'}" in capsys.readouterr().out
    names = (tmp_path / "yolo" / "classes.txt").read_text().splitlines()
    assert names == [str(digit) for digit in range(10)]
    with open(tmp_path / "detections.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["file", "label", "class", "score", "x1", "y1", "x2", "y2"]
    lines = [
        (path.with_suffix(".jpg").name, line.split())
        for path in sorted((tmp_path / "yolo" / "labels").iterdir())
        for line in path.read_text().splitlines()
    ]
    assert len(rows) == len(table) == len(lines) == 25
    for row, cells, (name, (label, *numbers)) in zip(rows, table, lines, strict=True):
        assert row["file_name"] == cells["file"] == name
        assert row["category_id"] - 1 == int(cells["label"]) == int(label)
        assert cells["class"] == names[int(label)]
        assert row["score"] == float(cells["score"]) == pytest.approx(float(numbers[4]))
        x, y, w, h = row["bbox"]
        assert [float(cells[key]) for key in ("x1", "y1", "x2", "y2")] == pytest.approx([x, y, x + w, y + h])
        width, height = Image.open(tiny_run.images / name).size
        cx, cy, fraction_w, fraction_h = map(float, numbers[:4])
        expected = [(cx - fraction_w / 2) * width, (cy - fraction_h / 2) * height, fraction_w * width, fraction_h * height]
        assert expected == pytest.approx([x, y, w, h], abs=1e-3)


def test_a_format_is_checked_before_the_work_and_an_image_without_boxes_has_a_file(tiny_run, tmp_path, capsys):
    image = min(tiny_run.images.glob("*.jpg"))
    words = ["--ckpt", tiny_run.checkpoint, "--out", tmp_path / "out", "--no-images"]
    assert main(["predict", str(image), *map(str, words), "--format", "csv", "yolo", "--score-threshold", "0.9999"]) == 0
    assert [path.read_text() for path in (tmp_path / "out" / "yolo" / "labels").iterdir()] == [""]
    assert (tmp_path / "out" / "detections.csv").read_text().splitlines() == ["file,label,class,score,x1,y1,x2,y2"]
    assert not (tmp_path / "out" / "detections.json").exists()
    assert "--format: one of coco, yolo, csv expected" in fails(capsys, image, *words, "--format", "voc")
    with pytest.raises(ValueError, match="format: one or more of coco, yolo, csv expected, got 'csv'"):
        lossbox.predict([image], ckpt=tiny_run.checkpoint, out=tmp_path / "two", format="csv")
    for name in ("1.jpg", "1.png"):
        shutil.copy(image, tmp_path / name)
    said = fails(capsys, tmp_path / "1.jpg", tmp_path / "1.png", *words, "--format", "yolo")
    assert "--format: yolo: 1.jpg and 1.png would both be written to yolo/labels/1.txt" in said


def test_tiles_of_a_file_are_counted_and_found_as_from_python(tiny_run, tmp_path, monkeypatch, capsys):
    counts = []

    def track(items, what, total):
        counts.append((what, total, items := list(items)))
        return items

    monkeypatch.setattr(sys.modules["lossbox.programs.predict"], "track", track)
    (tmp_path / "in").mkdir()
    for number, file in enumerate(sorted(tiny_run.images.glob("*.jpg"))[:2]):
        shutil.copy(file, tmp_path / "in" / f"{number}.jpg")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no image")
    rows = predict(tiny_run, tmp_path / "in", "--no-images", "--skip-bad", "--tile", "60", "--overlap", "0.5", out=tmp_path / "out")
    ((what, total, items),) = counts
    assert (what, total) == ("tiles", len(items))
    assert total > 10
    assert "in 2 images, 1 left out" in capsys.readouterr().out
    files = [tmp_path / "in" / "0.jpg", tmp_path / "in" / "1.jpg"]
    found = lossbox.load(tiny_run.checkpoint, device="cpu").predict(files, tile=60, overlap=0.5)
    assert [row["score"] for row in rows] == [score for one in found for score in one.scores.tolist()]
    assert rows[0]["bbox"] == [*found[0].boxes[0, :2].tolist(), *(found[0].boxes[0, 2:] - found[0].boxes[0, :2]).tolist()]
    words = ["--ckpt", tiny_run.checkpoint, "--out", tmp_path / "out", tiny_run.images]
    assert "--tile: 32 pixels or more expected, or 0 for whole images, got -1" in fails(capsys, *words, "--tile", "-1")
    assert "--overlap: a number in [0, 0.75] expected, got 0.99" in fails(capsys, *words, "--tile", "40", "--overlap", "0.99")


@pytest.fixture
def clip(tmp_path, tiny_run):
    """Twelve frames of 0.1 s, 97 x 64: an image of the digits, ever brighter."""
    pytest.importorskip("av")
    image = Image.open(min(tiny_run.images.glob("*.jpg"))).convert("RGB").resize((97, 64))
    with video_writer(tmp_path / "in" / "clip.mp4", Fraction(10)) as add:
        for number in range(12):
            add(image.point(lambda value, number=number: min(255, value + 5 * number)))
    return tmp_path / "in" / "clip.mp4"


def test_a_video_is_its_frames_and_comes_out_with_boxes(tiny_run, clip, tmp_path, capsys):
    still = min(tiny_run.images.glob("*.jpg"))
    shutil.copy(still, clip.parent / "still.jpg")
    words = ["--max-detections", "3", "--draw-threshold", "0", "--format", "coco", "csv", "yolo"]
    rows = predict(tiny_run, clip, clip.parent / "still.jpg", *words, out=tmp_path / "out")
    assert "39 detections in 13 images, " in capsys.readouterr().out
    of_clip = [row for row in rows if row["file_name"] == "clip.mp4"]
    assert [row["frame"] for row in of_clip] == [number for number in range(12) for _ in range(3)]
    assert [row["time"] for row in of_clip] == pytest.approx([row["frame"] / 10 for row in of_clip])
    assert [row["image_id"] for row in of_clip] == [row["frame"] + 1 for row in of_clip]
    assert {(row["image_id"], "frame" in row) for row in rows if row["file_name"] == "still.jpg"} == {(13, False)}
    before, after = (list(read_frames(path)) for path in (clip, tmp_path / "out" / "images" / "clip.mp4"))
    found = lossbox.load(tiny_run.checkpoint, device="cpu").predict(before[7][2], max_detections=3)[0]
    assert [row["score"] for row in of_clip if row["frame"] == 7] == pytest.approx(found.scores.tolist(), abs=1e-6)
    assert [time for _, time, _ in before] == [time for _, time, _ in after]
    assert before[0][2].shape == after[0][2].shape == (3, 64, 98)  # an odd width gets one pixel more
    assert all((one.float() - other.float()).abs().max() > 60 for (*_, one), (*_, other) in zip(before, after, strict=True))
    assert look_at(clip) == (12, (64, 98), 10)
    with open(tmp_path / "out" / "detections.csv", newline="") as file:
        assert [row["frame"] for row in csv.DictReader(file)] == [str(row.get("frame", "")) for row in rows]
    assert len((tmp_path / "out" / "yolo" / "labels" / "clip_000011.txt").read_text().splitlines()) == 3


def test_what_is_wrong_with_a_video_is_said(tiny_run, clip, tmp_path, capsys, monkeypatch):
    base = ["--ckpt", tiny_run.checkpoint, "--out", tmp_path / "out"]
    assert "clip.mp4 is a video; the ids of images" in fails(capsys, clip, *base, "--annotations", tiny_run.annotations)
    broken = tmp_path / "broken.avi"
    broken.write_bytes(b"no video")
    assert "broken.avi is not a video that can be decoded" in fails(capsys, broken, *base)
    assert len(predict(tiny_run, broken, clip, "--skip-bad", "--max-detections", "1", "--no-images", out=tmp_path / "out")) == 12
    assert "1 left out" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "av", None)
    assert "videos need PyAV: pip install 'lossbox[video]'" in fails(capsys, clip, *base)
