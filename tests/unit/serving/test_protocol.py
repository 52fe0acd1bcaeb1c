"""Connections that say nothing, too little or too much, on a real socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def hasty(serve: Callable[..., Any]) -> Any:
    return serve(seconds=0.4)


def connect(client: Any) -> socket.socket:
    url = client.base_url
    return socket.create_connection((url.host, url.port), timeout=20)


def read_to_end(connection: socket.socket) -> bytes:
    content = b""
    while part := connection.recv(65536):
        content += part
    return content


def test_a_silent_connection_is_closed(hasty: Any) -> None:
    begun = time.monotonic()
    with connect(hasty) as connection:
        assert read_to_end(connection) == b""
    assert 0.3 < time.monotonic() - begun < 10


def test_half_a_header_is_answered(hasty: Any) -> None:
    with connect(hasty) as connection:
        connection.sendall(REQUEST[:20])
        assert read_to_end(connection).startswith(b"HTTP/1.1 408 ")


def test_a_header_that_trickles_has_no_more_time(hasty: Any) -> None:
    begun = time.monotonic()
    with connect(hasty) as connection:
        connection.sendall(REQUEST[:-4])
        try:
            for _ in range(100):
                connection.sendall(b"\r\nX: y")
                time.sleep(0.05)
        except OSError:
            pass
    assert time.monotonic() - begun < 3


def test_an_endless_header_is_cut(hasty: Any) -> None:
    with connect(hasty) as connection:
        connection.sendall(REQUEST[:-2] + b"X: " + b"y" * 70_000)
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")


def test_a_connection_is_used_again_and_then_closed(hasty: Any) -> None:
    with connect(hasty) as connection:
        for _ in range(3):
            connection.sendall(REQUEST)
            answer = b""
            while b'"ok"' not in answer:
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK")
            time.sleep(0.2)
        assert read_to_end(connection) == b""


def test_words_are_no_request(hasty: Any) -> None:
    with connect(hasty) as connection:
        connection.sendall(b"\x16\x03\x01 tls hello\r\n\r\n")
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")


def test_the_longest_silent_gives_way(hasty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softcam.serving.protocol._MOST_SILENT", 5)
    connections = [connect(hasty) for _ in range(12)]
    try:
        assert hasty.get("/healthz").status_code == 200
    finally:
        for connection in connections:
            connection.close()
