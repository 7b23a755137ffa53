"""ONNX files: writing, and the operators of non-maximum suppression after what a detector gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

OUTPUTS = ("boxes", "scores", "labels")


def write_onnx(program: torch.export.ExportedProgram, path: Path, *, inputs: list[str], outputs: list[str]) -> None:
    """Writes a program as ONNX.

    Raises:
        ModuleNotFoundError: ``lossbox[export]`` is not installed.
    """
    import torch

    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("model: ONNX needs pip install 'lossbox[export]'") from error
    exported = torch.onnx.export(program, dynamo=True, input_names=inputs, output_names=outputs, verbose=False)
    assert exported is not None
    exported.save(str(path))


def append_nms(path: Path, *, nms_threshold: float, max_detections: int) -> None:
    """Puts non-maximum suppression after a file whose outputs are those of ``lossbox.decoding.Candidates``, named ``candidate_*``.

    In each class a box falls that has ``IoU > nms_threshold`` with a better one (the operator NonMaxSuppression); the best of all classes
    remain, best first, their boxes scaled to the original image. The outputs are then ``boxes`` (n, 4), ``scores`` (n,), ``labels`` (n,).

    Args:
        path: the file; it is written anew.
        nms_threshold: in [0, 1].
        max_detections: of one image.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(str(path))
    graph = model.graph
    vectors = {"most": [max_detections], "first": [0], "class_place": [1, 2]}
    numbers = {"class_axis": 1, "place_axis": 2}
    reals = {"iou": nms_threshold, "zero": 0.0}
    graph.initializer.extend(helper.make_tensor(f"nms_{name}", TensorProto.INT64, [len(of)], of) for name, of in vectors.items())
    graph.initializer.extend(helper.make_tensor(f"nms_{name}", TensorProto.INT64, [], [value]) for name, value in numbers.items())
    graph.initializer.extend(helper.make_tensor(f"nms_{name}", TensorProto.FLOAT, [1], [value]) for name, value in reals.items())

    def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> None:
        graph.node.append(helper.make_node(kind, inputs.split(), outputs.split(), **attributes))

    node("Unsqueeze", "candidate_boxes nms_first", "nms_boxes")
    node("Unsqueeze", "candidate_scores nms_first", "nms_scores")
    # a row of each box that stays: image, class, place
    node("NonMaxSuppression", "nms_boxes nms_scores nms_most nms_iou nms_zero", "nms_kept")
    node("Gather", "nms_kept nms_class_axis", "nms_class", axis=1)
    node("Gather", "nms_kept nms_place_axis", "nms_place", axis=1)
    node("Gather", "nms_kept nms_class_place", "nms_rows", axis=1)
    node("GatherND", "candidate_scores nms_rows", "nms_all_scores")
    node("Shape", "nms_all_scores", "nms_number")
    node("Min", "nms_number nms_most", "nms_count")
    node("TopK", "nms_all_scores nms_count", "scores nms_order", axis=0)
    node("Gather", "nms_class nms_order", "labels")
    node("Gather", "nms_place nms_order", "nms_best")
    node("Gather", "candidate_boxes nms_best", "nms_best_boxes")
    node("Mul", "nms_best_boxes candidate_factors", "boxes")

    del graph.output[:]
    types = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64)
    shapes: tuple[list[str | int], ...] = (["n", 4], ["n"], ["n"])
    graph.output.extend(map(helper.make_tensor_value_info, OUTPUTS, types, shapes))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def write_openvino(onnx_file: Path, path: Path) -> None:
    """Converts an ONNX file by OpenVINO's own converter; weights stay float32.

    Raises:
        ModuleNotFoundError: openvino is not installed.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("model: OpenVINO needs pip install openvino") from error
    openvino.save_model(openvino.convert_model(str(onnx_file)), str(path), compress_to_fp16=False)
