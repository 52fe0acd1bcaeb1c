"""A small bundle, images as bytes, and services on a real socket."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import softcam
from softcam.bundle import measure_inputs
from softcam.imaging import Preprocessing
from softcam.predict import Checks

pytest.importorskip("fastapi", reason="the service comes with the extra `serve`")
httpx = pytest.importorskip("httpx", reason="httpx comes with the extra `dev`")
pytest.importorskip("uvicorn", reason="the service comes with the extra `serve`")

from softcam.records import create_key, load_signer  # noqa: E402 - see above
from softcam.serving import Access, Limits, ServiceSettings, create_app, open_models  # noqa: E402 - see above


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model's folder: three classes, 4 x 4 cells."""
    black_box = softcam.create_black_box("timm:resnet10t", weights="none", num_classes=3).eval()
    model = softcam.convert(black_box, images=torch.rand(2, 3, 64, 64))
    folder = tmp_path_factory.mktemp("service") / "retina"
    softcam.save(
        model,
        folder,
        classes=["healthy", "early", "late"],
        preprocessing=Preprocessing(size=64).to_dict(),
        provenance={"inputs": measure_usual(model, folder.parent)},
    )
    return folder


def measure_usual(model: softcam.SoftCAM, folder: Path) -> Any:
    """Let the training have seen colour images of many sizes and of every intensity."""
    random = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(24)]
    for number, path in enumerate(paths):
        sides = random.integers(20, 260, 2) if number > 1 else ((20, 260), (260, 20))[number]
        low, high = (number % 12) * 20, 256 if number % 2 else (number % 12) * 20 + 1
        path.write_bytes(encode(random.integers(low, high, (*sides, 3), dtype=np.uint8)))
    return measure_inputs(model, Preprocessing(size=64), paths[:12], paths[12:])


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="session")
def png() -> bytes:
    return encode(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))


@pytest.fixture(scope="session")
def make_image() -> Callable[..., bytes]:
    return encode


@pytest.fixture(scope="session")
def models(bundle: Path) -> Any:
    return open_models([str(bundle)], backend="torch")


@pytest.fixture(scope="module")
def serve(bundle: Path, listen: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Start a service with limits, access or a store of its own; return a client of it."""
    with ExitStack() as stack:

        def start(
            *,
            access: Access | None = None,
            store: Path | None = None,
            seconds: float = 5.0,
            checks: Checks | None = None,
            **limits: Any,
        ) -> Any:
            signer = None if store is None else load_signer(create_key(store.parent / "keys")[0])
            settings = ServiceSettings(access or Access(), Limits(**limits), decoders=1, store=store, signer=signer)
            app = create_app(open_models([str(bundle)], backend="torch", checks=checks), settings)
            address = stack.enter_context(listen(app, seconds))
            return stack.enter_context(httpx.Client(base_url=address, timeout=60))

        yield start


@pytest.fixture(scope="module")
def client(serve: Callable[..., Any]) -> Any:
    return serve()
