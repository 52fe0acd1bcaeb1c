"""Work a few steps ahead in threads, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from softcam.cores import count_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


_MOST_THREADS = 16


def count_threads() -> int:
    """Return how many threads decode images: one per core that this process may use, and at most sixteen."""
    return min(_MOST_THREADS, count_cores())


def map_ahead(
    function: Callable[[int, Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield `function(position, item)` in the order of the items, computed up to `ahead` items early.

    Args:
        function: Called in worker threads; what it raises is raised here, at the item's turn.
        items: Taken lazily in the caller's thread; may be endless.
        threads: Number of workers.
        ahead: Most results that exist at a time and were not yielded, >= 1.

    Yields:
        The results. Closing the generator early cancels what has not begun and waits for what has.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="softcam-decode")
    try:
        for position, item in enumerate(items):
            pending.append(pool.submit(function, position, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """Yield items, each while the next one is computed in a thread.

    Args:
        items: Taken in that thread, one more than was asked for.

    Yields:
        The items. Closing the generator early waits for the one that is being computed.
    """
    rest = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="softcam-model") as pool:
        coming = pool.submit(list, islice(rest, 1))
        while found := coming.result():
            coming = pool.submit(list, islice(rest, 1))
            yield found[0]
