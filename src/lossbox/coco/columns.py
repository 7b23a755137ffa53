"""Ground truth and detections as columns, from COCO's JSON.

What is not an error here: an image without annotations or without detections, a category without either, an empty results list, boxes
outside the image (COCO evaluates them as they are), boxes of no area (they match nothing), the same detection twice (the second is a false
positive), a missing ``area`` (the box's) or ``iscrowd`` (0). An ``ignore`` field has no effect, as in pycocotools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .checks import Table, brief, load_json
from .shapes import IouType, read_shapes


@dataclass(frozen=True)
class GroundTruth:
    """The annotations of a data set as columns.

    Attributes:
        image_ids: (images,) COCO ids, ascending.
        category_ids: (C,) COCO ids, ascending.
        category_names: C names, in the order of ``category_ids``.
        image: (n,) index into ``image_ids``.
        category: (n,) index into ``category_ids``.
        boxes: (n, 4) ``x y width height``, pixels of the original image.
        areas: (n,) square pixels, as annotated (of the segment, not of the box).
        crowd: (n,) True for a region that stands for many objects: no error to find it, none to miss it.
        file_names: one per image, in the order of ``image_ids``, empty where the file has none; () where they are not known.
        iou_type: what is compared: ``bbox``, ``segm`` (masks) or ``keypoints``.
        shapes: one per annotation, where masks (RLE) or keypoints (K, 3) are compared; else ().
    """

    image_ids: Int[np.ndarray, " images"]
    category_ids: Int[np.ndarray, " c"]
    category_names: tuple[str, ...]
    image: Int[np.ndarray, " n"]
    category: Int[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]
    areas: Float[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    file_names: tuple[str, ...] = ()
    iou_type: IouType = "bbox"
    shapes: tuple[Any, ...] = ()

    def of_images(self, kept: Bool[np.ndarray, " images"]) -> GroundTruth:
        """The same categories, only the images where ``kept`` is True."""
        rows = kept[self.image]
        columns = {name: getattr(self, name)[rows] for name in ("category", "boxes", "areas", "crowd")}
        names = tuple(self.file_names[index] for index in np.flatnonzero(kept)) if self.file_names else ()
        image = (np.cumsum(kept) - 1)[self.image[rows]]
        shapes = tuple(self.shapes[row] for row in np.flatnonzero(rows)) if self.shapes else ()
        return replace(self, image_ids=self.image_ids[kept], image=image, file_names=names, shapes=shapes, **columns)


@dataclass(frozen=True)
class DetectionColumns:
    """The detections of a data set as columns; their order decides ties of score, as the order of a results file does.

    Attributes:
        image: (m,) index into ``GroundTruth.image_ids``.
        category: (m,) index into ``GroundTruth.category_ids``.
        boxes: (m, 4) ``x y width height``, pixels of the original image.
        scores: (m,).
        areas: (m,) square pixels; the boxes' where it is None.
        shapes: one per detection, as in ``GroundTruth``.
        notes: what was read in another way than COCO's, as lines for the user.
    """

    image: Int[np.ndarray, " m"]
    category: Int[np.ndarray, " m"]
    boxes: Float[np.ndarray, "m 4"]
    scores: Float[np.ndarray, " m"]
    areas: Float[np.ndarray, " m"] | None = None
    shapes: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()

    def of_images(self, kept: Bool[np.ndarray, " images"]) -> DetectionColumns:
        """Those in the images where ``kept`` is True, as ``GroundTruth.of_images`` numbers them."""
        rows = kept[self.image]
        columns = {name: getattr(self, name)[rows] for name in ("category", "boxes", "scores")}
        areas = None if self.areas is None else self.areas[rows]
        shapes = tuple(self.shapes[row] for row in np.flatnonzero(rows)) if self.shapes else ()
        return replace(self, image=(np.cumsum(kept) - 1)[self.image[rows]], areas=areas, shapes=shapes, **columns)


class Sections(NamedTuple):
    """The three lists of a COCO file.

    ``image`` and ``category`` are rows of the tables, -1 where there is none; ``broken_boxes`` says which rule a box breaks.
    """

    categories: Table
    category_ids: Int[np.ndarray, " c"]
    names: list[str]
    images: Table
    image_ids: Int[np.ndarray, " images"]
    annotations: Table
    image: Int[np.ndarray, " n"]
    category: Int[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]
    broken_boxes: dict[int, str]
    areas: Float[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]

    def ground_truth(self) -> GroundTruth:
        """The records that break no rule and refer to none that does."""
        image_rows, image_place = _by_id(self.images, self.image_ids)
        category_rows, category_place = _by_id(self.categories, self.category_ids)
        kept = self.kept()
        return GroundTruth(
            image_ids=self.image_ids[image_rows],
            category_ids=self.category_ids[category_rows],
            category_names=tuple(self.names[row] for row in category_rows),
            image=image_place[self.image[kept]],
            category=category_place[self.category[kept]],
            boxes=self.boxes[kept],
            areas=self.areas[kept],
            crowd=self.crowd[kept],
            file_names=tuple(_name(self.images.records[row]) for row in image_rows),
        )

    def kept(self) -> Bool[np.ndarray, " n"]:
        """The annotations that break no rule, whose image and category break none either."""
        kept: Bool[np.ndarray, " n"] = self.annotations.good
        if kept.any():  # then there are images and categories
            kept &= self.images.good[self.image] & self.categories.good[self.category]
        return kept


def _by_id(table: Table, ids: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " g"], Int[np.ndarray, " n"]]:
    """The good rows by ascending id, and the place of each row among them."""
    rows = np.flatnonzero(table.good)
    rows = rows[np.argsort(ids[rows])]
    place = np.full(len(table), -1)
    place[rows] = np.arange(len(rows))
    return rows, place


def _name(image: Mapping[str, Any]) -> str:
    name = image.get("file_name")
    return name if isinstance(name, str) else ""


def read_sections(document: Any, source: str) -> Sections:
    """The lists of a COCO file with the rules that training and evaluation share; what breaks one is noted in the tables.

    Raises:
        ValueError: the file is no object, or a section is missing or no list.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"{source}: an object with images, annotations and categories expected, got {type(document).__name__}")
    categories, images = _read_table(document, source, "categories"), _read_table(document, source, "images")
    category_ids, names = categories.ids(), categories.texts("name")
    image_ids = images.ids()
    annotations = _read_table(document, source, "annotations")
    annotations.ids()
    image = annotations.rows_of("image_id", image_ids, "an image")
    category = annotations.rows_of("category_id", category_ids, "a category")
    crowd = [annotation.get("iscrowd", 0) for annotation in annotations.records]
    annotations.refuse_where(np.array([flag not in (0, 1) for flag in crowd], dtype=bool), "iscrowd", "must be 0 or 1")
    boxes, broken = annotations.boxes()
    areas = annotations.floats("area", default=0.0)
    annotations.refuse_where(~(areas >= 0), "area", "must not be negative")
    no_area = np.array(["area" not in annotation for annotation in annotations.records], dtype=bool)
    with np.errstate(over="ignore", invalid="ignore"):
        areas = np.where(no_area, boxes[:, 2] * boxes[:, 3], areas)
    crowded = np.array([flag == 1 for flag in crowd], dtype=bool)
    return Sections(categories, category_ids, names, images, image_ids, annotations, image, category, boxes, broken, areas, crowded)


def _read_table(document: Mapping[str, Any], source: str, section: str) -> Table:
    if section not in document:
        raise ValueError(f"{source}: lacks the section {section!r} of COCO detection JSON; it has {brief(sorted(document))}")
    return Table(document[section], source, section)


def read_ground_truth(source: str | Path | Mapping[str, Any], *, iou_type: IouType = "bbox") -> GroundTruth:
    """The annotations of a COCO ground truth file, or of its content.

    Args:
        source: a path, or the object that is in such a file: ``images`` (``id``), ``categories`` (``id``, ``name``) and ``annotations``
            (``id``, ``image_id``, ``category_id``, ``bbox`` as ``x y width height`` in pixels, optional ``area``, ``iscrowd``).

    Returns:
        The annotations as columns, in the order of the file; images and categories by ascending id.

    Raises:
        ValueError: a part is missing or of the wrong type; an id twice; an annotation of an unknown image or category; a box with
            NaN, infinity or negative size; a mask or keypoints that cannot be read.
        FileNotFoundError: there is no such file.
        ImportError: masks need hotcoco, which is not installed.

    Source:
        COCO's data format.

    Example:
        >>> truth = read_ground_truth({"images": [{"id": 7}], "categories": [{"id": 3, "name": "cup"}], "annotations": [
        ...     {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10]}]})
        >>> truth.category_names, truth.areas
        (('cup',), array([100.]))
    """
    sections = read_sections(*load(source, "ground truth", "COCO detection JSON"))
    refuse_boxes(sections.annotations, sections.boxes, sections.broken_boxes)
    shapes = read_shapes(sections.annotations, iou_type, sizes=_sizes(sections) if iou_type == "segm" else ())
    for table in (sections.categories, sections.images, sections.annotations):
        table.stop_at_bad()
    return replace(sections.ground_truth(), iou_type=iou_type, shapes=shapes)


def _sizes(sections: Sections) -> list[tuple[Any, Any]]:
    """Height and width of the image of each annotation, None where the file has none."""
    known = [(image.get("height"), image.get("width")) for image in sections.images.records]
    return [known[row] if known else (None, None) for row in sections.image]


def read_index(path: Path) -> tuple[dict[str, int], list[tuple[int, str]]]:
    """The id of each image by its file name, and (id, name) of the categories by id, of a COCO file that need not have annotations.

    Raises:
        ValueError: a section is missing, or an id or a name breaks a rule.
    """
    document = load_json(path, "COCO detection JSON")
    if not isinstance(document, Mapping):
        raise ValueError(f"{path}: an object with images and categories expected, got {type(document).__name__}")
    images, categories = (_read_table(document, str(path), section) for section in ("images", "categories"))
    known = dict(zip(images.texts("file_name"), images.ids().tolist(), strict=True))
    named = sorted(zip(categories.ids().tolist(), categories.texts("name"), strict=True))
    for table in (images, categories):
        table.stop_at_bad()
    return known, named


def load(source: Any, name: str, expected: str) -> tuple[Any, str]:
    """The content and what to call it in an error."""
    return (load_json(Path(source), expected), str(source)) if isinstance(source, str | Path) else (source, name)


def refuse_boxes(table: Table, boxes: Float[np.ndarray, "n 4"], broken: Mapping[int, str]) -> None:
    """Notes the records whose box is none, or has a negative size; ``broken`` is what ``Table.boxes`` says of them."""
    for index, rule in broken.items():
        table.refuse(index, rule, got=table.records[index].get("bbox"))
    table.refuse_where(np.minimum(boxes[:, 2], boxes[:, 3]) < 0, "bbox", "must not have a negative width or height: x, y, width, height")
