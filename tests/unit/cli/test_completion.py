"""A shell completes what the parser takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import shtab

from softcam.cli import main
from softcam.cli.program import COMMANDS


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "softcam.bash"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


def complete(script: Path, *words: str) -> list[str]:
    """Return what bash offers for the last word."""
    function = re.findall(r"complete .*-F (\S+) softcam", script.read_text(encoding="utf-8"))[-1]
    quoted = " ".join(f"'{word}'" for word in ("softcam", *words))
    asked = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; {function} softcam '{words[-1]}' x"
    command = f'source {script}; {asked}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    bash = shutil.which("bash")
    assert bash is not None
    return subprocess.run([bash, "-c", command], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([""], [*COMMANDS]),
        (["ex"], ["explain", "export"]),
        (["explain", "--bat"], ["--batch-size"]),
        (["explain", "--backend", ""], ["auto", "torch", "onnxruntime", "openvino"]),
        (["data", ""], ["prepare", "synthesize", "check"]),
    ],
)
def test_bash_is_offered_what_the_parser_takes(script: Path, words: list[str], expected: list[str]) -> None:
    assert complete(script, *words) == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("words", [["explain"], ["explain", "--out"], ["serve", "--config"]])
def test_files_are_offered_where_files_are_wanted(script: Path, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "folder-of-a-model").mkdir()
    assert complete(script, *words, f"{tmp_path}/fold") == [f"{tmp_path}/folder-of-a-model"]


@pytest.mark.parametrize("shell", shtab.SUPPORTED_SHELLS)
def test_every_shell_has_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in said] == []
