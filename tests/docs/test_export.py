"""What the guide on exporting promises to those who have neither softcam nor torch."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from softcam.imaging import Preprocessing, decode_image

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "export.md"
CUT = "# From here on without softcam and torch."

Prepare = Callable[[Path, Mapping[str, Any]], npt.NDArray[np.float32]]


def read_halves() -> list[tuple[str, str]]:
    """Return the blocks that are cut in two: what exports, and what only needs the file."""
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    return [(first, second) for first, cut, second in (block.partition(CUT) for block in blocks) if cut]


@pytest.fixture
def prepare() -> Prepare:
    """The function `prepare` of the guide."""
    source = read_halves()[0][1]
    names: dict[str, Any] = {}
    exec(source.partition("session =")[0], names)  # noqa: S102 - the project's own document
    found: Prepare = names["prepare"]
    return found


@pytest.mark.parametrize("number", [0, 1], ids=["ONNX Runtime", "OpenVINO"])
def test_the_file_is_used_without_softcam_and_torch(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = read_halves()[number]
    monkeypatch.chdir(tmp_path)
    exec(compile(first, "first half", "exec"), {})  # noqa: S102 - the project's own document
    blocked = "import sys\nsys.modules.update(dict.fromkeys(['softcam', 'torch', 'torchvision', 'timm', 'onnx']))\n"
    command = [sys.executable, "-c", blocked + second]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fit": "squash", "crop_fraction": 0.9},
        {"crop_fraction": 0.875, "interpolation": "bicubic", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
        {"channels": 1, "mean": [0.5], "std": [0.25]},
    ],
)
def test_images_are_prepared_as_softcam_does(
    mode: str, options: Mapping[str, Any], prepare: Prepare, tmp_path: Path
) -> None:
    shape = (45, 70) if mode == "L" else (45, 70, 3)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8)).save(tmp_path / "a.png")
    preprocessing = Preprocessing(size=32, **options)
    expected = preprocessing(decode_image(tmp_path / "a.png"))[0].numpy()
    found = prepare(tmp_path / "a.png", preprocessing.to_dict())
    assert (found.shape, found.dtype) == ((1, *expected.shape), np.float32)
    assert np.abs(found[0] - expected).max() <= 1e-6
    assert expected.std() > 0.1
