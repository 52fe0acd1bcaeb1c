"""Every registered explanation method keeps the same promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from softcam.attribution import METHODS, attribute, list_methods
from softcam.errors import UnsupportedModelError
from softcam.nn import SoftCAM, convert

TARGET = torch.tensor([2, 0, 1])
BLIND_TO_MODEL = {"random", "edges", "center_gaussian"}
BLIND_TO_TARGET = {*BLIND_TO_MODEL, "eigen_cam"}
BLIND_TO_IMAGE = {"center_gaussian"}
WITHOUT_GRADIENT = {"score_cam", "ablation_cam", "occlusion", "rise"}
RUNNING = [name for name in list_methods() if name not in BLIND_TO_MODEL]


class Classifier(nn.Module):
    """Convolution, batch norm, both guided activations, dropout and a linear head."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU6(inplace=True))
        self.stage = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.drop(self.pool(self.stage(self.stem(images))).flatten(1)))


@pytest.fixture
def model() -> SoftCAM:
    torch.manual_seed(0)
    return convert(Classifier(), images=torch.randn(2, 3, 12, 16)).train()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 12, 16, generator=torch.Generator().manual_seed(1))


def state_of(model: nn.Module) -> list[object]:
    """Everything a method may touch: modules and their attributes, modes, gradients, values, hooks."""
    hooks = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
    state: list[object] = [(id(module), module.training, *vars(module)) for module in model.modules()]
    state += [len(getattr(module, name)) for module in model.modules() for name in hooks]
    state += [(parameter.requires_grad, id(parameter.grad)) for parameter in model.parameters()]
    state += [tensor.double().sum().item() for tensor in model.state_dict().values()]
    return state


@pytest.fixture(params=list_methods())
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_shape_dtype_and_detachment(method: str, model: SoftCAM, images: Tensor) -> None:
    maps = attribute(method, model, images, TARGET)
    assert maps.dtype == torch.float32
    assert maps.ndim == 3
    assert len(maps) == 3
    assert maps.shape[1:] in {(6, 8), (12, 16)}
    assert not maps.requires_grad
    assert maps.grad_fn is None
    assert bool(maps.isfinite().all())
    assert float(maps.std()) > 0


def test_batch_equals_one_by_one(method: str, model: SoftCAM, images: Tensor) -> None:
    together = attribute(method, model, images, TARGET)
    alone = [attribute(method, model, images[i : i + 1], TARGET[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_order_of_images_does_not_matter(method: str, model: SoftCAM, images: Tensor) -> None:
    together = attribute(method, model, images, TARGET)
    torch.testing.assert_close(
        attribute(method, model, images.flip(0), TARGET.flip(0)), together.flip(0), rtol=1e-4, atol=1e-5
    )


def test_repeatable_and_independent_of_mode(method: str, model: SoftCAM, images: Tensor) -> None:
    trained = attribute(method, model, images, TARGET)
    assert torch.equal(attribute(method, model.eval(), images, TARGET), trained)


def test_target_matters_unless_the_method_is_blind(method: str, model: SoftCAM, images: Tensor) -> None:
    same = torch.equal(attribute(method, model, images, TARGET), attribute(method, model, images, TARGET.roll(1)))
    assert same is (method in BLIND_TO_TARGET)


def test_images_matter_and_stay(method: str, model: SoftCAM, images: Tensor) -> None:
    before = images.clone()
    maps = attribute(method, model, images, TARGET)
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert images.grad is None
    same = torch.equal(attribute(method, model, images.roll(1, dims=-1) * 1.5, TARGET), maps)
    assert same is (method in BLIND_TO_IMAGE)


def test_one_channel_and_one_image(method: str, images: Tensor) -> None:
    torch.manual_seed(0)
    model = convert(Classifier(1), images=images[:, :1])
    maps = attribute(method, model, images[:1, :1], TARGET[:1])
    assert maps.shape in {(1, 6, 8), (1, 12, 16)}
    assert float(maps.std()) > 0


def test_memory_format_does_not_matter(method: str, model: SoftCAM, images: Tensor) -> None:
    expected = attribute(method, model, images, TARGET)
    last = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(attribute(method, *last, TARGET), expected, rtol=1e-4, atol=1e-5)


def test_model_and_generators_come_back(method: str, model: SoftCAM, images: Tensor) -> None:
    model(images).sum().backward()
    model.features.requires_grad_(requires_grad=False)
    model.head.eval()
    before, generator = state_of(model), torch.get_rng_state()
    attribute(method, model, images, TARGET)
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("place", ["stage.0", "head"])
@pytest.mark.parametrize("name", RUNNING)
def test_model_comes_back_after_an_exception(name: str, place: str, model: SoftCAM, images: Tensor) -> None:
    module = model.head.classifier if place == "head" else model.features.network.get_submodule(place)
    module.weight = nn.Parameter(module.weight[:, :-1])
    before = state_of(model)
    with pytest.raises(RuntimeError):
        attribute(name, model, images, TARGET)
    assert state_of(model) == before


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.cost != "forward" and n not in WITHOUT_GRADIENT])
def test_a_failing_backward_leaves_nothing_behind(name: str, model: SoftCAM, images: Tensor) -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(_context: object, features: Tensor) -> Tensor:
            return features.clone()

        @staticmethod
        def backward(_context: object, *_gradients: Tensor) -> Tensor:
            raise KeyError("backward")

    model.head.register_forward_pre_hook(lambda _module, inputs: Broken.apply(inputs[0]))
    before = state_of(model)
    with pytest.raises(KeyError, match="backward"):
        attribute(name, model, images, TARGET)
    assert state_of(model) == before


@pytest.mark.parametrize("name", RUNNING)
def test_target_outside_the_classes(name: str, model: SoftCAM, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"Expected `target` to be in \[0, 2\], but got a class index of 3"):
        attribute(name, model, images, TARGET + 1)


@pytest.mark.parametrize("name", list_methods())
def test_black_box_is_accepted_where_no_softcam_is_needed(name: str, images: Tensor) -> None:
    if METHODS[name].needs_softcam:
        with pytest.raises(UnsupportedModelError, match="Expected `model` to be a SoftCAM"):
            attribute(name, Classifier(), images, TARGET)
    else:
        assert len(attribute(name, Classifier(), images, TARGET)) == 3
