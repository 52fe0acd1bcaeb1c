"""Requests that come at the same time go through the model together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from softcam.errors import IdentityError
from softcam.predict import Prediction
from softcam.serving.problems import Problem

Item = TypeVar("Item")
Predict = Callable[[Sequence[Item]], list[Prediction]]


@dataclass(frozen=True)
class Timed:
    """A prediction and how long it took.

    Args:
        prediction: What the model says.
        queue_seconds: From the request to its batch.
        model_seconds: Of the batch.
        batch: Images in it.
    """

    prediction: Prediction
    queue_seconds: float
    model_seconds: float
    batch: int


@dataclass(frozen=True)
class _Waiting(Generic[Item]):
    image: Item
    since: float
    answer: asyncio.Future[Timed]


class Batcher(Generic[Item]):
    """Run a model on whatever waits when it is free: alone without delay, in batches under load.

    Args:
        predict: From images to their predictions, in order.
        batch_size: Most images at a time, >= 1.
        lanes: Batches at a time, >= 1. With one more than the model computes, the next is ready when one is done, and
            the cores have no pause in between.
    """

    def __init__(self, predict: Predict[Item], batch_size: int, lanes: int = 1) -> None:
        self._predict, self._batch_size, self._lanes = predict, batch_size, lanes
        self._waiting: asyncio.Queue[_Waiting[Item]] = asyncio.Queue()
        self._free = asyncio.Semaphore(lanes)
        self._alone = asyncio.Lock()
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="softcam-model")
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to work; to be called in a running event loop."""
        self._begin(self._work())

    async def close(self) -> None:
        """Stop working."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def submit(self, image: Item) -> Timed:
        """Return the prediction of an image.

        Raises:
            Problem: If the model's numbers cannot be used.
        """
        answer: asyncio.Future[Timed] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Waiting(image, time.perf_counter(), answer))
        return await answer

    async def run(self, call: Callable[[], object]) -> object:
        """Return what a function returns that uses the model otherwise, run between batches."""
        async with self._alone, AsyncExitStack() as lanes:
            for _ in range(self._lanes):
                await lanes.enter_async_context(self._free)
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            await self._free.acquire()
            while len(batch) < self._batch_size and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            # Whoever went away in the meantime is not waited for.
            self._begin(self._answer_and_free([item for item in batch if not item.answer.done()]))

    async def _answer_and_free(self, batch: list[_Waiting[Item]]) -> None:
        try:
            if batch:
                await self._answer(batch)
        finally:
            self._free.release()

    async def _answer(self, batch: list[_Waiting[Item]]) -> None:
        begun = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            predictions = await loop.run_in_executor(self._threads, self._predict, [item.image for item in batch])
        except Exception as error:  # noqa: BLE001 - each request has to be answered, whatever went wrong
            if len(batch) > 1:
                # One image's numbers must not be the end of the others.
                for item in batch:
                    await self._answer([item])
                return
            _refuse(batch[0], error)
            return
        seconds = time.perf_counter() - begun
        for item, prediction in zip(batch, predictions, strict=True):
            if not item.answer.done():
                item.answer.set_result(Timed(prediction, begun - item.since, seconds, len(batch)))


def _refuse(item: _Waiting[Any], error: Exception) -> None:
    if item.answer.done():
        return
    if isinstance(error, IdentityError):
        item.answer.set_exception(Problem("failed", "the model's maps do not average to its logits for this image"))
    else:
        item.answer.set_exception(error)
