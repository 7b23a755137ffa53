"""Progress on standard error: bars on a terminal, gone when all is done; elsewhere a line every few seconds, with the time left."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ..messages import duration

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

EVERY = 5.0
"""Seconds between two lines where there is no terminal; what is over before the first one says nothing."""


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The same items, with a bar that counts them."""
    with bar() as progress:
        yield from progress.track(items, total, description=what)


@contextmanager
def stages(total: int) -> Iterator[Callable[[str], None]]:
    """A bar of few long stages; what it yields is called with a name where the next stage begins."""
    with bar() as progress:
        task = progress.add_task("", total=total)

        def begin(name: str) -> None:
            running = bool(progress.tasks[0].description)
            progress.update(task, description=name, advance=int(running), refresh=True)

        yield begin


@contextmanager
def bar() -> Iterator[Progress]:
    """An empty bar of rich; the lines of its tasks where standard error is no terminal."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    except ImportError as error:
        raise ImportError("the progress bar needs rich: pip install 'lossbox[eval]'") from error

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    over = threading.Event()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        if not console.is_terminal:
            threading.Thread(target=_print_lines, args=(progress, over), daemon=True).start()
        try:
            yield progress
        finally:
            over.set()


def _print_lines(progress: Progress, over: threading.Event) -> None:
    while not over.wait(EVERY):
        for task in progress.tasks:
            if not task.finished and task.total:
                elapsed = task.elapsed or 0.0
                left = elapsed * (task.total - task.completed) / task.completed if task.completed else None
                times = f"{duration(elapsed)} so far" + ("" if left is None else f", {duration(left)} left")
                print(f"{task.description}: {task.completed:.0f} of {task.total:.0f}, {times}", file=sys.stderr, flush=True)
