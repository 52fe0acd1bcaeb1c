"""The table of the files that come with pydicom says what becomes of them today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_files_are_read_as_the_table_says() -> None:
    pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")
    command = [sys.executable, ROOT / "benchmarks" / "dicom_files.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}; run `python benchmarks/dicom_files.py`"
