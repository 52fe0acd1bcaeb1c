"""Several trainings at a time: processes that share the cores, and that end with the one that started them."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import TypeVar

import torch

from softcam.cores import count_cores
from softcam.errors import RunError
from softcam.training.values import require

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_all(
    function: Callable[[Item], Result], items: Sequence[Item], *, jobs: int = 1
) -> Generator[tuple[int, Result]]:
    """Yield the number of each item with what a function returns for it, as they are done.

    With one job, or one item, they are worked on here, one after the other. What is left when one fails, or when the
    generator is closed, is not begun, and what has begun is ended.

    Args:
        function: One that can be imported, or a `functools.partial` of it, whose files appear whole or not at all.
        items: What it is called with.
        jobs: Processes, >= 1; each gets its share of the cores.

    Raises:
        RecipeError: If `jobs` is below 1.
        RunError: If a process is ended, such as for want of memory.
    """
    require(jobs >= 1, "jobs", ">= 1", jobs)
    count = min(jobs, len(items))
    if count <= 1:
        for number, item in enumerate(items):
            yield number, function(item)
        return
    threads = max(1, count_cores() // count)
    before = set(active_children())
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin, initargs=(threads,))
    futures = {pool.submit(function, item): number for number, item in enumerate(items)}
    try:
        for future in as_completed(futures):
            yield futures[future], _take(future, jobs)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(active_children()) - before:
            child.kill()  # nothing is lost with it, since files appear whole or not at all
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _take(future: Future[Result], jobs: int) -> Result:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise RunError(
            "Expected all trainings to go through, but the process of one was ended. If memory ran out, use fewer "
            f"than {jobs} jobs. The same command continues."
        ) from error


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process as soon as the one that started it has gone: nobody else would, and it would still write."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
