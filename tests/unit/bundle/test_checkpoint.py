from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from softcam.bundle import adopt, read_checkpoint
from softcam.bundle.checkpoint import find_prefix
from softcam.errors import BundleError, SoftCAMWarning


def create(seed: int, classes: int = 2) -> nn.Sequential:
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    return nn.Sequential(trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))


def rename(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def assert_same(network: nn.Module, state: dict[str, Tensor]) -> None:
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module.backbone."])
@pytest.mark.parametrize("holder", [None, "state_dict", "model_state_dict", "model"])
def test_a_state_dict_is_found_under_any_name_and_prefix(tmp_path: Path, prefix: str, holder: str | None) -> None:
    state = create(1).state_dict()
    stored: dict[str, Any] = rename(state, prefix)
    if holder is not None:
        stored = {"epoch": 3, "optimizer": {"lr": 0.1}, "lr": torch.zeros(1), holder: stored}
    torch.save(stored, tmp_path / "weights.pth")
    network = create(0)
    adopt(network, read_checkpoint(tmp_path / "weights.pth"))
    assert_same(network, state)


def test_safetensors_are_read(tmp_path: Path) -> None:
    state = create(1).state_dict()
    safetensors.torch.save_file(state, tmp_path / "any.name")
    network = create(0)
    adopt(network, read_checkpoint(tmp_path / "any.name"))
    assert_same(network, state)


def test_half_precision_becomes_that_of_the_network() -> None:
    network, other = create(0), create(1).half()
    adopt(network, other.state_dict())
    assert network[3].weight.dtype == torch.float32
    assert torch.equal(network[3].weight, other[3].weight.float())


def test_a_classifier_that_starts_anew_is_neither_taken_nor_needed() -> None:
    for classes in (2, 7):
        network, before = create(0), create(0).state_dict()
        state = create(1, classes).state_dict()
        adopt(network, state, renewed="3")
        assert torch.equal(network[3].weight, before["3.weight"])
        assert torch.equal(network[0][0].weight, state["0.0.weight"])
    headless = {name: tensor for name, tensor in create(1).state_dict().items() if not name.startswith("3.")}
    adopt(create(0), headless, renewed="3")
    with pytest.raises(
        BundleError, match=r"of 9 tensors there are 2 missing \(3\.weight, 3\.bias\)\. Name the backbone"
    ):
        adopt(create(0), headless)


def test_a_classifier_of_another_size_is_named_with_both_shapes() -> None:
    with pytest.raises(BundleError, match=r"2 of another shape \(3\.weight \(7, 4\) for \(2, 4\), 3\.bias \(7,\) for"):
        adopt(create(0), create(1, 7).state_dict())


def test_names_that_the_network_lacks_are_told_and_left_out() -> None:
    state = rename(create(1).state_dict(), "module.") | {
        "module.decoder.weight": torch.zeros(2),
        "queue": torch.ones(1),
    }
    network = create(0)
    with pytest.warns(SoftCAMWarning, match=r"it has 2 more, which are left out: module\.decoder\.weight, queue\."):
        adopt(network, state)
    assert torch.equal(network[3].bias, state["module.3.bias"])


def test_old_files_without_counters_fit() -> None:
    state = {name: tensor for name, tensor in create(1).state_dict().items() if "tracked" not in name}
    adopt(create(0), state)


def test_weights_of_something_else_are_refused_and_change_nothing() -> None:
    network, before = create(0), create(0).state_dict()
    with pytest.raises(
        BundleError, match=r"9 tensors there are 8 missing .* and 3 more\), 1 unknown to it \(encoder\.w\)"
    ):
        adopt(network, {"encoder.w": torch.zeros(3)})
    broken = create(1).state_dict()
    del broken["0.0.weight"]
    with pytest.raises(BundleError, match="1 missing"):
        adopt(network, broken)
    assert_same(network, before)


def test_weights_that_are_not_finite_are_refused() -> None:
    state = create(1).state_dict()
    state["0.0.bias"][0] = torch.nan
    with pytest.raises(BundleError, match="finite"):
        adopt(create(0), state)


def test_the_prefix_is_the_one_under_which_most_names_fit() -> None:
    own = create(0).state_dict()
    state = rename(own, "student.") | {"teacher.0.0.bias": own["0.0.bias"]}
    assert find_prefix(state, own) == "student."
    assert find_prefix({}, own) == ""


class Runs:
    """What runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("kind", ["code", "namespace", "module", "program"])
def test_a_file_that_would_run_code_is_refused_with_what_it_names(tmp_path: Path, kind: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / "weights.pt"
    if kind == "program":
        torch.jit.trace(create(0).eval(), torch.zeros(1, 1, 8, 8)).save(path)
    else:
        held = {"code": Runs(marker), "namespace": argparse.Namespace(lr=1), "module": create(0)}[kind]
        torch.save({"state_dict": create(1).state_dict(), "args": held}, path)
    told = {"code": r"names \w+\.system", "namespace": r"names argparse\.Namespace", "module": r"names torch\.nn"}
    reason = told.get(kind, "is a TorchScript program")
    with pytest.raises(BundleError, match=rf"tensors alone, but it {reason}.*can run any code.*save_file"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04", b"\x80\x02}", b"\x80\x02X\xff"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(BundleError, match=r"'weights\.pt' to (be a file of safetensors|hold a state dict)"):
        read_checkpoint(tmp_path / "weights.pt")
    with pytest.raises(BundleError, match="a readable file of weights"):
        read_checkpoint(tmp_path / "gone.pt")


@pytest.mark.parametrize(("stored", "told"), [([1, 2], "got list"), ({"epoch": 1, "model": {}}, "names epoch, model")])
def test_files_without_tensors_are_named(tmp_path: Path, stored: Any, told: str) -> None:
    torch.save(stored, tmp_path / "weights.pt")
    with pytest.raises(BundleError, match=rf"to hold a state dict, at its top or as one of .* {told}"):
        read_checkpoint(tmp_path / "weights.pt")
