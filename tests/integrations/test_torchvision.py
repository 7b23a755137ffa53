"""torchvision's detectors with a loss of ours: loss and gradient against loops written by hand, training, inference, checkpoints."""

import copy
import io
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torchvision.models.detection import MaskRCNN
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from lossbox.integrations._scores import log_odds
from lossbox.integrations.torchvision import use
from lossbox.losses import ALRPLoss, APLoss, FocalLoss, RankSortLoss, alrp_loss, ap_loss, rank_sort_loss
from lossbox.objective import ALRPObjective, RankSortObjective

sys.path.insert(0, str(Path(__file__).parent))
from torchvision_worker import LOSSES, batch, detector, gradients

DETECTORS = ("retinanet", "fcos", "ssd", "faster_rcnn")


def seen_by(owner):
    """What torchvision hands to ``compute_loss`` of ``owner`` from now on; the outputs become leaves of which gradients can be asked."""
    arguments, inner = [], owner.compute_loss

    def compute_loss(targets, outputs, anchors, matched):
        outputs = {name: tensor.detach().requires_grad_() for name, tensor in outputs.items()}
        arguments.append((targets, outputs, anchors, matched))
        return inner(targets, outputs, anchors, matched)

    owner.compute_loss = compute_loss
    return arguments


def by_hand(name, loss, targets, outputs, anchors, matched, coder):
    """Class and box loss, image by image, positive by positive."""
    labels, quality, giou = torch.zeros_like(outputs["cls_logits"]), [], []
    for i, target in enumerate(targets):
        labels[i, matched[i] == -2] = -1
        for a in (matched[i] >= 0).nonzero().flatten().tolist():
            labels[i, a, target["labels"][matched[i][a]]] = 1
            truth = target["boxes"][matched[i][a]][None]
            decode = coder.decode if name == "fcos" else coder.decode_single
            box = decode(outputs["bbox_regression"][i, a][None], anchors[i][a][None])
            quality.append(box_iou(box.detach(), truth).squeeze())
            giou.append(generalized_box_iou_loss(box, truth).squeeze())
    quality, giou, logits = torch.stack(quality), torch.stack(giou), outputs["cls_logits"]
    if name == "ssd":
        p = logits.double().softmax(-1)[..., 1:]
        logits, labels = (p / (1 - p)).log(), labels[..., 1:]
    score = logits[labels == 1].detach().sigmoid()
    if loss == "rank_sort":
        classification, box = sum(rank_sort_loss(logits, labels, quality)), (score * giou).sum() / score.sum()
        return classification, classification.detach() / box.detach() * box
    if loss == "alrp":
        classification, box = alrp_loss(logits, labels, giou)  # (GIoU loss / 2) / (1 - 0.5)
    else:
        classification, box = ap_loss(logits, labels), giou.mean()
    return classification, (classification + box).detach() / box.detach() * box


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", DETECTORS[:3])
def test_loss_and_gradient_are_those_written_by_hand(name, loss):
    model = detector(name)
    use(model, loss)
    arguments = seen_by(model if name == "ssd" else model.head)
    losses = model(*batch())
    ((targets, outputs, anchors, matched),) = arguments
    assert sum(int((of_image >= 0).sum()) for of_image in matched) > 3
    classification, box = by_hand(name, loss, targets, outputs, anchors, matched, model.box_coder)
    torch.testing.assert_close(losses["classification"], classification.float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses["bbox_regression"], box.float(), rtol=1e-4, atol=1e-6)
    leaves = outputs["cls_logits"], outputs["bbox_regression"]
    ours = torch.autograd.grad(2 * losses["classification"] + 3 * losses["bbox_regression"], leaves)
    theirs = torch.autograd.grad(2 * classification + 3 * box, leaves)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-7)


def test_the_second_stage_of_faster_rcnn_is_that_written_by_hand():
    model = detector("faster_rcnn")
    use(model, "rank_sort")
    heads, seen = model.roi_heads, {}
    sample, predict = heads.select_training_samples, heads.box_predictor.forward
    heads.select_training_samples = lambda *given: seen.setdefault("samples", sample(*given))
    heads.box_predictor.forward = lambda x: seen.setdefault("outputs", predict(x))
    losses = model(*batch())
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    proposals, _, labels, offsets = seen["samples"]
    logits, regression = seen["outputs"]
    labels, proposals, offsets = torch.cat(labels), torch.cat(proposals), torch.cat(offsets)
    boxes, truth = [], []
    for i in (labels > 0).nonzero().flatten().tolist():
        boxes.append(heads.box_coder.decode_single(regression[i].view(-1, 4)[labels[i]][None], proposals[i][None]))
        truth.append(heads.box_coder.decode_single(offsets[i][None], proposals[i][None]))
    boxes, truth = torch.cat(boxes), torch.cat(truth)
    assert len(boxes) >= 3
    one_hot = torch.zeros_like(logits, dtype=torch.long)
    one_hot[range(len(labels)), labels] = 1
    p = logits.double().softmax(-1)[:, 1:]
    x, y = (p / (1 - p)).log(), one_hot[:, 1:]
    giou, score = generalized_box_iou_loss(boxes, truth), x[y == 1].detach().sigmoid()
    classification = sum(rank_sort_loss(x, y, box_iou(boxes, truth).diag()))
    box = (score * giou).sum() / score.sum()
    torch.testing.assert_close(losses["loss_classifier"], classification.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["loss_box_reg"], losses["loss_classifier"].detach(), rtol=1e-3, atol=1e-5)  # as rank_sort weighs
    ours = torch.autograd.grad(losses["loss_classifier"] + losses["loss_box_reg"], (logits, regression))
    theirs = torch.autograd.grad(classification + classification.detach() / box.detach() * box, (logits, regression))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", ["rank_sort", "alrp", "ap"])
def test_the_region_proposals_compare_what_the_image_shows(loss):
    """About a unit square IoU and GIoU are those of the decoded boxes in the image."""
    model = detector("faster_rcnn")
    use(model, "ap", rpn=loss)
    rpn, seen = model.rpn, {}
    assign, compute = rpn.assign_targets_to_anchors, rpn.compute_loss
    rpn.assign_targets_to_anchors = lambda anchors, targets: seen.setdefault("assigned", (anchors, *assign(anchors, targets)))[1:]
    rpn.compute_loss = lambda *given: seen.setdefault("given", given) and compute(*given)
    losses = model(*batch())
    objectness, regression, labels, _ = seen["given"]
    anchors, _, truth = seen["assigned"]
    labels = torch.cat(labels)
    positive = labels == 1
    boxes = rpn.box_coder.decode_single(regression[positive], torch.cat(anchors)[positive])
    truth = torch.cat(truth)[positive]
    giou = generalized_box_iou_loss(boxes, truth)
    x = objectness.flatten()
    if loss == "rank_sort":
        expected = sum(rank_sort_loss(x, labels, box_iou(boxes, truth).diag()))
    else:
        expected = ap_loss(x, labels)
    torch.testing.assert_close(losses["loss_objectness"], expected, rtol=1e-4, atol=1e-6)
    if loss == "ap":
        torch.testing.assert_close(losses["loss_rpn_box_reg"], expected + giou.mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "loss"), [("retinanet", "alrp"), ("fcos", "rank_sort"), ("ssd", "ap"), ("faster_rcnn", "rank_sort")])
def test_each_detector_learns(name, loss):
    model = detector(name)
    two_stages = name == "faster_rcnn"
    use(model, loss, **({"rpn": "alrp"} if two_stages else {}))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2 if two_stages else 4e-3)
    history = []
    for _ in range(40 if two_stages else 25):
        losses = model(*batch())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        names = ("loss_objectness", "loss_classifier") if two_stages else ("classification",)
        history.append([losses[name].item() for name in names])
    assert all(last < 0.75 * first for first, last in zip(history[0], history[-1], strict=True)), history


@pytest.mark.parametrize("name", DETECTORS)
def test_inference_checkpoints_and_weights_stay_theirs(name):
    model, theirs = detector(name).eval(), detector(name).eval()
    keys = list(model.state_dict())
    use(model, ALRPObjective())  # it has buffers
    images, _ = batch()
    with torch.no_grad():
        for ours, expected in zip(model(images), theirs(images), strict=True):
            assert all(torch.equal(ours[key], expected[key]) for key in expected)
    assert list(model.state_dict()) == keys
    file = io.BytesIO()
    torch.save(model, file)
    assert b"lossbox" not in file.getvalue()
    assert b"torchvision" in file.getvalue()  # names would be seen
    model.train()
    copied = copy.deepcopy(model)  # as averaged weights are made
    sum(copied(*batch()).values()).backward()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_pretrained_weights_are_fine_tuned_on_other_classes():
    """As with weights="COCO_V1" and a new head, without the download: the weights go through a file."""
    file = io.BytesIO()
    torch.save(detector("retinanet", seed=5).state_dict(), file)
    file.seek(0)
    model = detector("retinanet")
    model.load_state_dict(torch.load(file, weights_only=True))
    head = model.head.classification_head
    head.num_classes, head.cls_logits = 2, torch.nn.Conv2d(32, head.num_anchors * 2, 3, padding=1)
    use(model, "rank_sort")
    images, targets = batch()
    losses = model(images, [target | {"labels": target["labels"].clamp(max=1)} for target in targets])
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_batches_without_boxes():
    images, targets = batch()
    for name in DETECTORS:
        model = detector(name)
        use(model, "rank_sort", **({"rpn": "alrp"} if name == "faster_rcnn" else {}))
        losses = model(images[3:], targets[3:])
        sum(losses.values()).backward()
        assert all(value == 0 for value in losses.values())


def test_bfloat16():
    for name in DETECTORS:
        model = detector(name)
        use(model, "rank_sort")
        with torch.autocast("cpu", torch.bfloat16):
            losses = model(*batch())
        assert losses.keys()
        total = sum(losses.values())
        total.backward()
        assert torch.isfinite(total)


def test_an_objective_keeps_its_own_balance():
    model, objective = detector("retinanet"), ALRPObjective(localization_weight=7.0)
    use(model, objective)
    arguments = seen_by(model.head)
    losses = model(*batch())
    classification, box = by_hand("retinanet", "alrp", *arguments[0], model.box_coder)
    torch.testing.assert_close(losses["classification"], classification)
    unweighted = box / ((classification + losses["bbox_regression"] / 7) / (losses["bbox_regression"] / 7))
    torch.testing.assert_close(losses["bbox_regression"], 7 * unweighted, rtol=1e-4, atol=1e-6)
    objective.end_epoch()
    assert objective.balance.weight != 7


def test_elementwise_losses_are_sums_over_the_positives():
    model = detector("retinanet")
    use(model, FocalLoss())
    arguments = seen_by(model.head)
    losses = model(*batch())
    targets, outputs, _, matched = arguments[0]
    labels = torch.zeros_like(outputs["cls_logits"])
    for i, target in enumerate(targets):
        labels[i, matched[i] == -2] = -1
        positive = matched[i] >= 0
        labels[i, positive.nonzero().flatten(), target["labels"][matched[i][positive]]] = 1
    kept = labels >= 0
    expected = sigmoid_focal_loss(outputs["cls_logits"][kept], labels[kept], reduction="sum") / (labels == 1).sum()
    torch.testing.assert_close(losses["classification"], expected)


def test_log_odds_of_a_softmax():
    x = (torch.randn(50, 6, dtype=torch.float64) * 4).requires_grad_()
    p = x.softmax(-1)
    weight = torch.randn(50, 6, dtype=torch.float64)
    ours, theirs = log_odds(x), (p / (1 - p)).log()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad((weight * y).sum(), x)[0] for y in (ours, theirs)))
    saturated = torch.tensor([[200.0, 0.0, -200.0], [0.0, 0.0, 0.0]], requires_grad=True)
    torch.testing.assert_close(log_odds(saturated), torch.tensor([[200.0, -200.0, -400.0], [-0.6931] * 3]), rtol=1e-4, atol=1e-4)
    # through a sigmoid and the entropy of one class, it is the softmax's own cross-entropy of that class
    loss = -log_odds(saturated)[:, 0].sigmoid().log().sum()
    torch.testing.assert_close(
        torch.autograd.grad(loss, saturated)[0],
        torch.autograd.grad(cross_entropy(saturated, torch.tensor([0, 0]), reduction="sum"), saturated)[0],
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="GIoULoss is no loss of class scores"):
        use(detector("retinanet"), "giou")
    with pytest.raises(ValueError, match=r"SoftmaxFocalLoss is no loss of class scores that a detector can take\. its classes exclude"):
        use(detector("retinanet"), "softmax_focal")
    with pytest.raises(ValueError, match=r"loss: no loss of class scores is called 'rank_srot'; did you mean rank_sort_loss\?"):
        use(detector("retinanet"), "rank_srot")
    with pytest.raises(ValueError, match=r"got cross_entropy; lossbox\.losses\.CustomClassificationLoss"):
        use(detector("retinanet"), cross_entropy)
    with pytest.raises(ValueError, match=r"memory 0 expected, .* got 7"):
        use(detector("retinanet"), APLoss(memory=7))
    with pytest.raises(ValueError, match="reduction 'mean' expected"):
        use(detector("retinanet"), FocalLoss(reduction="sum"))
    with pytest.raises(ValueError, match=r"no objective takes \{'groups': 'class'\} of RankSortLoss"):
        use(detector("retinanet"), RankSortLoss(groups="class"))
    with pytest.raises(ValueError, match=r"no objective takes \{'smooth_localization': True\} of ALRPLoss"):
        use(detector("retinanet"), ALRPLoss(smooth_localization=True))
    with pytest.raises(ValueError, match=r"loss: EqualizationLossV2 needs num_classes: EqualizationLossV2\(num_classes=\.\.\.\) expected"):
        use(detector("retinanet"), "equalization_loss_v2")
    two_stages = detector("faster_rcnn")
    with pytest.raises(ValueError, match="rpn: no loss of class scores is called 'rank_srot'"):
        use(two_stages, "ap", rpn="rank_srot")
    assert "forward" not in vars(two_stages.roi_heads)  # what is refused changes nothing
    masks = detector("faster_rcnn")
    masks.__class__ = MaskRCNN
    with pytest.raises(ValueError, match="MaskRCNN, which has more losses"):
        use(masks, "ap")
    with pytest.raises(ValueError, match="RetinaNet, FCOS, SSD or FasterRCNN of torchvision expected, got Linear"):
        use(torch.nn.Linear(1, 1), "ap")
    with pytest.raises(ValueError, match="rpn: only Faster R-CNN has region proposals, the model is a RetinaNet"):
        use(detector("retinanet"), "ap", rpn="ap")
    model = detector("retinanet")
    model.head = type("OtherHead", (torch.nn.Module,), {"compute_loss": lambda self: {}})()
    with pytest.raises(ValueError, match="RetinaNetHead expected, got OtherHead"):
        use(model, "ap")


def test_delta_reaches_the_objective():
    model = detector("retinanet")
    use(model, RankSortLoss(delta=0.0))
    arguments = seen_by(model.head)
    losses = model(*batch())
    classification, _ = by_hand("retinanet", "rank_sort", *arguments[0], model.box_coder)
    assert not torch.isclose(losses["classification"], classification)


def test_a_second_use_replaces_the_first():
    model = detector("retinanet")
    use(model, RankSortObjective())
    use(model, APLoss(delta=0.0))
    arguments = seen_by(model.head)
    losses = model(*batch())
    classification, _ = by_hand("retinanet", "ap", *arguments[0], model.box_coder)
    assert not torch.isclose(losses["classification"], classification)  # another delta


def test_two_processes_rank_as_one(tmp_path, run_processes):
    run_processes(Path(__file__).parent / "torchvision_worker.py", 2, tmp_path)
    images, targets = batch(6)
    for (name, loss), found in torch.load(tmp_path / "0.pt").items():
        one = gradients(name, loss, images, targets)
        for key, gradient in found.items():
            torch.testing.assert_close(gradient, one[key], rtol=1e-3, atol=1e-6, msg=lambda text, at=(name, loss, key): f"{at}: {text}")


@pytest.mark.parametrize(("name", "labels"), [("retinanet", (-1, 9)), ("fcos", (9,)), ("ssd", (0, 9)), ("faster_rcnn", (0, 9))])
def test_a_label_that_the_model_does_not_have_is_named(name, labels):
    model = use(detector(name), "rank_sort").train()
    for label in labels:
        images, targets = batch()
        targets[1]["labels"][0] = label
        with pytest.raises(
            ValueError, match=rf"targets\[1\]\['labels'\]: from \d to \d expected, as the model has \d classes, got {label}"
        ):
            model(images, targets)
