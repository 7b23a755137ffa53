"""Usage: python run_onnx.py MODEL.onnx IMAGE...

Finds objects with a file of `lossbox export MODEL.onnx --ckpt OUT/checkpoints/best.ckpt --nms`: onnxruntime, Pillow and numpy alone.
"""

import json
import sys
from pathlib import Path

import numpy as np

if len(sys.argv) < 3:
    sys.exit(print(__doc__))
import onnxruntime
from PIL import Image

model, *files = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
card = json.loads(Path(model).with_suffix(".json").read_text())
for file in files:
    image = Image.open(file).convert("RGB")
    factor = min(card["height"] / image.height, card["width"] / image.width)
    fitted = max(round(image.width * factor), 1), max(round(image.height * factor), 1)
    pixels = np.zeros((card["height"], card["width"], 3), np.float32)
    pixels[: fitted[1], : fitted[0]] = np.asarray(image.resize(fitted, Image.Resampling.BILINEAR), np.float32) / 255
    inputs = {"images": pixels.transpose(2, 0, 1)[None], "size": np.array([image.height, image.width])}
    for box, score, label in zip(*session.run(["boxes", "scores", "labels"], inputs), strict=True):
        print(file, card["classes"][label]["name"], f"{score:.3f}", box.round(1).tolist())
