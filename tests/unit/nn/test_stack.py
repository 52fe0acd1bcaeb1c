from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.errors import UnsupportedModelError
from softcam.nn.features import Layout
from softcam.nn.heads import CellNorm, PerCell
from softcam.nn.split import Split, split_network
from softcam.nn.stack import read_stack

D, K = 6, 3
SIZES = {1: (20,), 2: (16, 20), 3: (8, 8, 12)}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Halves(nn.Module):
    """A trunk of one convolution, and a head that is under test."""

    def __init__(self, head: nn.Module, arrange: Callable[[Tensor], Tensor] = lambda x: x, dims: int = 2) -> None:
        super().__init__()
        self.trunk = CONVOLUTIONS[dims](3, D, 4, stride=4)
        self.head = head
        self.arrange = arrange

    def forward_features(self, images: Tensor) -> Tensor:
        return self.arrange(self.trunk(images))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


class Pooled(nn.Module):
    """Mean over the positions, then layers on vectors."""

    def __init__(self, *then: nn.Module, positions: tuple[int, ...] = (2, 3)) -> None:
        super().__init__()
        self.then = nn.Sequential(*then)
        self.positions = positions

    def forward(self, features: Tensor) -> Tensor:
        return self.then(features.mean(self.positions))


def make_split(head: nn.Module, arrange: Callable[[Tensor], Tensor] = lambda x: x, dims: int = 2) -> Split:
    return split_network(Halves(head, arrange, dims).eval(), torch.randn(1, 3, *SIZES[dims]))


def make_norm() -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(9)
    for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        values.uniform_(0.5, 2.0)
    return norm


class Own(nn.Module):
    """A layer with weights of its own that changes no size."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(D) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


VECTORS: dict[str, Callable[[], tuple[nn.Module, ...]]] = {
    "linear": lambda: (nn.Linear(D, K),),
    "hidden": lambda: (nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K)),
    "in place": lambda: (nn.Linear(D, 9), nn.Hardswish(inplace=True), nn.Linear(9, K)),
    "no biases": lambda: (nn.Linear(D, 9, bias=False), nn.GELU(), nn.Linear(9, K, bias=False)),
    "batch norm": lambda: (nn.Linear(D, 9), make_norm(), nn.ReLU(), nn.Linear(9, K)),
    "layer norm": lambda: (nn.LayerNorm(D), nn.Linear(D, 9), nn.Tanh(), nn.Linear(9, K)),
    "own weights": lambda: (Own(), nn.Linear(D, 9), nn.ELU(), nn.Linear(9, K)),
    "identity": lambda: (nn.Identity(), nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K)),
    "activation built of others": lambda: (nn.Linear(D, 9), Shifted(), nn.Linear(9, K)),
}


class Shifted(nn.Module):
    """An activation without weights that has a child."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) - 0.5 * x


@pytest.mark.parametrize("name", VECTORS)
def test_layers_of_vectors_are_applied_at_every_cell(name: str) -> None:
    split = make_split(Pooled(*VECTORS[name]()))
    head = read_stack(split, "NCHW").eval()
    features = torch.randn(2, D, 4, 5)
    _, maps = head.evidence(features)
    vectors = split.network.head.then
    expected = vectors(features.movedim(1, -1).reshape(-1, D)).reshape(2, 4, 5, K).movedim(-1, 1)
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-4)
    assert (head.kind, head.channels, head.num_classes) == ("pointwise", D, K)


@pytest.mark.parametrize("dims", SIZES)
def test_signals_images_and_volumes_are_read(dims: int) -> None:
    then = (nn.Linear(D, 9), make_norm(), nn.ReLU(), nn.Dropout(0.25), nn.Linear(9, K))
    split = make_split(Pooled(*then, positions=tuple(range(2, dims + 2))), dims=dims)
    head = read_stack(split, ("NCL", "NCHW", "NCDHW")[dims - 1])
    kinds = [type(layer).__name__ for layer in head.body]
    assert kinds == [f"Conv{dims}d", f"BatchNorm{dims}d", "ReLU", f"Dropout{dims}d"]
    assert head.dims == dims
    assert head.body[3].p == 0.25
    features = torch.randn(2, D, *[3] * dims)
    cells = features.flatten(2).movedim(1, -1)
    expected = torch.stack([split.network.head.then(cell) for cell in cells]).movedim(-1, 1)
    torch.testing.assert_close(head.eval().evidence(features)[1].flatten(2), expected, atol=1e-5, rtol=1e-4)


def test_the_stack_learns_as_the_layers_do() -> None:
    split = make_split(Pooled(nn.Linear(D, 9), nn.Dropout(0.5), nn.ReLU(), nn.Linear(9, K)))
    head = read_stack(split, "NCHW")
    assert head.training
    head.evidence(torch.randn(2, D, 4, 5))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in head.parameters())


def test_the_stack_is_a_copy() -> None:
    split = make_split(Pooled(nn.LayerNorm(D), nn.Linear(D, 9), make_norm(), nn.ReLU(), nn.Linear(9, K)))
    before = copy.deepcopy(split.network.state_dict())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in split.network.modules()]
    head = read_stack(split, "NCHW")
    with torch.no_grad():
        for tensor in head.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(before[key], value) for key, value in split.network.state_dict().items())
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in split.network.modules()] == hooks


def test_reading_draws_no_random_numbers() -> None:
    split = make_split(Pooled(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K)))
    state = torch.get_rng_state()
    read_stack(split, "NCHW")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_stack_has_the_dtype_of_the_layers(dtype: torch.dtype) -> None:
    network = Halves(Pooled(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K))).eval().to(dtype)
    head = read_stack(split_network(network, torch.randn(1, 3, 16, 20, dtype=dtype)), "NCHW")
    assert {parameter.dtype for parameter in head.parameters()} == {dtype}


def test_a_layer_norm_becomes_one_of_cells() -> None:
    head = read_stack(make_split(Pooled(nn.LayerNorm(D), nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K))), "NCHW")
    assert isinstance(head.body[0], CellNorm)


def test_a_layer_of_unknown_kind_is_given_every_cell() -> None:
    head = read_stack(make_split(Pooled(Own(), nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K))), "NCHW")
    assert isinstance(head.body[0], PerCell)
    assert head.body[0].form == "rows"


def last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


@pytest.mark.parametrize(
    ("layout", "arrange", "positions"), [("NHWC", last, (1, 2)), ("NLC", tokens, (1,))], ids=["channels last", "tokens"]
)
def test_other_layouts_are_read(
    layout: Layout, arrange: Callable[[Tensor], Tensor], positions: tuple[int, ...]
) -> None:
    split = make_split(Pooled(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K), positions=positions), arrange)
    head = read_stack(split, layout)
    features = torch.randn(2, D, 1, 1)
    torch.testing.assert_close(head.eval()(features), split.network.head.then(features.flatten(1)))


def make_convolutional() -> nn.Module:
    """A head of 1x1 convolutions around the pooling."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(D, 9, 1), nn.ReLU(), nn.Conv2d(9, K, 1), nn.Flatten())


def test_convolutions_on_the_pooled_map_are_taken_over() -> None:
    split = make_split(make_convolutional())
    head = read_stack(split, "NCHW").eval()
    cell = torch.randn(2, D, 1, 1)
    torch.testing.assert_close(head(cell), split.network.head(cell))


# Heads on a flattened grid


def make_flat(*, pool: bool = False) -> nn.Module:
    grid = 9 if pool else 20
    first = [nn.AdaptiveAvgPool2d(3)] if pool else []
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(D * grid, 9), nn.ReLU(), nn.Linear(9, K))


@pytest.mark.parametrize("pool", [False, True])
def test_a_layer_on_a_flattened_grid_is_summed_over_it(pool: bool) -> None:
    split = make_split(make_flat(pool=pool))
    head = read_stack(split, "NCHW").eval()
    assert head.kind == "pointwise"
    first = split.network.head[2 if pool else 1]
    summed = first.weight.reshape(9, D, -1).sum(2)
    torch.testing.assert_close(head.body[0].weight[..., 0, 0], summed)
    # Where all cells are alike, that is what the head computes.
    vector = torch.randn(2, D)
    torch.testing.assert_close(
        head(vector[..., None, None]),
        split.network.head(vector[..., None, None].expand(-1, -1, 4, 5)),
        atol=1e-5,
        rtol=1e-4,
    )


def test_with_windows_a_flattened_grid_loses_nothing() -> None:
    split = make_split(make_flat())
    head = read_stack(split, "NCHW", windows=True).eval()
    features = torch.randn(2, D, 4, 5)
    logits, maps = head.evidence(features)
    assert head.kind == "fully_convolutional"
    assert maps.shape == (2, K, 1, 1)
    torch.testing.assert_close(logits, split.network.head(features), atol=1e-5, rtol=1e-4)
    assert head.evidence(torch.randn(1, D, 6, 9))[1].shape == (1, K, 3, 5)


def test_with_windows_channels_last_are_told_from_channels_first() -> None:
    split = make_split(make_flat(), last)
    head = read_stack(split, "NHWC", windows=True).eval()
    features = torch.randn(2, D, 4, 5)
    torch.testing.assert_close(head(features), split.network.head(last(features)), atol=1e-5, rtol=1e-4)


# What is no stack


class Between(nn.Module):
    """Something between the layers that no module does."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(D, 9), nn.Linear(9, K)
        self.change = change

    def forward(self, features: Tensor) -> Tensor:
        return self.b(self.change(self.a(features.mean((2, 3)))))


class Twice(nn.Module):
    """Mean and maximum side by side, then layers on vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.then = nn.Sequential(nn.BatchNorm1d(2 * D), nn.Linear(2 * D, 9), nn.ReLU(), nn.Linear(9, K))

    def forward(self, features: Tensor) -> Tensor:
        return self.then(torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1))


NO_STACK: dict[str, Callable[[], nn.Module]] = {
    "two poolings": Twice,
    "functional activation": lambda: Between(F.relu),
    "no layer": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "activation last": lambda: Pooled(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K), nn.Softmax(1)),
    "groups": lambda: nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(D, 4, 1, groups=2), nn.ReLU(), nn.Conv2d(4, K, 1), nn.Flatten()
    ),
    "padding": lambda: nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(D, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, K, 1), nn.Flatten()
    ),
}


@pytest.mark.parametrize("name", NO_STACK)
def test_what_is_no_stack_is_refused_with_advice(name: str) -> None:
    split = make_split(NO_STACK[name]())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in split.network.modules()]
    with pytest.raises(
        UnsupportedModelError, match=r"to be a stack of layers, but .*`features=`, `classifier=`.*head='linear'"
    ):
        read_stack(split, "NCHW")
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in split.network.modules()] == hooks


def test_a_functional_identity_between_layers_does_not_matter() -> None:
    split = make_split(Between(lambda x: x * 1.0))
    head = read_stack(split, "NCHW").eval()
    cell = torch.randn(2, D, 1, 1)
    torch.testing.assert_close(head(cell), split.network.head(cell))
