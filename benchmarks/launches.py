"""How many operations a ranking loss starts on a GPU between the logits and their gradient, counted without one.

    python benchmarks/launches.py                     writes benchmarks/results/launches.json
    python benchmarks/launches.py --before FILE       beside what an earlier version of the code wrote into that file

The code of a GPU runs on tensors that have a shape and a device but no data. Each operation that computes something (views do not) counts
as one launch, as each kernel of ``_fused`` does. What looks at a value on the host stops
the count with an error, except for the number of positives, which is given. No times: a GPU is needed for these.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from ranking import RESULTS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lossbox.losses import _fused, _knots, _ranking, alrp_loss, ap_loss, focal_loss, ndcg_loss, rank_sort_loss

SCORES, POSITIVES = 10**6, 1_000
NO_WORK = ("aten.detach", "aten.empty", "aten.new_empty", "aten.alias")


class Count(TorchDispatchMode):
    """Counts the operations that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, result = str(func.overloadpacket), func(*args, **(kwargs or {}))
        if not func.is_view and not name.startswith(NO_WORK) and getattr(result, "device", None) == torch.device("meta"):
            self.names[name] += 1
        return result


def launches(name: str) -> Counter[str]:
    with Count() as count:
        logits = torch.empty(SCORES, device="meta", requires_grad=True)
        targets = torch.empty(SCORES, dtype=torch.int64, device="meta")
        places = torch.empty(POSITIVES, dtype=torch.int64, device="meta")
        values = torch.empty(POSITIVES, device="meta")
        calls = {
            "focal_loss": lambda: focal_loss(logits, targets, reduction="sum"),
            "ap_loss": lambda: ap_loss(logits, targets),
            "alrp_loss": lambda: torch.stack(alrp_loss(logits, targets, values)).sum(),
            "ndcg_loss": lambda: ndcg_loss(logits, targets),
            "rank_sort_loss": lambda: torch.stack(rank_sort_loss(logits, targets, values)).sum(),
        }

        def positive_index(targets: Tensor) -> Tensor:
            count.names["targets == 1, nonzero"] += 2
            return places

        def launch(kernel: Any, *arguments: Any, **options: Any) -> None:
            count.names[f"kernel{kernel.__name__}"] += 1

        with (
            mock.patch.object(_knots, "gpu_kernels", return_value=_fused),
            mock.patch.object(_fused, "_launch", launch),
            mock.patch.object(_ranking, "positive_index", positive_index),
        ):
            count.names.clear()
            calls[name]().backward()
    return count.names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = {name: launches(name) for name in ("focal_loss", "ap_loss", "alrp_loss", "ndcg_loss", "rank_sort_loss")}
    for name, names in found.items():
        print(f"{name:16} {names.total():4} launches: " + ", ".join(f"{number} {op}" for op, number in names.most_common(9)))
    report = {
        "command": "python benchmarks/launches.py",
        "what": f"operations, forward and backward, {SCORES:,} scores, {POSITIVES:,} positives, counted on tensors without data",
        "torch": torch.__version__,
        "launches": {name: names.total() for name, names in found.items()},
        **({"launches_before": json.loads(options.before.read_text())["launches"]} if options.before else {}),
        "operations": {name: dict(names.most_common()) for name, names in found.items()},
    }
    path = RESULTS / "launches.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
