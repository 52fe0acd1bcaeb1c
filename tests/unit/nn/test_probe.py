from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.nn.probe import fold_affine, judge_head
from softcam.nn.split import Split, split_network

D, K = 6, 4


class Halves(nn.Module):
    """A network that names its halves; the second is whatever is under test."""

    def __init__(self, head: nn.Module, arrange: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, D, 4, stride=4)
        self.head = head
        self.arrange = arrange

    def forward_features(self, images: Tensor) -> Tensor:
        return self.arrange(self.trunk(images))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


class Pooled(nn.Module):
    """Mean over positions, then what follows."""

    def __init__(self, *then: nn.Module, positions: tuple[int, ...] = (2, 3)) -> None:
        super().__init__()
        self.then = nn.Sequential(*then)
        self.positions = positions

    def forward(self, features: Tensor) -> Tensor:
        return self.then(features.mean(self.positions))


def make_split(head: nn.Module, arrange: Callable[[Tensor], Tensor] = lambda x: x) -> Split:
    return split_network(Halves(head, arrange).eval(), torch.randn(1, 3, 16, 20))


def make_norm() -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(D)
    for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        values.uniform_(0.5, 2.0)
    return norm


class TwoHeads(nn.Module):
    """The average of two classifiers, as distilled networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(D, K), nn.Linear(D, K)

    def forward(self, pooled: Tensor) -> Tensor:
        return (self.a(pooled) + self.b(pooled)) / 2


class OwnWeights(nn.Module):
    """A classifier whose weights belong to no module that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(D, K))

    def forward(self, pooled: Tensor) -> Tensor:
        return pooled @ self.table


AFFINE: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: Pooled(nn.Linear(D, K)),
    "without bias": lambda: Pooled(nn.Linear(D, K, bias=False)),
    "dropout": lambda: Pooled(nn.Dropout(0.5), nn.Linear(D, K)),
    "batch norm": lambda: Pooled(make_norm(), nn.Linear(D, K)),
    "two linears": lambda: Pooled(nn.Linear(D, 3), nn.Linear(3, K)),
    "two heads": lambda: Pooled(TwoHeads()),
    "own weights": lambda: Pooled(OwnWeights()),
    "convolution": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(D, K, 1), nn.Flatten()),
    "convolution before": lambda: nn.Sequential(nn.Conv2d(D, K, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
}


def make_max() -> nn.Module:
    return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(D, K))


def make_flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(D * 20, K))


NOT_AFFINE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "max": (make_max, "sees more of the features than their mean"),
    "flatten": (make_flat, "sees more of the features than their mean"),
    "relu before": (lambda: nn.Sequential(nn.ReLU(), Pooled(nn.Linear(D, K))), "sees more of the features"),
    "layer norm": (lambda: Pooled(nn.LayerNorm(D), nn.Linear(D, K)), "not affine in the pooled features"),
    "hidden layer": (lambda: Pooled(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K)), "not affine"),
    "hard swish": (lambda: Pooled(nn.Hardswish(), nn.Linear(D, K)), "not affine"),
    "late saturation": (lambda: Pooled(nn.Hardtanh(-50, 50), nn.Linear(D, K)), "not affine"),
    "softmax": (lambda: Pooled(nn.Linear(D, K), nn.Softmax(-1)), "not affine"),
}


@pytest.mark.parametrize("name", AFFINE)
def test_affine_heads_are_recognised_and_folded(name: str) -> None:
    split = make_split(AFFINE[name]())
    verdict = judge_head(split)
    assert (verdict.layout, verdict.affine) == ("NCHW", True)
    weight, bias = fold_affine(split, "NCHW")
    assert (weight.dtype, weight.shape, bias.shape) == (torch.float64, (K, D), (K,))
    features = torch.randn(3, D, 4, 5)
    folded = F.linear(features.double().mean((2, 3)), weight, bias)
    torch.testing.assert_close(split.head(features).double(), folded, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NOT_AFFINE)
def test_other_heads_are_refused_with_the_finding(name: str) -> None:
    make, finding = NOT_AFFINE[name]
    verdict = judge_head(make_split(make()))
    assert not verdict.affine
    assert finding in verdict.found


def test_folding_is_exact_in_double() -> None:
    linear = nn.Linear(D, K)
    weight, bias = fold_affine(make_split(Pooled(linear)), "NCHW")
    torch.testing.assert_close(weight, linear.weight.double(), atol=1e-15, rtol=1e-14)
    torch.testing.assert_close(bias, linear.bias.double(), atol=1e-15, rtol=1e-14)


def test_a_batch_norm_is_folded_as_the_formula_says() -> None:
    norm, linear = make_norm(), nn.Linear(D, K)
    weight, bias = fold_affine(make_split(Pooled(norm, linear)), "NCHW")
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    torch.testing.assert_close(weight, linear.weight.double() * scale, atol=1e-13, rtol=0)
    torch.testing.assert_close(bias, linear.weight.double() @ shift + linear.bias.double(), atol=1e-13, rtol=0)


LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "NHWC": (lambda x: x.permute(0, 2, 3, 1), (1, 2)),
    "NLC": (lambda x: x.flatten(2).transpose(1, 2), (1,)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_is_found_by_what_the_head_averages(layout: str) -> None:
    arrange, positions = LAYOUTS[layout]
    linear = nn.Linear(D, K)
    split = make_split(Pooled(linear, positions=positions), arrange)
    assert judge_head(split).layout == layout
    weight, _ = fold_affine(split, judge_head(split).layout or "NCHW")
    torch.testing.assert_close(weight.float(), linear.weight)


def test_a_square_map_of_as_many_cells_as_channels_is_told_apart() -> None:
    class Square(Halves):
        def forward_features(self, images: Tensor) -> Tensor:
            return self.trunk(images).permute(0, 2, 3, 1)

    network = Square(Pooled(nn.Linear(D, K), positions=(1, 2))).eval()
    split = split_network(network, torch.randn(1, 3, 24, 24))
    assert split.shape == (1, 6, 6, 6)
    assert judge_head(split).layout == "NHWC"


def test_zero_initialised_classifiers_are_seen_through() -> None:
    linear = nn.Linear(D, K)
    nn.init.zeros_(linear.weight)
    split = make_split(Pooled(linear))
    assert judge_head(split).affine
    weight, bias = fold_affine(split, "NCHW")
    assert not weight.any()
    torch.testing.assert_close(bias.float(), linear.bias)


def test_a_zero_initialised_classifier_does_not_hide_a_nonlinearity() -> None:
    linear = nn.Linear(D, K)
    nn.init.zeros_(linear.weight)
    assert not judge_head(make_split(Pooled(nn.LayerNorm(D), linear))).affine


def test_a_head_that_fails_on_other_features_is_refused() -> None:
    class OneImage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(D, K)

        def forward(self, features: Tensor) -> Tensor:
            return self.fc(features.mean((2, 3)).view(1, D))

    verdict = judge_head(make_split(OneImage()))
    assert (verdict.layout, verdict.affine) == (None, False)
    assert "the head does not run on features alone" in verdict.found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_probing_leaves_the_network_as_it_was(dtype: torch.dtype) -> None:
    network = Halves(Pooled(make_norm(), nn.Linear(D, K))).eval().to(dtype)
    nn.init.zeros_(network.head.then[1].weight)
    split = split_network(network, torch.randn(1, 3, 16, 20, dtype=dtype))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    judge_head(split)
    fold_affine(split, "NCHW")
    assert all(value.dtype == before[key].dtype for key, value in network.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert split.example.dtype == dtype
    assert torch.equal(torch.get_rng_state(), random_state)


def test_weights_that_are_shared_within_the_head_keep_their_type() -> None:
    network = Halves(Pooled(nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, K))).eval()
    network.head.then[1].weight = network.head.then[0].weight
    split = split_network(network, torch.randn(1, 3, 16, 20))
    assert judge_head(split).affine
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_a_classifier_that_is_not_called_as_a_module_is_folded() -> None:
    class Functional(Halves):
        def forward_head(self, features: Tensor) -> Tensor:
            return F.linear(features.mean((2, 3)), self.head.weight, self.head.bias)

    network = Functional(nn.Linear(D, K)).eval()
    split = split_network(network, torch.randn(1, 3, 16, 20))
    assert judge_head(split).affine
    weight, _ = fold_affine(split, "NCHW")
    torch.testing.assert_close(weight.float(), network.head.weight)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_probing_restores_the_network_after_a_failure() -> None:
    network = Halves(Pooled(nn.Linear(D + 1, K)))
    split = Split(network, torch.randn(1, 3, 16, 20), torch.Size((1, D, 4, 5)), tail=[], dropout=0.0)
    split.head = network.forward_head  # type: ignore[method-assign]
    assert "does not run on features alone" in judge_head(split).found
    assert network.trunk.weight.dtype == split.example.dtype == torch.float32
