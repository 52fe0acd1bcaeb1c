from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.features import NamedFeatures, SeveralFeatures, StageFeatures, TimmFeatures, WatchedFeatures
from softcam.nn.pruning import drop_unused, list_weighted

POOLED = torch.randn(1, 3, 16, 24)


class Net(nn.Module):
    """Two stages, a branch for training alone, and a head of two layers in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.SiLU())
        self.stage = nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.aux = nn.Sequential(nn.Linear(5, 2), nn.Linear(2, 2))
        self.head = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3))

    def forward_features(self, images: Tensor) -> Tensor:
        return self.stage(self.stem(images))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.head(features.mean((2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


TAIL = ["head.0", "head.1"]


@pytest.fixture
def net() -> Net:
    return Net().eval()


def unfold(features: object) -> list[Tensor]:
    return [features] if isinstance(features, Tensor) else list(features)  # type: ignore[call-overload]


EXTRACTORS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "halves": TimmFeatures,
    "watched": WatchedFeatures,
    "named": lambda net: NamedFeatures(net, name="stage"),
    "stages": lambda net: StageFeatures(net, [("stem", "NCHW", 0), ("stage", "NCHW", 0)]),
}


@pytest.mark.parametrize("name", EXTRACTORS)
def test_features_stay_what_they_are_and_the_rest_goes(name: str, net: Net) -> None:
    expected = unfold(EXTRACTORS[name](copy.deepcopy(net))(POOLED))
    features = EXTRACTORS[name](net)
    drop_unused(features, TAIL, POOLED)
    for found, before in zip(unfold(features(POOLED)), expected, strict=True):
        assert torch.equal(found, before)
    left = {key.split(".")[0] for key, _ in net.named_parameters()}
    assert left == {"stem", "stage"}


def test_what_was_never_called_is_named_and_taken_out_whole(net: Net) -> None:
    _, _, notes = drop_unused(TimmFeatures(net), TAIL, POOLED)
    assert notes == ("left behind, as the features do not use it: aux",)
    assert type(net.aux[0]) is nn.Identity or type(net.aux) is nn.Identity


def test_a_head_alone_leaves_no_note() -> None:
    network = Net().eval()
    del network.aux
    assert drop_unused(TimmFeatures(network), TAIL, POOLED)[2] == ()
    assert [type(layer) for layer in network.head] == [nn.Identity, nn.Identity]


def test_later_stages_go_with_an_earlier_place(net: Net) -> None:
    features = NamedFeatures(net, name="stem")
    extent, grid, notes = drop_unused(features, [], POOLED)
    assert (extent, grid) == ((3, 3), (8, 12))
    assert notes == ("left behind, as the features do not use it: aux, head, stage",)
    assert type(net.stage) is nn.Identity


def test_the_grid_is_the_finest_stage_s_and_its_cells_see_what_any_stage_sees(net: Net) -> None:
    # The first stage has cells of stride 2 that see 3 px; the last is of stride 4, and sees 7.
    features = StageFeatures(net, [("stem", "NCHW", 0), ("stage", "NCHW", 0)])
    assert drop_unused(features, [], POOLED)[:2] == ((7, 7), (8, 12))
    assert drop_unused(TimmFeatures(Net().eval()), TAIL, POOLED)[:2] == ((7, 7), (4, 6))


@pytest.mark.parametrize(
    ("layer", "shape", "extent", "grid"),
    [
        (nn.Conv1d(2, 3, 5, stride=4), (1, 2, 21), (5,), (5,)),
        (nn.Conv3d(2, 3, (1, 2, 3)), (1, 2, 3, 4, 5), (1, 2, 3), (3, 3, 3)),
    ],
    ids=["signals", "volumes"],
)
def test_extents_of_signals_and_volumes(
    layer: nn.Module, shape: tuple[int, ...], extent: tuple[int, ...], grid: tuple[int, ...]
) -> None:
    features = NamedFeatures(nn.Sequential(layer, nn.ReLU()), ("NCL", "NCHW", "NCDHW")[len(shape) - 3], name="0")
    assert drop_unused(features, [], torch.randn(shape))[:2] == (extent, grid)


def test_several_maps_count_where_they_have_a_place() -> None:
    class Several(Net):
        def forward_features(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
            early = self.stem(images)
            return [early.flatten(2), self.stage(early).flatten(2)]

    features = SeveralFeatures(Several().eval(), "NCL", (None, 0))
    assert drop_unused(features, TAIL, POOLED)[:2] == ((7, 7), (4, 6))


def test_weights_without_use_that_have_to_stay_are_frozen() -> None:
    class Needing(Net):
        def forward_features(self, images: Tensor) -> Tensor:
            features = super().forward_features(images)
            return features + 0 * self.aux[0].weight.detach().sum()

    network = Needing().eval()
    drop_unused(TimmFeatures(network), TAIL, POOLED)
    assert not network.aux[0].weight.requires_grad
    assert all(parameter.requires_grad for parameter in (*network.stem.parameters(), *network.stage.parameters()))


def test_no_gradient_is_left_and_nothing_is_learnt(net: Net) -> None:
    before = {key: value.clone() for key, value in net.state_dict().items()}
    images = POOLED.clone().requires_grad_()
    drop_unused(TimmFeatures(net), TAIL, images)
    assert images.grad is None
    assert all(parameter.grad is None for parameter in net.parameters())
    after = net.state_dict()
    assert all(torch.equal(before[key], value) for key, value in after.items())


def test_no_grad_of_the_caller_does_not_matter(net: Net) -> None:
    with torch.no_grad():
        extent, _, _ = drop_unused(TimmFeatures(net), TAIL, POOLED)
        assert not torch.is_grad_enabled()
    assert extent == (7, 7)
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_features_that_do_not_depend_on_the_image_are_refused() -> None:
    class Blind(Net):
        def forward_features(self, images: Tensor) -> Tensor:
            return self.stage(self.stem(torch.zeros_like(images)))

    network = Blind().eval()
    with pytest.raises(UnsupportedModelError, match=r"no gradient reaches it\. Take `torch\.no_grad\(\)` and `detach"):
        drop_unused(TimmFeatures(network), TAIL, POOLED)
    assert all(parameter.requires_grad for parameter in network.stem.parameters())


def test_modules_with_weights_or_buffers_of_their_own_are_listed(net: Net) -> None:
    assert [name for name, _ in list_weighted(net)] == [
        "stem.0", "stem.1", "stage", "aux.0", "aux.1", "head.0", "head.1"
    ]  # fmt: skip
    net.register_buffer("mean", torch.zeros(3))
    net.aux.register_buffer("count", torch.zeros(1))
    names = [name for name, _ in list_weighted(net)]
    assert "aux" in names
    assert "" not in names
