"""What holds for every small network whose head can be exact: the maps average to its own logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from softcam.nn import convert

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLINGS = ("mean", "max", "avgmax", "catavgmax")
NORMS: dict[str, Callable[[int, float], nn.Module]] = {
    "none": lambda _, __: nn.Identity(),
    "dropout": lambda _, __: nn.Dropout(0.5),
    "batch": lambda channels, eps: nn.BatchNorm1d(channels, eps=eps),
    "linear": lambda channels, _: nn.Linear(channels, channels),
    "layer": lambda channels, eps: nn.LayerNorm(channels, eps=eps),
    "plain layer": lambda channels, eps: nn.LayerNorm(channels, eps=eps, elementwise_affine=False),
    "root mean square": lambda channels, eps: nn.RMSNorm(channels, eps=eps),
}
PER_IMAGE = ("layer", "plain layer", "root mean square")


@dataclass(frozen=True)
class Plan:
    """A network.

    Args:
        channels: Of each convolution, the last of them D.
        grid: Cells of the features, two at least.
        stride: Of the first convolution.
        num_classes: K.
        pooling: How the positions are taken together.
        norm: What comes between pooling and classifier.
        eps: Of that norm.
        last: Whether the network hands its features on with the channels last.
        bias: Whether the classifier has one.
        seed: Of the weights and images.
    """

    channels: tuple[int, ...]
    grid: tuple[int, ...]
    stride: int
    num_classes: int
    pooling: str
    norm: str
    eps: float
    last: bool
    bias: bool
    seed: int

    @property
    def images(self) -> Tensor:
        size = [cells * self.stride for cells in self.grid]
        return torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(self.seed))


class Net(nn.Module):
    """The network of a plan, with weights that say something."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        dims, width = len(plan.grid), plan.channels[-1]
        layers: list[nn.Module] = [CONVOLUTIONS[dims](3, plan.channels[0], plan.stride, plan.stride)]
        for before, after in zip(plan.channels, plan.channels[1:], strict=False):
            layers += [BATCH_NORMS[dims](before), nn.GELU(), CONVOLUTIONS[dims](before, after, 3, padding=1)]
        self.body = nn.Sequential(*layers)
        pooled = width * (2 if plan.pooling == "catavgmax" else 1)
        self.norm = NORMS[plan.norm](pooled, plan.eps)
        self.fc = nn.Linear(pooled, plan.num_classes, bias=plan.bias)
        generator = torch.Generator().manual_seed(plan.seed)
        for module in self.modules():
            for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if key != "num_batches_tracked":
                    values = torch.rand(tensor.shape, generator=generator) + 0.5
                    signs = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
                    tensor.data.copy_(values if key == "running_var" else values * signs)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        if self.plan.last:
            features = features.movedim(1, -1)
        positions = tuple(range(1, features.ndim - 1) if self.plan.last else range(2, features.ndim))
        return self.fc(self.norm(self.pool(features, positions)))

    def pool(self, features: Tensor, positions: tuple[int, ...]) -> Tensor:
        average = features.mean(positions)
        if self.plan.pooling == "mean":
            return average
        highest = features.amax(positions)
        if self.plan.pooling == "max":
            return highest
        return (average + highest) / 2 if self.plan.pooling == "avgmax" else torch.cat([average, highest], 1)


def is_exact(plan: Plan) -> bool:
    """Return whether the head of a plan is one that can be exact."""
    return prod(plan.grid) > 1 and not (plan.pooling == "catavgmax" and plan.norm in PER_IMAGE)


PLANS = st.builds(
    Plan,
    channels=st.lists(st.integers(2, 9), min_size=1, max_size=3).map(tuple),
    grid=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple),
    stride=st.integers(1, 4),
    num_classes=st.integers(1, 9),
    pooling=st.sampled_from(POOLINGS),
    norm=st.sampled_from(sorted(NORMS)),
    eps=st.sampled_from([1e-6, 1e-5, 1e-3, 0.1]),
    last=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 10_000),
).filter(is_exact)

KINDS = {"mean": "linear", "max": "max", "avgmax": "avgmax", "catavgmax": "catavgmax"}


@settings(max_examples=150)
@given(PLANS)
def test_the_conversion_of_an_exact_head_is_exact(plan: Plan) -> None:
    network, images = Net(plan).double().eval(), plan.images
    model = convert(network, images=images)
    with torch.no_grad():
        expected = network(images)
        evidence = model.evidence(images).check(1e-12)
        assert evidence.maps.shape == (2, plan.num_classes, *plan.grid)
        for found in (model(images), evidence.logits, evidence.maps.flatten(2).mean(-1)):
            assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
    report = model.conversion
    assert report.exact
    assert report.head == ("pooled_norm" if plan.norm in PER_IMAGE else KINDS[plan.pooling])
    assert report.error is not None
    assert report.error <= 1e-12
    assert report.dropout == (0.5 if plan.norm == "dropout" else 0.0)
