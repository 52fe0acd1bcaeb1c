"""Every target of `make fuzz` holds for some seconds; the long run is `make fuzz`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris is there on Linux alone")

TARGETS = ("boxes", "config", "dicom", "image", "polyglot", "recipe")


@pytest.mark.slow
def test_nothing_unexpected_is_raised(tmp_path: Path) -> None:
    script = Path(__file__).with_name("targets.py")
    command = [sys.executable, str(script), *TARGETS, "--seconds", "3", "--corpus", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [f"{target}: nothing found" for target in TARGETS]
    assert not list(tmp_path.rglob("crash-*"))
