from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from softcam.backbones import create_black_box
from softcam.bundle import folder as folder_module
from softcam.bundle import load, load_black_box, read_config, save
from softcam.errors import BundleError
from softcam.nn import SoftCAM, convert


@pytest.fixture
def bundle(tmp_path: Path, named: SoftCAM) -> Path:
    return save(named, tmp_path / "model", classes=["a", "b", "c"])


def edit(bundle: Path, **changes: object) -> None:
    values = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**values, **changes}))


def test_gives_the_same_model_back(bundle: Path, named: SoftCAM) -> None:
    loaded = load(bundle)
    images = torch.randn(2, 3, 96, 96)
    assert torch.equal(loaded(images), named(images))
    assert torch.equal(loaded.evidence(images).maps, named.evidence(images).maps)
    assert loaded.conversion == named.conversion
    assert not loaded.training
    assert {entry.name for entry in bundle.iterdir()} == {"model.safetensors", "config.json", "README.md"}


def test_dropout_comes_back_though_no_tensor_holds_it(bundle: Path, named: SoftCAM) -> None:
    assert named.head.dropout == 0.25
    assert load(bundle).head.dropout == 0.25


def test_multi_label_and_half_precision_come_back(tmp_path: Path, toy: nn.Module) -> None:
    model = convert(toy, multi_label=True).bfloat16()
    loaded = load(save(model, tmp_path / "m"), model=toy)
    assert loaded.multi_label
    assert loaded.head.classifier.weight.dtype == torch.bfloat16


def test_black_box_round_trip(tmp_path: Path, named_black_box: nn.Module) -> None:
    images = torch.randn(2, 3, 96, 96)
    loaded = load_black_box(save(named_black_box, tmp_path / "box"))
    assert torch.equal(loaded(images), named_black_box(images))
    assert read_config(tmp_path / "box").head is None


def test_kinds_are_not_mixed_up(tmp_path: Path, bundle: Path, named_black_box: nn.Module) -> None:
    with pytest.raises(BundleError, match=r"'black_box', but got 'softcam'\. Read it with `load`"):
        load_black_box(bundle)
    with pytest.raises(BundleError, match="Read it with `load_black_box`"):
        load(save(named_black_box, tmp_path / "box"))


def test_a_users_module_has_to_be_handed_in(tmp_path: Path, toy: nn.Module) -> None:
    model = convert(toy)
    path = save(model, tmp_path / "own")
    with pytest.raises(BundleError, match=r"`model` to be given.*call load\(path, model=module\)"):
        load(path)
    fresh = type(toy)()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(load(path, model=fresh)(images), model(images))
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


def test_a_users_black_box_is_filled(tmp_path: Path, toy: nn.Module) -> None:
    path = save(toy, tmp_path / "own", classes=["a", "b"])
    fresh = type(toy)()
    images = torch.randn(1, 3, 64, 64)
    assert load_black_box(path, model=fresh) is fresh
    assert torch.equal(fresh(images), toy(images))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_refuses_a_bundle_without(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"a readable {name}"):
        load(bundle)


def test_a_card_is_not_needed(bundle: Path) -> None:
    (bundle / "README.md").unlink()
    load(bundle)


def test_refuses_weights_of_another_bundle(bundle: Path) -> None:
    weights = safetensors.torch.load_file(bundle / "model.safetensors")
    weights["head.classifier.bias"] += 1e-3
    safetensors.torch.save_file(weights, bundle / "model.safetensors")
    with pytest.raises(BundleError, match="Expected weights with fingerprint"):
        load(bundle)


def test_refuses_a_class_count_that_the_weights_contradict(bundle: Path) -> None:
    edit(bundle, classes=["a", "b"], conversion=None)
    with pytest.raises(BundleError, match=r"`head.classifier.weight` to be of shape \(2, 96, 1, 1\).*\(3, 96, 1, 1\)"):
        load(bundle)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:no_such_net", "one that can be built"),
        ("elsewhere:resnet", "one that can be built"),
        ("timm:test_efficientnet", r"96 channels under a 'linear' head"),
    ],
)
def test_refuses_another_architecture(bundle: Path, name: str, message: str) -> None:
    edit(bundle, architecture={"name": name, "arguments": {}})
    with pytest.raises(BundleError, match=message):
        load(bundle)


def test_refuses_arguments_that_no_builder_takes(bundle: Path) -> None:
    edit(bundle, architecture={"name": "timm:test_resnet", "arguments": {"wings": 2}})
    with pytest.raises(BundleError, match="wings"):
        load(bundle)


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg", "cache_dir", "pretrained_strict"])
def test_an_architecture_cannot_make_it_read_other_files(bundle: Path, tmp_path: Path, argument: str) -> None:
    torch.save({}, tmp_path / "other.pth")
    edit(bundle, architecture={"name": "timm:test_resnet", "arguments": {argument: str(tmp_path / "other.pth")}})
    with pytest.raises(BundleError, match=f"name no other files, but it has \\['{argument}'\\]"):
        load(bundle)


def test_refuses_an_architecture_with_another_grid(bundle: Path) -> None:
    edit(bundle, architecture={"name": "timm:test_resnet", "arguments": {"output_stride": 16}})
    with pytest.raises(BundleError, match=r"Expected \(5, 5\) cells.*gives \(10, 10\)"):
        load(bundle)


@pytest.mark.parametrize("path", ["model.pt", "model.bin", "model.pkl"])
def test_refuses_a_pickle(tmp_path: Path, named: SoftCAM, path: str) -> None:
    torch.save({}, tmp_path / path)
    for act in (load, load_black_box, lambda p: save(named, p)):
        with pytest.raises(BundleError, match="can run any code"):
            act(tmp_path / path)


def test_says_that_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"Expected the folder of a bundle.*Check the path"):
        load(tmp_path / "nothing")
    (tmp_path / ".nothing.0123.old").mkdir()
    with pytest.raises(BundleError, match=r"rename '.nothing.0123.old' to 'nothing'"):
        load(tmp_path / "nothing")


def test_refuses_weights_that_are_not_finite(tmp_path: Path, toy: nn.Module) -> None:
    model = convert(toy)
    model.head.classifier.weight.data[0] = torch.nan
    with pytest.raises(BundleError, match=r"finite weights.*head\.classifier\.weight"):
        save(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_replaces_a_bundle_and_nothing_else(bundle: Path, toy: nn.Module, tmp_path: Path) -> None:
    save(convert(toy), bundle)
    assert read_config(bundle).classes == ("0", "1")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="new, empty or a bundle"):
        save(convert(toy), bundle)
    assert (bundle / "notes.txt").read_text() == "mine"


def test_refuses_a_file_or_a_link_in_the_way(tmp_path: Path, toy: nn.Module) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(BundleError, match="new, empty or a bundle"):
            save(convert(toy), tmp_path / name)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_failed_write_leaves_the_old_bundle(
    bundle: Path, toy: nn.Module, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    before = {entry.name: entry.read_bytes() for entry in bundle.iterdir()}
    written: list[Path] = []

    def fail(path: Path, content: bytes | str) -> None:
        written.append(path)
        if len(written) == step:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "write_atomic", fail)
    with pytest.raises(OSError, match="No space left"):
        save(convert(toy), bundle)
    assert {entry.name: entry.read_bytes() for entry in bundle.iterdir()} == before
    assert [entry.name for entry in bundle.parent.iterdir()] == ["model"]


def test_a_failed_rename_puts_the_old_bundle_back(
    bundle: Path, toy: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (bundle / "config.json").read_bytes()
    rename, calls = Path.rename, []

    def fail_second(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError("interrupted")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(OSError, match="interrupted"):
        save(convert(toy), bundle)
    assert (bundle / "config.json").read_bytes() == before
    assert [entry.name for entry in bundle.parent.iterdir()] == ["model"]


def test_a_network_that_asks_for_the_version_of_its_state_loads(tmp_path: Path) -> None:
    model = convert(create_black_box("torchvision:mnasnet0_5", num_classes=2).eval(), images=torch.randn(1, 3, 64, 64))
    loaded = load(save(model, tmp_path / "model"))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())
