"""Small images and tables on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteTable = Callable[..., Path]


@pytest.fixture
def write_image(tmp_path: Path) -> Callable[..., Path]:
    """Write a grey PNG of one value below the test's folder."""

    def write(name: str, value: int = 128, size: tuple[int, int] = (8, 8)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = size
        Image.fromarray(np.full((height, width), value, np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def write_table(tmp_path: Path, write_image: Callable[..., Path]) -> WriteTable:
    """Write lines as `manifest.csv`, and the images a.png … f.png beside it, each of another grey."""

    def write(*lines: str, name: str = "manifest.csv", encoding: str = "utf-8") -> Path:
        for value, letter in enumerate("abcdef"):
            write_image(f"{letter}.png", value=40 * value)
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding=encoding)
        return path

    return write
