from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.errors import UnsupportedModelError
from softcam.nn.features import TimmFeatures, WatchedFeatures
from softcam.nn.pruning import drop_unused
from softcam.nn.split import NamedSplit, Split, TimmSplit, WatchedSplit, split_network


class Named(nn.Module):
    """A network that names its halves; its head has a batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.last = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.25)
        self.fc = nn.Linear(6, 4)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.last(self.stem(images))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.fc(self.drop(self.norm(features.mean((2, 3)))))

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


class Unnamed(Named):
    """The same network, which does not name its halves."""

    forward_features = None  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.last(self.stem(images)))


class Gated(Unnamed):
    """Squeeze-and-excitation: a pooling before the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        gate = self.gate(F.dropout(F.adaptive_avg_pool2d(stem, 1).flatten(1), 0.9, training=False)).sigmoid()
        return self.forward_head(self.last(stem * gate[..., None, None]))


@pytest.fixture
def example(images: Tensor) -> Tensor:
    return images[:1]


def tail_names(split: Split) -> set[str]:
    return {name for name, _ in split.tail}


@pytest.mark.parametrize(("make", "kind"), [(Named, TimmSplit), (Unnamed, WatchedSplit), (Gated, WatchedSplit)])
def test_the_halves_are_found(make: Callable[[], nn.Module], kind: type[Split], example: Tensor) -> None:
    network = make().eval()
    split = split_network(network, example)
    assert type(split) is kind
    assert split.shape == (1, 6, 4, 5)
    assert tail_names(split) == {"norm", "fc"}
    assert split.dropout == 0.25
    features = split.features("NCHW")
    assert isinstance(features, TimmFeatures if kind is TimmSplit else WatchedFeatures)
    with torch.no_grad():
        torch.testing.assert_close(split.head(features(example)), network(example))


@pytest.mark.parametrize("make", [Named, Unnamed, Gated])
def test_the_head_takes_any_features(make: Callable[[], nn.Module], example: Tensor) -> None:
    network = make().eval()
    split = split_network(network, example)
    other = torch.randn(5, 6, 2, 9)
    with torch.no_grad():
        torch.testing.assert_close(split.head(other), network.forward_head(other))


def test_features_that_are_no_tensor_are_watched_instead(example: Tensor) -> None:
    class Pair(Named):
        def forward_features(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            features = super().forward_features(images)
            return features, features

        def forward(self, images: Tensor) -> Tensor:
            return self.forward_head(self.forward_features(images)[0])

    assert isinstance(split_network(Pair().eval(), example), WatchedSplit)


def test_a_module_of_both_halves_belongs_to_the_features(example: Tensor) -> None:
    class Shared(Named):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.BatchNorm2d(6)

        def forward_features(self, images: Tensor) -> Tensor:
            return self.scale(super().forward_features(images))

        def forward_head(self, features: Tensor) -> Tensor:
            return super().forward_head(self.scale(features))

    assert tail_names(split_network(Shared().eval(), example)) == {"norm", "fc"}


def test_no_hook_is_left(example: Tensor) -> None:
    for make in (Named, Gated):
        network = make().eval()
        split_network(network, example)
        assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_network_without_pooling_is_refused(example: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.ReLU())
    with pytest.raises(UnsupportedModelError, match="but no such call was seen"):
        split_network(network, example)


def test_a_flattening_is_the_end_of_the_features(example: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.Flatten(), nn.Linear(120, 4)).eval()
    split = split_network(network, example)
    assert split.shape == (1, 6, 4, 5)
    assert tail_names(split) == {"2"}
    features = torch.randn(3, 6, 4, 5)
    torch.testing.assert_close(split.head(features), network[2](features.flatten(1)))


def test_a_pooling_to_a_grid_before_a_flattening_belongs_to_the_head(example: Tensor) -> None:
    pool = nn.AdaptiveAvgPool2d((2, 2))
    network = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), pool, nn.Flatten(), nn.Linear(24, 4)).eval()
    split = split_network(network, example)
    assert split.shape == (1, 6, 4, 5)
    features = torch.randn(3, 6, 7, 7)
    torch.testing.assert_close(split.head(features), network[3](pool(features).flatten(1)))


def test_the_choice_of_a_token_is_the_end_of_the_features(example: Tensor) -> None:
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.fc = nn.Conv2d(3, 6, 4, stride=4), nn.Linear(6, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.patches(images).flatten(2).transpose(1, 2)[:, 0])

    network = Token().eval()
    split = split_network(network, example)
    assert split.shape == (1, 20, 6)
    tokens = torch.randn(3, 20, 6)
    torch.testing.assert_close(split.head(tokens), network.fc(tokens[:, 0]))


@pytest.mark.parametrize("make", [Named, Unnamed, Gated])
def test_the_end_of_the_features_can_be_named(make: Callable[[], nn.Module], example: Tensor) -> None:
    network = make().eval()
    split = split_network(network, example, features="last", classifier="fc")
    assert isinstance(split, NamedSplit)
    assert tail_names(split) == {"norm", "fc"}
    other = torch.randn(5, 6, 2, 9)
    torch.testing.assert_close(split.head(other), network.forward_head(other))


class Clinging(Unnamed):
    """Writes the size of its batch down and uses it after the features."""

    def forward(self, images: Tensor) -> Tensor:
        batch = images.shape[0]
        features = self.last(self.stem(images))
        return self.fc(self.drop(self.norm(features.mean((2, 3)).view(batch, 6))))


@pytest.mark.parametrize("options", [{}, {"features": "last"}])
def test_the_head_runs_on_batches_the_code_did_not_expect(options: dict[str, str], example: Tensor) -> None:
    calls: list[int] = []

    class Counting(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            calls.append(len(images))
            return super().forward(images)

    network = Clinging().eval()
    network.stem = Counting(3, 8, 3, stride=2, padding=1)
    split = split_network(network, example, **options)
    other = torch.randn(5, 6, 4, 5)
    torch.testing.assert_close(split.head(other), network.forward_head(other))
    assert 5 not in calls, "the trunk answers from memory"
    assert "forward" not in network.stem.__dict__


def test_a_network_that_hands_on_its_class_token_alone_is_cut_before(example: Tensor) -> None:
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.mix, self.fc = nn.Conv2d(3, 6, 4, stride=4), nn.Linear(6, 6), nn.Linear(6, 4)

        def forward_features(self, images: Tensor) -> Tensor:
            return self.mix(self.patches(images).flatten(2).transpose(1, 2))[:, :1]

        def forward_head(self, features: Tensor) -> Tensor:
            return self.fc(features[:, 0])

        def forward(self, images: Tensor) -> Tensor:
            return self.forward_head(self.forward_features(images))

    split = split_network(Token().eval(), example)
    assert isinstance(split, NamedSplit)
    assert (split.name, split.shape) == ("mix", (1, 20, 6))


def test_a_map_of_one_cell_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"several positions before the classifier, but got \(1, 6, 1, 1\)"):
        split_network(Named().eval(), torch.randn(1, 3, 4, 4))


def test_layouts_and_channels_follow_the_shape(example: Tensor) -> None:
    def split(*shape: int) -> Split:
        return Split(nn.Identity(), example, torch.Size(shape), tail=[], dropout=0.0)

    assert split(1, 6, 4, 5).layouts() == ("NCHW", "NHWC")
    assert split(1, 20, 6).layouts() == ("NLC", "NCL")
    assert split(1, 6, 4, 5).channels("NCHW") == 6
    assert split(1, 4, 5, 7).channels("NHWC") == 7
    assert split(1, 20, 6).channels("NLC") == 6


@pytest.mark.parametrize(("declared", "layout"), [(6, "NCHW"), (5, "NHWC"), (99, "NCHW"), (None, "NCHW")])
def test_the_likely_layout_has_the_declared_channels(example: Tensor, declared: int | None, layout: str) -> None:
    network = nn.Identity()
    network.num_features = declared
    split = Split(network, example, torch.Size((1, 6, 4, 5)), tail=[], dropout=0.0)
    assert split.likely_layout() == layout


def test_the_base_class_knows_no_halves(example: Tensor) -> None:
    split = Split(nn.Identity(), example, torch.Size((1, 6, 4, 5)), tail=[], dropout=0.0)
    with pytest.raises(NotImplementedError):
        split.head(example)
    with pytest.raises(NotImplementedError):
        split.features("NCHW")


@pytest.mark.parametrize("make", [Named, Unnamed, Gated])
def test_the_head_is_left_behind(make: Callable[[], nn.Module], example: Tensor) -> None:
    network = make().eval()
    split = split_network(network, example)
    features = split.features("NCHW")
    with torch.no_grad():
        expected = features(example)
    _, grid, notes = drop_unused(features, sorted(tail_names(split)), example)
    assert isinstance(network.fc, nn.Identity)
    assert isinstance(network.norm, nn.Identity)
    assert isinstance(network.stem, nn.Conv2d)
    assert grid == (4, 5)
    assert notes == ()
    torch.testing.assert_close(features(example), expected)


def test_the_extent_of_the_central_cell_by_hand() -> None:
    # Two 3x3 kernels of stride 2: 1 -> 3 -> 3 + 2 * 2 = 7 pixels.
    network = Named().eval()
    split = split_network(network, torch.randn(1, 3, 32, 40))
    assert drop_unused(split.features("NCHW"), sorted(tail_names(split)), split.example)[0] == (7, 7)


def test_the_extent_ends_at_the_border_of_the_image() -> None:
    network = Gated().eval()  # the gate sees the whole image
    split = split_network(network, torch.randn(1, 3, 32, 40))
    assert drop_unused(split.features("NCHW"), sorted(tail_names(split)), split.example)[0] == (32, 40)


def test_the_extent_tells_height_from_width() -> None:
    network = Named().eval()
    network.stem = nn.Conv2d(3, 8, (1, 5), stride=2, padding=(0, 2))
    split = split_network(network, torch.randn(1, 3, 32, 40))
    # Vertically 3 rows two apart, horizontally 3 windows of 5 pixels two apart.
    assert drop_unused(split.features("NCHW"), sorted(tail_names(split)), split.example)[0] == (5, 9)


class Branched(Unnamed):
    """Has a branch for training, and runs it in evaluation as well."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Sequential(nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1))

    def forward(self, images: Tensor) -> Tensor:
        self.auxiliary(self.stem(images))
        return super().forward(images)


def test_a_branch_for_training_is_left_behind_and_named(example: Tensor) -> None:
    network = Branched().eval()
    split = split_network(network, example)
    _, _, notes = drop_unused(split.features("NCHW"), sorted(tail_names(split)), example)
    assert notes == ("left behind, as the features do not use it: auxiliary",)
    assert not list(network.auxiliary.parameters())


class Detached(Unnamed):
    """Gates its map with something it does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        return self.forward_head(self.last(stem * self.mask(stem).detach()))


def test_what_the_features_use_without_a_gradient_stays_and_is_frozen(example: Tensor) -> None:
    network = Detached().eval()
    split = split_network(network, example)
    features = split.features("NCHW")
    with torch.no_grad():
        expected = features(example)
    drop_unused(features, sorted(tail_names(split)), example)
    assert isinstance(network.mask, nn.Conv2d)
    assert isinstance(network.fc, nn.Identity)
    assert not any(parameter.requires_grad for parameter in network.mask.parameters())
    assert all(parameter.requires_grad for parameter in network.stem.parameters())
    torch.testing.assert_close(features(example), expected)


def test_a_head_that_cannot_be_taken_out_is_frozen(example: Tensor) -> None:
    class Reaching(Unnamed):
        def forward(self, images: Tensor) -> Tensor:
            pooled = self.norm(self.last(self.stem(images)).mean((2, 3)))
            return F.linear(pooled, self.fc.weight, self.fc.bias)

    network = Reaching().eval()
    split = split_network(network, example)
    drop_unused(split.features("NCHW"), sorted(tail_names(split)), example)
    assert isinstance(network.fc, nn.Linear)
    assert isinstance(network.norm, nn.Identity)
    assert not network.fc.weight.requires_grad


@pytest.mark.parametrize("make", [Named, Unnamed])
def test_features_without_a_gradient_are_refused(make: type[nn.Module], example: Tensor) -> None:
    class Frozen(make):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.stem.register_forward_hook(lambda _module, _inputs, output: output.detach())

    network = Frozen().eval()
    split = split_network(network, example)
    with pytest.raises(UnsupportedModelError, match=r"no gradient reaches it\. Take `torch\.no_grad\(\)`"):
        drop_unused(split.features("NCHW"), sorted(tail_names(split)), example)
