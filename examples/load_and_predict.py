"""A trained detector in Python: files, Pillow's images, arrays or tensors in; boxes, scores, labels and class names out."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import lossbox
from lossbox.__main__ import main

folder = Path(tempfile.mkdtemp())
data = folder / "data"
main(["digits", str(data), "--train-images", "8", "--val-images", "4"])
words = [
    f"--data.{part}_{what}={data / part}{end}" for part in ("train", "val") for what, end in (("images", ""), ("annotations", ".json"))
]
short = [
    "--trainer.max_epochs=1",
    "--trainer.limit_val_batches=0",
    "--data.batch_size=4",
    "--artifacts=false",
]  # a few steps: it learns next to nothing
main(["fit", "--config", "digits_retinanet_alrp", f"--out={folder / 'run'}", *words, *short])

detector = lossbox.load(folder / "run" / "checkpoints" / "last.ckpt", device="cpu", decoder={"max_detections": 3})
file = next((data / "val").glob("*.jpg"))
image = Image.open(file)
pixels = np.array(image)  # height, width, RGB
for found in detector.predict([file, image, pixels, torch.from_numpy(pixels).permute(2, 0, 1)]):
    boxes = [[round(side) for side in box] for box in found.boxes.tolist()]
    print(*zip(boxes, found.scores.tolist(), found.class_names, strict=True), sep="\n", end="\n\n")

print(found.to_supervision())  # where supervision is installed
