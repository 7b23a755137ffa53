"""Small digits in large images: trained and measured on tiles, on the images made small, and on the images as they are.

    python benchmarks/tiles.py                   writes benchmarks/results/tiles.json (some 4 CPU minutes)
    python benchmarks/tiles.py --only "tiles of 96 px"      one row; the others of the file stay

60 training and 20 validation images of 384 px with up to 40 digits of 12 to 31 px (``write_digits``). Each row is ``lossbox fit`` with the
recipe digits_tiny_alrp, the same number of steps, and as many pixels in each step: 16 tiles of 96 px (an overlap of 0.3), 16 images made
96 px small, or one image of 384 px. ``anchor_scale`` is ``auto``. AP is about the whole images, after the last step.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path

import torch

from lossbox.__main__ import main
from lossbox.data.digits import DigitsSet, write_digits

RESULTS = Path(__file__).parent / "results" / "tiles.json"
NUMBERS = ("AP", "AP50", "oLRP")
STEPS = 600
ROWS: dict[str, dict[str, float]] = {
    "tiles of 96 px": {"data.tile": 96, "data.overlap": 0.3, "data.image_size": 96, "data.batch_size": 16},
    "images at 96 px": {"data.image_size": 96, "data.batch_size": 16},
    "images at 384 px": {"data.image_size": 384, "data.batch_size": 1},
}


def measure(digits: DigitsSet, out: Path, row: dict[str, float], seed: int) -> dict[str, float]:
    paths = {name: str(getattr(digits, name)) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}
    options = {f"data.{name}": path for name, path in paths.items()} | row
    options |= {"trainer.max_epochs": -1, "trainer.max_steps": STEPS, "trainer.accelerator": "cpu", "trainer.precision": "32-true"}
    options |= {"model.detector.init_args.anchor_scale": "auto", "seed_everything": seed, "out": out, "artifacts": "false"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    if main(["fit", "--config", "digits_tiny_alrp", *words]):
        raise SystemExit(f"{out}: the training failed")
    metrics, run = (json.loads((out / f"{name}.json").read_text()) for name in ("metrics", "run"))
    return {name: round(metrics[name], 4) for name in NUMBERS} | {"steps": run["steps"], "cpu_minutes": round(run["cpu_minutes"], 2)}


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ROWS, nargs="+", default=list(ROWS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(arguments.out.read_text())["rows"] if arguments.out.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        digits = write_digits(root / "digits", train_images=60, val_images=20, size=384, max_digits=40, digit_side=(0.032, 0.08))
        for number, name in enumerate(arguments.only):
            rows[name] = measure(digits, root / f"run{number}", ROWS[name], arguments.seed)
            isa = torch.backends.cpu.get_cpu_capability()
            content = {"command": "python benchmarks/tiles.py", "machine": platform.machine(), "instruction_set": isa, "threads": 1}
            content |= {"torch": torch.__version__, "seed": arguments.seed, "rows": {row: rows[row] for row in ROWS if row in rows}}
            arguments.out.write_text(json.dumps(content, indent=2) + "\n")
            print(name, rows[name], flush=True)


if __name__ == "__main__":
    run()
