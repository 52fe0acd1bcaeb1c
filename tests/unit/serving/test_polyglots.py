"""Images pass; what is something else as well does not."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from softcam.errors import ImageError
from softcam.serving.polyglots import check_sole

KINDS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
PIXELS = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def make_archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("program", b"x" * 100)
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_passes(kind: str, make_image: Callable[..., bytes]) -> None:
    check_sole(make_image(PIXELS, kind))


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"quality": 5}, {"restart_marker_blocks": 1}, {"comment": b"a"}]
)
def test_every_jpeg_passes(options: dict[str, object]) -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "JPEG", **options)
    check_sole(stream.getvalue())
    with pytest.raises(ImageError, match="after the end"):
        check_sole(stream.getvalue() + b"more")


def test_previews_behind_a_photograph_pass(make_image: Callable[..., bytes]) -> None:
    picture = make_image(PIXELS, "JPEG")
    check_sole(picture + picture)
    check_sole(picture + b"\0\0\0" + picture + b"\0" * 40)
    with pytest.raises(ImageError, match="after the end"):
        check_sole(picture + picture + b"more")


def test_an_animation_passes() -> None:
    stream = io.BytesIO()
    frames = [Image.fromarray(PIXELS + step) for step in range(3)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    check_sole(stream.getvalue())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "TIFF"])
@pytest.mark.parametrize("rest", [b"<?php", b"x", b"\0\0MZ"])
def test_bytes_after_the_end_are_refused(kind: str, rest: bytes, make_image: Callable[..., bytes]) -> None:
    with pytest.raises(ImageError, match=r"after the end|web page"):
        check_sole(make_image(PIXELS, kind) + rest)


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_behind_an_image_is_refused(kind: str, make_image: Callable[..., bytes]) -> None:
    with pytest.raises(ImageError, match="archive as well"):
        check_sole(make_image(PIXELS, kind) + make_archive())


def test_an_empty_archive_is_one(make_image: Callable[..., bytes]) -> None:
    with pytest.raises(ImageError, match="archive as well"):
        check_sole(make_image(PIXELS, "TIFF") + b"PK\x05\x06" + bytes(18))


def test_the_letters_of_an_archive_are_none(make_image: Callable[..., bytes]) -> None:
    check_sole(make_image(PIXELS, "TIFF") + b"PK\x05\x06" + b"\xff" * 18)


@pytest.mark.parametrize("mark", [b"%PDF-1.7", b"<script>", b"<HTML>", b"<?php", b"<svg "])
def test_a_document_in_a_comment_is_refused(mark: bytes) -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "JPEG", comment=mark)
    with pytest.raises(ImageError, match="document or a web page"):
        check_sole(stream.getvalue())


def test_a_dicom_file_passes(make_dicom: Callable[..., bytes]) -> None:
    content = make_dicom(np.zeros((8, 8), np.uint8))
    check_sole(content)
    check_sole(b"II*\0" + content[4:])  # a TIFF reader's way into a whole-slide image, which the standard allows


@pytest.mark.parametrize(
    "start", [b"MZ\x90\0", b"\x7fELF", b"#!/bin/sh\n", b"PK\x03\x04", b"%PDF-1.7", b"<html>", b"GIF89a"]
)
def test_a_dicom_file_that_is_a_program_is_refused(start: bytes, make_dicom: Callable[..., bytes]) -> None:
    content = make_dicom(np.zeros((8, 8), np.uint8))
    with pytest.raises(ImageError, match="preamble"):
        check_sole(start + content[len(start) :])


@pytest.mark.parametrize("kind", KINDS)
def test_no_cut_and_no_changed_byte_is_an_error_of_another_kind(kind: str, make_image: Callable[..., bytes]) -> None:
    content = make_image(PIXELS[:8, :8], kind)
    generator = np.random.default_rng(2)
    for cut in range(len(content)):
        try_sole(content[:cut])
    for _ in range(500):
        changed = bytearray(content)
        changed[generator.integers(len(content))] = generator.integers(256)
        try_sole(bytes(changed))


def try_sole(content: bytes) -> None:
    try:
        check_sole(content)
    except ImageError:
        return


def test_many_pictures_end_the_search(make_image: Callable[..., bytes]) -> None:
    check_sole(make_image(PIXELS[:8, :8], "JPEG") * 1000)
