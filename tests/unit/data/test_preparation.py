"""Preparing a download: whole files, resumption, skips, the record, worker processes that die."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from softcam.data import preparation
from softcam.data.archives import Member
from softcam.data.downloads import Download, Order, Plan, PreparationSettings, Product, Row
from softcam.data.preparation import prepare
from softcam.errors import ImageError, ManifestError
from softcam.imaging import decode_image

ALONE = PreparationSettings(workers=1)


def plan(members: Sequence[Member], settings: PreparationSettings) -> Plan:
    """Every file is an image; the digit in its name decides everything."""
    splits = ("train", "val", "test")
    orders = []
    for number, member in enumerate(members):
        row = {"label": (settings.labels or "x") + str(number % 2), "split": splits[number % 3], "patient": member.stem}
        orders.append(Order(member.stem, (member,), row))
    return Plan(tuple(orders), (("lost.png", "not in the download"),), {"things": 3})


def convert(stem: str, contents: Sequence[bytes], size: int | None) -> Product:
    """Keep the image and note its width."""
    image = decode_image(contents[0])
    return Product({f"images/{stem}.png": contents[0]}, {"width": image.width, "size": size})


def complete(row: Row, facts: Row) -> Row:
    """Add what was found; wide images are refused."""
    if facts["width"] > 50:
        raise ImageError("too wide")
    return row | facts


TOY = Download("toy", "toys", {"x": ("x0", "x1"), "y": ("y0", "y1")}, 64, plan, convert, complete)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six images and one file that is none."""
    folder = tmp_path / "download"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(np.full((20, 20 + number), 30 * number, np.uint8)).save(folder / f"{number}.png")
    (folder / "3b.png").write_bytes(b"no image")
    return folder


def test_everything_is_written_and_the_bad_is_named(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = prepare(TOY, source, tmp_path / "out", ALONE, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 7) for number in range(1, 8)]
    assert len(found.manifest) == 6
    assert found.manifest.classes == ("x0", "x1")
    assert found.skipped[0] == ("lost.png", "not in the download")
    assert found.skipped[1][0] == "3b.png"
    table = pd.read_csv(tmp_path / "out/skipped.csv")
    assert table.to_dict("list") == {"image": ["lost.png", "3b.png"], "reason": [reason for _, reason in found.skipped]}
    assert "PNG" in found.skipped[1][1]
    written = pd.read_csv(tmp_path / "out/manifest.csv")
    assert list(written.columns) == ["image", "label", "split", "patient", "width", "size"]
    assert written["width"].tolist() == [20, 21, 22, 23, 24, 25]
    record = json.loads((tmp_path / "out/data.json").read_text())
    assert record == found.record
    assert record["digest"] == found.manifest.digest()
    assert (record["images"], record["patients"], record["skipped"]) == (6, 6, 2)
    assert record["notes"] == {"things": 3}
    assert record["arguments"] == {"splits": None, "size": 64, "seed": 0}
    assert record["counts"]["train"] == {"x0": 2, "x1": 1}
    assert not [path for path in (tmp_path / "out").rglob("*") if "partial" in path.name]


def test_the_same_call_goes_on_and_does_nothing_twice(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(stem: str, contents: Sequence[bytes], size: int | None) -> Product:
        calls.append(stem)
        if stem == "4" and len(calls) == 6:
            raise KeyboardInterrupt
        return convert(stem, contents, size)

    download, out = replace(TOY, convert=counted), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare(download, source, out, ALONE)
    assert not (out / "manifest.csv").exists()
    assert calls == ["0", "1", "2", "3", "3b", "4"]
    # The line that was being written, an image that has gone and one that is only half there are done again.
    with (out / "preparation.jsonl").open("a") as journal:
        journal.write('{"stem": "5", "fil')
    (out / "images/1.png").unlink()
    (out / "images/2.png").write_bytes(b"half")
    calls.clear()
    first = prepare(download, source, out, ALONE)
    assert calls == ["1", "2", "3b", "4", "5"]
    calls.clear()
    assert prepare(download, source, out, ALONE).record == first.record
    assert calls == ["3b"]
    fresh = prepare(TOY, source, tmp_path / "fresh", ALONE)
    assert (tmp_path / "fresh/manifest.csv").read_bytes() == (out / "manifest.csv").read_bytes()
    assert fresh.record == first.record
    monkeypatch.setattr(preparation, "__version__", "another")
    with pytest.raises(ManifestError, match=r"to be begun with .*another"):
        prepare(download, source, out, ALONE)


def test_other_labels_rewrite_the_tables_alone(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(TOY, source, out, ALONE)
    times = {path: path.stat().st_mtime_ns for path in (out / "images").iterdir()}
    found = prepare(TOY, source, out, replace(ALONE, labels="y"))
    assert found.manifest.classes == ("y0", "y1")
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_folder_of_something_else_is_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(TOY, source, out, ALONE)
    with pytest.raises(ManifestError, match=r"to be begun with .*\"size\": 32.*but got .*\"size\": 64"):
        prepare(TOY, source, out, replace(ALONE, size=32))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("x")
    with pytest.raises(ManifestError, match="new, empty or begun with the same data set"):
        prepare(TOY, source, tmp_path / "full", ALONE)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_nothing_usable_is_an_error_that_points_at_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "download").mkdir()
    (tmp_path / "download/a.png").write_bytes(b"no image")
    with pytest.raises(ManifestError, match=r"at least one usable image.*skipped\.csv"):
        prepare(TOY, tmp_path / "download", tmp_path / "out", ALONE)
    assert pd.read_csv(tmp_path / "out/skipped.csv")["image"].tolist() == ["lost.png", "a.png"]
    assert not (tmp_path / "out/manifest.csv").exists()


def test_what_the_table_cannot_hold_is_skipped_with_its_reason(source: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 60), np.uint8)).save(source / "9.png")
    found = prepare(TOY, source, tmp_path / "out", ALONE)
    assert ("9.png", "too wide") in found.skipped
    assert not (tmp_path / "out/images/9.png").exists()


def test_a_list_of_skips_goes_once_nothing_is_skipped(source: Path, tmp_path: Path) -> None:
    prepare(TOY, source, tmp_path / "out", ALONE)
    (source / "3b.png").unlink()
    clean = replace(TOY, plan=lambda members, settings: replace(plan(members, settings), skipped=()))
    assert prepare(clean, source, tmp_path / "out", ALONE).skipped == ()
    assert not (tmp_path / "out/skipped.csv").exists()


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[ModuleType]:
    """A module that worker processes can import, whose decoder brings its process down at one image."""
    code = """
import os
from softcam.data.downloads import Download, Order, Plan, Product

def plan(members, settings):
    rows = [{"label": str(n % 2), "split": "test", "patient": m.stem} for n, m in enumerate(members)]
    return Plan(tuple(Order(m.stem, (m,), row) for m, row in zip(members, rows)))

def convert(stem, contents, size):
    if contents[0] == b"crash":
        os._exit(1)
    return Product({f"images/{stem}.png": contents[0]}, {"process": os.getpid()})

def complete(row, facts):
    return row | facts

FRAGILE = Download("fragile", "", {"x": ("0", "1")}, None, plan, convert, complete)
"""
    (tmp_path / "fragile_download.py").write_text(code)
    sys.path.insert(0, str(tmp_path))
    yield importlib.import_module("fragile_download")
    sys.path.remove(str(tmp_path))
    del sys.modules["fragile_download"]


@pytest.mark.slow
def test_workers_that_cannot_start_are_an_error_of_their_own(source: Path, tmp_path: Path) -> None:
    code = (
        "from softcam.data.sources import PreparationSettings, prepare_download\n"
        f"prepare_download('idrid', {str(source)!r}, {str(tmp_path / 'out')!r}, PreparationSettings(workers=2))\n"
    )
    (source / "0_MA.png").write_bytes((source / "0.png").read_bytes())
    (source / "1_MA.png").write_bytes((source / "1.png").read_bytes())
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=300, check=False)
    assert "Expected worker processes to start" in done.stderr
    assert not (tmp_path / "out/skipped.csv").exists()


@pytest.mark.slow
def test_workers_share_the_work_and_survive_a_decoder_that_crashes(fragile: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "download"
    source.mkdir()
    for number in range(40):
        (source / f"{number:02}.png").write_bytes(b"crash" if number == 17 else b"%d" % number)
    found = prepare(fragile.FRAGILE, source, tmp_path / "out", PreparationSettings(workers=2))
    assert found.skipped == (("17.png", "its decoder crashed"),)
    assert [path.read_bytes() for path in found.manifest.paths] == [b"%d" % n for n in range(40) if n != 17]
    assert len(set(found.manifest.table["process"])) > 1
