"""Checkpoints that ``lossbox fit`` wrote: reading one, and starting another detector from its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from .. import __version__
from ..detectors.weights import load_pickled

SHOWN = 3
"""So many names of each kind stand in a message."""

FORMAT = 1
"""The version of what a run leaves, ``lossbox_format`` in checkpoints and config.yaml. Version 0.1.0 began with 1."""

DETECTOR = "detector."
"""What the names of the detector's weights begin with in a checkpoint."""


def read_checkpoint(path: Path, *, option: str = "ckpt") -> dict[str, Any]:
    """What is in a checkpoint.

    Args:
        path: of the file.
        option: begins the messages: what the user named the file by.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is something else, or of another format.
    """
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in path.parent.glob("*.ckpt"))) or "no checkpoint"
        raise FileNotFoundError(f"{option}: no file {path}; {path.parent} has {there}. A run keeps its checkpoints in OUT/checkpoints")
    content = load_pickled(path, f"{option}: {path} is not a checkpoint of lossbox fit: it holds more than weights, or is damaged")
    if not isinstance(content, Mapping) or "state_dict" not in content:
        raise ValueError(f"{option}: {path} is not a checkpoint of lossbox fit: it lacks a state_dict")
    check_format(content, f"{option}: {path}")
    return dict(content)


def check_format(content: Mapping[str, Any], where: str) -> None:
    """Whether this version reads what a run left.

    Args:
        content: of a checkpoint, or of the config.yaml of a run.
        where: begins the message.

    Raises:
        ValueError: ``lossbox_format`` is missing or another; it says what to do.

    Example:
        >>> check_format({"lossbox_format": 9}, "ckpt: last.ckpt")
        Traceback (most recent call last):
        ValueError: ckpt: last.ckpt has lossbox_format 9, lossbox 0.1.0 reads 1: a newer version wrote it; upgrade lossbox
    """
    found = content.get("lossbox_format")
    if found == FORMAT:
        return
    if found is None:
        raise ValueError(
            f"{where} has no lossbox_format: a version before 0.1.0, or another program, wrote it. "
            "Train again, or use it with the version that wrote it"
        )
    raise ValueError(f"{where} has lossbox_format {found}, lossbox {__version__} reads {FORMAT}: a newer version wrote it; upgrade lossbox")


def checkpoint_of(run: Path, ckpt: str | Path, *, option: str = "ckpt") -> str:
    """The file of a checkpoint that is named ``last``, ``best`` or by its path; of the folder of a run the best, or else the last.

    Args:
        run: the folder of the run.
        ckpt: which one.
        option: begins the message: what the user named it by.

    Raises:
        FileNotFoundError: the run has no last or best one.
    """
    if Path(ckpt).is_dir():
        found = [path for name in ("best", "last") if (path := Path(ckpt, "checkpoints", f"{name}.ckpt")).is_file()]
        if not found:
            raise FileNotFoundError(
                f"{option}: the folder {ckpt} has no checkpoints/best.ckpt and no checkpoints/last.ckpt; is it that of a run?"
            )
        return str(found[0])
    if str(ckpt) not in ("last", "best"):
        return str(ckpt)
    path = run / "checkpoints" / f"{ckpt}.ckpt"
    if not path.is_file():
        raise FileNotFoundError(f"{option}: no {path}; name the folder of the run, or the file of a checkpoint")
    return str(path)


def config_of(checkpoint: str | Path) -> Path:
    """Where the run of a checkpoint, ``OUT/checkpoints/NAME.ckpt``, keeps its resolved recipe: ``OUT/config.yaml``."""
    return Path(checkpoint).absolute().parents[1] / "config.yaml"


def read_config(path: Path) -> dict[str, Any]:
    """The resolved recipe of a run.

    Args:
        path: of the file, see :func:`config_of`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is something else.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"config: no file {path}; --config names the resolved recipe (OUT/config.yaml) of a checkpoint that was moved"
        )
    try:
        recipe = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config: {path} is not YAML: {error}") from error
    lacking = [name for name in ("model", "data") if not isinstance(recipe, dict) or not isinstance(recipe.get(name), dict)]
    if lacking:
        raise ValueError(f"config: {path} lacks {lacking[0]!r}; the resolved recipe of a run (OUT/config.yaml) expected")
    check_format(recipe, f"config: {path}")
    return dict(recipe)


def start_from(detector: nn.Module, content: Mapping[str, Any], class_names: Sequence[str], *, source: str) -> str:
    """Copies the weights of a checkpoint into a detector, as far as they fit; the outputs of classes of the same name too.

    The weights are those that ``lossbox predict`` uses: the average where one was kept. The outputs of a class are the channels
    ``anchor * C + class`` of the last layer of its head. What does not fit keeps the numbers it has.

    Args:
        detector: any of ``lossbox.detectors``; its weights are written to.
        content: of the checkpoint.
        class_names: of the detector's labels, in their order.
        source: names the checkpoint in messages.

    Returns:
        A line that says what was taken, which classes were matched, and what was not taken.

    Raises:
        ValueError: nothing fits.

    Example:
        >>> from lossbox.detectors import DenseHead
        >>> content = {"state_dict": {f"detector.{k}": v for k, v in DenseHead(4, num_classes=2, levels=1, convs=0).state_dict().items()}}
        >>> content["lossbox_categories"] = [[1, "cat"], [2, "dog"]]
        >>> start_from(DenseHead(4, num_classes=3, levels=1, convs=0), content, ["dog", "cow", "pig"], source="best.ckpt")
        'init-from best.ckpt: 4 of 4 tensors taken; of 3 classes 1 matched by name (dog), the others new; nothing was left out'
    """
    theirs = {name.removeprefix(DETECTOR): value for name, value in content["state_dict"].items() if name.startswith(DETECTOR)}
    stored = [str(name) for _, name in content.get("lossbox_categories", [])]
    matched = [name for name in class_names if name in stored]
    mine, by_class = detector.state_dict(), _class_outputs(detector)
    copies: list[tuple[Tensor, Tensor]] = []
    shapes: dict[str, str] = {}
    unmatched: list[str] = []
    for name in (name for name in mine if name in theirs):
        target, value = mine[name], theirs[name]
        if name in by_class:
            # (anchors * C, ...) to (anchors, C, ...)
            whole = bool(stored) and len(value) % len(stored) == 0
            old = value.unflatten(0, (-1, len(stored))) if whole else value[None, :0]
            new = target.unflatten(0, (-1, len(class_names)))
            if whole and (len(old), *old.shape[2:]) != (len(new), *new.shape[2:]):
                shapes[name] = f"{name} is {tuple(value.shape)}, not {tuple(target.shape)}"
            elif matched and whole:
                copies += [(new[:, class_names.index(label)], old[:, stored.index(label)]) for label in matched]
            else:
                unmatched.append(name)
        elif value.shape == target.shape:
            copies.append((target, value))
        else:
            shapes[name] = f"{name} is {tuple(value.shape)}, not {tuple(target.shape)}"
    left = {
        "of another shape": list(shapes.values()),
        "of other classes": unmatched,
        "not in the checkpoint": [name for name in mine if name not in theirs],
        "in the checkpoint only": [name for name in theirs if name not in mine],
    }
    rest = ", ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in left.items() if names)
    taken = len(mine) - sum(len(left[kind]) for kind in ("of another shape", "of other classes", "not in the checkpoint"))
    if not any(target.is_floating_point() for target, _ in copies):  # the counters of batch norms fit everywhere
        raise ValueError(f"init_from: nothing in {source} fits this {type(detector).__name__}: {rest or 'it holds no detector'}")
    with torch.no_grad():
        for target, value in copies:
            target.copy_(value)
    classes = _classes(matched, stored, class_names, fit=by_class <= theirs.keys() - shapes.keys())
    end = f"not taken: {rest}" if rest else "nothing was left out"
    return f"init-from {source}: {taken} of {len(mine)} tensors taken; {classes}; {end}"


def _class_outputs(detector: nn.Module) -> set[str]:
    """The names of the weights that stand for classes: those of the layer ``classification`` of a head that has ``num_classes``."""
    names = set()
    for name, module in detector.named_modules():
        outputs = getattr(module, "classification", None)
        if hasattr(module, "num_classes") and isinstance(outputs, nn.Module):
            prefix = f"{name}.classification" if name else "classification"
            names |= {f"{prefix}.{parameter}" for parameter, _ in outputs.named_parameters()}
    return names


def _classes(matched: Sequence[str], stored: Sequence[str], names: Sequence[str], *, fit: bool) -> str:
    """What became of the classes, for the line."""
    if not fit:
        return f"all {len(names)} classes new, as its outputs have another shape or place"
    if not stored:
        return f"all {len(names)} classes new, as it does not hold the names of its classes"
    if not matched:
        return f"of {len(names)} classes none matched by name, all new (it has {_first(stored)})"
    others = "the others new" if len(matched) < len(names) else "no other"
    return f"of {len(names)} classes {len(matched)} matched by name ({_first(matched)}), {others}"


def _first(names: Sequence[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
