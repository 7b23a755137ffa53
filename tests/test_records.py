"""The records that a data loader and a device see."""

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from lossbox.records import Batch, Detections, Targets


def batch():
    targets = [Targets(torch.rand(n, 4), torch.arange(n), torch.zeros(n, dtype=torch.bool), n, (8, 8), (16, 16)) for n in (0, 3)]
    return Batch(torch.rand(2, 3, 8, 8), targets)


def parts(batch):
    return [batch.images, *(tensor for t in batch.targets for tensor in (t.boxes, t.labels, t.crowd))]


def test_a_loader_that_pins_memory_gets_a_batch_of_pinned_tensors(monkeypatch):
    """On a machine without a GPU no memory can be pinned: a copy stands for it."""
    pinned = []

    def pin(tensor):
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    source = batch()
    got = pin_memory(source)
    assert isinstance(got, Batch)
    assert {id(tensor) for tensor in parts(got)} == {id(tensor) for tensor in pinned}
    assert all(torch.equal(a, b) for a, b in zip(parts(got), parts(source), strict=True))
    assert [(t.image_id, t.size, t.original_size) for t in got.targets] == [(0, (8, 8), (16, 16)), (3, (8, 8), (16, 16))]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="memory is pinned for a GPU")
def test_pinned_memory_reaches_the_device():
    got = pin_memory(batch())
    assert all(tensor.is_pinned() for tensor in parts(got) if tensor.numel())
    assert all(tensor.is_cuda for tensor in parts(got.to("cuda")))


def test_detections_are_resized_along_each_axis_by_itself_and_back():
    found = Detections(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([0.5]), torch.tensor([4]))
    moved = found.resized((50, 100), (200, 200))
    assert moved.boxes.tolist() == [[2.0, 8.0, 6.0, 16.0]]
    assert (moved.scores.tolist(), moved.labels.tolist()) == ([0.5], [4])
    assert moved.resized((200, 200), (50, 100)).boxes.tolist() == found.boxes.tolist()


def test_detections_are_mirrored_and_back():
    found = Detections(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([0.5]), torch.tensor([4]))
    assert found.mirrored(10).boxes.tolist() == [[7.0, 2.0, 9.0, 4.0]]
    assert found.mirrored(10).mirrored(10).boxes.tolist() == found.boxes.tolist()
