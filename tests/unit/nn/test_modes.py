from __future__ import annotations

import pytest
from torch import nn

from softcam.nn.modes import evaluating, is_batch_norm


def _fail(training: bool) -> None:
    assert not training
    raise ZeroDivisionError


def test_evaluating_restores_each_module() -> None:
    net = nn.Sequential(nn.Sequential(nn.BatchNorm2d(2)), nn.Dropout()).train()
    net[0].eval()
    with pytest.raises(ZeroDivisionError), evaluating(net):
        _fail(any(module.training for module in net.modules()))
    assert net.training
    assert net[1].training
    assert not net[0].training
    assert not net[0][0].training


@pytest.mark.parametrize(
    ("module", "expected"),
    [(nn.BatchNorm1d(2), True), (nn.BatchNorm3d(2), True), (nn.SyncBatchNorm(2), True), (nn.GroupNorm(1, 2), False)],
)
def test_batch_norms_are_told_from_other_norms(module: nn.Module, expected: bool) -> None:
    assert is_batch_norm(module) is expected
