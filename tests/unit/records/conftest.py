"""Keys, and a chain of predictions of a small model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from softcam.imaging import Preprocessing
from softcam.nn import convert
from softcam.predict import Predictor

pytest.importorskip("cryptography", reason="signing comes with the extra `records`")

from softcam.records import Signer, create_key, describe_context, describe_prediction, load_signer


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return load_signer(create_key(tmp_path_factory.mktemp("keys"))[0])


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return load_signer(create_key(tmp_path_factory.mktemp("other"))[0])


@pytest.fixture
def predictor(make_toy: Callable[..., nn.Module]) -> Predictor:
    return Predictor(convert(make_toy(3)), preprocessing=Preprocessing(size=32), backend="torch")


class Picture:
    """An image that decodes itself."""

    def __init__(self, name: str, seed: int) -> None:
        self.id, self._seed = name, seed

    def decode(self) -> Any:
        from softcam.imaging import image_from_array  # noqa: PLC0415 - of these tests alone

        return image_from_array(np.random.default_rng(self._seed).integers(0, 256, (40, 48), dtype=np.uint8))


@pytest.fixture
def pictures() -> list[Picture]:
    return [Picture(f"{letter}.png", seed) for seed, letter in enumerate("abc")]


@pytest.fixture
def bodies(predictor: Predictor, pictures: list[Picture]) -> list[dict[str, Any]]:
    predictions = list(predictor(pictures))
    return [
        describe_context(predictor),
        *(describe_prediction(prediction, name=prediction.id) for prediction in predictions),
    ]


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"
