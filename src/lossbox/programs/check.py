"""``lossbox check``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .check_images import UPRIGHT, absolute, broken_images, in_both_parts, look_at_images, record_of, show_worst, worst_of
from .check_recipe import FALLBACK, anchor_options_of, batch_size_for, image_size_of, out_of, parts_of
from .command import File, Folder, NewFile, NewFolder, command
from .convert import converted, show_notes
from .recipes import read_recipe

if TYPE_CHECKING:
    from torch import Tensor

    from ..coco.look import Depth, Look
    from ..coco.read import BadRecord, CocoAnnotations
    from ..data.faults import Refused

POOR = 0.5
"""Best IoU with an anchor below which a box is hard to learn: overlap assigners make positives of 0.5 and more."""


def check(
    data: File | None = None,
    images: Folder | None = None,
    *,
    config: str | None = None,
    out: NewFolder | None = None,
    json: NewFile | None = None,
    sheet: NewFile | None = None,
    allow_empty: bool = False,
    skip_images: bool = False,
) -> dict[str, Any]:
    """Looks at a data set before a detector does: at a folder DATA, at a COCO JSON and IMAGES, or at both parts of the recipe of --config.

    It names every record that breaks a rule, and images that are missing, broken or of another size than stated; it counts the boxes of
    each class, their sizes and shapes, near doubles, and validation images that look like a training image, and says how well the
    anchors of a recipe fit. It leaves a sheet of images with their boxes and histograms in OUT, and a sheet of the worst images: with
    boxes without a size, outside of their image, double, or smaller than 8 px at the size of the recipe, and the reason for each.

    Exit code: 0 usable as it is; 1 bad records, also where `lossbox fit DATA` leaves them out, or too few images for it; 2 a file that
    cannot be read at all, or a wrong option.

    Args:
        data: a folder of data, recognized and split as by `lossbox fit DATA`; or with IMAGES COCO detection JSON
        images: the folder that its file names are relative to
        config: a recipe: check its training and validation part, at its image size, against its anchors (those of own_data without it)
        out: where the images go (default: runs/check/NAME, that of the folder, of folder and JSON, or of the recipe)
        json: write all numbers and all bad records
        sheet: where the sheet of the worst images goes, a PNG (default: OUT/worst.png); none is written where there is nothing to show
        allow_empty: accept a part without a single box
        skip_images: do not decode every image, which takes minutes on large sets

    Returns:
        ``usable``: whether there is no bad record, and something to train on; ``unusable``: why there is nothing, or empty. ``parts``: by
        name the numbers and the bad records of each part. ``worst``: the boxes to look at, how many of each kind, and the
        sheet of them. ``batch_size``: the one that works where the training images are fewer than
        a batch of the recipe. Of a folder, ``data``, ``left_out`` and ``notes`` too, as ``convert``
        returns them.

    Raises:
        ValueError: a recipe or a file that cannot be used.
        FileNotFoundError: it is not there.
    """
    from ..coco.read import inspect_coco

    recipe = read_recipe(config or FALLBACK)
    folder = Path(out) if out else out_of(data, images, config)
    written: Mapping[str, Any] = {}
    unusable = ""
    looks: dict[Path, Look] = {}
    refused: list[Refused] = []
    if data is not None and images is None:
        from ..coco.split import VAL_SHARE

        depth: Depth = "header" if skip_images else "pixels"
        done = converted(Path(data), folder / "data", drop=True, val_share=VAL_SHARE, allow_empty=True, depth=depth, inspect=True)
        written, looks = done.as_dict(), {absolute(path): look for path, look in done.looks.items()}
        refused += done.left_out
        unusable = done.unusable
        parts = {part: (Path(entry["annotations"]), Path(entry["images"])) for part, entry in written["parts"].items()}
    elif data is not None and images is not None:
        if Path(data).is_file() and not Path(images).is_dir():
            raise FileNotFoundError(f"images: {images} is not a folder; it must hold the images that {data} names")
        parts = {"data": (Path(data), Path(images))}
    else:
        parts = parts_of(recipe if config else {})
    found: dict[str, Any] = {}
    categories = {}
    read: dict[str, CocoAnnotations] = {}
    for part, (json_file, of_part) in parts.items():
        annotations, errors = inspect_coco(json_file, of_part)
        read[part] = annotations
        refused += errors
        look_at_images(part, annotations, looks, skip_images=skip_images)
        checked = _check(part, annotations, errors, of_part, recipe, folder, looks, allow_empty=allow_empty)
        found[part], categories[part] = checked, annotations.categories
    if len({tuple(names) for names in categories.values()}) > 1:
        differing = sorted(set(categories["train"]) ^ set(categories["val"]))
        rule = f"both parts must have the same categories; {len(differing)} (id, name) are in one alone, the first is {differing[0]}"
        where = str(parts["val"][0])
        found["val"]["bad"].append({"record": where, "rule": rule, "message": f"{where}: {rule}"})
    bad = any(part["bad"] for part in found.values()) or written.get("left_out")
    alike = in_both_parts(read, looks) if {"train", "val"} <= set(read) and not skip_images else None
    shared = {} if alike is None else {"in_both_parts": alike}
    worst = worst_of(read, refused, found, Path(sheet) if sheet else None, folder)
    result = {
        "usable": not bad and not unusable,
        "unusable": unusable,
        "parts": found,
        "worst": worst,
        "batch_size": batch_size_for(recipe, found["train"]["images"]) if "train" in found and not unusable else None,
        **shared,
        **{key: written[key] for key in ("data", "left_out", "notes") if key in written},
    }
    if json:
        from .. import report

        report.write_json(Path(json), result)
    return result


def show_check(
    found: Mapping[str, Any], *, data: File | None = None, config: str | None = None, limit: int = 20, json: NewFile | None = None
) -> None:
    """Prints the page of each part, and ends with exit code 1 where there are bad records.

    Args:
        limit: bad records to print of each part
    """
    if limit < 0:
        raise ValueError(f"limit: 0 or more bad records expected, got {limit}")
    left_out = [message for messages in found.get("left_out", {}).values() for message in messages]
    if "data" in found:
        print(found["data"])
        show_notes(found["notes"], "note")
        _print_bad(left_out, limit, "  bad labels and images, left out of the parts below")
    for part, numbers in found["parts"].items():
        _print(part, numbers, limit, config or FALLBACK)
    if alike := found.get("in_both_parts"):
        same = sum(pair["same_file"] for pair in alike)
        share = f"{len(alike)} of {found['parts']['val']['images']} validation images"
        print(f"note: {share} look like a training image, {same} of them are the same file, so that scores are too good:")
        for pair in alike[:limit]:
            print(f"    {pair['val']} and {pair['train']}")
        if len(alike) > limit:
            print(f"    and {len(alike) - limit} more (--limit, --json)")
    show_worst(found["worst"])
    if json:
        print(f"all numbers and records: {json}")
    if size := found["batch_size"]:
        more = f"a batch of {config or FALLBACK} has more images than the {size} for training"
        print(f"note: {more}: `lossbox fit` needs --data.batch_size {size}")
    bad = sum(len(part["bad"]) for part in found["parts"].values())
    if reason := found["unusable"]:
        print(f"not usable, nothing can be trained on it: {reason}")
    elif bad:
        hint = "" if "data" in found else " (data.on_bad_box: drop leaves bad boxes out, and images that have no other)"
        print(f"not usable as it is: {bad} bad records{hint}")
    elif left_out:
        print(
            f"usable without {len(left_out)} bad labels and images: `lossbox fit {data}` leaves them out and trains on the rest; "
            "with --data.on_bad_box error it stops at the first"
        )
    else:
        print(f"usable with --data.batch_size {size}" if size else "usable as it is")
    if not found["usable"]:
        raise SystemExit(1)


# -- one part


def _check(
    part: str,
    annotations: CocoAnnotations,
    errors: Sequence[BadRecord],
    folder: Path,
    recipe: Mapping[str, Any],
    out: Path,
    looks: Mapping[Path, Look],
    *,
    allow_empty: bool,
) -> dict[str, Any]:
    """What was found, ready for JSON."""
    from ..boxes import box_area
    from ..data.survey import survey
    from ..report.survey import draw_sizes

    json_file = annotations.path
    bad = [{"record": str(error.where), "rule": error.rule, "message": str(error)} for error in errors]
    if not allow_empty and not any(len(image.boxes) for image in annotations.images):
        rule = "has no box that can be used; --allow-empty accepts that"
        bad.append({"record": str(json_file), "rule": rule, "message": f"{json_file}: {rule}"})
    broken = list(broken_images(annotations, looks))
    found = {"annotations": str(json_file), "folder": str(folder), "bad": bad + broken, **survey(annotations)}
    found["turned"] = [str(image.path) for image in annotations.images if looks.get(absolute(image.path), UPRIGHT).orientation != 1]
    found |= _fit_of_anchors(annotations, recipe)
    boxes = [box for image in annotations.images for box in image.boxes[~image.crowd]]
    sides = [float(box_area(box).sqrt()) for box in boxes]
    aspects = [float((box[3] - box[1]) / (box[2] - box[0])) for box in boxes]
    sheet = _draw_sheet(annotations, {row["record"] for row in broken}, out / f"{part}.png")
    sizes = draw_sizes(sides, aspects, found["classes"], out / f"{part}_sizes.png")
    return found | {"sheet": str(sheet), "histograms": str(sizes)}


def _fit_of_anchors(annotations: CocoAnnotations, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """How the boxes fit the anchors of the recipe, and those that ``auto`` would give it."""
    from ..data.fit_to_boxes import AnchorGrid, choose
    from ..data.survey import best_anchor_iou, boxes_as_seen, percentiles
    from ..data.transforms import shorter_and_longer
    from ..detectors.anchors import anchor_shapes

    options, asked = anchor_options_of(recipe), image_size_of(recipe)
    grid = AnchorGrid(anchor_shapes(**(options | {"anchor_scale": 1.0})), options["strides"]) if options else None
    auto = choose(annotations, image_size=asked, anchors=grid)
    size = shorter_and_longer(auto["image_size"].value if asked == "auto" else asked)
    found: dict[str, Any] = {"auto": {name: choice._asdict() for name, choice in auto.items()}, "image_size": list(size)}
    if options is None or grid is None:
        return found
    boxes = boxes_as_seen(annotations, size=size)

    def overlap(scale: float) -> Tensor:
        return best_anchor_iou(boxes, [scale * shape for shape in grid.shapes], grid.strides)

    def poor(iou: Tensor) -> float | None:
        return float((iou < POOR).double().mean()) if len(iou) else None

    suggested = auto["anchor_scale"].value
    scale = suggested if options["anchor_scale"] == "auto" else options["anchor_scale"]
    iou = overlap(scale)
    found["anchors"] = {"image_size": list(size), "anchor_scale": scale, "best_iou": percentiles(iou), "share_below_0.5": poor(iou)}
    found["auto"]["anchor_scale"]["share_below_0.5"] = poor(overlap(suggested))
    return found


def _draw_sheet(annotations: CocoAnnotations, broken: set[str], path: Path, *, images: int = 16) -> Path:
    """Draws images from all over the file, those with boxes first."""
    from ..data.images import CocoDataset, Phase
    from ..data.transforms import eval_transforms
    from ..report.survey import draw_labels

    good = [i for i, image in enumerate(annotations.images) if record_of(annotations, image.id) not in broken]
    boxed = [i for i in good if len(annotations.images[i].boxes)]
    chosen = boxed or good
    chosen = [chosen[len(chosen) * i // images] for i in range(images)] if len(chosen) > images else chosen
    dataset = CocoDataset(annotations, Phase(eval_transforms(size=400)))
    drawn = []
    for index in chosen:
        try:
            drawn.append(dataset[index])
        except (ValueError, OSError):  # where images are not checked
            continue
    return draw_labels([image for image, _ in drawn], [targets for _, targets in drawn], annotations.class_names, path)


# -- the page


def _print(part: str, found: Mapping[str, Any], limit: int, recipe: str) -> None:
    print(f"{part}: {found['annotations']} with {found['folder']}")
    print(
        f"  {found['images']} images ({found['without_boxes']} without boxes), {found['boxes']} boxes, "
        f"{found['crowd_regions']} crowd regions, {len(found['classes'])} classes"
    )
    ordered = sorted(found["classes"].items(), key=lambda entry: -entry[1])
    shown = ordered if len(ordered) <= 20 else [*ordered[:10], ("...", ""), *ordered[-9:]]
    print("  boxes per class: " + ", ".join(f"{_line(name)} {count}".strip() for name, count in shown))
    if empty := [name for name, count in ordered if count == 0]:
        print(f"  note: {len(empty)} classes without a box: {', '.join(map(_line, empty[:10]))}{', ...' if len(empty) > 10 else ''}")
    for key, name in (
        ("side", "side of the boxes, sqrt(w h), px"),
        ("share", "  as a share of the image's"),
        ("aspect", "height / width"),
    ):
        print(f"  {name:<42}{_percentiles(found[key])}")
    if sum(found["doubles"].values()):
        doubles = found["doubles"]
        print(f"  note: pairs of boxes with IoU >= 0.9: {doubles['same_class']} of one class, {doubles['other_class']} of two classes")
    if turned := found["turned"]:
        print(f"  note: {len(turned)} images have an EXIF orientation, which is not applied: {turned[0]}, ...")
    if found["boxes"]:
        _print_fit(recipe, found.get("anchors"), None if part == "val" else found["auto"])
    _print_bad([row["message"] for row in found["bad"]], limit, "  bad records")
    print(f"  images with their boxes: {found['sheet']}; histograms: {found['histograms']}")


def _print_bad(messages: Sequence[str], limit: int, what: str) -> None:
    if messages:
        print(f"{what}: {len(messages)}")
        for message in messages[:limit]:
            print(f"    {message}")
        if len(messages) > limit:
            print(f"    and {len(messages) - limit} more (--limit, --json)")


def _print_fit(recipe: str, anchors: Mapping[str, Any] | None, auto: Mapping[str, Mapping[str, Any]] | None) -> None:
    """How the anchors of the recipe fit, and what ``auto`` would choose for it; None for images that are not trained on."""
    if anchors:
        size = " x ".join(map(str, dict.fromkeys(anchors["image_size"])))
        print(f"  {f'best IoU with an anchor at {size} px':<42}{_percentiles(anchors['best_iou'])}")
        poor = f"{anchors['share_below_0.5']:.1%} of the boxes have no anchor of IoU >= {POOR} with anchor_scale {anchors['anchor_scale']}"
        print(f"  {poor}: an assigner by overlap has one positive for each of them, ATSS adapts")
    if auto is None:
        return
    print(f"  auto would choose for {recipe}:")
    print(f"    image_size {auto['image_size']['value']}: {auto['image_size']['reason']}")
    if anchors:
        scale = auto["anchor_scale"]
        print(
            f"    anchor_scale {scale['value']} at {size} px: {scale['reason']}; {scale['share_below_0.5']:.1%} have none of IoU >= {POOR}"
        )


def _line(name: str) -> str:
    """A name that cannot break the line."""
    return " ".join(name.split())


def _percentiles(values: Mapping[str, float | None]) -> str:
    if values["50"] is None:
        return "no boxes"
    names = {"0": "least", "100": "most"}
    return "  ".join(f"{names.get(at, f'{at} %')} {value:.3g}" for at, value in values.items())


run = command(check, show_check)
