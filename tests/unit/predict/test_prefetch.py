from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from softcam.predict.prefetch import map_ahead, read_ahead


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("softcam-decode")]


def test_keeps_the_order_though_work_ends_out_of_order() -> None:
    def work(position: int, item: int) -> tuple[int, int]:
        time.sleep(0.01 * (item % 3 == 0))
        return position, item

    assert list(map_ahead(work, range(10, 22), threads=3, ahead=4)) == list(enumerate(range(10, 22)))


@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_takes_no_more_than_it_may(ahead: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in itertools.count():
            taken.append(item)
            yield item

    results = map_ahead(lambda _, item: item, items(), threads=2, ahead=ahead)
    assert next(results) == 0
    assert len(taken) == ahead
    assert next(results) == 1
    assert len(taken) == ahead + 1
    results.close()


def test_works_ahead_while_the_caller_is_busy() -> None:
    started = threading.Event()

    def work(position: int, _: int) -> int:
        if position == 1:
            started.set()
        return position

    results = map_ahead(work, range(3), threads=1, ahead=2)
    next(results)
    assert started.wait(5)
    results.close()


def test_closing_early_ends_the_threads() -> None:
    results = map_ahead(lambda _, item: item, itertools.count(), threads=2, ahead=4)
    next(results)
    assert threads()
    results.close()
    assert not threads()


def test_raises_at_the_items_turn_and_ends_the_threads() -> None:
    def work(_: int, item: int) -> int:
        if item == 2:
            raise KeyError(item)
        return item

    results = map_ahead(work, range(9), threads=2, ahead=5)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError):
        next(results)
    assert not threads()


def test_an_error_of_the_source_ends_the_threads() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(map_ahead(lambda _, item: item, items(), threads=1, ahead=4))
    assert not threads()


def test_the_next_item_is_computed_meanwhile_and_in_order() -> None:
    begun: list[int] = []

    def count() -> Iterator[int]:
        for number in range(4):
            begun.append(number)
            yield number

    found = []
    for number in read_ahead(count()):
        time.sleep(0.05)
        assert len(begun) == min(number + 2, 4)
        found.append(number)
    assert found == [0, 1, 2, 3]


def test_what_the_next_item_raises_comes_at_its_turn() -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    items = read_ahead(fail())
    assert next(items) == 1
    with pytest.raises(KeyError, match="two"):
        next(items)


def test_who_stops_early_leaves_no_thread() -> None:
    items = read_ahead(itertools.count())
    assert next(items) == 0
    items.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("softcam-model")]
