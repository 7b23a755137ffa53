"""What ``lossbox compare --data`` and ``--minutes`` mean for all runs of a study, as options of ``lossbox fit``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..analysis.study import Study, Variant
from .fit import FILES, data_words, with_data
from .grid import check_options, naming, recipe_of, slug, with_options

DIGITS: dict[str, dict[str, Any]] = {"data/digits": {}, "data/digits_long_tail": {"imbalance": 50.0}}
"""The folders of digits that studies train on, drawn where they are not there, and the options of ``lossbox digits``."""


def data_options(study: Study, data: Path | str | None, out: Path, words: Sequence[str] = ()) -> list[str]:
    """The options of ``lossbox fit`` that say where the images are: a folder of the user's, or the digits, which are drawn where needed.

    Before anything is converted or drawn the options of each variant are looked at, and ``words``, those of all of them.
    """
    recipes = [recipe_of(variant) for variant in study.variants if variant.recipe is not None]
    if not recipes:
        return []
    if data is not None:
        check_options(study, [*data_words(dict.fromkeys(FILES, data)), *words])
        said = with_data(Path(data), ["--config", next(v.recipe for v in study.variants if v.recipe is not None), "--out", str(out)])
        return [word for pair in itertools.pairwise(said) if pair[0].startswith("--data.") for word in pair]
    from ..data.digits import write_digits

    for folder, options in DIGITS.items():
        annotations = f"{folder}/train.json"
        used = any((recipe.get("data") or {}).get("train_annotations") == annotations for recipe in recipes)
        if used and not Path(annotations).is_file():
            check_options(study, words)
            write_digits(folder, **options)
    return []


def epochs_option(study: Study, seconds: float, out: Path, words: Sequence[str]) -> list[str]:
    """The number of epochs that all variants can be trained in so many seconds, by the time of a few steps of each.

    It is kept in OUT/budget.json, so that a study that goes on has the same.
    """
    file = out / "budget.json"
    kept = json.loads(file.read_text()) if file.is_file() else {}
    if kept.get("seconds") != seconds:
        per_epoch = sum(_seconds_per_epoch(study, variant, out, words) for variant in study.variants if variant.recipe is not None)
        if not per_epoch:
            raise ValueError(f"minutes: a study that trains expected, got {study.name}, which only computes")
        kept = {"seconds": seconds, "seconds_per_epoch": per_epoch, "epochs": max(1, int(seconds / per_epoch))}
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(kept) + "\n")
    print(f"{kept['epochs']} epochs for each training: one of all takes about {kept['seconds_per_epoch']:.0f} s", flush=True)
    return ["--trainer.max_epochs", str(kept["epochs"])]


PROBE = {"trainer.max_steps": 8, "trainer.limit_val_batches": 0, "trainer.enable_checkpointing": False, "artifacts": False}
RESERVE = 1.25
"""For validation, checkpoints and images: so many times what the steps take."""


def _seconds_per_epoch(study: Study, variant: Variant, out: Path, words: Sequence[str]) -> float:
    import yaml

    from ..training.cli import LossboxCLI

    folder = out / "probe" / slug(variant.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(with_options(recipe_of(variant), PROBE), sort_keys=False))
    with naming(study.file, variant):
        cli = LossboxCLI(["fit", "--config", str(folder / "recipe.yaml"), "--out", str(folder), *words])
    rows = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    steps: list[float] = sorted(row["seconds"] for row in rows[1:] or rows)
    return RESERVE * steps[len(steps) // 2] * len(cli.datamodule.train_dataloader())
