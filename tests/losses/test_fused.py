"""The kernels for GPUs against the steps of torch that they replace, in Triton's interpreter (to be chosen before Triton is imported)."""

import os
import subprocess
import sys

import pytest
import torch

from lossbox.losses._dominance import all_pairs, dominance_sums

SCRIPT = """
import math
import torch
from lossbox.losses import _fused, _knots

def compare(num_scores, spread, delta, dtype, special=()):
    generator = torch.Generator().manual_seed(num_scores)
    positives = (spread * torch.randn(37, generator=generator)).to(dtype).double()
    scores = (spread * torch.randn(num_scores, generator=generator)).to(dtype)
    scores[: len(special)] = torch.tensor(special, dtype=dtype)
    scores[len(special) : len(special) + 9] = positives[:9].to(dtype)[: max(num_scores - len(special), 0)]  # ties
    counted = torch.rand(num_scores, generator=generator) < 0.9
    counted[: len(special)] = True
    knots = _knots.place_knots(positives, delta)
    value, slope = (table.to(dtype) for table in _knots.sums_below(knots, torch.rand(37, generator=generator, dtype=torch.float64)))
    found = {}
    for name, passes in (("steps", None), ("fused", _fused)):
        _knots._fused_passes = lambda device: passes
        located = _knots.locate(knots, scores, counted)
        found[name] = located.interval, located.offset, _knots.sums_above(knots, located), _knots.evaluate(value, slope, *located[:2])
    torch.testing.assert_close(found["fused"], found["steps"], rtol=1e-6, atol=1e-9, equal_nan=True)
    assert torch.equal(found["fused"][0], found["steps"][0])
    return found["fused"][2]

for dtype in (torch.float32, torch.float64):
    for delta in (0.0, 0.5):
        compare(1, 1.0, delta, dtype)
        compare(5000, 1.0, delta, dtype)
        compare(5000, 1e-3, delta, dtype)  # whole blocks in one interval
        compare(3000, 3.0, delta, dtype, (math.inf, -math.inf, 1e30, -1e30))
        assert compare(3000, 3.0, delta, dtype, (math.nan,)).isnan().all()
_fused.COUNTERS = 100  # a single counter for each interval
compare(3000, 1.0, 0.5, torch.float32)
print("compared")
"""


def test_the_fused_passes_compute_what_the_steps_compute():
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-1:] == ["compared"], done.stderr[-3000:]


@pytest.mark.parametrize("delta", [0.0, 0.5])
@pytest.mark.parametrize("size", [1, 2, 50])
def test_all_pairs_are_the_dominance_sums(size, delta):
    generator = torch.Generator().manual_seed(size)
    scores = torch.randn(size, generator=generator, dtype=torch.float64)
    scores[size // 2 :] = scores[: size - size // 2].clone()  # ties
    quality = torch.randint(0, 4, (size,), generator=generator).double()
    values = torch.rand(2, size, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(all_pairs(scores, quality, values, delta), dominance_sums(scores, quality, values, delta))
