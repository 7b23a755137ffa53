"""The kernels for GPUs against the steps of torch that they replace, in Triton's interpreter; and compiled for GPUs that are not here."""

import os
import subprocess
import sys

import pytest
import torch

from lossbox.losses import _dominance, _knots, _ranking, alrp_loss, ap_loss, ndcg_loss, rank_sort_loss
from lossbox.losses._dominance import dominance_sums
from lossbox.losses._pairs import pair_sums, takes_pairs

SCRIPT = """
import math
import os
import sys
import torch
from lossbox.losses import _fused, _knots, alrp_loss, ap_loss, error_driven_loss, ndcg_loss, rank_sort_loss, skewed_pmf

device = "cpu" if os.environ.get("TRITON_INTERPRET") else "cuda"

def losses(targets, quality, delta, groups):
    options = {"delta": delta, "groups": groups}
    yield lambda s: ap_loss(s, targets, **options)
    yield lambda s: ap_loss(s, targets, interpolated=True, **options)
    yield lambda s: ndcg_loss(s, targets, **options)
    yield lambda s: sum(alrp_loss(s, targets, quality, **options))
    yield lambda s: sum(alrp_loss(s, targets, quality, smooth_localization=True, **options))
    yield lambda s: sum(rank_sort_loss(s, targets, quality, **options))
    yield lambda s: error_driven_loss(s, targets, lambda r: r.false_positives / r.rank, pmf=skewed_pmf(0.5), **options)

def compare(size, share, delta, dtype, special=(), groups=None, spread=1.0, only=range(7)):
    generator = torch.Generator().manual_seed(size)
    logits = (spread * torch.randn(size, generator=generator)).to(dtype)
    logits[: size // 5] = logits[size // 5 : 2 * (size // 5)]  # ties
    targets = (torch.rand(size, generator=generator) < share).long()
    targets[torch.rand(size, generator=generator) < 0.1] = -1
    for place, (score, target) in enumerate(special):
        logits[place], targets[place] = score, target
    quality = torch.rand(int((targets == 1).sum()), generator=generator, dtype=dtype)
    keys = None if groups is None else torch.randint(groups, (size,), generator=generator).to(device)
    logits, targets, quality = logits.to(device), targets.to(device), quality.to(device)
    close = {"rtol": 2e-5, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
    if delta == 1e-6:  # what is lost of a score when that is added to it
        close = {"rtol": max(close["rtol"], 1e-7), "atol": max(close["atol"], 1e-9)}
    for number, loss in enumerate(losses(targets, quality, delta, keys)):
        if number not in only:
            continue
        found = []
        for kernels in (None, _fused):
            _knots.gpu_kernels = lambda device: kernels
            leaf = logits.clone().requires_grad_()
            value = loss(leaf)
            value.backward(torch.full_like(value, 1.7))
            found.append((value.detach(), leaf.grad))
        where = f"loss {number}, {size, share, delta, dtype, special, groups, spread}: "
        torch.testing.assert_close(found[1][0], found[0][0], equal_nan=True, msg=lambda text: where + text, **close)
        if not found[0][0].isnan():
            torch.testing.assert_close(found[1][1], found[0][1], equal_nan=True, msg=lambda text: where + text, **close)
        else:
            assert special, where

def compare_parts(dtype, delta):
    generator = torch.Generator().manual_seed(0)
    positives = torch.cat([torch.randn(30, generator=generator).double(), torch.tensor([1e30])]).to(device)  # far away, and costs no digits
    knots = _knots.place_knots(positives, delta)
    near = knots.position.to(dtype)  # as close to the knots as can be, on both sides
    near = torch.cat([near, near.nextafter(near + 1), near.nextafter(near - 1), near.new_tensor([0.1, 5e29])])
    found = []
    for kernels in (None, _fused):
        _knots.gpu_kernels = lambda device: kernels
        knots = _knots.place_knots(positives, delta)
        located = _knots.locate(knots, near)
        table = _knots.sums_below(knots, torch.ones_like(positives), dtype)
        found.append((located.interval, _knots.sums_above(knots, located), *table))
    assert torch.equal(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-5, atol=1e-9)
    if delta > 0:
        expected = (0.5 + (near.double() - positives[:-1, None]) / (2 * delta)).clamp(0, 1).sum(1)
        torch.testing.assert_close(found[1][1][:-1], expected, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(found[1][2:], found[0][2:])
    for special in (math.nan, math.inf, -math.inf):
        for size in (1, 20):
            positives = torch.zeros(size, device=device).double()
            positives[0] = special
            for below in (False, True):
                assert _fused.pair_sums(positives, None, delta, None, None, below).isnan().all()

def compare_all(dtype, delta):
    compare_parts(dtype, delta)
    compare(150, 0.2, delta, dtype)
    compare(100, 0.2, delta, dtype, spread=1e-3, only=(0, 3))  # whole blocks in one interval
    compare(60, 0.3, delta, dtype, groups=3)
    compare(3, 0.5, delta, dtype)
    compare(20, 1.0, delta, dtype)
    compare(20, 0.0, delta, dtype)
    for special in ((math.nan, 1), (math.nan, 0), (math.nan, -1), (math.inf, 1), (math.inf, 0), (-math.inf, 0), (100.0, 1), (100.0, 0)):
        compare(30, 0.2, delta, dtype, [special], only=(0, 5))
    for special in ([(math.nan, 1)], [(math.inf, 1)], [(math.inf, 1), (math.inf, 1)]):  # the only positives
        compare(30, 0.0, delta, dtype, special, only=(0, 3))

_fused.BLOCK, _fused.SHORT_BLOCK, _fused.PAIR_COLUMNS = (int(size) for size in sys.argv[3:6])
compare_all(getattr(torch, sys.argv[1]), float(sys.argv[2]))
if sys.argv[2] == "0.3":
    _fused.COUNTERS = 100  # a single counter for each interval
    compare(200, 0.2, 0.3, torch.float32)
    _fused.MOST_POSITIVES = 10  # the negatives by the kernels, the positives by the steps
    compare(200, 0.2, 0.3, torch.float32)
    compare(40, 0.2, 0.3, torch.float32, [(math.nan, 0), (1.0, 1), (0.0, 1)])
print("compared")
"""


def run(environment, *words):
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *map(str, words)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=280)
    assert done.stdout.split()[-1:] == ["compared"], done.stderr[-3000:]


@pytest.mark.parametrize(
    ("dtype", "delta", "blocks"),
    [
        ("float64", 0.3, (64, 32, 16)),
        ("float64", 0.0, (2048, 1024, 64)),
        ("float32", 0.3, (2048, 1024, 64)),
        ("float32", 1e-6, (64, 32, 16)),
    ],
)
def test_every_ranking_loss_by_the_kernels_is_that_by_the_steps(dtype, delta, blocks):
    pytest.importorskip("triton")
    run({"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}, dtype, delta, *blocks)  # to be set before Triton is imported


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("delta", [0.0, 0.3])
def test_the_kernels_on_a_gpu(delta):
    run({}, "float32", delta, 2048, 1024, 64)


def test_the_kernels_can_be_turned_off(monkeypatch):
    fused = pytest.importorskip("lossbox.losses._fused")
    _knots.gpu_kernels.cache_clear()
    assert _knots.gpu_kernels("cuda") is fused
    assert _knots.gpu_kernels("cpu") is None
    monkeypatch.setenv("LOSSBOX_TRITON", "0")
    _knots.gpu_kernels.cache_clear()
    assert _knots.gpu_kernels("cuda") is None
    monkeypatch.undo()
    _knots.gpu_kernels.cache_clear()


def launches(monkeypatch, dtype, delta):
    """What the losses launch on a GPU, seen on tensors that have a shape and no data: whatever looked at a number would fail."""
    fused = pytest.importorskip("lossbox.losses._fused")
    seen = []
    monkeypatch.setattr(_knots, "gpu_kernels", lambda device: fused)
    monkeypatch.setattr(_ranking, "positive_index", lambda targets: torch.empty(1000, dtype=torch.int64, device="meta"))
    monkeypatch.setattr(fused, "_launch", lambda kernel, grid, *arguments, **options: seen.append((kernel, arguments, options)))
    targets = torch.empty(10_000, dtype=torch.int64, device="meta")
    quality = torch.empty(1000, dtype=dtype, device="meta")
    for loss in (
        lambda s: ap_loss(s, targets, delta=delta),
        lambda s: ndcg_loss(s, targets, delta=delta),
        lambda s: sum(alrp_loss(s, targets, quality, delta=delta)),
        lambda s: sum(rank_sort_loss(s, targets, quality, delta=delta)),
    ):
        loss(torch.empty(10_000, dtype=dtype, device="meta", requires_grad=True)).backward()
    return seen


@pytest.mark.parametrize("delta", [0.0, 0.5])
def test_no_ranking_loss_waits_for_the_device_once_it_knows_the_positives(monkeypatch, delta):
    names = [kernel.__name__ for kernel, *_ in launches(monkeypatch, torch.float32, delta)]
    for once_a_loss in ("_place", "_round_up", "_locate", "_sum_down", "_take_above", "_sum_up", "_evaluate"):
        assert names.count(once_a_loss) == 4, names
    assert names.count("_pairs") == 1 + 1 + 3 + 4, names
    assert names.count("_spread") == 3, names


POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int32: "*i32", torch.int64: "*i64", torch.bool: "*i1"}


@pytest.mark.parametrize(
    ("gpu", "dtype", "delta"),
    [
        (("cuda", 80, 32), torch.float32, 0.5),
        (("cuda", 90, 32), torch.float64, 0.0),
        (("hip", "gfx942", 64), torch.float32, 0.5),
    ],
)
def test_every_kernel_compiles_for_gpus_that_are_not_here(monkeypatch, tmp_path, gpu, dtype, delta):
    triton = pytest.importorskip("triton", minversion="3.3")  # where signatures came to be written like this
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    target = triton.backends.compiler.GPUTarget(*gpu)
    compiled = {}
    for kernel, arguments, options in launches(monkeypatch, dtype, delta):
        number = {True: "i32", False: "i64"}
        types = [POINTERS[each.dtype] if isinstance(each, torch.Tensor) else number[abs(each) < 1 << 31] for each in arguments]
        constants = {name: value for name, value in options.items() if name != "num_warps"}
        signature = dict(zip(kernel.arg_names, types, strict=False)) | dict.fromkeys(constants, "constexpr")
        if (key := (kernel.__name__, *signature.values(), *constants.values())) not in compiled:
            source = triton.compiler.ASTSource(kernel, signature, constants)
            compiled[key] = triton.compile(source, target=target, options={"num_warps": options.get("num_warps", 4)})
    assert len({name for name, *_ in compiled}) == (8 if dtype == torch.float64 else 9)  # doubles are not rounded
    for each in compiled.values():
        assert each.metadata.shared < 48 * 1024
        assert len(each.asm["cubin" if gpu[0] == "cuda" else "hsaco"]) > 1000


@pytest.mark.parametrize("delta", [0.0, 0.5])
@pytest.mark.parametrize("size", [1, 2, 50])
def test_pair_sums_of_lower_quality_are_the_dominance_sums(size, delta):
    generator = torch.Generator().manual_seed(size)
    scores = torch.randn(size, generator=generator, dtype=torch.float64)
    scores[size // 2 :] = scores[: size - size // 2].clone()  # ties
    quality = torch.randint(0, 4, (size,), generator=generator).double()
    values = torch.rand(2, size, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(pair_sums(scores, values, delta, quality=quality), dominance_sums(scores, quality, values, delta))


@pytest.mark.parametrize("delta", [0.0, 0.5])
@pytest.mark.parametrize("special", [torch.nan, torch.inf, -torch.inf])
def test_pair_sums_are_nan_where_a_score_is_not_finite(special, delta):
    for size in (1, 20):
        scores = torch.zeros(size, dtype=torch.float64)
        scores[-1] = special
        assert pair_sums(scores, None, delta).isnan().all()
        assert pair_sums(scores, torch.ones(2, size), delta, below=True).isnan().all()


@pytest.mark.parametrize("delta", [0.0, 0.5])
@pytest.mark.parametrize("groups", [None, 3])
def test_a_ranking_by_pairs_is_that_by_knots(monkeypatch, delta, groups):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(100, generator=generator, dtype=torch.float64)
    logits[:30] = logits[30:60]
    targets = torch.randint(-1, 2, (100,), generator=generator)
    quality = torch.rand(int((targets == 1).sum()), generator=generator, dtype=torch.float64)
    keys = None if groups is None else torch.randint(groups, (100,), generator=generator)
    assert not takes_pairs(logits)
    for loss in (
        lambda s: ap_loss(s, targets, delta=delta, groups=keys),
        lambda s: sum(alrp_loss(s, targets, quality, delta=delta, groups=keys)),
        lambda s: sum(rank_sort_loss(s, targets, quality, delta=delta, groups=keys)),
    ):
        found = []
        for pairs in (False, True):
            for module in (_ranking, _dominance):
                monkeypatch.setattr(module, "takes_pairs", lambda scores, pairs=pairs: pairs)
            leaf = logits.clone().requires_grad_()
            value = loss(leaf)
            value.backward()
            found.append((value.detach(), leaf.grad))
        torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
