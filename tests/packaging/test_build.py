"""What is built holds everything, says what it is, and runs without the checkout."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from softcam._version import __version__

ROOT = Path(__file__).parents[2]


def build(source: Path, folder: Path, kind: str) -> Path:
    pytest.importorskip("hatchling", reason="hatchling comes with the extra `dev`")
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def list_files(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    ours = {f"softcam/{path.relative_to(ROOT / 'src' / 'softcam').as_posix()}" for path in list_sources()}
    found = {name for name in list_files(wheel) if ".dist-info/" not in name}
    assert found == ours
    assert {"softcam/py.typed", "softcam/viewer/static/index.html"} <= found


def list_sources() -> list[Path]:
    paths = (ROOT / "src" / "softcam").rglob("*")
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


def test_it_says_what_it_is(wheel: Path, metadata: Message) -> None:
    assert metadata["Name"] == "softcam"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in list_files(wheel))
    with ZipFile(wheel) as archive:
        (entry,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "softcam = softcam.cli:main" in archive.read(entry).decode()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == __version__


def test_from_the_sdist_the_same_wheel_is_built(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(sdist, tmp_path / "unpacked")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert (source / "tests").is_dir()
    (tmp_path / "built").mkdir()
    assert list_files(build(source, tmp_path / "built", "wheel")) == list_files(wheel)


def test_it_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        "import softcam, softcam.viewer.page as page; from softcam.cli import main; "
        "print(softcam.__file__); assert b'<html' in page.read_index().content; main(['models', '--help'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(tmp_path / "site" / "softcam" / "__init__.py")
