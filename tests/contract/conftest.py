"""The networks whose converted form has to keep the promises of a module: a line per kind of trunk and of head."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import timm
import torch
from timm.models.byobnet import ByoBlockCfg
from torch import Tensor, nn
from torchvision.models import DenseNet

from softcam.backbones import create_black_box
from softcam.nn import SoftCAM, convert


@dataclass(frozen=True)
class Network:
    """A black box and how it is converted.

    Args:
        name: As `create_black_box` takes it, or what to call a network that `create` builds.
        shape: (C, *size) of its images, small.
        kind: What sets it apart from the others.
        arguments: Of the builder.
        options: Keywords of `convert`.
        create: Builds it where softcam cannot.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    create: Callable[[], nn.Module] | None = None

    def build(self, seed: int = 0) -> nn.Module:
        """Return the black box in eval mode."""
        torch.manual_seed(seed)
        if self.create is not None:
            return _fill_zeros(self.create()).eval()
        return _fill_zeros(create_black_box(self.name, num_classes=5, **self.arguments)).eval()

    def convert(self, seed: int = 0) -> SoftCAM:
        """Return the converted network in eval mode."""
        black_box = self.build(seed)
        return convert(black_box, images=self.images(2), **self.options)

    def images(self, count: int, seed: int = 0) -> Tensor:
        """Return noise."""
        return torch.randn(count, *self.shape, generator=torch.Generator().manual_seed(seed))


def _fill_zeros(black_box: nn.Module) -> nn.Module:
    """Give weights that begin at zero, as some classifiers do, values that say something."""
    with torch.no_grad():
        for parameter in black_box.parameters():
            if parameter.ndim > 1 and not parameter.any():
                nn.init.normal_(parameter, std=0.02)
    return black_box


def _create_densenet() -> nn.Module:
    return DenseNet(growth_rate=8, block_config=(2, 2, 2), num_init_features=16, num_classes=5)


def _create_clip() -> nn.Module:
    stages = ((32, 1), (64, 2), (64, 2), (64, 2))
    blocks = tuple(ByoBlockCfg(type="bottle", d=1, c=channels, s=stride, br=0.25) for channels, stride in stages)
    network: nn.Module = timm.create_model("resnet50_clip", num_classes=5, img_size=64, stem_chs=16, blocks=blocks)
    return network


NETWORKS = (
    Network("timm:resnet18", (3, 64, 64), "convolutions"),
    Network("small DenseNet", (3, 64, 64), "pools by a function", create=_create_densenet),
    Network(
        "timm:swin_tiny_patch4_window7_224",
        (3, 64, 64),
        "channels last",
        {"img_size": 64, "depths": (2, 2, 2), "embed_dim": 48, "num_heads": (2, 4, 8)},
    ),
    Network("timm:mixer_s32_224", (3, 224, 224), "tokens"),
    Network("timm:deit_tiny_patch16_224", (3, 64, 64), "class token", {"img_size": 64, "depth": 2}, {"exact": False}),
    Network("torchvision:googlenet", (3, 64, 64), "watched, with branches for training"),
    Network("timm:tf_efficientnet_lite0", (3, 64, 64), "depthwise convolutions"),
    Network("timm:convnext_atto", (3, 64, 64), "norm of the pooled", {"depths": (1, 1, 1, 1)}),
    Network("timm:mobilenetv3_small_050", (3, 64, 64), "layers at every cell", options={"exact": False}),
    Network("timm:test_resnet", (3, 64, 64), "mean and maximum", {"global_pool": "catavgmax"}),
    Network("timm:resnet18", (3, 64, 64), "an earlier place", options={"at": 16}),
    Network("timm:test_efficientnet", (3, 64, 64), "several scales", options={"at": (8, 16)}),
    Network("small CLIP ResNet", (3, 64, 64), "attention pooling", create=_create_clip),
)


@pytest.fixture(scope="session", params=NETWORKS, ids=lambda network: f"{network.name}, {network.kind}")
def network(request: pytest.FixtureRequest) -> Network:
    """One network after the other."""
    found: Network = request.param
    return found


@pytest.fixture(scope="session")
def converted(network: Network) -> SoftCAM:
    """The converted network, to be left as it is."""
    return network.convert()


@pytest.fixture
def model(converted: SoftCAM) -> SoftCAM:
    """A copy that a test may change."""
    return copy.deepcopy(converted)


@pytest.fixture(scope="session")
def images(network: Network) -> Tensor:
    """Two images of noise."""
    return network.images(2, seed=1)


@pytest.fixture
def small_network() -> Network:
    """A network that compiles in seconds."""
    return Network("timm:test_resnet", (3, 64, 64), "small")
