from __future__ import annotations

import logging
import os
import signal
import warnings

import pytest
import torch

from softcam.training.state import borrowed_process


def _make_a_mess() -> None:
    torch.rand(3)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise ZeroDivisionError


def test_everything_borrowed_is_given_back_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    random = torch.get_rng_state()
    handler = signal.getsignal(signal.SIGINT)
    filters = list(warnings.filters)
    level = logging.getLogger("lightning.pytorch").level
    with pytest.raises(ZeroDivisionError), borrowed_process():
        _make_a_mess()
    assert torch.equal(torch.get_rng_state(), random)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert signal.getsignal(signal.SIGINT) is handler
    assert warnings.filters == filters
    assert logging.getLogger("lightning.pytorch").level == level


def test_a_setting_of_the_user_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with borrowed_process():
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_lightning_is_quiet_within() -> None:
    with borrowed_process():
        assert not logging.getLogger("lightning.pytorch").isEnabledFor(logging.WARNING)
