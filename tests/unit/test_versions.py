from __future__ import annotations

from importlib import metadata

import pytest

from softcam.versions import installed_versions


def test_what_is_not_installed_is_left_out_and_the_order_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"b": "2.0", "a": "1.0+cpu"}

    def version(name: str) -> str:
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(metadata, "version", version)
    assert list(installed_versions(["b", "absent", "a"]).items()) == [("b", "2.0"), ("a", "1.0+cpu")]


def test_versions_are_those_of_the_environment() -> None:
    assert installed_versions(["pytest"]) == {"pytest": pytest.__version__}
