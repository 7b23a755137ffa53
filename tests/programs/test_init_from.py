"""`lossbox fit --init-from`, called as a user would, from the run of two training steps."""

import json

import torch
import yaml

from lossbox.__main__ import main


def words(run, out, *more):
    """Trains not at all (a rate of almost 0), so that what it begins with is what it ends with."""
    options = {"trainer.max_epochs": 1, "trainer.check_val_every_n_epoch": 1, "artifacts": "false"}
    options |= {"model.optimizer.init_args.learning_rate": 1e-12}
    return ["fit", "--config", str(run.config), "--out", str(out), *(f"--{k}={v}" for k, v in options.items()), *map(str, more)]


def test_a_run_begins_with_the_weights_of_another(tiny_run, tmp_path, capsys):
    data = tiny_run.out.parent / "data"
    document = json.loads((data / "train.json").read_text())
    swapped = {"3": "9", "9": "3", "5": "five"}
    for category in document["categories"]:
        category["name"] = swapped.get(category["name"], category["name"])
    (tmp_path / "train.json").write_text(json.dumps(document))
    annotations = [f"--data.{part}_annotations={tmp_path / 'train.json'}" for part in ("train", "val")]
    annotations += [f"--data.val_images={data / 'train'}"]
    assert main(words(tiny_run, tmp_path / "run", *annotations, "--init-from", tiny_run.checkpoint)) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("init-from"))
    assert line.startswith(f"init-from {tiny_run.checkpoint}: ")
    assert "of 10 classes 9 matched by name (0, 1, 2, and 6 more), the others new; nothing was left out" in line
    old, new = (torch.load(path, weights_only=True) for path in (tiny_run.checkpoint, tmp_path / "run" / "checkpoints" / "last.ckpt"))
    name = next(n for n in old["state_dict"] if n.startswith("detector.head.classification") and old["state_dict"][n].shape[0] == 10)
    order = [0, 1, 2, 9, 4, 6, 7, 8, 3]
    ours, theirs = new["state_dict"][name], old["state_dict"][name]
    torch.testing.assert_close(ours[[0, 1, 2, 3, 4, 6, 7, 8, 9]], theirs[order], rtol=0, atol=1e-6)
    assert not torch.allclose(ours[5], theirs[5], atol=1e-6)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["init_from"] == str(tiny_run.checkpoint)


def test_it_is_not_for_a_run_that_goes_on_nor_for_other_files(tiny_run, tmp_path, capsys):
    none = tmp_path / "none.ckpt"
    for more, message in (
        (
            ("--init-from", tiny_run.checkpoint, "--ckpt_path", "last"),
            f"--init-from: not beside ckpt_path, got {tiny_run.checkpoint} and last",
        ),
        (("--init-from", none), f"--init-from: no file {none}"),
        (("--init-from", tiny_run.config), f"--init-from: {tiny_run.config} is not a checkpoint of lossbox fit"),
    ):
        capsys.readouterr()
        assert main(words(tiny_run, tmp_path / "run", *more)) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
