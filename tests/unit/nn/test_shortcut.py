from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from softcam.nn.shortcut import record_outputs, shortcut


class Counted(nn.Module):
    """Adds a number and counts its calls."""

    def __init__(self, number: float = 1.0) -> None:
        super().__init__()
        self.number = number
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.number


class Net(nn.Module):
    """Two stages, the first of two layers, and one layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(Counted(), Counted())
        self.twice = Counted()
        self.second = Counted(10.0)
        self.idle = Counted()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.twice(self.twice(self.first(x))))


@pytest.fixture
def net() -> Net:
    return Net()


ONE = torch.zeros(1, 2)


def never() -> bool:
    return False


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_the_outermost_modules_that_ran_once_are_recorded(net: Net) -> None:
    outputs = record_outputs(net, lambda: net(ONE), until=never).outputs
    assert list(outputs) == [net.first, net.second]
    assert [output.tolist() for output in outputs.values()] == [[[2.0, 2.0]], [[14.0, 14.0]]]


def test_nothing_is_recorded_after_the_point(net: Net) -> None:
    outputs = record_outputs(net, lambda: net(ONE), until=lambda: net.twice.calls > 0).outputs
    assert list(outputs) == [net.first]
    outputs = record_outputs(net, lambda: net(ONE), until=lambda: net.first[0].calls > 0).outputs
    assert outputs == {}


def test_inner_modules_stand_in_where_the_outer_one_ends_after_the_point(net: Net) -> None:
    outputs = record_outputs(net, lambda: net(ONE), until=lambda: net.first[1].calls > 0).outputs
    assert list(outputs) == [net.first[0]]


def test_a_module_that_runs_again_after_the_point_is_left_alone(net: Net) -> None:
    outputs = record_outputs(net, lambda: net(ONE), until=lambda: net.twice.calls > 1).outputs
    assert net.twice not in outputs


def test_the_clock_is_read_around_what_is_recorded(net: Net) -> None:
    layers = [*net.first, net.twice, net.second]

    def clock() -> int:
        return sum(layer.calls for layer in layers)

    assert record_outputs(net, lambda: net(ONE), until=never, clock=clock).ticks == 3
    before = net.twice.calls
    recording = record_outputs(net, lambda: net(ONE), until=lambda: net.twice.calls > before, clock=clock)
    assert recording.ticks == 2
    assert record_outputs(net, lambda: net(ONE), until=never).ticks == 0


class Giving(nn.Module):
    """Gives whatever it was told to."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, _: Tensor) -> Any:
        return self.output


RECORDED: dict[str, tuple[Any, bool]] = {
    "one image": (torch.zeros(1, 2), True),
    "several tensors": ((torch.zeros(1, 2), [torch.zeros(1, 3, 4)]), True),
    "a dictionary": ({"map": torch.zeros(1, 2)}, True),
    "two images": (torch.zeros(2, 2), False),
    "a tensor and a size": ((torch.zeros(1, 2), 7), False),
    "one number": (torch.zeros(1), False),
    "nothing": ((), False),
    "none": (None, False),
}


@pytest.mark.parametrize("name", RECORDED)
def test_only_tensors_of_one_image_are_recorded(name: str) -> None:
    output, expected = RECORDED[name]
    network = nn.Sequential(Giving(output))
    assert bool(record_outputs(network, lambda: network(ONE), until=never).outputs) == expected


def test_no_hook_is_left_after_recording(net: Net) -> None:
    record_outputs(net, lambda: net(ONE), until=never)
    with pytest.raises(TypeError):
        record_outputs(net, lambda: net(None), until=never)
    assert hooks(net) == 0


def test_recorded_modules_answer_without_running(net: Net) -> None:
    outputs = record_outputs(net, lambda: net(ONE), until=lambda: net.twice.calls > 0).outputs
    calls = net.first[0].calls
    with shortcut(outputs, 3):
        # What comes in does not matter before the point.
        found = net(torch.full((3, 2), 99.0))
    assert net.first[0].calls == calls
    assert found.tolist() == [[14.0, 14.0]] * 3
    assert net(torch.full((1, 2), 1.0)).tolist() == [[15.0, 15.0]]


def test_containers_are_repeated_leaf_by_leaf() -> None:
    module = Giving(({"a": torch.ones(1, 2)}, [torch.zeros(1, 3, 4)]))
    with shortcut({module: module.output}, 5):
        named, (other,) = module(torch.zeros(5, 1), flag=True)
    assert named["a"].shape == (5, 2)
    assert other.shape == (5, 3, 4)
    assert named["a"].sum() == 10


def test_modules_run_again_after_an_exception(net: Net) -> None:
    with pytest.raises(KeyError), shortcut({net.first: ONE, net.second: ONE}, 2):
        raise KeyError
    assert "forward" not in vars(net.first)
    assert net(ONE).tolist() == [[14.0, 14.0]]


def test_a_forward_of_the_user_s_own_comes_back(net: Net) -> None:
    def doubled(x: Tensor) -> Tensor:
        return 2 * x

    net.second.forward = doubled  # type: ignore[method-assign]
    with shortcut({net.second: ONE}, 2):
        assert net.second(ONE).tolist() == [[0.0, 0.0]] * 2
    assert net.second.forward is doubled
    assert net(ONE).tolist() == [[8.0, 8.0]]
