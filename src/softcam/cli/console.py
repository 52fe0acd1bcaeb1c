"""What commands print: results to stdout, progress and messages to stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

MESSAGES = Console(stderr=True, highlight=False)


class Report(Protocol):
    """A function that long work calls to say how far it is."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Say that `done` of `total` steps of a stage are finished."""


def show(text: str) -> None:
    """Write a result to stdout."""
    sys.stdout.write(f"{text}\n")


def show_json(values: Any) -> None:
    """Write a result to stdout as one JSON document."""
    show(json.dumps(values, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """Write a message to stderr."""
    MESSAGES.print(text, markup=False)


@contextmanager
def telling(name: str) -> Iterator[None]:
    """Write what a part of the library reports of its own decisions to stderr.

    Args:
        name: The part, such as `softcam.predict`.
    """
    logger, handler = logging.getLogger(name), _Saying(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Saying(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stdout; its cells are plain text."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*[cell.replace("[", r"\[") for cell in row])
    # Without a terminal there is no width to fit: a wrapped table could not be read by another program.
    width = None if sys.stdout.isatty() else 200
    Console(file=sys.stdout, highlight=False, width=width).print(table)


class RateColumn(ProgressColumn):
    """Steps per second of late; empty until there are some."""

    def render(self, task: Task) -> Text:
        """Return the rate."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g}/s" if speed else "", style="progress.data.speed")


@contextmanager
def progress() -> Iterator[Report]:
    """Show a bar per stage on stderr while work goes on."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=MESSAGES) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                # What was done before is no work of this call, and would make the rate look better than it is.
                tasks[stage] = bars.add_task(stage, total=total, completed=done)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


def show_headline(metrics: Mapping[str, Any]) -> None:
    """Write the headline table of an evaluation to stdout, and what it decided."""
    from softcam.reporting.summary import headline_rows, headline_sentences

    show_table(("95 % intervals", "SoftCAM", "black box"), headline_rows(metrics))
    for sentence in headline_sentences(metrics):
        show(sentence)
