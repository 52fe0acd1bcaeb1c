from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcam.errors import MissingExtraError
from softcam.libraries import load_library


def test_present_library_is_returned() -> None:
    assert load_library("math", extra="peers") is math


def test_missing_library_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"'absent-one' to be installed. Run: pip install 'softcam\[peers\]'"):
        load_library("absent_one.part", extra="peers", package="absent-one")


def test_a_library_is_called_by_the_first_part_of_its_module() -> None:
    with pytest.raises(MissingExtraError, match=r"'absent_one' to be installed. Run: pip install 'softcam\[onnx\]'"):
        load_library("absent_one.part", extra="onnx")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with a module, one that needs a library of an extra, and one that needs another."""
    folder = tmp_path / "lazypackage"
    folder.mkdir()
    (folder / "one.py").write_text("value = object()", encoding="utf-8")
    (folder / "two.py").write_text("import absent_library.part\nother = 1", encoding="utf-8")
    (folder / "three.py").write_text("import unknown_library\nthird = 1", encoding="utf-8")
    (folder / "__init__.py").write_text(
        "from softcam.libraries import lazy_names\n"
        "__all__ = ['other', 'third', 'value']\n"
        "homes = {'value': 'one', 'other': 'two', 'third': 'three'}\n"
        "libraries = frozenset({'absent_library'})\n"
        "__getattr__, __dir__ = lazy_names(__name__, homes, extra='onnx', libraries=libraries)\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "lazypackage"
    for name in [name for name in sys.modules if name.partition(".")[0] == "lazypackage"]:
        del sys.modules[name]


def test_a_name_is_imported_when_it_is_used_and_kept(package: str) -> None:
    found = __import__(package)
    assert f"{package}.one" not in sys.modules
    assert found.value is found.value is sys.modules[f"{package}.one"].value
    assert "value" in vars(found)
    assert dir(found) == ["other", "third", "value"]


def test_a_name_whose_library_is_absent_names_the_extra(package: str) -> None:
    found = __import__(package)
    with pytest.raises(MissingExtraError, match=r"'absent_library' .* 'softcam\[onnx\]'"):
        _ = found.other
    with pytest.raises(ModuleNotFoundError, match="unknown_library"):
        _ = found.third


def test_another_name_is_no_attribute(package: str) -> None:
    with pytest.raises(AttributeError, match="module 'lazypackage' has no attribute 'fourth'"):
        _ = __import__(package).fourth
