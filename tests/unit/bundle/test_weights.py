from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from softcam.bundle import fingerprint
from softcam.bundle.weights import check_finite, collect_weights, fill, read_weights, refuse_pickle
from softcam.errors import BundleError


def test_fingerprint_is_the_documented_hash() -> None:
    tensor = torch.tensor([1.0, 2.0])
    header = json.dumps(["w", "torch.float32", [2]]).encode()
    expected = hashlib.sha256(len(header).to_bytes(8, "little") + header + tensor.numpy().tobytes()).hexdigest()
    assert fingerprint({"w": tensor}) == expected


def test_fingerprint_ignores_storage_and_order() -> None:
    tensor = torch.randn(2, 3, 4, 4)
    state = {"a": tensor, "b": torch.tensor(3)}
    other = {"b": torch.tensor(3), "a": tensor.contiguous(memory_format=torch.channels_last)}
    assert fingerprint(state) == fingerprint(other)


@pytest.mark.parametrize(
    "state",
    [
        {"w": torch.ones(4)},
        {"v": torch.zeros(4)},
        {"w": torch.zeros(2, 2)},
        {"w": torch.zeros(4, dtype=torch.int32)},
        {"w": torch.zeros(4), "v": torch.zeros(0)},
    ],
)
def test_fingerprint_sees_values_names_shapes_and_dtypes(state: dict[str, torch.Tensor]) -> None:
    assert fingerprint(state) != fingerprint({"w": torch.zeros(4)})


def test_fingerprint_of_half_precision() -> None:
    assert fingerprint({"w": torch.ones(2, dtype=torch.bfloat16)}) != fingerprint({"w": torch.ones(2).half()})


def test_tied_weights_are_stored_apart() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    weights = collect_weights(model)
    assert torch.equal(safetensors.torch.load(safetensors.torch.save(weights))["1.weight"], model[0].weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_parameters_that_are_not_finite(value: float) -> None:
    model = nn.Linear(2, 2)
    model.weight.data[0, 1] = value
    with pytest.raises(BundleError, match=r"finite weights.*1 tensors: \['weight'\]"):
        collect_weights(model)


def test_infinity_is_allowed_in_buffers_and_nan_is_not() -> None:
    model = nn.Module()
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    check_finite(model)
    model.register_buffer("mask", torch.tensor([0.0, torch.nan]))
    with pytest.raises(BundleError, match="mask"):
        check_finite(model)


def test_refuses_state_that_is_no_tensor() -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> object:
            return {"code": 1}

    with pytest.raises(BundleError, match="tensors alone"):
        collect_weights(Odd(2, 2))


def test_reads_and_fills(tmp_path: Path) -> None:
    source, target = nn.Linear(3, 2).double(), nn.Linear(3, 2)
    (tmp_path / "model.safetensors").write_bytes(safetensors.torch.save(collect_weights(source)))
    fill(target, read_weights(tmp_path))
    assert target.weight.dtype == torch.float64
    assert torch.equal(target.weight, source.weight)
    assert target.weight.requires_grad


@pytest.mark.parametrize("length", [0, 4, 40, 100])
def test_refuses_a_truncated_file(tmp_path: Path, length: int) -> None:
    content = safetensors.torch.save({"weight": torch.zeros(8, 8)})
    assert length < len(content)
    (tmp_path / "model.safetensors").write_bytes(content[:length])
    with pytest.raises(BundleError, match="truncated or damaged"):
        read_weights(tmp_path)


def test_refuses_a_pickle_under_a_wrong_name(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(BundleError, match=r"it is a pickle.*can run any code"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["weights.pt", "pytorch_model.bin", "a.PKL", "last.ckpt"])
def test_refuses_pickles_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BundleError, match=f"{name}.*can run any code"):
        read_weights(tmp_path)
    with pytest.raises(BundleError, match="can run any code"):
        refuse_pickle(tmp_path / name)


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "model.bin").mkdir()
    refuse_pickle(tmp_path / "model.bin")


def test_says_that_weights_are_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle, or it is incomplete"):
        read_weights(tmp_path)


def test_fill_refuses_other_names_and_shapes() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(BundleError, match=r"1 are missing \['bias'\] and 1 are unknown \['scale'\]"):
        fill(model, {"weight": torch.zeros(2, 3), "scale": torch.zeros(2)})
    with pytest.raises(BundleError, match=r"`weight` to be of shape \(2, 3\).*holds \(3, 3\)"):
        fill(model, {"weight": torch.zeros(3, 3), "bias": torch.zeros(2)})
    with pytest.raises(BundleError, match="finite weights"):
        fill(model, {"weight": torch.full((2, 3), torch.nan), "bias": torch.zeros(2)})
