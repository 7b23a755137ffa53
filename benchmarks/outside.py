"""AP loss beside what people use outside of detection: SmoothAP of pytorch-metric-learning for retrieval, LibAUC's for classification.

    python benchmarks/outside.py       writes benchmarks/results/outside.json

Both are packages of other people, which no extra of ours installs: `pip install --no-deps pytorch-metric-learning libauc` in an environment
of its own. One forward and backward each, on one thread, in a process of its own: CPU time, and the peak of memory above that of the
inputs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from ranking import RESULTS, machine
from rich.progress import track
from torch import Tensor
from torch.nn.functional import normalize

BATCHES = (384, 4_096)
WIDTH, PER_CLASS = 128, 4
ROWS = 1_000_000


def retrieval(name: str, batch: int) -> Callable[[], Tensor]:
    """A batch of embeddings of classes of four."""
    embeddings = torch.randn(batch, WIDTH, generator=torch.Generator().manual_seed(0)).requires_grad_()
    classes = torch.arange(batch) // PER_CLASS
    if name == "smooth_ap":
        from pytorch_metric_learning.losses import SmoothAPLoss

        loss = SmoothAPLoss()
        return lambda: loss(embeddings, classes)
    from lossbox.losses import ap_loss

    targets = (classes[:, None] == classes).to(torch.int8).fill_diagonal_(-1)

    def ours() -> Tensor:
        unit = normalize(embeddings)
        return ap_loss(unit @ unit.T, targets, delta=0.05, groups="row")

    return ours


def classification(name: str, size: int) -> Callable[[], Tensor]:
    """One row in a hundred is positive."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(size, generator=generator) < 0.01).long()
    logits = (torch.randn(size, generator=generator) + targets).requires_grad_()
    if name == "libauc":
        from libauc.losses import APLoss

        loss, index = APLoss(data_len=size, device="cpu"), torch.arange(size)
        return lambda: loss(logits.sigmoid()[:, None], targets[:, None], index)
    from lossbox.losses import ap_loss

    return lambda: ap_loss(logits, targets)


CASES = {
    **{f"{name} {batch}": (retrieval, name, batch) for batch in BATCHES for name in ("ap_loss", "smooth_ap")},
    **{f"{name} {size}": (classification, name, size) for size in (10_000, ROWS) for name in ("ap_loss", "libauc")},
}


def measure(case: str) -> dict[str, float]:
    torch.set_num_threads(1)
    make, name, size = CASES[case]
    make(name, 64 if make is retrieval else 1_000)().backward()  # what is loaded on first use
    call = make(name, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    call().backward()
    seconds = time.process_time() - start
    return {"cpu_s": seconds, "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="?", choices=CASES, help="measure this one alone and print it, as each process does")
    case = parser.parse_args().case
    if case:
        print(json.dumps(measure(case)))
        return
    versions = {name: version(name) for name in ("pytorch-metric-learning", "libauc")}  # before the work, if one is missing
    rows = []
    for case in track(CASES, "measuring"):
        limited = f"ulimit -v 16000000; exec {sys.executable} {__file__} '{case}'"  # SmoothAP at 4,096 asks for hundreds of GB
        done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
        lines = done.stderr.strip().splitlines()
        found = json.loads(done.stdout) if done.returncode == 0 else {"failed": lines[-1] if lines else f"exit {done.returncode}"}
        rows.append({"task": CASES[case][0].__name__, "loss": CASES[case][1], "size": CASES[case][2], **found})
        print(rows[-1])
    report = {"command": "python benchmarks/outside.py", **machine("cpu"), "versions": versions, "memory_limit_gb": 16, "rows": rows}
    (RESULTS / "outside.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
