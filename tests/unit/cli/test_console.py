from __future__ import annotations

from typing import Any

import pytest
from rich.progress import Progress

from softcam.cli import console
from softcam.cli.console import RateColumn, progress


def test_the_rate_is_that_of_the_work_done_here() -> None:
    now = [0.0]
    bars = Progress(get_time=lambda: now[0])
    task = bars.add_task("explain", total=100, completed=40)
    assert RateColumn().render(bars.tasks[0]).plain == ""
    for second in (1.0, 2.0, 3.0):
        now[0] = second
        bars.update(task, completed=40 + 8 * int(second))
    assert RateColumn().render(bars.tasks[0]).plain == "8/s"


def test_what_was_done_before_does_not_count_as_work(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, Any]] = []

    class Noting(Progress):
        def add_task(self, description: str, *args: Any, **options: Any) -> Any:
            begun.append({"stage": description, **options})
            return super().add_task(description, *args, **options)

    monkeypatch.setattr(console, "Progress", Noting)
    with progress() as report:
        report("explain", 40, 100)
        report("explain", 48, 100)
    assert begun == [{"stage": "explain", "total": 100, "completed": 40}]
