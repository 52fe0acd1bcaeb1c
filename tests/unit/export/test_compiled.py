from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from softcam.errors import ExportError, MissingExtraError
from softcam.export import compile_forward, runtime
from softcam.export import compiled as module
from softcam.export.runtime import get_openvino
from softcam.nn import SoftCAM

openvino = pytest.importorskip("openvino")

pytestmark = pytest.mark.slow


def test_any_number_of_images_gives_what_torch_gives(model: SoftCAM, images: Tensor) -> None:
    run = compile_forward(model, images[:1])
    many = torch.randn(19, *images.shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(many)
    found = run(many)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    # More than a chunk, exactly one, and a single one; nothing is overwritten by the next call.
    for count in (8, 9, 1):
        torch.testing.assert_close(run(many[:count]), expected[:count], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_layout_precision_and_gradients_of_the_images_do_not_matter(model: SoftCAM, images: Tensor) -> None:
    run = compile_forward(model, images)
    expected = run(images)
    torch.testing.assert_close(run(images.contiguous(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(run(images.double().requires_grad_()), expected)


def test_images_go_in_chunks(model: SoftCAM, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = torch.split
    monkeypatch.setattr(torch, "split", lambda *given: sizes.extend(map(len, found := real(*given))) or found)
    run = compile_forward(model, images)
    sizes.clear()
    run(images.repeat(5, 1, 1, 1))
    assert sizes == [8, 8, 4]


class Moody(nn.Module):
    """Gives something else when it is traced."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.error = error
        self.fc = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.fc(images.mean((2, 3)))
        return logits * (1 + self.error) if torch.compiler.is_compiling() else logits


@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_a_model_that_disagrees_is_refused(images: Tensor, error: float) -> None:
    compile_forward(Moody(1e-6), images)
    with pytest.raises(ExportError, match=r"compiled Moody to agree with torch within 0\.0001, but got .* in torch"):
        compile_forward(Moody(error), images)


def test_a_model_that_cannot_be_traced_is_refused(images: Tensor) -> None:
    class Branching(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            return given.mean((2, 3)) if given.sum() > 0 else given.amax((2, 3))

    with pytest.raises(ExportError, match=r"OpenVINO to compile Branching, but: .+ Run it in torch instead\."):
        compile_forward(Branching(), images)


def test_it_calculates_in_single_precision_on_as_many_threads(
    model: SoftCAM, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    core = get_openvino()
    spy = SimpleNamespace(compile_model=lambda graph, *rest: seen.append(rest[1]) or core.compile_model(graph, *rest))
    monkeypatch.setattr(module, "get_openvino", lambda: spy)
    compile_forward(model, images)
    assert seen == [{"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}]


def test_a_missing_library_is_named(model: SoftCAM, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"softcam\[openvino\]"):
        module.compile_forward(model, images)


PROGRAM = """
import gc, signal, subprocess, threading
import torch
from softcam.export import compile_forward

heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
box = [compile_forward(network, torch.randn(2, 3, 16, 16))]
thread = threading.Thread(target=lambda: (box.clear(), gc.collect()))
thread.start()
thread.join()
signal.raise_signal(signal.SIGTERM)
print(*heard)
"""


def test_signals_are_heard_after_another_thread_dropped_the_last_model() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "SIGTERM"), done.stderr


def test_an_inference_is_run_before_anybody_has_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    get_openvino()  # the last core must not end with this test
    ran = []
    infer = openvino.InferRequest.infer
    monkeypatch.setattr(openvino.InferRequest, "infer", lambda *given: ran.append(1) or infer(*given))
    runtime._start_openvino.__wrapped__()
    assert ran == [1]


RACE = """
import os, sys, threading
import numpy as np
from softcam.export.runtime import get_openvino
from openvino import Model, opset8

sys.setswitchinterval(1e-6)
core = get_openvino()
image = opset8.parameter([-1, 3, 8, 8], np.float32)
compiled = core.compile_model(Model([opset8.relu(image)], [image]), "CPU", {"NUM_STREAMS": 2})
requests = [compiled.create_infer_request() for _ in range(2)]
start = threading.Barrier(2)

def run(request):
    start.wait()
    request.infer({0: np.zeros((1, 3, 8, 8), np.float32)})[0].copy()

threads = [threading.Thread(target=run, args=(request,), daemon=True) for request in requests]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(60)
os._exit(any(thread.is_alive() for thread in threads))
"""


def test_two_threads_can_run_their_first_inference_together() -> None:
    """Without the first inference of `get_openvino` some of such processes stand still."""
    processes = [subprocess.Popen([sys.executable, "-c", RACE]) for _ in range(6)]
    assert [process.wait(100) for process in processes] == [0] * 6
