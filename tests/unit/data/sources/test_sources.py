"""The data sets by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from softcam.data import sources


def test_a_source_is_prepared_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "SOURCES", {"some": lambda out, *, seed: (out, seed)})
    assert sources.prepare_source("some", tmp_path, seed=3) == (tmp_path, 3)


def test_an_unknown_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"built-in data set \(elpv\), but got 'elvp'"):
        sources.prepare_source("elvp", tmp_path)


def test_a_download_is_known_by_name(tmp_path: Path) -> None:
    assert list(sources.DOWNLOADS) == ["kaggle-dr", "retinal-oct", "rsna", "idrid"]
    assert all(name == download.name for name, download in sources.DOWNLOADS.items())
    with pytest.raises(ValueError, match="one of kaggle-dr, retinal-oct, rsna, idrid, but got 'chest'"):
        sources.prepare_download("chest", tmp_path, tmp_path / "out")
