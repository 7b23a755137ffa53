"""The data module from files to batches, and the promise that seed, epoch and image alone decide what is fed."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything

from lossbox.coco.read import read_coco
from lossbox.data import images, module
from lossbox.data.digits import write_digits
from lossbox.data.module import CocoDataModule, SeededSampler, collate
from lossbox.data.transforms import Augmentation
from lossbox.records import Batch, Targets

DIGITS = Augmentation(horizontal_flip=0.0, photometric=0.5, scale_jitter=(0.7, 1.4), aspect_jitter=1.2, mosaic=0.5)
PLAIN = Augmentation(horizontal_flip=0.0)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    made = write_digits(tmp_path_factory.mktemp("digits"), train_images=27, val_images=10, size=64, progress=False)
    return {name: getattr(made, name) for name in ("train_annotations", "train_images", "val_annotations", "val_images")}


def epoch_of(data, epoch):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images)
        and all(torch.equal(s.boxes, t.boxes) and s.image_id == t.image_id for s, t in zip(a.targets, b.targets, strict=True))
        for a, b in zip(first, second, strict=True)
    )


# -- batches


def sample(height, width, image_id):
    generator = torch.Generator().manual_seed(image_id)
    boxes = torch.tensor([[1.0, 2.0, width - 1.0, height - 2.0]])
    targets = Targets(boxes, torch.tensor([0]), torch.tensor([False]), image_id, (height, width), (2 * height, 2 * width))
    return torch.rand(3, height, width, generator=generator), targets


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([(32, 64)], (32, 64)), ([(33, 64)], (64, 64)), ([(20, 70), (50, 10)], (64, 96)), ([(1, 1), (64, 64), (60, 3)], (64, 64))],
)
def test_collate_pads_right_and_bottom_to_a_multiple(sizes, expected):
    samples = [sample(*size, image_id) for image_id, size in enumerate(sizes)]
    batch = collate(samples)
    assert isinstance(batch, Batch)
    assert batch.images.shape == (len(sizes), 3, *expected)
    for (image, targets), padded, kept in zip(samples, batch.images, batch.targets, strict=True):
        height, width = image.shape[-2:]
        assert torch.equal(padded[:, :height, :width], image)
        assert padded[:, height:].abs().sum() + padded[:, :, width:].abs().sum() == 0
        assert kept is targets
    assert collate(samples, multiple=128).images.shape[-2:] == (128, 128)


def test_from_files_to_batches(digits):
    data = CocoDataModule(**digits, image_size=64, batch_size=4, augmentation=DIGITS)
    assert data.num_classes == 10  # before setup, as the command line needs it to build the detector
    data.setup("fit")
    assert data.class_names == [str(digit) for digit in range(10)]
    assert data.category_ids == list(range(1, 11))
    assert data.val_ground_truth.image_ids.tolist() == list(range(1, 11))
    batches = list(data.train_dataloader())
    assert len(batches) == 6  # the 3 images that fill no batch wait for another epoch
    assert len({t.image_id for batch in batches for t in batch.targets}) == 24
    for batch in batches:
        assert batch.images.shape == (4, 3, 64, 64)
        assert batch.images.dtype == torch.float32
        assert 0 <= batch.images.min() < batch.images.max() <= 1
    val = list(data.val_dataloader())
    assert [t.image_id for batch in val for t in batch.targets] == list(range(1, 11))
    truth = read_coco(digits["val_annotations"], digits["val_images"])
    for batch in val:
        for targets in batch.targets:
            assert torch.equal(targets.boxes, truth.images[targets.image_id - 1].boxes)
            assert torch.equal(targets.labels, truth.images[targets.image_id - 1].labels)


def test_images_of_many_sizes(coco_folder):
    annotations, images = coco_folder.write()
    data = CocoDataModule(annotations, images, annotations, images, image_size=(45, 80), batch_size=3, augmentation=PLAIN)
    (batch,) = data.train_dataloader()
    assert batch.images.shape == (3, 3, 64, 64)
    assert {t.size for t in batch.targets} == {(45, 60)}
    assert {t.original_size for t in batch.targets} == {(30, 40)}
    five = next(t for t in batch.targets if t.image_id == 5)
    torch.testing.assert_close(five.boxes, torch.tensor([[1.5, 3, 6, 9], [15.75, 7.5, 46.125, 15]]))
    assert five.crowd.tolist() == [False, True]


# -- the order and the random choices


def test_seed_epoch_and_image_decide_what_is_fed(digits):
    def data(**options):
        return CocoDataModule(**digits, **{"image_size": 64, "batch_size": 4, "augmentation": DIGITS, "seed": 1, **options})

    torch.manual_seed(0)
    first = epoch_of(data(), 2)
    torch.manual_seed(123)
    assert same(first, epoch_of(data(), 2))
    assert same(first, epoch_of(data(cache=False), 2))
    assert same(first, epoch_of(data(num_workers=2), 2))
    assert not same(first, epoch_of(data(), 3))
    assert not same(first, epoch_of(data(seed=2), 2))


def test_one_image_looks_different_in_each_epoch(digits):
    data = CocoDataModule(**digits, image_size=64, batch_size=1, augmentation=DIGITS, seed=1)
    looks = []
    for epoch in range(3):
        looks.append(next(batch.images for batch in epoch_of(data, epoch) if batch.targets[0].image_id == 4))
    assert not torch.equal(looks[0], looks[1])
    assert not torch.equal(looks[1], looks[2])


def test_without_a_seed_that_of_seed_everything_is_taken(digits, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)

    def first_epoch(**options):
        return epoch_of(CocoDataModule(**digits, image_size=64, batch_size=4, augmentation=DIGITS, **options), 0)

    assert same(first_epoch(), first_epoch(seed=0))
    monkeypatch.setenv("PL_GLOBAL_SEED", "17")  # what seed_everything(17, workers=True) leaves behind
    assert same(first_epoch(), first_epoch(seed=17))
    assert not same(first_epoch(), first_epoch(seed=0))


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_an_epoch_without_overlap(processes):
    images = list(range(20))
    samplers = [SeededSampler(images, num_replicas=processes, rank=rank, shuffle=True, seed=4, drop_last=True) for rank in range(processes)]
    whole = SeededSampler(images, num_replicas=1, rank=0, shuffle=True, seed=4, drop_last=True)
    shares = [list(sampler) for sampler in samplers]
    seeds = {index: seed for index, seed, _ in whole}
    assert {len(share) for share in shares} == {20 // processes}
    assert len({index for share in shares for index, _, _ in share}) == 20 // processes * processes
    # The random choices about an image do not depend on the process that gets it.
    assert all(seeds[index] == seed for share in shares for index, seed, _ in share)
    assert len(set(seeds.values())) == 20


class Recorder(LightningModule):
    """Writes down what it is fed."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.fed, self.validated = [], []

    def training_step(self, batch, batch_idx):
        assert isinstance(batch, Batch)
        self.fed.append((self.current_epoch, [t.image_id for t in batch.targets], float(batch.images.double().sum())))
        torch.rand(7)  # what a model may do
        return self.weight * batch.images.mean()

    def validation_step(self, batch, batch_idx):
        self.validated += [t.image_id for t in batch.targets]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_run_that_goes_on_from_a_checkpoint_is_fed_what_it_would_have_been_fed(digits, tmp_path, monkeypatch):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")  # seed_everything sets them for good, this takes them back

    def run(epochs, checkpoint=None, **options):
        recorder = Recorder()
        data = CocoDataModule(**digits, image_size=64, batch_size=8, augmentation=DIGITS, **options)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = Trainer(accelerator="cpu", max_epochs=epochs, num_sanity_val_steps=0, default_root_dir=tmp_path, **quiet)
        trainer.fit(recorder, data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return recorder

    seed_everything(5, workers=True)
    whole = run(3)
    assert len(whole.fed) == 9
    assert whole.validated == 3 * list(range(1, 11))
    assert len({str(ids) for _, ids, _ in whole.fed}) == 9
    torch.manual_seed(99)
    first = run(1)
    torch.manual_seed(77)
    rest = run(3, checkpoint=tmp_path / "1.ckpt")
    assert first.fed + rest.fed == whole.fed


def test_mosaics_are_made_for_training_alone_and_as_often_as_wanted(digits):
    def epoch(mosaic):
        data = CocoDataModule(**digits, image_size=64, batch_size=1, augmentation=replace(PLAIN, mosaic=mosaic), seed=1)
        return {batch.targets[0].image_id: batch for batch in epoch_of(data, 0)}, list(data.val_dataloader())

    (never, val), (some, _), (always, val_beside) = epoch(0.0), epoch(0.5), epoch(1.0)
    assert same(val, val_beside)
    # what is no mosaic is what it is without the option
    changed = {
        name: sum(not torch.equal(epoch[i].images, never[i].images) for i in never) for name, epoch in (("some", some), ("all", always))
    }
    assert changed["all"] == 27
    assert 6 < changed["some"] < 21
    for batch in always.values():
        targets = batch.targets[0]
        assert len(targets.boxes) == len(targets.labels) == len(targets.crowd)
        assert targets.size == (64, 64)


class Sides(Recorder):
    """Writes down the longer side of every batch and its epoch."""

    def training_step(self, batch, batch_idx):
        self.fed.append((self.current_epoch, max(batch.images.shape[-2:])))
        return self.weight * batch.images.mean()


def sides_of(data, tmp_path, **length):
    recorder = Sides()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", limit_val_batches=0, num_sanity_val_steps=0, default_root_dir=tmp_path, **quiet, **length)
    trainer.fit(recorder, data)
    return recorder.fed


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_images_grow_and_mosaics_end_in_the_course_of_a_training(digits, tmp_path):
    look = Augmentation(horizontal_flip=0.0, mosaic=0.5, mosaic_until=0.75)
    data = CocoDataModule(**digits, image_size=128, start_scale=0.5, batch_size=9, augmentation=look)
    sides = sides_of(data, tmp_path, max_epochs=8)
    assert [side for epoch in range(8) for side in sorted({s for e, s in sides if e == epoch})] == [64, 64, 96, 96, 128, 128, 128, 128]
    assert [mosaic for _, mosaic in data.course()] == [0.5] * 6 + [0.0] * 2


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_course_of_a_training_whose_length_is_given_in_steps(digits, tmp_path):
    data = CocoDataModule(**digits, image_size=128, start_scale=0.5, batch_size=9)
    sides = sides_of(data, tmp_path, max_epochs=-1, max_steps=7)  # three steps per epoch
    assert [side for _, side in sides] == [64] * 3 + [96] * 3 + [128]


def test_both_sides_grow_and_end_at_what_was_asked_for(digits):
    data = CocoDataModule(**digits, image_size=(100, 150), start_scale=0.5)
    data.trainer = SimpleNamespace(max_epochs=6)
    assert [size for size, _ in data.course()] == [(64, 64), (64, 96), (64, 128), (96, 128), (100, 150), (100, 150)]


@pytest.mark.parametrize("scale", [0.0, 1.5, float("nan")])
def test_start_scale_out_of_range_is_named(digits, scale):
    with pytest.raises(ValueError, match=r"start_scale: a number in \(0, 1\] expected"):
        CocoDataModule(**digits, image_size=128, start_scale=scale)


# -- memory


def test_cache_is_for_small_sets_only(digits, monkeypatch):
    decoded = []
    original = images.decode_image
    monkeypatch.setattr(images, "decode_image", lambda image, **options: decoded.append(image.id) or original(image, **options))

    def decoded_in_two_epochs(**options):
        decoded.clear()
        loader = CocoDataModule(**digits, image_size=64, batch_size=3, augmentation=PLAIN, **options).train_dataloader()
        for _ in range(2):
            list(loader)
        return len(decoded)

    assert decoded_in_two_epochs(cache=True) == 27
    assert decoded_in_two_epochs(cache=False) == 54
    monkeypatch.setattr(module, "CACHE_LIMIT", 27 * 64 * 64 * 3 - 1)
    assert decoded_in_two_epochs(cache=True) == 54
    monkeypatch.setattr(module, "CACHE_LIMIT", 27 * 64 * 64 * 3)
    assert decoded_in_two_epochs(cache=True) == 27


def test_memory_is_pinned_for_a_gpu_alone(digits):
    class OnDevice:
        world_size, global_rank, max_epochs, max_steps = 1, 0, 3, -1

        def __init__(self, name):
            self.strategy = SimpleNamespace(root_device=torch.device(name))

    data = CocoDataModule(**digits, batch_size=3)
    assert not data.train_dataloader().pin_memory
    for device, pinned in (("cpu", False), ("cuda", True)):
        data.trainer = OnDevice(device)
        assert data.train_dataloader().pin_memory is data.val_dataloader().pin_memory is pinned


# -- mistakes


def test_files_that_are_not_there_say_what_to_do(digits):
    for part in ("train", "val"):
        data = CocoDataModule(**{**digits, f"{part}_annotations": Path("/nowhere/set.json")})
        with pytest.raises(
            FileNotFoundError, match=rf"^{part}_annotations: /nowhere/set\.json does not exist\. `lossbox demo` .*--data\.{part}_images"
        ):
            data.setup("fit")
    # Validation alone does not need the training part.
    CocoDataModule(**{**digits, "train_annotations": Path("/nowhere/set.json")}).setup("validate")


def test_both_parts_must_have_the_same_categories(digits, tmp_path):
    document = json.loads(digits["val_annotations"].read_text())
    document["categories"][3]["name"] = "four"
    (tmp_path / "val.json").write_text(json.dumps(document))
    data = CocoDataModule(**{**digits, "val_annotations": tmp_path / "val.json"})
    with pytest.raises(
        ValueError, match=r"^val_annotations: .*val\.json must have the categories of .*train\.json; 2 .* the first is \(4, '3'\)"
    ):
        data.setup("fit")


def test_more_images_in_a_batch_than_there_are(digits):
    with pytest.raises(ValueError, match=r"^batch_size: 28 is more than the 27 images"):
        CocoDataModule(**digits, batch_size=28).train_dataloader()


@pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("num_workers", -1)])
def test_options_out_of_range_are_named(digits, option, value):
    with pytest.raises(ValueError, match=f"^{option}: "):
        CocoDataModule(**digits, **{option: value})


def test_a_part_without_a_single_box_is_refused(coco_folder):
    coco_folder.document["annotations"] = []
    annotations, images = coco_folder.write()
    with pytest.raises(ValueError, match=r"val_annotations: .* has 3 images and not one box; --data.allow_empty true"):
        CocoDataModule(annotations, images, annotations, images).setup()
    CocoDataModule(annotations, images, annotations, images, allow_empty=True).setup()


def test_the_evaluator_does_not_see_dropped_boxes(coco_folder):
    coco_folder.document["annotations"][0]["bbox"] = [0, 0, 0, 0]
    annotations, images = coco_folder.write()
    with pytest.raises(ValueError, match="on_bad_box='drop'"):
        CocoDataModule(annotations, images, annotations, images).setup()
    data = CocoDataModule(annotations, images, annotations, images, on_bad_box="drop")
    with pytest.warns(UserWarning, match="1 of 3 annotations dropped"):
        truth = data.val_ground_truth
    assert truth.boxes.tolist() == [coco_folder.document["annotations"][i]["bbox"] for i in (1, 2)]
    assert truth.category_names == ("cat", "dog")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_named_from_a_worker_too(coco_folder, num_workers):
    annotations, images = coco_folder.write()
    (coco_folder.images / "7.png").write_bytes(b"broken")
    data = CocoDataModule(annotations, images, annotations, images, batch_size=3, num_workers=num_workers)
    with pytest.raises(ValueError, match=r"image id 7: .*7\.png is not an image that can be decoded"):
        list(data.train_dataloader())


# -- the command line


def test_every_option_can_be_given_on_the_command_line(digits):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(CocoDataModule, "data")
    paths = [f"--data.{name}={path}" for name, path in digits.items()]
    parsed = parser.parse_args(
        [*paths, "--data.image_size=[500,833]", "--data.on_bad_box=drop", "--data.augmentation.scale_jitter=[0.5,2]"]
    )
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # before jsonargparse 4.49
    data = instantiate(parsed).data
    assert data.on_bad_box == "drop"
    assert data.train_annotations == digits["train_annotations"]
    assert data.augmentation == replace(Augmentation(), scale_jitter=(0.5, 2.0))
    assert data.image_size == (500, 833)
    help_text = parser.format_help()
    for words in ("--data.cache", "horizontal_flip", "0 where left and", "stop at a box that breaks a rule"):
        assert words in help_text
