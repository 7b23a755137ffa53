"""What a message says about a name that does not exist: the nearest that does."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near_name(name: str, known: Iterable[str], *, otherwise: str = "", cutoff: float = 0.6) -> str:
    """The end of a message about a misspelled name.

    Args:
        name: what does not exist.
        known: the names that do.
        otherwise: what to say where none is near.
        cutoff: how much of a name must agree, in [0, 1].

    Returns:
        ``; did you mean NAME?``, or else ``; `` and what is said otherwise; empty where that is empty.

    Example:
        >>> near_name("toi", ["toy", "time"]), near_name("zzz", ["toy"], otherwise="there is toy")
        ('; did you mean toy?', '; there is toy')
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    text = f"did you mean {near[0]}?" if near else otherwise
    return f"; {text}" if text else ""
