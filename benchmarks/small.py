"""The small detector of recipes/own_data.yaml beside Ultralytics' yolo11n and torchvision's RetinaNet R18, all from random weights.

    python benchmarks/small.py --train-annotations train.json --train-images train --val-annotations val.json --val-images val
    python benchmarks/small.py ... --minutes 5 --seeds 0 1        less time for each training, two of each
    python benchmarks/small.py ... --jobs 2                       two trainings side by side, each on one core
    python benchmarks/small.py ... --only ours torchvision        without Ultralytics

Speed: pictures a second in training (data, forward, loss, backward, optimizer, averaged weights) on ``--threads`` threads. The three
take turns; the median of the rounds counts. Accuracy: each is trained for so many minutes of CPU time on one thread, in epochs whose
number is set from their measured time, so that its schedule fits; validation is not on the clock. The weights after the last epoch
count, all evaluated by ``lossbox.metrics`` on the same pictures. Beside other programs set ``OMP_WAIT_POLICY=PASSIVE``: threads that
spin for each other otherwise take minutes for an epoch of seconds.

Each keeps its own recipe: ours is the YAML file; torchvision's is trained with AdamW, one cycle, the mirror and scale jitter;
Ultralytics' with its defaults (mosaic, optimizer, averaged weights), but ``workers=0`` and pictures kept in memory, as ours are. Get it
with ``pip install ultralytics``, or, where it is in another environment, name that one's interpreter by ``--ultralytics-python``.
Every training is a process of its own, and its numbers are a file in ``--work``; one whose file is there already is not repeated.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PATHS = ("train_annotations", "train_images", "val_annotations", "val_images")
LEAST_SCORE = 0.001
DETECTIONS = 100


class Clock:
    """Seconds of each epoch of a training, of the wall and of the processor."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self._start = (0.0, 0.0)

    def start(self) -> None:
        self._start = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        self.wall.append(time.perf_counter() - self._start[0])
        self.cpu.append(time.process_time() - self._start[1])

    def numbers(self) -> dict[str, list[float]]:
        return {"wall": self.wall, "cpu": self.cpu}


# -- the three trainings: options, epochs -> what they took and what was found in the validation pictures


def ours(options: argparse.Namespace, epochs: int, folder: Path) -> dict[str, Any]:
    """``lossbox fit``, validated after the last epoch only."""
    from lightning.pytorch.callbacks import Callback

    from lossbox.cli import LossboxCLI

    clock = Clock()

    class Clocked(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            clock.start()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx + 1 == trainer.num_training_batches:
                clock.stop()

    sys.modules["lossbox_benchmark"] = module = type(sys)("lossbox_benchmark")
    module.Clocked = Clocked  # type: ignore[attr-defined]
    words = [word for name in PATHS for word in (f"--data.{name}", str(getattr(options, name)))]
    words += ["--data.image_size", str(options.size), "--data.batch_size", str(options.batch), "--seed_everything", str(options.seed)]
    words += ["--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(epochs), "--artifacts", "false"]
    words += ["--trainer.callbacks+", "lossbox_benchmark.Clocked", "--trainer.accelerator", "cpu", "--out", str(folder)]
    cli = LossboxCLI(["fit", "--config", str(options.recipe), *words, *options.set])
    truth, found = cli.model.detected()
    columns = zip(truth.image_ids[found.image], truth.category_ids[found.category], found.boxes, found.scores, strict=True)
    return {
        **clock.numbers(),
        "parameters": sum(parameter.numel() for parameter in cli.model.parameters()),
        "pictures": cli.trainer.num_training_batches * options.batch,
        "settings": f"{Path(options.recipe).name} {' '.join(options.set)}".strip(),
        "detections": [
            {"image_id": int(image), "category_id": int(category), "bbox": box.tolist(), "score": float(score)}
            for image, category, box, score in columns
        ],
    }


def torchvision_retinanet(options: argparse.Namespace, epochs: int, folder: Path) -> dict[str, Any]:
    """torchvision's RetinaNet as its constructor makes it, on pictures of the same size; in bfloat16 and channels-last, as ours."""
    from torch import nn
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    from lossbox.data.module import CocoDataModule
    from lossbox.data.transforms import Augmentation
    from lossbox.training import OneCycle

    torch.manual_seed(options.seed)
    augmentation = Augmentation(horizontal_flip=0.5, scale_jitter=(0.6, 1.6))
    paths = {name: getattr(options, name) for name in PATHS}
    data = CocoDataModule(
        **paths, image_size=options.size, batch_size=options.batch, augmentation=augmentation, on_bad_box="drop", seed=options.seed
    )
    loader = data.train_dataloader()
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    limits: dict[str, Any] = {
        "min_size": options.size,
        "max_size": options.size,
        "score_thresh": LEAST_SCORE,
        "detections_per_img": DETECTIONS,
    }
    model = RetinaNet(backbone, data.num_classes, **limits).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=not options.float32)
    optimizer, schedule = OneCycle(learning_rate=options.learning_rate)(model, epochs * len(loader))
    clock = Clock()
    model.train()
    for epoch in range(epochs):
        clock.start()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for images, targets in ((batch.images, batch.targets) for batch in loader):
            pictures = [image[:, : one.size[0], : one.size[1]] for image, one in zip(images, targets, strict=True)]
            with autocast:
                losses = model(pictures, [{"boxes": one.boxes, "labels": one.labels} for one in targets])
            optimizer.zero_grad()
            sum(losses.values()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        clock.stop()
        report_epoch(epoch, epochs, clock)
    model.eval()
    detections: list[dict[str, Any]] = []
    ids = data.category_ids
    with torch.inference_mode(), autocast:
        for batch in data.val_dataloader():
            for image, one in zip(batch.images, batch.targets, strict=True):
                found = model([image[:, : one.size[0], : one.size[1]]])[0]
                factor = torch.tensor([one.original_size[1] / one.size[1], one.original_size[0] / one.size[0]]).repeat(2)
                boxes = found["boxes"].float() * factor
                detections += coco_results(
                    one.image_id, boxes.tolist(), found["scores"].float().tolist(), [ids[i] for i in found["labels"].tolist()]
                )
    return {
        **clock.numbers(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "pictures": len(loader) * options.batch,
        "settings": f"{'float32' if options.float32 else 'bfloat16'}, AdamW, one cycle to {options.learning_rate:g}, "
        "weight decay 0.05, gradients clipped at 1, mirror, scale jitter 0.6 to 1.6",
        "detections": detections,
    }


def ultralytics_yolo(options: argparse.Namespace, epochs: int, folder: Path) -> dict[str, Any]:
    """``YOLO("yolo11n.yaml").train``; pictures and annotations go into a folder in its format."""
    from ultralytics import YOLO

    folder.mkdir(parents=True, exist_ok=True)
    ids = yolo_folder(options, folder)
    clock = Clock()
    yolo = YOLO("yolo11n.yaml")

    def keep_threads(trainer: Any) -> None:
        torch.set_num_threads(options.threads)  # it takes one fewer than the machine has

    yolo.add_callback("on_train_start", keep_threads)
    yolo.add_callback("on_train_epoch_start", lambda trainer: clock.start())
    yolo.add_callback("on_train_epoch_end", lambda trainer: (clock.stop(), report_epoch(trainer.epoch, epochs, clock)))
    settings: dict[str, Any] = {"imgsz": options.size, "batch": options.batch, "epochs": epochs, "nbs": options.nominal_batch}
    fixed: dict[str, Any] = {"pretrained": False, "device": "cpu", "workers": 0, "cache": "ram", "amp": False, "seed": options.seed}
    quiet: dict[str, Any] = {
        "val": False,
        "save": False,
        "plots": False,
        "patience": 0,
        "project": str(folder),
        "name": "run",
        "verbose": False,
    }
    yolo.train(data=str(folder / "data.yaml"), **settings, **fixed, **quiet)
    trained = YOLO(str(yolo.trainer.last))
    detections: list[dict[str, Any]] = []
    for image in json.loads(Path(options.val_annotations).read_text())["images"]:
        picture = str((Path(options.val_images) / image["file_name"]).absolute())
        found = trained.predict(picture, imgsz=options.size, conf=LEAST_SCORE, max_det=DETECTIONS, device="cpu", verbose=False)[0].boxes
        detections += coco_results(image["id"], found.xyxy.tolist(), found.conf.tolist(), [ids[int(i)] for i in found.cls.tolist()])
    optimizer = yolo.trainer.optimizer
    return {
        **clock.numbers(),
        "parameters": sum(parameter.numel() for parameter in yolo.trainer.model.parameters()),
        "pictures": len(yolo.trainer.train_loader.dataset),
        "settings": f"defaults: {type(optimizer).__name__}, rate {optimizer.param_groups[0]['initial_lr']:g}, nbs {options.nominal_batch}",
        "detections": detections,
    }


TRAININGS: dict[str, Callable[[argparse.Namespace, int, Path], dict[str, Any]]] = {
    "ours": ours,
    "ultralytics": ultralytics_yolo,
    "torchvision": torchvision_retinanet,
}
NAMES = {"ours": "own_data", "ultralytics": "Ultralytics yolo11n", "torchvision": "torchvision RetinaNet R18"}


CORE = (("pictures_per_cpu_second", 1), ("epochs", 0))
"""What the table shows of a training on one thread, with its decimals."""


def report_epoch(epoch: int, epochs: int, clock: Clock) -> None:
    print(f"epoch {epoch + 1}/{epochs}  {clock.cpu[-1]:.1f} s of CPU", flush=True)


def coco_results(image_id: int, boxes: list[list[float]], scores: list[float], categories: list[int]) -> list[dict[str, Any]]:
    rows = zip(boxes, scores, categories, strict=True)
    return [
        {"image_id": image_id, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for (x1, y1, x2, y2), score, category in rows
    ]


def yolo_folder(options: argparse.Namespace, folder: Path) -> list[int]:
    """Writes data.yaml, labels and copies of the pictures; the ids of the categories in the order of the labels."""
    for part in ("train", "val"):
        document = json.loads(Path(getattr(options, f"{part}_annotations")).read_text())
        categories = sorted((one["id"], one["name"]) for one in document["categories"])
        labels = {category_id: label for label, (category_id, _) in enumerate(categories)}
        lines: dict[int, list[str]] = {image["id"]: [] for image in document["images"]}
        sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
        for one in document["annotations"]:
            if one.get("iscrowd"):
                continue
            (x, y, width, height), (full_width, full_height) = one["bbox"], sizes[one["image_id"]]
            row = ((x + width / 2) / full_width, (y + height / 2) / full_height, width / full_width, height / full_height)
            lines[one["image_id"]].append(f"{labels[one['category_id']]} " + " ".join(f"{min(value, 1.0):.6f}" for value in row))
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
        for image in document["images"]:
            source = Path(getattr(options, f"{part}_images")) / image["file_name"]
            place = folder / "images" / part / f"{image['id']:08d}{source.suffix}"
            if not place.exists():
                shutil.copyfile(source, place)
            (folder / "labels" / part / f"{image['id']:08d}.txt").write_text("\n".join(lines[image["id"]]) + "\n")
    names = [name for _, name in categories]
    listed = "".join(f"  {label}: {json.dumps(name)}\n" for label, name in enumerate(names))
    (folder / "data.yaml").write_text(f"path: {folder.absolute()}\ntrain: images/train\nval: images/val\nnames:\n{listed}")
    return [category_id for category_id, _ in categories]


# -- a process for each training


def work(options: argparse.Namespace) -> None:
    """What such a process does: measures how long an epoch takes, then trains for the minutes (or the epochs) asked for."""
    torch.set_num_threads(options.threads)
    train = TRAININGS[options.worker]
    with tempfile.TemporaryDirectory() as folder:
        epochs = options.epochs
        if not epochs:
            seconds = statistics.median(train(options, 3, Path(folder) / "measure")["cpu"][1:])
            epochs = max(1, int(60 * options.minutes / seconds))
            print(f"{options.worker}: {seconds:.1f} s of CPU an epoch, {epochs} epochs", flush=True)
        run = train(options, epochs, Path(folder) / "train")
    options.out.write_text(json.dumps({"model": options.worker, "seed": options.seed, "epochs": epochs, **run}))


def start(name: str, options: argparse.Namespace, path: Path, threads: int, *words: str) -> dict[str, Any]:
    """Runs such a process, unless its file is there; the file's content."""
    if not path.is_file():
        python = options.ultralytics_python if name == "ultralytics" else sys.executable
        command = [python, __file__, "--worker", name, "--out", str(path), "--threads", str(threads), *words]
        for option in (*PATHS, "size", "batch", "recipe", "learning_rate", "nominal_batch"):
            command += [f"--{option.replace('_', '-')}", str(getattr(options, option))]
        command += ["--float32"] * options.float32
        with path.with_suffix(".log").open("w") as log:
            done = subprocess.run(
                command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stdout=log, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            raise SystemExit(
                f"{name} failed; the last lines of {path.with_suffix('.log')}:\n{path.with_suffix('.log').read_text()[-2000:]}"
            )
    run: dict[str, Any] = json.loads(path.read_text())
    return run


def measure_speed(options: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second: an epoch to warm up and one or more on the clock, in turns."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
    for turn in range(options.rounds):
        for name in options.only:
            path = options.work / f"speed_{name}_{turn}.json"
            runs[name].append(start(name, options, path, options.threads, "--epochs", str(1 + options.speed_epochs)))
    speeds = {name: [run["pictures"] / statistics.median(run["wall"][1:]) for run in of_model] for name, of_model in runs.items()}
    return {name: {"pictures_per_second": statistics.median(series), "rounds": series} for name, series in speeds.items()}


def measure_accuracy(options: argparse.Namespace) -> dict[str, Any]:
    """Each model and seed for the same minutes of CPU, evaluated by lossbox."""
    from lossbox import metrics

    truth = metrics.read_ground_truth(options.val_annotations)

    def run_one(task: tuple[str, int]) -> tuple[str, dict[str, Any]]:
        name, seed = task
        run = start(name, options, options.work / f"{name}_{seed}.json", 1, "--seed", str(seed), "--minutes", str(options.minutes))
        numbers = metrics.evaluate(truth, metrics.read_results(run["detections"], truth))
        row = {"seed": seed, "cpu_minutes": sum(run["cpu"]) / 60, "epochs": run["epochs"], "settings": run["settings"]}
        row["pictures_per_cpu_second"] = run["pictures"] * len(run["cpu"]) / sum(run["cpu"])
        return name, row | {key: numbers[key] for key in ("AP", "AP50", "AP75", "oLRP")} | {"parameters": run["parameters"]}

    tasks = [(name, seed) for seed in options.seeds for name in options.only]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(run_one, tasks))
    return {name: [row for of, row in rows if of == name] for name in options.only}


def mean_and_spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in PATHS:
        parser.add_argument(f"--{name.replace('_', '-')}", required=True, help="COCO JSON" if "ann" in name else "folder of its pictures")
    parser.add_argument("--minutes", type=float, default=15, help="CPU minutes of each training (default 15)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a training of each with each (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side, one core each (default 1)")
    parser.add_argument("--only", nargs="+", choices=list(TRAININGS), default=list(TRAININGS), help="leave others out")
    parser.add_argument("--size", type=int, default=320, help="longer side of the pictures (default 320)")
    parser.add_argument("--batch", type=int, default=16, help="pictures a step (default 16)")
    parser.add_argument("--threads", type=int, default=2, help="of the measurement of speed (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="of the measurement of speed; 0 leaves it out (default 3)")
    parser.add_argument("--speed-epochs", type=int, default=2, help="on the clock in each of its rounds, after one to warm up (default 2)")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "own_data.yaml", help="ours (default recipes/own_data.yaml)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of torchvision's RetinaNet (default 1e-3)")
    parser.add_argument("--float32", action="store_true", help="torchvision's RetinaNet in float32: half as fast here")
    parser.add_argument("--nominal-batch", type=int, default=64, help="Ultralytics' nbs: pictures an update (default 64, as there)")
    parser.add_argument("--ultralytics-python", default=sys.executable, help="interpreter that has Ultralytics (default: this one)")
    parser.add_argument("--work", type=Path, help="folder of the trainings' files (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS / "small.json", help="the JSON file (default benchmarks/results/small.json)")
    parser.add_argument("--worker", choices=list(TRAININGS), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, default=0, help=argparse.SUPPRESS)
    options, options.set = parser.parse_known_args()
    if options.worker:
        work(options)
        return
    if options.set:
        parser.error(f"unknown: {' '.join(options.set)}")
    if "ultralytics" in options.only and options.ultralytics_python == sys.executable and importlib.util.find_spec("ultralytics") is None:
        parser.error(
            "Ultralytics is not installed: pip install ultralytics, or name an interpreter that has it by --ultralytics-python, or --only"
        )
    with tempfile.TemporaryDirectory() as temporary:
        options.work = options.work or Path(temporary)
        options.work.mkdir(parents=True, exist_ok=True)
        speed = measure_speed(options) if options.rounds else {}
        accuracy = measure_accuracy(options) if options.seeds else {}
    print(f"{'':27}{'parameters':>12}{'pictures/s':>12}{'/CPU second':>13}{'epochs':>8}{'AP':>16}{'AP50':>16}{'oLRP':>16}")
    for name in options.only:
        rows = accuracy.get(name, [])
        per_second = f"{speed[name]['pictures_per_second']:12.1f}" if name in speed else f"{'-':>12}"
        size = f"{rows[0]['parameters'] / 1e6:9.2f} M" if rows else "-"
        numbers = "".join(f"{mean_and_spread([row[key] for row in rows]):>16}" for key in ("AP", "AP50", "oLRP")) if rows else ""
        of_core, epochs = (f"{statistics.median(row[key] for row in rows):.{n}f}" if rows else "-" for key, n in CORE)
        print(f"{NAMES[name]:27}{size:>12}{per_second}{of_core:>13}{epochs:>8}{numbers}")
    report = {
        "what": "pictures a second in training, medians; AP, AP50, AP75 and oLRP on the validation pictures after equal CPU minutes",
        "problem": {key: getattr(options, key) for key in ("size", "batch", "minutes", "seeds", "threads", "rounds", "speed_epochs")}
        | {part: len(json.loads(Path(getattr(options, f"{part}_annotations")).read_text())["images"]) for part in ("train", "val")},
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
        },
        "speed": speed,
        "accuracy": accuracy,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
