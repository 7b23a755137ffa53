"""The lines of a training where there is no progress bar: one at least every ten seconds, with the time that is left."""

import re

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from lossbox.training.progress import ProgressLines


class Task(LightningModule):
    def __init__(self, clock):
        super().__init__()
        self.detector = torch.nn.Linear(1, 1)
        self.clock = clock

    def training_step(self, batch, batch_idx):
        self.clock.now += 4.0
        loss = self.detector(batch[0]).mean()
        self.log("train/total", loss.detach())
        return loss

    def validation_step(self, batch, batch_idx):
        self.clock.now += 6.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_no_silence_and_the_time_left(tmp_path, capsys):
    clock = Clock()
    images = DataLoader(TensorDataset(torch.zeros(6, 1)))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, num_sanity_val_steps=0, default_root_dir=tmp_path, callbacks=[ProgressLines(clock)], **quiet
    )
    trainer.fit(Task(clock), images, images)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("epoch", "validating", "training"))]
    # six steps of 4 s, six validation steps of 6 s: a line after each third step and each second batch, and one per epoch
    steps = [re.sub(r"train/total \S+", "LOSS", line) for line in lines[1:]]
    assert steps == [
        "epoch 1/2  step 3/6  36 s left",
        "epoch 1/2  step 6/6  24 s left",
        "validating  batch 2/6",
        "validating  batch 4/6",
        "validating  batch 6/6",
        "epoch 1/2  LOSS  60 s, 60 s left",
        "epoch 2/2  step 3/6  24 s left",
        "epoch 2/2  step 6/6  0 s left",
        "validating  batch 2/6",
        "validating  batch 4/6",
        "validating  batch 6/6",
        "epoch 2/2  LOSS  60 s, 0 s left",
    ]
