"""Times COCO AP and oLRP from two JSON files to the numbers: Lossbox; and AP alone: pycocotools and, if it is installed, faster-coco-eval.

    python benchmarks/evaluation.py                      # 5,000 images x 80 classes x 100 detections: minutes, most of it pycocotools
    python benchmarks/evaluation.py --images 200 --output /tmp/evaluation.json

Every program runs in a process of its own, reading the files included, the interpreter's start and imports not; peak memory is that of the
process. The numbers of all of them are compared. The target: Lossbox takes at most the time of faster-coco-eval, and less than 4 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TARGET_BYTES = 4e9
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def problem(images: int, classes: int, detections: int, *, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """About 7 annotations an image; half of the detections near one, the others anywhere; scores roughly follow quality."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(7, images)
    image = np.repeat(np.arange(images), count)
    size = np.exp(rng.uniform(np.log(8), np.log(350), (len(image), 2)))
    boxes = np.concatenate([rng.uniform(0, 1, size.shape) * ([640, 480] - np.minimum(size, 400)), size], 1).round(2)
    category = rng.integers(0, classes, len(image))
    ground_truth: dict[str, Any] = {
        "info": {},
        "images": [{"id": i + 1, "width": 640, "height": 480, "file_name": f"{i + 1:012}.jpg"} for i in range(images)],
        "categories": [{"id": c + 1, "name": f"class {c + 1}"} for c in range(classes)],
        "annotations": [
            {"id": n + 1, "image_id": i + 1, "category_id": c + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": int(crowd)}
            for n, (i, c, box, crowd) in enumerate(
                zip(image.tolist(), category.tolist(), boxes.tolist(), (rng.random(len(image)) < 0.01).tolist(), strict=True)
            )
        ],
    }
    of = np.repeat(np.arange(images), detections)
    first = np.cumsum(count) - count
    near = (rng.random(len(of)) < 0.5) & (count[of] > 0)
    target = first[of] + (rng.random(len(of)) * count[of]).astype(int)
    target[~near] = rng.integers(0, len(image), int((~near).sum()))  # only its size and class are used
    shift = rng.normal(0, 0.15, (len(of), 4)) * rng.random((len(of), 1))
    moved = boxes[target]
    found = np.concatenate([moved[:, :2] + shift[:, :2] * moved[:, 2:], moved[:, 2:] * np.exp(shift[:, 2:])], 1)
    found[~near, :2] = rng.uniform(0, 300, (int((~near).sum()), 2))
    found_category = np.where(rng.random(len(of)) < 0.8, category[target], rng.integers(0, classes, len(of)))
    quality = np.where(near, 0.8 - 2 * np.abs(shift).mean(1), 0.2)
    score = np.clip(quality + rng.normal(0, 0.15, len(of)), 0.001, 0.999)
    results = [
        {"image_id": i + 1, "category_id": c + 1, "bbox": box, "score": s}
        for i, c, box, s in zip(of.tolist(), found_category.tolist(), found.round(2).tolist(), score.round(4).tolist(), strict=True)
    ]
    return ground_truth, results


def lossbox(truth_path: str, results_path: str) -> dict[str, float]:
    from lossbox.metrics import evaluate, read_ground_truth, read_results

    truth = read_ground_truth(truth_path)
    numbers = evaluate(truth, read_results(results_path, truth))
    return {name: numbers[name] for name in (*NAMES, "oLRP", "rho")}


def pycocotools(truth_path: str, results_path: str) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(truth_path)
    evaluation = COCOeval(truth, truth.loadRes(results_path), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(NAMES, evaluation.stats.tolist(), strict=True))


def faster_coco_eval(truth_path: str, results_path: str) -> dict[str, float]:
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(truth_path)
    evaluation = COCOeval_faster(truth, truth.loadRes(results_path), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(NAMES, np.asarray(evaluation.stats)[: len(NAMES)].tolist(), strict=True))


PROGRAMS = {"lossbox": lossbox, "pycocotools": pycocotools, "faster_coco_eval": faster_coco_eval}
MODULES = {"lossbox": "hotcoco", "pycocotools": "pycocotools.cocoeval", "faster_coco_eval": "faster_coco_eval"}


def run_once(program: str, truth_path: str, results_path: str) -> dict[str, Any]:
    """Seconds, numbers and peak memory of one program; called in a process of its own."""
    importlib.import_module(MODULES[program])
    if program == "lossbox":
        importlib.import_module("lossbox.metrics")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        numbers = PROGRAMS[program](truth_path, results_path)
        seconds = time.perf_counter() - start
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if platform.system() == "Darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak_bytes": peak * unit, "peak_bytes_of_imports": before * unit, "numbers": numbers}


def target(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What was asked for beside what was measured; without faster-coco-eval there is no time to compare with."""
    seconds, peak = rows["lossbox"]["seconds"], rows["lossbox"]["peak_bytes"]
    allowed = rows["faster_coco_eval"]["seconds"] if "faster_coco_eval" in rows else None
    return {
        "what": "Lossbox (AP, oLRP, rho) in at most the time of faster-coco-eval (AP alone), reading included; memory below the limit",
        "seconds": {"measured": seconds, "at_most": allowed, "met": None if allowed is None else seconds <= allowed},
        "peak_bytes": {"measured": peak, "below": TARGET_BYTES, "met": peak < TARGET_BYTES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--detections", type=int, default=100, help="detections per image")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each program but pycocotools, which runs once; the median counts")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "evaluation.json")
    parser.add_argument("--once", nargs=3, metavar=("PROGRAM", "GT", "DT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(run_once(*arguments.once)))
        return

    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("ground_truth.json", "results.json")]
        for path, content in zip(paths, problem(arguments.images, arguments.classes, arguments.detections), strict=True):
            Path(path).write_text(json.dumps(content))
        sizes = [Path(path).stat().st_size for path in paths]
        size = f"{arguments.images} images x {arguments.classes} classes x {arguments.detections} detections"
        print(f"{size}, {sum(sizes) / 1e6:.0f} MB of JSON")
        for program in PROGRAMS:
            if importlib.util.find_spec(MODULES[program].partition(".")[0]) is None:
                print(f"{program:<18} not installed, skipped")
                continue
            command = [sys.executable, __file__, "--once", program, *paths]
            repeats = 1 if program == "pycocotools" else arguments.repeats
            runs = [json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(repeats)]
            runs.sort(key=lambda run: run["seconds"])
            rows[program] = runs[len(runs) // 2] | {"runs": repeats}
            row = rows[program]
            print(f"{program:<18} {row['seconds']:8.2f} s   {row['peak_bytes'] / 1e9:5.2f} GB   AP {row['numbers']['AP']:.6f}")

    reference = rows.get("pycocotools", rows["lossbox"])["numbers"]
    for program, row in rows.items():
        row["largest_difference"] = max(abs(row["numbers"][name] - reference[name]) for name in NAMES if row["numbers"][name] >= 0)
        row["times_lossbox"] = row["seconds"] / rows["lossbox"]["seconds"]
        print(f"{program:<18} {row['times_lossbox']:6.1f} x Lossbox's time, numbers within {row['largest_difference']:.1e} of pycocotools'")
    reached = target(rows)
    for name, of, unit, scale in (("seconds", "at_most", "s", 1), ("peak_bytes", "below", "GB", 1e9)):
        measured, limit, met = reached[name]["measured"], reached[name][of], reached[name]["met"]
        said = (
            "not measured: faster-coco-eval is not installed"
            if met is None
            else f"{limit / scale:.2f} {unit}: {'met' if met else 'MISSED'}"
        )
        print(f"target: {measured / scale:.2f} {unit}, {of.replace('_', ' ')} {said}")
    report = {
        "what": "seconds from two COCO JSON files to the numbers, reading included; Lossbox computes AP, oLRP and rho, the others AP",
        "problem": {"images": arguments.images, "classes": arguments.classes, "detections_per_image": arguments.detections},
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version(), "numpy": np.__version__},
        "target": reached,
        "programs": rows,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
