"""``lossbox export``."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command import File, command

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TOLERANCE = 1e-4
"""The largest difference between the file and the detector, in relation to a number above 1."""

ONE_IN = 100
"""Of so many proposals, one may be another: rounding decides between two that are as good."""


def export(model: File, *, ckpt: File, config: File | None = None, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Writes a trained detector as one file that runs without lossbox: ONNX (.onnx) or torch.export (.pt2).

      images (b, 3, H, W)   float32, RGB in [0, 1], not normalized (the file does that), any b; in
      scores (b, p, C)      in [0, 1], of each of p places and C classes; out
      boxes (b, p, 4)       x1 y1 x2 y2 in pixels of the H x W image, not cut at its border; out

    p depends on H and W alone. The places of a detector of two stages (Faster R-CNN) are its proposals, best first; where an image has
    fewer than p, the rest have scores of 0 and boxes of zeros. The suppression between the stages is in the file.

    Threshold and non-maximum suppression of what comes out are not in the file: they belong to whoever deploys it (thresholds.csv of the
    run has the score at which to cut each class). A JSON file of the same name says the classes and the size. What was written is run once
    and compared with the detector: a difference above 1e-4 is an error. Proposals may change places, and one in 100 may be another:
    rounding decides between two that are as good.

    Args:
        model: the file to write: .onnx or .pt2
        ckpt: the checkpoint, as a rule OUT/checkpoints/best.ckpt
        config: its resolved recipe (default: OUT/config.yaml)
        size: height and width of the images in pixels (default: a square that any image of the validation fits into)

    Returns:
        ``model`` and ``card``: the two files; ``height``, ``width``, ``places``, ``classes``: a dict of ``label``, ``id`` and ``name``
        each; ``difference``: the largest one found.

    Raises:
        ValueError: another suffix; the file differs from the detector by more than 1e-4.
        ImportError: ``lossbox[export]`` is not installed.
    """
    model, ckpt = Path(model), Path(ckpt)
    readers = {".onnx": _run_onnx, ".pt2": _run_pt2}
    if model.suffix not in readers:
        raise ValueError(f"model: a file name that ends in {' or '.join(readers)} expected, got {model}")

    import torch

    from .. import report
    from ..data.transforms import shorter_and_longer
    from ..decoding import ScoresAndBoxes
    from ..training.load import load_trained

    writers: dict[str, Callable[[torch.export.ExportedProgram, Path], None]] = {".onnx": _write_onnx, ".pt2": torch.export.save}
    trained = load_trained(ckpt, Path(config) if config else None, device="cpu")
    detector = trained.task.detector
    height, width = size or (shorter_and_longer(trained.data.eval_size)[1],) * 2
    example = torch.rand(2, 3, height, width)
    network = ScoresAndBoxes(detector.to(memory_format=torch.contiguous_format)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        batch = torch.export.Dim("batch", min=1, max=1024)
        program = torch.export.export(network, (example,), dynamic_shapes={"images": {0: batch}})
        model.parent.mkdir(parents=True, exist_ok=True)
        writers[model.suffix](program, model)
    other = torch.rand(1, 3, height, width)
    with torch.inference_mode():
        expected = network(other)
    found = readers[model.suffix](model, other)
    worst = (_difference_in_any_order if hasattr(detector, "propose") else _difference)(found, expected)
    if not worst <= TOLERANCE:
        raise ValueError(f"model: {model} differs from the detector by {worst:.2g}; at most {TOLERANCE:g} expected")
    card = model.with_suffix(".json")
    classes = [{"label": i, "id": category_id, "name": name} for i, (category_id, name) in enumerate(trained.categories)]
    content = {"checkpoint": str(ckpt), "height": height, "width": width, "classes": classes}
    report.write_json(card, content)
    return content | {"model": model, "card": card, "places": found[0].shape[1], "difference": worst}


def show_export(written: Mapping[str, Any]) -> None:
    """Prints what is in the file, and how far it is from the detector."""
    size = f"[{written['height']}, {written['width']}] pixels"
    megabytes = written["model"].stat().st_size / 1e6
    print(
        f"{written['model']}: {size}, {written['places']} places, {len(written['classes'])} classes; {megabytes:.1f} MB; "
        f"differs from the detector by {written['difference']:.1g}\n{written['card']}: the classes and the size"
    )


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest of two tensors from two, in relation to a number above 1; a NaN if there is one."""
    import torch

    return float(torch.stack([((a - b).abs() / b.abs().clamp(min=1)).max() for a, b in zip(found, expected, strict=True)]).max())


def _difference_in_any_order(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Of each proposal of one image from the one most like it, both ways; the largest but for one proposal in ``ONE_IN``.

    What was found may have more rows than was expected: those without area, which the detector leaves away.
    """
    import torch
    import torch.nn.functional as F

    rows, others = torch.cat(list(found), -1)[0], torch.cat(list(expected), -1)[0]
    skipped = len(others) // ONE_IN
    others = F.pad(others, (0, 0, 0, max(len(rows) - len(others), 0)))
    differences = torch.stack([((rows - other).abs() / other.abs().clamp(min=1)).amax(-1) for other in others])
    return float(torch.stack([differences.amin(axis).sort(descending=True).values[skipped] for axis in (0, 1)]).max())


def _write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    import torch

    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("model: ONNX needs pip install 'lossbox[export]'") from error
    exported = torch.onnx.export(program, dynamo=True, input_names=["images"], output_names=["scores", "boxes"], verbose=False)
    assert exported is not None
    exported.save(str(path))


def _run_onnx(path: Path, images: Tensor) -> list[Tensor]:
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(array) for array in session.run(None, {"images": images.numpy()})]


def _run_pt2(path: Path, images: Tensor) -> list[Tensor]:
    import torch

    with torch.inference_mode():
        return list(torch.export.load(path).module()(images))


run = command(export, show_export)
