"""Transformers' detectors with a loss of ours: every ranking against one written by hand, overfitting, Trainer, checkpoints, processes."""

import copy
import io
import sys
from pathlib import Path

import pytest
import torch

from lossbox.boxes import paired_iou
from lossbox.integrations import transformers as adapter
from lossbox.integrations._queries import query_loss
from lossbox.integrations._scores import find_loss
from lossbox.integrations.transformers import use
from lossbox.losses import FocalLoss, alrp_loss, ap_loss, rank_sort_loss

transformers = pytest.importorskip("transformers", reason="an environment of its own has it: make test-integrations")
pytest.importorskip("accelerate")
sys.path.insert(0, str(Path(__file__).parent))
from transformers_worker import CLASSES, batch, detector, gradients  # noqa: E402

DETECTORS = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2", "detr")
RESULT = {"deimv2": "loss_mal", "detr": "loss_ce"}
BY_HAND = {
    "rank_sort": lambda x, y, q: sum(rank_sort_loss(x, y, q)),
    "alrp": lambda x, y, q: alrp_loss(x, y, (1 - q) / 0.5)[0],
    "ap": lambda x, y, q: ap_loss(x, y),
}


def iou(a, b):
    """Of two boxes: center x and y, width, height."""
    corners = [torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2])[None] for x, y, w, h in (a.detach(), b)]
    return paired_iou(*corners).squeeze()  # not in another precision: equal qualities must stay equal


def by_hand(name, loss, logits, outputs, targets, indices):
    """One layer: a loop over images and matches."""
    if name == "detr":
        p = logits.double().softmax(-1)[..., :-1]
        logits = (p / (1 - p)).log()
    labels, quality = torch.zeros_like(logits), torch.zeros_like(logits)
    for i, (queries, rows) in enumerate(indices):
        for query, row in zip(queries.tolist(), rows.tolist(), strict=True):
            label = targets[i]["class_labels"][row]
            labels[i, query, label] = 1
            quality[i, query, label] = iou(outputs["pred_boxes"][i, query], targets[i]["boxes"][row])
    return BY_HAND[loss](logits, labels, quality[labels == 1])


def class_losses(model):
    """What the criterion hands to its class loss at each call, the result and its gradient with respect to the logits."""
    calls, ours = [], model.loss_function.ours
    (name,) = [name for name, value in ours.__globals__.items() if getattr(value, "__name__", "").endswith("WithOurLoss")]
    criterion = ours.__globals__[name]
    (method,) = [name for name in vars(criterion) if name.startswith("loss_labels")]
    inner = vars(criterion)[method]

    def recorded(self, outputs, targets, indices, num_boxes, **options):
        logits = outputs["logits"].detach().requires_grad_()
        ((_, value),) = inner(self, {**outputs, "logits": logits}, targets, indices, num_boxes, **options).items()
        calls.append((logits, outputs, targets, indices, value, torch.autograd.grad(3 * value, logits, retain_graph=True)[0]))
        return inner(self, outputs, targets, indices, num_boxes, **options)

    setattr(criterion, method, recorded)
    return calls


@pytest.mark.parametrize("loss", BY_HAND)
@pytest.mark.parametrize("name", DETECTORS)
def test_every_layer_is_a_ranking_of_its_own(name, loss):
    model = detector(name).train()
    use(model, loss)
    calls = class_losses(model)
    images, targets = batch()
    output = model(pixel_values=images, labels=targets)
    parts = [value for key, value in output.loss_dict.items() if key.startswith(RESULT.get(name, "loss_vfl"))]
    # two decoder layers; and the encoder, two layers of denoising queries
    assert len(calls) == len(parts) == (2 if name == "detr" else 5)
    for (logits, outputs, targets, indices, value, gradient), part in zip(calls, parts, strict=True):
        assert sum(len(queries) for queries, _ in indices) >= sum(len(target["boxes"]) for target in targets)
        expected = by_hand(name, loss, logits, outputs, targets, indices)
        torch.testing.assert_close(value, expected.float(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(part, value)  # weight 1
        torch.testing.assert_close(gradient, torch.autograd.grad(3 * expected, logits)[0], rtol=1e-3, atol=1e-6)


def test_the_weights_of_the_configuration_hold():
    images, targets = batch()
    model = detector("rt_detr_v2", weight_loss_vfl=4.0).train()
    use(model, "ap")
    calls = class_losses(model)
    output = model(pixel_values=images, labels=targets)
    torch.testing.assert_close(output.loss_dict["loss_vfl"], 4 * calls[0][4])


def test_an_elementwise_loss_divides_by_the_boxes():
    images, targets = batch()
    model = detector("rt_detr_v2").train()
    use(model, FocalLoss(alpha=None, gamma=0.0))
    calls = class_losses(model)
    model(pixel_values=images, labels=targets)
    for logits, _, targets, indices, value, _ in calls[:3]:
        labels = torch.zeros_like(logits)
        for i, (queries, rows) in enumerate(indices):
            labels[i, queries, targets[i]["class_labels"][rows]] = 1
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / labels.sum()
        torch.testing.assert_close(value, expected)


def train(model, images, targets, name, steps, rate):
    """The class loss of the last layer, step by step."""
    optimizer, history = torch.optim.AdamW(model.train().parameters(), rate), []
    for _ in range(steps):
        losses = model(pixel_values=images, labels=targets)
        optimizer.zero_grad()
        losses.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history.append(losses.loss_dict[RESULT.get(name, "loss_vfl")].item())
    return history


@pytest.mark.parametrize("name", ["rt_detr_v2", "d_fine", "deimv2"])
def test_tiny_models_overfit_eight_images(name):
    model = detector(name)
    use(model, "rank_sort")
    history = train(model, *batch(), name, 120, 2e-3)
    assert history[0] > 0.8
    assert sum(history[-10:]) / 10 < 0.4 * history[0], history  # single steps jump, by the processor that they were computed on


def test_detr_learns_two_images():
    """With eight the matching of so small a DETR still jumps after 200 steps, with its own loss too."""
    model = detector("detr", decoder_layers=1)
    torch.nn.init.normal_(model.model.query_position_embeddings.weight)  # of 0.02 all queries say the same: scores that tie stay tied
    use(model, "rank_sort")
    history = train(model, *batch(2), "detr", 200, 1e-3)
    assert sum(history[-10:]) / 10 < 0.6 * history[0], history[::10]


@pytest.mark.parametrize("name", ["rt_detr_v2", "detr"])
def test_trainer_with_bfloat16(name, tmp_path):
    images, targets = batch()
    model = detector(name)
    use(model, "rank_sort")
    calls = class_losses(model)
    rows = [{"pixel_values": image, "labels": target} for image, target in zip(images, targets, strict=True)]

    def collate(rows):
        return {"pixel_values": torch.stack([row["pixel_values"] for row in rows]), "labels": [row["labels"] for row in rows]}

    options = {"bf16": True, "use_cpu": True, "report_to": "none", "save_strategy": "no", "remove_unused_columns": False}
    settings = transformers.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=8, max_steps=3, logging_steps=1, disable_tqdm=True, **options
    )
    trainer = transformers.Trainer(model, settings, train_dataset=rows, data_collator=collate)
    trainer.train()
    assert len(calls) == 3 * (2 if name == "detr" else 5)  # denoising queries are there
    assert all(call[0].dtype == torch.bfloat16 and call[4].dtype == torch.float32 for call in calls[:2])
    assert all(torch.isfinite(call[4]) for call in calls)


def test_inference_and_checkpoints_stay_theirs(tmp_path):
    for name in DETECTORS:
        model, theirs = detector(name).eval(), detector(name).eval()
        use(model, "rank_sort")
        images, _ = batch()
        with torch.no_grad():
            assert torch.equal(model(pixel_values=images).logits, theirs(pixel_values=images).logits)
        assert list(model.state_dict()) == list(theirs.state_dict())
        model.save_pretrained(tmp_path / name)
        theirs.save_pretrained(tmp_path / "theirs")
        assert (tmp_path / name / "config.json").read_text() == (tmp_path / "theirs" / "config.json").read_text()
        again = type(model).from_pretrained(tmp_path / name)
        assert again.loss_function.__module__.startswith("transformers.")
        file = io.BytesIO()
        torch.save(model, file)
        assert b"lossbox" not in file.getvalue()
        assert copy.deepcopy(model).loss_function is model.loss_function


def test_batches_without_boxes():
    images, targets = batch()
    empty = [{key: value[:0] for key, value in target.items()} for target in targets]
    for name in ("rt_detr_v2", "detr"):
        model = detector(name).train()
        use(model, "rank_sort")
        output = model(pixel_values=images, labels=empty)
        output.loss.backward()
        assert output.loss_dict[RESULT.get(name, "loss_vfl")] == 0


def test_groups_of_queries_are_rankings_of_their_own():
    generator = torch.Generator().manual_seed(0)
    logits, boxes = torch.randn(2, 12, CLASSES, generator=generator), torch.rand(2, 12, 4, generator=generator) + 0.1
    image, query = torch.tensor([0, 0, 1, 1, 1, 0]), torch.tensor([11, 1, 4, 9, 2, 5])
    classes, truth = torch.tensor([0, 2, 1, 1, 2, 0]), torch.rand(6, 4, generator=generator) + 0.1
    whole = query_loss(find_loss("rank_sort"), logits, boxes, (image, query), classes, truth, num_boxes=6, groups=3)
    expected = 0
    for group in range(3):
        here = query // 4 == group
        places = (image[here], query[here] - 4 * group), classes[here], truth[here]
        part = slice(4 * group, 4 * group + 4)
        expected += query_loss(find_loss("rank_sort"), logits[:, part], boxes[:, part], *places, num_boxes=2) / 3
    torch.testing.assert_close(whole, expected)
    labels, quality = torch.zeros_like(logits), torch.zeros_like(logits)
    for i, q, c, t in zip(image, query, classes, truth, strict=True):
        labels[i, q, c], quality[i, q, c] = 1, iou(boxes[i, q], t)
    one = query_loss(find_loss("rank_sort"), logits, boxes, (image, query), classes, truth, num_boxes=6)
    torch.testing.assert_close(one, sum(rank_sort_loss(logits, labels, quality[labels == 1])))


def test_lw_detr_is_ranked_group_by_group(monkeypatch):
    groups = []
    monkeypatch.setattr(adapter, "query_loss", lambda *args, **options: groups.append(options["groups"]) or query_loss(*args, **options))
    torch.manual_seed(0)
    small = {"d_model": 32, "decoder_layers": 2, "decoder_self_attention_heads": 4, "decoder_cross_attention_heads": 4}
    small |= {"num_queries": 10, "group_detr": 3, "num_labels": CLASSES, "decoder_ffn_dim": 64, "projector_scale_factors": [1.0]}
    body = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16, "num_windows": 4}
    body |= {"window_block_indices": [0], "out_indices": [2], "pretrain_image_size": 64}
    config = transformers.LwDetrConfig(backbone_config=transformers.LwDetrViTConfig(**body), auxiliary_loss=True, **small)
    model = transformers.LwDetrForObjectDetection(config).train()
    use(model, "rank_sort")
    images, targets = batch()
    output = model(pixel_values=images, pixel_mask=torch.ones(len(images), 64, 64), labels=targets)
    output.loss.backward()
    names = [key for key in output.loss_dict if key.startswith("loss_ce")]
    assert names == ["loss_ce", "loss_ce_0", "loss_ce_enc"]
    assert groups == [3, 3, 3]
    assert all(0 < output.loss_dict[name] < 2 for name in names)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"RT-DETR, .* expected, got BertModel"):
        use(transformers.BertModel(transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)), "ap")
    with pytest.raises(ValueError, match=r"DETR.* expected, got Linear"):
        use(torch.nn.Linear(1, 1), "ap")
    with pytest.raises(ValueError, match="CIoULoss is no loss of class scores"):
        use(detector("detr"), "ciou")


def test_a_version_whose_loss_is_built_otherwise_is_refused(monkeypatch):
    model = detector("rt_detr_v2")
    module = sys.modules["transformers.loss.loss_rt_detr"]
    monkeypatch.delattr(module.RTDetrLoss, "loss_labels_vfl")
    with pytest.raises(ValueError, match=r"of this version of transformers builds no RTDetrLoss\.loss_labels_vfl"):
        use(model, "ap")


def test_two_processes_rank_as_one(tmp_path, run_processes):
    run_processes(Path(__file__).parent / "transformers_worker.py", 2, tmp_path)
    images, targets = batch(4)
    for loss, (value, found) in torch.load(tmp_path / "0.pt").items():
        expected, one = gradients(images, targets, loss, False)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
        for key, gradient in found.items():
            torch.testing.assert_close(gradient, one.get(key, torch.zeros_like(gradient)), rtol=1e-2, atol=1e-5)
