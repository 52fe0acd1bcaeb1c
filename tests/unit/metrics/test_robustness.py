from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from softcam.metrics import list_layers, max_sensitivity, parameter_randomization, random_logit
from softcam.metrics.queries import Explain
from softcam.metrics.similarity import spearman, structural_similarity

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(3, 2, 8, 9, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.tensor([1, 0, 2])


class Net(nn.Module):
    """Maps of three classes; the first layer is registered last, and the root owns a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.body = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh())
        self.head = nn.Conv2d(6, 3, 1)
        self.register_buffer("steps", torch.tensor(3))

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.head(self.body(self.gain * images))
        return maps


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Net().double().eval()


def explain_with(net: nn.Module) -> Explain:
    return lambda images, target: net(images)[torch.arange(len(images)), target]


def class_maps(images: Tensor, target: Tensor) -> Tensor:
    """A map of its own for each class, curved in the pixels."""
    return torch.sin(images.sum(1) * (1 + target[:, None, None])) + images[:, 0]


def noise_of(samples: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.rand(IMAGES.shape, generator=generator, dtype=torch.float64) - 1 for _ in range(samples)]


def test_sensitivity_equals_the_slow_reference() -> None:
    expected = np.zeros(3)
    before = class_maps(IMAGES, TARGET).numpy()
    for noise in noise_of(4):
        after = class_maps(IMAGES + 0.1 * noise, TARGET).numpy()
        change = [np.linalg.norm(after[i] - before[i]) / np.linalg.norm(before[i]) for i in range(3)]
        expected = np.maximum(expected, change)
    got = max_sensitivity(class_maps, IMAGES, TARGET, radius=0.1, samples=4)
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx(list(expected))


def test_sensitivity_by_hand() -> None:
    images = torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64)
    got = max_sensitivity(lambda x, _: x[:, 0], images, torch.tensor([0]), radius=0.5, samples=1)
    generator = torch.Generator().manual_seed(0)
    noise = 0.5 * (2 * torch.rand(1, 1, 1, 2, generator=generator, dtype=torch.float64) - 1)
    assert got.item() == pytest.approx(noise.norm().item() / 5)
    assert 0 < got.item() <= 0.5 * 2**0.5 / 5


def test_sensitivity_of_what_does_not_move_and_of_nothing() -> None:
    still = max_sensitivity(lambda x, _: torch.ones_like(x[:, 0]), IMAGES, TARGET)
    assert still.tolist() == [0.0] * 3
    nothing = max_sensitivity(lambda x, t: class_maps(x, t) * (t > 0)[:, None, None], IMAGES, TARGET)
    assert nothing.isnan().tolist() == [False, True, False]


def test_noise_stays_within_its_radius_and_images_as_they_are() -> None:
    seen: list[Tensor] = []

    def spy(images: Tensor, target: Tensor) -> Tensor:
        seen.append(images)
        return class_maps(images, target)

    max_sensitivity(spy, IMAGES.float(), TARGET, radius=0.3, samples=5)
    assert len(seen) == 6
    assert torch.equal(seen[0], IMAGES.float())
    for noisy in seen[1:]:
        assert noisy.dtype == torch.float32
        change = (noisy - IMAGES.float()).abs()
        assert 0.25 < change.max() <= 0.3 + 1e-6
    assert not torch.equal(seen[1], seen[2])


def test_each_argument_of_sensitivity_matters() -> None:
    base = max_sensitivity(class_maps, IMAGES, TARGET, samples=3)
    variants = [
        max_sensitivity(lambda x, t: class_maps(x, t) ** 3, IMAGES, TARGET, samples=3),
        max_sensitivity(class_maps, IMAGES / 2, TARGET, samples=3),
        max_sensitivity(class_maps, IMAGES, 3 - TARGET, samples=3),
        max_sensitivity(class_maps, IMAGES, TARGET, radius=0.04, samples=3),
        max_sensitivity(class_maps, IMAGES, TARGET, samples=3, seed=1),
    ]
    assert all((base != variant).all() for variant in variants)
    assert (max_sensitivity(class_maps, IMAGES, TARGET, samples=40) >= base).all()
    assert (max_sensitivity(class_maps, IMAGES, TARGET, samples=40) > base).any()


def test_gradients_are_there_for_those_who_need_them() -> None:
    def gradient(images: Tensor, target: Tensor) -> Tensor:
        inputs = images.requires_grad_()
        (found,) = torch.autograd.grad(class_maps(inputs, target).sum(), inputs)
        return found.sum(1)

    images = IMAGES.clone()
    assert max_sensitivity(gradient, images, TARGET, samples=2).isfinite().all()
    assert random_logit(gradient, images, TARGET, classes=3).isfinite().all()


def test_sensitivity_refuses_other_input() -> None:
    for radius in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="Expected `radius` to be above 0"):
            max_sensitivity(class_maps, IMAGES, TARGET, radius=radius)
    with pytest.raises(ValueError, match="Expected `samples` to be at least 1"):
        max_sensitivity(class_maps, IMAGES, TARGET, samples=0)
    grids = iter([2, 1])
    with pytest.raises(ValueError, match=r"Expected `explain` to return maps of one shape, but got \(3, 2, 2\) and"):
        max_sensitivity(lambda x, _: torch.ones(3, side := next(grids), side), IMAGES, TARGET)


def test_random_logit_equals_the_slow_reference() -> None:
    generator = torch.Generator().manual_seed(5)
    other = (TARGET + torch.randint(1, 3, (3,), generator=generator)) % 3
    own, others = class_maps(IMAGES, TARGET), class_maps(IMAGES, other)
    expected = [stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(own, others, strict=True)]
    got = random_logit(class_maps, IMAGES, TARGET, classes=3, seed=5)
    assert got.tolist() == pytest.approx(expected)
    structure = random_logit(class_maps, IMAGES, TARGET, classes=3, similarity="ssim", seed=5)
    torch.testing.assert_close(structure, structural_similarity(own, others))
    torch.testing.assert_close(random_logit(class_maps, IMAGES, TARGET, classes=3, similarity=spearman, seed=5), got)


def test_the_other_class_is_another_and_any() -> None:
    images, target = torch.zeros(4000, 1, 1, 2), torch.arange(4000) % 4
    seen: list[Tensor] = []

    def spy(batch: Tensor, classes: Tensor) -> Tensor:
        seen.append(classes)
        return batch[:, 0]

    random_logit(spy, images, target, classes=4)
    assert torch.equal(seen[0], target)
    assert (seen[1] != target).all()
    pairs = torch.bincount(4 * target + seen[1], minlength=16).reshape(4, 4)
    off = pairs[~torch.eye(4, dtype=torch.bool)]
    assert ((off > 270) & (off < 400)).all()
    assert pairs.diag().sum() == 0


def test_a_map_that_does_not_know_its_class_scores_one() -> None:
    assert random_logit(lambda x, _: x[:, 0], IMAGES, TARGET, classes=3).tolist() == [1.0] * 3

    def opposed(images: Tensor, target: Tensor) -> Tensor:
        return images[:, 0] * (1 - 2 * target[:, None, None])

    assert random_logit(opposed, IMAGES, TARGET.clamp_max(1), classes=2).tolist() == [-1.0] * 3
    assert random_logit(lambda x, _: x[:, 0] * 0, IMAGES, TARGET, classes=3).isnan().all()


def test_each_argument_of_random_logit_matters() -> None:
    base = random_logit(class_maps, IMAGES, TARGET, classes=9)
    variants = [
        random_logit(lambda x, t: class_maps(x, t) ** 2, IMAGES, TARGET, classes=9),
        random_logit(class_maps, IMAGES / 2, TARGET, classes=9),
        random_logit(class_maps, IMAGES, TARGET + 3, classes=9),
        random_logit(class_maps, IMAGES, TARGET, classes=5),
        random_logit(class_maps, IMAGES, TARGET, classes=9, similarity="ssim"),
        random_logit(class_maps, IMAGES, TARGET, classes=9, seed=1),
    ]
    assert all((base != variant).any() for variant in variants)


def test_random_logit_refuses_other_input() -> None:
    with pytest.raises(ValueError, match="Expected `classes` to be at least 2, but got 1"):
        random_logit(class_maps, IMAGES, TARGET * 0, classes=1)
    for target in (TARGET, TARGET - 1):
        with pytest.raises(ValueError, match=r"Expected `target` to lie in \[0, 2\), but got"):
            random_logit(class_maps, IMAGES, target, classes=2)
    with pytest.raises(ValueError, match="Expected `similarity` to be one of"):
        random_logit(class_maps, IMAGES, TARGET, classes=3, similarity="cosine")


def test_layers_from_the_top_down(net: Net) -> None:
    assert list_layers(net) == ("head", "body.1", "body.0", "")
    assert list_layers(nn.ReLU()) == ()
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    tied[2].weight = tied[0].weight
    assert list_layers(tied) == ("2", "1")


def test_randomization_equals_the_slow_reference(net: Net) -> None:
    generator, changed = torch.Generator().manual_seed(3), copy.deepcopy(net)
    before = explain_with(net)(IMAGES, TARGET).detach()
    expected = []
    for stage in (changed.head, changed.body[1], changed.body[0]):
        for parameter in (stage.weight, stage.bias):
            scale = float(np.sqrt(np.mean(parameter.detach().numpy() ** 2)))
            parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        after = explain_with(changed)(IMAGES, TARGET).detach()
        expected.append(
            [stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(before, after, strict=True)]
        )
    layers = ("head", "body.1", "body.0")
    got = parameter_randomization(net, explain_with(net), IMAGES, TARGET, layers=layers, seed=3)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), np.array(expected).T)
    assert (got.abs() < 0.999).all()


def test_all_layers_are_the_default(net: Net) -> None:
    every = parameter_randomization(net, explain_with(net), IMAGES, TARGET)
    named = parameter_randomization(net, explain_with(net), IMAGES, TARGET, layers=("head", "body.1", "body.0", ""))
    assert every.shape == (3, 4)
    assert torch.equal(every, named)


def test_a_layer_takes_what_lies_in_it_and_only_what_is_left(net: Net) -> None:
    cascade = parameter_randomization(net, explain_with(net), IMAGES, TARGET, layers=("body.0", "body", ""))
    assert cascade.shape == (3, 3)
    whole = parameter_randomization(net, explain_with(net), IMAGES, TARGET, layers=("",))
    assert whole.shape == (3, 1)


def snapshot(net: nn.Module) -> tuple[object, ...]:
    state = {name: value.clone() for name, value in net.state_dict(keep_vars=False).items()}
    parameters = [(id(p), p.requires_grad, None if p.grad is None else p.grad.clone()) for p in net.parameters()]
    return state, parameters, [module.training for module in net.modules()], len(net._forward_hooks)


def same(first: tuple[object, ...], second: tuple[object, ...]) -> bool:
    states = first[0].keys() == second[0].keys() and all(torch.equal(first[0][k], second[0][k]) for k in first[0])  # type: ignore[attr-defined, index]
    return states and str(first[1:]) == str(second[1:])


def test_the_model_comes_back_as_it_was(net: Net) -> None:
    net.body[1].train()
    net.body[0].weight.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    net.body[1].eval()
    before, random = snapshot(net), torch.get_rng_state()
    parameter_randomization(net, explain_with(net), IMAGES, TARGET)
    assert same(before, snapshot(net))
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("call", [1, 2, 4])
def test_the_model_comes_back_after_an_exception(net: Net, call: int) -> None:
    before, random, calls = snapshot(net), torch.get_rng_state(), []

    def explain(images: Tensor, target: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return explain_with(net)(images, target)

    with pytest.raises(KeyboardInterrupt):
        parameter_randomization(net, explain, IMAGES, TARGET)
    assert len(calls) == call
    assert same(before, snapshot(net))
    assert torch.equal(torch.get_rng_state(), random)


def test_maps_of_the_input_alone_stay(net: Net) -> None:
    got = parameter_randomization(net, lambda x, _: x[:, 0], IMAGES, TARGET, similarity="ssim")
    torch.testing.assert_close(got, torch.ones(3, 4, dtype=torch.float64))


def test_undefined_maps(net: Net) -> None:
    assert parameter_randomization(net, lambda x, _: x[:, 0] * 0, IMAGES, TARGET).isnan().all()
    original = net.head.weight.detach().clone()

    def overflow(images: Tensor, target: Tensor) -> Tensor:
        random = not torch.equal(net.head.weight, original)
        factor = torch.where(target == 1, torch.inf, 1.0) if random else torch.ones(3)
        return explain_with(net)(images, target) * factor[:, None, None]

    for similarity in ("spearman", "ssim"):
        got = parameter_randomization(net, overflow, IMAGES, TARGET, similarity=similarity)
        assert got.isnan().all(1).tolist() == [True, False, False]
        assert got[1:].isfinite().all()


def test_each_argument_of_randomization_matters(net: Net) -> None:
    base = parameter_randomization(net, explain_with(net), IMAGES, TARGET, layers=("head", "body"))
    other = copy.deepcopy(net)
    other.head.weight.data *= -1
    variants = [
        parameter_randomization(other, explain_with(other), IMAGES, TARGET, layers=("head", "body")),
        parameter_randomization(
            net, lambda x, t: explain_with(net)(x, t) ** 2, IMAGES, TARGET, layers=("head", "body")
        ),
        parameter_randomization(net, explain_with(net), IMAGES.flip(1), TARGET, layers=("head", "body")),
        parameter_randomization(net, explain_with(net), IMAGES, 2 - TARGET, layers=("head", "body")),
        parameter_randomization(net, explain_with(net), IMAGES, TARGET, layers=("body", "head")),
        parameter_randomization(net, explain_with(net), IMAGES, TARGET, layers=("head", "body"), similarity="ssim"),
        parameter_randomization(net, explain_with(net), IMAGES, TARGET, layers=("head", "body"), seed=1),
    ]
    assert all(not torch.allclose(base, variant) for variant in variants)


def test_integer_parameters_are_left_alone(net: Net) -> None:
    net.table = nn.Parameter(torch.arange(4), requires_grad=False)
    assert parameter_randomization(net, explain_with(net), IMAGES, TARGET).shape == (3, 4)
    assert net.table.tolist() == [0, 1, 2, 3]


def test_randomization_refuses_other_input(net: Net) -> None:
    explain = explain_with(net)
    with pytest.raises(
        ValueError, match=r"Expected `layers` to be modules of `model`, but got 'bodi'\. Did you mean 'body'"
    ):
        parameter_randomization(net, explain, IMAGES, TARGET, layers=("bodi",))
    with pytest.raises(ValueError, match=r"but got 'zzz'. See `list_layers\(model\)`"):
        parameter_randomization(net, explain, IMAGES, TARGET, layers=("zzz",))
    for layers in (("body", "body.0"), ("body.2",)):
        with pytest.raises(ValueError, match=f"to have parameters of its own, but got '{layers[-1]}' without any left"):
            parameter_randomization(net, explain, IMAGES, TARGET, layers=layers)
    with pytest.raises(ValueError, match="Expected `layers` to name modules with parameters, but got none"):
        parameter_randomization(nn.ReLU(), explain, IMAGES, TARGET)
    with pytest.raises(ValueError, match="Expected `similarity` to be one of"):
        parameter_randomization(net, explain, IMAGES, TARGET, similarity="cosine")
    with pytest.raises(ValueError, match=r"Expected `explain\(images, target\)` to be finite"):
        parameter_randomization(net, lambda x, t: explain(x, t) / 0, IMAGES, TARGET)


@pytest.mark.parametrize("name", ["max_sensitivity", "random_logit", "parameter_randomization"])
def test_what_all_refuse(net: Net, name: str) -> None:
    def call(explain: Explain = class_maps, images: Tensor = IMAGES, target: Tensor = TARGET) -> Tensor:
        if name == "max_sensitivity":
            return max_sensitivity(explain, images, target)
        if name == "random_logit":
            return random_logit(explain, images, target, classes=3)
        return parameter_randomization(net, explain, images, target)

    with pytest.raises(ValueError, match=r"Expected `images` to be \(N, C, H, W\) without empty sides"):
        call(images=IMAGES[0])
    with pytest.raises(ValueError, match=r"Expected `target` to be \(3,\) integers"):
        call(target=TARGET[:2])
    with pytest.raises(ValueError, match=r"Expected `explain` to return 3 maps, but got 2"):
        call(lambda x, _: x[:2, 0])
    with pytest.raises(ValueError, match=r"Expected `explain\(images, target\)` to be of shape \(N, h, w\)"):
        call(lambda x, _: x)
    with pytest.raises(TypeError, match=r"Expected `explain\(images, target\)` to be floating point"):
        call(lambda x, _: x[:, 0].long())
