from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from softcam.errors import ExportError
from softcam.export import agreement
from softcam.export.agreement import Agreement, measure
from softcam.export.runtime import Array, Graph
from softcam.nn import SoftCAM

SHAPE = (3, 32, 48)


def replace_graph(monkeypatch: pytest.MonkeyPatch, graph: Graph) -> None:
    monkeypatch.setattr(agreement, "open_graph", lambda _path: graph)


def run(model: SoftCAM, images: Array) -> tuple[Array, Array]:
    with torch.no_grad():
        evidence = model.evidence(torch.from_numpy(images))
    return evidence.logits.numpy(), evidence.maps.numpy()


def test_the_same_numbers_agree_fully(model: SoftCAM, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_graph(monkeypatch, lambda images: run(model, images))
    found = measure(model, Path("x.onnx"), SHAPE)
    assert (found.logits, found.maps) == (0.0, 0.0)
    assert 0.0 < found.mean < 1e-5


def test_errors_are_relative_to_the_largest_value_and_seen_in_every_batch(
    model: SoftCAM, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def larger(images: Array) -> tuple[Array, Array]:
        logits, maps = run(model, images)
        sizes.append(len(images))
        # Only the last image of the larger batch is wrong.
        factor = np.ones((len(images), 1), np.float32)
        factor[-1] += 0.5 * (len(images) == 3)
        return logits * factor, maps * factor[..., None, None] * 2

    replace_graph(monkeypatch, larger)
    found = measure(model, Path("x.onnx"), SHAPE)
    assert sizes == [1, 3]
    logits, maps = run(model, torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(3)).numpy())
    assert found.logits == pytest.approx(0.5 * abs(logits[-1]).max() / abs(logits).max(), rel=1e-5)
    assert found.maps == pytest.approx(max(2 * abs(maps[-1]).max(), abs(maps[:-1]).max()) / abs(maps).max(), rel=1e-5)
    assert 0.4 < found.mean <= 1.0


def test_another_shape_and_a_failure_are_errors(model: SoftCAM, monkeypatch: pytest.MonkeyPatch) -> None:
    def crop(images: Array) -> tuple[Array, Array]:
        logits, maps = run(model, images)
        return logits, maps[..., 1:]

    def fail(images: Array) -> tuple[Array, Array]:
        raise RuntimeError("no kernel\nmore lines")

    replace_graph(monkeypatch, crop)
    with pytest.raises(ExportError, match=r"give maps \(1, 3, 4, 6\) for 1 images, but got \(1, 3, 4, 5\)"):
        measure(model, Path("x.onnx"), SHAPE)
    replace_graph(monkeypatch, fail)
    with pytest.raises(ExportError, match=r"take 1 images, but the runtime said: no kernel$"):
        measure(model, Path("x.onnx"), SHAPE)


def test_nan_is_no_agreement(model: SoftCAM, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(images: Array) -> tuple[Array, Array]:
        logits, maps = run(model, images)
        return logits, np.where(np.arange(len(images)) == 2, np.nan, 1.0)[:, None, None, None] * maps

    replace_graph(monkeypatch, spoil)
    with pytest.raises(ExportError, match=r"Expected the maps of the exported file .* a relative error of nan"):
        measure(model, Path("x.onnx"), SHAPE).check()


def test_logits_of_zero_agree_with_zeros_only(model: SoftCAM, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.zero_()
    replace_graph(monkeypatch, lambda images: run(model, images))
    assert measure(model, Path("x.onnx"), SHAPE) == Agreement(0.0, 0.0, 0.0)
    replace_graph(monkeypatch, lambda images: (run(model, images)[0] + np.float32(1e-9), run(model, images)[1]))
    assert measure(model, Path("x.onnx"), SHAPE).logits == float("inf")


@pytest.mark.parametrize(("field", "name"), [("logits", "logits"), ("maps", "maps"), ("mean", "mean of the maps")])
def test_each_error_counts(field: str, name: str) -> None:
    good = {"logits": 1e-4, "maps": 1e-4, "mean": 1e-4}
    assert Agreement(**good).check() == Agreement(**good)
    with pytest.raises(ExportError, match=f"Expected the {name} of .* within 0.0001, but got a relative error of 0.00"):
        Agreement(**(good | {field: 1.2e-3})).check()
