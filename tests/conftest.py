"""What every test may use."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
import torch

# Tests run side by side; more threads than cores would only wait for each other.
torch.set_num_threads(1)

# A busy machine takes longer over an example now and then, which is no fault of the code.
hypothesis.settings.register_profile("softcam", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("softcam")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real medical samples; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real medical samples are not here: {folder.name} is absent beside the checkout")
    return folder


@pytest.fixture(scope="session")
def archives() -> ModuleType:
    """What starts DICOM archives on loopback."""
    return importlib.import_module("dicom_archives")


@pytest.fixture(scope="session")
def listen() -> Callable[..., AbstractContextManager[str]]:
    """What runs an application on loopback as `softcam serve` does, and gives its address."""
    uvicorn = pytest.importorskip("uvicorn", reason="the service comes with the extra `serve`")
    protocol = pytest.importorskip("softcam.serving.protocol", reason="the service comes with the extra `serve`")

    @contextmanager
    def run(app: Any, header_seconds: float = 10.0) -> Iterator[str]:
        bound = protocol.bound_protocol(header_seconds)
        server = uvicorn.Server(uvicorn.Config(app, http=bound, port=0, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + 120
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.started, "the service did not start"
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)

    return run


@pytest.fixture
def validate() -> Callable[[Path], list[str]]:
    """Return what the validator of dicom3tools finds wrong."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("the validator dciodvfy is not installed: apt-get install dicom3tools")

    def check(path: Path) -> list[str]:
        result = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        lines = (result.stderr + result.stdout).splitlines()
        assert lines, "the validator names at least the object's class"
        return [line for line in lines if line.startswith("Error")]

    return check
