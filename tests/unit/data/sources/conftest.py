"""Small downloads in their official layouts."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

MakeImage = Callable[..., bytes]


@pytest.fixture(scope="session")
def make_image() -> MakeImage:
    """Return the bytes of an image: a bright disc on black."""

    def make(number: int = 0, *, size: tuple[int, int] = (80, 60), format: str = "JPEG", grey: bool = False) -> bytes:  # noqa: A002
        width, height = size
        rows, columns = np.mgrid[:height, :width] + 0.5
        disc = np.hypot(columns - width / 2, rows - height / 2) < 0.45 * min(size)
        pixels = np.where(disc, 100 + number % 100, 2).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels if grey else np.dstack([pixels, pixels // 2, pixels // 3])).save(
            stream, format, quality=95
        )
        return stream.getvalue()

    return make
