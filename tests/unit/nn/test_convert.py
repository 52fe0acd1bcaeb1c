from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.errors import UnsupportedModelError
from softcam.nn.convert import convert, input_shape
from softcam.nn.model import SoftCAM

MakeBlackBox = Callable[..., nn.Module]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max().detach() / expected.abs().max().detach())


def with_head(network: nn.Module, head: Callable[[nn.Module, Tensor], Tensor]) -> nn.Module:
    """Return the black box with another function of its feature map in the place of the head."""

    class Changed(type(network)):  # type: ignore[misc]
        def forward(self, images: Tensor) -> Tensor:
            return head(self, self.body(images))

    network.__class__ = Changed
    return network


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_maps_average_to_the_logits_of_the_black_box(
    make_black_box: MakeBlackBox, images: Tensor, dtype: torch.dtype, tolerance: float, dropout: float
) -> None:
    network, images = make_black_box(dropout=dropout).eval().to(dtype), images.to(dtype)
    model = convert(network, images=images)
    evidence = model.evidence(images)
    expected = network(images)
    assert relative_error(model(images), expected) <= tolerance
    assert relative_error(evidence.logits, expected) <= tolerance
    assert relative_error(evidence.maps.mean((-2, -1)), expected) <= tolerance
    assert evidence.maps.dtype == dtype


@pytest.mark.parametrize("size", [(16, 20), (32, 24), (17, 31)])
def test_the_identity_holds_on_other_images_and_sizes(
    black_box: nn.Module, images: Tensor, size: tuple[int, int]
) -> None:
    model = convert(black_box, images=images)
    other = torch.randn(3, 3, *size)
    assert relative_error(model.evidence(other).maps.mean((-2, -1)), black_box(other)) <= 1e-5


def name_halves(network: nn.Module) -> nn.Module:
    """Return the black box with the methods by which timm's networks name their halves."""

    class Named(type(network)):  # type: ignore[misc]
        def forward_features(self, images: Tensor) -> Tensor:
            return self.body(images)

        def forward_head(self, features: Tensor) -> Tensor:
            return self.fc(self.drop(features.mean((2, 3))))

    network.__class__ = Named
    return network


@pytest.mark.parametrize(("named", "dropout"), [(False, 0.0), (True, 0.0), (True, 0.5)])
def test_the_identity_holds_in_training(
    make_black_box: MakeBlackBox, images: Tensor, named: bool, dropout: float
) -> None:
    # Batch statistics and, with the same random numbers, the dropout are those of the black box.
    network = make_black_box(dropout=dropout).train()
    network = name_halves(network) if named else network
    model = convert(network, images=images)
    torch.manual_seed(5)
    expected = network(images)
    torch.manual_seed(5)
    evidence = model.evidence(images)
    assert model.training
    assert relative_error(evidence.logits, expected) <= 1e-5
    assert relative_error(evidence.maps.mean((-2, -1)), expected) <= 1e-5


def test_gradients_are_those_of_the_black_box(make_black_box: MakeBlackBox, images: Tensor) -> None:
    network = make_black_box().double().eval()
    model = convert(network, images=images.double())
    network(images.double()).square().sum().backward()
    model.evidence(images.double()).logits.square().sum().backward()
    torch.testing.assert_close(model.features.network.body[0].weight.grad, network.body[0].weight.grad)
    torch.testing.assert_close(model.get_classifier().weight.grad[..., 0, 0], network.fc.weight.grad)


def test_the_report_says_what_was_found(make_black_box: MakeBlackBox, images: Tensor) -> None:
    report = convert(make_black_box(num_classes=3, dropout=0.25).eval(), images=images).conversion
    assert (report.head, report.exact, report.layout) == ("linear", True, "NCHW")
    assert (report.channels, report.num_classes, report.dropout) == (6, 3, 0.25)
    assert (report.input_size, report.grid, report.map_stride) == ((16, 20), (4, 5), (4, 4))
    assert report.receptive_field == (7, 7)
    assert report.notes == ()
    assert report.error is not None
    assert 0 <= report.error <= 1e-6


def test_the_reported_error_is_that_of_the_maps(make_black_box: MakeBlackBox) -> None:
    # In bfloat16 the two ways to the logits differ visibly.
    network = make_black_box().eval().bfloat16()
    images = torch.randn(2, 3, 64, 64).bfloat16()
    model = convert(network, images=images)
    with torch.no_grad():
        expected, evidence = network(images).double(), model.evidence(images)
    errors = [
        relative_error(found.double(), expected) for found in (evidence.logits, evidence.maps.double().mean((2, 3)))
    ]
    assert model.conversion.error == pytest.approx(max(errors))
    assert max(errors) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_judged_by_its_own_rounding(
    make_black_box: MakeBlackBox, images: Tensor, dtype: torch.dtype
) -> None:
    model = convert(make_black_box().eval().to(dtype), images=images)
    assert model.conversion.exact
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


# What the source keeps


def snapshot(network: nn.Module) -> dict[str, object]:
    return {
        "modes": {name: module.training for name, module in network.named_modules()},
        "types": {name: type(module) for name, module in network.named_modules()},
        "flags": {name: parameter.requires_grad for name, parameter in network.named_parameters()},
        "grads": {name: parameter.grad for name, parameter in network.named_parameters()},
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
    }


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("num_classes", [None, 7])
def test_the_source_stays_as_it_is(
    make_black_box: MakeBlackBox, images: Tensor, training: bool, num_classes: int | None
) -> None:
    network = make_black_box(dropout=0.5).train(training)
    network.body[1].train(not training)
    network.body[0].requires_grad_(False)
    facts, state = snapshot(network), copy.deepcopy(network.state_dict())
    convert(network, images=images, num_classes=num_classes)
    assert snapshot(network) == facts
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())


def test_the_source_shares_no_memory(black_box: nn.Module, images: Tensor) -> None:
    model = convert(black_box, images=images)
    mine = {tensor.data_ptr() for tensor in model.state_dict().values() if tensor.numel()}
    theirs = {tensor.data_ptr() for tensor in black_box.state_dict().values() if tensor.numel()}
    assert not mine & theirs


def test_the_images_stay_as_they_are(black_box: nn.Module, images: Tensor) -> None:
    before = images.clone()
    convert(black_box, images=images)
    assert torch.equal(images, before)
    assert images.grad is None
    assert not images.requires_grad


def test_images_may_carry_a_gradient(black_box: nn.Module, images: Tensor) -> None:
    images.requires_grad_()
    assert convert(black_box, images=images).conversion.receptive_field == (7, 7)
    assert images.grad is None


@pytest.mark.parametrize("own_images", [True, False])
def test_the_random_generator_stays_where_it_is(black_box: nn.Module, images: Tensor, own_images: bool) -> None:
    before = torch.get_rng_state()
    convert(black_box, images=images if own_images else None)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradient_mode_stays_and_does_not_matter(black_box: nn.Module, images: Tensor) -> None:
    for context in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with context():
            enabled = torch.is_grad_enabled()
            model = convert(black_box, images=images)
            assert torch.is_grad_enabled() == enabled
        assert model.conversion.receptive_field == (7, 7)
        model(images).sum().backward()


def test_converting_twice_gives_the_same(black_box: nn.Module, images: Tensor) -> None:
    first, second = convert(black_box, images=images), convert(black_box, images=images)
    assert first.conversion == second.conversion
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


# What the result takes over


@pytest.mark.parametrize("training", [True, False])
def test_every_module_keeps_its_mode(make_black_box: MakeBlackBox, images: Tensor, training: bool) -> None:
    network = make_black_box().train(training)
    network.body[1].train(not training)
    model = convert(network, images=images)
    assert model.training == model.head.training == model.features.training == training
    assert model.features.network.body[0].training == training
    assert model.features.network.body[1].training != training


def test_frozen_weights_stay_frozen(black_box: nn.Module, images: Tensor) -> None:
    black_box.body[0].requires_grad_(False)
    model = convert(black_box, images=images)
    assert not model.features.network.body[0].weight.requires_grad
    assert model.features.network.body[3].weight.requires_grad
    assert all(parameter.requires_grad for parameter in model.head.parameters())


def test_no_gradient_is_left_over(black_box: nn.Module, images: Tensor) -> None:
    black_box(images).sum().backward()
    assert all(parameter.grad is None for parameter in convert(black_box, images=images).parameters())


def test_the_classifier_is_left_behind(black_box: nn.Module, images: Tensor) -> None:
    names = [name for name, _ in convert(black_box, images=images).named_parameters()]
    assert not [name for name in names if "fc" in name]
    assert names[-2:] == ["head.classifier.weight", "head.classifier.bias"]


class Auxiliary(nn.Module):
    """A branch for training alone, as GoogLeNet has, and a classifier that is not called as a module."""

    def __init__(self, black_box: nn.Module) -> None:
        super().__init__()
        self.body = black_box.body
        self.aux = nn.Linear(6, 4)
        self.table = nn.Parameter(torch.randn(4, 6))

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        if self.training:
            self.aux(features.mean((2, 3)))
        return F.linear(features.mean((2, 3)), self.table)


@pytest.mark.parametrize("num_classes", [None, 2])
@pytest.mark.parametrize("auxiliary", [False, True])
def test_every_trainable_weight_gets_a_gradient(
    black_box: nn.Module, images: Tensor, num_classes: int | None, auxiliary: bool
) -> None:
    # DistributedDataParallel stops at weights that take no part in the loss.
    network = Auxiliary(black_box) if auxiliary else black_box
    model = convert(network, images=images, num_classes=num_classes).train()
    model(images).sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


# Arguments


def test_num_classes_gives_a_new_layer(make_black_box: MakeBlackBox, images: Tensor) -> None:
    network = make_black_box(dropout=0.25).eval()
    model = convert(network, images=images, num_classes=9)
    assert model(images).shape == (2, 9)
    assert model.num_classes == model.conversion.num_classes == 9
    assert (model.conversion.exact, model.conversion.error) == (False, None)
    assert model.conversion.dropout == model.head.dropout == 0.25
    assert "the class evidence layer is new: train it before use" in model.conversion.notes
    torch.testing.assert_close(model.forward_features(images), network.body(images))
    model.evidence(images).check()


def test_a_new_layer_for_as_many_classes_is_new(black_box: nn.Module, images: Tensor) -> None:
    model = convert(black_box, images=images, num_classes=4)
    assert relative_error(model(images), black_box(images)) > 0.1


def test_a_new_layer_follows_the_seed(black_box: nn.Module, images: Tensor) -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return convert(black_box, images=images, num_classes=4).get_classifier().weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_no_class_is_refused(black_box: nn.Module, images: Tensor) -> None:
    with pytest.raises(ValueError, match="Expected `num_classes` to be >= 1, but got 0"):
        convert(black_box, images=images, num_classes=0)


@pytest.mark.parametrize("multi_label", [False, True])
def test_multi_label_is_carried_into_the_evidence(black_box: nn.Module, images: Tensor, multi_label: bool) -> None:
    evidence = convert(black_box, images=images, multi_label=multi_label).evidence(images)
    sums = evidence.probabilities().sum(1)
    assert evidence.multi_label == multi_label
    assert torch.allclose(sums, torch.ones(2)) != multi_label


def test_images_decide_the_measured_size(black_box: nn.Module) -> None:
    report = convert(black_box, images=torch.randn(1, 3, 32, 48)).conversion
    assert (report.input_size, report.grid) == ((32, 48), (8, 12))
    assert convert(black_box).conversion.input_size == (224, 224)


@pytest.mark.parametrize("shape", [(3, 16, 16), (0, 3, 16, 16), (16, 16)])
def test_images_of_another_shape_are_refused(black_box: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected `images` to be a filled batch \(N, C, H, W\)"):
        convert(black_box, images=torch.zeros(shape))


def test_without_certification_nothing_is_measured(black_box: nn.Module, images: Tensor) -> None:
    model = convert(black_box, images=images, certify=False)
    assert model.conversion.error is None
    assert model.conversion.exact
    assert relative_error(model(images), black_box(images)) <= 1e-5


def reaches_back(network: nn.Module, features: Tensor) -> Tensor:
    return network.fc(features.mean((2, 3))) * (1 + features.amax((1, 2, 3))[:, None])


def test_certification_finds_what_the_head_alone_does_not_show(black_box: nn.Module, images: Tensor) -> None:
    network = with_head(black_box, reaches_back)
    with pytest.raises(UnsupportedModelError, match="does more with its features than pool and classify"):
        convert(network, images=images)
    convert(network, images=images, certify=False)


# Heads


def test_a_zero_initialised_classifier_converts(black_box: nn.Module, images: Tensor) -> None:
    nn.init.zeros_(black_box.fc.weight)
    nn.init.zeros_(black_box.fc.bias)
    model = convert(black_box, images=images)
    assert model.conversion.error == 0.0
    assert not model.evidence(images).maps.any()


def test_a_batch_norm_in_the_head_is_folded_and_said(black_box: nn.Module, images: Tensor) -> None:
    norm = nn.BatchNorm1d(6).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    black_box.norm = norm
    network = with_head(black_box, lambda net, x: net.fc(net.norm(x.mean((2, 3)))))
    model = convert(network, images=images)
    assert model.conversion.notes == ("batch norm in the head is folded in its eval form and no longer adapts",)
    assert relative_error(model.evidence(images).maps.mean((-2, -1)), network(images)) <= 1e-5


def concatenated_head(network: nn.Module, features: Tensor) -> Tensor:
    return network.fc(
        torch.cat([F.adaptive_max_pool2d(features, 1), features.mean((2, 3), keepdim=True)], 1).flatten(1)
    )


def test_two_poolings_of_one_map_convert_where_nothing_names_the_halves(black_box: nn.Module, images: Tensor) -> None:
    black_box.fc = nn.Linear(12, 4)
    network = with_head(black_box, concatenated_head)
    model = convert(network, images=images)
    assert (model.conversion.head, model.conversion.channels) == ("catavgmax", 6)
    assert relative_error(model.evidence(images).maps.mean((-2, -1)), network(images)) <= 1e-5


def test_two_poolings_before_a_hidden_layer_leave_room_for_a_new_layer(black_box: nn.Module, images: Tensor) -> None:
    black_box.fc = nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    network = with_head(black_box, concatenated_head)
    with pytest.raises(UnsupportedModelError, match="to be a stack of layers"):
        convert(network, images=images, exact=False)
    assert convert(network, images=images, num_classes=3).conversion.head == "linear"


def flat_head(network: nn.Module, features: Tensor) -> Tensor:
    return network.fc(features.flatten(1)[:, ::20])


def cosine_head(network: nn.Module, features: Tensor) -> Tensor:
    return network.fc(F.normalize(features.mean((2, 3)), dim=1).square())


def hidden_head(network: nn.Module, features: Tensor) -> Tensor:
    return network.fc(F.hardswish(features.mean((2, 3))))


REFUSED = {
    "flatten": (flat_head, "sees more of the features than their mean"),
    "cosine": (cosine_head, "not affine in the pooled features"),
    "hidden layer": (hidden_head, "not affine in the pooled features"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_heads_that_cannot_be_exact_are_refused_with_advice(black_box: nn.Module, images: Tensor, name: str) -> None:
    head, finding = REFUSED[name]
    with pytest.raises(
        UnsupportedModelError, match=rf"mean -> affine, but the head .*{finding}.*Use `exact=False`.*`num_classes=`"
    ):
        convert(with_head(black_box, head), images=images)


@pytest.mark.parametrize("name", REFUSED)
def test_a_new_layer_works_on_refused_heads(black_box: nn.Module, images: Tensor, name: str) -> None:
    network = with_head(black_box, REFUSED[name][0])
    model = convert(network, images=images, num_classes=3)
    torch.testing.assert_close(model.forward_features(images), network.body(images))
    evidence = model.evidence(images).check()
    assert evidence.maps.shape == (2, 3, 4, 5)
    evidence.logits.sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


# What is no black box


def test_a_model_that_returns_a_dictionary_is_refused_with_advice(black_box: nn.Module, images: Tensor) -> None:
    network = with_head(black_box, lambda net, x: {"logits": net.fc(x.mean((2, 3)))})
    with pytest.raises(
        UnsupportedModelError, match=r"one tensor of logits \(N, K\), but got dict\. Name .* `classifier=`, or wrap"
    ):
        convert(network, images=images)


def test_a_model_that_returns_a_map_is_refused(black_box: nn.Module, images: Tensor) -> None:
    with pytest.raises(UnsupportedModelError, match=r"one tensor of logits \(N, K\), but got \(2, 6, 4, 5\)"):
        convert(black_box.body, images=images)


def test_a_converted_model_is_refused(black_box: nn.Module, images: Tensor) -> None:
    with pytest.raises(UnsupportedModelError, match="converted already"):
        convert(convert(black_box, images=images), images=images)


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Expected `model` to be a torch\.nn\.Module, but got str"):
        convert("resnet50")  # type: ignore[arg-type]


def test_scripted_code_is_refused(black_box: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of torch advise against it
        scripted = torch.jit.trace(black_box, torch.randn(1, 3, 16, 16))
    with pytest.raises(UnsupportedModelError, match="TorchScript"):
        convert(scripted)


def test_weights_that_are_not_there_are_refused(make_black_box: MakeBlackBox) -> None:
    with pytest.raises(UnsupportedModelError, match="meta tensors"):
        convert(make_black_box().to("meta"))


def test_a_model_that_does_not_run_is_refused_with_advice(black_box: nn.Module) -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"classify images \(1, 1, 16, 16\), but it raised: .*Pass `images=`"
    ):
        convert(black_box, images=torch.zeros(1, 1, 16, 16))


def test_a_network_with_two_ways_to_the_logits_is_refused(black_box: nn.Module, images: Tensor) -> None:
    class TwoWays(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.black_box = black_box
            self.colour = nn.Linear(3, 4)

        def forward(self, images: Tensor) -> Tensor:
            colour = self.colour(images.mean((2, 3)))
            return self.black_box(images) + colour

    with pytest.raises(UnsupportedModelError, match="differ by"):
        convert(TwoWays().eval(), images=images)


# The size of the images


def test_input_shape_of_an_unknown_network(black_box: nn.Module) -> None:
    assert input_shape(black_box) == (3, 224, 224)
    assert input_shape(nn.Conv2d(1, 4, 3)) == (1, 224, 224)
    assert input_shape(nn.Linear(2, 2)) == (3, 224, 224)


@pytest.mark.parametrize("record", ["pretrained_cfg", "default_cfg"])
def test_input_shape_follows_the_record(black_box: nn.Module, record: str) -> None:
    setattr(black_box, record, {"input_size": (3, 64, 96)})
    assert input_shape(black_box) == (3, 64, 96)


def test_input_shape_follows_the_layers_before_the_record() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3))
    network.pretrained_cfg = {"input_size": (3, 64, 64)}
    network.patch_embed = nn.Identity()
    network.patch_embed.img_size = (32, 48)
    assert input_shape(network) == (1, 32, 48)


def test_the_default_probe_has_the_size_of_the_record(black_box: nn.Module) -> None:
    black_box.default_cfg = {"input_size": (3, 32, 64)}
    assert convert(black_box).conversion.input_size == (32, 64)


def test_the_result_is_a_softcam_model(black_box: nn.Module, images: Tensor) -> None:
    assert type(convert(black_box, images=images)) is SoftCAM
