"""The README's tables are what the committed results say."""

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


@pytest.mark.parametrize("name", ["demo", "cost", "conversion"])
def test_a_changed_table_is_found_and_mended(tmp_path: Path, name: str) -> None:
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    true = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.compile(rf"(<!-- {name}:begin -->\n.*?)\d(.*?<!-- {name}:end -->)", re.S)
    false, changes = block.subn(r"\1X\2", true)
    assert changes == 1
    (tmp_path / "README.md").write_text(false, encoding="utf-8")
    assert render(tmp_path, "--check") == 1
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == false
    assert render(tmp_path) == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == true
