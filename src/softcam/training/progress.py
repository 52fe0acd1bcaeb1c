"""Progress bars on stderr, so that stdout stays free for results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from softcam.training.cache import Report


@contextmanager
def track(description: str, *, visible: bool) -> Iterator[Report]:
    """Yield a function that shows how much is done.

    Args:
        description: What is being done.
        visible: Whether anything is shown at all.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not visible) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
