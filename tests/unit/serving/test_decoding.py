"""Decoders of real processes: what they give, how they end, and that they come back."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import torch

from softcam.imaging import Preprocessing, decode_image
from softcam.serving.decoding import Decoded, DecodePool
from softcam.serving.problems import Problem
from softcam.serving.settings import Limits

PREPROCESSING = Preprocessing(size=32)


def run_in_pool(work: Callable[[DecodePool], Awaitable[Any]], decoders: int = 1, **limits: Any) -> Any:
    async def run() -> Any:
        pool = DecodePool(decoders, Limits(**limits))
        try:
            await pool.start()
            return await work(pool)
        finally:
            pool.close()

    return asyncio.run(run())


async def prepare(pool: DecodePool, content: bytes, *, preview: bool = False, frame: int | None = None) -> Decoded:
    return await pool.prepare(content, preprocessing=PREPROCESSING.to_dict(), frame=frame, preview=preview)


def decode(content: bytes, *, preview: bool = False, frame: int | None = None, **limits: Any) -> Decoded:
    return run_in_pool(lambda pool: prepare(pool, content, preview=preview, frame=frame), **limits)


def find_problem(content: bytes, **limits: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        decode(content, **limits)
    return caught.value


def make_bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side + 1) * side, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_decoder_gives_what_the_library_gives(png: bytes) -> None:
    decoded = decode(png, preview=True)
    image = decode_image(png)
    tensor, geometry = PREPROCESSING(image)
    found = decoded.prepare(PREPROCESSING)
    assert found.tensor is not None
    assert torch.equal(found.tensor, tensor)
    assert decoded.window.dtype == np.uint8
    assert decoded.image.geometry == geometry
    assert decoded.image.digest == image.digest
    assert (decoded.source.format, decoded.source.frames, decoded.source.frame) == ("PNG", 1, None)
    assert decoded.preview is not None
    assert np.array_equal(decode_image(decoded.preview.png).pixels, image.pixels)


def test_no_picture_is_made_that_was_not_asked_for(png: bytes) -> None:
    assert decode(png).preview is None


def test_frames_and_spacing_come_along(make_dicom: Callable[..., bytes]) -> None:
    frames = np.arange(3 * 20 * 20, dtype=np.uint16).reshape(3, 20, 20)
    content = make_dicom(frames, PixelSpacing=[0.5, 0.25])
    decoded = decode(content, frame=2)
    assert (decoded.source.frames, decoded.source.frame) == (3, 2)
    assert decoded.image.spacing == (0.5, 0.25)
    assert "3 frames" in find_problem(content).detail
    assert find_problem(content).kind == "unusable"


def test_an_image_of_many_pixels_takes_the_other_way() -> None:
    bomb = make_bomb(600)
    assert decode(bomb, light_pixels=1000).window.size
    problem = find_problem(bomb, light_pixels=1000, max_pixels=100_000)
    assert (problem.kind, problem.status) == ("too-large", 413)


def test_what_is_no_image_is_of_another_kind() -> None:
    assert find_problem(b"words, words, words").kind == "not-an-image"
    assert find_problem(b"").kind == "unusable"


def test_a_decoder_that_takes_too_long_is_ended_and_the_next_works(png: bytes) -> None:
    async def work(pool: DecodePool) -> tuple[Problem, Decoded]:
        stopped = pool._all[0]._process.pid
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(Problem) as caught:
            await prepare(pool, png)
        assert pool._all[0]._process.pid != stopped
        return caught.value, await prepare(pool, png)

    problem, decoded = run_in_pool(work, decode_seconds=0.5)
    assert problem.kind == "unusable"
    assert "too long" in problem.detail
    assert decoded.window.size


def test_a_decoder_that_dies_is_replaced(png: bytes) -> None:
    async def work(pool: DecodePool) -> tuple[Problem, Decoded]:
        os.kill(pool._all[0]._process.pid, signal.SIGSTOP)
        asked = asyncio.create_task(prepare(pool, png))
        await asyncio.sleep(0.2)
        os.kill(pool._all[0]._process.pid, signal.SIGKILL)
        with pytest.raises(Problem) as caught:
            await asked
        return caught.value, await prepare(pool, png)

    problem, decoded = run_in_pool(work)
    assert "ended its decoder" in problem.detail
    assert decoded.window.size


def test_an_image_is_not_blamed_for_a_decoder_that_died_before_it(png: bytes) -> None:
    async def work(pool: DecodePool) -> Decoded:
        os.kill(pool._all[0]._process.pid, signal.SIGKILL)
        pool._all[0]._process.join()
        return await prepare(pool, png)

    assert run_in_pool(work).window.size


def test_who_goes_away_does_not_take_a_decoder_along(png: bytes) -> None:
    async def work(pool: DecodePool) -> Decoded:
        for _ in range(5):
            asked = asyncio.create_task(prepare(pool, png))
            await asyncio.sleep(0.001)
            asked.cancel()
        return await asyncio.wait_for(prepare(pool, png), 30)

    assert run_in_pool(work).window.size


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is bounded where /proc tells of it")  # noqa: PTH110
def test_memory_is_bounded() -> None:
    problem = find_problem(make_bomb(6000), light_pixels=50_000_000, decoder_bytes=20_000_000)
    assert problem.status in (413, 422)


def test_pixels_of_sixteen_bits_arrive_as_such(make_dicom: Callable[..., bytes]) -> None:
    content = make_dicom(np.arange(400, dtype=np.uint16).reshape(20, 20) * 100)
    decoded = decode(content)
    assert decoded.window.dtype == np.float32
    assert torch.equal(PREPROCESSING.to_input(decoded.window), PREPROCESSING(decode_image(content))[0])


def test_answers_are_bytes_alone(png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a decoder sends is never unpickled, whoever has taken it over."""

    async def work(pool: DecodePool) -> Decoded:
        def refuse(*_: Any) -> None:
            raise AssertionError("an object was received")

        monkeypatch.setattr("pickle.loads", refuse)
        monkeypatch.setattr("pickle.Unpickler", refuse)
        return await prepare(pool, png)

    assert run_in_pool(work).window.size


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\x02[]",
        b'\0\0\0\x0b{"parts":1}',
        b'\0\0\0\x0e{"parts":[-1]}',
        b'\0\0\0\x1c{"parts":[99999999999999999]}',
        b"\0\0\0\x03{]}",
    ],
)
def test_a_decoder_that_says_something_else_is_replaced(said: bytes, png: bytes) -> None:
    async def work(pool: DecodePool) -> tuple[Problem, Decoded]:
        decoder = pool._all[0]
        decoder._reader.feed_data(said)
        with pytest.raises(Problem) as caught:
            await prepare(pool, png)
        return caught.value, await prepare(pool, png)

    problem, decoded = run_in_pool(work)
    assert problem.kind == "unusable"
    assert decoded.window.size
