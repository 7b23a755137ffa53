"""COCO detection JSON of what was read from data of any layout."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .labels import Read


def coco_document(parts: Iterable[Read], names: Sequence[str] | Mapping[str, int], root: Path) -> dict[str, Any]:
    """COCO detection JSON of what was read.

    Args:
        parts: what was read, of one part of the data.
        names: of the classes; the category ids are 1, 2, ... in this order, or those of a mapping.
        root: the folder that each ``file_name`` is to be relative to.

    Returns:
        An object with ``images``, ``categories`` and ``annotations``, ids from 1. Records of COCO JSON keep theirs.

    Example:
        >>> from lossbox.coco.labels import Box
        >>> read = Read(Path("images/a.jpg"), (40, 30), [Box("cup", (1.0, 2.0, 11.0, 22.0))])
        >>> coco_document([read], ["cup"], Path("images"))["annotations"]
        [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1.0, 2.0, 10.0, 20.0], 'area': 200.0, 'iscrowd': 0}]
    """
    categories = dict(names) if isinstance(names, Mapping) else {name: number for number, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, read in enumerate(parts, 1):
        file_name = Path(os.path.relpath(read.image, root)).as_posix()
        stated = {"id": number, "width": read.size[0], "height": read.size[1], **(read.record or {})}
        images.append({"id": stated["id"], "file_name": file_name} | stated | {"file_name": file_name})
        for box in read.boxes:
            belongs = {"image_id": stated["id"], "category_id": categories[box.name]}
            if box.record is not None:
                annotations.append({**box.record, **belongs})
                continue
            x1, y1, x2, y2 = box.corners
            width, height = x2 - x1, y2 - y1
            row = {"id": len(annotations) + 1, **belongs, "bbox": [x1, y1, width, height]}
            annotations.append({**row, "area": width * height, "iscrowd": int(box.crowd)})
    return {
        "images": images,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": annotations,
    }
