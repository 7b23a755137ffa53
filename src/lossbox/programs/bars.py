"""Progress bars on standard error, where that is a terminal; they are gone when all is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")


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


def bar() -> Progress:
    """An empty bar of rich."""
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
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
