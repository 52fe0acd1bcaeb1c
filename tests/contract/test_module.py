"""A SoftCAM model is an ordinary module: what torch offers for modules works, and the evidence stays evidence."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
import torch
from torch import Tensor, nn

import softcam
from softcam.export import export_onnx, open_graph
from softcam.nn import Evidence, SoftCAM

WORKER = Path(__file__).with_name("data_parallel.py")


class Network(Protocol):
    """What the tests ask of an entry of `NETWORKS`."""

    shape: tuple[int, ...]

    def build(self, seed: int = 0) -> nn.Module: ...

    def convert(self, seed: int = 0) -> SoftCAM: ...

    def images(self, count: int, seed: int = 0) -> Tensor: ...


def explain(model: SoftCAM, images: Tensor) -> Evidence:
    with torch.no_grad():
        return model.evidence(images)


def difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest expected value."""
    assert found.shape == expected.shape
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def check_same(found: Evidence, expected: Evidence, tolerance: float = 1e-5) -> None:
    assert difference(found.logits, expected.logits) <= tolerance
    assert difference(found.maps, expected.maps) <= tolerance


def check_half(evidence: Evidence, expected: Evidence) -> None:
    assert evidence.maps.shape == expected.maps.shape
    assert evidence.logits.shape == expected.logits.shape
    evidence.check(2e-2)
    assert difference(evidence.maps, expected.maps) < 0.25  # bfloat16 keeps eight bits, through many layers


@pytest.fixture
def expected(converted: SoftCAM, images: Tensor) -> Evidence:
    """The evidence of the untouched model; it says something."""
    evidence = explain(converted, images).check()
    assert float(evidence.maps.std()) > 0
    return evidence


def test_train_and_eval_reach_every_part(model: SoftCAM, images: Tensor, expected: Evidence) -> None:
    assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.train().modules())
    assert model.with_evidence().training
    model.eval()
    assert not any(module.training for module in model.modules())
    assert not model.with_evidence().training
    check_same(explain(model, images), expected, 0.0)


def test_a_state_dict_goes_into_a_freshly_converted_model(
    network: Network, model: SoftCAM, images: Tensor, expected: Evidence
) -> None:
    other = network.convert(seed=1)
    assert difference(explain(other, images).maps, expected.maps) > 1e-3
    other.load_state_dict(model.state_dict(), strict=True)
    check_same(explain(other, images), expected, 0.0)


def test_a_deep_copy_shares_nothing(converted: SoftCAM, images: Tensor, expected: Evidence) -> None:
    other = copy.deepcopy(converted)
    check_same(explain(other, images), expected, 0.0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    check_same(explain(converted, images), expected, 0.0)


def test_forward_hooks_fire_once(model: SoftCAM, images: Tensor) -> None:
    first = next(module for module in model.features.modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d))
    parts = {"model": model, "features": model.features, "head": model.head, "trunk": first}
    fired: list[str] = []
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: fired.append(name))
    model(images)
    assert sorted(fired) == sorted(parts)
    fired.clear()
    model.evidence(images)
    assert sorted(fired) == ["features", "trunk"]


def test_channels_last_gives_the_same(network: Network, model: SoftCAM, images: Tensor, expected: Evidence) -> None:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if images.ndim not in formats:
        pytest.skip("signals have no channels-last format")
    chosen = formats[images.ndim]
    found = explain(model.to(memory_format=chosen), images.to(memory_format=chosen))
    check_same(found.check(), expected)


def test_autocast_keeps_the_identity(converted: SoftCAM, images: Tensor, expected: Evidence) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check_half(explain(converted, images), expected)


def test_half_precision_keeps_the_identity(model: SoftCAM, images: Tensor, expected: Evidence) -> None:
    evidence = explain(model.to(torch.bfloat16), images.bfloat16())
    assert {evidence.logits.dtype, evidence.maps.dtype} == {torch.bfloat16}
    check_half(evidence, expected)


def test_a_saved_model_is_the_same_when_loaded(
    network: Network, model: SoftCAM, images: Tensor, expected: Evidence, tmp_path: Path
) -> None:
    softcam.save(model, tmp_path / "model")
    loaded = softcam.load(tmp_path / "model", model=network.build(seed=2))
    assert loaded.conversion == model.conversion
    check_same(explain(loaded, images), expected, 0.0)


@pytest.mark.slow
def test_compiles_in_one_graph(model: SoftCAM, images: Tensor, expected: Evidence) -> None:
    torch.compiler.reset()
    compiled = torch.compile(model.with_evidence(), backend="eager", fullgraph=True)
    check_same(explain_module(compiled, images), expected)


@pytest.mark.slow
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "non-strict"])
def test_torch_export_takes_any_batch(network: Network, model: SoftCAM, images: Tensor, strict: bool) -> None:
    torch.compiler.reset()
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model.with_evidence(), (images,), dynamic_shapes=batch, strict=strict)
    more = network.images(3, seed=2)
    check_same(explain_module(program.module(), more), explain(model, more))


@pytest.mark.slow
def test_onnx_runtime_gives_logits_and_maps(network: Network, model: SoftCAM, tmp_path: Path) -> None:
    report = export_onnx(model, tmp_path / "model.onnx")
    assert max(report.agreement.logits, report.agreement.maps, report.agreement.mean) <= 1e-4
    more = network.images(4, seed=2)
    logits, maps = map(torch.from_numpy, open_graph(tmp_path / "model.onnx")(more.numpy()))
    check_same(Evidence(logits, maps).check(1e-4), explain(model, more), 1e-4)


def explain_module(module: nn.Module, images: Tensor) -> Evidence:
    with torch.no_grad():
        evidence = module(images)
    assert isinstance(evidence, Evidence)
    return evidence


@pytest.mark.slow
def test_inductor_compiles(small_network: Network) -> None:
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler, which is absent")
    torch.compiler.reset()
    model, images = small_network.convert(), small_network.images(2)
    compiled = torch.compile(model.with_evidence(), fullgraph=True)
    check_same(explain_module(compiled, images).check(1e-4), explain(model, images), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("options", ["{}", '{"at": 16}', '{"at": [16, 32]}'])
def test_two_processes_train_as_one(tmp_path: Path, options: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    commands = [[sys.executable, str(WORKER), str(rank), str(tmp_path), options] for rank in (0, 1)]
    workers = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    for worker in workers:
        _, messages = worker.communicate(timeout=120)
        assert worker.returncode == 0, messages
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["without_gradient"] == second["without_gradient"] == []
    assert first["losses"] != second["losses"], "each process has images of its own"
    assert first["weights"] == second["weights"]
    assert first["weights"] != first["weights_before"]
