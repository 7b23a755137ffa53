"""Parts of messages: the nearest name to a misspelled one, and times in words."""

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


def duration(seconds: float) -> str:
    """A time in words.

    Example:
        >>> duration(8.4), duration(200.0), duration(9000.0)
        ('8 s', '3.3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
