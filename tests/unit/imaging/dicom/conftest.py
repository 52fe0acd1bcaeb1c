"""DICOM files of few pixels, with whatever elements a test is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PATIENT = "MARKED^PATIENT"


@pytest.fixture(scope="session")
def test_files() -> Path:
    """The odd, broken and compressed files that come with pydicom."""
    pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")
    return Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture
def make_item() -> Callable[..., Any]:
    """Build a data set, such as an item of a sequence."""
    pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")

    def build(**elements: Any) -> Any:
        item = pydicom.Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        return item

    return build
