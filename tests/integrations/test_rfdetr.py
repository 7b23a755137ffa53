"""RF-DETR's criterion with a loss of ours: one step of its Lightning module, and each layer against a loop written by hand."""

import pytest
import torch

from lossbox.boxes import paired_iou
from lossbox.integrations.rfdetr import use
from lossbox.losses import FocalLoss, alrp_loss, ap_loss, rank_sort_loss

pytest.importorskip("rfdetr", reason="an environment of its own has it: make test-integrations")
config = pytest.importorskip("rfdetr.config")

CLASSES, SIZE = 3, 64
BY_HAND = {
    "rank_sort": lambda x, y, q: sum(rank_sort_loss(x, y, q)),
    "alrp": lambda x, y, q: alrp_loss(x, y, (1 - q) / 0.5)[0],
    "ap": lambda x, y, q: ap_loss(x, y),
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    small = {"resolution": SIZE, "num_queries": 20, "num_select": 20, "dec_layers": 2, "group_detr": 3, "num_classes": CLASSES}
    model = config.RFDETRNanoConfig(pretrain_weights=None, device="cpu", amp=False, **small)
    folder = str(tmp_path_factory.mktemp("rfdetr"))
    return model, config.TrainConfig(dataset_dir=folder, output_dir=folder, batch_size=2, num_workers=0, epochs=1)


@pytest.fixture
def module(configs):
    training = pytest.importorskip("rfdetr.training.module_model")
    torch.manual_seed(0)
    return training.RFDETRModelModule(*configs).train()


def batch(count=3):
    generator = torch.Generator().manual_seed(1)
    targets = []
    for i in range(count):
        boxes = torch.rand(i, 4, generator=generator) * 0.4 + 0.3  # the first image has none
        targets.append({"boxes": boxes, "labels": torch.arange(i) % CLASSES, "image_id": torch.tensor(i)})
    return torch.rand(count, 3, SIZE, SIZE, generator=generator), targets


def by_hand(loss, outputs, targets, indices, groups):
    logits, total = outputs["pred_logits"], 0
    queries = logits.shape[1] // groups
    for group in range(groups):
        labels, quality = torch.zeros(len(logits), queries, logits.shape[2]), torch.zeros(len(logits), queries, logits.shape[2])
        for i, (places, rows) in enumerate(indices):
            for query, row in zip(places.tolist(), rows.tolist(), strict=True):
                if query // queries == group:
                    at = i, query - group * queries, targets[i]["labels"][row]
                    pair = torch.stack([outputs["pred_boxes"][i, query].detach(), targets[i]["boxes"][row]])
                    corners = torch.cat([pair[:, :2] - pair[:, 2:] / 2, pair[:, :2] + pair[:, 2:] / 2], 1)
                    labels[at], quality[at] = 1, paired_iou(corners[:1], corners[1:]).item()
        total += loss(logits[:, group * queries : (group + 1) * queries], labels, quality[labels == 1]) / groups
    return total


@pytest.mark.parametrize("loss", BY_HAND)
def test_every_layer_and_group_is_a_ranking_of_its_own(module, loss):
    use(module, loss)
    images, targets = batch()
    outputs = module.model(images, targets)
    losses = module.criterion(outputs, targets)
    layers = {"": outputs, "_0": outputs["aux_outputs"][0], "_enc": outputs["enc_outputs"]}
    for suffix, layer in layers.items():
        indices = module.criterion.matcher(layer, targets, group_detr=3)
        expected = by_hand(BY_HAND[loss], layer, targets, indices, 3)
        torch.testing.assert_close(losses[f"loss_ce{suffix}"], expected, rtol=1e-4, atol=1e-5)
    ours = torch.autograd.grad(losses["loss_ce"], outputs["pred_logits"], retain_graph=True)[0]
    reference = by_hand(BY_HAND[loss], outputs, targets, module.criterion.matcher(outputs, targets, group_detr=3), 3)
    torch.testing.assert_close(ours, torch.autograd.grad(reference, outputs["pred_logits"], retain_graph=True)[0], rtol=1e-3, atol=1e-6)


def test_a_step_of_its_own_training_and_its_checkpoint(module, configs):
    keys = list(module.state_dict())
    use(module, "rank_sort")
    assert list(module.state_dict()) == keys
    images, targets = batch()
    outputs = module.model(images, targets)
    losses = module.criterion(outputs, targets)
    weights = module.criterion.weight_dict
    sum(losses[name] * weights[name] for name in losses if name in weights).backward()
    gradients = [parameter.grad for parameter in module.model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert {"class_error", "cardinality_error"} <= set(losses)  # what it logs
    module.eval()
    with torch.no_grad():
        assert 0 < module.criterion(module.model(images), targets)["loss_ce"] < 2  # one group


def test_the_loss_falls(module):
    use(module, "rank_sort")
    images, targets = batch()
    optimizer = torch.optim.AdamW(module.model.parameters(), 5e-5)  # at 2e-4 it falls, then rises again
    history = []
    for _ in range(40):
        losses = module.criterion(module.model(images, targets), targets)
        optimizer.zero_grad()
        sum(losses[name] * weight for name, weight in module.criterion.weight_dict.items() if name in losses).backward()
        torch.nn.utils.clip_grad_norm_(module.model.parameters(), 0.1)
        optimizer.step()
        history.append(losses["loss_ce"].item())
    assert sum(history[-10:]) / 10 < 0.3 * history[0], history


def test_targets_that_fill_up_a_batch_are_no_positives(module):
    images, targets = batch()
    outputs = module.model(images, targets)
    criterion = module.criterion
    use(criterion, "ap")
    indices = criterion.matcher(outputs, targets, group_detr=3)
    expected = criterion.loss_labels(outputs, targets, indices, torch.tensor(9.0))["loss_ce"]
    filled = []
    for target in targets:
        rows = {"boxes": torch.tensor([[0.5, 0.5, 0.1, 0.1]]), "labels": torch.tensor([0])}
        filled.append({key: torch.cat([target[key], rows[key]]) for key in rows} | {"valid": torch.ones(len(target["boxes"]) + 1)})
        filled[-1]["valid"][-1] = 0
    spare = [next(q for q in range(20) if q not in set(places.tolist())) for places, _ in indices]
    more = [
        (torch.cat([places, torch.tensor([q])]), torch.cat([rows, torch.tensor([len(target["boxes"])])]))
        for (places, rows), q, target in zip(indices, spare, targets, strict=True)
    ]
    torch.testing.assert_close(criterion.loss_labels(outputs, filled, more, torch.tensor(9.0))["loss_ce"], expected)


def test_the_path_for_compiled_losses_is_not_taken(module):
    use(module, "ap")
    module.criterion.enable_compiled_detection_losses()
    assert not module.criterion._can_batch_detection_losses([], [])


def test_what_does_not_fit_is_refused(module):
    with pytest.raises(ValueError, match="RFDETRModelModule or its SetCriterion expected, got Linear"):
        use(torch.nn.Linear(1, 1), "ap")
    with pytest.raises(ValueError, match="reduction 'mean' expected"):
        use(module, FocalLoss(reduction="none"))
