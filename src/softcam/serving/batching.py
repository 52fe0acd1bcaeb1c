"""Requests that come at the same time go through the model together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from softcam.errors import IdentityError
from softcam.predict import Prediction, PreparedImage
from softcam.serving.problems import Problem

Predict = Callable[[Sequence[PreparedImage]], list[Prediction]]


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
class _Waiting:
    image: PreparedImage
    since: float
    answer: asyncio.Future[Timed]


class Batcher:
    """Run a model on whatever waits when it is free: alone without delay, in batches under load.

    One thread runs the model, since it uses every core by itself.

    Args:
        predict: From prepared images to their predictions, in order.
        batch_size: Most images at a time, >= 1.
    """

    def __init__(self, predict: Predict, batch_size: int) -> None:
        self._predict, self._batch_size = predict, batch_size
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="softcam-model")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work; to be called in a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Stop working."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def submit(self, image: PreparedImage) -> Timed:
        """Return the prediction of an image.

        Raises:
            Problem: If the model's numbers cannot be used.
        """
        answer: asyncio.Future[Timed] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Waiting(image, time.perf_counter(), answer))
        return await answer

    async def run(self, call: Callable[[], object]) -> object:
        """Return what a function returns that uses the model otherwise, run between batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _work(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._batch_size and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            # Whoever went away in the meantime is not waited for.
            if batch := [item for item in batch if not item.answer.done()]:
                await self._answer(batch)

    async def _answer(self, batch: list[_Waiting]) -> None:
        begun = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            predictions = await loop.run_in_executor(self._thread, self._predict, [item.image for item in batch])
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


def _refuse(item: _Waiting, error: Exception) -> None:
    if item.answer.done():
        return
    if isinstance(error, IdentityError):
        item.answer.set_exception(Problem("failed", "the model's maps do not average to its logits for this image"))
    else:
        item.answer.set_exception(error)
