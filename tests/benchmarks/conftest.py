"""The benchmarks' modules, which are scripts beside each other and no package."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import one of the benchmarks' modules."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module
