from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.errors import UnsupportedModelError
from softcam.nn.build import (
    FROZEN_NORM,
    NEW_LAYER,
    RETRAIN,
    HeadChoice,
    build,
    build_at,
    build_new,
    create_features,
)
from softcam.nn.features import Layout, SeveralFeatures, TimmFeatures, WatchedFeatures
from softcam.nn.heads import (
    AttentionEvidence,
    EvidenceHead,
    LinearEvidence,
    NormEvidence,
    PointwiseEvidence,
    SeveralEvidence,
)
from softcam.nn.split import SeveralSplit, Split, split_network
from softcam.nn.stages import Stage

D, K = 6, 4
IMAGE = torch.randn(1, 3, 16, 20)


class Halves(nn.Module):
    """A trunk of one convolution, and a head that is under test."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, D, 4, stride=4)
        self.head = head

    def forward_features(self, images: Tensor) -> Tensor:
        return self.trunk(images)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


class Pooled(nn.Module):
    """Mean over the positions, then layers on vectors."""

    def __init__(self, *then: nn.Module) -> None:
        super().__init__()
        self.then = nn.Sequential(*then)

    def forward(self, features: Tensor) -> Tensor:
        return self.then(features.mean((2, 3)))


class Functional(nn.Module):
    """A hidden layer whose activation is no module, so that it can be neither folded nor read."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(D, 9), nn.Linear(9, K)

    def forward(self, features: Tensor) -> Tensor:
        return self.b(F.relu(self.a(features.mean((2, 3)))))


class Clinging(Pooled):
    """A head for a batch of one."""

    def forward(self, features: Tensor) -> Tensor:
        return self.then(features.mean((2, 3)).view(1, D))


def make_norm(channels: int = D) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(channels)
    for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        values.uniform_(0.5, 2.0)
    return norm


HEADS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: Pooled(nn.Linear(D, K)),
    "dropout": lambda: Pooled(nn.Dropout(0.25), nn.Linear(D, K)),
    "batch norm": lambda: Pooled(make_norm(), nn.Linear(D, K)),
    "layer norm": lambda: Pooled(nn.LayerNorm(D), nn.Linear(D, K)),
    "hidden": lambda: Pooled(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K)),
    "hidden batch norm": lambda: Pooled(nn.Linear(D, 9), make_norm(9), nn.ReLU(), nn.Linear(9, K)),
    "flat": lambda: nn.Sequential(nn.Flatten(), nn.Linear(D * 20, 9), nn.ReLU(), nn.Linear(9, K)),
    "flat, one layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(D * 20, K)),
    "functional": Functional,
    "clinging": lambda: Clinging(nn.Linear(D, K)),
}


def make_split(name: str) -> Split:
    return split_network(Halves(HEADS[name]()).eval(), IMAGE)


EXACT = {
    "linear": (LinearEvidence, ()),
    "dropout": (LinearEvidence, ()),
    "batch norm": (LinearEvidence, (FROZEN_NORM,)),
    "layer norm": (NormEvidence, ()),
}


@pytest.mark.parametrize("head", ["auto", "linear"])
@pytest.mark.parametrize("name", EXACT)
def test_an_exact_head_is_built_exactly(name: str, head: HeadChoice) -> None:
    kind, notes = EXACT[name]
    split = make_split(name)
    for exact in (True, False):
        built = build(split, head=head, exact=exact)
        assert type(built.head) is kind
        assert (built.fidelity, built.layout, built.prefix, built.notes) == ("exact", "NCHW", 0, notes)
    features = torch.randn(2, D, 4, 5)
    torch.testing.assert_close(
        built.head.eval().float()(features), split.network.forward_head(features), atol=1e-5, rtol=1e-4
    )
    assert built.head.dropout == (0.25 if name == "dropout" else 0.0)


INEXACT = {
    "hidden": "is not affine in the pooled features",
    "flat": "sees more of the features than their mean",
    "functional": "is not affine in the pooled features",
}


@pytest.mark.parametrize("head", ["auto", "linear", "pointwise"])
@pytest.mark.parametrize("name", INEXACT)
def test_what_cannot_be_exact_is_refused(name: str, head: HeadChoice) -> None:
    with pytest.raises(UnsupportedModelError, match=f"mean -> affine, but the head {INEXACT[name]}.* `exact=False`"):
        build(make_split(name), head=head, exact=True)


def test_the_copy_of_a_hidden_layer_is_its_layers_at_every_cell() -> None:
    built = build(make_split("hidden"), head="auto", exact=False)
    assert isinstance(built.head, PointwiseEvidence)
    assert (built.fidelity, built.notes) == ("copy", (f"the head's layers are applied at every cell; {RETRAIN}",))


def test_a_layer_on_a_flattened_grid_is_copied_where_all_cells_are_alike() -> None:
    split = make_split("flat, one layer")
    built = build(split, head="linear", exact=False)
    assert isinstance(built.head, LinearEvidence)
    assert (built.fidelity, built.notes) == ("copy", (f"copied where all cells are alike; {RETRAIN}",))
    vector = torch.randn(2, D, 1, 1).expand(-1, -1, 4, 5)
    torch.testing.assert_close(
        built.head.float().eval()(vector), split.network.forward_head(vector), atol=1e-5, rtol=1e-4
    )


def test_no_single_layer_stands_for_a_hidden_one() -> None:
    with pytest.raises(UnsupportedModelError, match="No single 1x1 convolution comes close: leave `head` out for a co"):
        build(make_split("hidden"), head="linear", exact=False)


@pytest.mark.parametrize("name", EXACT)
def test_layers_at_every_cell_are_not_taken_for_exact(name: str) -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"Expected `head` to be 'auto' or 'linear' .*, but got 'pointwise'\. Leave `head`"
    ):
        build(make_split(name), head="pointwise", exact=True)


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_head_may_be_applied_at_every_cell(name: str) -> None:
    split = make_split(name)
    built = build(split, head="pointwise", exact=False)
    assert (built.head.kind, built.fidelity) == ("pointwise", "copy")
    cell = torch.randn(2, D, 1, 1)
    torch.testing.assert_close(built.head.eval().float()(cell), split.network.forward_head(cell), atol=1e-5, rtol=1e-4)


def test_a_flattened_grid_becomes_a_window() -> None:
    split = make_split("flat")
    built = build(split, head="fully_convolutional", exact=True)
    assert (built.head.kind, built.fidelity) == ("fully_convolutional", "exact")
    assert built.notes == ("exact at the size of the probe images, where the map has one cell",)
    features = torch.randn(2, D, 4, 5)
    torch.testing.assert_close(built.head.eval()(features), split.network.head(features), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["linear", "hidden"])
def test_a_head_without_a_flattened_grid_has_no_window(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="a head that flattens a grid of several cells for head='fully_con"):
        build(make_split(name), head="fully_convolutional", exact=True)


def test_a_head_that_cannot_be_probed_is_refused_with_advice() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"the head does not run on features alone.*`features=` and `classifier=`"
    ):
        build(make_split("clinging"), head="auto", exact=False)


# New layers


@pytest.mark.parametrize("name", ["linear", "dropout", "layer norm", "hidden"])
def test_a_new_classifier_keeps_what_comes_before_it(name: str) -> None:
    split = make_split(name)
    old, new = build(split, head="auto", exact=False), build_new(split, head="auto", num_classes=7)
    assert type(new.head) is type(old.head)
    assert (new.head.num_classes, new.fidelity, new.layout) == (7, "new", "NCHW")
    assert new.head.dropout == old.head.dropout
    assert new.notes[0] == NEW_LAYER
    assert RETRAIN not in new.notes


def test_a_new_classifier_folds_no_batch_norm() -> None:
    assert build_new(make_split("batch norm"), head="auto", num_classes=7).notes == (NEW_LAYER,)


@pytest.mark.parametrize("name", ["functional", "clinging"])
def test_a_head_that_cannot_be_read_gives_way_to_a_plain_layer(name: str) -> None:
    built = build_new(make_split(name), head="auto", num_classes=7)
    assert type(built.head) is LinearEvidence
    assert (built.head.channels, built.layout, built.notes) == (D, "NCHW", (NEW_LAYER,))
    with pytest.raises(UnsupportedModelError):
        build_new(make_split(name), head="pointwise", num_classes=7)


@pytest.mark.parametrize(("layers", "kind"), [(None, "linear"), (1, "linear"), (2, "pointwise"), (3, "pointwise")])
def test_a_plain_layer_on_request(layers: int | None, kind: str) -> None:
    built = build_new(make_split("layer norm"), head="linear", num_classes=7, layers=layers)
    assert isinstance(built.head, EvidenceHead)
    assert (built.head.kind, built.head.num_classes, built.fidelity) == (kind, 7, "new")
    assert sum(isinstance(module, nn.Conv2d) for module in built.head.modules()) == (layers or 1)


def test_a_plain_layer_takes_the_dropout_over() -> None:
    assert build_new(make_split("dropout"), head="linear", num_classes=7).head.dropout == 0.25


def make_stage(name: str, channels: int, grid: tuple[int, ...], layout: Layout = "NCHW") -> Stage:
    return Stage(name, layout, 0, channels, grid)


def test_one_stage_has_one_layer_and_several_have_one_each() -> None:
    stages = [make_stage("a", 8, (8, 10)), make_stage("b", 12, (4, 5), "NHWC")]
    one, two = build_at(stages[:1], num_classes=3), build_at(stages, num_classes=3, layers=1)
    assert isinstance(one.head, PointwiseEvidence)
    assert (one.layout, one.places, one.fidelity, one.notes) == ("NCHW", ("a",), "new", (NEW_LAYER,))
    assert isinstance(two.head, SeveralEvidence)
    assert (two.layout, two.places) == ("NHWC", ("a", "b"))
    assert [(type(head), head.channels, head.num_classes) for head in two.head.layers()] == [
        (LinearEvidence, 8, 3),
        (LinearEvidence, 12, 3),
    ]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_stage_s_layer_has_the_dimensions_of_its_grid(dims: int) -> None:
    head = build_at([make_stage("a", 8, (5,) * dims)], num_classes=3).head
    assert head.eval()(torch.randn(2, 8, *[5] * dims)).shape == (2, 3)


# Several maps


class Several(nn.Module):
    """Two maps of tokens, each with a classifier of its mean; channels first, or tokens first."""

    def __init__(self, *, first: bool, start: float | None = None) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 5, 4, 4), nn.Conv2d(5, D, 2, 2)
        self.fa, self.fb = nn.Linear(5, K), nn.Linear(D, K)
        self.first = first
        if start is not None:
            for classifier in (self.fa, self.fb):
                nn.init.zeros_(classifier.weight)
                nn.init.constant_(classifier.bias, start)

    def forward_features(self, images: Tensor) -> list[Tensor]:
        early = self.a(images)
        tokens = [part.flatten(2) for part in (early, self.b(early))]
        return tokens if self.first else [part.transpose(1, 2) for part in tokens]

    def forward_head(self, features: list[Tensor]) -> Tensor:
        dim = 2 if self.first else 1
        return self.fa(features[0].mean(dim)) + self.fb(features[1].mean(dim))

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


WIDE = torch.randn(2, 3, 16, 32)


def split_several(network: nn.Module) -> SeveralSplit:
    split = split_network(network.eval(), WIDE[:1])
    assert isinstance(split, SeveralSplit)
    return split


@pytest.mark.parametrize("start", [None, 0.0, 1.0], ids=["random", "zero", "zero weights"])
@pytest.mark.parametrize(("first", "layout"), [(True, "NCL"), (False, "NLC")])
def test_several_maps_have_a_layer_each(first: bool, layout: Layout, start: float | None) -> None:
    # Weights of zero are affine in any layout: the right one shows only with others in their place.
    network = Several(first=first, start=start)
    split = split_several(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    built = build(split, head="auto", exact=True)
    assert isinstance(built.head, SeveralEvidence)
    assert (built.layout, built.fidelity, built.head.channels) == (layout, "exact", 5 + D)
    torch.testing.assert_close(built.head.layers()[0].classifier.weight[..., 0, 0], network.fa.weight.double())
    torch.testing.assert_close(built.head.layers()[1].classifier.bias, (network.fa.bias + network.fb.bias).double())
    assert not built.head.layers()[0].classifier.bias.any()  # type: ignore[union-attr]
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_maps_before_the_last_have_no_place_where_channels_come_first() -> None:
    built = build(split_several(Several(first=True)), head="auto", exact=True)
    assert built.prefixes == (None, 0)
    assert built.notes == ("the share of states without a place in the image is spread over all cells",)
    assert build(split_several(Several(first=False)), head="auto", exact=True).prefixes == (0, 0)


class Firsts(Several):
    """Classifies the first token of each map."""

    def forward_head(self, features: list[Tensor]) -> Tensor:
        return self.fa(features[0][:, 0]) + self.fb(features[1][:, 0])


@pytest.mark.parametrize("start", [None, 0.0])
def test_class_tokens_of_several_maps_are_not_exact(start: float | None) -> None:
    split = split_several(Firsts(first=False, start=start))
    with pytest.raises(UnsupportedModelError, match=r"sees more of several maps than their means.*Use `exact=False`"):
        build(split, head="auto", exact=True)
    built = build(split, head="auto", exact=False)
    assert (built.layout, built.fidelity) == ("NLC", "copy")
    assert built.notes == (f"copied where all cells are alike; {RETRAIN}",)


class Squared(Several):
    """Not affine in any of its maps."""

    def forward_head(self, features: list[Tensor]) -> Tensor:
        return super().forward_head([part.square() for part in features])


@pytest.mark.parametrize("start", [None, 0.0])
def test_several_maps_that_are_squared_are_refused(start: float | None) -> None:
    with pytest.raises(UnsupportedModelError, match=r"not affine in several maps.*Name one map with `features=`"):
        build(split_several(Squared(first=False, start=start)), head="auto", exact=False)


# Features


def test_the_extractor_fits_the_split() -> None:
    halves = make_split("linear")
    features = create_features(halves, build(halves, head="auto", exact=True))
    assert type(features) is TimmFeatures
    assert torch.equal(features(IMAGE), halves.network.trunk(IMAGE))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.fc = nn.Conv2d(3, D, 4, stride=4), nn.Linear(D, K)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.trunk(images).mean((2, 3)))

    watched = split_network(Whole().eval(), IMAGE)
    assert type(create_features(watched, build(watched, head="auto", exact=True))) is WatchedFeatures
    several = split_several(Several(first=False))
    extractor = create_features(several, build(several, head="auto", exact=True))
    assert type(extractor) is SeveralFeatures
    assert [tuple(part.shape) for part in extractor(WIDE)] == [(2, 5, 4, 8), (2, D, 2, 4)]


# Attention


def make_attention(*, separate: bool = False, biased: bool = True) -> Split:
    attention = pytest.importorskip("timm.layers.attention_pool2d")
    pool = attention.AttentionPool2d(D, (4, 5), out_features=K, embed_dim=8, num_heads=2, qkv_separate=separate)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.normal_(std=0.5)
    for layer in (pool.q, pool.k, pool.v) if separate else (pool.qkv,):
        layer.bias = layer.bias if biased else None
    return split_network(Halves(pool).eval(), IMAGE)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_attention_pooling_is_copied(separate: bool, biased: bool) -> None:
    pytest.importorskip("timm", minversion="1.0.31", reason="older ones cannot pool a grid that is not square")
    split = make_attention(separate=separate, biased=biased)
    built = build(split, head="auto", exact=True)
    assert isinstance(built.head, AttentionEvidence)
    assert (built.fidelity, built.notes) == ("exact", ("attention weights of the image place the evidence",))
    features = torch.randn(2, D, 4, 5)
    torch.testing.assert_close(built.head.eval()(features), split.network.head(features), atol=1e-5, rtol=1e-4)
    assert built.head.positions.dtype == torch.float32


def test_attention_that_computes_something_else_is_no_attention_pooling() -> None:
    pytest.importorskip("timm", minversion="1.0.31", reason="older ones cannot pool a grid that is not square")
    split = make_attention()
    pool = split.network.head

    class Doubled(type(pool)):  # type: ignore[misc]
        def forward(self, features: Tensor) -> Tensor:
            return super().forward(features.square())

    pool.__class__ = Doubled
    with pytest.raises(UnsupportedModelError, match="sees more of the features than their mean"):
        build(split, head="auto", exact=True)
