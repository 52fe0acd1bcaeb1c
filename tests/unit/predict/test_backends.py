from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from softcam.errors import ExportError, RunError, SoftCAMWarning
from softcam.export import keep_graph
from softcam.nn import Evidence, SoftCAM
from softcam.predict.backends import GraphBackend, TorchBackend

SIZE = (32, 32)
CPU = torch.device("cpu")


@pytest.fixture
def images() -> Tensor:
    return torch.randn(7, 3, *SIZE, generator=torch.Generator().manual_seed(3))


class SmallMemory(TorchBackend):
    """A device that holds `room` images at a time."""

    def __init__(self, model: SoftCAM, room: int) -> None:
        super().__init__(model, CPU)
        self.room = room
        self.sizes: list[int] = []

    def _to_device(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super()._to_device(images)


def test_a_batch_that_does_not_fit_is_halved_and_this_is_said_once(model: SoftCAM, images: Tensor) -> None:
    backend = SmallMemory(model, room=2)
    with pytest.warns(SoftCAMWarning, match="7 images to fit into the memory of cpu") as told:
        found = backend(images)
    assert len(told) == 1
    assert backend.sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    expected = TorchBackend(model, CPU)(images)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.maps, expected.maps)
    # What was learned holds for later batches, without another word.
    backend.sizes.clear()
    assert len(backend(images[:3])) == 3
    assert backend.sizes == [1, 1, 1]


def test_half_of_what_did_not_fit_is_enough(model: SoftCAM, images: Tensor) -> None:
    backend = SmallMemory(model, room=4)
    with pytest.warns(SoftCAMWarning):
        backend(images)
    assert backend.sizes == [7, 3, 3, 1]


def test_one_image_that_does_not_fit_is_an_error(model: SoftCAM, images: Tensor) -> None:
    with pytest.warns(SoftCAMWarning), pytest.raises(RunError, match="memory of cpu to hold one image"):
        SmallMemory(model, room=0)(images[:2])


def test_another_error_of_the_device_is_not_swallowed(
    model: SoftCAM, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("device-side assert")

    backend = TorchBackend(model, CPU)
    monkeypatch.setattr(backend, "_run", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        backend(images)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_graph_gives_what_torch_gives(model: SoftCAM, images: Tensor, name: str) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip(name)
    kept = keep_graph(None, SIZE)
    reference = TorchBackend(model, CPU)
    with pytest.raises(ExportError, match=r"graph 'model-32x32\.onnx', but there is none"):
        GraphBackend(name, kept, SIZE, reference)
    kept.make(model, SIZE)
    backend = GraphBackend(name, kept, SIZE, reference).check(images)
    first, expected = backend(images), reference(images)
    backend(torch.zeros_like(images))
    torch.testing.assert_close(first.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.maps, expected.maps, rtol=1e-4, atol=1e-5)
    first.check()
    assert not torch.equal(first.maps, expected.maps), "it is torch that ran"
    # Images of another size than the graph's.
    larger = torch.randn(1, 3, 64, 64)
    assert torch.equal(backend(larger).maps, reference(larger).maps)


def test_a_graph_of_other_weights_is_found_out(model: SoftCAM, images: Tensor) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    kept = keep_graph(None, SIZE)
    kept.make(model, SIZE)
    other = copy.deepcopy(model)
    other.head.classifier.weight.data[0, 0] *= 1.01
    with pytest.raises(ExportError, match=r"onnxruntime to agree with torch within 0\.0001, but got"):
        GraphBackend("onnxruntime", kept, SIZE, TorchBackend(other, CPU)).check(images)


def test_what_calculates_on_is_as_many_threads_as_torch_has(model: SoftCAM, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def opened(path: Path, **options: Any) -> Any:
        seen.append(options)
        return lambda images: (np.zeros((len(images), 3)), np.zeros((len(images), 3, 4, 4)))

    monkeypatch.setattr("softcam.predict.backends.open_graph", opened)
    monkeypatch.setattr("softcam.export.kept.KeptGraph.find", lambda _: Path("model.onnx"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    backend = GraphBackend("openvino", keep_graph(None, SIZE), SIZE, TorchBackend(model, CPU))
    assert seen == [{"runtime": "openvino", "threads": 3}]
    assert isinstance(backend(torch.zeros(2, 3, *SIZE)), Evidence)
