"""The head: the order of its output, its initial probabilities, its options."""

from typing import Any

import pytest
import torch
from torch import nn

from lossbox.detectors import DenseHead


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_output_is_level_row_column_anchor_class(memory_format: torch.memory_format) -> None:
    head = DenseHead(4, num_classes=3, levels=2, num_anchors=2, convs=0).to(memory_format=memory_format)  # type: ignore[call-overload]
    levels = [torch.rand(2, 4, 3, 5).to(memory_format=memory_format), torch.rand(2, 4, 2, 1).to(memory_format=memory_format)]
    logits, regression = head(levels)
    for found, tower, width in ((logits, head.classification, 3), (regression, head.box, 4)):
        expected = []
        for level in levels:
            out = tower(level)
            for row in range(out.shape[2]):
                for column in range(out.shape[3]):
                    for anchor in range(2):
                        expected.append(out[:, anchor * width : (anchor + 1) * width, row, column])
        torch.testing.assert_close(found, torch.stack(expected, 1))


@pytest.mark.parametrize("prior", [0.01, 0.2])
def test_every_class_starts_at_the_prior(prior: float) -> None:
    torch.manual_seed(0)
    logits, regression = DenseHead(64, num_classes=5, levels=1, convs=4, prior=prior)([torch.randn(1, 64, 8, 8)])
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, prior), rtol=0.01, atol=0)
    assert regression.abs().max() < 0.01


def test_towers_are_shared_by_the_levels_and_not_by_the_tasks() -> None:
    head = DenseHead(8, num_classes=2, levels=2, convs=2)
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 2 * (2 + 1)
    for conv in convs:
        assert abs(conv.weight.std().item() - 0.01) < 0.003
    levels = [torch.rand(1, 8, 4, 4), torch.rand(1, 8, 2, 2)]
    both = head(levels)
    alone = head(levels[1:])
    torch.testing.assert_close(both[0][:, 16:], alone[0])
    torch.testing.assert_close(both[1][:, 16:], alone[1])


@pytest.mark.parametrize("channels", [24, 64])
def test_group_norm_goes_after_each_conv_of_a_tower(channels: int) -> None:
    head = DenseHead(channels, num_classes=2, levels=1, convs=3, norm="group")
    norms = [m for m in head.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 6
    assert all(channels % norm.num_groups == 0 and norm.num_groups > 1 for norm in norms)
    x = torch.rand(1, channels, 4, 4)
    torch.testing.assert_close(head.box_tower([x])[0], head.box_tower([x * 100])[0], rtol=0.02, atol=1e-3)


def test_batch_norms_follow_the_statistics_of_their_level_and_share_the_convolutions() -> None:
    torch.manual_seed(0)
    head = DenseHead(8, num_classes=2, levels=2, convs=2, norm="batch")
    assert sum(isinstance(m, nn.BatchNorm2d) for m in head.modules()) == 2 * 2 * 2
    assert sum(isinstance(m, nn.Conv2d) for m in head.modules()) == 2 * (2 + 1)
    levels = [torch.randn(4, 8, 8, 8), 100 * torch.randn(4, 8, 4, 4) + 50]
    for found, level in zip(head.box_tower(levels), levels, strict=True):
        x = level
        for conv in head.box_tower.convs:
            x = conv(x)
            x = ((x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()).relu()
        torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes: a number >= 1 expected, got 0"),
        ({"num_classes": 1, "levels": 0}, "levels: a number >= 1"),
        ({"num_classes": 1, "num_anchors": 0}, "num_anchors: a number >= 1"),
        ({"num_classes": 1, "convs": -1}, "convs: a number >= 0"),
        ({"num_classes": 1, "norm": "layer"}, "norm: one of 'none', 'group', 'batch' expected, got 'layer'"),
        ({"num_classes": 1, "prior": 1.0}, r"prior: a probability in \(0, 1\)"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseHead(8, **{"levels": 1, **options})
