"""Masks and keypoints of COCO's JSON, for evaluation: what is compared in place of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float

from .checks import NUMBERS, Table, as_floats

IouType: TypeAlias = Literal["bbox", "segm", "keypoints"]


def read_shapes(table: Table, iou_type: IouType, *, sizes: Sequence[tuple[Any, Any]]) -> tuple[Any, ...]:
    """The mask or the keypoints of each record; a record without them is refused in the table.

    Args:
        table: annotations or detections.
        iou_type: ``bbox`` gives ().
        sizes: height and width of the image of each record, None where unknown; read for masks.

    Returns:
        RLE dicts (``size``, ``counts``), or arrays (K, 3) of x, y and visibility, K the same for all.

    Raises:
        ValueError: another ``iou_type``.
        ImportError: masks need hotcoco, which is not installed.
    """
    if iou_type not in get_args(IouType):
        raise ValueError(f"iou_type: one of {', '.join(get_args(IouType))} expected, got {iou_type!r}")
    if iou_type == "bbox":
        return ()
    return _masks(table, sizes) if iou_type == "segm" else _keypoints(table)


def boxes_and_areas(shapes: Sequence[Any], iou_type: IouType) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, " n"]]:
    """The smallest box around each shape, ``x y width height``, and the area: a mask's own, that of the box for keypoints."""
    if not shapes:
        return np.zeros((0, 4)), np.zeros(0)
    if iou_type == "segm":
        from hotcoco import mask

        return np.asarray(mask.to_bbox(list(shapes)), dtype=np.float64), np.asarray(mask.area(list(shapes)), dtype=np.float64)
    places = np.stack(shapes)[:, :, :2]
    boxes = np.concatenate([places.min(1), places.max(1) - places.min(1)], 1)
    return boxes, boxes[:, 2] * boxes[:, 3]


def _masks(table: Table, sizes: Sequence[tuple[Any, Any]]) -> tuple[dict[str, Any], ...]:
    try:
        from hotcoco import mask
    except ImportError as error:
        raise ImportError("masks need hotcoco: pip install 'lossbox[eval]'") from error

    found = []
    for index, (record, (height, width)) in enumerate(zip(table.records, sizes, strict=True)):
        value, rle = record.get("segmentation"), {"size": [0, 0], "counts": b""}
        known = isinstance(height, int) and isinstance(width, int)
        if not value:
            table.refuse(index, "lacks 'segmentation'" if value is None else "segmentation must not be empty")
        elif isinstance(value, list) and not known:
            table.refuse(index, "segmentation must be RLE, or polygons in an image of known width and height")
        else:
            try:
                rle = mask.merge(mask.frPyObjects(value, height, width)) if isinstance(value, list) else mask.merge([dict(value)])
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                table.refuse(index, f"segmentation must be polygons or RLE ({error})")
            if known and rle["size"][0] > 0 and list(rle["size"]) != [height, width]:
                table.refuse(index, f"segmentation must have the size of its image, {height} x {width}", got=rle["size"])
        found.append(rle)
    return tuple(found)


def _keypoints(table: Table) -> tuple[Float[np.ndarray, "k 3"], ...]:
    expected = "a list of three numbers for each keypoint: x, y, visibility"
    lists = table.values("keypoints", (list, tuple, np.ndarray), expected, stand_in=None)
    lengths = [len(value) for value in lists if value is not None and len(value)]
    length = lengths[0] if lengths else 3
    found = []
    for index, value in enumerate(lists):
        numbers = np.zeros(length)
        if value is not None:
            if len(value) != length or length % 3 or not all(isinstance(number, NUMBERS) for number in value):
                table.refuse(index, f"keypoints must be {expected}; as many as the first record has")
            else:
                numbers = as_floats(value)
        if not np.isfinite(numbers).all():
            table.refuse(index, "keypoints must be finite")
        found.append(numbers.reshape(-1, 3))
    return tuple(found)
