"""Requests of the same time share a forward pass, and no other's fate."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from softcam.errors import IdentityError
from softcam.predict import Prediction, PreparedImage
from softcam.serving.batching import Batcher, Timed
from softcam.serving.problems import Problem


class Model:
    """Notes its batches; holds the first one until it is told to go on."""

    def __init__(self, *, bad: str = "", error: Exception | None = None) -> None:
        self.batches: list[list[str]] = []
        self.go_on = threading.Event()
        self._bad, self._error = bad, error

    def __call__(self, images: Sequence[PreparedImage]) -> list[Prediction]:
        names = [image.id for image in images]
        self.batches.append(names)
        assert self.go_on.wait(30)
        if self._bad in names and self._error is not None:
            raise self._error
        return [Prediction(name, "ok", ("a",), logits=np.zeros(1, np.float32)) for name in names]


async def submit_all(model: Model, names: Sequence[str], batch_size: int = 4) -> list[Timed | BaseException]:
    batcher = Batcher(model, batch_size)
    batcher.start()
    try:
        first = asyncio.create_task(batcher.submit(PreparedImage(names[0])))
        while not model.batches:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(batcher.submit(PreparedImage(name))) for name in names[1:]]
        await asyncio.sleep(0.01)
        model.go_on.set()
        return await asyncio.gather(first, *others, return_exceptions=True)
    finally:
        await batcher.close()


def test_what_waits_goes_together() -> None:
    model = Model()
    answers = asyncio.run(submit_all(model, "abcdefg"))
    assert model.batches == [["a"], ["b", "c", "d", "e"], ["f", "g"]]
    assert [answer.prediction.id for answer in answers] == list("abcdefg")
    assert [answer.batch for answer in answers] == [1, 4, 4, 4, 4, 2, 2]
    assert answers[1].queue_seconds > 0
    assert answers[0].model_seconds > 0


def test_one_image_is_not_the_end_of_others() -> None:
    answers = asyncio.run(submit_all(Model(bad="c", error=IdentityError("x")), "abcd"))
    assert [answer.prediction.id for answer in answers if isinstance(answer, Timed)] == ["a", "b", "d"]
    refused = answers[2]
    assert isinstance(refused, Problem)
    assert (refused.kind, refused.status) == ("failed", 500)


def test_other_errors_reach_their_request() -> None:
    answers = asyncio.run(submit_all(Model(bad="b", error=MemoryError()), "ab"))
    assert isinstance(answers[0], Timed)
    assert isinstance(answers[1], MemoryError)


def test_who_went_away_is_not_computed() -> None:
    async def leave() -> Model:
        model = Model()
        batcher = Batcher(model, 4)
        batcher.start()
        first = asyncio.create_task(batcher.submit(PreparedImage("a")))
        while not model.batches:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(batcher.submit(PreparedImage("b")))
        third = asyncio.create_task(batcher.submit(PreparedImage("c")))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.sleep(0)
        model.go_on.set()
        await asyncio.gather(first, third)
        await batcher.close()
        return model

    assert asyncio.run(leave()).batches == [["a"], ["c"]]


def test_other_work_runs_between_batches() -> None:
    async def run() -> object:
        batcher = Batcher(Model(), 1)
        batcher.start()
        try:
            return await batcher.run(lambda: threading.current_thread().name)
        finally:
            await batcher.close()

    assert str(asyncio.run(run())).startswith("softcam-model")


def test_work_that_fails_fails_its_caller() -> None:
    async def run() -> object:
        batcher = Batcher(Model(), 1)
        try:
            return await batcher.run(lambda: 1 / 0)
        finally:
            await batcher.close()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())
