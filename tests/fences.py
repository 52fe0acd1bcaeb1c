"""The fenced blocks of a page of Markdown, also where a list indents them."""

from __future__ import annotations

import re
from pathlib import Path


def read_blocks(page: Path, language: str) -> list[str]:
    """Return the contents of a page's blocks in a language, without the indentation of a list around them."""
    blocks = re.finditer(rf"^( *)```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [re.sub(rf"^{block[1]}", "", block[2], flags=re.M) for block in blocks]
