"""The small detector of the recipe own_data beside Ultralytics' yolo11n and torchvision's RetinaNet R18, all from random weights.

    python benchmarks/small.py FOLDER ...                         each with train.json, train/, val.json, val/
    python benchmarks/small.py data/digits:128 raccoon:320        with the longer side of its images (default 320)
    python benchmarks/small.py ... --minutes 5 --seeds 0 1        less time for each training, two of each
    python benchmarks/small.py ... --jobs 2                       two trainings side by side, each on one core
    python benchmarks/small.py ... --only own_data torchvision    without Ultralytics

Speed: images per second of CPU time in training (data, forward, loss, backward, optimizer, averaged weights) on one thread, over a few
batches. The trainings take turns; the median of the rounds counts. Accuracy: each is trained for so many minutes of CPU time on one
thread, in epochs whose number follows from that speed, so that its schedule fits; validation is not on the clock. The weights after the
last epoch count, all evaluated by ``lossbox.metrics`` on the same images.

Each keeps its own recipe. Ours is the YAML file. torchvision's is trained with AdamW, one cycle, the mirror and scale jitter. Ultralytics'
has its defaults (16 images per step, an update after 64), and as
``yolo11n_nbs8`` 8 images per step and an update after each, which is better
on few images; both with ``workers=0`` and images kept in memory, as ours are. Get it with ``pip install ultralytics``, or, where it is in
another environment, name that one's interpreter by ``--ultralytics-python``. All compute in what ``--precision`` says.

``ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2`` in front of the command makes a newer CPU behave like an ordinary one.
Every training is a process of its own, and its numbers are a file in ``--work``; one whose file is there already is not repeated.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
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
LEAST_SCORE = 0.001
DETECTIONS = 100
NUMBERS = ("AP", "AP50", "AP75", "oLRP")


class Clock:
    """Seconds of the processor in each epoch of a training."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self._start = 0.0

    def start(self) -> None:
        self._start = time.process_time()

    def stop(self) -> None:
        self.cpu.append(time.process_time() - self._start)


def parts(folder: Path) -> dict[str, Path]:
    """The four paths of a data set, by the names that the data module has for them."""
    return {
        f"{part}_{kind}": folder / f"{part}{end}" for part in ("train", "val") for kind, end in (("annotations", ".json"), ("images", ""))
    }


# -- the trainings: options -> what they took and what was found in the validation images


def own_data(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """``lossbox fit``, validated after the last epoch only."""
    from lightning.pytorch.callbacks import Callback

    from lossbox.training.cli import LossboxCLI

    clock = Clock()

    class Clocked(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            clock.start()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx + 1 == trainer.num_training_batches:
                clock.stop()

    sys.modules["lossbox_benchmark"] = module = type(sys)("lossbox_benchmark")
    module.Clocked = Clocked  # type: ignore[attr-defined]
    words = [word for name, path in parts(options.folder).items() for word in (f"--data.{name}", str(path))]
    words += ["--data.image_size", str(options.size), "--seed_everything", str(options.seed), "--trainer.precision", options.precision]
    words += ["--trainer.max_epochs", str(options.epochs), "--trainer.check_val_every_n_epoch", str(options.epochs), "--artifacts", "false"]
    words += ["--trainer.callbacks+", "lossbox_benchmark.Clocked", "--trainer.accelerator", "cpu", "--out", str(folder)]
    if options.batches:
        words += ["--trainer.limit_train_batches", str(options.batches), "--trainer.limit_val_batches", "2"]
    cli = LossboxCLI(["fit", "--config", str(options.recipe), *words, *options.set])
    truth, found = cli.model.detected()
    columns = zip(truth.image_ids[found.image], truth.category_ids[found.category], found.boxes, found.scores, strict=True)
    return {
        "cpu": clock.cpu,
        "parameters": sum(parameter.numel() for parameter in cli.model.parameters()),
        "images": cli.trainer.num_training_batches * cli.datamodule.batch_size,
        "settings": f"{Path(options.recipe).name} {' '.join(options.set)}".strip(),
        "detections": [
            {"image_id": int(image), "category_id": int(category), "bbox": box.tolist(), "score": float(score)}
            for image, category, box, score in columns
        ],
    }


def torchvision(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """torchvision's RetinaNet as its constructor makes it, on images of the same size; channels-last, as ours."""
    from itertools import islice

    from torch import nn
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    from lossbox.data.module import CocoDataModule
    from lossbox.data.transforms import Augmentation
    from lossbox.training import WarmupCosine

    torch.manual_seed(options.seed)
    augmentation = Augmentation(horizontal_flip=0.5, scale_jitter=(0.6, 1.6))
    common: dict[str, Any] = {"image_size": options.size, "batch_size": 16, "on_bad_box": "drop", "seed": options.seed}
    data = CocoDataModule(**parts(options.folder), **common, augmentation=augmentation)
    loader = data.train_dataloader()
    steps = options.batches or len(loader)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    sizes = {"min_size": options.size, "max_size": options.size}
    limits: dict[str, Any] = {**sizes, "score_thresh": LEAST_SCORE, "detections_per_img": DETECTIONS}
    model = RetinaNet(backbone, data.num_classes, **limits).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16-mixed")
    optimizer, schedule = WarmupCosine(learning_rate=1e-3)(model, options.epochs * steps)
    clock = Clock()
    model.train()
    for epoch in range(options.epochs):
        clock.start()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in islice(loader, steps):
            images = [image[:, : one.size[0], : one.size[1]] for image, one in zip(batch.images, batch.targets, strict=True)]
            with autocast:
                losses = model(images, [{"boxes": one.boxes, "labels": one.labels} for one in batch.targets])
            optimizer.zero_grad()
            sum(losses.values()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        clock.stop()
        report_epoch(epoch, options.epochs, clock)
    model.eval()
    detections: list[dict[str, Any]] = []
    ids = data.category_ids
    with torch.inference_mode(), autocast:
        for batch in islice(data.val_dataloader(), options.batches or None):
            for image, one in zip(batch.images, batch.targets, strict=True):
                found = model([image[:, : one.size[0], : one.size[1]]])[0]
                factor = torch.tensor([one.original_size[1] / one.size[1], one.original_size[0] / one.size[0]]).repeat(2)
                boxes, labels = (found["boxes"].float() * factor).tolist(), [ids[i] for i in found["labels"].tolist()]
                detections += coco_results(one.image_id, boxes, found["scores"].float().tolist(), labels)
    return {
        "cpu": clock.cpu,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "images": steps * 16,
        "settings": "AdamW, one cycle to 1e-3, decay 0.05, gradients clipped at 1, mirror, scale jitter 0.6 to 1.6, 16 images per step",
        "detections": detections,
    }


def yolo11n(options: argparse.Namespace, folder: Path, *, batch: int = 16, nominal_batch: int = 64) -> dict[str, Any]:
    """``YOLO("yolo11n.yaml").train``; images and annotations go into a folder in its format."""
    from ultralytics import YOLO

    folder.mkdir(parents=True, exist_ok=True)
    ids, images = yolo_folder(parts(options.folder), folder)
    clock = Clock()
    yolo = YOLO("yolo11n.yaml")
    # it takes one thread fewer than the machine has
    yolo.add_callback("on_train_start", lambda trainer: torch.set_num_threads(1))
    yolo.add_callback("on_train_epoch_start", lambda trainer: clock.start())
    yolo.add_callback("on_train_epoch_end", lambda trainer: (clock.stop(), report_epoch(trainer.epoch, options.epochs, clock)))
    settings: dict[str, Any] = {"imgsz": options.size, "batch": batch, "epochs": options.epochs, "nbs": nominal_batch}
    if options.batches:
        settings["fraction"] = min(options.batches * batch / images, 1.0)
    fixed: dict[str, Any] = {"pretrained": False, "device": "cpu", "workers": 0, "cache": "ram", "seed": options.seed, "patience": 0}
    fixed["amp"] = options.precision == "bf16-mixed"
    quiet: dict[str, Any] = {"val": False, "save": False, "plots": False, "project": str(folder), "name": "run", "verbose": False}
    yolo.train(data=str(folder / "data.yaml"), **settings, **fixed, **quiet)
    trained = YOLO(str(yolo.trainer.last))
    detections: list[dict[str, Any]] = []
    for image in json.loads(parts(options.folder)["val_annotations"].read_text())["images"][: options.batches or None]:
        path = str((parts(options.folder)["val_images"] / image["file_name"]).absolute())
        found = trained.predict(path, imgsz=options.size, conf=LEAST_SCORE, max_det=DETECTIONS, device="cpu", verbose=False)[0].boxes
        detections += coco_results(image["id"], found.xyxy.tolist(), found.conf.tolist(), [ids[int(i)] for i in found.cls.tolist()])
    optimizer, rate = type(yolo.trainer.optimizer).__name__, yolo.trainer.optimizer.param_groups[0]["initial_lr"]
    return {
        "cpu": clock.cpu,
        "parameters": sum(parameter.numel() for parameter in yolo.trainer.model.parameters()),
        "images": len(yolo.trainer.train_loader.dataset),
        "settings": f"{optimizer}, rate {rate:g}, batch {batch}, nbs {nominal_batch}",
        "detections": detections,
    }


def yolo11n_nbs8(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    return yolo11n(options, folder, batch=8, nominal_batch=8)


TRAININGS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "own_data": own_data,
    "yolo11n": yolo11n,
    "yolo11n_nbs8": yolo11n_nbs8,
    "torchvision": torchvision,
}


def report_epoch(epoch: int, epochs: int, clock: Clock) -> None:
    print(f"epoch {epoch + 1}/{epochs}  {clock.cpu[-1]:.1f} s of CPU", flush=True)


def coco_results(image_id: int, boxes: list[list[float]], scores: list[float], categories: list[int]) -> list[dict[str, Any]]:
    rows = zip(boxes, scores, categories, strict=True)
    return [
        {"image_id": image_id, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for (x1, y1, x2, y2), score, category in rows
    ]


def yolo_folder(paths: dict[str, Path], folder: Path) -> tuple[list[int], int]:
    """Writes data.yaml, labels and copies of the images; the ids of the categories in the order of the labels, and the training images."""
    count = 0
    for part in ("train", "val"):
        document = json.loads(paths[f"{part}_annotations"].read_text())
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
            source = paths[f"{part}_images"] / image["file_name"]
            shutil.copyfile(source, folder / "images" / part / f"{image['id']:08d}{source.suffix}")
            (folder / "labels" / part / f"{image['id']:08d}.txt").write_text("\n".join(lines[image["id"]]) + "\n")
        count = count or len(document["images"])
    names = [name for _, name in categories]
    listed = "".join(f"  {label}: {json.dumps(name)}\n" for label, name in enumerate(names))
    (folder / "data.yaml").write_text(f"path: {folder.absolute()}\ntrain: images/train\nval: images/val\nnames:\n{listed}")
    return [category_id for category_id, _ in categories], count


# -- a process for each training


def work(options: argparse.Namespace) -> None:
    """What such a process does."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = TRAININGS[options.worker](options, Path(folder) / "run")
    options.out.write_text(json.dumps({"model": options.worker, "seed": options.seed, "epochs": options.epochs, **run}))


def start(name: str, options: argparse.Namespace, data: str, path: Path, **values: Any) -> dict[str, Any]:
    """Runs such a process, unless its file is there; the file's content."""
    if not path.is_file():
        python = options.ultralytics_python if name.startswith("yolo") else sys.executable
        folder, size = folder_and_size(data)
        values = {"folder": folder, "size": size, "recipe": options.recipe, "precision": options.precision, **values}
        command = [python, __file__, "--worker", name, "--out", str(path)]
        command += [word for key, value in values.items() for word in (f"--{key}", str(value))]
        print(f"{time.strftime('%H:%M:%S')}  {path.stem}  {values.get('epochs')} epochs", flush=True)
        with path.with_suffix(".log").open("w") as log:
            done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            end = path.with_suffix(".log").read_text()[-2000:]
            raise SystemExit(f"{name} failed; the last lines of {path.with_suffix('.log')}:\n{end}")
    run: dict[str, Any] = json.loads(path.read_text())
    return run


def folder_and_size(data: str) -> tuple[Path, int]:
    folder, _, size = data.rpartition(":") if data.rsplit(":", 1)[-1].isdigit() else (data, "", "320")
    return Path(folder), int(size)


def measure_speed(options: argparse.Namespace, data: str) -> dict[str, dict[str, Any]]:
    """Images a second of CPU time, over a few batches per epoch; the first epoch, which warms up, does not count."""
    series: dict[str, list[float]] = {name: [] for name in options.only}
    for turn in range(options.rounds):
        for name in options.only:
            path = options.work / f"speed_{folder_and_size(data)[0].name}_{name}_{turn}.json"
            run = start(name, options, data, path, epochs=7 if name == "own_data" else 3, batches=8)
            series[name].append(run["images"] / statistics.mean(run["cpu"][1:]))
    return {name: {"images_per_cpu_second": statistics.median(speeds), "rounds": speeds} for name, speeds in series.items()}


def measure_accuracy(
    options: argparse.Namespace, speed: dict[str, dict[str, dict[str, Any]]]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Each model and seed on each data set for the same minutes of CPU, evaluated by lossbox."""
    from lossbox import metrics

    def run_one(task: tuple[int, str, str]) -> tuple[str, str, dict[str, Any]]:
        seed, data, name = task
        folder, _ = folder_and_size(data)
        truth = metrics.read_ground_truth(folder / "val.json")
        images = len(json.loads((folder / "train.json").read_text())["images"])
        epochs = max(1, round(60 * options.minutes * speed[folder.name][name]["images_per_cpu_second"] / images))
        run = start(name, options, data, options.work / f"{folder.name}_{name}_{seed}.json", seed=seed, epochs=epochs)
        numbers = metrics.evaluate(truth, metrics.read_results(run["detections"], truth))
        row = {"seed": seed, "cpu_minutes": sum(run["cpu"]) / 60, "epochs": run["epochs"], "settings": run["settings"]}
        return folder.name, name, row | {key: numbers[key] for key in NUMBERS} | {"parameters": run["parameters"]}

    tasks = [(seed, data, name) for seed in options.seeds for data in options.data for name in options.only]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(run_one, tasks))
    return {
        folder.name: {name: [row for *of, row in rows if of == [folder.name, name]] for name in options.only}
        for folder, _ in map(folder_and_size, options.data)
    }


def mean_and_spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def markdown(speed: dict[str, Any], accuracy: dict[str, Any]) -> str:
    """The table of the recipes' README."""
    lines = [
        "| images | detector | parameters | images per CPU second | epochs | AP | AP50 | AP75 | oLRP |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for data, models in speed.items():
        for name, of_model in models.items():
            rows = accuracy.get(data, {}).get(name, [])
            row = [data, name, f"{rows[0]['parameters'] / 1e6:.1f} M" if rows else "-", f"{of_model['images_per_cpu_second']:.1f}"]
            row += [str(rows[0]["epochs"]) if rows else "-"]
            row += [mean_and_spread([one[key] for one in rows]) if rows else "-" for key in NUMBERS]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", metavar="FOLDER[:SIZE]", help="data sets, with the longer side of their images (default 320)")
    parser.add_argument("--minutes", type=float, default=15, help="CPU minutes of each training (default 15)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1], help="a training of each with each (default 0 1)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side, one core each (default 1)")
    parser.add_argument("--only", nargs="+", choices=list(TRAININGS), default=list(TRAININGS), help="leave others out")
    parser.add_argument("--rounds", type=int, default=3, help="of the measurement of speed (default 3)")
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"], help="of all (default 32-true)")
    parser.add_argument(
        "--recipe", type=Path, default=ROOT / "src/lossbox/recipes/own_data.yaml", help="ours (default: the recipe own_data)"
    )
    parser.add_argument("--ultralytics-python", default=sys.executable, help="interpreter that has Ultralytics (default: this one)")
    parser.add_argument("--work", type=Path, help="folder of the trainings' files (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS / "small.json", help="the JSON file (default benchmarks/results/small.json)")
    for name, kind in (("worker", str), ("folder", Path), ("size", int), ("seed", int), ("epochs", int), ("batches", int)):
        parser.add_argument(f"--{name}", type=kind, default=None if kind is not int else 0, help=argparse.SUPPRESS)
    options, options.set = parser.parse_known_args()
    if options.worker:
        work(options)
        return
    if options.set or not options.data:
        parser.error(f"unknown: {' '.join(options.set)}" if options.set else "name a data set")
    wants_yolo = any(name.startswith("yolo") for name in options.only)
    if wants_yolo and options.ultralytics_python == sys.executable and importlib.util.find_spec("ultralytics") is None:
        parser.error("Ultralytics is not installed: pip install ultralytics, or name an interpreter by --ultralytics-python, or --only")
    with tempfile.TemporaryDirectory() as temporary:
        options.work = options.work or Path(temporary)
        options.work.mkdir(parents=True, exist_ok=True)
        speed = {folder_and_size(data)[0].name: measure_speed(options, data) for data in options.data}
        accuracy = measure_accuracy(options, speed) if options.seeds else {}
    print(markdown(speed, accuracy))
    from lossbox.programs.compare import machine

    report = {
        "what": "images per CPU second in training, medians; AP, AP50, AP75 and oLRP on the validation images after equal CPU minutes",
        "problem": {key: getattr(options, key) for key in ("minutes", "seeds", "rounds", "precision")}
        | {"data": {folder.name: size for folder, size in map(folder_and_size, options.data)}},
        "machine": machine(),
        "speed": speed,
        "accuracy": accuracy,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
