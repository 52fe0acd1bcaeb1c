from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import softcam
from softcam.errors import ExportError, MissingExtraError
from softcam.export import KeptGraph, keep_graph
from softcam.imaging import Preprocessing
from softcam.nn import SoftCAM, convert
from softcam.predict import Predictor, choice
from softcam.predict.choice import time_in_turn

for _package in ("onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(_package)
pytestmark = pytest.mark.slow

Pictures = list[npt.NDArray[np.uint8]]
OTHERS = ["onnxruntime", "openvino"]


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds that each backend is found to take; the calls themselves run once."""
    found = {"torch": 3.0, "onnxruntime": 1.0, "openvino": 2.0}

    def measure(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
        for call in calls.values():
            call()
        return {name: found[name] for name in calls}

    monkeypatch.setattr(choice, "time_in_turn", measure)
    monkeypatch.setattr(choice, "PATIENCE", 4)
    return found


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with its graph, which takes seconds to make."""
    torch.manual_seed(0)
    network = softcam.create_black_box("timm:test_resnet", num_classes=2).eval()
    folder = softcam.save(
        convert(network), tmp_path_factory.mktemp("once") / "model", preprocessing=Preprocessing(size=64).to_dict()
    )
    keep_graph(folder, (64, 64)).make(softcam.load(folder), (64, 64))
    return folder


@pytest.fixture
def bundle(once: Path, tmp_path: Path) -> Path:
    """The same bundle without its graph."""
    return shutil.copytree(once, tmp_path / "model", ignore=shutil.ignore_patterns("exports"))


@pytest.fixture
def exports(once: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the graphs that were made; each is the one of `once`, in its place."""
    made: list[str] = []

    def place(self: KeptGraph, model: SoftCAM, size: tuple[int, int]) -> Path:
        assert size == (64, 64)
        made.append(self.name)
        (self.folders[0]).mkdir(exist_ok=True)
        return Path(shutil.copy(once / "exports" / self.name, self.folders[0]))

    monkeypatch.setattr(KeptGraph, "make", place)
    return made


def check_same(one: Any, other: Any) -> None:
    for first, second in zip(one, other, strict=True):
        scale = np.abs(second.maps).max()
        assert np.abs(first.maps - second.maps).max() <= 1e-4 * scale
        assert np.abs(first.logits - second.logits).max() <= 1e-4 * np.abs(second.logits).max()
        assert first.sum_error <= 1e-5


def test_few_images_stay_in_torch(bundle: Path, pictures: Pictures, pace: dict[str, float], exports: list[str]) -> None:
    predictor = Predictor(bundle, batch_size=2)
    list(predictor(pictures[:4]))
    assert (predictor.backend, exports) == ("torch", [])
    assert predictor.backend_reason == "torch: for up to 4 images an export does not pay"
    assert not (bundle / "exports").exists()


def test_many_images_go_on_in_the_fastest(
    bundle: Path, pictures: Pictures, pace: dict[str, float], exports: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    expected = list(Predictor(bundle, backend="torch")(pictures))
    predictor = Predictor(bundle, batch_size=2)
    with caplog.at_level(logging.INFO, "softcam.predict"):
        found = list(predictor(pictures))
    check_same(found, expected)
    assert predictor.backend == "onnxruntime"
    assert len(exports) == 1
    assert predictor.backend_reason == (
        f"onnxruntime, ms per image on {torch.get_num_threads()} threads, 2 at a time: "
        "onnxruntime 500.0, openvino 1000.0, torch 1500.0"
    )
    assert [record.getMessage() for record in caplog.records] == [
        "torch was used so far; exporting the model once, to look for a faster backend",
        f"backend {predictor.backend_reason}",
    ]
    # From then on, from the first image and without a probe.
    pace.clear()
    again = Predictor(bundle, batch_size=2)
    check_same(again(pictures), expected)
    assert (again.backend, len(exports)) == ("onnxruntime", 1)
    assert again.backend_reason.startswith("onnxruntime, as measured before: ms per image on")
    assert softcam.load(bundle).num_classes == 2
    assert sorted(entry.suffix for entry in (bundle / "exports").iterdir()) == [".json", ".onnx"]


def test_torch_may_be_the_fastest(bundle: Path, pictures: Pictures, pace: dict[str, float], exports: list[str]) -> None:
    pace["torch"] = 0.5
    for count in (1, 1):
        predictor = Predictor(bundle, batch_size=2)
        list(predictor(pictures))
        assert (predictor.backend, len(exports)) == ("torch", count)
        assert "torch 250.0, onnxruntime 500.0" in predictor.backend_reason


def test_another_machine_measures_again(
    bundle: Path, pictures: Pictures, pace: dict[str, float], exports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list(Predictor(bundle, batch_size=2)(pictures))
    pace["openvino"] = 0.1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    predictor = Predictor(bundle, batch_size=2)
    list(predictor(pictures[:1]))
    assert (predictor.backend, len(exports)) == ("openvino", 1)


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("content", [b"not a graph", b""])
def test_a_damaged_graph_is_made_again(
    bundle: Path, pictures: Pictures, pace: dict[str, float], exports: list[str], content: bytes, noted: bool
) -> None:
    list(Predictor(bundle, batch_size=2)(pictures))
    (graph,) = (bundle / "exports").glob("*.onnx")
    graph.write_bytes(content)
    if not noted:
        graph.with_suffix(".json").unlink()
    expected = list(Predictor(bundle, backend="torch")(pictures))
    predictor = Predictor(bundle, batch_size=2)
    check_same(predictor(pictures), expected)
    assert (predictor.backend, len(exports)) == ("onnxruntime", 2)


def test_a_runtime_that_differs_is_never_chosen(
    bundle: Path, pictures: Pictures, pace: dict[str, float], exports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = choice.GraphBackend.__call__

    def wrong(self: Any, images: Tensor) -> Any:
        found = real(self, images)
        return found if self.name == "openvino" else type(found)(found.logits * 1.001, found.maps, found.multi_label)

    monkeypatch.setattr(choice.GraphBackend, "__call__", wrong)
    predictor = Predictor(bundle, batch_size=2)
    list(predictor(pictures))
    assert predictor.backend == "openvino"
    assert "; onnxruntime is out: Expected onnxruntime to agree with torch" in predictor.backend_reason
    with pytest.raises(ExportError, match="onnxruntime to agree with torch within"):
        Predictor(bundle, backend="onnxruntime")


class Branching(nn.Module):
    """A trunk that no tracer follows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=8, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        if float(features.sum()) > 0:
            features = features.relu()
        return self.fc(self.pool(features).flatten(1))


def test_a_model_that_cannot_be_exported_stays_in_torch(
    preprocessing: Preprocessing, pictures: Pictures, pace: dict[str, float]
) -> None:
    model = convert(Branching().eval(), images=torch.randn(1, 3, 32, 32), exact=False)
    predictor = Predictor(model, preprocessing=preprocessing, batch_size=2)
    assert {p.status for p in predictor(pictures)} == {"ok"}
    assert predictor.backend == "torch"
    assert predictor.backend_reason.startswith("torch, since the model cannot be exported: Expected torch to trace")
    with pytest.raises(ExportError, match="Expected torch to trace the model"):
        Predictor(model, preprocessing=preprocessing, backend="openvino")


@pytest.mark.parametrize("name", OTHERS)
def test_a_named_backend_is_used_from_the_first_image(
    model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures, name: Any
) -> None:
    predictor = Predictor(model, preprocessing=preprocessing, backend=name)
    assert (predictor.backend, predictor.backend_reason) == (name, f"{name}, as asked for")
    check_same(predictor(pictures), list(Predictor(model, preprocessing=preprocessing, backend="torch")(pictures)))


@pytest.mark.parametrize(("name", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_missing_runtime_is_named(
    model: SoftCAM, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch, name: Any, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"{name}.*softcam\[{extra}\]"):
        Predictor(model, preprocessing=preprocessing, backend=name)


def test_auto_without_any_runtime_is_torch(
    model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: None)
    predictor = Predictor(model, preprocessing=preprocessing)
    assert predictor.backend_reason.startswith("torch, since no other is installed (pip install 'softcam[onnx]'")
    assert len(list(predictor(pictures))) == 7


@pytest.mark.parametrize("case", ["autocast", "half"])
def test_half_precision_is_for_torch(
    model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures, pace: dict[str, float], case: str
) -> None:
    options: dict[str, Any] = {"preprocessing": preprocessing, "batch_size": 2}
    if case == "autocast":
        options["autocast"] = torch.bfloat16
    else:
        model = model.bfloat16()
    predictor = Predictor(model, **options)
    list(predictor(pictures))
    found = {"autocast": "`autocast` was asked for", "half": "the weights are bfloat16"}[case]
    assert predictor.backend_reason == f"torch, since {found}"
    with pytest.raises(ValueError, match=rf"float32 on the CPU.*'openvino', but {found}"):
        Predictor(model, **options, backend="openvino")


def test_an_unknown_backend_is_refused(model: SoftCAM, preprocessing: Preprocessing) -> None:
    with pytest.raises(ValueError, match="`backend` to be one of auto, torch, onnxruntime, openvino, but got 'tvm'"):
        Predictor(model, preprocessing=preprocessing, backend="tvm")  # type: ignore[arg-type]


def test_calls_are_timed_in_turn_until_the_budget_is_spent() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    assert time_in_turn(calls, budget=60.0).keys() == {"a", "b"}
    assert order == ["a", "b"] * 5
    order.clear()
    assert all(seconds >= 0 for seconds in time_in_turn(calls, budget=-1.0).values())
    assert order == ["a", "b"]
