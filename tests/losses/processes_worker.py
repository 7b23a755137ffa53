"""One process of four: ``python processes_worker.py RANK FOLDER``. Processes its share of every problem among four, two and one processes.

Writes ``<WORLD SIZE>_<RANK>.pt``: problem -> loss -> value and gradients. The test imports ``problems`` and ``losses`` from here.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from lossbox.losses import (
    ALRPLoss,
    APLoss,
    CARLWeights,
    NDCGLoss,
    RankingWeights,
    RankSortLoss,
    alrp_loss,
    ap_loss,
    error_driven_loss,
    ndcg_loss,
    rank_sort_loss,
    skewed_pmf,
)

WORLD_SIZES = (4, 2, 1)


def problems():
    """name -> logits, targets, one number in [0, 1] an entry (those of the positives count), and each entry's place in [0, 4)."""
    generator = torch.Generator().manual_seed(3)

    def draw(size=90, positives=0.25, ignored=0.15):
        kind = torch.rand(size, generator=generator)
        targets = torch.where(kind < positives, 1, torch.where(kind < positives + ignored, -1, 0))
        logits = torch.randn(size, generator=generator, dtype=torch.float64)
        values = torch.rand(size, generator=generator, dtype=torch.float64)
        return [logits, targets, values, 4 * torch.rand(size, generator=generator)]

    found = {"even": draw(), "uneven": draw(), "ties": draw(), "all equal": draw(), "saturated": draw(), "none ignored": draw(ignored=0)}
    found["uneven"][3] = found["uneven"][3] ** 3 / 16
    found["ties"][0] = (found["ties"][0] * 2).round() / 2
    found["ties"][2] = (found["ties"][2] * 4).round() / 4
    found["all equal"][0] = torch.full((90,), 0.375, dtype=torch.float64)
    found["saturated"][0] = found["saturated"][0].sign() * 50 + found["saturated"][0].round()
    for name, kind in (("no positives", 1), ("no negatives", 0), ("nothing that counts", -1)):
        for number in (0, 1):
            found[f"{name} on process {number}"] = problem = draw()
            # the first of two and of four, or the last, goes without
            here = (problem[1] == kind) if kind >= 0 else (problem[1] >= 0)
            problem[3][here] = (problem[3][here] / 2 + 2 * (1 - number)).clamp(max=3.9)
    found["nothing at all on processes 0 and 3"] = draw()
    found["nothing at all on processes 0 and 3"][3] = found["nothing at all on processes 0 and 3"][3] / 2 + 1
    found["only on process 1"] = draw()
    found["only on process 1"][3] = found["only on process 1"][3] / 4 + 1
    found["no positives anywhere"] = draw(positives=0)
    found["no negatives anywhere"] = draw(positives=0.7, ignored=0.3)
    found["ignored only"] = draw(positives=0, ignored=1.1)
    found["nothing anywhere"] = draw(size=0)
    found["one positive"] = draw(positives=0)
    found["one positive"][1][50] = 1
    found["many"] = draw(size=60_000, positives=0.002)  # more than the threshold of the grid and, of 4, fewer
    found["float32"] = draw(size=500)
    for place in (0, 2):
        found["float32"][place] = found["float32"][place].float()
    found["NaN"] = draw()
    found["NaN without positives"] = draw(positives=0)
    for name in ("NaN", "NaN without positives"):
        found[name][0][7], found[name][1][7] = torch.nan, 0
    return found


def keys_of(logits):
    """Keys of groups that the processes have in common, too far apart for a table; a group may have no positives on a process."""
    return torch.tensor([-(2**62), 7, 2**62])[(logits.nan_to_num() * 1e4).long() % 3]


def share(problem, world_size):
    """The logits, targets and values of each of so many processes."""
    logits, targets, values, place = problem
    rank = (place * world_size / 4).long()
    return [(logits[rank == r], targets[rank == r], values[(rank == r) & (targets == 1)]) for r in range(world_size)]


def pmf_loss(logits, targets, values, **over):
    def error(ranking):
        joined = ranking.join(values.detach())
        return (ranking.false_positives + joined + ranking.sum_above(joined)) / ranking.rank

    target = lambda ranking: ranking.join(values.detach()) / ranking.rank  # noqa: E731
    return error_driven_loss(logits, targets, error, target, delta=0.5, pmf=skewed_pmf(0.5), **over)


def losses(global_batch):
    """name -> f(logits, targets, values) -> a value or several."""
    over = {"global_batch": global_batch}
    found = {"pmf": lambda x, t, v: pmf_loss(x, t, v, **over)}
    for delta in (0.0, 0.5):
        found |= {
            f"ap {delta}": lambda x, t, v, d=delta: ap_loss(x, t, delta=d, **over),
            f"interpolated ap {delta}": lambda x, t, v, d=delta: ap_loss(x, t, delta=d, interpolated=True, **over),
            f"ndcg {delta}": lambda x, t, v, d=delta: ndcg_loss(x, t, delta=d, **over),
            f"alrp {delta}": lambda x, t, v, d=delta: alrp_loss(x, t, v, delta=d, **over),
            f"smooth alrp {delta}": lambda x, t, v, d=delta: alrp_loss(x, t, v, delta=d, smooth_localization=True, **over),
            f"rank_sort {delta}": lambda x, t, v, d=delta: rank_sort_loss(x, t, v, delta=d, **over),
        }
    found |= {
        "pmf in groups": lambda x, t, v: pmf_loss(x, t, v, **over, groups=keys_of(x)),
        "interpolated ap in groups": lambda x, t, v: ap_loss(
            x, t, interpolated=True, **over, groups=keys_of(x), group_reduction="positives"
        ),
        "alrp in groups": lambda x, t, v: alrp_loss(x, t, v, **over, groups=keys_of(x)),
        "rank_sort in groups": lambda x, t, v: rank_sort_loss(x, t, v, **over, groups=keys_of(x), group_reduction="positives"),
        "ndcg of a class": lambda x, t, v: ndcg_loss(x[:, None], t[:, None], **over, groups="class"),
    }
    return found | {
        "APLoss": lambda x, t, v: APLoss()(x, t, **over),
        "NDCGLoss": lambda x, t, v: NDCGLoss()(x, t, **over),
        "ALRPLoss": lambda x, t, v: ALRPLoss()(x, t, v, **over),
        "CARLWeights": lambda x, t, v: CARLWeights()(x, t, v, **over),
        "RankingWeights": lambda x, t, v: RankingWeights()(x, t, v, **over),
        "RankSortLoss": lambda x, t, v: RankSortLoss()(x, t, v, **over),
    }


def row_loss(reduction):
    """The row of each process is a group of its own."""
    return lambda x, t, v: alrp_loss(x[None], t[None], v, delta=0.5, global_batch=True, groups="row", group_reduction=reduction)


def losses_of(problem, global_batch):
    """Those for one problem: groups are tried on a few."""
    in_groups = problem in (
        "even",
        "ties",
        "NaN without positives",
        "NaN",
        "no positives on process 0",
        "nothing at all on processes 0 and 3",
        "no positives anywhere",
    )
    return {name: loss for name, loss in losses(global_batch).items() if in_groups or not name.endswith(("in groups", "of a class"))}


def compute(loss, logits, targets, values):
    """The values, and of an upstream gradient for each the gradients of logits and values."""
    logits, values = logits.clone().requires_grad_(), values.clone().requires_grad_()
    parts = loss(logits, targets, values)
    parts = parts if isinstance(parts, tuple) else (parts,)
    total = sum(factor * part for factor, part in zip((0.7, -1.9), parts, strict=False))
    gradients = torch.autograd.grad(total, (logits, values), allow_unused=True)
    return {
        "values": torch.stack([part.detach() for part in parts]),
        "logits": gradients[0],
        "localization": torch.zeros_like(values) if gradients[1] is None else gradients[1],
    }


def main(rank, folder):
    torch.set_num_threads(1)
    for world_size in WORLD_SIZES:
        if rank >= world_size:
            break
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting{world_size}", rank=rank, world_size=world_size)
        found = {}
        for name, problem in problems().items():
            logits, targets, values = share(problem, world_size)[rank]
            if not len(values):
                values = torch.zeros(0)  # as a caller may well make it; the others' are float64
            found[name] = {loss: compute(function, logits, targets, values) for loss, function in losses_of(name, True).items()}
            if name == "even":
                found[name]["alone"] = compute(losses(False)["ap 0.5"], logits, targets, values)
                for reduction in ("mean", "positives"):
                    found[name][f"a row each, {reduction}"] = compute(row_loss(reduction), logits, targets, values)
        torch.save(found, folder / f"{world_size}_{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
