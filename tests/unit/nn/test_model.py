from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.nn.convert import convert
from softcam.nn.evidence import Evidence
from softcam.nn.heads import LinearEvidence
from softcam.nn.model import EvidenceModule, SoftCAM
from softcam.nn.penalties import ElasticNet

MakeBlackBox = Callable[..., nn.Module]


@pytest.fixture
def model(black_box: nn.Module, images: Tensor) -> SoftCAM:
    return convert(black_box, images=images)


def test_forward_returns_the_logits_of_the_evidence(model: SoftCAM, images: Tensor) -> None:
    logits, evidence = model(images), model.evidence(images)
    assert isinstance(logits, Tensor)
    assert isinstance(evidence, Evidence)
    torch.testing.assert_close(evidence.logits, logits)
    assert evidence.maps.shape == (2, 4, 4, 5)
    assert evidence.check(1e-6) is evidence


def test_forward_makes_no_maps(model: SoftCAM, images: Tensor) -> None:
    calls: list[object] = []
    model.get_classifier().register_forward_hook(lambda *arguments: calls.append(arguments))
    model(images)
    assert not calls
    model.evidence(images)
    assert len(calls) == 1


def test_evidence_runs_the_trunk_once(model: SoftCAM, images: Tensor) -> None:
    calls: list[object] = []
    model.features.register_forward_hook(lambda *arguments: calls.append(arguments))
    model.evidence(images)
    assert len(calls) == 1


def test_the_head_is_applied_to_the_features(model: SoftCAM, images: Tensor) -> None:
    features = model.forward_features(images)
    assert features.shape == (2, model.num_features, 4, 5)
    torch.testing.assert_close(model.head(features), model(images))
    torch.testing.assert_close(model.evidence(images).maps, model.get_classifier()(features))


def test_vocabulary(model: SoftCAM) -> None:
    assert (model.num_features, model.num_classes) == (6, 4)
    assert isinstance(model.head, LinearEvidence)
    assert model.get_classifier() is model.head.classifier
    assert isinstance(model.get_classifier(), nn.Conv2d)


def test_reset_classifier(model: SoftCAM, images: Tensor) -> None:
    features = model.forward_features(images)
    model.reset_classifier(9)
    assert model.num_classes == 9
    assert model(images).shape == (2, 9)
    assert model.evidence(images).maps.shape == (2, 9, 4, 5)
    assert torch.equal(model.forward_features(images), features)


def test_reset_classifier_needs_a_class(model: SoftCAM) -> None:
    with pytest.raises(ValueError, match="Expected `num_classes` to be >= 1"):
        model.reset_classifier(0)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_task_is_carried_into_the_evidence(model: SoftCAM, images: Tensor, multi_label: bool) -> None:
    model.multi_label = multi_label
    assert model.evidence(images).multi_label == multi_label
    assert model.with_evidence()(images).multi_label == multi_label


def test_with_evidence_shares_the_weights(model: SoftCAM, images: Tensor) -> None:
    module = model.with_evidence()
    assert isinstance(module, EvidenceModule)
    assert {id(p) for p in module.parameters()} == {id(p) for p in model.parameters()}
    torch.testing.assert_close(module(images).maps, model.evidence(images).maps)
    assert module.training == model.training


def test_modes_reach_every_part(model: SoftCAM) -> None:
    model.train()
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in model.with_evidence().eval().modules())


def test_deepcopy_is_independent(model: SoftCAM, images: Tensor) -> None:
    twin = copy.deepcopy(model)
    expected = model.evidence(images).maps
    assert torch.equal(twin.evidence(images).maps, expected)
    assert twin.conversion == model.conversion
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(model.evidence(images).maps, expected)


@pytest.mark.parametrize("num_classes", [None, 4])
def test_state_dict_round_trip(
    model: SoftCAM, make_black_box: MakeBlackBox, images: Tensor, num_classes: int | None
) -> None:
    torch.manual_seed(99)
    other = convert(make_black_box().eval(), images=images, num_classes=num_classes)
    assert not torch.allclose(other(images), model(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.evidence(images).maps, model.evidence(images).maps)


def test_casting_takes_everything_along(model: SoftCAM, images: Tensor) -> None:
    evidence = model.double().evidence(images.double())
    assert evidence.maps.dtype == torch.float64
    evidence.check(1e-14)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_training_fits_labels_and_keeps_the_identity(
    make_black_box: MakeBlackBox, images: Tensor, dropout: float
) -> None:
    model = convert(make_black_box(dropout=dropout), images=images, num_classes=2).train()
    targets = torch.tensor([0, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(80):
        evidence = model.evidence(images).check()
        loss = F.cross_entropy(evidence.logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # With the batch statistics, since two images are too few to estimate running ones.
    model.head.eval()
    assert F.cross_entropy(model(images), targets).item() < 0.3


def test_the_penalty_makes_maps_sparse(make_black_box: MakeBlackBox, images: Tensor) -> None:
    def mean_absolute(l1: float) -> float:
        torch.manual_seed(0)
        model = convert(make_black_box(), images=images, num_classes=2).train()
        penalty, optimizer = ElasticNet(l1=l1), torch.optim.AdamW(model.parameters(), lr=0.02)
        for _ in range(60):
            evidence = model.evidence(images)
            optimizer.zero_grad()
            (F.cross_entropy(evidence.logits, torch.tensor([0, 1])) + penalty(evidence.maps)).backward()
            optimizer.step()
        return model.evidence(images).maps.abs().mean().item()

    assert mean_absolute(0.01) < 0.5 * mean_absolute(0.0)


def test_autocast_keeps_the_identity_within_half_precision(model: SoftCAM, images: Tensor) -> None:
    exact = model.evidence(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, evidence = model(images), model.evidence(images)
    assert evidence.maps.dtype == logits.dtype == torch.bfloat16
    evidence.check(2e-2)
    torch.testing.assert_close(logits.float(), exact.logits, atol=2e-2, rtol=2e-2)


def test_gradients_flow_under_autocast(model: SoftCAM, images: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        evidence = model.train().evidence(images)
        loss = F.cross_entropy(evidence.logits, torch.tensor([0, 1])) + ElasticNet(1e-3, 1e-3)(evidence.maps)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_channels_last_gives_the_same(model: SoftCAM, images: Tensor) -> None:
    expected = model.evidence(images)
    last = model.to(memory_format=torch.channels_last).evidence(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last.maps, expected.maps, atol=1e-5, rtol=1e-5)
    last.check(1e-6)


def test_converting_in_channels_last(black_box: nn.Module, images: Tensor) -> None:
    black_box.to(memory_format=torch.channels_last)
    model = convert(black_box, images=images.to(memory_format=torch.channels_last))
    assert model.features.network.body[3].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images), black_box(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_export_gives_both_outputs_for_any_batch(library: str) -> None:
    network = timm.create_model("resnet18") if library == "timm" else torchvision.models.resnet18()
    example = torch.randn(2, 3, 64, 64)
    module = convert(network.eval(), images=example).with_evidence()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},), strict=False)
    images = torch.randn(3, 3, 64, 64)
    exported = program.module()(images)
    expected = module(images)
    assert isinstance(exported, Evidence)
    torch.testing.assert_close(exported.logits, expected.logits)
    torch.testing.assert_close(exported.maps, expected.maps)


@pytest.mark.parametrize("named", [True, False])
def test_the_compiler_sees_one_graph(black_box: nn.Module, images: Tensor, named: bool) -> None:
    class Named(type(black_box)):  # type: ignore[misc]
        def forward_features(self, images: Tensor) -> Tensor:
            return self.body(images)

        def forward_head(self, features: Tensor) -> Tensor:
            return self.fc(features.mean((2, 3)))

    black_box.__class__ = Named if named else type(black_box)
    model = convert(black_box, images=images)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images))


def test_a_hook_on_the_features_sees_them(model: SoftCAM, images: Tensor) -> None:
    seen: list[Tensor] = []
    handle = model.features.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model(images)
    handle.remove()
    assert torch.equal(seen[0], model.forward_features(images))
