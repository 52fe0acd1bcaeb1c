"""What every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

# Tests run side by side; more threads than cores would only wait for each other.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real medical samples; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real medical samples are not here: {folder.name} is absent beside the checkout")
    return folder
