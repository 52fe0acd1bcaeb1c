from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from softcam.attribution.state import borrowed, check_logits, checked_output, hooked


def model() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 2)).train()
    net[1].eval()
    net[0].weight.requires_grad_(requires_grad=False)
    net[2].weight.grad = torch.ones(2, 3)
    return net


def test_borrowed_model_runs_in_eval_without_gradients() -> None:
    net = model()
    with borrowed(net) as inner:
        assert inner is net
        assert not any(module.training for module in net.modules())
        assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("error", [None, KeyError])
def test_borrowed_model_comes_back_as_it_was(error: type[Exception] | None) -> None:
    net = model()
    kept = net[2].weight.grad
    with pytest.raises(error) if error else nullcontext(), borrowed(net):
        net[2](torch.randn(1, 3)).sum().backward()
        net.requires_grad_()
        if error:
            raise error
    assert [module.training for module in net.modules()] == [True, True, False, True]
    assert net[2].weight.grad is kept
    assert torch.equal(net[2].weight.grad, torch.ones(2, 3))
    assert net[2].bias.grad is None
    assert [parameter.requires_grad for parameter in net.parameters()] == [False, True, True, True]


def test_output_is_watched_only_inside() -> None:
    net = nn.Linear(2, 3)
    with checked_output(net, torch.tensor([2])):
        net(torch.zeros(1, 2))
    with (
        pytest.raises(ValueError, match=r"in \[0, 2\], but got a class index of 3"),
        checked_output(net, torch.tensor([0, 3])),
    ):
        net(torch.zeros(1, 2))
    net(torch.zeros(1, 2))
    assert not net._forward_hooks


def test_logits_have_two_dimensions() -> None:
    with pytest.raises(ValueError, match=r"return logits \(N, K\), but got \(2,\)"):
        check_logits(torch.zeros(2), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match=r"return logits \(N, K\), but got tuple"):
        check_logits((torch.zeros(2, 2),), torch.tensor([0, 0]))


def test_hook_works_only_inside_and_goes_after_a_failure() -> None:
    net = nn.Linear(2, 2, bias=False)
    with hooked(net, lambda _module, _inputs, output: output + 1):
        assert net(torch.zeros(1, 2)).tolist() == [[1.0, 1.0]]
    assert net(torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]
    with pytest.raises(KeyError), hooked(net, lambda *_: None):
        raise KeyError
    assert not net._forward_hooks
