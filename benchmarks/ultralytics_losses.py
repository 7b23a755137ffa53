"""yolo11n in Ultralytics' own training, from random weights: their loss of class scores beside ours, with the gain ``cls`` tuned for each.

    python benchmarks/ultralytics_losses.py FOLDER[:SIZE] ...               each with train.json, train/, val.json, val/ (SIZE: 320)
    python benchmarks/ultralytics_losses.py ... --runs rank_sort:2 bce:0.5  losses with a gain, tried in this order

What stands in the JSON file already is kept and not repeated: a measurement may be taken in pieces, some data or losses at a time.

Every training is a process of its own on one thread, all of the same number of epochs; the CPU minutes of each are in the JSON file. The
first seed tries every gain; the best gain of each loss is then trained with the other seeds. Batches of 8 images and an update after each,
which is better than their defaults on few images (benchmarks/small.py); else their defaults. The weights after the last epoch (their
average) count, evaluated by ``lossbox.metrics`` on the validation images. ``--ultralytics-python`` names the interpreter that has
Ultralytics and jaxtyping. A training whose file is in ``--work`` already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from small import DETECTIONS, LEAST_SCORE, NUMBERS, RESULTS, Clock, coco_results, folder_and_size, parts, report_epoch, yolo_folder

RUNS = ["bce:0.5", "rank_sort:2", "bce:1", "rank_sort:4", "rank_sort:1", "bce:0.25", "ap:2", "alrp:2", "ap:4", "alrp:4", "ap:1", "alrp:1"]


def work(options: argparse.Namespace) -> None:
    """One training in the process that was started for it."""
    import torch
    from ultralytics import YOLO

    from lossbox.integrations.ultralytics import use

    torch.set_num_threads(1)
    loss, gain = options.worker.split(":")
    data, size = folder_and_size(options.data[0])
    clock, detections = Clock(), []
    with tempfile.TemporaryDirectory() as temporary:
        ids, images = yolo_folder(parts(data), Path(temporary))
        yolo = YOLO("yolo11n.yaml")
        if loss != "bce":
            use(yolo, loss)
        yolo.add_callback("on_train_start", lambda trainer: torch.set_num_threads(1))
        yolo.add_callback("on_train_epoch_start", lambda trainer: clock.start())
        yolo.add_callback("on_train_epoch_end", lambda trainer: (clock.stop(), report_epoch(trainer.epoch, options.epochs, clock)))
        settings: dict[str, Any] = {"imgsz": size, "batch": 8, "nbs": 8, "epochs": options.epochs, "cls": float(gain)}
        fixed: dict[str, Any] = {"pretrained": False, "device": "cpu", "workers": 0, "cache": "ram", "seed": options.seed, "patience": 0}
        quiet: dict[str, Any] = {"amp": False, "val": False, "plots": False, "project": temporary, "name": "run", "verbose": False}
        yolo.train(data=str(Path(temporary) / "data.yaml"), **settings, **fixed, **quiet)
        trained = YOLO(str(yolo.trainer.last))
        for image in json.loads(parts(data)["val_annotations"].read_text())["images"]:
            path = str((parts(data)["val_images"] / image["file_name"]).absolute())
            found = trained.predict(path, imgsz=size, conf=LEAST_SCORE, max_det=DETECTIONS, device="cpu", verbose=False)[0].boxes
            detections += coco_results(image["id"], found.xyxy.tolist(), found.conf.tolist(), [ids[int(i)] for i in found.cls.tolist()])
    result = {"cpu_minutes": sum(clock.cpu) / 60, "epochs": options.epochs, "images": images, "detections": detections}
    options.out.write_text(json.dumps(result))


def measure(options: argparse.Namespace, data: str, run: str, seed: int) -> dict[str, Any]:
    """Trains in a process of its own, unless that was done, and evaluates."""
    from lossbox import metrics

    folder, _ = folder_and_size(data)
    path = options.work / f"{folder.name}_{run.replace(':', '_')}_{seed}.json"
    if not path.is_file():
        print(f"{time.strftime('%H:%M:%S')}  {path.stem}", flush=True)
        command = [options.ultralytics_python, __file__, data, "--worker", run, "--out", str(path)]
        command += ["--seed", str(seed), "--epochs", str(options.epochs)]
        with path.with_suffix(".log").open("w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true"}
            done = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise SystemExit(f"{run} failed; the last lines of {path.with_suffix('.log')}:\n{path.with_suffix('.log').read_text()[-2000:]}")
    trained = json.loads(path.read_text())
    truth = metrics.read_ground_truth(folder / "val.json")
    numbers = metrics.evaluate(truth, metrics.read_results(trained["detections"], truth))
    loss, gain = run.split(":")
    row = {"loss": loss, "cls": float(gain), "seed": seed, "epochs": trained["epochs"], "cpu_minutes": trained["cpu_minutes"]}
    print(f"{folder.name} {run} seed {seed}: AP {numbers['AP']:.3f}, {row['cpu_minutes']:.1f} CPU minutes", flush=True)
    return row | {key: numbers[key] for key in NUMBERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="FOLDER[:SIZE]")
    parser.add_argument(
        "--runs", nargs="+", default=RUNS, metavar="LOSS:GAIN", help=f"tried with the first seed (default {' '.join(RUNS)})"
    )
    parser.add_argument("--epochs", type=int, default=16, help="of each training (default 16)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--ultralytics-python", default=sys.executable, help="interpreter that has Ultralytics (default: this one)")
    parser.add_argument("--work", type=Path, help="folder of the trainings' files (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS / "ultralytics_losses.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    from lossbox.programs.compare import machine

    with tempfile.TemporaryDirectory() as temporary:
        options.work = options.work or Path(temporary)
        options.work.mkdir(parents=True, exist_ok=True)
        report: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"commands": [], "rows": {}}
        report["what"] = "yolo11n from random weights in Ultralytics' training; on the validation images, after equal epochs"
        words = [*(Path(data).name for data in options.data), "--runs", *options.runs, "--epochs", str(options.epochs)]
        words += ["--seeds", *map(str, options.seeds)]
        if (command := " ".join(["python benchmarks/ultralytics_losses.py", *words])) not in report["commands"]:
            report["commands"].append(command)
        if any(report.setdefault("machine", machine())[key] != machine()[key] for key in ("processor", "instruction_set")):
            raise SystemExit(f"{options.out} holds measurements of another machine or instruction set: name another --out")
        for data in options.data:
            rows = report["rows"].setdefault(folder_and_size(data)[0].name, [])

            def add(run: str, seed: int, data: str = data, rows: list[dict[str, Any]] = rows) -> None:
                loss, gain = run.split(":")
                sought = {"loss": loss, "cls": float(gain), "seed": seed, "epochs": options.epochs}
                if not any(sought.items() <= row.items() for row in rows):
                    rows.append(measure(options, data, run, seed))
                    options.out.write_text(json.dumps(report, indent=2) + "\n")

            for run in options.runs:
                add(run, options.seeds[0])
            for loss in dict.fromkeys(run.split(":")[0] for run in options.runs):
                best = max((row for row in rows if row["loss"] == loss), key=lambda row: row["AP"])
                for seed in options.seeds[1:]:
                    add(f"{loss}:{best['cls']:g}", seed)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
