"""Losses of keypoints against plain loops over the papers' formulas, value and gradient."""

import pytest
import torch

from lossbox.losses import count_hyperparameters, keypoint_focal_loss, offset_loss, pull_loss, push_loss, smooth_l1_loss

G = torch.Generator().manual_seed(0)
LOGITS = (6 * torch.rand(4, 7, generator=G, dtype=torch.float64) - 3).requires_grad_()
HEAT = torch.rand(4, 7, generator=G, dtype=torch.float64)
HEAT[0, 1] = HEAT[2, 3] = 1
HEAT[1] = 0
EMBEDDINGS = (3 * torch.rand(5, 3, generator=G, dtype=torch.float64)).requires_grad_()


def same(ours, expected, leaf):
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    found, wanted = (torch.autograd.grad(-2.5 * x, leaf, retain_graph=True)[0] for x in (ours, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 4.0), (0.0, 0.5), (0.5, 0.0), (1.0, 1.0)])
def test_keypoint_focal_loss_is_eq_1(alpha, beta):
    p, total = LOGITS.sigmoid(), 0
    for row, heat in zip(p, HEAT, strict=True):
        for x, y in zip(row, heat.tolist(), strict=True):
            total = total - ((1 - x) ** alpha * x.log() if y == 1 else (1 - y) ** beta * x**alpha * (1 - x).log())
    same(keypoint_focal_loss(LOGITS, HEAT, alpha=alpha, beta=beta, normalizer=2), total / 2, LOGITS)


def test_without_slopes_it_is_the_focal_loss():
    from lossbox.losses import focal_loss

    hard = (HEAT == 1).double()
    torch.testing.assert_close(keypoint_focal_loss(LOGITS, hard), focal_loss(LOGITS, hard, alpha=None, gamma=2.0))


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_pull_and_push_are_eqs_4_and_5(n):
    embeddings = EMBEDDINGS[:n]
    means = [sum(tags) / 3 for tags in embeddings]
    pull = sum(((tag - mean) ** 2 for tags, mean in zip(embeddings, means, strict=True) for tag in tags), start=0 * EMBEDDINGS.sum())
    same(pull_loss(embeddings), pull / max(n, 1), EMBEDDINGS)
    for margin in (0.5, 1.0):
        hinges = [torch.relu(margin - (means[i] - means[j]).abs()) for i in range(n) for j in range(n) if i != j]
        same(push_loss(embeddings, margin=margin), sum(hinges, start=0 * EMBEDDINGS.sum()) / max(n * (n - 1), 1), EMBEDDINGS)


def test_offset_loss_is_the_smooth_l1_of_what_rounding_loses():
    offsets = (2 * torch.rand(6, 2, generator=G, dtype=torch.float64) - 0.5).requires_grad_()
    points = 50 * torch.rand(6, 2, generator=G, dtype=torch.float64)
    points[0] = 8.0  # on the edge of a cell
    lost = torch.tensor([[(v / 8) % 1 for v in point] for point in points.tolist()], dtype=torch.float64)
    same(offset_loss(offsets, points, stride=8, beta=0.3), smooth_l1_loss(offsets, lost, beta=0.3, reduction="sum") / 6, offsets)
    assert (lost[0] == 0).all()


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match=r"embeddings: \(n, k\)"):
        push_loss(torch.zeros(3))
    with pytest.raises(ValueError, match="margin: a finite number > 0"):
        push_loss(torch.zeros(3, 2), margin=0.0)
    with pytest.raises(ValueError, match="stride: a finite number > 0"):
        offset_loss(torch.zeros(3, 2), torch.zeros(3, 2), stride=0.0)


def test_centernet_of_table_1():
    """Two focal losses of corners and centers, pull, push, and two offset losses that share a weight."""
    assert count_hyperparameters(("keypoint_focal_loss",) * 2, "pull_loss", "push_loss", ("offset_loss",) * 2) == 10
