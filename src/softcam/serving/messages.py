"""What passes between the service and its decoders: JSON and plain bytes, so that nothing received can run code.

A message is the length of its description (4 bytes, big-endian), the description, and the parts that it announces.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

_LENGTH = struct.Struct(">I")
_MOST_HEAD = 64 * 1024 * 1024
_MOST_PART = 1024 * 1024 * 1024


def pack(head: dict[str, Any], parts: Sequence[bytes] = ()) -> list[bytes]:
    """Return the pieces of a message.

    Args:
        head: Its description, in JSON values.
        parts: The bytes that belong to it.
    """
    text = json.dumps({**head, "parts": [len(part) for part in parts]}).encode()
    return [_LENGTH.pack(len(text)) + text, *parts]


def read(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]]:
    """Return description and parts of the next message; waits for it.

    Raises:
        EOFError: If the other side is gone.
        ValueError: If it is no message.
    """

    def take(count: int) -> bytes:
        content = stream.read(count)
        if len(content) < count:
            raise EOFError
        return content

    head = _parse(take(_check(take(_LENGTH.size))))
    return head, [take(size) for size in head.pop("parts")]


async def receive(stream: asyncio.StreamReader) -> tuple[dict[str, Any], list[bytes]]:
    """Return description and parts of the next message, in an event loop.

    Raises:
        EOFError: If the other side is gone.
        ValueError: If it is no message.
    """
    head = _parse(await stream.readexactly(_check(await stream.readexactly(_LENGTH.size))))
    return head, [await stream.readexactly(size) for size in head.pop("parts")]


def _check(length: bytes) -> int:
    (size,) = _LENGTH.unpack(length)
    if size > _MOST_HEAD:
        raise ValueError(f"Expected a description of at most {_MOST_HEAD} bytes, but got {size}.")
    return int(size)


def _parse(text: bytes) -> dict[str, Any]:
    head = json.loads(text)
    sizes = head.get("parts") if isinstance(head, dict) else None
    if not isinstance(sizes, list) or not all(type(size) is int and 0 <= size <= _MOST_PART for size in sizes):
        raise ValueError("Expected a description of a message, but got something else.")
    return dict(head)
