"""The documents' tables are what the committed results say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def render(root: Path, *flags: str) -> int:
    return subprocess.run([sys.executable, root / "benchmarks" / "render_tables.py", *flags], check=False).returncode


def test_the_tables_are_current() -> None:
    assert render(ROOT, "--check") == 0, "run `python benchmarks/render_tables.py`"


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("demo", "README.md"),
        ("cost", "docs/explanation/cost.md"),
        ("conversion", "docs/explanation/conversion.md"),
        ("export", "docs/how-to/export.md"),
        ("dicom-files", "docs/how-to/dicom.md"),
    ],
)
def test_a_changed_table_is_found_and_mended(tmp_path: Path, name: str, document: str) -> None:
    for folder in ("benchmarks", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "README.md", tmp_path)
    true = (ROOT / document).read_text(encoding="utf-8")
    block = re.compile(rf"(<!-- {name}:begin -->\n.*?)\d(.*?<!-- {name}:end -->)", re.S)
    false, changes = block.subn(r"\1X\2", true)
    assert changes == 1
    (tmp_path / document).write_text(false, encoding="utf-8")
    assert render(tmp_path, "--check") == 1
    assert (tmp_path / document).read_text(encoding="utf-8") == false
    assert render(tmp_path) == 0
    assert (tmp_path / document).read_text(encoding="utf-8") == true
