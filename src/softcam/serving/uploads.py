"""The files of a multipart form, which stay in memory: what is uploaded is on no disk."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from softcam.serving.problems import Problem

_LONGEST_BOUNDARY = 70  # RFC 2046
_LONGEST_HEAD = 4096
_LONGEST_TYPE = 512
_FIELDS = 8
_UNREADABLE = "the body is no multipart form that can be read"


async def read_files(request: Request, most: int) -> list[bytes]:
    """Return the files of a form's parts `file`, in order.

    Args:
        request: Whose body was not read yet.
        most: Files that it may hold; there may be a few other fields beside them, which are ignored.

    Raises:
        Problem: If the body is no such form.
    """
    media_type = request.headers.get("content-type", "")
    kind, options = parse_options_header(media_type) if len(media_type) <= _LONGEST_TYPE else (b"", {})
    if kind != b"multipart/form-data":
        raise Problem("bad-request", "send the image as the part `file` of a multipart form")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= _LONGEST_BOUNDARY:
        raise Problem("bad-request", _UNREADABLE)
    files, others = [], 0
    for head, content in split_form(await _read_body(request), boundary):
        if _is_file(head):
            files.append(content)
        else:
            others += 1
        if len(files) > most or others > _FIELDS:
            raise Problem("bad-request", f"the form has more than {most} files, or more than {_FIELDS} other fields")
    if not files:
        raise Problem("unusable", "the form has no file in its part `file`")
    return files


def split_form(body: bytes, boundary: bytes) -> Iterator[tuple[bytes, bytes]]:
    r"""Yield head and content of each part.

    Args:
        body: Of a multipart form, whole.
        boundary: What its `Content-Type` says.

    Raises:
        Problem: If it is no such form, or ends too early.

    Example:
        >>> list(split_form(b"--x\r\nA: b\r\n\r\ncontent\r\n--x--\r\n", b"x"))
        [(b'A: b', b'content')]
    """
    # Searched as a whole, in linear time; a parser that is fed byte by byte can be kept busy by half a boundary.
    delimiter = b"\r\n--" + boundary
    if not body.startswith(delimiter[2:]):
        raise Problem("bad-request", _UNREADABLE)
    at = len(delimiter) - 2
    while body.startswith(b"\r\n", at):
        head_end = body.find(b"\r\n\r\n", at, at + _LONGEST_HEAD)
        end = body.find(delimiter, head_end + 4) if head_end >= 0 else -1
        if end < 0:
            raise Problem("bad-request", _UNREADABLE)
        yield body[at + 2 : head_end], body[head_end + 4 : end]
        at = end + len(delimiter)
    if not body.startswith(b"--", at):
        raise Problem("bad-request", _UNREADABLE)


async def _read_body(request: Request) -> bytes:
    try:
        return b"".join([chunk async for chunk in request.stream()])
    except ClientDisconnect:
        raise Problem("bad-request", "the body was not sent to its end") from None


def _is_file(head: bytes) -> bool:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            kind, options = parse_options_header(value.strip())
            return kind == b"form-data" and options.get(b"name") == b"file" and b"filename" in options
    return False
