"""One process of two: ``python gloo_worker.py RANK WORLD_SIZE FOLDER``. Reads the folder's problem, writes ``rank<RANK>.json``."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from lossbox.metrics import Evaluator, to_json
from lossbox.metrics.torchmetric import OptimalLRP
from lossbox.records import Detections


def images(content, results):
    """By image id: what was found and what is there, as tensors."""
    labels = {number: label for label, number in enumerate(sorted(category["id"] for category in content["categories"]))}

    def columns(records, *names):
        boxes = torch.tensor([record["bbox"] for record in records], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        label = torch.tensor([labels[record["category_id"]] for record in records], dtype=torch.int64)
        return {"boxes": boxes, "labels": label} | {
            name: torch.tensor([record[name] for record in records], dtype=torch.float64) for name in names
        }

    return {
        image["id"]: (
            columns([record for record in results if record["image_id"] == image["id"]], "score"),
            columns([record for record in content["annotations"] if record["image_id"] == image["id"]], "iscrowd", "area"),
        )
        for image in content["images"]
    }


def main(rank, world_size, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
    content, results = json.loads((folder / "problem.json").read_text())
    by_image = images(content, results)
    ids = sorted(by_image)

    # As DistributedSampler deals: every world_size-th image, padded by the first; the padded image came out a little different here.
    evaluator = Evaluator(content)
    for image_id in [*ids, ids[0]][rank::world_size]:
        found, _ = by_image[image_id]
        padded = image_id == ids[0] and rank > 0
        boxes = found["boxes"] + 1000 if padded else found["boxes"]
        evaluator.update([image_id], [Detections(boxes, found["score"], found["labels"])])
    numbers = evaluator.compute()
    saved = evaluator.results()

    # torchmetrics: one process has all images but the last two, then one has none at all.
    uneven, alone = OptimalLRP(), OptimalLRP()
    for metric, dealt in ((uneven, [ids[:-2], ids[-2:]]), (alone, [ids, []])):
        for image_id in dealt[rank]:
            found, true = by_image[image_id]
            metric.update([{"boxes": found["boxes"], "labels": found["labels"], "scores": found["score"]}], [true])
    metrics = [{name: tensor.tolist() for name, tensor in metric.compute().items()} for metric in (uneven, alone)]

    (folder / f"rank{rank}.json").write_text(to_json({"numbers": numbers, "results": saved, "metrics": metrics}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
