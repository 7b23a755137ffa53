"""Where the recipes are: by path, or by the name of one that ships with lossbox."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..messages import near_name


def find_recipe(name: str, *, option: str = "config") -> Path:
    """The file of a recipe: a path, or the name of one that ships with lossbox (with or without folder and ``.yaml``).

    Args:
        name: the path or the name.
        option: begins the messages: what the user named it by.

    Raises:
        FileNotFoundError: neither; names the recipes that ship.

    Example:
        >>> find_recipe("digits_retinanet_alrp").name
        'digits_retinanet_alrp.yaml'
    """
    if Path(name).is_file():
        return Path(name)
    shipped = {path.stem: path for path in shipped_recipes()}
    stem = Path(name).name.removesuffix(".yaml")
    if stem not in shipped:
        near = near_name(stem, shipped, otherwise="`lossbox fit --help` lists them")
        raise FileNotFoundError(f"{option}: no file {name}, and no recipe of that name ships with lossbox{near}")
    return shipped[stem]


def shipped_recipes() -> Iterator[Path]:
    """The files of the package's folder ``recipes``."""
    return (Path(__file__).parents[1] / "recipes").glob("*.yaml")


def with_recipes(argv: Iterable[str]) -> list[str]:
    """The same words, with the value of each ``--config`` as a path that exists."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in ("-c", "--config"):
            words.append(str(_checked(word)))
        elif word.startswith("--config="):
            words.append(f"--config={_checked(word.removeprefix('--config='))}")
        else:
            words.append(word)
    return words


def resume(out: Path) -> list[str]:
    """The words that make ``lossbox fit`` go on with the run in a folder, none where there is nothing to go on with."""
    return ["--ckpt_path", "last"] if (out / "checkpoints" / "last.ckpt").is_file() else []


def _checked(name: str) -> Path:
    """The file of a recipe, which holds one."""
    read_recipe(name, option="--config")
    return find_recipe(name)


def read_recipe(name: str, *, option: str = "config") -> dict[str, Any]:
    """The content of a recipe, by path or name; see ``find_recipe``."""
    try:
        import yaml
    except ImportError as error:
        raise ImportError("reading a recipe needs PyYAML: pip install 'lossbox[train]'") from error
    path = find_recipe(name, option=option)
    try:
        recipe = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{option}: {path} is not YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{option}: {path} must hold a recipe, got {type(recipe).__name__}")
    return recipe
