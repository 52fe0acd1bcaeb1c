from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.nn.heads import LinearEvidence, NormEvidence
from softcam.nn.probe import build_head, judge_head
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


def fold(split: Split) -> tuple[Tensor, Tensor]:
    """Return weight (K, D) and bias (K,) of the layer for a head."""
    head = build_head(split, judge_head(split))
    assert isinstance(head, LinearEvidence)
    assert head.classifier.bias is not None
    return head.classifier.weight.detach().flatten(1), head.classifier.bias.detach()


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


def make_flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(D * 20, K))


NOT_EXACT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "flatten": (make_flat, "sees more of the features than their mean"),
    "relu before": (lambda: nn.Sequential(nn.ReLU(), Pooled(nn.Linear(D, K))), "sees more of the features"),
    "hidden layer": (lambda: Pooled(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K)), "not affine in the pooled features"),
    "hard swish": (lambda: Pooled(nn.Hardswish(), nn.Linear(D, K)), "not affine"),
    "late saturation": (lambda: Pooled(nn.Hardtanh(-50, 50), nn.Linear(D, K)), "not affine"),
    "softmax": (lambda: Pooled(nn.Linear(D, K), nn.Softmax(-1)), "not affine"),
    "norm and hidden layer": (lambda: Pooled(nn.LayerNorm(D), nn.Linear(D, 9), nn.GELU(), nn.Linear(9, K)), "not aff"),
    "unit length": (lambda: Pooled(UnitLength(), nn.Linear(D, K)), "not affine"),
}


class UnitLength(nn.Module):
    """A cosine head's norm: no eps makes it linear near zero."""

    def forward(self, pooled: Tensor) -> Tensor:
        return F.normalize(pooled, dim=1, eps=1e-12) * pooled.abs().sum(1, keepdim=True).tanh()


class Weighted(nn.Module):
    """A mean whose weights differ from cell to cell."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(D, K)

    def forward(self, features: Tensor) -> Tensor:
        weights = torch.linspace(0.5, 1.5, features.shape[-1]).to(features)
        return self.fc((features * weights).mean((2, 3)))


class Squared(nn.Module):
    """Not affine in the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(D, K)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc(features.mean((2, 3)).square())


NOT_EXACT["weighted mean"] = (Weighted, "sees more of the features")
NOT_EXACT["squared mean"] = (Squared, "not affine")


@pytest.mark.parametrize("name", AFFINE)
def test_affine_heads_are_recognised_and_folded(name: str) -> None:
    split = make_split(AFFINE[name]())
    verdict = judge_head(split)
    assert (verdict.layout, verdict.pooling, verdict.form, verdict.exact) == ("NCHW", "avg", "affine", True)
    weight, bias = fold(split)
    assert (weight.dtype, weight.shape, bias.shape) == (torch.float64, (K, D), (K,))
    features = torch.randn(3, D, 4, 5)
    folded = F.linear(features.double().mean((2, 3)), weight, bias)
    torch.testing.assert_close(split.head(features).double(), folded, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NOT_EXACT)
def test_other_heads_are_not_exact_and_the_finding_is_said(name: str) -> None:
    make, finding = NOT_EXACT[name]
    verdict = judge_head(make_split(make()))
    assert not verdict.exact
    assert finding in verdict.found


class Pools(nn.Module):
    """Mean and maximum over positions, put together in some way, then a classifier."""

    def __init__(self, combine: Callable[[Tensor, Tensor], Tensor], *then: nn.Module) -> None:
        super().__init__()
        self.combine = combine
        self.then = nn.Sequential(*then)

    def forward(self, features: Tensor) -> Tensor:
        return self.then(self.combine(features.mean((2, 3)), features.amax((2, 3))))


COMBINED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "max": (lambda _, highest: highest, D),
    "avgmax": (lambda average, highest: 0.5 * (average + highest), D),
    "catavgmax": (lambda average, highest: torch.cat([average, highest], 1), 2 * D),
}


@pytest.mark.parametrize("pooling", COMBINED)
def test_maxima_are_recognised_and_folded(pooling: str) -> None:
    combine, width = COMBINED[pooling]
    linear = nn.Linear(width, K)
    split = make_split(Pools(combine, linear))
    verdict = judge_head(split)
    assert (verdict.pooling, verdict.form) == (pooling, "affine")
    weight, bias = fold(split)
    torch.testing.assert_close(weight, linear.weight.double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(bias, linear.bias.double(), atol=1e-12, rtol=0)


def test_any_mixture_of_mean_and_maximum_is_folded() -> None:
    linear = nn.Linear(D, K)
    split = make_split(Pools(lambda average, highest: 0.3 * average + 2 * highest, linear))
    verdict = judge_head(split)
    assert verdict.pooling == "catavgmax"
    weight, _ = fold(split)
    expected = torch.cat([0.3 * linear.weight, 2 * linear.weight], 1).double()
    torch.testing.assert_close(weight, expected, atol=1e-6, rtol=0)


class Norm(nn.Module):
    """A norm over channels by its formula."""

    def __init__(self, *, centre: bool, statistic: str, eps: float = 1e-5, unbiased: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.rand(D) + 0.5) for _ in range(2))
        self.centre, self.statistic, self.eps, self.unbiased = centre, statistic, eps, unbiased

    def forward(self, x: Tensor) -> Tensor:
        if self.statistic == "variance":
            size = x.var(1, keepdim=True, unbiased=self.unbiased)
        else:
            size = x.square().mean(1, keepdim=True)
        shifted = x - x.mean(1, keepdim=True) if self.centre else x
        return shifted / (size + self.eps).sqrt() * self.weight + self.bias


NORMS: dict[str, tuple[Callable[[], nn.Module], str, float]] = {
    "layer norm": (lambda: nn.LayerNorm(D), "variance", 1e-5),
    "layer norm, no affine": (lambda: nn.LayerNorm(D, elementwise_affine=False), "variance", 1e-5),
    "layer norm, tiny eps": (lambda: nn.LayerNorm(D, eps=1e-12), "variance", 1e-12),
    "layer norm, large eps": (lambda: nn.LayerNorm(D, eps=0.1), "variance", 0.1),
    "layer norm by formula": (lambda: Norm(centre=True, statistic="variance"), "variance", 1e-5),
    "unbiased variance": (
        lambda: Norm(centre=True, statistic="variance", unbiased=True), "variance", 1e-5 * (D - 1) / D
    ),
    "no centring": (lambda: Norm(centre=False, statistic="variance"), "variance", 1e-5),
    "rms norm": (lambda: nn.RMSNorm(D, eps=1e-6), "mean_square", 1e-6),
    "rms norm by formula": (lambda: Norm(centre=False, statistic="mean_square", eps=1e-3), "mean_square", 1e-3),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_recognised_and_folded(name: str) -> None:
    make, statistic, eps = NORMS[name]
    split = make_split(Pooled(make(), nn.Linear(D, K)))
    verdict = judge_head(split)
    assert (verdict.pooling, verdict.form, verdict.statistic) == ("avg", "norm", statistic)
    assert verdict.eps == pytest.approx(eps, rel=1e-6)
    head = build_head(split, verdict)
    assert isinstance(head, NormEvidence)
    features = torch.randn(3, D, 4, 5, dtype=torch.float64) * 3
    logits, maps = head.evidence(features)
    expected = split.network.double().forward_head(features)
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(maps.mean((2, 3)), expected, atol=1e-6, rtol=1e-6)


def test_a_norm_after_the_maximum_is_folded() -> None:
    split = make_split(Pools(lambda _, highest: highest, nn.LayerNorm(D), nn.Linear(D, K)))
    verdict = judge_head(split)
    assert (verdict.pooling, verdict.form, verdict.exact) == ("max", "norm", True)


@pytest.mark.parametrize("prefix", [1, 5])
def test_tokens_that_the_head_ignores_are_counted(prefix: int) -> None:
    linear = nn.Linear(D, K)

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = linear

        def forward(self, tokens: Tensor) -> Tensor:
            return self.fc(tokens[:, prefix:].mean(1))

    def arrange(x: Tensor) -> Tensor:
        return torch.cat([x.new_zeros(len(x), prefix, D), x.flatten(2).transpose(1, 2)], 1)

    verdict = judge_head(make_split(Patches(), arrange))
    assert (verdict.layout, verdict.prefix, verdict.exact) == ("NLC", prefix, True)


def test_a_class_token_is_no_mean() -> None:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(D, K)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.fc(tokens[:, 0])

    def arrange(x: Tensor) -> Tensor:
        return torch.cat([x.new_zeros(len(x), 1, D), x.flatten(2).transpose(1, 2)], 1)

    verdict = judge_head(make_split(First(), arrange))
    assert (verdict.layout, verdict.prefix, verdict.pooling, verdict.form) == ("NLC", 1, None, "affine")
    assert not verdict.exact


def test_folding_is_exact_in_double() -> None:
    linear = nn.Linear(D, K)
    weight, bias = fold(make_split(Pooled(linear)))
    torch.testing.assert_close(weight, linear.weight.double(), atol=1e-15, rtol=1e-14)
    torch.testing.assert_close(bias, linear.bias.double(), atol=1e-15, rtol=1e-14)


def test_a_batch_norm_is_folded_as_the_formula_says() -> None:
    norm, linear = make_norm(), nn.Linear(D, K)
    weight, bias = fold(make_split(Pooled(norm, linear)))
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
    weight, _ = fold(split)
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
    assert judge_head(split).form == "affine"
    weight, bias = fold(split)
    assert not weight.any()
    torch.testing.assert_close(bias.float(), linear.bias)


def test_a_zero_initialised_classifier_does_not_hide_a_nonlinearity() -> None:
    linear = nn.Linear(D, K)
    nn.init.zeros_(linear.weight)
    assert judge_head(make_split(Pooled(nn.LayerNorm(D), linear))).form == "norm"


def test_a_head_that_fails_on_other_features_is_refused() -> None:
    class OneImage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(D, K)

        def forward(self, features: Tensor) -> Tensor:
            return self.fc(features.mean((2, 3)).view(1, D))

    with pytest.raises(ValueError, match="the head does not run on features alone"):
        judge_head(make_split(OneImage()))


def test_too_little_memory_says_nothing_about_the_head() -> None:
    class Hungry(Pooled):
        def forward(self, x: Tensor) -> Tensor:
            if x.dtype == torch.float64:
                torch.empty(2**45, dtype=torch.float64)
            return super().forward(x)

    split = split_network(Halves(Hungry(nn.Linear(D, K))), torch.randn(1, 3, 16, 16))
    with pytest.raises(MemoryError, match="larger machine"):
        judge_head(split)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_probing_leaves_the_network_as_it_was(dtype: torch.dtype) -> None:
    network = Halves(Pooled(make_norm(), nn.Linear(D, K))).eval().to(dtype)
    nn.init.zeros_(network.head.then[1].weight)
    split = split_network(network, torch.randn(1, 3, 16, 20, dtype=dtype))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    fold(split)
    assert all(value.dtype == before[key].dtype for key, value in network.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert split.example.dtype == dtype
    assert torch.equal(torch.get_rng_state(), random_state)


def test_weights_that_are_shared_within_the_head_keep_their_type() -> None:
    network = Halves(Pooled(nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, K))).eval()
    network.head.then[1].weight = network.head.then[0].weight
    split = split_network(network, torch.randn(1, 3, 16, 20))
    assert judge_head(split).form == "affine"
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_a_classifier_that_is_not_called_as_a_module_is_folded() -> None:
    class Functional(Halves):
        def forward_head(self, features: Tensor) -> Tensor:
            return F.linear(features.mean((2, 3)), self.head.weight, self.head.bias)

    network = Functional(nn.Linear(D, K)).eval()
    split = split_network(network, torch.randn(1, 3, 16, 20))
    assert judge_head(split).form == "affine"
    weight, _ = fold(split)
    torch.testing.assert_close(weight.float(), network.head.weight)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_probing_restores_the_network_after_a_failure() -> None:
    network = Halves(Pooled(nn.Linear(D + 1, K)))
    split = Split(network, torch.randn(1, 3, 16, 20), torch.Size((1, D, 4, 5)), tail=[], dropout=0.0)
    split.head = network.forward_head  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="does not run on features alone"):
        judge_head(split)
    assert network.trunk.weight.dtype == split.example.dtype == torch.float32
