from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from softcam.nn.convert import convert
from softcam.nn.evidence import Evidence
from softcam.nn.replay import check_cut, resolve_module, run_from, run_until


class Counted(nn.Module):
    """Passes its input on and counts the pixels it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.numel()
        return x


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1))
        self.after = Counted()
        self.fc = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.after(self.blocks(self.stem(images))).mean((2, 3)))


class Skipping(Chain):
    """The last layer also sees the stem."""

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        return self.fc(self.blocks(stem).mean((2, 3))) + stem.mean((2, 3))[:, :3]


@pytest.fixture
def chain() -> Chain:
    return Chain().eval()


def test_run_until_gives_the_output_of_the_module(chain: Chain, images: Tensor) -> None:
    stem = chain.stem(images)
    assert torch.equal(run_until(chain, "stem", images), stem)
    assert torch.equal(run_until(chain, "blocks.0", images), chain.blocks[0](stem))
    assert torch.equal(run_until(chain, "blocks", images), chain.blocks(stem))


def test_run_until_computes_nothing_after_the_module(chain: Chain, images: Tensor) -> None:
    run_until(chain, "blocks", images)
    assert chain.after.seen == 0


@pytest.mark.parametrize("name", ["stem", "blocks.0", "blocks", "after", "fc"])
def test_the_halves_make_the_whole(chain: Chain, images: Tensor, name: str) -> None:
    halves = run_from(chain, name, run_until(chain, name, images), torch.zeros(1, 3, 8, 8))
    torch.testing.assert_close(halves, chain(images))


def test_run_from_uses_the_activations_alone(chain: Chain, images: Tensor) -> None:
    activations = run_until(chain, "blocks", images)
    first = run_from(chain, "blocks", activations, torch.zeros(1, 3, 8, 8))
    assert torch.equal(run_from(chain, "blocks", activations, torch.ones(1, 3, 32, 32)), first)
    assert not torch.equal(run_from(chain, "blocks", 2 * activations, torch.zeros(1, 3, 8, 8)), first)


def test_gradients_flow_through_the_second_half(chain: Chain, images: Tensor) -> None:
    activations = run_until(chain, "stem", images).detach()
    run_from(chain, "stem", activations, torch.zeros(1, 3, 8, 8)).sum().backward()
    assert chain.blocks[0].weight.grad is not None
    assert chain.stem.weight.grad is None


def test_a_softcam_model_runs_in_halves(make_black_box: Callable[..., nn.Module], images: Tensor) -> None:
    model = convert(make_black_box().eval(), images=images)
    activations = run_until(model, "body.2", images)
    evidence = run_from(model.with_evidence(), "body.2", activations, images[:1, :, :8, :8])
    assert isinstance(evidence, Evidence)
    torch.testing.assert_close(evidence.maps, model.evidence(images).maps)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_no_hook_is_left(chain: Chain, images: Tensor) -> None:
    run_from(chain, "stem", run_until(chain, "stem", images), images[:1])
    with pytest.raises(RuntimeError):
        run_until(chain, "fc", torch.zeros(1, 5, 8, 8))
    with pytest.raises(RuntimeError):
        run_from(chain, "stem", torch.zeros(1, 5, 8, 8), images[:1])
    assert hooks(chain) == 0


def test_a_module_that_does_not_run_is_named(chain: Chain, images: Tensor) -> None:
    chain.idle = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Expected submodule 'idle' to run in the forward pass"):
        run_until(chain, "idle", images)
    assert hooks(chain) == 0


def test_resolve_module_finds_names_inside_a_wrapper(make_black_box: Callable[..., nn.Module], images: Tensor) -> None:
    model = convert(make_black_box(), images=images)
    assert resolve_module(model, "body.0") is model.features.network.body[0]
    assert resolve_module(model, "features.network.body.0") is model.features.network.body[0]
    assert resolve_module(model.with_evidence(), "body.0") is model.features.network.body[0]
    assert resolve_module(model, "head") is model.head


@pytest.mark.parametrize("name", ["block", "stem.0", "locks"])
def test_an_unknown_module_is_refused_with_a_choice(chain: Chain, name: str) -> None:
    with pytest.raises(ValueError, match=rf"Expected `name` to be one submodule, but got '{name}'.*stem, blocks"):
        resolve_module(chain, name)


def test_an_ambiguous_module_is_refused(make_black_box: Callable[..., nn.Module], images: Tensor) -> None:
    pair = nn.ModuleList([convert(make_black_box(), images=images) for _ in range(2)])
    with pytest.raises(ValueError, match=r"to be one submodule, but got 'body\.0'"):
        resolve_module(pair, "body.0")


@pytest.mark.parametrize("name", ["stem", "blocks", "after"])
def test_a_clean_cut_passes(chain: Chain, name: str) -> None:
    check_cut(chain, name, torch.randn(2, 3, 48, 40))


def test_a_cut_past_a_skip_connection_is_refused() -> None:
    network = Skipping().eval()
    check_cut(network, "stem", torch.randn(2, 3, 48, 40))
    with pytest.raises(ValueError, match="later layers also see earlier ones"):
        check_cut(network, "blocks", torch.randn(2, 3, 48, 40))


def test_the_tolerance_decides() -> None:
    network = Skipping().eval()
    check_cut(network, "blocks", torch.randn(2, 3, 48, 40), tolerance=1e3)


@pytest.mark.parametrize("error", [RuntimeError, AssertionError])
def test_a_network_that_needs_its_own_image_size_is_driven_with_it(error: type[Exception]) -> None:
    class Strict(Chain):
        def forward(self, images: Tensor) -> Tensor:
            if images.shape[-1] != 48:
                raise error("only 48 px")
            return super().forward(images)

    assert check_cut(Strict(), "stem", torch.randn(2, 3, 40, 48)).shape == (1, 3, 40, 48)
    assert check_cut(Chain(), "stem", torch.randn(2, 3, 40, 48)).shape == (1, 3, 32, 32)


def test_a_network_that_counts_its_images_is_refused_with_its_own_words() -> None:
    class Single(Chain):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) == 1:
                raise RuntimeError("only pairs")
            return super().forward(images)

    with pytest.raises(ValueError, match="Expected 'stem' to be the only way through the network, but only pairs"):
        check_cut(Single(), "stem", torch.randn(2, 3, 48, 48))


def test_check_cut_leaves_modes_and_statistics(chain: Chain) -> None:
    chain.train()
    chain.blocks.eval()
    before = {key: value.clone() for key, value in chain.state_dict().items()}
    check_cut(chain, "stem", torch.randn(2, 3, 48, 40))
    assert [chain.training, chain.stem.training, chain.blocks[1].training] == [True, True, False]
    assert all(torch.equal(before[key], value) for key, value in chain.state_dict().items())
