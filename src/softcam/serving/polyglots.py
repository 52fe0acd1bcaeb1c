"""Files that are an image and something else as well: what comes after the image, or hides before it, is refused.

A decoder ignores it, but whoever keeps or forwards the file may not. Nothing is decoded here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from softcam.errors import ImageError

_HEAD = 1024
_TAIL = 65_557  # the longest end of a ZIP archive
_MARKUP = (b"<script", b"<html", b"<!doctype", b"<?php", b"<svg", b"<?xml-stylesheet")
_PROGRAMS = (b"MZ", b"\x7fELF", b"#!", b"PK\x03\x04", b"%PDF", b"<", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe")
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM")
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # JPEG markers without a length
_MOST_PICTURES = 16
_ZEROS = re.compile(rb"\0*")


def check_sole(content: bytes) -> None:
    """Refuse a file that is more than one image.

    Args:
        content: The file's bytes.

    Raises:
        ImageError: If bytes follow the end of the image, if an archive, a document or a web page is inside, or if a
            DICOM file begins with something that is no preamble.

    Reference:
        CVE-2019-11687 for DICOM files that are programs.
    """
    if content[128:132] == b"DICM":
        if content.startswith((*_PROGRAMS, *_PICTURES)):
            raise ImageError("DICOM file whose preamble is the beginning of another kind of file")
        return
    head = content[:_HEAD].lower()
    if b"%pdf-" in head or any(mark in head for mark in _MARKUP):
        raise ImageError("image that is a document or a web page as well")
    if _ends_as_archive(content):
        raise ImageError("image that is an archive as well")
    for magic, find_end in _ENDS:
        if content.startswith(magic):
            end = find_end(content)
            if end is not None and content[end:].strip(b"\0\r\n "):
                raise ImageError("bytes after the end of the image")


def _ends_as_archive(content: bytes) -> bool:
    tail = content[-_TAIL:]
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return False
    size = int(struct.unpack_from("<I", tail, at + 12)[0])
    begin = len(content) - len(tail) + at - size
    return begin >= 0 and (size == 0 or content[begin : begin + 4] == b"PK\x01\x02")


# Each returns where the image ends; None where that cannot be told, which the decoder will have to say.


def _find_png_end(content: bytes) -> int | None:
    at = 8
    while at + 12 <= len(content):
        length = int(struct.unpack_from(">I", content, at)[0])
        kind = content[at + 4 : at + 8]
        at += 12 + length
        if kind == b"IEND":
            return at
    return None


def _find_jpeg_end(content: bytes) -> int | None:
    # Phones put previews behind the photograph (MPO): pictures of the same kind.
    at = 0
    for _ in range(_MOST_PICTURES):
        end = _find_picture_end(content, at)
        if end is None:
            return None
        following = _ZEROS.match(content, end)
        at = following.end() if following else end
        if not content.startswith(b"\xff\xd8\xff", at):
            return end
    return None


def _find_picture_end(content: bytes, start: int) -> int | None:
    at = start + 2
    while at + 2 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xD9:
            return at + 2
        if marker == 0xFF:
            at += 1
        elif marker in _STANDALONE:
            at += 2
        elif at + 4 > len(content):
            return None
        else:
            length = int(struct.unpack_from(">H", content, at + 2)[0])
            at += 2 + length
            if marker == 0xDA:
                at = _skip_scan(content, at)
    return None


def _skip_scan(content: bytes, at: int) -> int:
    """Return where the next marker is, after the entropy-coded bytes that begin at `at`."""
    while (at := content.find(b"\xff", at)) >= 0 and at + 1 < len(content):
        following = content[at + 1]
        if following and not 0xD0 <= following <= 0xD7:
            return at
        at += 2
    return len(content)


def _find_gif_end(content: bytes) -> int | None:
    if len(content) < 13:
        return None
    at = 13 + (3 * 2 ** ((content[10] & 7) + 1) if content[10] & 0x80 else 0)
    while at < len(content):
        kind = content[at]
        if kind == 0x3B:
            return at + 1
        if kind == 0x21:
            at += 2
        elif kind == 0x2C and at + 10 <= len(content):
            flags = content[at + 9]
            at += 11 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
        else:
            return None
        while at < len(content) and content[at]:
            at += 1 + content[at]
        at += 1
    return None


def _find_riff_end(content: bytes) -> int | None:
    if len(content) < 12:
        return None
    (length,) = struct.unpack_from("<I", content, 4)
    return 8 + int(length) + int(length) % 2


def _find_bmp_end(content: bytes) -> int | None:
    if len(content) < 14:
        return None
    (length,) = struct.unpack_from("<I", content, 2)
    # Some writers leave the size at zero, or count the pixels alone.
    return int(length) if length >= 54 else None


_ENDS: tuple[tuple[bytes, Callable[[bytes], int | None]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _find_png_end),
    (b"\xff\xd8\xff", _find_jpeg_end),
    (b"GIF8", _find_gif_end),
    (b"RIFF", _find_riff_end),
    (b"BM", _find_bmp_end),
)
