"""Networks and images that convert only at second sight, or not at all: a right answer, or an error with advice."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from softcam.errors import UnsupportedModelError
from softcam.nn import SoftCAM, convert

Make = Callable[..., nn.Module]

SMALL = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def with_classifier(network: nn.Module, *layers: nn.Module) -> nn.Module:
    """Return the black box with other layers in the place of its classifier, the last of its modules."""
    network.fc = nn.Sequential(*layers)
    return network.eval()


def returning(network: nn.Module, change: Callable[[Tensor], Any]) -> nn.Module:
    """Return the black box with something made of its logits."""

    class Changed(type(network)):  # type: ignore[misc]
        def forward(self, images: Tensor) -> Any:
            return change(super().forward(images))

    network.__class__ = Changed
    return network


def check_exact(model: SoftCAM, expected: Tensor, images: Tensor, tolerance: float = 1e-6) -> None:
    report = model.conversion
    assert (report.exact, report.drift) == (True, None)
    evidence = model.eval().evidence(images)
    scale = expected.abs().max()
    for found in (model(images), evidence.logits, evidence.maps.mean((-2, -1))):
        assert (found - expected).abs().max() <= tolerance * scale


@pytest.fixture
def _quiet() -> Iterator[None]:
    """Newer versions of torch advise against what users still have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# Without a classifier

WITHOUT = r"Expected a classifier, but the model returns its pooled features.* `num_classes=`"

HEADLESS: dict[str, Callable[[], nn.Module]] = {
    "mean": lambda: timm.create_model("test_resnet", num_classes=0),
    "norm": lambda: timm.create_model("test_convnext", num_classes=0),
    "maximum": lambda: timm.create_model("test_resnet", num_classes=0, global_pool="max"),
    "mean and maximum": lambda: timm.create_model("test_resnet", num_classes=0, global_pool="catavgmax"),
}


@pytest.mark.parametrize("name", HEADLESS)
def test_pooled_features_are_not_taken_for_logits(name: str) -> None:
    network = HEADLESS[name]().eval()
    with pytest.raises(UnsupportedModelError, match=WITHOUT):
        convert(network, images=SMALL)
    model = convert(network, images=SMALL, num_classes=3)
    assert (model.num_classes, model.conversion.exact) == (3, False)


def test_a_class_token_is_not_taken_for_logits() -> None:
    network = timm.create_model("test_vit", num_classes=0).eval()
    with pytest.raises(UnsupportedModelError, match=r"sees more of the features .*`num_classes=`"):
        convert(network)
    with pytest.raises(UnsupportedModelError, match=WITHOUT):
        convert(network, exact=False)


REPLACED: dict[str, Callable[[], tuple[nn.Module, ...]]] = {
    "identity": lambda: (nn.Identity(),),
    "layer norm": lambda: (random(nn.LayerNorm(6)), nn.Identity()),
    "norm without weights": lambda: (nn.LayerNorm(6, elementwise_affine=False), nn.Identity()),
    "rms norm": lambda: (random(nn.RMSNorm(6)), nn.Identity()),
    "batch norm": lambda: (random(nn.BatchNorm1d(6)), nn.Identity()),
}


def random(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2.0)
    return norm


@pytest.mark.parametrize("name", REPLACED)
def test_an_identity_in_the_place_of_the_classifier_is_seen(black_box: nn.Module, images: Tensor, name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=WITHOUT):
        convert(with_classifier(black_box, *REPLACED[name]()), images=images)


@pytest.mark.parametrize("start", [None, 0.0])
def test_a_square_classifier_before_an_identity_is_one(
    black_box: nn.Module, images: Tensor, start: float | None
) -> None:
    classifier = nn.Linear(6, 6)
    if start is not None:
        nn.init.constant_(classifier.weight, start)
    network = with_classifier(black_box, classifier, nn.Identity())
    check_exact(convert(network, images=images), network(images), images)


def test_a_classifier_put_back_later_is_one() -> None:
    network = timm.create_model("test_resnet", num_classes=0).eval()
    network.fc = nn.Linear(network.num_features, 3)
    assert network.num_classes == 0
    check_exact(convert(network, images=SMALL), network(SMALL), SMALL, 1e-5)
    assert convert(network, images=SMALL, at=8).num_classes == 3


def test_an_earlier_place_does_not_take_features_for_classes() -> None:
    network = timm.create_model("test_resnet", num_classes=0).eval()
    with pytest.raises(UnsupportedModelError, match=r"which tell no number of classes\. Pass `num_classes=` as well"):
        convert(network, images=SMALL, at=8)
    assert convert(network, images=SMALL, at=8, num_classes=3).num_classes == 3


# Weights of zero


def fill_alike(model: SoftCAM, classifier: nn.Linear) -> None:
    """Give a classifier and its class evidence layer the same weights."""
    with torch.no_grad():
        nn.init.normal_(classifier.weight)
        model.head.classifier.weight.copy_(classifier.weight[..., None, None])


@pytest.mark.parametrize("bias", [0.0, 1.0])
@pytest.mark.parametrize("norm", [False, True])
def test_a_classifier_that_begins_at_zero_is_converted_as_any_other(
    make_black_box: Make, images: Tensor, bias: float, norm: bool
) -> None:
    classifier = nn.Linear(6, 4)
    nn.init.zeros_(classifier.weight)
    nn.init.constant_(classifier.bias, bias)
    network = with_classifier(make_black_box(), *[nn.RMSNorm(6, eps=1e-3)] * norm, classifier)
    model = convert(network, images=images)
    assert (model.conversion.head, model.conversion.exact) == ("pooled_norm" if norm else "linear", True)
    assert model.conversion.error == 0.0
    # The layer is that of the head for other weights too.
    fill_alike(model, classifier)
    expected = network(images)
    assert expected.std() > 0.01
    check_exact(model, expected, images, 1e-5)


NOT_EXACT: dict[str, Callable[[], tuple[nn.Module, ...]]] = {
    "hidden layer": lambda: (nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)),
    "activation": lambda: (nn.Hardswish(), nn.Linear(6, 4)),
}


@pytest.mark.parametrize("bias", [0.0, 1.0])
@pytest.mark.parametrize("name", NOT_EXACT)
def test_weights_of_zero_do_not_hide_what_cannot_be_exact(
    black_box: nn.Module, images: Tensor, name: str, bias: float
) -> None:
    network = with_classifier(black_box, *NOT_EXACT[name]())
    nn.init.zeros_(network.fc[-1].weight)
    nn.init.constant_(network.fc[-1].bias, bias)
    with pytest.raises(UnsupportedModelError, match="not affine in the pooled features"):
        convert(network, images=images)


def test_weights_of_zero_do_not_hide_a_flattened_grid() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.Flatten(), nn.Linear(6 * 20, 4)).eval()
    nn.init.zeros_(network[2].weight)
    with pytest.raises(UnsupportedModelError, match="sees more of the features than their mean"):
        convert(network, images=torch.randn(2, 3, 16, 20))


def test_a_trunk_that_gives_zero_is_converted(black_box: nn.Module, images: Tensor) -> None:
    nn.init.zeros_(black_box.body[3].weight)
    nn.init.zeros_(black_box.body[3].bias)
    check_exact(convert(black_box, images=images), black_box(images), images)


# Converted before


AGAIN: dict[str, Callable[[SoftCAM], nn.Module]] = {
    "itself": lambda model: model,
    "with evidence": lambda model: model.with_evidence(),
    "compiled": torch.compile,
    "data parallel": nn.DataParallel,
    "inside another module": lambda model: nn.Sequential(nn.Identity(), model),
}


@pytest.mark.parametrize("name", AGAIN)
@pytest.mark.parametrize("num_classes", [None, 3])
def test_a_converted_model_is_not_converted_again(
    black_box: nn.Module, images: Tensor, name: str, num_classes: int | None
) -> None:
    model = AGAIN[name](convert(black_box, images=images))
    with pytest.raises(UnsupportedModelError, match=r"but got a SoftCAM model\. It has been converted already"):
        convert(model, images=images, num_classes=num_classes)


# Weights that are no plain numbers


def test_frozen_weights_convert_exactly_and_stay_frozen(black_box: nn.Module, images: Tensor) -> None:
    model = convert(black_box.requires_grad_(requires_grad=False), images=images)
    check_exact(model, black_box(images), images)
    assert model.conversion.receptive_field == (7, 7)
    assert not any(parameter.requires_grad for parameter in model.features.parameters())
    assert not any(parameter.requires_grad for parameter in black_box.parameters())
    assert all(parameter.requires_grad for parameter in model.head.parameters())


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("compile_", [torch.jit.script, lambda net: torch.jit.trace(net, torch.randn(1, 3, 16, 20))])
def test_scripted_code_is_refused(compile_: Callable[[nn.Module], nn.Module], images: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    with pytest.raises(UnsupportedModelError, match=r"got a TorchScript module\. Convert the module it came from"):
        convert(compile_(network), images=images)


@pytest.mark.usefixtures("_quiet")
def test_scripted_parts_are_refused_where_they_have_weights(make_black_box: Make, images: Tensor) -> None:
    with pytest.raises(UnsupportedModelError, match="got a TorchScript module"):
        convert(with_classifier(make_black_box(), torch.jit.script(nn.Linear(6, 4))), images=images)
    network = with_classifier(make_black_box(), torch.jit.script(nn.Identity()), nn.Linear(6, 4))
    check_exact(convert(network, images=images), network(images), images)


@pytest.mark.usefixtures("_quiet")
def test_quantised_modules_are_refused(black_box: nn.Module, images: Tensor) -> None:
    quantised = torch.ao.quantization.quantize_dynamic(black_box, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(UnsupportedModelError, match=r"but got quantised modules\. Convert the float model, then quan"):
        convert(quantised, images=images)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_weights_of_other_numbers_are_refused(black_box: nn.Module, images: Tensor, dtype: torch.dtype) -> None:
    black_box.fc.weight = nn.Parameter(torch.ones(4, 6, dtype=dtype), requires_grad=False)
    with pytest.raises(UnsupportedModelError, match=rf"Expected floating-point weights, but got {dtype}\. Convert the"):
        convert(black_box, images=images)


@pytest.mark.parametrize("part", ["fc.weight", "body.1.running_mean"])
def test_meta_tensors_are_refused(black_box: nn.Module, images: Tensor, part: str) -> None:
    module, _, name = part.rpartition(".")
    owner = black_box.get_submodule(module)
    value = getattr(owner, name).to("meta")
    setattr(owner, name, nn.Parameter(value) if name == "weight" else value)
    with pytest.raises(UnsupportedModelError, match=r"but got meta tensors\. Load the weights, then convert"):
        convert(black_box, images=images)


@pytest.mark.parametrize("layer", [lambda: nn.LazyLinear(4), lambda: nn.Sequential(nn.LazyBatchNorm1d())])
def test_lazy_modules_are_refused_until_they_have_run(
    make_black_box: Make, images: Tensor, layer: Callable[[], nn.Module]
) -> None:
    network = with_classifier(make_black_box(), layer(), nn.Sequential(nn.LazyLinear(4)))
    with pytest.raises(UnsupportedModelError, match=r"but got lazy modules\. Run the model on an image, then convert"):
        convert(network, images=images)
    network(images)
    check_exact(convert(network, images=images), network(images), images)


@pytest.mark.parametrize("normalise", [parametrizations.weight_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("place", ["body.3", "fc"])
def test_weights_that_are_computed_anew_convert_exactly(
    black_box: nn.Module, images: Tensor, normalise: Callable[[nn.Module], nn.Module], place: str
) -> None:
    normalise(black_box.get_submodule(place))
    black_box.eval()
    check_exact(convert(black_box, images=images), black_box(images), images)


def mask_weights(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", 0.5)


def remove_mask(layer: nn.Module) -> None:
    prune.remove(layer, "weight")


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("place", ["body.3", "fc"])
@pytest.mark.parametrize(
    ("apply", "remove"),
    [(mask_weights, remove_mask), (nn.utils.weight_norm, nn.utils.remove_weight_norm)],
    ids=["pruned", "weight norm"],
)
def test_weights_that_hooks_compute_are_refused_until_they_are_plain(
    black_box: nn.Module,
    images: Tensor,
    apply: Callable[[nn.Module], Any],
    remove: Callable[[nn.Module], Any],
    place: str,
) -> None:
    layer = black_box.get_submodule(place)
    apply(layer)
    black_box(images)
    with pytest.raises(
        UnsupportedModelError, match=r"a model that can be copied, .*`torch\.nn\.utils\.remove_weight_norm`.*prune\.rem"
    ):
        convert(black_box, images=images)
    remove(layer)
    check_exact(convert(black_box, images=images), black_box(images), images)


def test_what_cannot_be_copied_is_refused(black_box: nn.Module, images: Tensor) -> None:
    black_box.generator = (number for number in range(3))
    with pytest.raises(UnsupportedModelError, match=r"can be copied, but it raised: .*generator.* take out locks"):
        convert(black_box, images=images)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["body.0.weight", "fc.weight", "fc.bias"])
@pytest.mark.parametrize("options", [{}, {"certify": False}, {"num_classes": 3}, {"at": 4}], ids=str)
def test_weights_that_are_not_finite_are_refused(
    black_box: nn.Module, images: Tensor, place: str, value: float, options: dict[str, Any]
) -> None:
    with torch.no_grad():
        black_box.get_parameter(place).view(-1)[0] = value
    if value == float("inf") and place != "fc.bias":
        images = images.abs()
    with pytest.raises(
        UnsupportedModelError, match=r"finite logits, but .* for images \(2, 3, 16, 20\)\. Look for NaN among its weig"
    ):
        convert(black_box, images=images, **options)


# Wrappers


@pytest.mark.parametrize(
    "wrap",
    [torch.compile, nn.DataParallel, lambda net: torch.compile(nn.DataParallel(net))],
    ids=["compiled", "data parallel", "both"],
)
def test_wrappers_are_taken_off(black_box: nn.Module, images: Tensor, wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = convert(wrap(black_box), images=images)
    images = images.to(next(black_box.parameters()).device)  # where there is a GPU, DataParallel moves the network
    check_exact(model, black_box(images), images)
    assert type(model.features.network) is type(black_box)


def test_a_model_compiled_in_place_is_run_as_it_was_written(black_box: nn.Module, images: Tensor) -> None:
    def refuse(*_: object) -> Callable[..., Any]:
        raise AssertionError("nothing is to be compiled")

    expected = black_box(images)
    black_box.compile(backend=refuse)
    check_exact(convert(black_box, images=images), expected, images)


def test_traced_graphs_convert(black_box: nn.Module, images: Tensor) -> None:
    graph = torch.fx.symbolic_trace(black_box)
    check_exact(convert(graph, images=images), black_box(images), images)


# Images


def test_images_have_to_be_a_tensor(black_box: nn.Module, images: Tensor) -> None:
    for other, kind in ((images.numpy(), "ndarray"), (list(images), "list")):
        with pytest.raises(TypeError, match=rf"Expected `images` to be a torch\.Tensor, but got {kind}\."):
            convert(black_box, images=other)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv1d(2, 3, 3), (2, 2, 8, 8), "(N, C, L)"),
        (nn.Conv2d(2, 3, 3), (2, 2, 8), "(N, C, H, W)"),
        (nn.Conv3d(2, 3, 3), (2, 2, 8, 8), "(N, C, D, H, W)"),
    ],
    ids=["signals", "images", "volumes"],
)
def test_images_have_the_dimensions_of_the_first_layer(layer: nn.Module, shape: tuple[int, ...], expected: str) -> None:
    with pytest.raises(ValueError, match=r"to be a filled batch \(.*\), but got \(2, 2") as caught:
        convert(layer, images=torch.zeros(shape))
    assert expected in str(caught.value)


def test_a_size_that_the_network_does_not_take_is_refused() -> None:
    network = timm.create_model("test_vit", num_classes=3, class_token=False, global_pool="avg").eval()
    with pytest.raises(UnsupportedModelError, match=r"classify images \(2, 3, 100, 100\), but it raised: .*Pass `imag"):
        convert(network, images=torch.randn(2, 3, 100, 100))


def test_images_that_leave_one_cell_are_refused(black_box: nn.Module) -> None:
    with pytest.raises(UnsupportedModelError, match=r"with several positions .*, but got \(1, 6, 1, 1\)\. Use larger"):
        convert(black_box, images=torch.randn(2, 3, 3, 4))


def test_images_that_are_not_finite_are_refused(black_box: nn.Module, images: Tensor) -> None:
    images[1, 0, 0, 0] = float("nan")
    with pytest.raises(UnsupportedModelError, match="and in the images"):
        convert(black_box, images=images)


def test_images_of_another_dtype_are_brought_to_the_network_s(black_box: nn.Module) -> None:
    counts = torch.randint(0, 255, (2, 3, 16, 20), dtype=torch.uint8)
    for images in (counts, counts.double()):
        check_exact(convert(black_box, images=images), black_box(counts.float()), counts.float())


# Outputs


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda logits: (logits, logits), "tuple"),
        (lambda logits: [logits], "list"),
        (lambda logits: {"logits": logits}, "dict"),
        (lambda _: None, "NoneType"),
        (lambda logits: logits[0], r"\(4,\)"),
        (lambda logits: logits[..., None], r"\(2, 4, 1\)"),
    ],
    ids=["tuple", "list", "dict", "none", "vector", "map"],
)
def test_outputs_that_are_no_logits_are_refused_until_the_classifier_is_named(
    black_box: nn.Module, images: Tensor, change: Callable[[Tensor], Any], got: str
) -> None:
    expected = black_box(images)
    network = returning(black_box, change)
    with pytest.raises(
        UnsupportedModelError, match=rf"one tensor of logits \(N, K\), but got {got}\. Name .*`classifier=`, or wrap"
    ):
        convert(network, images=images)
    check_exact(convert(network, images=images, classifier="fc"), expected, images)


@pytest.mark.parametrize("error", [TypeError, IndexError, KeyError, AttributeError, ValueError, AssertionError])
def test_what_the_network_raises_is_passed_on_with_advice(
    black_box: nn.Module, images: Tensor, error: type[Exception]
) -> None:
    def fail(_: Tensor) -> None:
        raise error("wants a dictionary")

    with pytest.raises(UnsupportedModelError, match=r"it raised: .?wants a dictionary.?\. Pass `images=`") as caught:
        convert(returning(black_box, fail), images=images)
    assert isinstance(caught.value.__cause__, error)


def test_a_network_of_two_inputs_is_refused(black_box: nn.Module, images: Tensor) -> None:
    class Two(type(black_box)):  # type: ignore[misc]
        def forward(self, images: Tensor, other: Tensor) -> Tensor:
            return super().forward(images + other)

    black_box.__class__ = Two
    with pytest.raises(UnsupportedModelError, match="missing 1 required positional argument: 'other'"):
        convert(black_box, images=images)


@pytest.mark.parametrize("options", [{}, {"at": 4}, {"num_classes": 3}], ids=str)
def test_a_fixed_batch_size_is_refused(black_box: nn.Module, images: Tensor, options: dict[str, Any]) -> None:
    network = returning(black_box, lambda logits: logits.view(2, 4))
    with pytest.raises(UnsupportedModelError, match=r"any number of images, but on a batch \(1, 3, 16, 20\) it raised"):
        convert(network, images=images, **options)


def test_an_exported_program_of_a_fixed_batch_size_is_refused(black_box: nn.Module, images: Tensor) -> None:
    program = torch.export.export(black_box, (images,)).module()
    with pytest.raises(UnsupportedModelError, match=r"any number of images.*of an exported program, convert the sour"):
        convert(program, images=images)


# Numbers of classes and other arguments


def test_the_logits_tell_the_number_of_classes(black_box: nn.Module, images: Tensor) -> None:
    black_box.num_classes = 10
    model = convert(black_box, images=images)
    assert model.num_classes == model.conversion.num_classes == 4
    check_exact(model, black_box(images), images)


@pytest.mark.parametrize("num_classes", [2.0, "3", [3]])
def test_a_number_of_classes_is_an_integer(black_box: nn.Module, images: Tensor, num_classes: Any) -> None:
    with pytest.raises(TypeError, match=r"Expected `num_classes` to be an integer, but got (float|str|list)\."):
        convert(black_box, images=images, num_classes=num_classes)


@pytest.mark.parametrize("options", [{}, {"at": 4}, {"head": "linear"}, {"layers": 2}], ids=str)
def test_no_class_is_refused_at_every_place(black_box: nn.Module, images: Tensor, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Expected `num_classes` to be >= 1, but got 0"):
        convert(black_box, images=images, num_classes=0, **options)


def test_an_unknown_head_is_refused_with_a_choice(black_box: nn.Module, images: Tensor) -> None:
    with pytest.raises(
        ValueError, match="`head` to be one of auto, linear, pointwise, fully_convolutional, but got 'c"
    ):
        convert(black_box, images=images, head="conv")  # type: ignore[arg-type]


# What the user's model has on it


@pytest.mark.parametrize("options", [{}, {"num_classes": 3}, {"at": 2}, {"map_stride": 2}], ids=str)
def test_a_model_in_training_is_measured_in_eval_and_learns_nothing(
    make_black_box: Make, images: Tensor, options: dict[str, Any]
) -> None:
    network = make_black_box(dropout=0.5).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    model = convert(network, images=images, **options)
    assert all(module.training for module in (*network.modules(), *model.modules()))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    for key, value in model.features.network.named_buffers():
        assert torch.equal(before[key], value)


@pytest.mark.parametrize("training", [True, False])
def test_a_refusal_leaves_the_model_as_it_was(make_black_box: Make, images: Tensor, training: bool) -> None:
    network = with_classifier(make_black_box(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(UnsupportedModelError):
        convert(network, images=images)
    assert all(module.training == training for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_hooks_stay_on_the_model_and_come_along(black_box: nn.Module, images: Tensor) -> None:
    seen: list[nn.Module] = []

    def note(module: nn.Module, _inputs: object, _output: object) -> None:
        seen.append(module)

    handle = black_box.body[0].register_forward_hook(note)
    model = convert(black_box, images=images)
    assert black_box.body[0] not in seen
    seen.clear()
    black_box(images)
    assert seen == [black_box.body[0]]
    handle.remove()
    seen.clear()
    black_box(images)
    assert seen == []
    model(images)
    assert seen == [model.features.network.body[0]]


@pytest.mark.parametrize("place", ["body", "fc", ""])
def test_a_hook_that_changes_what_a_module_gives_is_part_of_the_model(
    black_box: nn.Module, images: Tensor, place: str
) -> None:
    black_box.get_submodule(place).register_forward_hook(lambda _module, _inputs, output: 2 * output + 1)
    check_exact(convert(black_box, images=images), black_box(images), images)


# Half precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"num_classes": 3}, {"at": 4}], ids=str)
def test_models_in_half_precision_stay_in_it(
    make_black_box: Make, images: Tensor, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    network = make_black_box(dropout=0.25).to(dtype).eval()
    model = convert(network, images=images, **options)
    assert {parameter.dtype for parameter in (*model.parameters(), *network.parameters())} == {dtype}
    evidence = model.evidence(images.to(dtype))
    assert evidence.logits.dtype == evidence.maps.dtype == dtype
    if not options:
        check_exact(model, network(images.to(dtype)), images.to(dtype), 2 * torch.finfo(dtype).eps)


def test_logits_beyond_half_precision_are_refused(black_box: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        black_box.fc.weight.fill_(6e4)
    with pytest.raises(UnsupportedModelError, match="in half precision, for overflow"):
        convert(black_box.half(), images=100 * images)
