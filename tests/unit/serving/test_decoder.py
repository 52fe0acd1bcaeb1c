"""What a decoder does in its process, without one; `test_decoding.py` runs real ones."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image

from softcam.errors import ImageTooLargeError
from softcam.imaging import DecodeLimits, Preprocessing, decode_image
from softcam.serving import decoder
from softcam.serving.messages import pack, read

PREPROCESSING = Preprocessing(size=16)


def draw(side: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def ask(*, preview: bool = False, max_pixels: int = 10_000, most_pixels: int = 900) -> dict[str, Any]:
    limits = asdict(DecodeLimits(max_pixels=max_pixels))
    request = {"job": "prepare", "preprocessing": PREPROCESSING.to_dict(), "frame": None}
    return {**request, "limits": limits, "most_pixels": most_pixels, "preview": preview}


def test_the_window_is_that_of_the_library() -> None:
    content = draw(30)
    answer, (window,) = decoder.prepare(ask(), content)
    expected, geometry = PREPROCESSING.sample(decode_image(content))
    assert np.array_equal(np.frombuffer(window, answer["dtype"]).reshape(answer["shape"]), expected)
    assert (answer["geometry"], answer["frames"], answer["preview"]) == (geometry.to_dict(), 1, None)


def test_a_picture_to_show_comes_where_it_is_asked_for() -> None:
    answer, (_, png) = decoder.prepare(ask(preview=True), draw(30))
    assert (answer["preview"]["width"], answer["preview"]["height"]) == (30, 30)
    assert Image.open(io.BytesIO(png)).size == (30, 30)


def test_a_large_image_is_for_another_decoder_and_a_larger_one_for_none() -> None:
    assert decoder.prepare(ask(), draw(31)) == ({"problem": decoder.LARGE, "detail": ""}, ())
    with pytest.raises(ImageTooLargeError, match="more than 950 pixels"):
        decoder.prepare(ask(max_pixels=950), draw(31))


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, BinaryIO]]:
    """A decoder in a thread: signals, priority and memory of this process stay as they are."""
    monkeypatch.setattr(decoder.signal, "signal", lambda *_: None)
    monkeypatch.setattr(decoder.os, "nice", lambda _: 0)
    monkeypatch.setattr(decoder, "limit_memory", lambda _: None)
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=decoder.run_decoder, args=(theirs, 1 << 30), kwargs={"patient": True})
    thread.start()
    with ours, ours.makefile("rb") as stream:
        yield ours, stream
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(30)
        assert not thread.is_alive(), "it ends with the other side"
    theirs.close()


def exchange(running: tuple[socket.socket, BinaryIO], content: bytes) -> dict[str, Any]:
    connection, stream = running
    connection.sendall(b"".join(pack(ask(), (content,))))
    return read(stream)[0]


def test_a_bad_image_is_an_answer_and_the_next_one_is_read(running: tuple[socket.socket, BinaryIO]) -> None:
    assert exchange(running, b"no image")["problem"] == "not-an-image"
    assert exchange(running, draw(30)[:200])["problem"] == "unusable"
    assert exchange(running, draw(30))["shape"] == [16, 16, 3]


def test_too_little_memory_is_an_answer(
    running: tuple[socket.socket, BinaryIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "decode_image", fail)
        assert exchange(running, draw(30)) == {
            "problem": "too-large",
            "detail": "decoding the image needs too much memory",
        }
    assert exchange(running, draw(30))["shape"] == [16, 16, 3]
