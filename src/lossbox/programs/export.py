"""``lossbox export``."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command import File, NewFile, command
from .onnx_graph import OUTPUTS, append_nms, write_onnx, write_openvino

if TYPE_CHECKING:
    from torch import Tensor

    from ..training.load import Trained

TOLERANCE = 1e-4
"""The largest difference between the file and the detector, in relation to a number above 1."""

ONE_IN = 100
"""Of so many proposals, one may be another: rounding decides between two that are as good."""


def export(
    model: NewFile,
    *,
    ckpt: File,
    config: File | None = None,
    size: tuple[int, int] | None = None,
    nms: bool = False,
    thresholds: File | None = None,
    license: str = "not stated",
) -> dict[str, Any]:
    """Writes a trained detector as one file that runs without lossbox: ONNX (.onnx), OpenVINO (.xml, .bin) or torch.export (.pt2).

      images (b, 3, H, W)   float32, RGB in [0, 1], not normalized (the file does that), any b; in
      scores (b, p, C)      in [0, 1], of each of p places and C classes; out
      boxes (b, p, 4)       x1 y1 x2 y2 in pixels of the H x W image, not cut at its border; out

    p depends on H and W alone. The places of a detector of two stages (Faster R-CNN) are its proposals, best first; where an image has
    fewer than p, the rest have scores of 0 and boxes of zeros. The suppression between the stages is in the file.

    With --nms (ONNX and OpenVINO), thresholds and non-maximum suppression are in the file too, as the recipe says them:

      images (1, 3, H, W)   one image, scaled to fit into H x W, at the top left, the rest 0; in
      size (2,)             int64, height and width of the original image; in
      boxes (n, 4)          x1 y1 x2 y2 in pixels of the original image, best score first; out
      scores (n,)           and labels (n,), int64; out

    Beside the file lies a model card, as JSON and as Markdown: classes, size, data, accuracy, thresholds, license, versions. What was
    written is run once and compared with the detector: a difference above 1e-4 is an error. Proposals and boxes that are as good but for
    rounding may change places, and one in 100 may be another.

    Args:
        model: the file to write: .onnx, .xml or .pt2
        ckpt: OUT/checkpoints/best.ckpt or last.ckpt of a run, or OUT, the folder of the run
        config: its resolved recipe (default: OUT/config.yaml)
        size: height and width of the images in pixels (default: a square that any image of the validation fits into)
        nms: put thresholds and non-maximum suppression into the file
        thresholds: with --nms: the score at which to cut each class (CSV of lossbox evaluate or validate); default: the recipe's
        license: of the model and the data it was trained on, for the card

    Returns:
        ``model`` and ``card``: the two files; ``height``, ``width``, ``places``, ``classes``: a dict of ``label``, ``id`` and ``name``
        each; ``difference``: the largest one found. ``places`` is None with ``nms``.

    Raises:
        ValueError: another suffix; options that do not go together; the file differs from the detector by more than 1e-4.
        ImportError: ``lossbox[export]`` or openvino is not installed.
    """
    model, ckpt = Path(model), Path(ckpt)
    if model.suffix not in _RUNNERS:
        raise ValueError(f"model: a file name that ends in {', '.join(list(_RUNNERS)[:-1])} or .pt2 expected, got {model}")
    if nms and model.suffix == ".pt2":
        raise ValueError(f"nms: a file name that ends in .onnx or .xml expected, got {model}")
    if thresholds is not None and not nms:
        raise ValueError("thresholds: --thresholds goes with --nms, got it alone")
    if size is not None and min(size) < 1:
        raise ValueError(f"size: height and width of at least 1 pixel expected, got {size[0]} {size[1]}")
    import torch

    from ..data.transforms import shorter_and_longer
    from ..training.checkpoint import checkpoint_of, config_of
    from ..training.load import load_trained
    from .model_card import write_card

    ckpt = Path(checkpoint_of(Path(), ckpt))
    config = Path(config) if config else config_of(ckpt)
    cut = {} if thresholds is None else {"thresholds": str(thresholds)}
    trained = load_trained(ckpt, config, device="cpu", decoder=cut)
    detector = trained.task.detector.to(memory_format=torch.contiguous_format)
    height, width = size or (shorter_and_longer(trained.data.eval_size)[1],) * 2
    model.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        write = _write_with_nms if nms else _write
        found, expected = write(trained, model, torch.rand(2, 3, height, width))
    any_order = nms or hasattr(detector, "propose")
    worst = (_difference_in_any_order if any_order else _difference)(found, expected)
    if not worst <= TOLERANCE:
        raise ValueError(f"model: {model} differs from the detector by {worst:.2g}; at most {TOLERANCE:g} expected")
    classes = [{"label": i, "id": category_id, "name": name} for i, (category_id, name) in enumerate(trained.categories)]
    content = {"checkpoint": str(ckpt), "height": height, "width": width, "classes": classes, "nms": nms}
    card = write_card(model, content, config, license=license, thresholds=Path(thresholds) if thresholds else None)
    return content | {"model": model, "card": card, "places": None if nms else found[0].shape[1], "difference": worst}


def show_export(written: Mapping[str, Any]) -> None:
    """Prints what is in the file, and how far it is from the detector."""
    size = f"[{written['height']}, {written['width']}] pixels"
    weights = written["model"].with_suffix(".bin")
    files = [written["model"], *([weights] if written["model"].suffix == ".xml" else [])]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    places = "boxes after suppression" if written["nms"] else f"{written['places']} places"
    print(
        f"{written['model']}: {size}, {places}, {len(written['classes'])} classes; {megabytes:.1f} MB; "
        f"differs from the detector by {written['difference']:.1g}\n{written['card']}: the model card; as Markdown: "
        f"{written['card'].with_suffix('.md').name}"
    )


def _write(trained: Trained, model: Path, example: Tensor) -> tuple[list[Tensor], Sequence[Tensor]]:
    """Writes scores and boxes of any number of images; what the file gives for an image, and what the detector does."""
    import torch

    from ..decoding import ScoresAndBoxes

    network = ScoresAndBoxes(trained.task.detector).eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(network, (example,), dynamic_shapes={"images": {0: batch}})
    if model.suffix == ".pt2":
        torch.export.save(program, model)
    else:
        with _onnx_file(model) as file:
            write_onnx(program, file, inputs=["images"], outputs=["scores", "boxes"])
    other = torch.rand(1, *example.shape[1:])
    with torch.inference_mode():
        expected = network(other)
    return _RUNNERS[model.suffix](model, {"images": other}, ["scores", "boxes"]), expected


def _write_with_nms(trained: Trained, model: Path, example: Tensor) -> tuple[list[Tensor], Sequence[Tensor]]:
    """Writes the detections of one image; what the file gives for one that is wider than its H x W, and what the decoder does."""
    import torch

    from ..decoding import Candidates, Decoder

    decoder, detector = trained.task.decoder, trained.task.detector
    if not isinstance(decoder, Decoder) or trained.task.multi_scale is not None:
        raise ValueError("nms: a recipe with lossbox.decoding.Decoder and without multi_scale expected; export without --nms")
    image, height, width = example[:1], *example.shape[2:]
    original = (3 * height, 4 * width)
    candidates = Candidates(detector, decoder, image).eval()
    program = torch.export.export(candidates, (image, torch.tensor(original)))
    outputs = [f"candidate_{name}" for name in ("boxes", "scores", "factors")]
    with _onnx_file(model) as file:
        write_onnx(program, file, inputs=["images", "size"], outputs=outputs)
        append_nms(file, nms_threshold=decoder.nms_threshold, max_detections=decoder.max_detections)
    factor = min(height / original[0], width / original[1])
    fitted = round(original[0] * factor), round(original[1] * factor)
    with torch.inference_mode():
        expected = decoder(detector(image), [fitted])[0].resized(fitted, original)
    found = _RUNNERS[model.suffix](model, {"images": image, "size": torch.tensor(original)}, list(OUTPUTS))
    theirs = [expected.boxes, expected.scores, expected.labels]
    return _rows(found), _rows(theirs)


def _rows(parts: Sequence[Tensor]) -> list[Tensor]:
    """Boxes, scores and labels as (1, n, columns) each."""
    return [part.float().reshape(1, len(part), -1 if len(part) else 4) for part in parts]


@contextmanager
def _onnx_file(model: Path) -> Iterator[Path]:
    """Where to write ONNX: the file itself; or, of OpenVINO, one that is converted and gone afterwards."""
    if model.suffix == ".onnx":
        yield model
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        yield file
        write_openvino(file, model)


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
    if not len(rows):
        return float("inf") if len(others) else 0.0
    differences = torch.stack([((rows - other).abs() / other.abs().clamp(min=1)).amax(-1) for other in others])
    return float(torch.stack([differences.amin(axis).sort(descending=True).values[skipped] for axis in (0, 1)]).max())


def _run_onnx(path: Path, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(array) for array in session.run(list(outputs), {name: value.numpy() for name, value in inputs.items()})]


def _run_openvino(path: Path, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
    import openvino
    import torch

    # float32 as the detector computes, also where a CPU would take bfloat16
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({name: value.numpy() for name, value in inputs.items()})
    return [torch.from_numpy(found[name].copy()) for name in outputs]


def _run_pt2(path: Path, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
    import torch

    with torch.inference_mode():
        return list(torch.export.load(path).module()(*inputs.values()))


_RUNNERS: dict[str, Callable[[Path, Mapping[str, Tensor], Sequence[str]], list[Tensor]]] = {
    ".onnx": _run_onnx,
    ".xml": _run_openvino,
    ".pt2": _run_pt2,
}

run = command(export, show_export)
