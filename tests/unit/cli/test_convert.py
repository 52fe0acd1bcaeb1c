from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from softcam.backbones import create_black_box
from softcam.bundle import load, read_config
from softcam.cli import convert as command
from softcam.cli import main
from softcam.nn import SoftCAM
from softcam.nn import convert as convert_network
from softcam.nn.build import HeadChoice

IMAGES = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(3))


def run(tmp_path: Path, *flags: str, network: str = "timm:test_resnet") -> tuple[int, Path]:
    torch.manual_seed(0)
    return main(["convert", network, "--weights", "none", "--out", str(tmp_path / "model"), *flags]), tmp_path / "model"


def convert(tmp_path: Path, *flags: str, network: str = "timm:test_resnet") -> SoftCAM:
    code, folder = run(tmp_path, *flags, network=network)
    assert code == 0
    return load(folder)


def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path, *flags: str, **options: str) -> str:
    code, folder = run(tmp_path, *flags, **options)
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert not folder.exists()
    return printed.err


@pytest.mark.parametrize(
    ("network", "flags", "arguments", "head", "grid"),
    [
        ("timm:test_resnet", [], {}, "linear", (5, 5)),
        ("timm:test_resnet", ["--at", "16"], {"at": [16]}, "pointwise", (10, 10)),
        ("timm:test_resnet", ["--at", "16", "layer4"], {"at": [16, "layer4"]}, "several", (10, 10)),
        ("timm:test_resnet", ["--at", "layer2", "--layers", "1"], {"at": ["layer2"], "layers": 1}, "linear", (20, 20)),
        ("timm:test_resnet", ["--map-stride", "16"], {"map_stride": 16}, "linear", (10, 10)),
        (
            "timm:test_resnet",
            ["--features", "layer4", "--classifier", "fc"],
            {"features": "layer4", "classifier": "fc"},
            "linear",
            (5, 5),
        ),
        ("timm:test_resnet", ["--no-exact", "--head", "pointwise"], {"head": "pointwise"}, "pointwise", (5, 5)),
        ("timm:test_mambaout", ["--no-exact"], {}, "pointwise", (5, 5)),
        ("timm:test_mambaout", ["--head", "linear", "--num-classes", "3"], {"head": "linear"}, "linear", (5, 5)),
        ("timm:test_vit", ["--no-exact"], {}, "linear", (10, 10)),
        ("timm:test_convnext", ["--head", "linear"], {}, "pooled_norm", (5, 5)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_was_asked_for_is_stored_and_loads_again(
    tmp_path: Path, network: str, flags: list[str], arguments: dict[str, Any], head: str, grid: tuple[int, int]
) -> None:
    model = convert(tmp_path, *flags, network=network)
    stored = read_config(tmp_path / "model").conversion or {}
    assert (model.conversion.head, model.conversion.grid) == (head, grid)
    assert stored["arguments"] == arguments
    assert model.conversion.to_dict() == stored
    evidence = model.evidence(IMAGES).check()
    assert evidence.maps.shape == (2, model.num_classes, *grid)
    torch.testing.assert_close(model(IMAGES), evidence.logits)


def test_finer_maps_and_copies_load_with_the_weights_of_the_black_box(tmp_path: Path) -> None:
    for name, (flags, options) in {"fine": (["--map-stride", "16"], {"map_stride": 16}), "whole": ([], {})}.items():
        loaded = convert(tmp_path / name, *flags)
        torch.manual_seed(0)
        expected = convert_network(create_black_box("timm:test_resnet").eval(), **options)
        assert torch.equal(loaded(IMAGES), expected(IMAGES))


def test_new_classes_that_are_independent(tmp_path: Path) -> None:
    model = convert(tmp_path, "--num-classes", "3", "--multi-label")
    assert (model.num_classes, model.multi_label) == (3, True)
    assert read_config(tmp_path / "model").task == "multilabel"


@pytest.mark.parametrize(
    ("network", "flags", "lines"),
    [
        (
            "timm:test_mambaout",
            ["--no-exact"],
            ["pointwise (not exact; logits drift by", "do not average to the black box's own logits: fine-tune"],
        ),
        (
            "timm:test_resnet",
            ["--map-stride", "16"],
            ["linear (not exact; largest relative error", "; logits drift by", "map stride 32 -> 16 by dilation"],
        ),
        ("timm:test_resnet", ["--at", "16"], ["not exact; new, to be trained", "place           layer3"]),
    ],
)
def test_prints_what_is_not_exact(
    network: str, flags: list[str], lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(tmp_path, *flags, network=network)
    printed = capsys.readouterr().out
    assert [line for line in lines if line not in printed] == []


def test_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(tmp_path, "--map-stride", "16", "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["exact"] is False
    assert 0 < report["drift"] < 1


def test_a_file_holds_the_same_options(tmp_path: Path) -> None:
    (tmp_path / "options.yaml").write_text("at: [16, layer4]\nnum_classes: 2\nlayers: 1\nno_exact: true\n")
    model = convert(tmp_path, "--config", str(tmp_path / "options.yaml"))
    assert model.conversion.arguments == {"at": [16, "layer4"], "layers": 1}
    assert model.num_classes == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--at", "16", "--features", "layer3"], r"`--at` or `--features`, but got both\. `--at` alone"),
        (["--at", "16", "--head", "linear"], r"`--at` without `--head`, but got `--head linear`.*`--layers`"),
        (["--layers", "2", "--num-classes", "2", "--head", "pointwise"], "`--layers` without `--head pointwise`"),
        (["--layers", "2"], r"Expected `--layers` together with `--num-classes` or `--at`"),
        (["--layers", "0", "--num-classes", "2"], "Expected `--layers` to be >= 1, but got 0"),
        (["--num-classes", "0"], "Expected `--num-classes` to be >= 1, but got 0"),
        (["--map-stride", "7"], "Expected `--map-stride` to be a fraction of the network's 32, such as 16, but got 7"),
        (["--map-stride", "fine"], "map_stride.*int.*fine"),
        (["--at", "17"], r"`--at` to be a stride of the network, but got 17\. It has: 2, 4, 8, 16, 32"),
        (["--at", "0"], r"Expected `--at` to be strides >= 1 or modules"),
        (["--at", "layer9"], "Expected `--at` to be a module of the model, but got 'layer9'. Choose among: conv1"),
        (["--at"], "--at: expected at least one argument"),
        (["--features", "trunk"], "Expected `--features` to be a module of the model, but got 'trunk'"),
        (["--features", "layer3"], r"sees more of the features than their mean.*`--no-exact`.*`--num-classes`"),
        (["--classifier", "layer4"], "the module whose output is the logits with `--classifier`"),
        (["--head", "round"], "--head: invalid choice: 'round'"),
        (["--head", "pointwise"], "Leave `--head` out, or use `--no-exact` and fine-tune the model"),
        (["--head", "fully_convolutional"], "for `--head fully_convolutional`, but this one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refusals_name_the_flags(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message, refusal(capsys, tmp_path, *flags))


def test_a_head_that_cannot_be_exact_is_refused_with_both_ways_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(capsys, tmp_path, network="timm:test_mambaout")
    assert "not affine in the pooled features" in message
    assert "Use `--no-exact` for the closest copy of the head, to be fine-tuned, or `--num-classes` for" in message


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Use `exact=False` here", "Use `--no-exact` here"),
        ("`num_classes=` for", "`--num-classes` for"),
        ("or use weights='none'.", "or use `--weights none`."),
        ("for head='pointwise'", "for `--head pointwise`"),
        ("a head at layers of `images=`", "a head at layers of `images=`"),
        ("`my.head` or `heads`", "`my.head` or `heads`"),
    ],
)
def test_arguments_become_flags(message: str, expected: str) -> None:
    assert command._name_flags(message) == expected


def test_every_form_of_head_is_a_choice() -> None:
    assert get_args(HeadChoice) == command.HEADS
